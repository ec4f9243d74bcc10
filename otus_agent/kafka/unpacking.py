"""Compressed messages, unpacked here within a bound.

aiokafka unpacks whatever a batch says, and three kilobytes of zstd can say a hundred megabytes.
Nobody who may write to a topic gets a reader's memory for it: before aiokafka sees what brokers
sent, batches are unpacked, so many octets at most. One that holds more, or can't be read, is
shown as a control batch, which consumers pass over.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

import cramjam
from aiokafka import AIOKafkaConsumer
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.util import calc_crc32c

log = logging.getLogger(__name__)

# A record batch (KIP-98) as brokers store it, and the message set of before.
_LENGTH: Final = struct.Struct(">i")
_LENGTH_AT, _LENGTH_END = 8, 12  # of what follows it
_MAGIC_AT, _FIRST_BATCH_MAGIC = 16, 2
_CRC: Final = struct.Struct(">I")
_CRC_AT, _CRC_END = 17, 21
_ATTRIBUTES: Final = struct.Struct(">h")
_RECORDS_AT = 61
_OLD_CRC_AT, _OLD_CRC_END, _OLD_ATTRIBUTES_AT = 12, 16, 17
_CODEC, _CONTROL = 0x07, 0x20

_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER_OCTETS: Final = 16


def bound_unpacking(
    consumer: AIOKafkaConsumer,
    max_octets: int,
    skipped: Callable[[int], None] = lambda number: None,
) -> None:
    """Bounds what the consumer gets of compressed batches.

    Args:
        consumer: one that is not started yet.
        max_octets: how much one answer of a broker may grow to, for each partition.
        skipped: is told how many batches were passed over.
    """
    client = consumer._client  # noqa: SLF001 there is no door before what it unpacks
    send = client.send

    async def send_and_unpack(node_id: int, request: Any, **options: Any) -> Any:
        response = await send(node_id, request, **options)
        if isinstance(request, FetchRequest):
            number = await asyncio.to_thread(_unpack_response, response, max_octets)
            if number:
                log.warning("%d compressed batches of a topic were skipped: too large", number)
                skipped(number)
        return response

    client.send = send_and_unpack


def _unpack_response(response: Any, max_octets: int) -> int:
    number = 0
    topics = []
    for topic, partitions in response.topics:
        unpacked_partitions = []
        for *head, records in partitions:
            octets, num_skipped = unpack(records or b"", max_octets)
            number += num_skipped
            unpacked_partitions.append((*head, octets))
        topics.append((topic, unpacked_partitions))
    response.topics = topics
    return number


def unpack(records: bytes, max_octets: int) -> tuple[bytes, int]:
    """Unpacks the batches of one partition.

    Args:
        records: batches one behind the other; the last may be cut.
        max_octets: how many of their octets may come of unpacking. What would go beyond is left
            out with all that stands behind it, for the next fetch, which begins with it.

    Returns:
        The batches, and how many of them consumers will pass over.
    """
    batches: list[bytes] = []
    room = memoryview(bytearray(max_octets))
    num_used, num_skipped, at = 0, 0, 0
    while at + _OLD_ATTRIBUTES_AT < len(records):
        length: int = _LENGTH.unpack_from(records, at + _LENGTH_AT)[0]
        end = at + _LENGTH_END + length
        if length < 0 or end > len(records):
            break  # cut: comes again
        batch = records[at:end]
        try:
            whole, num_octets = _unpack_batch(batch, room[num_used:])
        except (cramjam.DecompressionError, struct.error, ValueError):
            if batches or len(batch) < _RECORDS_AT:
                break
            whole, num_octets = _with_records(batch, b"", _CONTROL), 0
            num_skipped += 1
        batches.append(whole)
        num_used += num_octets
        at = end
    return b"".join(batches) if batches else records, num_skipped


def _unpack_batch(batch: bytes, room: memoryview) -> tuple[bytes, int]:
    """The batch as aiokafka is to see it, and how much of the room that took.

    Raises:
        cramjam.DecompressionError, struct.error, ValueError: it can't be read, or the room
            is not enough.
    """
    if batch[_MAGIC_AT] < _FIRST_BATCH_MAGIC:
        return _as_one_message(batch), 0
    codec = _ATTRIBUTES.unpack_from(batch, _CRC_END)[0] & _CODEC
    if codec == 0:
        return batch, 0
    if codec not in _EXPAND:
        raise ValueError(f"no codec has the number {codec}")
    num_octets = _EXPAND[codec](batch[_RECORDS_AT:], room)
    return _with_records(batch, bytes(room[:num_octets]), 0), num_octets


def _with_records(batch: bytes, records: bytes, flags: int) -> bytes:
    """The batch with other records, which are not compressed."""
    attributes = _ATTRIBUTES.unpack_from(batch, _CRC_END)[0] & ~_CODEC | flags
    body = _ATTRIBUTES.pack(attributes) + batch[_CRC_END + 2 : _RECORDS_AT] + records
    length = _LENGTH.pack(_CRC_END + len(body) - _LENGTH_END)
    head = batch[:_LENGTH_AT] + length + batch[_LENGTH_END:_CRC_AT]
    return head + _CRC.pack(calc_crc32c(body)) + body


def _as_one_message(message: bytes) -> bytes:
    """A message of before Kafka 0.11: messages packed into one are that one."""
    if not message[_OLD_ATTRIBUTES_AT] & _CODEC:
        return message
    attributes = bytes([message[_OLD_ATTRIBUTES_AT] & ~_CODEC])
    body = message[_OLD_CRC_END:_OLD_ATTRIBUTES_AT] + attributes + message[_OLD_ATTRIBUTES_AT + 1 :]
    return message[:_OLD_CRC_AT] + _CRC.pack(zlib.crc32(body)) + body


def _expand_snappy(packed: bytes, room: memoryview) -> int:
    """Blocks with their lengths before them, as Java writes it, or one block."""
    into = cramjam.snappy.decompress_raw_into
    if not packed.startswith(_XERIAL_MAGIC):
        return int(into(packed, room))
    num, at = 0, _XERIAL_HEADER_OCTETS
    while at < len(packed):
        length: int = _LENGTH.unpack_from(packed, at)[0]
        if length <= 0 or length > len(packed) - at - _LENGTH.size:
            raise ValueError(f"a snappy block of {length} octets")
        at += _LENGTH.size
        num += int(into(packed[at : at + length], room[num:]))
        at += length
    return num


_EXPAND: Final[dict[int, Callable[[bytes, memoryview], int]]] = {
    1: cramjam.gzip.decompress_into,
    2: _expand_snappy,
    3: cramjam.lz4.decompress_into,
    4: cramjam.zstd.decompress_into,
}
