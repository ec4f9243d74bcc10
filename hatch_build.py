"""Builds the C core into the wheel, or in place for an editable install.

cffi writes the binding in C (API mode, stable ABI), one compiler builds it with
all of `core_c/src`. `CC` chooses the compiler, `OTUS_CFLAGS` adds flags,
`OTUS_WHEEL_PLATFORM` names the wheel's platform when `CC` crosses. Objects are
kept under `build/`, so that a change of one file costs one compilation and a link.

Run as a program, it rebuilds the core in place for a checkout.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULE = "otus_core._native"
LIBRARY = "_native.abi3.so"
# 3.11 is the oldest Python whose stable ABI the binding is compiled against.
PYTHON_TAG = "cp311-abi3"
LIMITED_API = "0x030B0000"

COMMON_FLAGS = [
    "-O3",
    # Loops that vectors pay for have them by hand; the others end before they would.
    "-fno-tree-vectorize",
    "-std=c11",
    "-fPIC",
    "-fvisibility=hidden",
    "-D_GNU_SOURCE",
    f"-DPy_LIMITED_API={LIMITED_API}",
]
WARNING_FLAGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wcast-qual", "-Wvla"]
# cffi's generated C is not ours to keep free of warnings.
GENERATED_FLAGS = ["-w"]
LINK_FLAGS = ["-shared", "-Wl,-z,relro,-z,now"]
# What a packet runs through lies in some twenty files: compiled as if it were one, calls
# between them are inlined. In one part: gcc would make several. Each where it is known.
WHOLE_PROGRAM_FLAGS = ["-flto", "-flto-partition=one"]


class CoreBuilder:
    """One compiler, one set of flags, one folder of objects."""

    def __init__(self, root: Path) -> None:
        self.core = root / "core_c"
        self.compiler = shlex.split(os.environ.get("CC") or "cc")
        self.extra_flags = shlex.split(os.environ.get("OTUS_CFLAGS", ""))
        self.flags = [
            *COMMON_FLAGS,
            *(flag for flag in WHOLE_PROGRAM_FLAGS if self._links_with(flag)),
            f"-ffile-prefix-map={root}=.",
            f"-I{self.core / 'include'}",
            f"-I{self.core / 'src'}",
            f"-I{sysconfig.get_path('include')}",
            f"-I{sysconfig.get_path('platinclude')}",
        ]
        identity = "\0".join([*self.compiler, *self.flags, *self.extra_flags])
        digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
        self.objects = root / "build" / "objects" / digest

    def build(self, library: Path) -> None:
        """Compiles what changed and links `library`; raises where a step fails."""
        self.objects.mkdir(parents=True, exist_ok=True)
        generated = self._generate_binding()
        sources = [(generated, GENERATED_FLAGS)]
        sources += [(path, WARNING_FLAGS) for path in sorted((self.core / "src").glob("*.c"))]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            objects = list(pool.map(lambda item: self._compile(*item), sources))
        library.parent.mkdir(parents=True, exist_ok=True)
        # Replaced, never rewritten: a process that has the old one mapped keeps it.
        unfinished = library.with_name(f"new-{library.name}")
        self._run(
            [
                *self.compiler,
                *self.flags,
                *self.extra_flags,
                *LINK_FLAGS,
                "-o",
                unfinished,
                *objects,
            ]
        )
        unfinished.replace(library)

    def _links_with(self, flag: str) -> bool:
        """Tells whether compiler and linker know a flag: a clang may lack the linker's part."""
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch, "empty.c")
            source.touch()
            made = str(source.with_suffix(".so"))
            command = [*self.compiler, flag, "-shared", str(source), "-o", made]
            try:
                return subprocess.run(command, capture_output=True, check=False).returncode == 0
            except FileNotFoundError:
                return False  # the first compilation says it

    def _generate_binding(self) -> Path:
        from cffi import FFI

        headers = sorted((self.core / "include" / "otus").glob("*.h"))
        ffi = FFI()
        ffi.cdef((self.core / "otus_core" / "native.cdef").read_text(encoding="utf-8"))
        prelude = "".join(f'#include "otus/{header.name}"\n' for header in headers)
        ffi.set_source(MODULE, prelude, py_limited_api=True)
        generated = self.objects / "_native.c"
        ffi.emit_c_code(str(generated))  # leaves an equal file alone
        return generated

    def _compile(self, source: Path, warnings: list[str]) -> Path:
        target = self.objects / f"{source.stem}.o"
        dependencies = target.with_suffix(".d")
        if not _is_current(target, dependencies):
            self._run(
                [
                    *self.compiler,
                    *self.flags,
                    *warnings,
                    *self.extra_flags,
                    "-MMD",
                    "-MF",
                    dependencies,
                    "-c",
                    source,
                    "-o",
                    target,
                ]
            )
        return target

    @staticmethod
    def _run(command: list[str | Path]) -> None:
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError:
            raise SystemExit(f"otus: no C compiler {command[0]!r}: install gcc or set CC") from None


def _is_current(target: Path, dependencies: Path) -> bool:
    """Tells whether `target` is younger than all that the compiler read for it."""
    if not target.exists() or not dependencies.exists():
        return False
    _, _, listed = dependencies.read_text(encoding="utf-8").partition(":")
    built_ns = target.stat().st_mtime_ns
    for name in listed.replace("\\\n", " ").split():
        path = Path(name)
        if not path.exists() or path.stat().st_mtime_ns > built_ns:
            return False
    return True


def wheel_platform() -> str:
    """Returns the wheel's platform tag, as `linux_x86_64`."""
    own = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return os.environ.get("OTUS_WHEEL_PLATFORM") or own


class CustomBuildHook(BuildHookInterface[Any]):
    """What hatchling calls before it packs a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles the core, and tells hatchling where it is and what the wheel is called."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        platform = wheel_platform()
        build_data["pure_python"] = False
        build_data["tag"] = f"{PYTHON_TAG}-{platform}"
        if version == "editable":
            # force_include would put it where the source package can't see it.
            CoreBuilder(root).build(root / "core_c" / "otus_core" / LIBRARY)
            return
        library = root / "build" / platform / LIBRARY
        CoreBuilder(root).build(library)
        build_data["force_include"][str(library)] = f"otus_core/{LIBRARY}"


def main() -> None:
    """Rebuilds the core of this checkout in place."""
    root = Path(__file__).resolve().parent
    library = root / "core_c" / "otus_core" / LIBRARY
    try:
        CoreBuilder(root).build(library)
    except subprocess.CalledProcessError as failure:
        sys.exit(f"otus: the C core did not build (status {failure.returncode})")


if __name__ == "__main__":
    main()
