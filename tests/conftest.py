"""What tests of every area share: the corpus, and who may make network namespaces."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# How fast the machine is proves nothing. Where a change is judged, the same code
# gets the same examples; everywhere else each run tries others.
settings.register_profile(
    "otus",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("otus")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout's top folder."""
    return ROOT


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Captures and messages of other projects, which are not part of this one."""
    folder = Path(os.environ.get("OTUS_CORPUS") or ROOT.parent / "shared" / "corpus")
    if not folder.is_absolute():
        folder = ROOT / folder
    if not folder.is_dir():
        pytest.skip(f"no corpus at {folder} (OTUS_CORPUS names it)")
    return folder


def _can_make_namespaces() -> bool:
    if os.geteuid() != 0 or not shutil.which("ip"):
        return False
    name = f"otus-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode:
        return False
    subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
    return True


@pytest.fixture(scope="session")
def network_namespaces() -> None:
    """Skips where this process may not make network namespaces."""
    if not _can_make_namespaces():
        pytest.skip("needs root and the right to make network namespaces")
