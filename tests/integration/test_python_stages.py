"""Plugins in plain Python, per packet and per batch, in the middle of a real chain."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from frames import CALLER, pcap, response, sip, udp, write_pcap
from otus_agent.ledger import Ledger
from otus_agent.sources import PipeSink
from otus_agent.stages import MAX_GOOD_NAMES, ProcessorStage
from otus_sdk.errors import ConfigurationInvalid, PacketTooShort
from otus_sdk.factory import PluginKind
from otus_sdk.model import CaptureStats, DecodedPacket, OutputPacket, RawPacket
from otus_sdk.protocols import PacketBatch, PacketSink, ParseResult, RecordBatch
from tasks import Collector, Plugin, factory, make_task, run_task
from waiting import wait_until_async

STUN = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + b"\0" * 12
FRAMES = [udp(sip()), udp(STUN), udp(response()), udp(b"\0\0\0\0"), udp(sip("BYE"))]


class StunParser(Plugin):
    """Per packet; `greedy` takes SIP as well."""

    name = payload_type = "stun"
    greedy = False

    def can_handle(self, packet: DecodedPacket) -> bool:
        return self.greedy or packet.payload[4:8] == b"\x21\x12\xa4\x42"

    def handle(self, packet: DecodedPacket) -> tuple[dict[str, Any], dict[str, str]]:
        return {"octets": len(packet.payload)}, {"stun.ttl": str(packet.ip.ttl)}


class GreedyParser(StunParser):
    greedy = True


class BatchStunParser(Plugin):
    name = payload_type = "stun"

    def parse_batch(self, batch: PacketBatch) -> Sequence[ParseResult | None]:
        return [
            ParseResult({"octets": len(batch.payload(i))}, {"stun.ttl": "64"})
            if batch.payload(i)[4:8] == b"\x21\x12\xa4\x42"
            else None
            for i in range(len(batch))
        ]


class NoByeProcessor(Plugin):
    name = "no-bye"

    def process(self, packet: OutputPacket) -> bool:
        packet.labels["seen.by"] = self.name
        return packet.labels.get("sip.method") != "BYE"


class BatchNoByeProcessor(Plugin):
    name = "no-bye"

    def process_batch(self, batch: RecordBatch) -> Sequence[bool]:
        keep = []
        for packet in batch:
            packet.labels["seen.by"] = self.name
            keep.append(packet.labels.get("sip.method") != "BYE")
        return keep


class ListCapturer(Plugin):
    """A capturer in plain Python: the frames of a list."""

    name = "list"

    def __init__(self, frames: Iterable[bytes] = FRAMES) -> None:
        self._frames = list(frames)

    def capture(self, output: PacketSink) -> None:
        output.put([RawPacket(frame, 10**18 + i) for i, frame in enumerate(self._frames)])

    def stats(self) -> CaptureStats:
        return CaptureStats(received=len(self._frames), dropped=2)


@pytest.fixture
def capture(tmp_path: Path) -> str:
    return write_pcap(tmp_path / "mixed.pcap", FRAMES)


def check(ledger: Ledger) -> None:
    assert ledger.balanced, ledger.imbalances


@pytest.mark.parametrize("parser", [StunParser, BatchStunParser])
async def test_python_parser_beside_the_native_one(capture: str, parser: type[Plugin]) -> None:
    """A Python parser's payload and labels arrive like the core's, in order of capture."""
    stun = factory(PluginKind.PARSER, "stun", parser)
    task, out = make_task(capture, stun, parsers=["sip", "stun"])
    await run_task(task)
    kinds = [packet.payload_type for packet in out.packets]
    assert kinds == ["sip", "stun", "sip", "sip"]
    stun_packet = out.packets[1]
    assert stun_packet.labels == {"stun.ttl": "64"}
    assert stun_packet.payload == {"octets": 20}
    assert b'"octets":20' in out.json[1]
    check(task.ledger())
    assert task.ledger().equation("parse").parts == {
        "parsed[sip]": 3,
        "parsed[plugin]": 1,
        "unmatched[dropped]": 1,
    }


@pytest.mark.parametrize(
    ("parsers", "kinds"), [(["stun", "sip"], {"stun"}), (["sip", "stun"], {"sip", "stun"})]
)
async def test_the_order_of_parsers_is_kept(
    capture: str, parsers: list[str], kinds: set[str]
) -> None:
    """A Python parser before `sip` that takes everything leaves it nothing, and not so behind."""
    greedy = factory(PluginKind.PARSER, "stun", GreedyParser)
    task, out = make_task(capture, greedy, parsers=parsers)
    await run_task(task)
    assert {packet.payload_type for packet in out.packets} == kinds
    assert len(out.packets) == len(FRAMES)
    check(task.ledger())


@pytest.mark.parametrize("processor", [NoByeProcessor, BatchNoByeProcessor])
async def test_python_processor(capture: str, processor: type[Plugin]) -> None:
    """A Python processor drops and labels; its labels are in the encoded record."""
    plugin = factory(PluginKind.PROCESSOR, "no-bye", processor)
    task, out = make_task(capture, plugin, processors=["no-bye"])
    await run_task(task)
    assert [packet.labels.get("sip.method") for packet in out.packets] == ["INVITE", None]
    assert all(packet.labels["seen.by"] == "no-bye" for packet in out.packets)
    assert all(b'"seen.by":"no-bye"' in line for line in out.json)
    check(task.ledger())
    assert task.ledger().equation("process").parts["process[plugin]"] == 1


async def test_python_capturer(capture: str) -> None:
    """Frames of a Python capturer go through the same pipeline, its losses in the ledger."""
    plugin = factory(PluginKind.CAPTURER, "list", ListCapturer)
    task, out = make_task("", plugin, capture={"type": "list"})
    await run_task(task)
    from_list = [(p.labels.get("sip.method"), p.src_ip, p.src_port) for p in out.packets]
    assert from_list == [("INVITE", *CALLER), (None, *CALLER), ("BYE", *CALLER)]
    assert out.packets[0].ts_ns == 10**18
    check(task.ledger())
    line = task.ledger().equation("capture")
    assert (line.total, line.parts["dropped[kernel]"]) == (len(FRAMES) + 2, 2)


class ForgetfulCapturer(ListCapturer):
    """Its stats() raises, or gives what is none."""

    def __init__(self, told: Any) -> None:
        super().__init__()
        self._told = told

    def stats(self) -> CaptureStats:
        if isinstance(self._told, Exception):
            raise self._told
        return self._told  # type: ignore[no-any-return]


@pytest.mark.parametrize("told", [RuntimeError("not now"), None, {"received": 5}])
async def test_a_capturer_without_stats_costs_the_ledger_nothing(
    told: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What came through the pipe is known all the same; it is told once, not with each look."""
    plugin = factory(PluginKind.CAPTURER, "list", lambda: ForgetfulCapturer(told))
    task, out = make_task("", plugin, capture={"type": "list"})
    await run_task(task)
    assert len(out.packets) == 3
    check(task.ledger())
    assert task.ledger().equation("capture").total == len(FRAMES)
    assert len([line for line in caplog.messages if "stats" in line]) == 1


def test_a_frame_of_a_new_interface_that_finds_no_room_is_announced_later() -> None:
    """Its interface counted as told of: the next frame of it ended the task."""
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd, "rb", buffering=0) as reader:
        sink = PipeSink(write_fd)
        while sink.put([RawPacket(b"x" * 1000, 1, if_index=1)], block=False):
            pass
        assert sink.put([RawPacket(b"n" * 1000, 2, if_index=2)], block=False) == 0
        octets = reader.read(1 << 20)
        assert sink.put([RawPacket(b"n" * 1000, 3, if_index=2)], block=False) == 1
        sink.close()
        octets += reader.read(1 << 20)
    kinds = []
    while octets:
        kind, length, interface = struct.unpack_from("=III", octets)
        kinds.append((kind, interface if kind == 6 else None))
        octets = octets[length:]
    assert kinds[1:3] == [(1, None), (6, 0)]
    assert kinds[-2:] == [(1, None), (6, 1)]


async def test_per_packet_reporter(capture: str) -> None:
    """A per-packet reporter, async, gets each record; what it raises on counts as failed."""

    class Picky(Plugin):
        name = "picky"
        seen: list[str]

        def init(self, config: Any) -> None:
            self.seen = []

        async def report(self, packet: OutputPacket) -> None:
            if packet.labels.get("sip.method") == "BYE":
                raise ConnectionError("no")
            self.seen.append(packet.payload_type)

        async def flush(self) -> None: ...

    picky = Picky()
    plugin = factory(PluginKind.REPORTER, "picky", lambda: picky)
    task, out = make_task(capture, plugin, reporters=["picky", "collect"])
    await run_task(task)
    assert picky.seen == ["sip", "sip"]
    assert len(out.packets) == 3
    check(task.ledger())
    assert task.ledger().equation("report[picky]").parts == {
        "reported": 2,
        "failed[ConnectionError]": 1,
    }


class Faulty(StunParser):
    def handle(self, packet: DecodedPacket) -> tuple[dict[str, Any], dict[str, str]]:
        raise RuntimeError("my own bug")


class Strict(StunParser):
    def handle(self, packet: DecodedPacket) -> tuple[dict[str, Any], dict[str, str]]:
        raise PacketTooShort("cut off")


class HalfCharacter(StunParser):
    """As json.loads() makes of what traffic says: a str that UTF-8 can't hold."""

    def handle(self, packet: DecodedPacket) -> tuple[dict[str, Any], dict[str, str]]:
        return {}, {"stun.odd": "a\ud800b"}


async def test_a_label_with_half_a_character_fails_nobody(capture: str) -> None:
    """It was an exception outside of the plugin's containment: traffic could end the task."""
    plugin = factory(PluginKind.PARSER, "stun", HalfCharacter)
    task, out = make_task(capture, plugin, parsers=["stun", "sip"])
    await run_task(task)
    assert task.last_error is None
    assert [p.labels.get("stun.odd") for p in out.packets] == [None, "a?b", None, None]
    check(task.ledger())


async def test_a_bug_in_a_stage_fails_the_task_and_keeps_the_books(
    capture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch in hand is seen through and handed over; the task says what it died of."""

    def run(self: ProcessorStage, core: Any) -> None:
        raise LookupError("a bug of ours")

    monkeypatch.setattr(ProcessorStage, "run", run)
    plugin = factory(PluginKind.PROCESSOR, "no-bye", NoByeProcessor)
    task, out = make_task(capture, plugin, processors=["no-bye"])
    await run_task(task)
    assert "a bug of ours" in str(task.last_error)
    assert len(out.packets) == 3
    check(task.ledger())


class Namer(BatchStunParser):
    """Takes the names of labels and payload types from the traffic."""

    def parse_batch(self, batch: PacketBatch) -> Sequence[ParseResult | None]:
        names = [f"stun.{batch.payload(i)[20:].decode()}" for i in range(len(batch))]
        return [ParseResult({}, {name: "x"}, name) for name in names]


async def test_names_that_traffic_makes_up_take_no_memory_without_end(tmp_path: Path) -> None:
    """Each is checked, and few are remembered."""
    frames = [udp(STUN + b"n%d" % number) for number in range(3_000)]
    capture = write_pcap(tmp_path / "names.pcap", frames)
    plugin = factory(PluginKind.PARSER, "stun", Namer)
    task, out = make_task(capture, plugin, parsers=["stun"])
    await task.start()
    try:
        await wait_until_async(task.finished.is_set)
    finally:
        stages = [stage for worker in task.workers for stage in worker._stages.values()]
        await task.stop(60)
    assert [packet.payload_type for packet in out.packets[:2]] == ["stun.n0", "stun.n1"]
    assert len(out.packets) == 3_000
    check(task.ledger())
    (stage,) = stages
    assert len(stage._names._good) == MAX_GOOD_NAMES


class BadPayload(StunParser):
    def handle(self, packet: DecodedPacket) -> tuple[dict[str, Any], dict[str, str]]:
        return {"object": object()}, {}


class BadLabel(StunParser):
    def handle(self, packet: DecodedPacket) -> tuple[dict[str, Any], dict[str, str]]:
        return {}, {"Not A Label": "x"}


class WrongLength(Plugin):
    name = payload_type = "stun"

    def parse_batch(self, batch: PacketBatch) -> Sequence[ParseResult | None]:
        return [None]


@pytest.mark.parametrize("parser", [Faulty, BadPayload, BadLabel, WrongLength])
@pytest.mark.parametrize("on_error", ["keep", "drop"])
async def test_a_parser_s_faults_are_contained(
    capture: str, parser: type[Plugin], on_error: str
) -> None:
    """What a parser raises or gives wrongly costs its packets at most, and is counted."""
    plugin = factory(PluginKind.PARSER, "stun", parser)
    task, out = make_task(capture, plugin, parsers=["sip", "stun"], faults={"on_error": on_error})
    await run_task(task)
    assert [packet.payload_type for packet in out.packets] == ["sip"] * 3
    check(task.ledger())
    (tracker,) = task.trackers
    assert sum(tracker.faults.values()) >= 1
    parts = task.ledger().equation("parse").parts
    assert ("parse_error[plugin]" in parts) == (on_error == "drop")


async def test_malformed_traffic_is_no_fault_of_the_parser(capture: str) -> None:
    """PacketTooShort is a parse error of the packet, and never quarantines the parser."""
    plugin = factory(PluginKind.PARSER, "stun", Strict)
    task, _ = make_task(capture, plugin, parsers=["sip", "stun"], faults={"max_consecutive": 1})
    await run_task(task)
    (tracker,) = task.trackers
    assert (tracker.faults, tracker.quarantined) == ({}, "")
    assert task.ledger().equation("parse").parts["parse_error[plugin]"] == 1
    check(task.ledger())


@pytest.mark.parametrize(("quarantine", "state"), [("bypass", "stopped"), ("fail", "failed")])
async def test_a_parser_that_keeps_failing_is_quarantined(
    tmp_path: Path, quarantine: str, state: str
) -> None:
    """After N faults in a row the plugin is bypassed, or the task fails; nothing is lost."""
    capture = write_pcap(tmp_path / "stun.pcap", [udp(STUN)] * 50 + [udp(sip())])
    plugin = factory(PluginKind.PARSER, "stun", Faulty)
    task, out = make_task(
        capture,
        plugin,
        parsers=["stun", "sip"],
        unmatched="forward",
        faults={"max_consecutive": 10, "quarantine": quarantine},
        workers={"batch_records": 20},
    )
    await run_task(task)
    assert task.state == state
    (tracker,) = task.trackers
    assert tracker.quarantined.startswith("raised on 10 packets in a row")
    assert tracker.faults == {"RuntimeError": 20} if quarantine == "bypass" else True
    check(task.ledger())
    if quarantine == "bypass":
        assert len(out.packets) == 51
    else:
        assert "quarantine" in str(task.last_error) or "in a row" in str(task.last_error)


async def test_what_a_plugin_keeps_stays_readable(capture: str) -> None:
    """Packets and payloads that a plugin keeps are its own memory, long after the batch."""
    kept: list[Any] = []

    class Keeper(StunParser):
        def can_handle(self, packet: DecodedPacket) -> bool:
            kept.append((packet, memoryview(packet.payload)))
            return False

    plugin = factory(PluginKind.PARSER, "keep", Keeper)
    out = Collector()
    task, _ = make_task(capture, plugin, collector=out, parsers=["keep", "sip"])
    await run_task(task)
    records = out.packets
    del task
    payloads = [bytes(view) for _, view in kept]
    assert payloads == [frame[42:] for frame in FRAMES]
    assert kept[0][0].transport.src_port == 5060
    assert records[0].labels["sip.call_id"] == "call-1"
    assert pcap(FRAMES)  # the file is gone from nobody's hands


async def test_native_filter_and_label(capture: str) -> None:
    """Filter and label run in the core, in the task's order."""
    task, out = make_task(
        capture,
        processors=[
            {"type": "label", "config": {"labels": {"site.name": "hq"}}},
            {"type": "filter", "config": {"keep_if": "site.name == 'hq' && sip.method != ''"}},
        ],
    )
    await run_task(task)
    assert [packet.labels["sip.method"] for packet in out.packets] == ["INVITE", "BYE"]
    assert {packet.labels["site.name"] for packet in out.packets} == {"hq"}
    check(task.ledger())
    assert task.ledger().equation("process").parts["process[filter]"] == 1
    assert task.trackers == ()


async def test_a_filter_sees_what_a_python_plugin_set(capture: str) -> None:
    """A native filter behind a Python processor judges by the labels that it set."""
    plugin = factory(PluginKind.PROCESSOR, "no-bye", NoByeProcessor)
    task, out = make_task(
        capture,
        plugin,
        processors=["no-bye", {"type": "filter", "config": {"drop_if": "seen.by == 'no-bye'"}}],
    )
    await run_task(task)
    assert out.packets == []
    check(task.ledger())
    assert task.ledger().equation("process").parts == {"process[filter]": 2, "process[plugin]": 1}


async def test_a_filter_that_names_no_label_is_refused(capture: str) -> None:
    """Without Python plugins all labels are known: a typo fails the start."""
    task, _ = make_task(
        capture, processors=[{"type": "filter", "config": {"drop_if": "sip.metod == 'BYE'"}}]
    )
    with pytest.raises(ConfigurationInvalid, match=r"sip\.method"):
        await task.start()


async def test_header_labels(capture: str) -> None:
    """A header that the task asks for becomes a label, and a filter may name it."""
    task, out = make_task(
        capture,
        parsers=[{"type": "sip", "config": {"headers": {"x.agent": "User-Agent"}}}],
        processors=[{"type": "filter", "config": {"keep_if": "x.agent.startsWith('test')"}}],
    )
    await run_task(task)
    assert [packet.labels["x.agent"] for packet in out.packets] == ["test/1", "test/1"]
    check(task.ledger())


async def test_agent_tags_become_labels(capture: str) -> None:
    """The label processor knows the agent's tags."""
    task, out = make_task(
        capture,
        processors=[{"type": "label", "config": {"tags": {"site.region": "region"}}}],
        tags={"region": "cn-east-1"},
    )
    await run_task(task)
    assert {packet.labels["site.region"] for packet in out.packets} == {"cn-east-1"}
