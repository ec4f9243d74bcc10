"""The reference pages say what the code does."""

from __future__ import annotations

from pathlib import Path

import otus_core
from otus_agent.telemetry.metrics import METRICS


def test_every_metric_is_on_its_page(root: Path) -> None:
    """Name, kind, labels and meaning of each metric; and no metric that is gone."""
    page = (root / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `otus_")]
    want = []
    for metric in METRICS:
        labels = " ".join(f"`{label}`" for label in metric.labels) or "–"
        want.append(f"| `{metric.name}` | {metric.kind.value} | {labels} | {metric.meaning} |")
    assert rows == want


def test_every_counter_is_on_its_page(root: Path) -> None:
    """Group, reason and meaning of each counter of the core, group by group."""
    page = (root / "docs" / "reference" / "ledger.md").read_text(encoding="utf-8")
    found = []
    group = ""
    for line in page.splitlines():
        if line.startswith("### "):
            group = line.removeprefix("### ")
        elif line.startswith("| `"):
            _, reason, meaning, _ = line.split("|", 3)
            found.append((group, reason.strip(" `"), meaning.strip()))
    assert sorted(found) == sorted((c.group, c.reason, c.meaning) for c in otus_core.COUNTERS)
