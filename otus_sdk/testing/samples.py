"""Packets and records for plugins' tests: ordinary, odd and hostile ones."""

from __future__ import annotations

import json
from typing import Any

from otus_sdk.model import (
    IP,
    DecodedPacket,
    Envelope,
    Ethernet,
    OutputPacket,
    Transport,
    Tunnel,
)

__all__ = ["make_packet", "make_record", "record_json", "sample_packets", "sample_records"]

START_NS = 1_700_000_000_123_456_789
_INVITE = (
    b"INVITE sip:bob@example.org SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK-1\r\n"
    b"From: <sip:alice@example.org>;tag=a1\r\n"
    b"To: <sip:bob@example.org>\r\n"
    b"Call-ID: call-1\r\n"
    b"CSeq: 1 INVITE\r\n"
    b"Content-Length: 0\r\n\r\n"
)
_OK = _INVITE.replace(b"INVITE sip:bob@example.org SIP/2.0", b"SIP/2.0 200 OK", 1)
_RTP = b"\x80\x00\x00\x01\x00\x00\x00\xa0\x12\x34\x56\x78" + b"\xd5" * 160
_STUN = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(range(12))
_DNS = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03org\x00\x00\x01\x00\x01"


def make_packet(
    payload: bytes = b"",
    *,
    src: tuple[str, int] = ("192.0.2.1", 5060),
    dst: tuple[str, int] = ("192.0.2.2", 5060),
    protocol: int = 17,
    ts_ns: int = START_NS,
    **fields: Any,
) -> DecodedPacket:
    """A decoded packet with this payload; further fields as in `DecodedPacket`."""
    version = 6 if ":" in src[0] else 4
    return DecodedPacket(
        ts_ns=ts_ns,
        ethernet=Ethernet(
            "02:00:00:00:00:01", "02:00:00:00:00:02", 0x86DD if version == 6 else 0x800
        ),
        ip=IP(version, src[0], dst[0], protocol, 64, 28 + len(payload)),
        transport=Transport(src[1], dst[1], protocol),
        payload=payload,
        **{"caplen": 42 + len(payload), "wirelen": 42 + len(payload), **fields},
    )


def sample_packets() -> list[DecodedPacket]:
    """SIP, RTP, STUN and DNS, then what no parser should fall over."""
    tunnel = Tunnel("vxlan", 42, "198.51.100.1", "198.51.100.2", 54321, 4789)
    return [
        make_packet(_INVITE),
        make_packet(_OK, tunnels=(tunnel,)),
        make_packet(_INVITE, src=("2001:db8::1", 5060), dst=("2001:db8::2", 5060)),
        make_packet(_INVITE, protocol=6, stream=True),
        make_packet(_INVITE, reassembled=True),
        make_packet(_RTP, src=("192.0.2.1", 4000), dst=("192.0.2.2", 4002)),
        make_packet(_STUN, dst=("192.0.2.2", 3478)),
        make_packet(_DNS, dst=("192.0.2.2", 53)),
        make_packet(_INVITE[:100], truncated=True),
        make_packet(b""),
        make_packet(b"\0"),
        make_packet(b"\r\n\r\n"),
        make_packet(b"\xff" * 1500),
        make_packet(bytes(range(256)) * 256),
        make_packet(b"a" * 65507),
    ]


def make_record(**fields: Any) -> OutputPacket:
    """A SIP record; fields as in `OutputPacket`."""
    values: dict[str, Any] = {
        "ts_ns": START_NS,
        "envelope": Envelope("task-1", "agent-1", "task-1-0"),
        "src_ip": "192.0.2.1",
        "dst_ip": "192.0.2.2",
        "src_port": 5060,
        "dst_port": 5060,
        "protocol": 17,
        "labels": {
            "sip.method": "INVITE",
            "sip.call_id": "call-1",
            "sip.from_uri": "sip:alice@example.org",
            "sip.to_uri": "sip:bob@example.org",
        },
        "payload_type": "sip",
        "payload": {"type": "request", "method": "INVITE"},
    }
    return OutputPacket(**{**values, **fields})


def sample_records() -> list[OutputPacket]:
    """Records of every payload type, odd text in some; fresh ones each time."""
    return [
        make_record(),
        make_record(labels={"sip.status_code": "486", "sip.reason": "Busy Here"}),
        make_record(payload_type="rtp", labels={"rtp.ssrc": "305419896"}, payload={}),
        make_record(payload_type="raw", labels={}, payload={}, raw_payload=b"\xff\x00"),
        make_record(payload_type="stun", labels={"stun.kind": "request"}, payload={"a": [1, None]}),
        make_record(labels={"sip.method": "\u0000\ufffd\u2028 \U0001f4de", "x.empty": ""}),
        make_record(src_ip="2001:db8::1", dst_ip="2001:db8::2", protocol=6, vlans=(10, 20)),
        make_record(
            src_ip="", dst_ip="", src_port=0, dst_port=0, protocol=0, labels={}, payload={}
        ),
        make_record(labels={"x.long": "y" * 65536}),
    ]


def record_json(record: OutputPacket) -> bytes:
    """A record's JSON, with the core's most important keys."""
    return json.dumps(
        {
            "timestamp": record.timestamp.isoformat(),
            "task_id": record.envelope.task_id,
            "agent_id": record.envelope.agent_id,
            "pipeline_id": record.envelope.pipeline_id,
            "src_ip": record.src_ip,
            "dst_ip": record.dst_ip,
            "src_port": record.src_port,
            "dst_port": record.dst_port,
            "protocol": record.protocol_name,
            "labels": record.labels,
            "payload_type": record.payload_type,
            "payload": dict(record.payload),
        }
    ).encode()
