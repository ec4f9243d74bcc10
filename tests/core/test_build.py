"""The build: the extension is the stable-ABI one, and a failed compile fails the build."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

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


def load(path: Path) -> ModuleType:
    """A module that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@builds
def test_benchmarks_are_compiled_as_the_core_is(root: Path) -> None:
    """Or they would measure another program than the one that is shipped."""
    build = load(root / "hatch_build.py")
    wanted = [flag for flag in build.COMMON_FLAGS if flag.startswith(("-O", "-fno-"))]
    wanted += build.WHOLE_PROGRAM_FLAGS
    found = re.search(r"^BENCH_FLAGS := ([^#]*)", (root / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    assert found[1].split() == wanted
    assert load(root / "bench/layouts.py").FLAGS[: len(wanted)] == wanted


@builds
def test_flags_that_a_compiler_does_not_know_are_left_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """clang knows no -flto-partition, and a linker may lack what -flto needs."""
    hatch_build = load(root / "hatch_build.py")
    partial = tmp_path / "cc"
    partial.write_text('#!/bin/sh\ncase " $* " in *" -flto-"*) exit 1; esac\nexec cc "$@"\n')
    partial.chmod(0o755)
    monkeypatch.setenv("CC", str(partial))
    flags = hatch_build.CoreBuilder(root).flags
    assert "-flto" in flags
    assert "-flto-partition=one" not in flags


@builds
@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64's instructions")
def test_functions_name_every_feature_that_they_use(root: Path, tmp_path: Path) -> None:
    """Wheels come from a clang whose command line has the processor's features off one by one."""
    sources = [path for path in (root / "core_c/src").glob("*.c") if "target(" in path.read_text()]
    assert sources
    for source in sources:
        done = subprocess.run(
            ["clang", "-mno-crc32", "-mno-popcnt", "-std=c11", "-D_GNU_SOURCE",
             f"-I{root}/core_c/include", "-S", "-o", tmp_path / "made.s", source],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
