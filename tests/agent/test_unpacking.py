"""Compressed batches: what aiokafka reads of them once they were unpacked within a bound."""

from __future__ import annotations

import struct
import zlib

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from otus_agent.kafka.unpacking import unpack

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
COMPRESSED = sorted(set(CODECS) - {"none"})
ROOM = 1 << 20
BASE_OFFSET = struct.Struct(">q")


def batch(values: list[bytes], codec: str, base_offset: int = 0) -> bytes:
    """A record batch as brokers store it, written by aiokafka."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=CODECS[codec],
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 30,
    )
    for number, value in enumerate(values):
        assert builder.append(number, 1_700_000_000_000, b"key", value, [("name", b"x")])
    octets = bytes(builder.build())
    return BASE_OFFSET.pack(base_offset) + octets[BASE_OFFSET.size :]


def read(records: bytes) -> list[tuple[int, bytes]]:
    """Offsets and values of the records that a consumer would get."""
    memory = MemoryRecords(records)
    got = []
    while memory.has_next():
        one = memory.next_batch()
        assert one is not None
        assert one.validate_crc()
        if not one.is_control_batch:
            got += [(record.offset, bytes(record.value)) for record in one]
    return got


def next_offset(records: bytes) -> int:
    """Where a consumer goes on behind the batches."""
    memory, offset = MemoryRecords(records), -1
    while memory.has_next():
        one = memory.next_batch()
        assert one is not None
        offset = one.next_offset
    return offset


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_what_is_in_a_batch_stays(codec: str) -> None:
    values = [b"one", b"two" * 1000, b""]
    octets = batch(values, codec, 40)
    unpacked, num_skipped = unpack(octets, ROOM)
    assert read(unpacked) == read(octets) == [(40, b"one"), (41, b"two" * 1000), (42, b"")]
    assert num_skipped == 0
    assert struct.unpack_from(">h", unpacked, 21)[0] & 7 == 0, "aiokafka has nothing to unpack"


@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_batch_that_grows_beyond_the_room_is_passed_over(codec: str) -> None:
    octets = batch([bytes(2 * ROOM)], codec, 7) + batch([b"next"], codec, 8)
    unpacked, num_skipped = unpack(octets, ROOM)
    assert num_skipped == 1
    assert read(unpacked) == [(8, b"next")]
    assert len(unpacked) < 1000


@pytest.mark.parametrize("codec", COMPRESSED)
def test_the_room_is_for_all_batches_together(codec: str) -> None:
    """What there is no room for is left for the next fetch, which begins with it."""
    large = bytes(ROOM // 2 + 1)
    octets = batch([large], codec, 0) + batch([large], codec, 1) + batch([b"next"], codec, 2)
    unpacked, num_skipped = unpack(octets, ROOM)
    assert (read(unpacked), num_skipped) == ([(0, large)], 0)
    assert next_offset(unpacked) == 1


@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_batch_fills_the_room_to_the_octet(codec: str) -> None:
    octets = batch([b"x" * 1000], codec)
    whole = len(unpack(octets, ROOM)[0]) - 61
    assert unpack(octets, whole)[1] == 0
    assert unpack(octets, whole - 1)[1] == 1


@pytest.mark.parametrize("codec", COMPRESSED)
@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_batch_that_can_not_be_read_is_passed_over(codec: str, damage: str) -> None:
    octets = batch([b"value" * 50], codec, 5)
    head, packed = octets[:61], octets[61:]
    packed = {"cut": packed[: len(packed) // 2], "changed": b"\xff" * len(packed), "empty": b""}[
        damage
    ]
    length = struct.pack(">i", 61 - 12 + len(packed))
    unpacked, num_skipped = unpack(head[:8] + length + head[12:] + packed, ROOM)
    assert num_skipped == 1
    assert read(unpacked) == []
    assert next_offset(unpacked) == 6


def test_an_unknown_codec_is_passed_over() -> None:
    octets = bytearray(batch([b"value"], "none", 5))
    octets[22] |= 7
    unpacked, num_skipped = unpack(bytes(octets), ROOM)
    assert (read(unpacked), num_skipped, next_offset(unpacked)) == ([], 1, 6)


def test_blocks_of_snappy_are_bounded_together() -> None:
    """Java writes blocks of 32 KiB, each with its length before it."""
    octets = batch([bytes(100_000)], "snappy")
    assert octets[61:].startswith(b"\x82SNAPPY\x00")
    assert unpack(octets, 200_000)[1] == 0
    assert unpack(octets, 90_000)[1] == 1
    length_at = 61 + 16
    for length in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"):
        assert unpack(octets[:length_at] + length + octets[length_at + 4 :], 200_000)[1] == 1


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy"])
@pytest.mark.parametrize("magic", [0, 1])
def test_old_messages_packed_into_one_are_one(magic: int, codec: str) -> None:
    """Kafka before 0.11: nothing of it is unpacked, and what it held is no command."""
    builder = LegacyRecordBatchBuilder(
        magic=magic, compression_type=CODECS[codec], batch_size=1 << 20
    )
    for number in range(3):
        assert builder.append(number, 1_700_000_000_000, b"k", b"v")
    octets = bytes(builder.build())
    unpacked, num_skipped = unpack(octets, 0)
    assert num_skipped == 0
    got = read(unpacked)
    if codec == "none":
        assert got == [(0, b"v"), (1, b"v"), (2, b"v")]
    else:
        assert len(got) == 1
        assert got[0][1] != b"v"
        assert struct.unpack_from(">I", unpacked, 12)[0] == zlib.crc32(unpacked[16:])


def test_a_cut_batch_comes_again() -> None:
    first, second = batch([b"one"], "zstd", 0), batch([b"two"], "zstd", 1)
    for end in range(len(second)):
        assert read(unpack(first + second[:end], ROOM)[0]) == [(0, b"one")]
    for end in range(len(first)):
        assert unpack(first[:end], ROOM) == (first[:end], 0)
