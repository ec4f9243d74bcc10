"""Tasks: their states, phases that leave nothing behind, and stopping whatever hangs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from frames import pcap, sip, udp, write_octets, write_pcap
from otus_agent.config.task import MAX_STAGES
from otus_agent.task import Task, TaskState
from otus_sdk.errors import (
    ConfigurationInvalid,
    OtusError,
    PluginInitFailed,
    PluginNotFound,
    TaskStartFailed,
)
from otus_sdk.factory import NativeStage, PluginKind
from otus_sdk.model import CaptureStats, OutputPacket, RawPacket
from otus_sdk.protocols import PacketSink, RecordBatch, ReportResult
from tasks import Collector, Plugin, factory, make_task, run_task
from waiting import wait_until_async


@pytest.fixture
def capture(tmp_path: Path) -> str:
    return write_pcap(tmp_path / "a.pcap", [udp(sip())] * 20)


def resources() -> tuple[int, int]:
    """Open descriptors and threads of the core's and the agent's own."""
    gc.collect()
    threads = [t for t in threading.enumerate() if t.name.startswith("otus-")]
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), len(threads)


async def only_left(before: tuple[int, int]) -> None:
    """Waits until no more than before is there: a thread goes a little after its last word."""
    await wait_until_async(
        lambda: all(now <= then for now, then in zip(resources(), before, strict=True)),
        what=f"no more than {before}",
    )


async def test_states_of_a_task_that_ends_by_itself(capture: str) -> None:
    """created, running until its end is told, stopped; its ledger balances at each point."""
    task, out = make_task(capture)
    assert task.state is TaskState.CREATED
    assert task.ledger().balanced
    await task.start()
    assert task.state is TaskState.RUNNING
    await asyncio.wait_for(task.finished.wait(), 120)
    await task.stop(5)
    assert task.state is TaskState.STOPPED
    assert task.status()["ledger"]["balanced"]
    assert len(out.packets) == 20
    await task.stop(5)
    assert task.state is TaskState.STOPPED


async def test_the_shortest_and_the_longest_times_are_taken(capture: str) -> None:
    for duration in ("1ns", "49d"):
        task, out = make_task(
            capture,
            decoder={"fragment_timeout": duration},
            streams={"gap_timeout": duration, "idle_timeout": duration},
            flows={"ttl": duration},
        )
        await run_task(task)
        assert len(out.packets) == 20


async def test_as_many_stages_as_the_core_has_room_for(capture: str) -> None:
    """One more is told when the task is read, not as a limit of something."""
    keep = {"type": "filter", "config": {"keep_if": "sip.method == 'INVITE'"}}
    task, out = make_task(capture, processors=[keep] * (MAX_STAGES - 1))
    await run_task(task)
    assert len(out.packets) == 20
    with pytest.raises(ValueError, match="65 parsers and processors, must be at most 64 together"):
        make_task(capture, processors=[keep] * MAX_STAGES)


async def test_stop_without_start_and_start_only_once(capture: str) -> None:
    """A task that never ran stops at once; a task starts only once."""
    task, _ = make_task(capture)
    await task.stop(1)
    assert task.state is TaskState.STOPPED
    with pytest.raises(TaskStartFailed, match="starts only once"):
        await task.start()


class Failing(Plugin):
    """A processor that fails where it is told."""

    name = "failing"

    def __init__(self, where: str) -> None:
        if where == "create":
            raise RuntimeError("told to fail")
        self._where = where
        self.stopped = 0

    def init(self, config: Any) -> None:
        if self._where == "init":
            raise RuntimeError("told to fail")

    def start(self) -> None:
        if self._where == "start":
            raise RuntimeError("told to fail")

    def stop(self) -> None:
        self.stopped += 1

    def process(self, packet: OutputPacket) -> bool:
        return True


@pytest.mark.parametrize("where", ["create", "init", "start"])
@pytest.mark.parametrize("kind", [PluginKind.PROCESSOR, PluginKind.REPORTER, PluginKind.CAPTURER])
async def test_a_plugin_that_fails_to_start_leaves_nothing(
    capture: str, kind: PluginKind, where: str
) -> None:
    """Whichever phase fails, the error names the plugin, and no thread or descriptor stays."""

    class Failing1(Failing):
        def report_batch(self, batch: RecordBatch) -> ReportResult:
            return ReportResult(len(batch))

        def flush(self) -> None: ...
        def capture(self, output: PacketSink) -> None: ...
        def stats(self) -> CaptureStats:
            return CaptureStats()

    plugin = factory(kind, "failing", lambda: Failing1(where))
    changes: dict[str, Any] = {
        PluginKind.PROCESSOR: {"processors": ["failing"]},
        PluginKind.REPORTER: {"reporters": ["collect", "failing"]},
        PluginKind.CAPTURER: {"capture": {"type": "failing"}},
    }[kind]
    before = resources()
    task, _ = make_task(capture, plugin, **changes)
    with pytest.raises(PluginInitFailed, match=f"{kind} 'failing'.*told to fail"):
        await task.start()
    assert task.state is TaskState.FAILED
    assert "told to fail" in str(task.last_error)
    await only_left(before)
    assert task.ledger().balanced
    await task.stop(1)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"parsers": ["nosuch"]}, PluginNotFound, "nosuch"),
        ({"capture": {"type": "pcap", "files": "/nowhere.pcap"}}, TaskStartFailed, "/nowhere.pcap"),
        ({"capture": {"type": "pcap", "files": "/nowhere*"}}, TaskStartFailed, "no file matches"),
        ({"workers": {"affinity": [4000]}}, ConfigurationInvalid, "no CPU 4000"),
        ({"capture": {"type": "pcap", "file": "x"}}, ConfigurationInvalid, "did you mean 'files'"),
    ],
)
async def test_what_can_not_start_says_why(
    capture: str, changes: dict[str, Any], error: type[OtusError], words: str
) -> None:
    """Each cause keeps its own error code, and leaves nothing behind."""
    before = resources()
    task, _ = make_task(capture, **changes)
    with pytest.raises(error, match=words.replace("*", r"\*")):
        await task.start()
    await only_left(before)


async def test_an_unknown_native_stage_is_refused(capture: str) -> None:
    """A factory that asks the core for what it does not have fails the start."""
    odd = factory(
        PluginKind.PARSER, "odd", Plugin, native=lambda config: NativeStage("no-such-stage")
    )
    task, _ = make_task(capture, odd, parsers=["odd"])
    with pytest.raises(PluginInitFailed, match="no stage 'no-such-stage'"):
        await task.start()


async def test_a_thousand_packets_through_five_tasks_at_once(capture: str) -> None:
    """Several tasks side by side do not disturb each other."""
    made = [make_task(capture) for _ in range(5)]
    await asyncio.gather(*(run_task(task) for task, _ in made))
    for task, out in made:
        assert len(out.packets) == 20
        assert task.ledger().balanced


async def test_tasks_come_and_go_without_leaks(capture: str) -> None:
    """Fifty runs leave no descriptor and no thread."""
    await run_task(make_task(capture)[0])
    before = resources()
    for _ in range(50):
        await run_task(make_task(capture)[0])
    await only_left(before)


class Hanging(Collector):
    """A reporter that hangs where it is told, until it is cancelled."""

    name = "hanging"

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    async def _maybe(self, where: str) -> None:
        if where == self._where:
            await asyncio.Event().wait()

    async def report_batch(self, batch: RecordBatch) -> ReportResult:  # type: ignore[override]
        await self._maybe("report")
        return super().report_batch(batch)

    async def flush(self) -> None:  # type: ignore[override]
        await self._maybe("flush")

    async def stop(self) -> None:  # type: ignore[override]
        await self._maybe("stop")


@pytest.mark.parametrize("where", ["report", "flush", "stop"])
async def test_a_hanging_reporter_does_not_hold_up_the_end(capture: str, where: str) -> None:
    """Stopping comes to an end all the same; the other reporter has everything."""
    plugin = factory(PluginKind.REPORTER, "hanging", lambda: Hanging(where))
    task, out = make_task(capture, plugin, reporters=["hanging", "collect"])
    await task.start()
    await asyncio.wait_for(task.finished.wait(), 120)
    async with asyncio.timeout(120):
        await task.stop(0.3)
    assert task.state is TaskState.STOPPED
    assert len(out.packets) == 20
    assert task.ledger().balanced, task.ledger().imbalances
    if where == "report":
        assert task.ledger().equation("report[hanging]").parts["failed[stopped]"] == 20


async def test_a_kafka_reporter_without_a_broker_is_gone_with_its_task(capture: str) -> None:
    """What it still held counts as dropped, and nothing of it goes on trying."""
    reporter = {"type": "kafka", "config": {"brokers": ["127.0.0.1:1"], "topic": "t"}}
    task, _ = make_task(capture, reporters=[reporter])
    before = asyncio.all_tasks()
    await task.start()
    await asyncio.wait_for(task.finished.wait(), 120)
    await task.stop(0.3)
    [account] = task.accounts()
    assert (account.offered, account.queued, account.dropped) == (20, 0, {"stopped": 20})
    assert asyncio.all_tasks() == before


async def test_a_plugin_that_never_returns_is_told(capture: str) -> None:
    """A parser stuck in its own code makes the task fail by name; the agent goes on."""
    release = threading.Event()

    class Stuck(Plugin):
        name = "stuck"

        def process(self, packet: OutputPacket) -> bool:
            release.wait(300)
            return True

    plugin = factory(PluginKind.PROCESSOR, "stuck", Stuck)
    task, _ = make_task(capture, plugin, processors=["stuck"])
    await task.start()
    try:
        await wait_until_async(lambda: task.workers[0].stuck_in == "stuck", what="stuck_in")
        await task.stop(0.3)
        assert task.state is TaskState.FAILED
        assert "in plugin stuck" in str(task.last_error)
    finally:
        release.set()
    await wait_until_async(task.workers[0].ended.is_set)


def _may_be_urgent(nice: int) -> bool:
    """Whether the kernel lets a thread of this process be as urgent as that."""
    asked: list[bool] = []

    def ask() -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
            asked.append(True)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return bool(asked)


@pytest.mark.parametrize("nice", [5, -10, 0])
@pytest.mark.parametrize("is_live", [True, False])
async def test_pipelines_that_capture_live_have_their_niceness(
    capture: str, nice: int, is_live: bool
) -> None:
    """Only the thread that empties a live source is moved, and a refusal changes nothing."""
    seen: set[int] = set()

    class Looks(Plugin):
        name = "looks"

        def process(self, packet: OutputPacket) -> bool:
            seen.add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return True

    class Tap(Plugin):
        name = "tap"

        def capture(self, output: PacketSink) -> None:
            output.put([RawPacket(udp(sip()), 1)])

        def stats(self) -> CaptureStats:
            return CaptureStats(received=1)

    own = os.getpriority(os.PRIO_PROCESS, 0)
    changes: dict[str, Any] = {"processors": ["looks"]}
    if is_live:
        changes["capture"] = {"type": "tap"}
    if nice != -10:  # the default
        changes["workers"] = {"nice": nice}
    looks = factory(PluginKind.PROCESSOR, "looks", Looks)
    task, out = make_task(capture, looks, factory(PluginKind.CAPTURER, "tap", Tap), **changes)
    await run_task(task)
    assert out.packets
    assert task.state is TaskState.STOPPED, task.last_error
    moved = nice if is_live and nice and _may_be_urgent(nice) else own
    assert seen == {moved}
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


async def test_the_source_is_asked_between_hand_overs(capture: str) -> None:
    """Asked while one file is closed and the next is not open, it had captured less than before."""
    task, _ = make_task(capture)
    await run_task(task)
    done = threading.Event()

    def ask() -> None:
        assert task.source_account().received == 20
        done.set()

    asking = threading.Thread(target=ask)
    with task.workers[0].at_rest():
        asking.start()
        assert not done.wait(0.1)
    await asyncio.to_thread(asking.join)
    assert done.is_set()


async def test_a_slow_plugin_is_quarantined(capture: str) -> None:
    """Three batches in a row above the time budget, and the plugin is bypassed."""

    class Slow(Plugin):
        name = "slow"

        def process_batch(self, batch: RecordBatch) -> bytes:
            end = time.monotonic() + 0.02
            while time.monotonic() < end:
                pass
            return b"\1" * len(batch)

    plugin = factory(PluginKind.PROCESSOR, "slow", Slow)
    task, out = make_task(
        capture,
        plugin,
        processors=["slow"],
        workers={"batch_records": 2},
        faults={"time_budget": "1ms"},
    )
    await run_task(task)
    (tracker,) = task.trackers
    assert (tracker.overruns, "in a row above" in tracker.quarantined) == (3, True)
    assert len(out.packets) == 20
    assert task.ledger().balanced


async def test_the_source_failing_fails_the_task(tmp_path: Path) -> None:
    """A file that breaks off in garbage fails the task after what was good is reported."""
    octets = pcap([udp(sip())] * 3) + b"\xff" * 64
    task, out = make_task(write_octets(tmp_path / "a.pcap", octets))
    await run_task(task)
    assert task.state is TaskState.FAILED
    assert "pipeline test-0" in str(task.last_error)
    assert len(out.packets) == 3
    assert task.ledger().balanced, task.ledger().imbalances


async def test_a_python_capturer_that_raises_fails_the_task() -> None:
    """What a capturer raises is the task's last error; what it gave before is reported."""

    class Broken(Plugin):
        name = "broken"

        def capture(self, output: PacketSink) -> None:
            output.put([RawPacket(udp(sip()), 1)])
            raise ConnectionError("tap is gone")

        def stats(self) -> CaptureStats:
            return CaptureStats(received=1)

    plugin = factory(PluginKind.CAPTURER, "broken", Broken)
    task, out = make_task("", plugin, capture={"type": "broken"})
    await run_task(task)
    assert task.state is TaskState.FAILED
    assert "tap is gone" in str(task.last_error)
    assert len(out.packets) == 1
    assert task.ledger().balanced


async def test_files_lose_nothing_to_a_slow_reporter(tmp_path: Path) -> None:
    """A file waits for a reporter whose queue is full: nothing is dropped."""
    path = write_pcap(tmp_path / "many.pcap", [udp(sip())] * 300)

    class Slow(Collector):
        async def report_batch(self, batch: RecordBatch) -> ReportResult:  # type: ignore[override]
            await asyncio.sleep(0.002)
            return super().report_batch(batch)

    task, out = make_task(
        path,
        collector=Slow(),
        workers={"batch_records": 10},
        reporters=[{"type": "collect", "queue_batches": 2}],
    )
    await run_task(task)
    assert len(out.packets) == 300
    assert task.ledger().equation("report[collect]").parts == {"reported": 300}


async def test_a_compressed_file_in_its_own_time_can_be_stopped(tmp_path: Path) -> None:
    """Its decompression waited for a reader that waited for the packets' time, and stop for it."""
    octets = pcap([udp(sip(body=b"x" * 1000))] * 3_000, gap_ns=3_600 * 10**9)
    path = write_octets(tmp_path / "slow.pcap.gz", gzip.compress(octets, 1))
    task, out = make_task("", capture={"type": "pcap", "files": path, "timing": "original"})
    await task.start()
    await wait_until_async(lambda: out.packets)
    async with asyncio.timeout(60):
        await task.stop(120)
    assert task.state is TaskState.STOPPED
    assert task.last_error is None
    assert task.ledger().balanced


async def test_several_files_are_one_run(tmp_path: Path) -> None:
    """Files are read in order as one pipeline; counters and ledger are of all together."""
    for number in range(3):
        write_pcap(tmp_path / f"{number}.pcap", [udp(sip(call_id=f"c{number}"))] * 2)
    task, out = make_task(str(tmp_path / "*.pcap"))
    await run_task(task)
    ids = [packet.labels["sip.call_id"] for packet in out.packets]
    assert ids == ["c0", "c0", "c1", "c1", "c2", "c2"]
    assert task.ledger().equation("capture").total == 6
    assert task.ledger().balanced


async def test_a_bad_file_among_several_fails_with_its_name(tmp_path: Path) -> None:
    """The second file being no capture file fails the task by its name."""
    good = write_pcap(tmp_path / "a.pcap", [udp(sip())])
    bad = write_octets(tmp_path / "b.pcap", b"not a capture file, really")
    task, out = make_task([good, bad])
    await run_task(task)
    assert task.state is TaskState.FAILED
    assert bad in str(task.last_error)
    assert len(out.packets) == 1
    assert task.ledger().balanced


def test_a_task_belongs_to_no_loop_before_it_starts(capture: str) -> None:
    """A task is made outside an event loop, and run inside one."""
    task: Task = make_task(capture)[0]
    asyncio.run(run_task(task))
    assert task.state is TaskState.STOPPED
