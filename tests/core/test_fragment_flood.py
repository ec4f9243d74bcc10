"""Ten million unfinished fragments; `make core-test` runs the same with one million."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.mark.soak
def test_ten_million_unfinished_fragments_leave_memory_flat(root: Path, tmp_path: Path) -> None:
    """Each with a key of its own; datagrams between them are put together all the same."""
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    core, program = root / "core_c", tmp_path / "test_reassembly"
    sources = [core / f"src/{name}.c" for name in ("reassembly", "octet_map", "counters", "status")]
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", f"-I{core}/include", f"-I{core}/src"]
    subprocess.run(
        [compiler, *flags, core / "tests/test_reassembly.c", *sources, "-o", program], check=True
    )
    run = subprocess.run(
        [program],
        env=os.environ | {"OTUS_FLOOD_FRAGMENTS": "10000000"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
