"""Names and meanings of the core's counters, as its table gives them."""

from __future__ import annotations

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

INDEX: Final = {(counter.group, counter.reason): i for i, counter in enumerate(COUNTERS)}
