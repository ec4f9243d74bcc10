"""Builds all that is uploaded: the wheels of both distributions and the sdist.

The core is cross-compiled with zig's C compiler against glibc 2.28, so that one
machine makes the wheels of both architectures; auditwheel then checks that
nothing newer is needed and abi3audit that the stable ABI is kept. Equal sources
give equal octets: SOURCE_DATE_EPOCH is the last commit's time unless it is set.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = ("x86_64", "aarch64")
# 2.28 is Debian 10's and RHEL 8's: the oldest that still get security fixes.
GLIBC = "2.28"
# hatchling's own fallback, where there is no git to ask.
FALLBACK_EPOCH = "1580601600"


def run(command: list[str], cwd: Path = ROOT, **environment: str) -> None:
    """Runs one step; a failure ends the build."""
    subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, check=True)


def source_date_epoch() -> str:
    """Returns the time that every file in the archives carries."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return given
    asked = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or FALLBACK_EPOCH


def build_core_wheel(architecture: str, out: Path, epoch: str) -> Path:
    """Cross-compiles one wheel, and returns it as auditwheel left it."""
    compiler = f"{sys.executable} -m ziglang cc -target {architecture}-linux-gnu.{GLIBC}"
    with tempfile.TemporaryDirectory(prefix="otus-wheel-") as scratch:
        run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", scratch],
            CC=compiler,
            # Without debug information, which would hold the checkout's path.
            OTUS_CFLAGS="-O3 -g0 -s",
            OTUS_WHEEL_PLATFORM=f"linux_{architecture}",
            SOURCE_DATE_EPOCH=epoch,
        )
        (wheel,) = Path(scratch).glob("otus-*.whl")
        repaired = Path(scratch) / "repaired"
        run(
            [sys.executable, "-m", "auditwheel", "repair", "--only-plat",
             "--plat", "auto", "-w", str(repaired), str(wheel)],
            SOURCE_DATE_EPOCH=epoch,
            PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        )  # fmt: skip
        (final,) = repaired.glob("otus-*.whl")
        run([sys.executable, "-m", "abi3audit", "--strict", "--assume-minimum-abi3", "3.11",
             str(final)])  # fmt: skip
        return Path(shutil.move(final, out / final.name))


def build_all(out: Path, architectures: tuple[str, ...]) -> list[Path]:
    """Builds everything into `out`, and returns the files."""
    out.mkdir(parents=True, exist_ok=True)
    epoch = source_date_epoch()
    made = [build_core_wheel(architecture, out, epoch) for architecture in architectures]
    hatchling = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    run([*hatchling, "-t", "wheel", "-t", "sdist"], ROOT / "otus_sdk", SOURCE_DATE_EPOCH=epoch)
    run([*hatchling, "-t", "sdist"], SOURCE_DATE_EPOCH=epoch)
    return made + sorted(out.glob("otus_sdk-*")) + sorted(out.glob("otus-*.tar.gz"))


def main() -> None:
    """Builds everything into dist/, or where --out says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--arch", action="append", choices=ARCHITECTURES)
    arguments = parser.parse_args()
    chosen = tuple(arguments.arch or ARCHITECTURES)
    for path in build_all(arguments.out.resolve(), chosen):
        print(path)


if __name__ == "__main__":
    main()
