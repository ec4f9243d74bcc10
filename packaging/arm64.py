"""Runs the tests of the core and the SDK over the arm64 wheel, on any machine.

Debian's arm64 Python is unpacked into a folder (nothing is installed), the arm64
wheels of all dependencies go into another, and qemu's user-mode emulation runs
pytest over them. Needs qemu-user-static and apt.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from wheels import GLIBC

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "arm64"
EMULATOR = "qemu-aarch64-static"
PYTHON = "3.11"
TEST_PACKAGES = (
    "hypothesis",
    "pytest",
    "pytest-asyncio",
    "pytest-benchmark",
    "pytest-timeout",
)
TESTS = ("tests/core", "tests/sdk")


def fetch_python(system: Path) -> None:
    """Unpacks Debian's arm64 Python, with what it links, into `system`."""
    if (system / "usr" / "bin" / f"python{PYTHON}").exists():
        return
    state = WORK / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    # A package database of its own: the machine's knows no arm64, and need not.
    apt = [
        "apt-get", "-qq", "-y", "--no-install-recommends",
        "-o", f"Dir::State={state}",
        "-o", f"Dir::State::lists={state}/lists",
        "-o", f"Dir::State::status={state}/status",
        "-o", f"Dir::Cache={state}",
        "-o", f"Dir::Cache::archives={state}/archives",
        "-o", "APT::Architecture=arm64",
        "-o", "APT::Architectures=arm64",
        "-o", "APT::Sandbox::User=root",
        "-o", "Debug::NoLocking=true",
    ]  # fmt: skip
    subprocess.run([*apt, "update"], check=True)
    subprocess.run(
        [*apt, "--download-only", "install", f"python{PYTHON}", "libpcap0.8"], check=True
    )
    for package in sorted((state / "archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(system)], check=True)


def install_wheels(target: Path, dist: Path) -> None:
    """Installs the arm64 wheel from `dist`, and what it and the tests need, into `target`."""
    # Each glibc from RHEL 7's to ours, the newest first.
    policies = [*(f"manylinux_2_{minor}" for minor in range(28, 16, -1)), "manylinux2014"]
    platforms = [item for policy in policies for item in ("--platform", f"{policy}_aarch64")]
    abis = [item for abi in ("cp311", "abi3", "none") for item in ("--abi", abi)]
    (wheel,) = dist.glob("otus-*aarch64.whl")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(target),
         "--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON,
         *platforms, *abis, "--find-links", str(dist), str(wheel), *TEST_PACKAGES],
        check=True,
    )  # fmt: skip


# What tests compile of the core for themselves is to be arm64 as well; the machine can't
# start such a program, so what is left in its place is a script that emulates it.
COMPILER = """\
#!/bin/sh
out=
program=yes
before=
for word in "$@"; do
    [ "$before" != -o ] || out=$word
    case $word in -c | -shared) program=no ;; esac
    before=$word
done
{python} -I -m ziglang cc -target aarch64-linux-gnu.{glibc} "$@" -fno-sanitize=undefined || exit
[ $program = yes ] || exit 0
out=$(realpath "$out")
mv "$out" "$out.arm64"
printf '#!/bin/sh\\nexec {emulator} -L {system} %s "$@"\\n' "$out.arm64" > "$out"
chmod +x "$out"
"""


def write_compiler(system: Path) -> Path:
    """Writes a `cc` that compiles for arm64; returns the folder that it is in."""
    folder = WORK / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    text = COMPILER.format(python=sys.executable, glibc=GLIBC, emulator=EMULATOR, system=system)
    (folder / "cc").write_text(text)
    (folder / "cc").chmod(0o755)
    return folder


def run_tests(system: Path, target: Path, arguments: list[str]) -> int:
    """Runs pytest under emulation; returns its exit code."""
    emulated = [EMULATOR, "-L", str(system), str(system / "usr" / "bin" / f"python{PYTHON}")]
    # -P: the checkout's own packages must not stand in for the wheel's.
    command = [*emulated, "-P", "-m", "pytest", "-p", "no:cacheprovider"]
    # Emulation is ten times slower than a machine of its own.
    command += ["-o", "timeout=900", *arguments]
    command += [folder for folder in TESTS if (ROOT / folder).is_dir()]
    environment = {
        **os.environ,
        "PYTHONPATH": str(target),
        "OTUS_EMULATED": "1",
        "PATH": f"{write_compiler(system)}{os.pathsep}{os.environ['PATH']}",
        "CC": "cc",
        # One emulated program for each of its thousands of messages takes an hour.
        "OTUS_CORPUS": str(WORK / "no-corpus"),
    }
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def main() -> int:
    """Prepares what is missing, then runs the tests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    parser.add_argument("pytest_arguments", nargs="*")
    arguments = parser.parse_args()
    system, target = WORK / "system", WORK / "site"
    fetch_python(system)
    install_wheels(target, arguments.dist.resolve())
    return run_tests(system, target, arguments.pytest_arguments)


if __name__ == "__main__":
    sys.exit(main())
