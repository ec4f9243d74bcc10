"""The SIP stage of the core and its reference in Python give the same labels and payload."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frames import response, sip, udp, write_pcap
from otus_plugins.parser.rtp import RtpParser
from otus_plugins.parser.sip import SipParser, SipParserConfig
from otus_sdk.factory import NoConfig, PluginFactory, PluginKind
from otus_sdk.testing import make_packet
from tasks import make_task, run_task

SDP = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
# The reference knows neither: they have tests of their own.
CORE_ONLY = {"sdp", "anomalies", "offer_answer", "start_line"}
Message = tuple[Mapping[str, str], Mapping[str, Any]]


def native(payloads: list[bytes], folder: Path) -> list[Message | None]:
    """What the core makes of each payload, None where it is no SIP."""
    path = write_pcap(folder / "messages.pcap", [udp(payload) for payload in payloads])
    task, out = make_task(path, unmatched="forward")
    asyncio.run(run_task(task))
    assert task.ledger().balanced
    return [
        (packet.labels, packet.payload) if packet.payload_type == "sip" else None
        for packet in out.packets
    ]


def reference(payloads: list[bytes]) -> list[Message | None]:
    parser = SipParser()
    parser.init(SipParserConfig())
    results: list[Message | None] = []
    for payload in payloads:
        packet = make_packet(payload)
        if parser.can_handle(packet):
            fields, labels = parser.handle(packet)
            results.append((labels, fields))
        else:
            results.append(None)
    return results


def compare(payloads: list[bytes], folder: Path) -> None:
    from_core, from_python = native(payloads, folder), reference(payloads)
    assert len(from_core) == len(payloads)
    for payload, one, other in zip(payloads, from_core, from_python, strict=True):
        assert (one is None) == (other is None), payload
        if one is not None and other is not None:
            assert dict(one[0]) == dict(other[0]), payload
            core_payload = {k: v for k, v in one[1].items() if k not in CORE_ONLY}
            assert core_payload == dict(other[1]), payload


MESSAGES = [
    sip(),
    sip("REGISTER", "a@b", 4294967295),
    sip("INVITE", body=SDP),
    response(),
    response(404, "Not Found"),
    response(100, ""),
    b"\r\n\r\n" + sip(),
    sip().replace(b"\r\n", b"\n"),
    sip().replace(b"Call-ID", b"i").replace(b"From", b"f").replace(b"To", b"t"),
    sip().replace(b"Call-ID: ", b"call-id\t :  "),
    sip().replace(b"User-Agent: test/1", b"Subject: one\r\n two\r\n\tthree"),
    sip().replace(b'"Alice" <sip:alice@example.org>', b'"Al\r\n ice"\r\n\t<sip:a@b>\r\n ;x=1'),
    sip().replace(b"test/1", b"test/1\r\n  (two)"),
    sip().replace(b'"Alice" <sip:alice@example.org>', b'"A, \\"B\\" <x>" <sip:a@b;p=1?h=2>'),
    sip().replace(b'"Alice" <sip:alice@example.org>', b"sip:alice@example.org"),
    sip().replace(b"<sip:bob@example.org>", b"Bob <tel:+1-201-555-0123;phone-context=x>"),
    sip().replace(b"Contact: <sip:alice@192.0.2.1>", b"m: <sip:a@b>;q=1, <sip:c@d>;q=0.5"),
    sip().replace(b"User-Agent: test/1", b"X-Long: " + b"y" * 4000),
    sip("EXTENSION-METHOD.X"),
    sip().replace(b"test/1", "tést ☎".encode()),
    b"this is no SIP at all\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x80\x00" + b"\0" * 40,
    b"SIP/2.0",
    b"",
]


def test_known_messages_agree(tmp_path: Path) -> None:
    """Requests, responses, folding, compact forms, lists, quotes: the same in both."""
    compare(MESSAGES, tmp_path)


_TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-._", min_size=1, max_size=12)
_USER = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.!~*'&=+$", min_size=1, max_size=12)
_NAME = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters='"\\'),
                max_size=12)  # fmt: skip


@st.composite
def _messages(draw: st.DrawFn) -> bytes:
    method, call_id, tag = draw(_TOKEN), draw(_TOKEN), draw(_TOKEN)
    cseq = draw(st.integers(0, 2**32 - 1))
    line_end = draw(st.sampled_from(["\r\n", "\n"]))
    start = draw(
        st.one_of(
            _USER.map(lambda user: f"{method} sip:{user}@example.org SIP/2.0"),
            st.integers(100, 699).map(lambda code: f"SIP/2.0 {code} Some Reason"),
        )
    )
    name = draw(_NAME)
    long_form = draw(st.booleans())
    pad = draw(st.sampled_from(["", " ", "\t", "  "]))
    address = f'"{name}" <sip:{draw(_USER)}@example.net>;tag={tag}'
    headers = [
        f"{'Via' if long_form else 'v'}{pad}: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{tag}",
        f"{'From' if long_form else 'f'}: {pad}{address}",
        f"{'To' if long_form else 't'}: <sip:{draw(_USER)}@[2001:db8::1]:5070;lr>",
        f"{'Call-ID' if long_form else 'i'}:{call_id}@host",
        f"CSeq: {cseq} {method}",
        f"X-{draw(_TOKEN)}: {draw(_USER)}",
    ]
    order = draw(st.permutations(headers))
    return line_end.join([start, *order, "Content-Length: 0", "", ""]).encode()


@settings(max_examples=25)
@given(messages=st.lists(_messages(), min_size=1, max_size=40))
def test_made_up_messages_agree(messages: list[bytes], tmp_path: Path) -> None:
    """Well-formed messages in any order of headers, form and line end: the same in both."""
    compare(messages, tmp_path)


# What says SIP, or tel:, is no noise.
_NOISE = st.binary(max_size=120).filter(
    lambda octets: b"sip" not in octets.lower() and b"tel:" not in octets.lower()
)


@settings(max_examples=15)
@given(payloads=st.lists(_NOISE, min_size=1, max_size=60))
def test_neither_takes_noise_for_sip(payloads: list[bytes], tmp_path: Path) -> None:
    """Random octets are SIP to neither."""
    for one in native(payloads, tmp_path):
        assert one is None
    assert not any(reference(payloads))


@pytest.mark.parametrize(
    "header", [b"\x80\x00", b"\x90\xe0", b"\x81\x08", b"\xa0\x00", b"\xb2\x60"]
)
def test_rtp_headers_agree(tmp_path: Path, header: bytes) -> None:
    """Of a known flow the core gives the fields that the reference gives."""
    body = header + b"\x12\x34\x00\x00\x00\xa0\x12\x34\x56\x78" + b"\xbe\xde\x00\x01" * 8 + b"\x04"
    frames = [udp(sip(body=SDP)), udp(body, ("198.51.100.9", 7000), ("192.0.2.1", 4000))]
    path = write_pcap(tmp_path / "rtp.pcap", frames)
    task, out = make_task(path, parsers=["sip", "rtp"])
    asyncio.run(run_task(task))
    assert task.ledger().balanced
    record = out.packets[1]
    parser = RtpParser()
    parser.init(NoConfig())
    packet = make_packet(body)
    assert parser.can_handle(packet)
    fields, labels = parser.handle(packet)
    assert record.payload_type == "rtp"
    assert dict(record.payload) == dict(fields)
    assert record.labels == {**labels, "rtp.call_id": "call-1"}


def test_the_python_form_runs_in_a_task_like_the_native_one(tmp_path: Path) -> None:
    """With its native stage taken away, the same plugin gives the same records."""
    path = write_pcap(tmp_path / "a.pcap", [udp(message) for message in MESSAGES])
    python = PluginFactory(PluginKind.PARSER, "pysip", SipParser, SipParserConfig)
    runs = []
    for parser in ("sip", "pysip"):
        task, out = make_task(path, python, parsers=[parser])
        asyncio.run(run_task(task))
        assert task.ledger().balanced
        runs.append([packet.labels for packet in out.packets])
    assert runs[0] == runs[1]
