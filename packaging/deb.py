"""Packs the self-contained tree as a Debian package.

The files are those that `make install` places, so that a package and an
installation from source cannot differ. Equal input gives equal octets.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CONTROL = """\
Package: otus
Version: {version}
Architecture: {architecture}
Maintainer: The Otus authors <otus@localhost>
Installed-Size: {size_kib}
Depends: libc6 (>= {glibc})
Recommends: systemd
Section: net
Priority: optional
Description: edge agent that captures traffic, understands SIP and reports to Kafka
 Otus captures network traffic, decodes it down to the innermost packet of any
 tunnel, parses SIP and reports every message, under remote control of a fleet
 operator. This package brings its own Python.
"""

POSTINST = """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    if ! getent passwd otus >/dev/null; then
        if command -v systemd-sysusers >/dev/null; then
            systemd-sysusers /usr/lib/sysusers.d/otus.conf
        else
            useradd --system --home-dir /var/lib/otus --shell /usr/sbin/nologin otus
        fi
    fi
    chgrp otus /etc/otus/config.yml
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        # An upgrade restarts what ran; a first installation starts nothing unasked.
        systemctl try-restart otus.service
    fi
fi
"""

PRERM = """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl --no-reload disable --now otus.service || true
fi
"""

POSTRM = """\
#!/bin/sh
set -e
if [ "$1" = purge ]; then
    rm -rf /var/lib/otus /var/log/otus
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
"""


def project_version() -> str:
    """Returns the version in pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def machine_architecture() -> str:
    """Returns Debian's name of this machine's architecture."""
    asked = ["dpkg", "--print-architecture"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def write_control(package: Path) -> None:
    """Writes DEBIAN/: what dpkg is told about the package and asked to run."""
    control = package / "DEBIAN"
    control.mkdir()
    size = sum(path.lstat().st_size for path in package.rglob("*") if not path.is_dir())
    fields = {
        "version": project_version(),
        "architecture": machine_architecture(),
        "size_kib": size // 1024,
        # The tree's interpreter is this machine's, and needs its libc or a later one.
        "glibc": (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc "),
    }
    (control / "control").write_text(CONTROL.format_map(fields), encoding="utf-8")
    (control / "conffiles").write_text("/etc/otus/config.yml\n", encoding="utf-8")
    for name, script in (("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)):
        (control / name).write_text(script, encoding="utf-8")
        (control / name).chmod(0o755)


def build(out: Path, epoch: int) -> Path:
    """Builds the package into `out` from the tree in dist/tree, and returns its path."""
    with tempfile.TemporaryDirectory(prefix="otus-deb-") as scratch:
        package = Path(scratch) / "otus"
        subprocess.run(
            ["make", "--silent", "install-files", f"DESTDIR={package}", "PREFIX=/usr"],
            cwd=ROOT,
            check=True,
        )
        write_control(package)
        for path in [package, *package.rglob("*")]:
            os.utime(path, (epoch, epoch), follow_symlinks=False)
        target = out / f"otus_{project_version()}_{machine_architecture()}.deb"
        out.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zzstd", "--build", str(package), str(target)],
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return target


def main() -> None:
    """Builds the package into dist/, or where --out says."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from wheels import source_date_epoch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    if not shutil.which("dpkg-deb"):
        sys.exit("otus: no dpkg-deb: apt-get install dpkg-dev")
    print(build(arguments.out.resolve(), int(source_date_epoch())))


if __name__ == "__main__":
    main()
