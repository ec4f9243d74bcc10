"""Records as a pipeline would hand them to a reporter, without one."""

from __future__ import annotations

import json

from otus_sdk.host import RecordList
from otus_sdk.model import Envelope, OutputPacket

ENVELOPE = Envelope("task-1", "agent-1", "task-1/0")
BASE_TS_NS = 1_700_000_000_000_000_000


def record(number: int, calls: int = 50, payload_type: str = "sip") -> OutputPacket:
    labels = {
        "sip.method": "INVITE",
        "sip.call_id": f"call-{number % calls}@example.org",
        "sip.cseq": str(number),
    }
    return OutputPacket(
        BASE_TS_NS + number * 1_000_000,
        ENVELOPE,
        "192.0.2.1",
        "192.0.2.2",
        5060,
        5060 + number % 7,
        17,
        labels if payload_type == "sip" else {},
        payload_type,
        {"number": number},
    )


def value_of(packet: OutputPacket, filler: str = "") -> bytes:
    return json.dumps(
        {"labels": packet.labels, "payload": dict(packet.payload), "filler": filler}
    ).encode()


def batch(first: int, count: int, filler: str = "", **how: object) -> RecordList:
    packets = [record(number, **how) for number in range(first, first + count)]  # type: ignore[arg-type]
    values = [value_of(packet, filler) for packet in packets]
    return RecordList(packets, json=values, protobuf=values)
