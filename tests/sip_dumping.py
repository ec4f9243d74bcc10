"""The core's SIP parser at work on single messages: builds and runs `core_c/tests/sip_dump.c`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("sip_*.c", "sdp.c", "lines.c", "status.c")


class Header(NamedTuple):
    """One header field as it stands, octets as ISO 8859-1."""

    name: str
    value: str
    known: str
    folded: int
    next: int


@dataclass(frozen=True)
class Dump:
    """What the parser made of one message; `fields` as `sip_dump.c` prints them."""

    fields: dict[str, Any]

    @property
    def status(self) -> str:
        return str(self.fields["status"])

    @property
    def headers(self) -> list[Header]:
        return [Header(*header) for header in self.fields["headers"]]

    @property
    def body(self) -> str:
        return self.fields["body"] or ""

    def header(self, known: str) -> str | None:
        """The value of the first field of this canonical name."""
        return next((header.value for header in self.headers if header.known == known), None)


@dataclass(frozen=True)
class SipDump:
    """The built program."""

    program: Path

    def parse(self, octets: bytes, *options: str) -> Dump:
        done = subprocess.run(
            [self.program, *options], input=octets, capture_output=True, check=True, timeout=300
        )
        return Dump(json.loads(done.stdout))

    def parse_files(self, paths: Sequence[Path], *options: str) -> list[Dump]:
        """All files in one run, in their order."""
        done = subprocess.run(
            [self.program, *options, *paths], capture_output=True, check=True, timeout=300
        )
        return [Dump(json.loads(line)) for line in done.stdout.splitlines()]


def build_sip_dump(folder: Path, *flags: str) -> SipDump:
    """Compiles the program; flags such as `-DOTUS_PORTABLE` choose the code under test."""
    program = folder / "sip_dump"
    core = ROOT / "core_c"
    sources = [path for pattern in SOURCES for path in sorted((core / "src").glob(pattern))]
    # sip_media.c needs the flow registry.
    sources += sorted((core / "src").glob("flow*.c"))
    sources += [core / "src" / name for name in ("counters.c", "labels.c")]
    command = [os.environ.get("CC", "cc"), "-std=c11", "-O1", "-g", "-D_GNU_SOURCE"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    command += [f"-I{core / 'include'}", f"-I{core / 'src'}", *flags, "-o", str(program)]
    command += [str(core / "tests" / "sip_dump.c"), *map(str, sources)]
    subprocess.run(command, check=True, timeout=300)
    return SipDump(program)
