"""From the pipelines' threads to the reporters on the event loop.

Each reporter has a queue of its own, bounded by batches and by octets, that
drops its oldest: a slow or dead reporter costs itself, never another reporter
and never the capture. Octets are of memory, and one bound holds for what waits
here and what the reporter has taken over and holds. All accounts of a reporter
are kept here under one lock, so that they add up at every moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from otus_agent.logs.logger import get_logger
from otus_agent.plugin_calls import PluginCaller
from otus_agent.registry import one_line
from otus_sdk.host import report_function
from otus_sdk.protocols import RecordBatch, ReporterStats, ReportResult

__all__ = ["Delivery", "ReporterAccount"]

log = get_logger("otus.reporter")

QUEUE_FULL = "queue_full"
STOPPED = "stopped"
UNACCOUNTED = "unaccounted"
# How often a thread that waits for room looks whether it should stop.
GIVE_UP_INTERVAL_S = 0.1
# Looks so often where the reporter's memory is what must go down: nobody tells when it does.
HELD_INTERVAL_S = 0.005
# Of the queue's octets, what is left to it however much the reporter holds.
LEAST_SHARE = 4
LATENCY_BOUNDS_S = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)


@dataclass(frozen=True, slots=True)
class ReporterAccount:
    """What became of the records given to one reporter.

    offered = queued + reported + sum(dropped) + sum(failed), at every moment.

    Attributes:
        name: The reporter.
        offered: Records that the pipelines emitted to it.
        queued: Waiting here, or in the reporter's hands.
        reported: Delivered.
        dropped: Given up before trying, by reason.
        failed: Tried and not delivered, by reason.
        queued_batches: Batches waiting here.
        queued_octets: Octets of these.
        notes: Records to which something was done, by what; counted above as well.
        trouble: What keeps the reporter from delivering just now.
    """

    name: str
    offered: int = 0
    queued: int = 0
    reported: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    queued_batches: int = 0
    queued_octets: int = 0
    notes: Mapping[str, int] = field(default_factory=dict)
    trouble: str = ""

    @property
    def imbalance(self) -> int:
        """Records that no account explains; negative: explained twice."""
        explained = self.queued + self.reported
        explained += sum(self.dropped.values()) + sum(self.failed.values())
        return self.offered - explained


def batch_octets(batch: Any) -> int:
    """The memory that a batch holds; a guess for batches that do not tell."""
    held = getattr(batch, "held_octets", None)
    return held if isinstance(held, int) else 1024 * len(batch)


class Delivery:
    """One reporter with its queue, its asyncio task and its accounts.

    `put` may be called from any thread; everything else belongs to the event
    loop, but `account`, which is for all.
    """

    def __init__(
        self,
        name: str,
        reporter: Any,
        caller: PluginCaller,
        *,
        max_batches: int,
        max_octets: int,
        task_id: str = "",
    ) -> None:
        self.name = name
        self.reporter = reporter
        self._report: Callable[[RecordBatch], Awaitable[ReportResult]] = report_function(
            reporter, self._packet_fault, caller.call
        )
        self._caller = caller
        self._max_batches = max_batches
        self._max_octets = max_octets
        self._task_id = task_id
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._queue: deque[tuple[RecordBatch, int, int, float]] = deque()
        self._queued_records = 0
        self._queued_octets = 0
        self._offered = 0
        self._reported = 0
        self._dropped: dict[str, int] = {}
        self._failed: dict[str, int] = {}
        self._in_hand = 0
        self._in_hand_octets = 0
        # Reported while the reporter's books could not be read: what became of it shows later.
        self._unsettled = 0
        self._taken_before = 0
        self._signalled = False
        self._closed = False
        self._finishing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._logged: set[str] = set()
        self._stats_of = getattr(reporter, "stats", None)
        self._books = ReporterStats()
        self._can_read_books = True
        self._final: ReporterStats | None = None
        self.latency_buckets = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.latency_sum_s = 0.0

    # --- pipelines' side -----------------------------------------------------

    def wait_for_room(self, batch: RecordBatch, give_up: Callable[[], bool]) -> None:
        """Waits until `put` would drop nothing: for sources that can wait, as files can."""
        octets = batch_octets(batch)
        with self._room:
            while not self._closed and not give_up():
                held = self._held_octets()
                if not (self._queue or held) or (
                    len(self._queue) < self._max_batches
                    and self._octets_here + held + octets <= self._max_octets - self._least_octets
                ):
                    return
                self._room.wait(HELD_INTERVAL_S if held else GIVE_UP_INTERVAL_S)

    @property
    def _least_octets(self) -> int:
        return self._max_octets // LEAST_SHARE

    @property
    def _octets_here(self) -> int:
        return self._queued_octets + self._in_hand_octets

    def _is_full(self, octets: int) -> bool:
        if not self._queue:
            return False
        if len(self._queue) >= self._max_batches:
            return True
        wanted = self._octets_here + octets
        # What was last heard of the reporter may be too much: it goes on by itself.
        return wanted > self._share(self._books.held_octets) and wanted > self._share(
            self._held_octets()
        )

    def _share(self, held_octets: int) -> int:
        """The octets that are left here by what the reporter holds."""
        return max(self._max_octets - held_octets, self._least_octets)

    def _held_octets(self) -> int:
        stats = self._stats()
        return stats.held_octets if self._can_read_books else 0

    @property
    def room_octets(self) -> int:
        """Memory that batches and what is made of them may still take, by what is known."""
        return self._max_octets - self._octets_here - self._books.held_octets

    def put(self, batch: RecordBatch) -> None:
        """Hands a batch over; never blocks. Drops the oldest where there is no room."""
        records, octets = len(batch), batch_octets(batch)
        with self._lock:
            self._offered += records
            if self._closed:
                _add(self._dropped, STOPPED, records)
                return
            while self._is_full(octets):
                self._drop_oldest(QUEUE_FULL)
            self._queue.append((batch, records, octets, time.monotonic()))
            self._queued_records += records
            self._queued_octets += octets
            if self._signalled or self._loop is None:
                return
            self._signalled = True
            loop = self._loop
        # One wake-up for however many batches come before the loop gets to it.
        # A closed loop means that the process ends.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._wake.set)

    def _drop_oldest(self, reason: str) -> None:
        _, records, octets, _ = self._queue.popleft()
        self._queued_records -= records
        self._queued_octets -= octets
        _add(self._dropped, reason, records)

    # --- the event loop's side -----------------------------------------------

    async def run(self) -> None:
        """Delivers until `finish` is called, then what is left, then flushes.

        Nothing that the reporter raises ends it.
        """
        with self._lock:
            self._loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                self._signalled = False
                self._wake.clear()
                waiting = bool(self._queue)
            if waiting:
                await self._deliver_one()
                # A reporter that never suspends must not keep the loop to itself.
                await asyncio.sleep(0)
            elif self._finishing:
                break
            else:
                await self._wake.wait()
        try:
            await self._caller.call(self.reporter.flush)
        except Exception as error:  # noqa: BLE001 a reporter may raise anything
            self._log_once(error)

    def finish(self) -> None:
        """Lets `run` end once everything is delivered. Call it when no more is put."""
        self._finishing = True
        self._wake.set()

    async def _deliver_one(self) -> None:
        with self._lock:
            if not self._queue:
                return
            batch, records, octets, queued_at = self._queue.popleft()
            self._queued_records -= records
            self._queued_octets -= octets
            self._in_hand = records
            self._in_hand_octets = octets
            self._room.notify_all()
            if not self._unsettled:
                self._taken_before = _total(self._stats())
        result: ReportResult | None = None
        error: BaseException | None = None
        try:
            result = await self._report(batch)
            if not isinstance(result, ReportResult):
                raise TypeError(f"report_batch() must give a ReportResult, not {result!r:.80}")
        except asyncio.CancelledError as cancelled:
            error = cancelled
            raise
        except Exception as raised:  # noqa: BLE001 a reporter may raise anything
            error = raised
            self._log_once(raised)
        finally:
            self._settle(records, result if error is None else None, error)
            self._observe(time.monotonic() - queued_at)

    def _settle(
        self, records: int, result: ReportResult | None, error: BaseException | None
    ) -> None:
        """Books one batch. A reporter with `stats` keeps its own books of what it took."""
        with self._lock:
            self._in_hand = self._in_hand_octets = 0
            self._room.notify_all()
            records += self._unsettled
            taken = self._taken_of(records)
            self._unsettled = 0 if self._can_read_books else records
            if self._unsettled:
                return
            if error is not None:
                name = type(error).__name__
                reason = STOPPED if isinstance(error, asyncio.CancelledError) else name
                _add(self._failed, reason, records - taken)
                return
            if self._stats_of is not None or result is None:
                if taken < records:
                    _add(self._failed, UNACCOUNTED, records - taken)
                return
            losses = [*result.dropped.values(), *result.failed.values()]
            rest = records - result.reported - sum(losses)
            if rest < 0 or min(result.reported, *losses, 0) < 0:
                # What it says can't be: believing it would unbalance the ledger.
                self._log_once(ValueError(f"a batch of {records} records can't be {result!r:.200}"))
                _add(self._failed, UNACCOUNTED, records)
                return
            self._reported += result.reported
            for reason, count in result.dropped.items():
                _add(self._dropped, reason, count)
            for reason, count in result.failed.items():
                _add(self._failed, reason, count)
            # What is pending, or not told: it keeps no books (no stats()), so nobody ever will.
            _add(self._failed, UNACCOUNTED, rest)

    def _taken_of(self, records: int) -> int:
        """How many of the records in the reporter's hands its books know of."""
        return min(records, _total(self._stats()) - self._taken_before)

    def close(self) -> None:
        """Takes nothing more; what is still queued counts as dropped (stopped)."""
        with self._lock:
            self._closed = True
            self._room.notify_all()
            while self._queue:
                self._drop_oldest(STOPPED)
            unsettled, self._unsettled = self._unsettled, 0
            _add(self._failed, UNACCOUNTED, unsettled - self._taken_of(unsettled))
            self._final = self._books

    # --- accounts ------------------------------------------------------------

    def account(self) -> ReporterAccount:
        """What became of the records so far. Any thread."""
        with self._lock:
            stats = self._final or self._stats()
            in_hand = self._in_hand + self._unsettled
            if in_hand:
                in_hand = max(0, in_hand - (_total(stats) - self._taken_before))
            dropped, failed = dict(self._dropped), dict(self._failed)
            for reason, count in stats.dropped.items():
                _add(dropped, reason, count)
            for reason, count in stats.failed.items():
                _add(failed, reason, count)
            return ReporterAccount(
                name=self.name,
                offered=self._offered,
                queued=self._queued_records + in_hand + stats.queued,
                reported=self._reported + stats.reported,
                dropped=dropped,
                failed=failed,
                queued_batches=len(self._queue),
                queued_octets=self._queued_octets,
                notes=dict(stats.notes),
                trouble=" ".join(str(stats.trouble).split()),
            )

    def _stats(self) -> ReporterStats:
        """The reporter's own books; as they were, where they can't be read just now."""
        if self._stats_of is None:
            return self._books
        try:
            stats = self._stats_of()
            if not isinstance(stats, ReporterStats):
                raise TypeError(f"stats() must give ReporterStats, not {stats!r:.80}")
        except Exception as error:  # noqa: BLE001 a reporter may raise anything
            self._can_read_books = False
            self._log_once(error)
        else:
            self._books, self._can_read_books = stats, True
        return self._books

    def _observe(self, seconds: float) -> None:
        self.latency_sum_s += seconds
        self.latency_buckets[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1

    def _packet_fault(self, _packet: object, error: Exception) -> None:
        self._log_once(error)

    def _log_once(self, error: BaseException) -> None:
        kind = type(error).__name__
        if kind not in self._logged:
            self._logged.add(kind)
            log.error(
                "reporter raised; further ones of this kind are only counted",
                exc_info=error,
                task=self._task_id,
                reporter=self.name,
                reason=one_line(error),
            )


def _add(counts: dict[str, int], reason: str, count: int) -> None:
    if count:
        counts[reason] = counts.get(reason, 0) + count


def _total(stats: ReporterStats) -> int:
    total = stats.reported + stats.queued
    return total + sum(stats.dropped.values()) + sum(stats.failed.values())
