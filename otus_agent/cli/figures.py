"""Figures of a task's status, for tables: what came in, what went out, what was lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Parts of the ledger's equations that are no loss: what goes on, waits, is not what the
# task wants, or was there already. All others are, those of later versions included.
_NO_LOSS = ("received[", "waiting", "decoded[", "undecodable[non_ip]", "fragments_held",
            "fragment[absorbed]", "fragment[disabled]", "fragment[duplicate]", "filtered[",
            "offered[", "segments_held", "segment[consumed]", "segment[empty]",
            "segment[duplicate]", "message[", "parsed[", "unmatched[", "forwarded[", "pending",
            "process[filter]", "process[plugin]", "emitted[", "reported", "queued")  # fmt: skip


@dataclass(slots=True)
class TaskFigures:
    """Totals of one task since it started."""

    received: int = 0
    emitted: int = 0
    reported: int = 0
    queued: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    balanced: bool = True

    @property
    def lost_total(self) -> int:
        """All that was lost, at whatever stage."""
        return sum(self.lost.values())


def figures_of(status: Mapping[str, Any]) -> TaskFigures:
    """The figures in what ``task.status`` answers; zeros where there are none."""
    found = TaskFigures()
    ledger = status.get("ledger")
    if not isinstance(ledger, Mapping):
        return found
    found.balanced = bool(ledger.get("balanced", True))
    for equation in ledger.get("equations", ()):
        name, total, parts = equation["name"], int(equation["total"]), equation["parts"]
        if name == "capture":
            found.received = total
        if name.startswith("report["):
            found.emitted = max(found.emitted, total)
            found.reported += int(parts.get("reported", 0))
            found.queued += int(parts.get("queued", 0))
        for part, number in parts.items():
            if not part.startswith(_NO_LOSS) and number:
                key = f"{name} {part}"
                found.lost[key] = found.lost.get(key, 0) + int(number)
    return found
