"""Encoded records: valid whatever a packet holds, JSON and Protobuf saying the same."""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import otus_core
from otus_core import Batch, Output, Pipeline, PipelineConfig, Stage, StageKind

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("OTUS_CORPUS", ROOT / "../shared/corpus"))

INVITE = (
    b"INVITE sip:bob@example.net SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKx;rport\r\nVia: SIP/2.0/TCP 10.0.0.9\r\n"
    b"Max-Forwards: 70\r\n"
    b'f: "Al \xc3\xa9 \\"x\\"" <sip:alice@example.com>;tag=a1\r\nTo: <sip:bob@example.net>\r\n'
    b"Call-ID: c1@10.0.0.1\r\nCSeq: 7 INVITE\r\nSubject: one\r\n\t two\r\nX-Bad: \xff\xc3\x01\r\n"
    b"Contact: <sip:alice@10.0.0.1>\r\nUser-Agent: test\r\nContent-Type: application/sdp\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)
SDP = (
    b"v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=call\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n"
    b"a=group:BUNDLE 0 1\r\nm=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"
    b"a=mid:0\r\na=rtcp:4009\r\na=candidate:1 1 UDP 1 10.0.0.1 4000 typ host\r\na=recvonly\r\n"
    b"m=video 5000/2 RTP/AVP 34\r\nc=IN IP6 2001:db8::5\r\na=mid:1\r\na=rtcp-mux\r\n"
)


def frame(payload: bytes) -> bytes:
    udp = struct.pack("!HHHH", 5060, 5062, (8 + len(payload)) & 0xFFFF, 0) + payload
    ip = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        (20 + len(udp)) & 0xFFFF,
        1,
        0,
        63,
        17,
        0,
        b"\x0a\0\0\1",
        b"\xc0\0\2\7",
    )
    return b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x81\0\0\x2a\x08\0" + ip + udp


def records(*payloads: bytes, raw_payload: bool = False) -> Batch:
    """These payloads through the core, with both encodings."""
    parts = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)]
    for number, payload in enumerate(payloads):
        octets = frame(payload)
        parts.append(struct.pack("<IIII", 1700000000, number, len(octets), len(octets)) + octets)
    pipeline = Pipeline(
        otus_core.open_memory(b"".join(parts)),
        PipelineConfig(
            'task "é"',
            "agent",
            "task-0",
            (Stage(StageKind.PARSE_SIP),),
            forward_unmatched=True,
            outputs=Output.JSON | Output.PROTOBUF,
            raw_payload=raw_payload,
            max_records=len(payloads) + 1,
            arena_octets=1 << 26,
        ),
    )
    assert pipeline.poll(0).ended
    batch = pipeline.snapshot()
    pipeline.close()
    assert len(batch) == len(payloads)
    return batch


@pytest.fixture(scope="session")
def record_type(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`otus.v1.Record` of the official library, from the schema as it is shipped."""
    pytest.importorskip("google.protobuf", reason="the protobuf library is not installed")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    protoc = shutil.which("protoc")
    if protoc is None:
        pytest.skip("no protoc: install protobuf-compiler")
    target = tmp_path_factory.mktemp("proto") / "otus.binpb"
    subprocess.run(
        [protoc, f"-I{ROOT / 'configs'}", f"--descriptor_set_out={target}", "otus.proto"],
        check=True,
        timeout=300,
    )
    files = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("otus.v1.Record"))


def as_dict(message: Any) -> dict[str, Any]:
    """Every field that is there, under its name."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            found[field.name] = dict(value)
        elif field.is_repeated:
            found[field.name] = [as_dict(one) if field.message_type else one for one in value]
        else:
            found[field.name] = as_dict(value) if field.message_type else value
    return found


ALWAYS = {
    "record": {"src_ip": "", "dst_ip": "", "src_port": 0, "dst_port": 0, "caplen": 0, "wirelen": 0, "labels": {}},
    "request": {"method": "", "request_uri": ""},
    "response": {"status_code": 0, "reason": ""},
    "address": {"uri": ""},
    "via": {"transport": "", "sent_by": ""},
    "media": {"media": "", "port": 0, "protocol": "", "codecs": []},
}  # fmt: skip
"""What JSON always has and Protobuf leaves out at its default."""


def sip_as_json(sip: dict[str, Any]) -> dict[str, Any]:
    sip = {**ALWAYS[sip["type"]], **sip}
    for name in ("from", "to", "contact"):
        if name in sip:
            sip[name] = {**ALWAYS["address"], **sip[name]}
    if "via" in sip:
        sip["via"] = {**ALWAYS["via"], **sip["via"]}
    if "cseq" in sip:
        sip.setdefault("cseq_method", "")
    sip["headers"] = [[one.get("name", ""), one.get("value", "")] for one in sip.get("headers", [])]
    if "body" in sip:
        body = sip.pop("body")
        try:
            sip["body"] = body.decode()
        except UnicodeDecodeError:
            sip["body_base64"] = base64.b64encode(body).decode()
    if "sdp" in sip:
        media = [{**ALWAYS["media"], **one} for one in sip["sdp"].get("media", [])]
        for one in media:
            one["codecs"] = [{"payload_type": 0, **codec} for codec in one["codecs"]]
        sip["sdp"] = {**sip["sdp"], "media": media}
    return sip


def as_json(message: Any) -> dict[str, Any]:
    """What the JSON form of a Protobuf record must be."""
    found = {**ALWAYS["record"], **as_dict(message)}
    seconds, fraction = divmod(found.pop("timestamp_ns"), 10**9)
    import datetime

    second = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
    found["timestamp"] = f"{second:%Y-%m-%dT%H:%M:%S}.{fraction:09}Z"
    if "sip" in found:
        found["payload"] = sip_as_json(found.pop("sip"))
    if "raw_payload" in found:
        found["raw_payload"] = base64.b64encode(found["raw_payload"]).decode()
    return found


def both_forms(batch: Batch, index: int, record_type: Any) -> dict[str, Any]:
    """The record's JSON, after Protobuf has said the same."""
    text = batch.json(index)
    assert b"\n" not in text
    record: dict[str, Any] = json.loads(text.decode("utf-8", "strict"))
    assert orjson.loads(text) == record  # strict about surrogates and control characters
    expected = as_json(record_type.FromString(batch.protobuf(index)))
    if record["payload_type"] == "raw":
        expected["payload"] = record["payload"]
    assert record == expected
    return record


def test_invite_in_both_forms(record_type: Any) -> None:
    """A request with SDP: every member as written by hand, in both forms."""
    payload = INVITE % (len(SDP), SDP)
    record = both_forms(records(payload, raw_payload=True), 0, record_type)
    sip = record.pop("payload")
    assert record.pop("raw_payload") == base64.b64encode(payload).decode()
    assert record.pop("labels")["sip.call_id"] == "c1@10.0.0.1"
    assert record == {
        "timestamp": "2023-11-14T22:13:20.000000000Z",
        "task_id": 'task "é"',
        "agent_id": "agent",
        "pipeline_id": "task-0",
        "src_ip": "10.0.0.1",
        "dst_ip": "192.0.2.7",
        "src_port": 5060,
        "dst_port": 5062,
        "protocol": "udp",
        "vlans": [42],
        "caplen": len(frame(payload)),
        "wirelen": len(frame(payload)),
        "payload_type": "sip",
    }
    sdp = sip.pop("sdp")
    assert sip == {
        "type": "request",
        "method": "INVITE",
        "request_uri": "sip:bob@example.net",
        "call_id": "c1@10.0.0.1",
        "cseq": 7,
        "cseq_method": "INVITE",
        "from": {
            "display_name": 'Al é \\"x\\"',
            "uri": "sip:alice@example.com",
            "tag": "a1",
            "params": ";tag=a1",
        },
        "to": {"uri": "sip:bob@example.net"},
        "contact": {"uri": "sip:alice@10.0.0.1"},
        "via": {
            "transport": "UDP",
            "sent_by": "10.0.0.1:5060",
            "branch": "z9hG4bKx",
            "rport": "",
        },
        "user_agent": "test",
        "content_type": "application/sdp",
        "content_length": len(SDP),
        "headers": [
            ["Via", "SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKx;rport"],
            ["Via", "SIP/2.0/TCP 10.0.0.9"],
            ["Max-Forwards", "70"],
            ["From", '"Al é \\"x\\"" <sip:alice@example.com>;tag=a1'],
            ["To", "<sip:bob@example.net>"],
            ["Call-ID", "c1@10.0.0.1"],
            ["CSeq", "7 INVITE"],
            ["Subject", "one two"],
            ["X-Bad", "\ufffd\ufffd\x01"],
            ["Contact", "<sip:alice@10.0.0.1>"],
            ["User-Agent", "test"],
            ["Content-Type", "application/sdp"],
            ["Content-Length", str(len(SDP))],
        ],
        "body": SDP.decode(),
        "offer_answer": "offer",
        "anomalies": ["control_octets"],
    }
    assert sdp["bundle"] == ["0", "1"]
    audio, video = sdp["media"]
    assert audio == {
        "media": "audio",
        "port": 4000,
        "protocol": "RTP/AVP",
        "address": "10.0.0.1",
        "direction": "recvonly",
        "rtcp_port": 4009,
        "mid": "0",
        "codecs": [
            {"payload_type": 0, "encoding": "PCMU/8000"},
            {"payload_type": 101, "encoding": "telephone-event/8000"},
        ],
        "candidates": ["1 1 UDP 1 10.0.0.1 4000 typ host"],
    }
    assert (video["num_ports"], video["address"], video["rtcp_mux"]) == (2, "2001:db8::5", True)
    assert video["codecs"] == [{"payload_type": 34, "encoding": "H263/90000"}]


@pytest.mark.parametrize(
    ("start", "method", "role"),
    [
        (b"INVITE sip:a SIP/2.0", b"INVITE", "offer"),
        (b"UPDATE sip:a SIP/2.0", b"UPDATE", "offer"),
        (b"ACK sip:a SIP/2.0", b"ACK", "answer"),
        (b"PRACK sip:a SIP/2.0", b"PRACK", "unknown"),
        (b"SIP/2.0 183 Progress", b"INVITE", "answer"),
        (b"SIP/2.0 200 OK", b"INVITE", "answer"),
        (b"SIP/2.0 200 OK", b"PRACK", "answer"),
        (b"SIP/2.0 488 No", b"INVITE", None),
        (b"SIP/2.0 200 OK", b"OPTIONS", None),
        (b"MESSAGE sip:a SIP/2.0", b"MESSAGE", None),
    ],
)
def test_offers_and_answers(
    start: bytes, method: bytes, role: str | None, record_type: Any
) -> None:
    """What one message tells about its SDP."""
    payload = start + b"\r\nCall-ID: x\r\nCSeq: 1 " + method
    payload += b"\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n" % len(SDP) + SDP
    record = both_forms(records(payload), 0, record_type)
    assert record["payload"].get("offer_answer") == role
    assert record["payload"]["sdp"]["session_name"] == "call"


fields = st.tuples(
    st.sampled_from([b"Via", b"f", b"To", b"Call-ID", b"CSeq", b"Contact", b"X-\xff", b"Subject"]),
    st.binary(max_size=40) | st.sampled_from([b"a\r\n b", b'"\xe2\x82', b"<sip:\x00@h>;tag=\x80"]),
)
messages = st.builds(
    lambda start, headers, body: (
        start
        + b"\r\n"
        + b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        + b"\r\n"
        + body
    ),
    st.sampled_from([b"INVITE sip:\xff SIP/2.0", b"SIP/2.0 200 \x80\xe2\x82", b"X sip:a SIP/3.0"]),
    st.lists(fields, max_size=8),
    st.binary(max_size=80) | st.just(SDP),
)


def test_fields_are_unfolded_in_both_forms(record_type: Any) -> None:
    """RFC 3261 7.3.1: a fold is one space, also inside a display name or parameters."""
    message = (
        b"OPTIONS sip:b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n : 5070 ;branch=z9hG4bKx\r\n"
        b'From: "Al \r\n\tice" <sip:a@b>\r\n ;x="one\r\n two";tag=\r\n 1\r\n'
        b"To: Bob\r\n Smith\r\n <sip:b@c>\r\nUser-Agent: one\r\n  two\r\n"
        b"Content-Type: text/plain\r\n ;charset=utf-8\r\n\r\nbody\r\n folds not"
    )
    payload = both_forms(records(message), 0, record_type)["payload"]
    assert payload["from"] == {
        "display_name": "Al ice",
        "uri": "sip:a@b",
        "tag": "1",
        "params": ';x="one two";tag= 1',
    }
    assert payload["to"]["display_name"] == "Bob Smith"
    assert payload["via"]["sent_by"] == "h : 5070"
    assert payload["user_agent"] == "one two"
    assert payload["content_type"] == "text/plain ;charset=utf-8"
    assert payload["body"] == "body\r\n folds not"


@settings(max_examples=150)
@given(payloads=st.lists(messages | st.binary(max_size=100), min_size=1, max_size=8))
@example(payloads=[b"INVITE sip:a SIP/2.0\r\nSubject: \xf0\x9f\x98\r\n\r\n\xed\xa0\x80"])
def test_any_octets_give_valid_records(payloads: list[bytes], record_type: Any) -> None:
    """Whatever a packet holds, both forms are valid and say the same."""
    batch = records(*payloads)
    for index, payload in enumerate(payloads):
        record = both_forms(batch, index, record_type)
        if record["payload_type"] == "sip" and "body_base64" in record["payload"]:
            assert base64.b64decode(record["payload"]["body_base64"]) in payload


def test_replacement_is_pythons() -> None:
    """Octets that are no UTF-8 become U+FFFD exactly as `errors="replace"` makes them."""
    bad = [
        bytes([a, b, c])
        for a in (0xC1, 0xE0, 0xE2, 0xED, 0xF0, 0xF4, 0xF5, 0x80)
        for b in (0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0)
        for c in (0x80, 0xBF, 0x41)
    ]
    payloads = [b"INVITE sip:a SIP/2.0\r\nX-Name: <" + octets + b">\r\n\r\n" for octets in bad]
    batch = records(*payloads)
    for index, octets in enumerate(bad):
        [[_, value]] = json.loads(batch.json(index))["payload"]["headers"]
        assert value == "<" + octets.decode("utf-8", "replace") + ">"


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}: set OTUS_CORPUS")
def test_corpus_messages_in_both_forms(record_type: Any) -> None:
    """Every SIP message of the corpus, malformed ones included, encodes in both forms alike."""
    files = [path for path in sorted((CORPUS / "sipmsg").rglob("*")) if path.is_file()]
    payloads = [octets for path in files if 0 < len(octets := path.read_bytes()) < 60000]
    assert len(payloads) > 10
    batch = records(*payloads)
    num_sip = sum(
        both_forms(batch, i, record_type)["payload_type"] == "sip" for i in range(len(batch))
    )
    assert num_sip > len(payloads) // 2
