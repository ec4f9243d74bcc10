"""The decoder alone, in C: prints ns a frame and holds the floor for fragments."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: SPEC: fragments put together a second, on one core.
FRAGMENTS_PER_SECOND = 1e6
#: Through VXLAN a frame has two Ethernet, two IP and two UDP headers.
VXLAN_TIMES_PLAIN = 4


def test_decoder_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    program = tmp_path / "bench_decode"
    sources = [*sorted((ROOT / "core_c/src").glob("*.c")), ROOT / "bench/core/bench_decode.c"]
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O3", "-I", ROOT / "core_c/include"]
    subprocess.run([compiler, *flags, *sources, "-lz", "-o", program], check=True)
    report = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    with capsys.disabled():
        print("\n" + report)
    row = re.compile(r"^(.+?) +([\d.]+) +([\d.]+) +([\d.]+)$", re.MULTILINE)
    ns = {name: float(from_memory) for name, _, from_memory, _ in row.findall(report)}
    for name in ("fragments, in order", "fragments, interleaved", "fragments, never whole"):
        assert 1e9 / ns[name] > FRAGMENTS_PER_SECOND, name
    assert ns["VXLAN IPv4 UDP"] < VXLAN_TIMES_PLAIN * ns["IPv4 UDP, tunnels enabled"]
