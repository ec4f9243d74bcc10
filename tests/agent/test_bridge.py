"""Reporter queues: bounded, independent of each other, and every record accounted for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus_agent.bridge import Delivery
from otus_agent.plugin_calls import PluginCaller
from otus_sdk.host import RecordList
from otus_sdk.protocols import RecordBatch, ReporterStats, ReportResult
from otus_sdk.testing import make_record
from waiting import wait_until, wait_until_async

MIB = 1 << 20


def batch(records: int = 10) -> RecordList:
    return RecordList([make_record() for _ in range(records)])


class Reporter:
    """A reporter that does as it is told."""

    name = "told"

    def __init__(self, behave: Callable[[RecordBatch], Any] | None = None) -> None:
        self.behave = behave or (lambda batch: ReportResult(len(batch)))
        self.batches: list[RecordBatch] = []
        self.flushed = 0

    def init(self, config: Any) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...

    async def report_batch(self, batch: RecordBatch) -> ReportResult:
        self.batches.append(batch)
        result = self.behave(batch)
        if asyncio.iscoroutine(result):
            result = await result
        assert isinstance(result, ReportResult)
        return result

    async def flush(self) -> None:
        self.flushed += 1


def delivery(reporter: Any, batches: int = 4, octets: int = 64 * MIB) -> Delivery:
    return Delivery(
        "told", reporter, PluginCaller("told"), max_batches=batches, max_octets=octets, task_id="t"
    )


async def finish(one: Delivery, running: asyncio.Task[None]) -> None:
    one.finish()
    await asyncio.wait_for(running, 120)
    one.close()


async def test_records_are_delivered_in_order_and_flushed() -> None:
    """Everything put before the end is delivered in order, then flush() is called once."""
    reporter = Reporter()
    one = delivery(reporter, batches=100)
    sent = [batch(n) for n in (1, 2, 3)]
    for each in sent:
        one.put(each)
    running = asyncio.create_task(one.run())
    await finish(one, running)
    assert reporter.batches == sent
    assert reporter.flushed == 1
    account = one.account()
    assert (account.offered, account.reported, account.queued, account.imbalance) == (6, 6, 0, 0)


async def test_the_oldest_batch_is_dropped_by_number() -> None:
    """A full queue drops its oldest batch and counts its records."""
    reporter = Reporter()
    one = delivery(reporter, batches=2)
    sent = [batch(n) for n in (1, 2, 4, 8)]
    for each in sent:
        one.put(each)
    account = one.account()
    assert (account.queued, account.dropped) == (12, {"queue_full": 3})
    running = asyncio.create_task(one.run())
    await finish(one, running)
    assert reporter.batches == sent[2:]


async def test_the_oldest_batch_is_dropped_by_octets() -> None:
    """The queue's octets are bounded; a batch larger than the bound still goes through alone."""
    one = delivery(Reporter(), batches=1000, octets=20 * 1024)
    for _ in range(5):
        one.put(batch(8))  # 8 KiB by the estimate for batches that do not tell
    assert one.account().queued_octets <= 20 * 1024
    assert one.account().dropped == {"queue_full": 24}
    one.put(batch(100))
    assert one.account().queued == 100
    assert one.account().imbalance == 0


async def test_a_hanging_reporter_does_not_hold_up_another() -> None:
    """While one reporter never returns, the other gets every batch."""
    never = asyncio.Event()

    async def hang(batch: RecordBatch) -> ReportResult:
        await never.wait()
        return ReportResult(len(batch))

    stuck, quick = delivery(Reporter(hang)), delivery(Reporter(), batches=100)
    running = [asyncio.create_task(one.run()) for one in (stuck, quick)]
    for _ in range(50):
        for one in (stuck, quick):
            one.put(batch())
        await asyncio.sleep(0)
    await wait_until_async(lambda: quick.account().reported == 500)
    account = stuck.account()
    assert account.imbalance == 0
    assert account.queued == 50  # 4 batches waiting, one in hand
    assert account.dropped == {"queue_full": 450}
    running[0].cancel()
    await asyncio.gather(*running[:1], return_exceptions=True)
    assert stuck.account().failed == {"stopped": 10}
    await finish(quick, running[1])


async def test_what_a_reporter_raises_is_counted_and_the_next_batch_tried() -> None:
    """An exception fails its own batch under its class name, and is no end."""
    answers = iter([ConnectionError("no"), ValueError("odd"), None])

    def behave(batch: RecordBatch) -> ReportResult:
        error = next(answers)
        if error is not None:
            raise error
        return ReportResult(len(batch))

    one = delivery(Reporter(behave))
    running = asyncio.create_task(one.run())
    for n in (1, 2, 4):
        one.put(batch(n))
    await finish(one, running)
    account = one.account()
    assert account.failed == {"ConnectionError": 1, "ValueError": 2}
    assert (account.reported, account.imbalance) == (4, 0)


async def test_a_reporter_that_forgets_records_is_found_out() -> None:
    """Records that a result does not explain count as unaccounted, and the ledger balances."""
    one = delivery(Reporter(lambda batch: ReportResult(3, {"too_large": 1})))
    running = asyncio.create_task(one.run())
    one.put(batch(10))
    await finish(one, running)
    account = one.account()
    assert (account.reported, account.dropped, account.failed) == (
        3,
        {"too_large": 1},
        {"unaccounted": 6},
    )
    assert account.imbalance == 0


class Booked(Reporter):
    """A reporter that takes over and finishes later; it keeps books."""

    def __init__(self) -> None:
        super().__init__(lambda batch: self.take(len(batch)))
        self.books = ReporterStats()
        self.fails_after: int | None = None

    def take(self, records: int) -> ReportResult:
        if self.fails_after is not None:
            self.books = ReporterStats(queued=self.books.queued + self.fails_after)
            raise OSError("half way")
        self.books = ReporterStats(queued=self.books.queued + records)
        return ReportResult(0, pending=records)

    def stats(self) -> ReporterStats:
        return self.books


async def test_books_of_a_reporter_that_finishes_later() -> None:
    """What it took over is queued until its stats say otherwise."""
    reporter = Booked()
    one = delivery(reporter)
    running = asyncio.create_task(one.run())
    one.put(batch(10))
    await wait_until_async(lambda: reporter.batches)
    assert one.account().queued == 10
    reporter.books = ReporterStats(reported=7, dropped={"old": 1}, failed={"timeout": 2})
    account = one.account()
    assert (account.reported, account.dropped, account.failed, account.queued) == (
        7,
        {"old": 1},
        {"timeout": 2},
        0,
    )
    assert account.imbalance == 0
    await finish(one, running)
    assert one.account().imbalance == 0


async def test_what_the_reporter_holds_counts_against_the_queue() -> None:
    """One bound holds for both; a quarter of it is left to the queue whatever the reporter does."""
    reporter = Booked()
    one = delivery(reporter, batches=1000, octets=64 * 1024)
    for held_octets, left in ((0, 64), (40 * 1024, 24), (64 * 1024, 16), (1 << 40, 16)):
        reporter.books = ReporterStats(held_octets=held_octets)
        for _ in range(70):
            one.put(batch(1))  # 1 KiB by the estimate
        assert one.account().queued_octets == left * 1024
    reporter.books = ReporterStats()
    one.put(batch(1))
    assert one.account().queued_octets == 17 * 1024
    assert one.account().imbalance == 0


async def test_a_source_that_can_wait_waits_for_what_the_reporter_holds() -> None:
    """Nothing waits in the queue, and yet it waits: the reporter would drop what comes."""
    reporter = Booked()
    one = delivery(reporter, octets=64 * 1024)
    reporter.books = ReporterStats(held_octets=48 * 1024)
    looks = 0

    def give_up() -> bool:
        nonlocal looks
        looks += 1
        if looks == 3:
            reporter.books = ReporterStats(held_octets=47 * 1024)
        return looks == 1000

    one.wait_for_room(batch(1), give_up)
    assert looks == 3


async def test_a_reporter_that_fails_half_way() -> None:
    """Only what it had not taken over counts as failed."""
    reporter = Booked()
    reporter.fails_after = 4
    one = delivery(reporter)
    running = asyncio.create_task(one.run())
    one.put(batch(10))
    await finish(one, running)
    account = one.account()
    assert (account.queued, account.failed, account.imbalance) == (4, {"OSError": 6}, 0)


async def test_books_that_can_not_be_read_are_as_they_were() -> None:
    """A reporter whose stats() raises now and then loses no record, and none is counted twice."""
    reporter = Booked()
    books = reporter.stats
    raises = False

    def stats() -> ReporterStats:
        if raises:
            raise RuntimeError("not now")
        return books()

    def behave(batch: RecordBatch) -> ReportResult:
        nonlocal raises
        reporter.books = ReporterStats(reported=reporter.books.reported + len(batch))
        raises = len(batch) in (2, 4)
        return ReportResult(0, pending=len(batch))

    reporter.stats, reporter.behave = stats, behave  # type: ignore[method-assign]
    one = delivery(reporter)
    running = asyncio.create_task(one.run())
    for records in (10, 2, 3, 4):
        one.put(batch(records))
        await wait_until_async(
            lambda number=records: reporter.batches and len(reporter.batches[-1]) == number
        )
        account = one.account()
        assert (account.reported + account.queued, account.imbalance) == (account.offered, 0)
        raises = raises and records == 4
    await finish(one, running)
    account = one.account()
    assert (account.reported, account.failed, account.imbalance) == (15, {"unaccounted": 4}, 0)


async def test_put_after_close_is_counted() -> None:
    """What comes after the end is dropped as stopped, and so is what still waited."""
    one = delivery(Reporter())
    one.put(batch(1))
    one.close()
    one.put(batch(2))
    assert one.account().dropped == {"stopped": 3}
    assert one.account().imbalance == 0


async def test_many_puts_wake_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that come before the loop gets to it cost one wake-up together."""
    one = delivery(Reporter(), batches=1000)
    running = asyncio.create_task(one.run())
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    wakes: list[object] = []
    call_soon = loop.call_soon_threadsafe

    def counting(*arguments: Any) -> Any:
        wakes.append(arguments)
        return call_soon(*arguments)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counting)
    for _ in range(100):
        one.put(batch(1))
    assert len(wakes) == 1
    monkeypatch.undo()
    await finish(one, running)
    assert one.account().reported == 100


async def test_a_source_that_can_wait_waits_for_room() -> None:
    """wait_for_room() holds a thread until the reporter has caught up, or it is told to stop."""
    one = delivery(Reporter(), batches=1)
    one.put(batch(1))
    gave_up = threading.Event()
    done = threading.Event()

    def wait() -> None:
        one.wait_for_room(batch(1), gave_up.is_set)
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not done.wait(0.05)
    running = asyncio.create_task(one.run())
    await asyncio.to_thread(wait_until, done.is_set)
    thread.join()

    await finish(one, running)
    blocked = delivery(Reporter(), batches=1)
    blocked.put(batch(1))
    done.clear()
    gave_up.set()
    blocked.wait_for_room(batch(1), gave_up.is_set)  # returns although there is no room


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(1, 5)),
            st.tuples(st.just("run"), st.sampled_from(["ok", "raise", "short", "drop"])),
        ),
        max_size=40,
    )
)
def test_accounts_balance_whatever_happens(steps: list[tuple[str, Any]]) -> None:
    """Over any order of puts and of good, failing and forgetful reports, nothing is unexplained."""

    async def play() -> None:
        def behave(batch: RecordBatch) -> ReportResult:
            mood = reporter_mood[0]
            if mood == "raise":
                raise RuntimeError("told to")
            if mood == "short":
                return ReportResult(len(batch) - 1)
            if mood == "drop":
                return ReportResult(0, {"old": len(batch)})
            return ReportResult(len(batch))

        reporter_mood = ["ok"]
        one = delivery(Reporter(behave), batches=3)
        offered = 0
        running = asyncio.create_task(one.run())
        for step, value in steps:
            if step == "put":
                one.put(batch(value))
                offered += value
            else:
                reporter_mood[0] = value
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert one.account().imbalance == 0
        await finish(one, running)
        account = one.account()
        assert (account.offered, account.queued, account.imbalance) == (offered, 0, 0)

    asyncio.run(play())
