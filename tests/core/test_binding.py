"""The binding: what the core hands to Python is whole, owned and counted."""

from __future__ import annotations

import copy
import json
import struct

import pytest

import otus_core
from otus_core import DropReason, Output, Pipeline, PipelineConfig, Stage, StageKind
from otus_core.native import ffi, lib
from otus_core.pipeline import MAX_AWAY

SIP = (
    b"INVITE sip:bob@example.com SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK74bf9\r\n"
    b"From: Alice <sip:alice@example.com>;tag=9fxced76sl\r\n"
    b"To: Bob <sip:bob@example.com>\r\n"
    b"Call-ID: 3848276298220188511@example.com\r\n"
    b"CSeq: 1 INVITE\r\nX-Account: 4711\r\nContent-Length: 0\r\n\r\n"
)


def frame(payload: bytes, vlan: int | None = None) -> bytes:
    """Ethernet, IPv4 10.0.0.1:5060 to 192.0.2.7:5062, UDP."""
    udp = struct.pack("!HHHH", 5060, 5062, 8 + len(payload), 0) + payload
    ip = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 63, 17, 0, b"\x0a\0\0\1", b"\xc0\0\2\7"
    )
    tag = struct.pack("!HH", 0x8100, vlan) if vlan is not None else b""
    return b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01" + tag + b"\x08\0" + ip + udp


def pcap(*frames: bytes) -> bytes:
    """A pcap file with nanosecond timestamps, 1 ns apart from 1700000000.000000005 on."""
    parts = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)]
    for i, octets in enumerate(frames):
        parts.append(struct.pack("<IIII", 1700000000, 5 + i, len(octets), len(octets)) + octets)
    return b"".join(parts)


def pipeline(octets: bytes, *stages: Stage, **config: object) -> Pipeline:
    return Pipeline(
        otus_core.open_memory(octets),
        PipelineConfig("task", "agent", "task-0", stages, **config),  # type: ignore[arg-type]
    )


def test_a_record_has_all_that_the_packet_had() -> None:
    """Addresses, ports, VLAN, time, labels and key come through as they were sent."""
    p = pipeline(pcap(frame(SIP, vlan=42)), Stage(StageKind.PARSE_SIP))
    assert p.poll(0).ended
    batch = p.snapshot()
    p.close()
    [packet] = batch
    assert packet.ts_ns == 1700000000_000000005
    assert (packet.src_ip, packet.src_port) == ("10.0.0.1", 5060)
    assert (packet.dst_ip, packet.dst_port) == ("192.0.2.7", 5062)
    assert packet.vlans == (42,)
    assert packet.protocol_name == "udp"
    assert packet.payload_type == "sip"
    assert packet.raw_payload == SIP
    assert packet.labels["sip.method"] == "INVITE"
    assert packet.labels["sip.from_uri"] == "sip:alice@example.com"
    assert packet.labels["sip.via_branch"] == "z9hG4bK74bf9"
    assert batch.key(0) == b"3848276298220188511@example.com"
    decoded = batch.decoded(0)
    assert decoded.ethernet.src_mac == "02:00:00:00:00:01"
    assert decoded.ip.ttl == 63
    assert decoded.ip.total_len == 28 + len(SIP)
    record = json.loads(batch.json(0))
    assert record["labels"]["sip.call_id"] == "3848276298220188511@example.com"
    assert record["vlans"] == [42]


def test_a_batch_outlives_its_pipeline() -> None:
    """What a plugin keeps is Python's own memory, whatever the core does afterwards."""
    octets = pcap(*[frame(SIP.replace(b"4711", b"%04d" % i)) for i in range(100)])
    p = pipeline(octets, Stage(StageKind.PARSE_SIP), max_records=10)
    kept = []
    while not p.poll(0).ended:
        kept += list(p.snapshot())
    kept += list(p.snapshot())
    p.close()
    assert [packet.raw_payload for packet in kept] == [
        SIP.replace(b"4711", b"%04d" % i) for i in range(100)
    ]


def many(number: int) -> bytes:
    """So many INVITEs, each with its number."""
    return pcap(*[frame(SIP.replace(b"4711", b"%d" % (100000 + i))) for i in range(number)])


def test_a_batch_handed_over_outlives_its_pipeline() -> None:
    """It has memory to itself: the next batches, and the pipeline's end, change nothing."""
    p = pipeline(many(5000), Stage(StageKind.PARSE_SIP), max_records=2000)
    kept, ended = [], False
    while not ended:
        ended = p.poll(0).ended
        kept.append(p.hand_over())
    p.close()
    assert [len(batch) for batch in kept] == [2000, 2000, 1000]
    packets = [packet for batch in kept for packet in batch]
    wanted = [SIP.replace(b"4711", b"%d" % (100000 + i)) for i in range(5000)]
    assert [packet.raw_payload for packet in packets] == wanted
    assert packets[-1].src_ip == "10.0.0.1"
    assert packets[-1].labels["sip.method"] == "INVITE"
    assert json.loads(kept[1].json(1999))["labels"]["sip.method"] == "INVITE"
    with pytest.raises(TypeError):
        kept[0].arena[0] = 0  # type: ignore[index]
    own = copy.deepcopy(packets[0])
    del kept, packets
    assert own.raw_payload == wanted[0]


def test_memory_handed_over_comes_back_when_nothing_refers_to_it() -> None:
    """A packet that is kept keeps it; two blocks wait for the next batches, no more."""

    def address(batch: otus_core.Batch) -> int:
        assert isinstance(batch.records, memoryview)
        return int(ffi.cast("uintptr_t", ffi.from_buffer(batch.records)))

    def next_batch() -> otus_core.Batch:
        p.poll(0)
        return p.hand_over()

    p = pipeline(many(16000), Stage(StageKind.PARSE_SIP), max_records=2000)
    batch = next_batch()
    first, packet = address(batch), batch.packet(7)
    del batch
    assert address(next_batch()) != first
    assert address(next_batch()) != first
    del packet
    assert first in [address(next_batch()), address(next_batch())]
    kept = [next_batch(), next_batch(), next_batch()]
    del kept
    assert len(p._spare) == 2
    p.close()


def test_where_room_is_short_batches_are_copied() -> None:
    """They hold what they use then; with room for two blocks again, memory goes along."""
    p = pipeline(many(8000), Stage(StageKind.PARSE_SIP), max_records=2000)
    block = 6 << 20
    for room_octets, is_given in ((2 * block, True), (2 * block - 1, False), (0, False)):
        p.poll(0)
        batch = p.hand_over(room_octets)
        assert isinstance(batch.records, memoryview) is is_given
        assert len(batch) == 2000
    p.poll(0)
    assert isinstance(p.hand_over().records, memoryview)
    p.close()


def test_so_many_blocks_are_away_and_no_more() -> None:
    """Further batches are copied, until a block is back."""
    p = pipeline(many(2000 * (MAX_AWAY + 3)), Stage(StageKind.PARSE_SIP), max_records=2000)
    kept = []
    for _ in range(MAX_AWAY + 2):
        p.poll(0)
        kept.append(p.hand_over())
    given = [isinstance(batch.records, memoryview) for batch in kept]
    assert given == [True] * MAX_AWAY + [False] * 2
    assert [len(batch) for batch in kept] == [2000] * len(kept)
    del kept[0]
    p.poll(0)
    assert isinstance(p.hand_over().records, memoryview)
    p.close()


def test_a_batch_counts_the_memory_that_it_keeps_from_others() -> None:
    """Its block if it took one, else what is in use; in less than half a block none goes along."""
    p = pipeline(many(4500), Stage(StageKind.PARSE_SIP), max_records=2000)
    block = 6 << 20  # 2,000 records of 200 octets and an arena of 4 MiB, in pages of 2 MiB
    p.poll(0)
    large = p.hand_over()
    assert len(large.arena) + len(large.records) > block / 2
    assert large.held_octets == block
    p.poll(0)
    del large
    assert len(p._spare) == 1
    p.let_go(block)
    assert len(p._spare) == 1
    p.let_go(block - 1)
    assert len(p._spare) == 0
    p.hand_over()
    assert p.poll(0).ended
    small = p.hand_over()
    assert len(small) == 500
    assert isinstance(small.records, bytes)
    assert small.held_octets == len(small.arena) + len(small.records)
    p.close()


def test_a_batch_is_copied_where_there_is_no_memory_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing that counts as emitted is lost on the way to its reporter."""

    class Exhausted:
        def __getattr__(self, name: str) -> object:
            return getattr(lib, name)

        def otus_pipeline_exchange(self, *_: object) -> int:
            return int(lib.OTUS_E_NOMEM)

    p = pipeline(many(2000), Stage(StageKind.PARSE_SIP), max_records=2000)
    p.poll(0)
    with monkeypatch.context() as patch:
        patch.setattr(otus_core.pipeline, "lib", Exhausted())
        batch = p.hand_over()
    assert [packet.raw_payload for packet in batch] == [
        SIP.replace(b"4711", b"%d" % (100000 + i)) for i in range(2000)
    ]
    p.close()


def test_a_retransmission_over_udp_is_reported_again() -> None:
    """The same octets twice are two records: retransmissions are what an operator looks for."""
    p = pipeline(pcap(frame(SIP), frame(SIP)), Stage(StageKind.PARSE_SIP))
    assert p.poll(0).ended
    first, second = p.snapshot()
    p.close()
    assert first.raw_payload == second.raw_payload == SIP
    assert second.ts_ns == first.ts_ns + 1


def test_a_header_that_the_task_names_becomes_a_label() -> None:
    """`sip.header.x_account` is found whatever the header's case."""
    stage = Stage(StageKind.PARSE_SIP, header_labels={"sip.header.x_account": "x-ACCOUNT"})
    p = pipeline(pcap(frame(SIP)), stage)
    p.poll(0)
    assert p.snapshot().labels(0)["sip.header.x_account"] == "4711"
    p.close()


def test_static_labels_are_set_behind_the_parser() -> None:
    """A label stage adds its labels to the record and to its JSON."""
    p = pipeline(
        pcap(frame(SIP)),
        Stage(StageKind.PARSE_SIP),
        Stage(StageKind.LABEL, labels={"site": "berlin", "rack": "7"}),
    )
    p.poll(0)
    batch = p.snapshot()
    assert batch.labels(0)["site"] == "berlin"
    assert json.loads(batch.json(0))["labels"]["rack"] == "7"
    p.close()


def test_python_stages_keep_their_place() -> None:
    """A Python parser is asked first, sip takes the rest, a Python processor drops."""
    p = pipeline(
        pcap(frame(b"mine"), frame(SIP), frame(b"nobody's")),
        Stage(StageKind.PARSE_PYTHON),
        Stage(StageKind.PARSE_SIP),
        Stage(StageKind.PROCESS_PYTHON),
    )
    result = p.poll(0)
    assert (result.next_stage, result.ended) == (0, True)
    batch = p.snapshot()
    assert [batch.decoded(i).payload for i in range(3)] == [b"mine", SIP, b"nobody's"]
    assert p.take(0, 0, "mine", b'{"n":1}')
    p.set_label(0, "mine.n", "1")
    assert p.resume(1).next_stage == 2
    batch = p.snapshot()
    assert [batch.payload_type(i) for i in range(len(batch))] == ["mine", "sip"]
    assert batch.packet(0).payload == {"n": 1}
    assert batch.labels(0) == {"mine.n": "1"}
    p.keep(bytes([1, 0, 1]), DropReason.PROCESSED)
    assert p.resume(3).next_stage is None
    batch = p.snapshot()
    assert len(batch) == 1
    assert json.loads(batch.json(0))["payload"] == {"n": 1}
    counters = p.counters()
    assert counters["parsed"]["plugin"] == 1
    assert counters["parsed"]["sip"] == 1
    assert counters["unmatched"]["dropped"] == 1
    assert counters["process"]["plugin"] == 1
    assert counters["emitted"]["records"] == 1
    p.close()


def test_unmatched_packets_are_forwarded_where_the_task_says_so() -> None:
    """`unmatched: forward` turns what no parser took into raw records keyed by 5-tuple."""
    p = pipeline(pcap(frame(b"else")), Stage(StageKind.PARSE_SIP), forward_unmatched=True)
    p.poll(0)
    batch = p.snapshot()
    assert batch.payload_type(0) == "raw"
    assert batch.key(0) == b"udp 10.0.0.1 5060 192.0.2.7 5062"
    assert p.counters()["forwarded"]["forwarded"] == 1
    p.close()


def test_counters_stay_readable_after_close() -> None:
    """A scrape that comes late reads the last values and not freed memory."""
    p = pipeline(pcap(frame(SIP)), Stage(StageKind.PARSE_SIP))
    p.poll(0)
    p.close()
    p.close()
    assert p.counters()["parsed"]["sip"] == 1
    assert p.capture_stats().received == 1
    assert p.latency()["decode"].count >= 0
    p.interrupt()


def test_octets_that_are_no_capture_are_refused_in_one_line() -> None:
    """Garbage is an error with a reason, never a crash."""
    p = pipeline(b"this is no capture file at all", Stage(StageKind.PARSE_SIP))
    with pytest.raises(otus_core.CoreError) as caught:
        p.poll(0)
    p.close()
    assert "\n" not in str(caught.value)
    assert str(caught.value)


def test_a_label_name_too_many_is_counted() -> None:
    """Labels beyond the table are counted and harm nothing."""
    p = pipeline(pcap(frame(SIP)), Stage(StageKind.PARSE_SIP), Stage(StageKind.PROCESS_PYTHON))
    p.poll(0)
    for i in range(200):
        p.set_label(0, f"x.n{i}", "v")
    p.resume(2)
    batch = p.snapshot()
    assert batch.labels(0)["x.n0"] == "v"
    assert p.counters()["anomaly"]["labels_dropped"] > 0
    assert len(batch.labels(0)) <= 128
    p.close()


def test_none_wanted_none_encoded() -> None:
    """Without a reporter that wants JSON no JSON is made."""
    p = pipeline(pcap(frame(SIP)), Stage(StageKind.PARSE_SIP), outputs=Output.NONE)
    p.poll(0)
    assert p.snapshot().json(0) == b""
    p.close()
