"""What the reporter holds: bounded in octets, oldest out first, every record accounted for."""

from __future__ import annotations

import asyncio
import enum
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from otus_plugins.reporter.kafka.packing import PackedBatch
from otus_plugins.reporter.kafka.records import FinishedBatch
from otus_sdk.protocols import RecordBatch, ReporterStats


class Place(enum.Enum):
    """Where a held item is."""

    QUEUED = "queued"  # may be dropped to make room
    BUSY = "busy"  # being encoded, or in the producer's hands
    SETTLED = "settled"  # reported, dropped or failed: no longer held


@dataclass(slots=True, eq=False)
class Held:
    """Records that are held together and share one fate.

    Attributes:
        topic: Where they go.
        num_records: How many they are.
        octets: What they are charged with against the bound.
        born: When they (the oldest of them) were taken over, on the loop's clock.
    """

    topic: str
    num_records: int
    octets: int
    born: float
    place: Place = Place.QUEUED
    on_drop: Callable[[Held], None] | None = None


@dataclass(slots=True, eq=False)
class Waiting(Held):
    """A batch as it came, or those of its records that go to one topic."""

    batch: RecordBatch | PackedBatch = field(kw_only=True)
    indices: list[int] | None = None
    loose_octets: int = field(init=False)  # as it came, whether packed since or not

    def __post_init__(self) -> None:
        self.loose_octets = self.octets


@dataclass(slots=True, eq=False)
class Chunk(Held):
    """An encoded batch for one partition."""

    partition: int = field(kw_only=True)
    builder: FinishedBatch = field(kw_only=True)
    attempts: int = 0


class Outbox:
    """The account of all records, and the bound on what is held.

    Taken = reported + dropped + failed + queued, at every moment. Only the event
    loop changes it; `stats()` may be read from any thread.
    """

    def __init__(self, limit_octets: int) -> None:
        self.limit_octets = limit_octets
        self.octets = 0
        self.queued = 0
        self.reported = 0
        self.dropped: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        # What may be dropped, oldest first. Chunks are older than what still waits
        # to be encoded, and of that what is packed is older than what is loose.
        self._chunks: OrderedDict[Held, None] = OrderedDict()
        self._packed: OrderedDict[Held, None] = OrderedDict()
        self._loose: OrderedDict[Held, None] = OrderedDict()
        self._loose_octets = 0

    def admit(self, item: Held) -> None:
        """Takes an item that is new here, and drops the oldest ones that do not fit any more."""
        self._enqueue(item)
        self.octets += item.octets
        self.queued += item.num_records
        self._empty.clear()
        self._make_room()

    def take(self, item: Held) -> None:
        """Makes the item busy: it is not dropped until it is settled or given back."""
        self._dequeue(item)
        item.place = Place.BUSY

    def pack(self, item: Waiting, packed: PackedBatch) -> None:
        """Holds a waiting item in less memory from here on."""
        self._dequeue(item)
        self.octets += packed.held_octets - item.octets
        item.batch, item.octets = packed, packed.held_octets
        self._enqueue(item)

    def give_back(self, item: Held) -> None:
        """The item waits again, as the oldest of its kind."""
        item.place = Place.QUEUED
        self._enqueue(item)
        self._queue_of(item).move_to_end(item, last=False)
        self._make_room()

    def replace(
        self, items: Iterable[Held], chunks: Iterable[Held], lost: Mapping[str, int]
    ) -> None:
        """Encoding turned waiting items into chunks, less the records in `lost`."""
        for item in items:
            self._release(item)
        for reason, number in lost.items():
            self.dropped[reason] += number
        for chunk in chunks:
            self.admit(chunk)

    def refuse(self, num_records: int, reason: str) -> None:
        """Counts records that were never held."""
        self.dropped[reason] += num_records

    def settle_reported(self, item: Held) -> None:
        """The broker has it."""
        self._release(item)
        self.reported += item.num_records

    def settle_dropped(self, item: Held, reason: str) -> None:
        """Given up before it was tried."""
        self._release(item)
        self.dropped[reason] += item.num_records
        if item.on_drop is not None:
            item.on_drop(item)

    def settle_failed(self, item: Held, reason: str) -> None:
        """Tried, and given up."""
        self._release(item)
        self.failed[reason] += item.num_records

    def drop_all(self, reason: str) -> None:
        """Drops what is queued; busy items are their owners' to settle."""
        for item in [*self._chunks, *self._packed, *self._loose]:
            self.settle_dropped(item, reason)

    async def emptied(self) -> None:
        """Returns when nothing is held."""
        while self.queued:
            await self._empty.wait()

    def stats(self) -> ReporterStats:
        """The account, cumulative since the start."""
        return ReporterStats(self.reported, dict(self.dropped), dict(self.failed), self.queued)

    def _queue_of(self, item: Held) -> OrderedDict[Held, None]:
        if isinstance(item, Chunk):
            return self._chunks
        is_packed = isinstance(item, Waiting) and isinstance(item.batch, PackedBatch)
        return self._packed if is_packed else self._loose

    def _enqueue(self, item: Held) -> None:
        queue = self._queue_of(item)
        queue[item] = None
        if queue is self._loose:
            self._loose_octets += item.octets

    def _dequeue(self, item: Held) -> None:
        queue = self._queue_of(item)
        if item not in queue:
            return
        del queue[item]
        if queue is self._loose:
            self._loose_octets -= item.octets

    def _release(self, item: Held) -> None:
        if item.place is Place.SETTLED:
            raise RuntimeError("records settled twice")
        self._dequeue(item)
        item.place = Place.SETTLED
        self.octets -= item.octets
        self.queued -= item.num_records
        if not self.queued:
            self._empty.set()

    def _make_room(self) -> None:
        while self.octets > self.limit_octets:
            oldest = self._oldest()
            if oldest is None:
                return
            self.settle_dropped(oldest, "queue_full")

    def _oldest(self) -> Held | None:
        queues = [self._chunks, self._packed, self._loose]
        # What is loose takes twenty times the memory: for one of them to stay, the records
        # of twenty others would have to go.
        if self._loose_octets > self.limit_octets // 2:
            queues.reverse()
        return next((item for queue in queues for item in queue), None)
