"""docs/internals/traps.md: each trap in it names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_trap_has_its_test(root: Path) -> None:
    page = (root / "docs/internals/traps.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    traps = [line for line in rows if not line.startswith("| trap")]
    assert len(traps) > 50
    for line in traps:
        named = re.findall(r"`([\w/]+\.(?:c|py))::(\w+)`", line)
        assert named, f"names no test: {line}"
        for path, name in named:
            source = (root / path).read_text()
            is_defined = re.search(rf"^(?:static void|def) {name}\(", source, re.MULTILINE)
            assert is_defined, f"{path} has no {name}"
            # A C test is also called, from main().
            assert path.endswith(".py") or re.search(rf"^    {name}\(", source, re.MULTILINE), name
