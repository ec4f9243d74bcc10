"""Kafka record sections of the core against those of aiokafka's own builder."""

from __future__ import annotations

import itertools
import random
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from aiokafka.partitioner import murmur2
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from otus_core.batch import Batch
from otus_core.kafka import crc32c, kafka_sections
from otus_core.native import ffi, lib
from otus_plugins.reporter.kafka import KafkaReporterConfig
from otus_plugins.reporter.kafka.encode import Encoder
from otus_plugins.reporter.kafka.records import FinishedBatch, Section
from otus_sdk.host import RecordList
from otus_sdk.model import Envelope

NAMES = ("sip.method", "sip.call_id", "", "tag.x")
RECORD = ffi.sizeof("struct otus_record")
BASE_NS = 1_700_000_000_000_000_000


class BatchMaker:
    """Builds a batch's records and arena by hand."""

    def __init__(self) -> None:
        self.records = bytearray()
        self.arena = bytearray()

    def put(self, octets: bytes) -> tuple[int, int]:
        self.arena += octets
        return len(self.arena) - len(octets), len(octets)

    def add(
        self,
        value: bytes,
        key: bytes = b"",
        labels: tuple[tuple[int, bytes], ...] = (),
        ts_ns: int = BASE_NS,
        kind: int = 1,
        labels_octets: int | None = None,
        **meta: Any,
    ) -> None:
        record = ffi.new("struct otus_record *")
        record.meta.ts_ns, record.payload_type, record.state = ts_ns, kind, 1
        for name, member in meta.items():
            setattr(record.meta, name, member)
        record.json.off, record.json.len = self.put(value)
        record.protobuf.off, record.protobuf.len = self.put(value[::-1])
        record.payload.off, record.payload.len = self.put(value[1:])
        record.key.off, record.key.len = self.put(key)
        spans = [(label, *self.put(octets)) for label, octets in labels]
        packed = b"".join(struct.pack("=III", *span) for span in spans)
        record.labels.off, record.labels.len = self.put(packed)
        told = sum(len(octets) for _, octets in labels)
        record.labels_octets = told if labels_octets is None else labels_octets
        if kind == 4:
            record.payload_name.off, record.payload_name.len = self.put(b"mine")
        self.records += bytes(ffi.buffer(record))

    def batch(self) -> Batch:
        envelope = Envelope("task", "agent", "task-0")
        return Batch(bytes(self.records), bytes(self.arena), envelope, NAMES)


def read(sections: list[Any]) -> Iterator[tuple[int, Any]]:
    """Partition and record, as a Kafka consumer would read them."""
    for partition, number, base, largest, octets in sections:
        section = Section(partition, number, base, largest, octets)
        records = list(read_batch(FinishedBatch(section, bytes(octets), "none")))
        assert len(records) == number
        assert max(record.timestamp for _, record in records) == largest
        yield from records


def read_batch(batch: FinishedBatch) -> Iterator[tuple[int, Any]]:
    """The same of one finished batch, whatever its codec."""
    parsed = DefaultRecordBatch(batch._build())
    assert parsed.validate_crc()
    records = list(parsed)
    assert [record.offset for record in records] == list(range(batch.record_count()))
    for record in records:
        yield batch.partition, record


def by_partition(records: Iterable[tuple[int, Any]]) -> dict[int, list[Any]]:
    """What each partition gets, in order."""
    found: dict[int, list[Any]] = {}
    for partition, one in records:
        found.setdefault(partition, []).append(
            (one.key, one.value, one.timestamp, list(one.headers))
        )
    return found


def encoder(**settings: Any) -> Encoder:
    return Encoder(KafkaReporterConfig(brokers=["a:1"], topic="t", **settings))


record_parts = st.tuples(
    st.binary(min_size=1, max_size=300),
    st.text(max_size=40).map(str.encode),
    st.lists(st.tuples(st.sampled_from([0, 1, 3]), st.binary(max_size=60) | st.text(max_size=40).map(str.encode)), max_size=4, unique_by=lambda t: t[0]),
    st.integers(BASE_NS - 10**12, BASE_NS + 10**12),
    st.integers(0, 4),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=16, max_size=16),
    st.sampled_from([0, 4, 6]),
    st.integers(0, 65535),
    st.sampled_from([6, 17, 132, 200]),
)  # fmt: skip


def batch_of(parts: list[Any]) -> Batch:
    maker = BatchMaker()
    for value, key, labels, ts_ns, kind, src, dst, version, port, protocol in parts:
        maker.add(
            value, key, tuple(labels), ts_ns, kind, src_ip=src, dst_ip=dst, ip_version=version,
            src_port=port, dst_port=5060, protocol=protocol,
        )  # fmt: skip
    return maker.batch()


@given(
    st.lists(st.lists(record_parts, max_size=8), min_size=1, max_size=3),
    st.integers(1, 7),
    st.integers(200, 4000),
    st.sampled_from(["json", "protobuf", "raw"]),
)
def test_the_core_and_the_reporter_make_the_same_records(
    batches: list[list[Any]], num_partitions: int, max_octets: int, value: str
) -> None:
    """Keys, partitions, values, timestamps, headers and order are those of the Python encoder."""
    parts: list[Any] = [(batch_of(one), None) for one in batches]
    made, left_out = kafka_sections(parts, num_partitions, value=value, max_octets=max_octets)
    assert left_out == []
    assert all(len(one[4]) <= max_octets or one[1] == 1 for one in made)
    lost: Counter[str] = Counter()
    wanted = encoder(compression="none", value=value)._here(parts, num_partitions, lost)
    assert not lost
    assert by_partition(read(made)) == by_partition(itertools.chain(*map(read_batch, wanted)))


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_codec_takes_what_the_core_makes(compression: str) -> None:
    """Batches from shared memory, made one after the other, stay what they are."""
    maker = BatchMaker()
    for number in range(200):
        maker.add(b"value-%d" % number * 30, b"call-%d" % number, ((0, b"INVITE"),))
    batch = maker.batch()
    coding = encoder(compression=compression)
    first, lost = coding.encode([(batch, range(100)), (batch, range(100, 200))], 3)
    second, _ = coding.encode([(batch, range(50))], 3)
    assert not lost
    for finished, count in ((first, 200), (second, 50)):
        made, left_out = kafka_sections([(batch, range(count))], 3)
        assert not left_out
        assert by_partition(itertools.chain(*map(read_batch, finished))) == by_partition(read(made))


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_no_batch_is_sent_larger_than_allowed(compression: str) -> None:
    """Batches grow with what compression makes of them, and not over the limit where it fails."""
    noise = random.Random(1)
    dull, wild = BatchMaker(), BatchMaker()
    for number in range(2000):
        dull.add(b"the same again " * 20, b"key", ts_ns=BASE_NS + number * 10**6)
        wild.add(noise.randbytes(300), b"key", ts_ns=BASE_NS + number * 10**6)
    coding = encoder(compression=compression, max_batch_octets=20_000, max_message_octets=5_000)
    numbers = []
    for maker in (dull, dull, wild, wild, dull):
        batch = maker.batch()
        finished, lost = coding.encode([(batch, None)], 1)
        assert not lost
        assert all(one.size() <= 20_000 for one in finished)
        values = [record.value for one in finished for _, record in read_batch(one)]
        assert values == [batch.json(index) for index in range(2000)]
        numbers.append(len(finished))
    if compression == "none":
        assert numbers == [numbers[0]] * 5
    else:
        assert numbers[1] < numbers[0], "it does not learn"


def test_batches_of_plugins_and_of_the_core_keep_their_order() -> None:
    """What the core can't encode is encoded between what it can."""
    maker = BatchMaker()
    for number in range(4):
        maker.add(b"%d" % number, b"key")
    batch = maker.batch()
    packets = [batch.packet(index) for index in range(4)]
    values = [b"plugin-%d" % number for number in range(4)]
    listed = RecordList(packets, json=values, keys=[b"key"] * 4)
    finished, lost = encoder().encode([(batch, [0, 1]), (listed, [2]), (batch, [3])], 1)
    assert not lost
    records = itertools.chain(*map(read_batch, finished))
    assert [record.value for _, record in records] == [b"0", b"1", b"plugin-2", b"3"]


@given(st.binary(max_size=80), st.integers(1, 1000))
def test_partitions_are_those_of_other_clients(key: bytes, num_partitions: int) -> None:
    """murmur2, whatever the key's length."""
    buffer = ffi.from_buffer("uint8_t[]", key)
    slice_ = ffi.new("struct otus_slice *", {"at": buffer, "len": len(key)})
    wanted = (murmur2(key) & 0x7FFFFFFF) % num_partitions
    assert lib.otus_kafka_partition(slice_[0], num_partitions) == wanted


# RFC 3720 B.4, and the usual check value.
CRC32C_KNOWN = (
    (b"", 0),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(reversed(range(32))), 0x113FDB5C),
    (b"123456789", 0xE3069283),
)


@pytest.mark.parametrize(("octets", "wanted"), CRC32C_KNOWN)
def test_crc32c_of_known_octets(octets: bytes, wanted: int) -> None:
    """By the processor's instruction, and without it."""
    assert crc32c(octets) == wanted
    assert lib.otus_crc32c_portable(ffi.from_buffer("uint8_t[]", octets), len(octets)) == wanted


@given(st.binary(max_size=300), st.integers(0, 20))
def test_crc32c_is_that_of_another_implementation(octets: bytes, first: int) -> None:
    """Whatever the length and the alignment."""
    part = memoryview(octets)[first:]
    wanted = calc_crc32c(part)
    assert crc32c(part) == wanted
    assert lib.otus_crc32c_portable(ffi.from_buffer("uint8_t[]", part), len(part)) == wanted


def test_large_and_damaged_records_are_named_and_left_out() -> None:
    """Their neighbours are encoded; positions are those in the batch."""
    maker = BatchMaker()
    for number in range(5):
        maker.add(b"x" * (500 if number == 1 else 50), b"key")
    damaged = ffi.from_buffer("struct otus_record[]", maker.records, require_writable=True)
    damaged[3].json.off = 1 << 30
    ffi.release(damaged)
    made, left_out = kafka_sections(
        [(maker.batch(), [0]), (maker.batch(), None)], 1, max_message_octets=300
    )
    assert left_out == [(1, 1), (1, 3)]
    assert [one[1] for one in made] == [4]


@pytest.mark.parametrize("value", ["json", "raw"])
def test_a_first_batch_of_large_records_alone_is_cut_down(value: str) -> None:
    """Where the core encodes none, the reporter does, whatever came before."""
    maker = BatchMaker()
    body = b'{"body":"%s"}' % (b"x" * 5000)
    maker.add(body, b"key")
    coding = encoder(compression="none", value=value, max_message_octets=1500)
    finished, lost = coding.encode([(maker.batch(), None)], 1)
    assert not lost
    [(_, record)] = [one for batch in finished for one in read_batch(batch)]
    assert 0 < len(record.value) < 1500
    original = len(body) - (value == "raw")
    assert ("otus-oversize", str(original).encode()) in list(record.headers)


def test_only_the_records_that_are_meant() -> None:
    """Positions count what is alive; the value may be the other form; patterns choose headers."""
    maker = BatchMaker()
    for number in range(6):
        maker.add(b"value-%d" % number, b"key", ((0, b"INVITE"), (3, b"y")))
    records = ffi.from_buffer("struct otus_record[]", maker.records, require_writable=True)
    records[0].state = 2  # dropped
    ffi.release(records)
    made, _ = kafka_sections(
        [(maker.batch(), [0, 4])], 3, value="protobuf", header_labels=("tag.*",)
    )
    found = [(record.value, record.headers[4:]) for _, record in read(made)]
    assert found == [(b"1-eulav", [("tag.x", b"y")]), (b"5-eulav", [("tag.x", b"y")])]


def test_a_raw_value_is_the_payload_between_headers_of_its_addresses() -> None:
    """Octets as captured, or none; who sent them to whom is in the headers, then the labels."""
    maker = BatchMaker()
    for value in (b"?INVITE sip:b", b"?"):
        maker.add(
            value, b"key", ((0, b"INVITE"),), src_ip=bytes([192, 0, 2, 1]) + bytes(12),
            dst_ip=bytes([198, 51, 100, 255]) + bytes(12), ip_version=4, protocol=17,
            src_port=5060, dst_port=65535,
        )  # fmt: skip
    made, left_out = kafka_sections([(maker.batch(), None)], 1, value="raw")
    assert not left_out
    headers = [
        ("task_id", b"task"), ("agent_id", b"agent"), ("pipeline_id", b"task-0"),
        ("payload_type", b"sip"), ("src_ip", b"192.0.2.1"), ("src_port", b"5060"),
        ("dst_ip", b"198.51.100.255"), ("dst_port", b"65535"), ("protocol", b"udp"),
        ("sip.method", b"INVITE"),
    ]  # fmt: skip
    found = [(record.value, list(record.headers)) for _, record in read(made)]
    assert found == [(b"INVITE sip:b", headers), (b"", headers)]


@pytest.mark.parametrize("told", [0, 1, 4000, 1 << 20, 0xFFFFFFFF])
def test_labels_may_hold_more_than_is_said_of_them(told: int) -> None:
    """Each octet that is no UTF-8 grows to three, and nothing relies on what a record says."""
    maker, right = BatchMaker(), BatchMaker()
    label = b"\xff" * 1000
    for number in range(40):
        labels = ((0, label), (3, b"x"))
        maker.add(b"value", b"%d" % number, labels, labels_octets=told)
        right.add(b"value", b"%d" % number, ((0, "\ufffd".encode() * 1000), (3, b"x")))
    made, left_out = kafka_sections([(maker.batch(), None)], 3, max_octets=10_000)
    assert not left_out
    assert all(len(section[4]) <= 10_000 for section in made)
    wanted, _ = kafka_sections([(right.batch(), None)], 3, max_octets=10_000)
    assert by_partition(read(made)) == by_partition(read(wanted))


def test_a_section_of_which_all_is_left_out_is_none() -> None:
    """Too large is what a record comes to, which shows when it is written."""
    maker = BatchMaker()
    for number in range(4):
        maker.add(b"x" * (500 if number % 2 else 50), b"%d" % (number % 2))
    made, left_out = kafka_sections([(maker.batch(), None)], 50, max_message_octets=300)
    assert left_out == [(0, 1), (0, 3)]
    assert [section[1] for section in made] == [2]


def test_nothing_makes_nothing() -> None:
    """An empty batch, and an empty choice."""
    maker = BatchMaker()
    assert kafka_sections([], 3) == ([], [])
    assert kafka_sections([(maker.batch(), None)], 3) == ([], [])
    maker.add(b"x")
    assert kafka_sections([(maker.batch(), [])], 3) == ([], [])


@pytest.mark.parametrize("num_partitions", [1, 100])
def test_every_section_is_as_large_as_allowed_at_most(num_partitions: int) -> None:
    """Many records are split, in order."""
    maker = BatchMaker()
    for number in range(400):
        maker.add(b"%04d" % number * 20, b"call-%d" % (number % 50), ts_ns=BASE_NS + number * 10**7)
    made, left_out = kafka_sections([(maker.batch(), None)], num_partitions, max_octets=1000)
    assert not left_out
    assert all(len(section[4]) <= 1000 for section in made)
    values = [(partition, record.value) for partition, record in read(made)]
    assert len(values) == 400
    for wanted in {partition for partition, _ in values}:
        mine = [value for partition, value in values if partition == wanted]
        assert mine == sorted(mine)
