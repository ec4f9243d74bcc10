"""The ledger: every packet that a task has seen, and what became of it.

The equations are those of core_c/include/otus/counters.h, summed over the
task's pipelines, with the capture source before them and the reporters behind.
They hold at every moment, for pipelines publish their counters between batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otus_agent.bridge import ReporterAccount

if TYPE_CHECKING:
    import otus_core

__all__ = ["Counters", "Equation", "Ledger", "SourceAccount", "add_counters"]

Counters = Mapping[str, Mapping[str, int]]
"""By group and reason, as `otus_core.Pipeline.counters` gives them."""


@dataclass(frozen=True, slots=True)
class SourceAccount:
    """What the capture sources say of themselves, in frames; accounts add up with `+`.

    Attributes:
        received: Let pass by the filter, the dropped ones included; a frame that
            the socket shows twice counts once.
        dropped: Of those, lost because nobody took them in time.
        interface_dropped: Lost before the socket; outside the equations.
        left: Of those received, still in the source when it was closed.
        ended: The sources are closed: nothing waits in them any more.
    """

    received: int = 0
    dropped: int = 0
    interface_dropped: int = 0
    left: int = 0
    ended: bool = False

    @classmethod
    def of(cls, stats: otus_core.CaptureStats, *, ended: bool) -> SourceAccount:
        """The account of one source of the core."""
        return cls(
            stats.received - stats.ignored,
            stats.dropped,
            stats.interface_dropped,
            stats.waiting if ended else 0,
            ended,
        )

    def __add__(self, other: SourceAccount) -> SourceAccount:
        """Both together; ended when both are."""
        return SourceAccount(
            self.received + other.received,
            self.dropped + other.dropped,
            self.interface_dropped + other.interface_dropped,
            self.left + other.left,
            self.ended and other.ended,
        )


@dataclass(frozen=True, slots=True)
class Equation:
    """One line of the ledger: what came in is what went out, by name.

    Attributes:
        name: Which line.
        total: What came in.
        parts: Where it went; zeros left out.
    """

    name: str
    total: int
    parts: Mapping[str, int]

    @property
    def difference(self) -> int:
        """What no part explains; negative: explained twice. 0 is balanced."""
        return self.total - sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class Ledger:
    """All equations of one task at one moment."""

    task_id: str
    equations: tuple[Equation, ...]
    anomalies: Mapping[str, int] = field(default_factory=dict)
    interface_dropped: int = 0

    @property
    def balanced(self) -> bool:
        """Whether every packet is explained."""
        return not self.imbalances

    @property
    def imbalances(self) -> tuple[str, ...]:
        """What does not add up, in words."""
        found: list[str] = []
        for equation in self.equations:
            if equation.difference:
                explained = sum(equation.parts.values())
                found.append(
                    f"{equation.name}: {equation.total} in, {explained} explained, "
                    f"difference {equation.difference}"
                )
            found.extend(
                f"{equation.name}: {part} is {count}"
                for part, count in equation.parts.items()
                if count < 0
            )
        return tuple(found)

    def equation(self, name: str) -> Equation:
        """The line of this name.

        Raises:
            KeyError: There is none.
        """
        for equation in self.equations:
            if equation.name == name:
                return equation
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, as status, RPC and `otus run --output json` give it."""
        return {
            "task": self.task_id,
            "balanced": self.balanced,
            "imbalances": list(self.imbalances),
            "equations": [
                {"name": line.name, "total": line.total, "parts": dict(line.parts)}
                for line in self.equations
            ],
            "anomalies": dict(self.anomalies),
            "interface_dropped": self.interface_dropped,
        }


def add_counters(tables: Iterable[Counters]) -> dict[str, dict[str, int]]:
    """The sum of several pipelines' counters."""
    total: dict[str, dict[str, int]] = {}
    for table in tables:
        for group, reasons in table.items():
            into = total.setdefault(group, {})
            for reason, count in reasons.items():
                into[reason] = into.get(reason, 0) + count
    return total


def make_ledger(
    task_id: str,
    source: SourceAccount,
    counters: Counters,
    reporters: Sequence[ReporterAccount],
) -> Ledger:
    """Lays the counters of a task out as equations."""

    def group(name: str) -> Mapping[str, int]:
        return counters.get(name, {})

    def one(name: str, reason: str) -> int:
        return group(name).get(reason, 0)

    def total(*names: str) -> int:
        return sum(sum(group(name).values()) for name in names)

    def parts(*names: str, **more: int) -> dict[str, int]:
        found = {
            f"{name}[{reason}]": count
            for name in names
            for reason, count in group(name).items()
            if count
        }
        found.update({name: count for name, count in more.items() if count})
        return found

    frames = one("received", "frames")
    equations = [
        _capture_equation(source, frames),
        Equation(
            "decode",
            frames,
            parts(
                "decoded", "undecodable", "fragment", fragments_held=one("gauge", "fragments_held")
            ),
        ),
        Equation(
            "streams",
            total("decoded"),
            parts("filtered", "segment", "offered", segments_held=one("gauge", "segments_held")),
        ),
        Equation(
            "parse",
            total("offered", "message"),
            parts(
                "parsed", "unmatched", "parse_error", "forwarded", pending=one("gauge", "pending")
            ),
        ),
        Equation(
            "process",
            total("parsed", "forwarded"),
            parts("process", "emit_error", "emitted"),
        ),
    ]
    equations += [_report_equation(account, total("emitted")) for account in reporters]
    anomalies = {reason: count for reason, count in group("anomaly").items() if count}
    return Ledger(task_id, tuple(equations), anomalies, source.interface_dropped)


def _capture_equation(source: SourceAccount, frames: int) -> Equation:
    parts: dict[str, int] = {"dropped[kernel]": source.dropped, "received[frames]": frames}
    if source.left:
        parts["dropped[stopped]"] = source.left
    waiting = source.received - source.dropped - frames
    # What waits in a ring is known by difference only, so it explains nothing
    # once the ring is closed.
    if waiting > 0 and not source.ended:
        parts["waiting"] = waiting
    return Equation("capture", source.received, parts)


def _report_equation(account: ReporterAccount, emitted: int) -> Equation:
    went = {"reported": account.reported, "queued": account.queued}
    went |= {f"dropped[{reason}]": count for reason, count in account.dropped.items()}
    went |= {f"failed[{reason}]": count for reason, count in account.failed.items()}
    parts = {name: count for name, count in went.items() if count or name == "reported"}
    return Equation(f"report[{account.name}]", emitted, parts)
