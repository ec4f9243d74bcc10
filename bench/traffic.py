"""The benchmark capture: SIP calls and registrations as a carrier sees them.

Made, not recorded, so that everybody measures the same octets: per call an
INVITE with SDP, 100, 180, 200 with SDP, ACK, BYE and its 200, and beside every
fourth call an OPTIONS and a REGISTER with their answers. Call-IDs, tags,
branches, addresses and ports differ from call to call. The mean packet has
about 650 octets, as in the measurements that Otus is compared with.

    python bench/traffic.py FILE.pcap PACKETS [CALLS_AT_ONE_TIME]
"""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

_PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
_START_NS = 1_700_000_000_000_000_000


def _ip_sum(header: bytes) -> int:
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_frame(src: str, dst: str, payload: bytes, sport: int = 5060, dport: int = 5060) -> bytes:
    """Build an Ethernet frame with IPv4 and UDP around a payload."""
    source, target = (bytes(map(int, a.split("."))) for a in (src, dst))
    udp = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0x4000, 64, 17, 0, source, target
    )
    head = head[:10] + struct.pack("!H", _ip_sum(head)) + head[12:]
    return b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0" + head + udp


def _sdp(ip: str, port: int) -> str:
    return (
        f"v=0\r\no=- {port}77 1 IN IP4 {ip}\r\ns=call\r\nc=IN IP4 {ip}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n"
        "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=sendrecv\r\n"
    )


class _Call:
    def __init__(self, number: int, dice: random.Random) -> None:
        self.dice = dice
        self.caller = f"10.{number >> 14 & 255}.{number >> 6 & 255}.{number % 60 + 1}"
        self.proxy = f"192.0.2.{number % 8 + 10}"
        self.call_id = f"{dice.getrandbits(96):024x}@{self.caller}"
        self.from_tag = f"{dice.getrandbits(40):010x}"
        self.to_tag = f"as{dice.getrandbits(32):08x}"
        self.user = f"+4930{dice.randrange(10**7):07d}"
        self.peer = f"+4989{dice.randrange(10**7):07d}"
        self.port = 10000 + 2 * (number % 20000)

    def _common(self, start: str, cseq: str, *, answered: bool) -> list[str]:
        to_tag = f";tag={self.to_tag}" if answered else ""
        return [
            start,
            f"Via: SIP/2.0/UDP {self.caller}:5060;branch=z9hG4bK{self.dice.getrandbits(64):016x};rport",
            "Max-Forwards: 70",
            f'From: "{self.user}" <sip:{self.user}@carrier.example;user=phone>;tag={self.from_tag}',
            f"To: <sip:{self.peer}@carrier.example;user=phone>{to_tag}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {cseq}",
        ]

    def request(
        self, method: str, cseq: int, *, answered: bool = False, sdp: bool = False
    ) -> bytes:
        lines = self._common(
            f"{method} sip:{self.peer}@{self.proxy}:5060;transport=udp SIP/2.0",
            f"{cseq} {method}",
            answered=answered,
        )
        lines += [
            f"Contact: <sip:{self.user}@{self.caller}:5060;transport=udp>",
            "User-Agent: Carrier-SBC/7.2.4 (build 20240117)",
        ]
        if method not in ("ACK", "BYE"):
            lines += [
                "Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, SUBSCRIBE, NOTIFY, INFO, UPDATE",
                "Supported: replaces, timer, 100rel, path",
                "Session-Expires: 1800;refresher=uac",
            ]
        return _finish(lines, _sdp(self.caller, self.port) if sdp else "")

    def response(self, status: str, cseq: str, *, sdp: bool = False) -> bytes:
        lines = self._common(f"SIP/2.0 {status}", cseq, answered=not status.startswith("100"))
        lines += [
            f"Contact: <sip:{self.peer}@{self.proxy}:5060;transport=udp>",
            "Server: Carrier-Proxy/5.7.2 (x86_64/linux)",
            "Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, SUBSCRIBE, NOTIFY, INFO, UPDATE",
            "Supported: replaces, timer",
            f"P-Asserted-Identity: <sip:{self.peer}@carrier.example>",
        ]
        return _finish(lines, _sdp(self.proxy, self.port + 20000) if sdp else "")

    def frames(self, *, with_upkeep: bool) -> Iterator[bytes]:
        def out(payload: bytes) -> bytes:
            return udp_frame(self.caller, self.proxy, payload)

        def back(payload: bytes) -> bytes:
            return udp_frame(self.proxy, self.caller, payload)

        yield out(self.request("INVITE", 1, sdp=True))
        yield back(self.response("100 Trying", "1 INVITE"))
        yield back(self.response("180 Ringing", "1 INVITE"))
        yield back(self.response("200 OK", "1 INVITE", sdp=True))
        yield out(self.request("ACK", 1, answered=True))
        yield out(self.request("BYE", 2, answered=True))
        yield back(self.response("200 OK", "2 BYE"))
        if with_upkeep:
            for method in ("OPTIONS", "REGISTER"):
                yield out(self.request(method, 3))
                yield back(self.response("200 OK", f"3 {method}"))


def _finish(lines: list[str], body: str) -> bytes:
    if body:
        lines.append("Content-Type: application/sdp")
    lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def sip_frames(num_packets: int, seed: int = 1, num_active: int = 32) -> list[bytes]:
    """Build the benchmark's frames.

    Args:
        num_packets: how many.
        seed: the same seed makes the same octets.
        num_active: calls that go on at one time.

    Returns:
        Ethernet frames in the order of the calls, `num_active` of them interleaved.
    """
    dice = random.Random(seed)
    active: list[Iterator[bytes]] = []
    frames: list[bytes] = []
    number = 0
    while len(frames) < num_packets:
        while len(active) < num_active:
            active.append(_Call(number, dice).frames(with_upkeep=number % 4 == 0))
            number += 1
        index = dice.randrange(len(active))
        frame = next(active[index], None)
        if frame is None:
            del active[index]
        else:
            frames.append(frame)
    return frames


def pcap(frames: list[bytes], gap_ns: int = 2000) -> bytes:
    """Put frames into a pcap file's octets, nanosecond timestamps `gap_ns` apart."""
    parts = [_PCAP_HEADER]
    ts_ns = _START_NS
    for frame in frames:
        seconds, fraction = divmod(ts_ns, 1_000_000_000)
        parts.append(struct.pack("<IIII", seconds, fraction, len(frame), len(frame)))
        parts.append(frame)
        ts_ns += gap_ns
    return b"".join(parts)


def rtp_frames(num_packets: int, num_flows: int = 1000) -> list[bytes]:
    """Build RTP packets of the calls that `sip_frames` announces, in 20 ms steps."""
    frames = []
    for i in range(num_packets):
        flow, sequence = i % num_flows, i // num_flows
        caller = f"10.{flow >> 14 & 255}.{flow >> 6 & 255}.{flow % 60 + 1}"
        header = struct.pack("!BBHII", 0x80, 8, sequence & 0xFFFF, sequence * 160, 0x1000 + flow)
        frames.append(
            udp_frame(
                f"192.0.2.{flow % 8 + 10}",
                caller,
                header + bytes(160),
                30000 + 2 * (flow % 20000),
                10000 + 2 * (flow % 20000),
            )
        )
    return frames


if __name__ == "__main__":
    calls = int(sys.argv[3]) if len(sys.argv) > 3 else 32
    Path(sys.argv[1]).write_bytes(pcap(sip_frames(int(sys.argv[2]), num_active=calls)))
