"""Kafka record batches (format v2), finished here and handed to aiokafka as they are.

A *section* is the uncompressed records of one batch as the format wants them;
it comes from the core where the batch can make it (`kafka_sections`), else from
`SectionBuilder` here. `FinishedBatch` puts the header before it, which is all
that aiokafka's accumulator needs: producer id and sequence are set at send time.
"""

from __future__ import annotations

import fnmatch
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import zstandard
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode
from aiokafka.partitioner import murmur2
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

# KIP-98: baseOffset i64, batchLength i32, partitionLeaderEpoch i32, magic i8, crc u32,
# then what the CRC covers: attributes i16, lastOffsetDelta i32, firstTimestamp i64,
# maxTimestamp i64, producerId i64, producerEpoch i16, baseSequence i32, numRecords i32.
_FRONT = struct.Struct(">qiibI")
_COVERED = struct.Struct(">hiqqqhii")
HEADER_OCTETS = _FRONT.size + _COVERED.size
_LENGTH_FROM = 12  # batchLength counts what follows it

CODEC_IDS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
# Level 1 with a window and a table that stay in a core's own cache.
FAST_ZSTD = zstandard.ZstdCompressionParameters.from_level(1, window_log=18, hash_log=15)
_ALL_LABELS = ("*",)

Crc32c = Callable[[memoryview], int]


@dataclass(frozen=True, slots=True)
class Section:
    """The records of one partition out of one or several batches.

    Attributes:
        partition: Where they go.
        num_records: How many they are.
        base_ts_ms: What the records' timestamps are relative to, milliseconds.
        max_ts_ms: The largest timestamp.
        octets: The records, uncompressed.
    """

    partition: int
    num_records: int
    base_ts_ms: int
    max_ts_ms: int
    octets: bytes | memoryview


def compressor(name: str, level: int | None) -> Callable[[bytes | memoryview], bytes]:
    """The function that compresses a section; what it gives is memory of its own.

    Lifetime: for one thread at a time.
    """
    if name == "zstd":
        # One context for all batches: its tables are made once.
        if level is None:
            compress = zstandard.ZstdCompressor(compression_params=FAST_ZSTD).compress
        else:
            compress = zstandard.ZstdCompressor(level).compress
        # What it gives was as large as the section, and has been cut short where it is: kept,
        # it would leave a hole behind that the next one does not fit into.
        return lambda data: bytes(memoryview(compress(data)))
    if name == "lz4":
        lz4_level = 1 if level is None else level
        return lambda data: lz4_encode(bytes(data), level=lz4_level)  # it takes nothing else
    if name == "snappy":
        # Xerial's framing, which is what Kafka clients read.
        return lambda data: bytes(snappy_encode(data))
    if name == "gzip":
        return lambda data: gzip_encode(data, 1 if level is None else level)
    return bytes


class FinishedBatch:
    """A record batch that aiokafka takes for one of its own builders.

    Never open for appending, so aiokafka sends it at once. The header is made
    anew for each producer: a batch that failed can be sent again through another.
    """

    def __init__(
        self, section: Section, body: bytes, codec: str, crc32c: Crc32c = calc_crc32c
    ) -> None:
        # Not the section itself: its octets may lie in memory that is used again.
        self.partition = section.partition
        self._num_records = section.num_records
        self._base_ts_ms = section.base_ts_ms
        self._max_ts_ms = section.max_ts_ms
        self._body = body
        self._crc32c = crc32c
        self._attributes = CODEC_IDS[codec]
        self._producer = (-1, -1, -1)
        self._buffer: bytearray | None = None

    def append(self, **_: Any) -> None:
        """Says that there is no room."""

    def close(self) -> None:
        """Does nothing: it is closed."""

    def closed(self) -> bool:
        """Always."""
        return True

    def record_count(self) -> int:
        """Records in it."""
        return self._num_records

    def size(self) -> int:
        """Octets in all."""
        return HEADER_OCTETS + len(self._body)

    def _set_producer_state(self, producer_id: int, epoch: int, base_sequence: int) -> None:
        self._producer = (producer_id, epoch, base_sequence)
        self._buffer = None

    def _build(self) -> bytearray:
        if self._buffer is None:
            buffer = bytearray(HEADER_OCTETS)
            buffer += self._body
            _COVERED.pack_into(
                buffer,
                _FRONT.size,
                self._attributes,
                self._num_records - 1,
                self._base_ts_ms,
                self._max_ts_ms,
                *self._producer,
                self._num_records,
            )
            with memoryview(buffer) as whole, whole[_FRONT.size :] as covered:
                crc = self._crc32c(covered)
            _FRONT.pack_into(buffer, 0, 0, len(buffer) - _LENGTH_FROM, -1, 2, crc)
            self._buffer = buffer
        return self._buffer


class SectionBuilder:
    """Gathers records of one topic, by partition, in plain Python."""

    def __init__(self, num_partitions: int, max_octets: int) -> None:
        self._num_partitions = num_partitions
        self._max_octets = max_octets
        self._open: dict[int, tuple[DefaultRecordBatchBuilder, int]] = {}
        self._finished: list[Section] = []
        self._partitions: dict[bytes, int] = {}

    def partition_of(self, key: bytes) -> int:
        """Where the key goes: murmur2, as the Java client's default partitioner has it."""
        found = self._partitions.get(key)
        if found is None:
            found = (murmur2(key) & 0x7FFFFFFF) % self._num_partitions
            self._partitions[key] = found
        return found

    def add(self, key: bytes, value: bytes, ts_ms: int, headers: list[tuple[str, bytes]]) -> None:
        """Appends one record; a batch that is full is closed and another begun."""
        partition = self.partition_of(key)
        builder, count = self._open.get(partition, (None, 0))
        if builder is None or not builder.append(
            count, ts_ms, key=key, value=value, headers=headers
        ):
            if builder is not None:
                self._close(partition)
            builder, count = self._new_builder(), 0
            builder.append(0, ts_ms, key=key, value=value, headers=headers)
        self._open[partition] = (builder, count + 1)

    def finish(self) -> list[Section]:
        """All that was added."""
        for partition in list(self._open):
            self._close(partition)
        finished, self._finished = self._finished, []
        return finished

    def _new_builder(self) -> DefaultRecordBatchBuilder:
        return DefaultRecordBatchBuilder(
            2,
            0,
            is_transactional=0,
            producer_id=-1,
            producer_epoch=-1,
            base_sequence=-1,
            batch_size=self._max_octets,
        )

    def _close(self, partition: int) -> None:
        builder, count = self._open.pop(partition)
        built = bytes(builder.build())
        _, _, base_ts_ms, max_ts_ms, *_ = _COVERED.unpack_from(built, _FRONT.size)
        self._finished.append(
            Section(partition, count, base_ts_ms, max_ts_ms, built[HEADER_OCTETS:])
        )


def header_filter(patterns: Iterable[str]) -> Callable[[dict[str, str]], list[tuple[str, bytes]]]:
    """The function from a record's labels to the headers made of them."""
    wanted = tuple(patterns)
    if wanted == _ALL_LABELS:
        return lambda labels: [
            (name, text.encode(errors="replace")) for name, text in labels.items()
        ]
    if not wanted:
        return lambda labels: []

    def chosen(labels: dict[str, str]) -> list[tuple[str, bytes]]:
        return [
            (name, text.encode(errors="replace"))
            for name, text in labels.items()
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)
        ]

    return chosen
