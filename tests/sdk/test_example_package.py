"""The example package builds, passes its own tests, and runs in a real task."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emulated import starts_python
from frames import sip, udp

STUN = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + b"\0" * 12


@pytest.fixture
def example(root: Path) -> Path:
    return root / "plugins" / "example"


def install(example: Path, site: Path) -> None:
    """Lays the package out as pip would, without asking any index."""
    (site / "otus_stun").symlink_to(example / "otus_stun")
    info = site / "otus_stun-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: otus-stun\nVersion: 0.1.0\n")
    import tomllib

    project = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    lines: list[str] = []
    for group, entries in project["entry-points"].items():
        lines.append(f"[{group}]")
        lines += [f"{name} = {target}" for name, target in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def environment(*paths: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}


@starts_python
def test_its_own_tests_pass(example: Path, tmp_path: Path) -> None:
    """The package's conformance tests pass with nothing but otus-sdk and pytest."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path),
         "-c", os.devnull, str(example / "tests")],
        capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
        env=environment(example),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@starts_python
def test_it_runs_in_a_task(example: Path, tmp_path: Path) -> None:
    """All four plugins at work in one task: hex in, STUN parsed, labelled, tallied, balanced."""
    site = tmp_path / "site"
    site.mkdir()
    install(example, site)
    frames = [udp(STUN), udp(sip()), udp(STUN), udp(b"junk")]
    (tmp_path / "frames.txt").write_text("".join(frame.hex(" ") + "\n" for frame in frames))
    counts = tmp_path / "counts.json"
    done = subprocess.run(
        [sys.executable, "-m", "otus_agent", "run", "-f", str(example / "sample.yaml"),
         "--set", f"capture.path={tmp_path / 'frames.txt'}",
         "--set", f"reporters.0.config.path={counts}", "-o", "json"],
        capture_output=True, text=True, timeout=300, check=False, env=environment(site),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(counts.read_text()) == {"request": 2, "": 1}
    status = json.loads(done.stdout)
    assert status["ledger"]["balanced"]
    listed = subprocess.run(
        [sys.executable, "-m", "otus_agent", "plugins"],
        capture_output=True, text=True, timeout=300, check=False, env=environment(site),
    )  # fmt: skip
    if listed.returncode == 0:
        assert "otus-stun 0.1.0" in " ".join(listed.stdout.split())


def test_it_depends_on_the_sdk_alone(example: Path) -> None:
    """No module of the package imports the agent, the core or the built-in plugins."""
    for path in (example / "otus_stun").glob("*.py"):
        text = path.read_text()
        for name in ("otus_agent", "otus_core", "otus_plugins"):
            assert name not in text, f"{path}: {name}"
