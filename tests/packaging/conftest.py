"""What the packaged forms are built from once, and a Debian without Python to run them in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from namespaces import TwoHosts

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"


def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Runs a step to its end, and shows all that it said where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def dist(root: Path) -> Path:
    """dist/ with the wheels and sdists of this checkout."""
    out = root / "dist"
    shutil.rmtree(out, ignore_errors=True)
    run([sys.executable, "packaging/wheels.py", "--out", str(out)], cwd=root)
    return out


@pytest.fixture(scope="session")
def needs_root() -> None:
    """Skips where this process may neither chroot nor make file systems for itself."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(scope="session")
def debian(root: Path, needs_root: None) -> Path:
    """A minimal Debian made by debootstrap; it has no Python. Not to be written to."""
    if not shutil.which("debootstrap"):
        pytest.skip("needs debootstrap")
    base = root / "build" / "debian"
    if not (base / "complete").exists():
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
        run(["debootstrap", "--variant=minbase", SUITE, str(base / "root"), MIRROR])
        (base / "complete").touch()
    assert not list((base / "root" / "usr" / "bin").glob("python*"))
    return base / "root"


@pytest.fixture
def clean_root(debian: Path, tmp_path: Path) -> Path:
    """A copy of that Debian, for one test to change."""
    copy = tmp_path / "root"
    run(["cp", "-a", "--reflink=auto", str(debian), str(copy)])
    return copy


@pytest.fixture
def two_hosts(network_namespaces: None) -> Iterator[TwoHosts]:
    """Two network namespaces joined by a veth pair."""
    with TwoHosts() as hosts:
        yield hosts


@pytest.fixture(scope="session")
def tree(root: Path, dist: Path) -> Path:
    """The self-contained tree, built from the wheels in dist/."""
    run(["make", "tree-only"], cwd=root)
    return root / "dist" / "tree" / "otus"


Chroot = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def in_chroot(clean_root: Path) -> Chroot:
    """Runs a command inside the clean root."""

    def call(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        line = ["chroot", str(clean_root), "/usr/bin/env", "-i", "LC_ALL=C.UTF-8", "TERM=dumb",
                "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", *command]  # fmt: skip
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)
        if check:
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    return call
