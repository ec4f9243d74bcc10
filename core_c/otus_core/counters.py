"""Names and meanings of the core's counters, as its table gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from otus_core.native import lib, text


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter of a pipeline.

    Attributes:
        group: the ledger equation it belongs to ("undecodable", "parsed", ...).
        reason: unique within its group.
        meaning: one line for people.
    """

    group: str
    reason: str
    meaning: str


COUNTERS: Final = tuple(
    Counter(
        text(lib.otus_counter_group(i)),
        text(lib.otus_counter_reason(i)),
        text(lib.otus_counter_meaning(i)),
    )
    for i in range(lib.OTUS_NUM_COUNTERS)
)


def by_group(values: Sequence[int]) -> dict[str, dict[str, int]]:
    """Return values, one a counter in the order of COUNTERS, by group and reason."""
    groups: dict[str, dict[str, int]] = {}
    for counter, value in zip(COUNTERS, values, strict=True):
        groups.setdefault(counter.group, {})[counter.reason] = value
    return groups


INDEX: Final = {(counter.group, counter.reason): i for i, counter in enumerate(COUNTERS)}
