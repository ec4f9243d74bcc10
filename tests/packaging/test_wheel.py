"""The wheel: tagged for the stable ABI and this platform, never pure, and complete."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=root,
        check=True,
        capture_output=True,
    )
    (path,) = out.glob("*.whl")
    return path


def read(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (found,) = (item for item in archive.namelist() if item.endswith(f".dist-info/{name}"))
        return archive.read(found).decode()


def test_tag_is_stable_abi_and_platform(wheel: Path) -> None:
    """A wheel without the core would be tagged py3-none-any and install everywhere, broken."""
    fields = Parser().parsestr(read(wheel, "WHEEL"))
    assert fields["Root-Is-Purelib"] == "false"
    assert fields["Tag"].startswith("cp311-abi3-linux_")
    assert wheel.name == f"otus-0.1.0-{fields['Tag']}.whl"


def test_holds_the_core_and_no_sources_of_it(wheel: Path) -> None:
    """The extension is where the import package looks for it, once."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert [name for name in names if name.endswith(".so")] == ["otus_core/_native.abi3.so"]
    assert not [name for name in names if name.endswith((".c", ".h", ".o"))]
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops <= {"otus_core", "otus_agent", "otus_plugins"}


def test_names_the_command_and_every_builtin_plugin(wheel: Path, root: Path) -> None:
    """Each plugin folder is reachable by an entry point of its kind, and the reverse."""
    text = read(wheel, "entry_points.txt")
    assert "otus = otus_agent.cli:main" in text
    for kind in ("capturer", "parser", "processor", "reporter"):
        section = text.partition(f"[otus.{kind}]")[2].partition("\n[")[0]
        named = {line.split("=")[0].strip() for line in section.splitlines() if "=" in line}
        folder = root / "plugins" / "otus_plugins" / kind
        assert named == {path.parent.name for path in folder.glob("*/__init__.py")}
