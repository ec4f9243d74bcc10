"""Traffic of every kind that the ledger has to explain, made from a seed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from frames import CALLEE, CALLER, ethernet, fragments, ip, sip, udp

# A frame with these first would be unwrapped by the kernel, or dropped as too short for it.
_KERNEL_TAGS = {b"\x81\x00", b"\x88\xa8"}
_WEBSOCKET_UPGRADE = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
SIP_PORT = 5060


class Traffic:
    """Makes frames; equal seeds make equal traffic.

    Attributes:
        calls: Messages made so far that nothing but overload or a plugin may
            keep from being parsed as SIP.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._number = 0
        self.calls = 0

    def make(self, kind: str, count: int) -> list[bytes]:
        """`count` times what KINDS tells; may be more frames than that."""
        return [frame for _ in range(count) for frame in KINDS[kind](self)]

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _message(self, body: bytes = b"") -> bytes:
        return sip(call_id=f"call-{self._next()}", body=body)

    def _octets(self, low: int, high: int) -> bytes:
        return self._random.randbytes(self._random.randint(low, high))

    def call(self) -> list[bytes]:
        """One SIP message in one frame, over IPv4 or IPv6."""
        self.calls += 1
        six = self._random.random() < 0.3
        ends = (("2001:db8::1", SIP_PORT), ("2001:db8::2", SIP_PORT)) if six else (CALLER, CALLEE)
        return [udp(self._message(), *ends)]

    def noise(self) -> list[bytes]:
        """What no parser takes, and what a Python parser takes or trips over."""
        start = self._random.choice([b"mine", b"bad!", b"short", b"\0\0\0\0", b"noise"])
        return [udp(start + self._octets(0, 40))]

    def garbage(self) -> list[bytes]:
        """Random octets where a frame should be."""
        frame = self._octets(14, 200)
        return [
            frame if frame[12:14] not in _KERNEL_TAGS else frame[:12] + b"\x08\x06" + frame[14:]
        ]

    def torture(self) -> list[bytes]:
        """SIP with octets changed, doubled and taken out."""
        text = bytearray(self._message(b"v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\n"))
        for _ in range(self._random.randint(1, 12)):
            at = self._random.randrange(len(text) - 1)
            match self._random.randrange(3):
                case 0:
                    text[at] = self._random.randrange(256)
                case 1:
                    del text[at : at + self._random.randint(1, 30)]
                case _:
                    text[at:at] = text[at : at + 40]
        return [udp(bytes(text[:1400]))]

    def truncated(self) -> list[bytes]:
        """A good frame, cut off anywhere behind the link header."""
        frame = udp(self._message())
        return [frame[: self._random.randint(14, len(frame))]]

    def link_noise(self) -> list[bytes]:
        """ARP, LLDP, a VLAN tag with nothing known behind, an 802.3 length."""
        kind = self._random.choice([b"\x08\x06", b"\x88\xcc", b"\x81\x00\0\5\x12\x34", b"\0\x2e"])
        return [b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01" + kind + self._octets(46, 60)]

    def _pieces(self) -> list[bytes]:
        six = self._random.random() < 0.5
        ends = (("2001:db8::1", 5070), ("2001:db8::2", 5060)) if six else (CALLER, CALLEE)
        packet = udp(self._message(b"a=x\r\n" * 500), *ends)[14:]
        return [ethernet(piece) for piece in fragments(packet, self._next())]

    def fragmented(self) -> list[bytes]:
        """A message in fragments, in some order, one of them twice."""
        self.calls += 1
        pieces = self._pieces()
        self._random.shuffle(pieces)
        return [pieces[0], *pieces]

    def open_fragments(self) -> list[bytes]:
        """A message of which a fragment never comes."""
        pieces = self._pieces()
        del pieces[self._random.randrange(len(pieces))]
        return pieces

    def _segment(self, port: int, sequence: int, flags: int, payload: bytes) -> bytes:
        header = struct.pack(
            "!HHIIBBHHH", port, SIP_PORT, sequence % 2**32, 0, 0x50, flags, 1000, 0, 0
        )
        return ethernet(ip(header + payload, CALLER[0], CALLEE[0], 6))

    def stream(self) -> list[bytes]:
        """A TCP connection with messages over many segments, some twice, some early."""
        self.calls += 2
        port, start = 10_000 + self._next() % 20_000, self._random.randrange(2**32)
        text = self._message() + b"\r\n\r\n" + self._message()
        segments, at = [], 0
        while at < len(text):
            piece = text[at : at + self._random.randint(1, 400)]
            segments.append(self._segment(port, start + 1 + at, 0x18, piece))
            at += len(piece)
        segments.append(self._random.choice(segments))
        self._random.shuffle(segments)
        end = self._segment(port, start + 1 + at, 0x11, b"")
        return [self._segment(port, start, 2, b""), *segments, end]

    def broken_stream(self) -> list[bytes]:
        """A TCP connection left open behind gaps, or torn down over them, or all nonsense."""
        port, start = 30_000 + self._next() % 20_000, self._random.randrange(2**32)
        frames = [self._segment(port, start, 2, b"")] if self._random.random() < 0.7 else []
        sequence = start + 1
        for _ in range(self._random.randint(1, 20)):
            match self._random.randrange(5):
                case 0:
                    sequence += self._random.randint(1, 5000)
                    payload = self._message()
                case 1:
                    payload = self._octets(1, 600)
                case 2:
                    payload = b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 99999999\r\n\r\n"
                case 3:
                    payload = _WEBSOCKET_UPGRADE + b"\x81\xff" + self._octets(8, 40)
                case _:
                    payload = b"\r\n\r\n"
            frames.append(self._segment(port, sequence, 0x18, payload))
            sequence += len(payload)
        if self._random.random() < 0.4:
            frames.append(self._segment(port, sequence, 0x04, b""))
        return frames

    def tunnelled(self) -> list[bytes]:
        """A message, or what is left of one, in VXLAN."""
        inner = udp(self._message())
        if whole := self._random.random() < 0.7:
            self.calls += 1
        octets = inner if whole else inner[: self._random.randint(0, 40)]
        return [udp(b"\x08\0\0\0\0\0\7\0" + octets, (CALLER[0], 40_000), (CALLEE[0], 4789))]


KINDS: dict[str, Callable[[Traffic], list[bytes]]] = {
    "calls": Traffic.call,
    "noise": Traffic.noise,
    "garbage": Traffic.garbage,
    "torture": Traffic.torture,
    "truncated": Traffic.truncated,
    "link noise": Traffic.link_noise,
    "fragments": Traffic.fragmented,
    "open fragments": Traffic.open_fragments,
    "streams": Traffic.stream,
    "broken streams": Traffic.broken_stream,
    "tunnels": Traffic.tunnelled,
}
