"""Reads pcap and pcapng in plain Python: the reference for the core's reader.

Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from otus_sdk.model import RawPacket

__all__ = ["read_file", "read_stream"]

# Magic octets as they lie in the file: byte order and nanoseconds a tick.
_PCAP = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
_SECTION = b"\x0a\x0d\x0d\x0a"
_BYTE_ORDER = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_MAX_BLOCK = 1 << 26


def read_file(path: str) -> Iterator[RawPacket]:
    """The packets of a file, gzip or plain.

    Raises:
        OSError: It can't be read.
        ValueError: It is no capture file.
    """
    with Path(path).open("rb") as file:
        compressed = file.peek(2)[:2] == b"\x1f\x8b"
        if compressed:
            with gzip.open(file) as stream:
                yield from read_stream(stream)  # type: ignore[arg-type]
        else:
            yield from read_stream(file)


def read_stream(stream: BinaryIO) -> Iterator[RawPacket]:
    """The packets of a stream of octets; one that is cut off ends quietly.

    Raises:
        ValueError: It is no capture file.
    """
    magic = stream.read(4)
    if magic in _PCAP:
        yield from _pcap(stream, *_PCAP[magic])
    elif magic == _SECTION:
        yield from _pcapng(stream)
    else:
        raise ValueError("neither pcap nor pcapng")


def _pcap(stream: BinaryIO, order: str, tick_ns: int) -> Iterator[RawPacket]:
    header = stream.read(20)
    if len(header) < 20:
        return
    # The upper 16 bits hold FCS information.
    link_type = struct.unpack(order + "HHiIII", header)[5] & 0xFFFF
    record = struct.Struct(order + "IIII")
    while len(head := stream.read(16)) == 16:
        seconds, ticks, caplen, wirelen = record.unpack(head)
        if caplen > _MAX_BLOCK:
            return
        data = stream.read(caplen)
        if len(data) < caplen:
            return
        yield RawPacket(data, seconds * 10**9 + ticks * tick_ns, wirelen, 0, link_type)


@dataclass(slots=True)
class _Interface:
    link_type: int
    snap_len: int
    ticks_per_second: int = 10**6
    offset_s: int = 0


def _pcapng(stream: BinaryIO) -> Iterator[RawPacket]:
    interfaces: list[_Interface] = []
    order = "<"
    kind = _SECTION
    while len(kind) == 4:
        if kind == _SECTION:
            # The byte order stands behind the length that needs it.
            head = stream.read(8)
            order = _BYTE_ORDER.get(head[4:], "")
            if not order:
                return
            length = struct.unpack(order + "I", head[:4])[0]
            stream.read(max(0, length - 12))
            interfaces = []
        else:
            body = _block(stream, order)
            if body is None:
                return
            number = struct.unpack(order + "I", kind)[0]
            if number == 1:
                interfaces.append(_interface(body, order))
            elif number in (3, 6) and interfaces:
                packet = _packet(number, body, order, interfaces)
                if packet is not None:
                    yield packet
        kind = stream.read(4)


def _block(stream: BinaryIO, order: str) -> bytes | None:
    head = stream.read(4)
    if len(head) < 4:
        return None
    length = struct.unpack(order + "I", head)[0]
    if not 12 <= length <= _MAX_BLOCK:
        return None
    body = stream.read(length - 12)
    tail = stream.read(4)
    return body if len(body) == length - 12 and len(tail) == 4 else None


def _interface(body: bytes, order: str) -> _Interface:
    link_type, snap_len = struct.unpack_from(order + "HxxI", body)
    interface = _Interface(link_type, snap_len)
    at = 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == 0:
            break
        if code == 9 and length == 1:
            power = value[0] & 0x7F
            interface.ticks_per_second = 2**power if value[0] & 0x80 else 10**power
        elif code == 14 and length == 8:
            interface.offset_s = struct.unpack(order + "q", value)[0]
        at += 4 + length + -length % 4
    return interface


def _packet(number: int, body: bytes, order: str, interfaces: list[_Interface]) -> RawPacket | None:
    if number == 3:  # simple packet block: no time, first interface
        wirelen = struct.unpack_from(order + "I", body)[0]
        caplen = min(wirelen, interfaces[0].snap_len or wirelen)
        return RawPacket(body[4 : 4 + caplen], 0, wirelen, 0, interfaces[0].link_type)
    index, high, low, caplen, wirelen = struct.unpack_from(order + "IIIII", body)
    if index >= len(interfaces) or 20 + caplen > len(body):
        return None
    interface = interfaces[index]
    ticks = high << 32 | low
    ts_ns = ticks * 10**9 // interface.ticks_per_second + interface.offset_s * 10**9
    return RawPacket(body[20 : 20 + caplen], ts_ns, wirelen, index, interface.link_type)
