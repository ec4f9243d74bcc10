"""Kafka record sections of batches, made in the core: see kafka.h."""

from __future__ import annotations

import fnmatch
import mmap
from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from otus_core.native import check, ffi, lib

if TYPE_CHECKING:
    from otus_core.batch import Batch, Envelope

__all__ = ["KafkaSection", "Part", "crc32c", "kafka_sections"]

KafkaSection = tuple[int, int, int, int, memoryview]
"""Partition, number of records, base and largest timestamp in milliseconds, octets."""

Part = tuple["Batch", Sequence[int] | None]
"""A batch, and the positions in it that are meant, in this order; None for all."""


Room = bytearray | mmap.mmap
"""Memory to write to."""

_VALUES = ("json", "protobuf", "raw")  # as enum otus_kafka_value numbers them
# Not cleared: a page of it that is not used is never there.
_new = ffi.new_allocator(should_clear_after_alloc=False)
_ENVELOPE = ("task_id", "agent_id", "pipeline_id")
_crc32c = lib.otus_crc32c_best()


def kafka_sections(
    parts: Sequence[Part],
    num_partitions: int,
    *,
    value: str = "json",
    header_labels: Sequence[str] = ("*",),
    max_octets: int = 1_000_000,
    max_message_octets: int = 1_000_000,
    room: Callable[[int], Room] = bytearray,
) -> tuple[list[KafkaSection], list[tuple[int, int]]]:
    """Encode records of several batches as Kafka stores them, by partition.

    Args:
        parts: the records.
        num_partitions: of the topic; keys go where murmur2 puts them.
        value: "json" or "protobuf", and the batches must have been encoded as such; or
            "raw", the payload as captured, with addresses and ports as headers.
        header_labels: shell patterns of the labels that become headers.
        max_octets: of a section; a single larger record has one of its own.
        max_message_octets: of a record's key, value and headers.
        room: gives the memory to write to, of so many octets at least.

    Returns:
        Sections in the order of their first records, and (part, position) of records
        that are larger than max_message_octets, or damaged: they are left out.

    Raises:
        CoreError: more than 2 GiB would come out.

    Lifetime: the octets of all sections lie in the one block that `room` gave last.
    """
    memory = _Memory()
    inputs = ffi.new("struct otus_kafka_input[]", max(1, len(parts)))
    for input_, (batch, indices) in zip(inputs, parts, strict=False):
        _fill(input_, batch, indices, tuple(header_labels), memory)
    from_ = ffi.new("struct otus_kafka_inputs *")
    from_.inputs, from_.num_inputs = inputs, len(parts)
    from_.num_partitions = num_partitions
    from_.max_section_octets = max_octets
    from_.max_message_octets = max_message_octets
    from_.value = _VALUES.index(value)
    return _encode(from_, [inputs[i].num_indices for i in range(len(parts))], parts, room)


def crc32c(octets: bytes | bytearray | memoryview) -> int:
    """Return the CRC-32C of octets (RFC 3720 B.4), by the processor's own instruction."""
    with ffi.from_buffer("uint8_t[]", octets) as at:
        return int(_crc32c(at, len(octets)))


def _fill(
    input_: Any,
    batch: Batch,
    indices: Sequence[int] | None,
    header_labels: tuple[str, ...],
    memory: _Memory,
) -> None:
    if indices is None and isinstance(batch.live, range):
        lives = _numbers(len(batch).bit_length())[: len(batch)]
    else:
        meant = batch.live if indices is None else [batch.index(i) for i in indices]
        lives = memoryview(array("I", meant))
    input_.records = memory.address(batch.records)
    input_.num_records = len(batch.records) // ffi.sizeof("struct otus_record")
    input_.arena, input_.arena_len = memory.address(batch.arena), len(batch.arena)
    input_.num_indices = len(lives)
    if lives:
        input_.indices = memory.keep(ffi.from_buffer("uint32_t[]", lives))
    memory.fill(input_.fixed_headers, _fixed_headers(batch.envelope))
    input_.num_fixed_headers = len(_ENVELOPE)
    names = _header_names(tuple(batch.label_names), header_labels)
    label_names = memory.keep(ffi.new("struct otus_slice[]", max(1, len(names))))
    for number, octets in enumerate(names):
        memory.fill(label_names[number], octets)
    input_.label_names, input_.num_label_names = label_names, len(names)


@lru_cache(maxsize=4)
def _numbers(bits: int) -> memoryview:
    """The numbers below a power of two: most batches are meant as they are."""
    return memoryview(array("I", range(1 << bits)))


def _encode(
    from_: Any, counts: Sequence[int], parts: Sequence[Part], room: Callable[[int], Room]
) -> tuple[list[KafkaSection], list[tuple[int, int]]]:
    count = sum(counts)
    if not count:
        return [], []
    places = _new("uint32_t[]", count)
    sections = _new("struct otus_kafka_section[]", count)
    num_sections = ffi.new("uint32_t *")
    out = _write(places, sections, num_sections, from_, room)
    if out is None:  # labels that are no UTF-8, and grow
        from_.is_exact = 1
        out = _write(places, sections, num_sections, from_, room)
    view = memoryview(out or b"").toreadonly()
    made = [
        (one.partition, one.num_records, one.base_ts_ms, one.max_ts_ms,
         view[one.off : one.off + one.len])
        for one in (sections[i] for i in range(num_sections[0]))
        if one.num_records
    ]  # fmt: skip
    if sum(section[1] for section in made) == count:
        return made, []
    return made, _left_out(places, counts, parts)


def _write(
    places: Any, sections: Any, num_sections: Any, from_: Any, room: Callable[[int], Room]
) -> Room | bytes | None:
    """Plan and write; None where a section has too little room."""
    octets, scratch = ffi.new("uint32_t *"), ffi.new("uint32_t[]", from_.num_partitions)
    check(lib.otus_kafka_plan(places, sections, num_sections, octets, scratch, from_))
    if not num_sections[0]:
        return b""
    out = room(octets[0])
    with ffi.from_buffer("uint8_t[]", out, require_writable=True) as target:
        status = lib.otus_kafka_write(target, len(out), sections, num_sections[0], places, from_)
    if status == lib.OTUS_E_PARTIAL and not from_.is_exact:
        return None
    check(status)
    return out


def _left_out(places: Any, counts: Sequence[int], parts: Sequence[Part]) -> list[tuple[int, int]]:
    left_out: list[tuple[int, int]] = []
    at = 0
    for number, (count, (_, indices)) in enumerate(zip(counts, parts, strict=True)):
        left_out += [
            (number, i if indices is None else indices[i])
            for i in range(count)
            if places[at + i] == lib.OTUS_KAFKA_NO_SECTION
        ]
        at += count
    return left_out


class _Memory:
    """Octets addressed for C, kept alive as long as this is."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def keep(self, owner: Any) -> Any:
        self._kept.append(owner)
        return owner

    def address(self, octets: bytes | memoryview) -> Any:
        return self.keep(ffi.from_buffer("uint8_t[]", octets))

    def fill(self, target: Any, octets: bytes) -> None:
        target.at, target.len = self.address(octets), len(octets)


def _sized(octets: bytes) -> bytes:
    """The octets after their length, a zigzag varint."""
    left, length = 2 * len(octets), bytearray()
    while left >= 0x80:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    length.append(left)
    return bytes(length) + octets


@lru_cache(maxsize=64)
def _fixed_headers(envelope: Envelope) -> bytes:
    return b"".join(
        _sized(name.encode()) + _sized(getattr(envelope, name).encode()) for name in _ENVELOPE
    )


@lru_cache(maxsize=64)
def _header_names(names: tuple[str, ...], patterns: tuple[str, ...]) -> tuple[bytes, ...]:
    """The names by label id, after their lengths; empty for labels that become no header."""
    return tuple(
        _sized(name.encode())
        if name and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        else b""
        for name in names
    )
