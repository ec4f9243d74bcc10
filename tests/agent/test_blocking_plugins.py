"""Plugins whose plain functions block: nothing but the plugin itself waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from frames import sip, udp, write_pcap
from otus_agent import plugin_calls, sources, task
from otus_agent.plugin_calls import PluginCaller
from otus_agent.task import TaskState
from otus_sdk.errors import PluginInitFailed
from otus_sdk.factory import PluginKind
from otus_sdk.model import CaptureStats, OutputPacket, RawPacket
from otus_sdk.protocols import PacketSink, RecordBatch, ReportResult
from tasks import Collector, Plugin, factory, make_task
from waiting import DEADLINE_S, wait_until_async

PACKETS = 20


@pytest.fixture
def capture(tmp_path: Path) -> str:
    return write_pcap(tmp_path / "a.pcap", [udp(sip())] * PACKETS)


class Gate:
    """Where a plugin is told to block. Whoever is in it stays until `open`, or for long."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.left = False

    @property
    def is_blocking(self) -> bool:
        return self.entered.is_set() and not self.left

    def at(self, where: str) -> None:
        if where == self.where:
            self.entered.set()
            self.opened.wait(DEADLINE_S / 4)
            self.left = True


class Blocking(Plugin):
    """A plain plugin of every kind."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def init(self, config: Any) -> None:
        self._gate.at("init")

    def start(self) -> None:
        self._gate.at("start")

    def stop(self) -> None:
        self._gate.at("stop")


class BlockingReporter(Blocking):
    def report_batch(self, batch: RecordBatch) -> ReportResult:
        self._gate.at("report")
        return ReportResult(len(batch))

    def flush(self) -> None:
        self._gate.at("flush")


class BlockingProcessor(Blocking):
    def process(self, packet: OutputPacket) -> bool:
        return True


class BlockingCapturer(Blocking):
    def capture(self, output: PacketSink) -> None:
        output.put([RawPacket(udp(sip()), 1)] * PACKETS)

    def stats(self) -> CaptureStats:
        return CaptureStats(received=PACKETS)


def changes_for(kind: PluginKind) -> dict[str, Any]:
    return {
        PluginKind.REPORTER: {"reporters": ["blocking", "collect"]},
        PluginKind.PROCESSOR: {"processors": ["blocking"]},
        PluginKind.CAPTURER: {"capture": {"type": "blocking"}},
    }[kind]


KINDS = {
    PluginKind.REPORTER: BlockingReporter,
    PluginKind.PROCESSOR: BlockingProcessor,
    PluginKind.CAPTURER: BlockingCapturer,
}


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "PLUGIN_START_TIMEOUT_S", 0.3)
    for module in (task, sources):
        monkeypatch.setattr(module, "PLUGIN_STOP_TIMEOUT_S", 0.3)


@pytest.mark.parametrize("where", ["init", "start"])
@pytest.mark.parametrize("kind", KINDS)
async def test_one_that_does_not_start_is_told(
    capture: str, short_patience: None, kind: PluginKind, where: str
) -> None:
    """The task fails and says who took too long; the loop was free all the time."""
    gate = Gate(where)
    plugin = factory(kind, "blocking", lambda: KINDS[kind](gate))
    made, _ = make_task(capture, plugin, **changes_for(kind))
    with pytest.raises(PluginInitFailed, match=rf"{kind} 'blocking': {where} took longer"):
        await made.start()
    assert gate.is_blocking
    gate.opened.set()
    assert made.state is TaskState.FAILED


@pytest.mark.parametrize("where", ["report", "flush", "stop"])
async def test_a_reporter_holds_up_no_other(capture: str, short_patience: None, where: str) -> None:
    """Another one has everything, and the task ends, while it still blocks."""
    gate = Gate(where)
    plugin = factory(PluginKind.REPORTER, "blocking", lambda: BlockingReporter(gate))
    made, out = make_task(capture, plugin, **changes_for(PluginKind.REPORTER))
    await made.start()
    if where == "report":
        await wait_until_async(gate.entered.is_set)
    await wait_until_async(lambda: len(out.packets) == PACKETS)
    async with asyncio.timeout(DEADLINE_S):
        await made.stop(0.3)
    assert gate.is_blocking
    gate.opened.set()
    assert made.state is TaskState.STOPPED
    assert made.ledger().balanced, made.ledger().imbalances
    if where == "report":
        assert made.ledger().equation("report[blocking]").parts["failed[stopped]"] == PACKETS


@pytest.mark.parametrize("kind", [PluginKind.PROCESSOR, PluginKind.CAPTURER])
async def test_one_that_does_not_stop_holds_up_nobody(
    capture: str, short_patience: None, kind: PluginKind
) -> None:
    """The task ends while it still blocks."""
    gate = Gate("stop")
    plugin = factory(kind, "blocking", lambda: KINDS[kind](gate))
    made, out = make_task(capture, plugin, **changes_for(kind))
    await made.start()
    await wait_until_async(lambda: len(out.packets) == PACKETS)
    async with asyncio.timeout(DEADLINE_S):
        await made.stop(5)
    assert gate.is_blocking
    gate.opened.set()
    assert made.state is TaskState.STOPPED, made.last_error


async def test_calls_of_one_plugin_are_made_one_after_the_other_on_one_thread() -> None:
    """Also where nobody waits any more for the one before."""
    caller = PluginCaller("otus-test")
    gate, seen = Gate("first"), list[tuple[str, int]]()

    def call(name: str) -> str:
        gate.at(name)
        seen.append((name, threading.get_ident()))
        return name

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await caller.call(call, "first")
    second = asyncio.ensure_future(caller.call(call, "second"))
    await asyncio.sleep(0)
    gate.opened.set()
    assert await second == "second"
    (first, thread), (then, same) = seen
    assert (first, then) == ("first", "second")
    assert thread == same != threading.get_ident()
    caller.rest()
    await wait_until_async(lambda: thread not in {t.ident for t in threading.enumerate()})
    assert await caller.call(call, "third") == "third"
    caller.rest()


async def test_coroutines_stay_on_the_loop() -> None:
    """Also those that a plain function returns."""
    caller = PluginCaller("otus-test")

    async def where() -> int:
        await asyncio.sleep(0)
        return threading.get_ident()

    assert await caller.call(where) == threading.get_ident()

    def plain() -> Awaitable[int]:
        return where()

    assert await caller.call(plain) == threading.get_ident()
    caller.rest()


@pytest.mark.parametrize(
    ("raised", "seen", "message"),
    [
        (ValueError("bad"), ValueError, "bad"),
        (SystemExit(1), RuntimeError, "SystemExit"),
        (KeyboardInterrupt(), RuntimeError, "KeyboardInterrupt"),
        (StopIteration(), RuntimeError, "StopIteration"),
        (asyncio.CancelledError(), RuntimeError, "CancelledError"),
    ],
)
async def test_whatever_a_plugin_raises_is_an_error(
    raised: BaseException, seen: type[Exception], message: str
) -> None:
    """None of it ends the thread, the loop, or the task that waits."""
    caller = PluginCaller("otus-test")

    def fail() -> None:
        raise raised

    for _ in range(2):
        with pytest.raises(seen, match=message):
            await caller.call(fail)
    caller.rest()


async def test_a_plain_reporter_of_packets_is_called_once_a_batch(
    capture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way to its thread is gone once for all packets of a batch."""
    calls: list[str] = []
    call = PluginCaller.call

    async def counted(self: PluginCaller, function: Any, *arguments: Any) -> Any:
        calls.append(function.__name__)
        return await call(self, function, *arguments)

    class EachPacket(Plugin):
        name = "each"

        def __init__(self) -> None:
            self.threads: set[int] = set()

        def report(self, packet: OutputPacket) -> None:
            self.threads.add(threading.get_ident())

        def flush(self) -> None: ...

    monkeypatch.setattr(plugin_calls.PluginCaller, "call", counted)
    each = EachPacket()
    plugin = factory(PluginKind.REPORTER, "each", lambda: each)
    made, out = make_task(capture, plugin, reporters=["each", "collect"])
    await made.start()
    await wait_until_async(lambda: len(out.packets) == PACKETS)
    await made.stop(DEADLINE_S)
    account = made.accounts()[0]
    assert account.reported == PACKETS
    assert calls.count("add_all") == len(out.batches)
    assert len(each.threads) == 1
    assert threading.get_ident() not in each.threads


def test_a_collector_is_a_plain_reporter() -> None:
    """What the tests above rely on."""
    assert not asyncio.iscoroutinefunction(Collector.report_batch)
