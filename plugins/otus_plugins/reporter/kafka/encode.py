"""From batches of records to finished Kafka batches; runs on the reporter's own thread."""

from __future__ import annotations

import contextlib
import itertools
import mmap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from aiokafka.record.util import calc_crc32c

from otus_plugins.reporter.kafka import oversize
from otus_plugins.reporter.kafka.config import (
    BATCH_OVERHEAD,
    RECORD_OVERHEAD,
    KafkaReporterConfig,
)
from otus_plugins.reporter.kafka.records import (
    Crc32c,
    FinishedBatch,
    Section,
    SectionBuilder,
    compressor,
    header_filter,
)
from otus_sdk.protocols import RecordBatch

# How much larger than max_batch_octets a batch may be before compression.
MAX_GROWTH = 8.0
MAX_SECTION = 1 << 30
# What batches of the core have, and no others.
CORE_METHOD = "kafka_sections"
CORE_CRC32C = "crc32c"
_LARGE_PAGE = 2 << 20
_NS_PER_MS = 1_000_000
_CUT = {"json": oversize.cut_json, "protobuf": oversize.cut_protobuf, "raw": oversize.cut_raw}

Part = tuple[RecordBatch, Sequence[int] | None]
Encoded = tuple[list[FinishedBatch], Counter[str]]


class Encoder:
    """Turns records into finished batches as the configuration says."""

    def __init__(self, config: KafkaReporterConfig) -> None:
        self._config = config
        self._compress = compressor(config.compression, config.compression_level)
        self._label_headers = header_filter(config.header_labels)
        self._memory: mmap.mmap | bytes = b""
        self._growth = 1.0
        self.truncated = 0
        self._cut = _CUT[config.value]

    def encode(self, parts: Iterable[Part], num_partitions: int) -> Encoded:
        """Encodes and compresses. One call at a time: they share memory.

        Args:
            parts: Batches, each with the indices that are meant, or None for all.
            num_partitions: Of the topic that all of them go to.

        Returns:
            Finished batches in the order of their first records, and how many
            records were dropped, by reason.
        """
        lost: Counter[str] = Counter()
        finished: list[FinishedBatch] = []
        for is_core, run in itertools.groupby(parts, lambda part: hasattr(part[0], CORE_METHOD)):
            encode = self._by_core if is_core else self._here
            finished += encode(list(run), num_partitions, lost)
        return finished, lost

    def _by_core(
        self, parts: list[Part], num_partitions: int, lost: Counter[str]
    ) -> list[FinishedBatch]:
        """The core encodes; what it leaves out is cut down here, or lost."""
        growth = self._growth
        finished, left_out = self._core_sections(parts, num_partitions, growth)
        if growth > 1 and any(one.size() > self._config.max_batch_octets for one in finished):
            finished, left_out = self._core_sections(parts, num_partitions, 1.0)
        if left_out:
            rest: list[Part] = [(parts[number][0], [index]) for number, index in left_out]
            finished += self._here(rest, num_partitions, lost)
        return finished

    def _core_sections(
        self, parts: list[Part], num_partitions: int, growth: float
    ) -> tuple[list[FinishedBatch], list[tuple[int, int]]]:
        """Finished batches, and (part, position) of what the core leaves out."""
        core: Any = getattr(parts[0][0], CORE_METHOD)
        made, left_out = core(
            parts,
            num_partitions,
            value=self._config.value,
            header_labels=self._config.header_labels,
            max_octets=min(
                MAX_SECTION, int((self._config.max_batch_octets - BATCH_OVERHEAD) * growth)
            ),
            max_message_octets=self._config.max_message_octets,
            room=self._room,
        )
        sections = [Section(*fields) for fields in made]
        crc32c = getattr(parts[0][0], CORE_CRC32C, calc_crc32c)
        finished = [self._finish(section, crc32c) for section in sections]
        # A batch costs the event loop a millisecond however much it holds, so as
        # much as compression allowed last time goes into one, with room to spare.
        loose, packed = (
            sum(len(one.octets) for one in sections),
            sum(one.size() for one in finished),
        )
        self._growth = min(MAX_GROWTH, max(1.0, loose / max(packed, 1) / 2))
        return finished, left_out

    def _here(
        self, parts: list[Part], num_partitions: int, lost: Counter[str]
    ) -> list[FinishedBatch]:
        builder = SectionBuilder(num_partitions, self._config.max_batch_octets)
        for batch, indices in parts:
            self._add(builder, batch, range(len(batch)) if indices is None else indices, lost)
        return [self._finish(section) for section in builder.finish()]

    def _finish(self, section: Section, crc32c: Crc32c = calc_crc32c) -> FinishedBatch:
        packed, codec = self._compress(section.octets), self._config.compression
        if len(packed) > len(section.octets):  # noise grows: it is sent as it is
            packed, codec = bytes(section.octets), "none"
        return FinishedBatch(section, packed, codec, crc32c)

    def _room(self, octets: int) -> mmap.mmap:
        """The same memory again, in large pages: fresh ones would cost more than the encoding."""
        if len(self._memory) < octets:
            whole = -(-octets // _LARGE_PAGE) * _LARGE_PAGE
            self._memory = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            with contextlib.suppress(OSError):  # a kernel may have none
                self._memory.madvise(mmap.MADV_HUGEPAGE)
        return self._memory  # type: ignore[return-value]

    def _add(
        self,
        builder: SectionBuilder,
        batch: RecordBatch,
        indices: Iterable[int],
        lost: Counter[str],
    ) -> None:
        envelope = batch.envelope
        fixed = [
            ("task_id", envelope.task_id.encode()),
            ("agent_id", envelope.agent_id.encode()),
            ("pipeline_id", envelope.pipeline_id.encode()),
        ]
        for index in indices:
            try:
                value, network = self._value(batch, index)
                headers = [
                    *fixed,
                    ("payload_type", batch.payload_type(index).encode()),
                    *network,
                    *self._label_headers(batch.labels(index)),
                ]
                key, ts_ms = batch.key(index), batch.ts_ns(index) // _NS_PER_MS
            except Exception as error:  # noqa: BLE001 one record's fault stays with it
                lost[f"encode:{type(error).__name__}"] += 1
                continue
            size = len(value) + len(key) + _octets_of(headers)
            if size > self._config.max_message_octets:
                cut = self._cut_down(value, headers, size)
                if cut is None:
                    lost["too_large"] += 1
                    continue
                value, headers = cut
                self.truncated += 1
            builder.add(key, value, ts_ms, headers)

    def _value(self, batch: RecordBatch, index: int) -> tuple[bytes, list[tuple[str, bytes]]]:
        """The value, and the headers that tell between whom it went where it does not."""
        if self._config.value == "json":
            return batch.json(index), []
        if self._config.value == "protobuf":
            return batch.protobuf(index), []
        packet = batch.packet(index)
        network = {
            "src_ip": packet.src_ip,
            "src_port": str(packet.src_port),
            "dst_ip": packet.dst_ip,
            "dst_port": str(packet.dst_port),
            "protocol": packet.protocol_name,
        }
        return packet.raw_payload or b"", [(name, text.encode()) for name, text in network.items()]

    def _cut_down(
        self, value: bytes, headers: list[tuple[str, bytes]], size: int
    ) -> tuple[bytes, list[tuple[str, bytes]]] | None:
        """The record within the limit and flagged, or None: by policy, or it can't be."""
        if self._config.oversize == "drop":
            return None
        flagged = [*headers, (oversize.HEADER, str(len(value)).encode())]
        rest = size - len(value) + RECORD_OVERHEAD
        cut = self._cut(value, self._config.max_message_octets - rest)
        return None if cut is None else (cut, flagged)


def _octets_of(headers: Iterable[tuple[str, bytes]]) -> int:
    return sum(len(name) + len(text) + 4 for name, text in headers)
