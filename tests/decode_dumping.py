"""core_c/tests/decode_dump.c, built once, and frames through it."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


class DecodeDump:
    """The decoder with every tunnel followed, one JSON object a frame."""

    def __init__(self, program: Path) -> None:
        self.program = program

    def file(self, capture: Path, *options: str) -> list[dict[str, Any]]:
        run = subprocess.run(
            [self.program, *options, capture], capture_output=True, text=True, check=True
        )
        return [json.loads(line) for line in run.stdout.splitlines()]

    def frames(
        self, frames: Iterable[bytes], options: Sequence[str] = (), link_type: int = 1
    ) -> list[dict[str, Any]]:
        """Frames a microsecond apart; see decode_dump.c for the layout."""
        octets = b"".join(
            struct.pack("=QIIHHHH", n * 1000, len(frame), len(frame), link_type, 0, 0, 0) + frame
            for n, frame in enumerate(frames)
        )
        run = subprocess.run(
            [self.program, "-r", *options], input=octets, capture_output=True, check=True
        )
        return [json.loads(line) for line in run.stdout.splitlines()]


def build_decode_dump(folder: Path) -> DecodeDump:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler for core_c/tests/decode_dump.c")
    program = folder / "decode_dump"
    sources = [*sorted((ROOT / "core_c/src").glob("*.c")), ROOT / "core_c/tests/decode_dump.c"]
    command = [compiler, "-std=c11", "-D_GNU_SOURCE", "-O1", "-I", ROOT / "core_c/include"]
    subprocess.run([*command, *sources, "-lz", "-o", program], check=True)
    return DecodeDump(program)
