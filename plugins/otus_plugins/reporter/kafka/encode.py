"""From batches of records to finished Kafka batches; runs on the reporter's own thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from otus_plugins.reporter.kafka import oversize
from otus_plugins.reporter.kafka.config import (
    BATCH_OVERHEAD,
    RECORD_OVERHEAD,
    KafkaReporterConfig,
)
from otus_plugins.reporter.kafka.records import (
    FinishedBatch,
    Section,
    SectionBuilder,
    compressor,
    header_filter,
)
from otus_sdk.protocols import RecordBatch

# Below so many records a partition the core's sections are too small to be worth
# a Kafka batch each: several batches are then gathered into one, here.
MIN_CORE_RECORDS = 64
_NS_PER_MS = 1_000_000

Part = tuple[RecordBatch, Sequence[int] | None]
Encoded = tuple[list[tuple[Section, FinishedBatch]], Counter[str]]


class Encoder:
    """Turns records into finished batches as the configuration says."""

    def __init__(self, config: KafkaReporterConfig) -> None:
        self._config = config
        self._compress = compressor(config.compression, config.compression_level)
        self._label_headers = header_filter(config.header_labels)
        self._is_json = config.value == "json"
        self._cut = oversize.cut_json if self._is_json else oversize.cut_protobuf

    def encode(self, parts: Iterable[Part], num_partitions: int) -> Encoded:
        """Encodes and compresses.

        Args:
            parts: Batches, each with the indices that are meant, or None for all.
            num_partitions: Of the topic that all of them go to.

        Returns:
            Finished batches in the order of their first records, and how many
            records were dropped, by reason.
        """
        lost: Counter[str] = Counter()
        sections: list[Section] = []
        builder: SectionBuilder | None = None
        for batch, indices in parts:
            make = self._core_sections(batch, indices, num_partitions)
            if make is not None:
                if builder is not None:
                    sections += builder.finish()
                sections += make(lost)
                continue
            if builder is None:
                builder = SectionBuilder(num_partitions, self._config.max_batch_octets)
            self._add(builder, batch, range(len(batch)) if indices is None else indices, lost)
        if builder is not None:
            sections += builder.finish()
        codec = self._config.compression
        return [
            (section, FinishedBatch(section, self._compress(section.octets), codec))
            for section in sections
        ], lost

    def _core_sections(
        self, batch: RecordBatch, indices: Sequence[int] | None, num_partitions: int
    ) -> Callable[[Counter[str]], list[Section]] | None:
        """The core's way to do it, where the batch has one and is large enough for it."""
        core: Any = getattr(batch, "kafka_sections", None)
        number = len(batch) if indices is None else len(indices)
        if core is None or number < MIN_CORE_RECORDS * num_partitions:
            return None

        def make(lost: Counter[str]) -> list[Section]:
            made, too_large = core(
                num_partitions,
                value=self._config.value,
                header_labels=self._config.header_labels,
                max_octets=self._config.max_batch_octets - BATCH_OVERHEAD,
                max_message_octets=self._config.max_message_octets,
                indices=indices,
            )
            sections = [Section(*fields) for fields in made]
            if too_large:
                builder = SectionBuilder(num_partitions, self._config.max_batch_octets)
                self._add(builder, batch, too_large, lost)
                sections += builder.finish()
            return sections

        return make

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
        value_of = batch.json if self._is_json else batch.protobuf
        for index in indices:
            try:
                value = value_of(index)
                headers = [
                    *fixed,
                    ("payload_type", batch.payload_type(index).encode()),
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
            builder.add(key, value, ts_ms, headers)

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
