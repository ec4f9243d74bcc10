"""The build: the extension is the stable-ABI one, and a failed compile fails the build."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from otus_core import _native

builds = pytest.mark.skipif(
    "OTUS_EMULATED" in os.environ, reason="the emulated system has no compiler"
)


def test_extension_is_the_stable_abi_one() -> None:
    """One wheel serves every Python from 3.11 on only if the stable-ABI suffix is loaded."""
    assert Path(_native.__file__).name == "_native.abi3.so"


def test_core_answers_through_the_binding() -> None:
    """Text from the C core reaches Python."""
    assert _native.ffi.string(_native.lib.otus_status_name(0)) == b"ok"


@builds
def test_failed_compile_fails_the_build(root: Path) -> None:
    """A broken compiler must never end in a wheel without the core."""
    done = subprocess.run(
        [sys.executable, "hatch_build.py"],
        cwd=root,
        env={**os.environ, "CC": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "did not build" in done.stderr


@builds
def test_missing_compiler_is_one_clear_line(root: Path) -> None:
    """Without a compiler the build says which one it wanted and what to do."""
    done = subprocess.run(
        [sys.executable, "hatch_build.py"],
        cwd=root,
        env={**os.environ, "CC": "no-such-compiler"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.strip() == ("otus: no C compiler 'no-such-compiler': install gcc or set CC")
