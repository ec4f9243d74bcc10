"""Batches that wait for their topic, compressed: a tenth of the memory and less.

Into how many partitions records go is known once a broker has answered. Until then
they can't be encoded, and as they are they would take some 3 KB each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import zstandard

from otus_plugins.reporter.kafka.encode import CORE_METHOD, Part
from otus_plugins.reporter.kafka.records import FAST_ZSTD
from otus_sdk.protocols import RecordBatch

# Beside its octets: objects, and the allocator's share.
_OVERHEAD = 1 << 10


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """A batch of the core, for `unpacked` alone."""

    kind: Any
    envelope: Any
    label_names: Any
    records: bytes
    arena: bytes

    @property
    def held_octets(self) -> int:
        """The memory that it holds."""
        return len(self.records) + len(self.arena) + _OVERHEAD


def can_pack(batch: object) -> bool:
    """Whether it is a batch of the core, as it came."""
    return hasattr(batch, CORE_METHOD)


def pack(batch: Any) -> PackedBatch:
    """The batch in little memory."""
    compressor = zstandard.ZstdCompressor(compression_params=FAST_ZSTD)
    records, arena = (_packed(compressor, octets) for octets in (batch.records, batch.arena))
    return PackedBatch(type(batch), batch.envelope, batch.label_names, records, arena)


def _packed(compressor: zstandard.ZstdCompressor, octets: Any) -> bytes:
    """In pieces: in one go it would take room for all of the octets, in case they are noise."""
    stream = compressor.compressobj(size=len(octets))
    return stream.compress(octets) + stream.flush()


def unpacked(
    parts: Sequence[tuple[RecordBatch | PackedBatch, Sequence[int] | None]],
) -> list[Part]:
    """The parts with their batches as they came."""
    return [
        (_unpack(batch) if isinstance(batch, PackedBatch) else batch, indices)
        for batch, indices in parts
    ]


def _unpack(batch: PackedBatch) -> RecordBatch:
    expand = zstandard.ZstdDecompressor().decompress
    made: RecordBatch = batch.kind(
        expand(batch.records), expand(batch.arena), batch.envelope, batch.label_names
    )
    return made
