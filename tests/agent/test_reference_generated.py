"""The reference pages of configuration, command line and RPC are those of the code."""

from __future__ import annotations

import importlib.util
import os
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from otus_agent.cli import COMMANDS
from otus_agent.config.agent import AgentConfig
from otus_agent.config.loading import key_paths


@pytest.fixture(scope="module")
def generator(root: Path) -> Iterator[types.ModuleType]:
    spec = importlib.util.spec_from_file_location(
        "generate_reference", root / "docs" / "reference" / "generate.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # Defaults that come from the environment are no defaults; the next tests need it again.
        for name in [name for name in os.environ if name.startswith("OTUS_")]:
            patch.delenv(name)
        spec.loader.exec_module(module)
        yield module


@pytest.mark.parametrize("page", ["configuration.md", "cli.md", "rpc.md"])
def test_the_page_says_what_the_code_says(
    generator: types.ModuleType, root: Path, page: str
) -> None:
    written = (root / "docs" / "reference" / page).read_text(encoding="utf-8")
    assert written == generator.pages()[page], "run: python docs/reference/generate.py"


def test_every_key_of_the_configuration_is_told_and_has_a_meaning(root: Path) -> None:
    page = (root / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert [row for row in rows if not row.rsplit("|", 2)[1].strip()] == []
    for path in key_paths(AgentConfig):
        if len(path) > 1:
            assert f"| `{'.'.join(path)}` |" in page


def test_every_command_is_told(root: Path) -> None:
    page = (root / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"## `otus {name}" in page


def test_operations_names_no_option_or_key_that_does_not_exist(root: Path) -> None:
    import re

    page = (root / "docs" / "operations.md").read_text(encoding="utf-8")
    reference = "".join(
        (root / "docs" / "reference" / name).read_text(encoding="utf-8")
        for name in ("configuration.md", "cli.md", "rpc.md")
    )
    keys = re.findall(r"`((?:daemon|log|kafka|metrics|agent)\.[a-z_]+(?:\.[a-z_]+)*)`", page)
    assert keys
    for key in keys:
        assert f"`{key}`" in reference, key
    for command in re.findall(r"`otus ([a-z-]+)(?: ([a-z-]+))?", page):
        assert f"`otus {command[0]}" in reference, command
