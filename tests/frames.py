"""Frames and capture files for tests, written octet by octet."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from pathlib import Path

START_NS = 1_700_000_000_000_000_000
CALLER, CALLEE = ("192.0.2.1", 5060), ("192.0.2.2", 5060)
Endpoint = tuple[str, int]


def udp(
    payload: bytes, source: Endpoint = CALLER, target: Endpoint = CALLEE, *, ttl: int = 64
) -> bytes:
    """One Ethernet frame with an IPv4 or IPv6 UDP datagram; checksums left 0."""
    datagram = struct.pack("!HHHH", source[1], target[1], 8 + len(payload), 0) + payload
    return ethernet(ip(datagram, source[0], target[0], 17, ttl))


def ip(payload: bytes, source: str, target: str, protocol: int, ttl: int = 64) -> bytes:
    src, dst = ipaddress.ip_address(source), ipaddress.ip_address(target)
    if src.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, ttl)
        return head + src.packed + dst.packed + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, ttl, protocol, 0)
    return head + src.packed + dst.packed + payload


def ethernet(packet: bytes) -> bytes:
    ethertype = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    return b"\x02\0\0\0\0\x02" + b"\x02\0\0\0\0\x01" + ethertype.to_bytes(2) + packet


def fragments(packet: bytes, number: int) -> list[bytes]:
    """An IP packet (no link header) in fragments of at most 800 octets, the last one first."""
    six = packet[0] >> 4 == 6
    header = 40 if six else 20
    body, pieces = packet[header:], []
    for offset in range(0, len(body), 800):
        piece, more = body[offset : offset + 800], offset + 800 < len(body)
        if six:
            extension = struct.pack("!BBHI", packet[6], 0, offset | more, number)
            head = packet[:4] + struct.pack("!HB", len(piece) + 8, 44) + packet[7:40]
            pieces.append(head + extension + piece)
        else:
            flags = more << 13 | offset // 8
            fields = struct.pack("!HHH", 20 + len(piece), number & 0xFFFF, flags)
            head = packet[:2] + fields + packet[8:10] + b"\0\0" + packet[12:20]
            pieces.append(head[:10] + checksum(head) + head[12:] + piece)
    return pieces[::-1]


def checksum(header: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2)


def sip(method: str = "INVITE", call_id: str = "call-1", cseq: int = 1, body: bytes = b"") -> bytes:
    lines = [
        f"{method} sip:bob@example.org SIP/2.0",
        "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK-1",
        'From: "Alice" <sip:alice@example.org>;tag=a1',
        "To: <sip:bob@example.org>",
        f"Call-ID: {call_id}",
        f"CSeq: {cseq} {method}",
        "Contact: <sip:alice@192.0.2.1>",
        "User-Agent: test/1",
    ]
    return _message(lines, body)


def response(
    status: int = 200, reason: str = "OK", call_id: str = "call-1", method: str = "INVITE"
) -> bytes:
    lines = [
        f"SIP/2.0 {status} {reason}",
        "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK-1",
        'From: "Alice" <sip:alice@example.org>;tag=a1',
        "To: <sip:bob@example.org>;tag=b1",
        f"Call-ID: {call_id}",
        f"CSeq: 1 {method}",
    ]
    return _message(lines, b"")


def _message(lines: list[str], body: bytes) -> bytes:
    if body:
        lines.append("Content-Type: application/sdp")
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def pcap(frames: Iterable[bytes], gap_ns: int = 1_000_000) -> bytes:
    """A nanosecond pcap file of Ethernet frames."""
    octets = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)]
    for index, frame in enumerate(frames):
        seconds, nanoseconds = divmod(START_NS + index * gap_ns, 10**9)
        octets.append(struct.pack("<IIII", seconds, nanoseconds, len(frame), len(frame)) + frame)
    return b"".join(octets)


def write_octets(path: Path, octets: bytes) -> str:
    """Writes a file and returns its path as text."""
    path.write_bytes(octets)
    return str(path)


def write_pcap(path: Path, frames: Iterable[bytes]) -> str:
    """Writes a capture file and returns its path as text."""
    return write_octets(path, pcap(frames))
