"""The documents: no dead link, no page that nobody finds, nothing of the program left out."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
from pathlib import Path

from command_tree import variables
from otus_sdk.factory import PluginKind

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PICTURE = re.compile(r'(?:src|srcset|href)="([^"]+)"')
FENCE = re.compile(r"^(```+).*?^\1$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")


def documents(root: Path) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=root, capture_output=True, text=True, check=False,
    ).stdout.split()  # fmt: skip
    if not listed:  # an sdist or an archive is no repository
        return [
            path for folder in ("", "docs", "plugins") for path in (root / folder).glob("**/*.md")
        ]
    # What Markdown-shaped test data says is data.
    return [root / name for name in listed if not name.startswith("tests/")]


def prose(path: Path) -> str:
    return CODE.sub("", FENCE.sub("", path.read_text(encoding="utf-8")))


def anchors(path: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text("utf-8")), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


def dead_links(root: Path, path: Path) -> list[str]:
    dead = []
    for target in LINK.findall(prose(path)) + PICTURE.findall(prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        if not page.exists() or (anchor and anchor not in anchors(page)):
            dead.append(f"{path.relative_to(root)}: {target}")
    return dead


def test_every_link_leads_somewhere(root: Path) -> None:
    """Files and headings that any document links to are there."""
    pages = documents(root)
    assert len(pages) > 40
    assert [dead for path in pages for dead in dead_links(root, path)] == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    """The check above sees missing files and headings, and leaves code alone."""
    page = tmp_path / "page.md"
    page.write_text(
        "# A: b\n[x](gone.md) [y](#a-b) [z](#c) `[q](code.md)`\n```\n[r](code.md)\n```\n"
    )
    assert dead_links(tmp_path, page) == ["page.md: gone.md", "page.md: #c"]


def linked_from(page: Path) -> set[Path]:
    targets = (target.partition("#")[0] for target in LINK.findall(prose(page)))
    return {(page.parent / target).resolve() for target in targets if target and ":" not in target}


def test_every_page_is_in_the_index(root: Path) -> None:
    """docs/README.md leads to each page under docs/ and to each plugin's README."""
    index = linked_from(root / "docs" / "README.md")
    pages = {*(root / "docs").rglob("*.md"), *(root / "plugins").rglob("README.md")}
    pages.discard(root / "docs" / "README.md")
    assert sorted(str(path.relative_to(root)) for path in pages - index) == []


def test_every_plugin_is_in_the_index(root: Path) -> None:
    """Each entry point of this distribution is named in docs/README.md, by its kind."""
    rows = (root / "docs" / "README.md").read_text(encoding="utf-8").splitlines()
    for kind in PluginKind:
        (row,) = (line for line in rows if line.startswith(f"| {kind.value} |"))
        own = {
            entry.name
            for entry in importlib.metadata.entry_points(group=kind.entry_point_group)
            if entry.value.startswith("otus_plugins.")
        }
        assert own
        assert set(re.findall(r"\[(\w+)\]", row)) == own


def test_every_variable_of_the_environment_is_told(root: Path) -> None:
    """Each variable that gives an option its default stands in a page of the reference."""
    text = "".join(path.read_text("utf-8") for path in (root / "docs").rglob("*.md"))
    names = variables() | {"OTUS_PLUGIN_PATH"}
    assert len(names) >= 5
    assert [name for name in sorted(names) if name not in text] == []
