"""Kafka record sections of a batch, made in the core: see kafka.h."""

from __future__ import annotations

import fnmatch
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from otus_core.native import check, ffi, lib

if TYPE_CHECKING:
    from otus_core.batch import Batch

__all__ = ["KafkaSection", "kafka_sections"]

KafkaSection = tuple[int, int, int, int, memoryview]
"""Partition, number of records, base and largest timestamp in milliseconds, octets."""


def kafka_sections(
    batch: Batch,
    num_partitions: int,
    *,
    value: str = "json",
    header_labels: Sequence[str] = ("*",),
    max_octets: int = 1_000_000,
    max_message_octets: int = 1_000_000,
    indices: Sequence[int] | None = None,
) -> tuple[list[KafkaSection], list[int]]:
    """Encode records as Kafka stores them, by partition.

    Args:
        batch: the records.
        num_partitions: of the topic; keys go where murmur2 puts them.
        value: "json" or "protobuf"; the batch must have been encoded as such.
        header_labels: shell patterns of the labels that become headers.
        max_octets: of a section; a single larger record has one of its own.
        max_message_octets: of a record's key, value and headers.
        indices: positions in the batch that are meant, in this order; None for all.

    Returns:
        Sections in the order of their first records, and the positions of records
        that are larger than max_message_octets, or damaged: they are left out.

    Raises:
        CoreError: more than 2 GiB would come out.

    Lifetime: the octets of all sections lie in one block that they keep alive.
    """
    wanted = range(len(batch)) if indices is None else indices
    lives = array("I", batch.live if indices is None else [batch.index(i) for i in indices])
    if not lives:
        return [], []
    memory = _Memory()
    input_ = ffi.new("struct otus_kafka_input *")
    input_.records = memory.address(batch.records)
    input_.num_records = len(batch.records) // ffi.sizeof("struct otus_record")
    input_.arena, input_.arena_len = memory.address(batch.arena), len(batch.arena)
    input_.indices, input_.num_indices = ffi.from_buffer("uint32_t[]", lives), len(lives)
    memory.fill(input_.task_id, batch.envelope.task_id.encode())
    memory.fill(input_.agent_id, batch.envelope.agent_id.encode())
    memory.fill(input_.pipeline_id, batch.envelope.pipeline_id.encode())
    names = _header_names(tuple(batch.label_names), tuple(header_labels))
    label_names = ffi.new("struct otus_slice[]", max(1, len(names)))
    for number, octets in enumerate(names):
        memory.fill(label_names[number], octets)
    input_.label_names, input_.num_label_names = label_names, len(names)
    input_.num_partitions = num_partitions
    input_.max_section_octets = max_octets
    input_.max_message_octets = max_message_octets
    input_.protobuf = value == "protobuf"
    return _encode(input_, wanted, num_partitions)


def _encode(
    input_: Any, wanted: Sequence[int], num_partitions: int
) -> tuple[list[KafkaSection], list[int]]:
    count = input_.num_indices
    places = ffi.new("struct otus_kafka_place[]", count)
    sections = ffi.new("struct otus_kafka_section[]", count)
    scratch = ffi.new("uint32_t[]", num_partitions)
    num_sections, octets = ffi.new("uint32_t *"), ffi.new("uint32_t *")
    check(lib.otus_kafka_measure(places, sections, num_sections, octets, scratch, input_))
    out = bytearray(octets[0])
    target = ffi.from_buffer("uint8_t[]", out, require_writable=True)
    check(lib.otus_kafka_write(target, len(out), sections, num_sections[0], places, input_))
    view = memoryview(out).toreadonly()
    made = [
        (one.partition, one.num_records, one.base_ts_ms, one.max_ts_ms,
         view[one.off : one.off + one.len])
        for one in (sections[i] for i in range(num_sections[0]))
    ]  # fmt: skip
    placed = sum(section[1] for section in made)
    if placed == count:
        return made, []
    none = lib.OTUS_KAFKA_NO_SECTION
    return made, [wanted[i] for i in range(count) if places[i].section == none]


class _Memory:
    """Octets addressed for C, kept alive as long as this is."""

    def __init__(self) -> None:
        self._buffers: list[Any] = []

    def address(self, octets: bytes) -> Any:
        buffer = ffi.from_buffer("uint8_t[]", octets)
        self._buffers.append(buffer)
        return buffer

    def fill(self, target: Any, octets: bytes) -> None:
        target.at, target.len = self.address(octets), len(octets)


@lru_cache(maxsize=64)
def _header_names(names: tuple[str, ...], patterns: tuple[str, ...]) -> tuple[bytes, ...]:
    """The names by label id; empty for labels that become no header."""
    return tuple(
        name.encode() if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) else b""
        for name in names
    )
