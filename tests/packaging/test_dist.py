"""The uploaded files: both architectures, reproducible, and the sdist builds on its own."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaging


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.iterdir() if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_file_is_there(dist: Path) -> None:
    """One wheel per architecture, the SDK's wheel, and both sdists."""
    names = {path.name for path in dist.iterdir() if path.is_file()}
    wheels = {name for name in names if name.startswith("otus-") and name.endswith(".whl")}
    assert names - wheels == {
        "otus-0.1.0.tar.gz",
        "otus_sdk-0.1.0-py3-none-any.whl",
        "otus_sdk-0.1.0.tar.gz",
    }
    assert sorted(name.rpartition("_")[2] for name in wheels) == ["64.whl", "aarch64.whl"]


def test_wheels_run_on_glibc_2_28(dist: Path) -> None:
    """auditwheel found no symbol newer than the glibc of RHEL 8 and Debian 10."""
    for wheel in dist.glob("otus-*.whl"):
        found = re.search(r"cp311-abi3-.*manylinux_2_(\d+)_(x86_64|aarch64)\.whl$", wheel.name)
        assert found, wheel.name
        assert int(found.group(1)) <= 28


@pytest.mark.parametrize(("architecture", "machine"), [("x86_64", 62), ("aarch64", 183)])
def test_core_is_of_its_architecture(
    dist: Path, tmp_path: Path, architecture: str, machine: int
) -> None:
    """The ELF machine number is the one that the wheel's name promises (ELF, e_machine)."""
    (wheel,) = dist.glob(f"otus-*{architecture}.whl")
    with zipfile.ZipFile(wheel) as archive:
        library = archive.read("otus_core/_native.abi3.so")
    assert library[:4] == b"\x7fELF"
    assert int.from_bytes(library[18:20], "little") == machine


def test_two_builds_give_one_hash(root: Path, dist: Path, tmp_path: Path) -> None:
    """A second build, from a clone in another folder, gives the same octets."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)
    # What is not committed belongs to the first build as well.
    changed = subprocess.run(
        ["git", "diff", "HEAD", "--binary"], cwd=root, check=True, capture_output=True
    ).stdout
    if changed:
        subprocess.run(["git", "apply", "-"], cwd=clone, input=changed, check=True)
    again = tmp_path / "again"
    subprocess.run(
        [sys.executable, "packaging/wheels.py", "--out", str(again)],
        cwd=clone,
        check=True,
        capture_output=True,
    )
    assert digests(again) == digests(dist)


def test_wheel_installs_from_nothing_but_dist(dist: Path, tmp_path: Path) -> None:
    """In a fresh environment the native wheel installs and the core answers."""
    python = fresh_environment(tmp_path)
    install(python, "--find-links", str(dist), "--only-binary", ":all:", "otus")
    assert ask_core(python) == "ok"


def test_sdist_builds_in_a_clean_environment(dist: Path, tmp_path: Path) -> None:
    """Each sdist holds all that its build needs."""
    python = fresh_environment(tmp_path)
    install(python, "--find-links", str(dist), "--no-binary", "otus,otus-sdk", "otus")
    assert ask_core(python) == "ok"


def test_core_and_sdk_pass_on_arm64(root: Path, dist: Path) -> None:
    """The cross-compiled wheel passes the core's and the SDK's tests under emulation."""
    done = subprocess.run(
        [sys.executable, "packaging/arm64.py", "--dist", str(dist)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def fresh_environment(folder: Path) -> Path:
    venv.create(folder / "venv", with_pip=True)
    return folder / "venv" / "bin" / "python"


def install(python: Path, *arguments: str) -> None:
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def ask_core(python: Path) -> str:
    code = (
        "from otus_core import _native as n;print(n.ffi.string(n.lib.otus_status_name(0)).decode())"
    )
    asked = [str(python), "-I", "-c", code]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
