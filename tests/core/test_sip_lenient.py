"""What is read from SIP that bends the grammar, and that no bend goes unnamed.

Readings are those of another decoder where it gives one, of RFC 3261 section 25.1 elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sip_dumping import Dump, SipDump

# From or To field value: display name, URI, tag, and whether the field is reported as bad.
ADDRESSES: list[tuple[str, str | None, str | None, str | None, bool]] = [
    ("<sip:alice@a>;tag=5", None, "sip:alice@a", "5", False),
    ("sip:alice@a;user=phone;tag=5", None, "sip:alice@a", "5", False),
    ("<sip:alice@a;user=phone>;tag=5", None, "sip:alice@a;user=phone", "5", False),
    ("<sip:alice@a;tag=9>;tag=5", None, "sip:alice@a;tag=9", "5", False),
    ("<sip:alice@a;tag=9>", None, "sip:alice@a;tag=9", None, False),
    ('"A <B> ;,\\" C" <sip:alice@a>;tag=5', 'A <B> ;,\\" C', "sip:alice@a", "5", False),
    ('"A\\\\" <sip:alice@a>;tag=5', "A\\\\", "sip:alice@a", "5", False),
    ('"" <sip:alice@a>;tag=5', None, "sip:alice@a", "5", False),
    ('"a"<sip:alice@a>;tag=5', "a", "sip:alice@a", "5", False),
    ("A B C <sip:alice@a>;tag=5", "A B C", "sip:alice@a", "5", False),
    ("a<sip:alice@a>;tag=5", "a", "sip:alice@a", "5", False),
    ("tel:+1-201-555-0123;tag=5", None, "tel:+1-201-555-0123", "5", False),
    ("<tel:+1-201;phone-context=x>;tag=5", None, "tel:+1-201;phone-context=x", "5", False),
    ("<sips:a@[2001:db8::9:1]:5061>;tag=5", None, "sips:a@[2001:db8::9:1]:5061", "5", False),
    ("sip:[::1];tag=5", None, "sip:[::1]", "5", False),
    ("<sip:alice@a?Subject=x%20y>;tag=5", None, "sip:alice@a?Subject=x%20y", "5", False),
    ("<sip:a;x=y;z@a;p=1>;tag=5", None, "sip:a;x=y;z@a;p=1", "5", False),
    ("<sip:al,ice@a>;tag=5", None, "sip:al,ice@a", "5", False),
    ("<urn:uuid:f81d4fae>;tag=5", None, "urn:uuid:f81d4fae", "5", False),
    ("<sip:alice@a>;tag = 5", None, "sip:alice@a", "5", False),
    ("<sip:alice@a> ; Tag=AbC ", None, "sip:alice@a", "AbC", False),
    ('<sip:alice@a>;x="a;tag=9";tag=5', None, "sip:alice@a", "5", False),
    ("<sip:alice@a>;x;tag=5", None, "sip:alice@a", "5", False),
    ("<sip:alice@a>;tag=1;tag=2", None, "sip:alice@a", "1", False),
    ("<sip:alice@a>;tag=a/b=c", None, "sip:alice@a", "a/b=c", False),
    # A URI that should have been in brackets, or whose brackets are off.
    ("sip:alice@a?x=y;tag=5", None, "sip:alice@a?x=y", "5", True),
    ("sip:al,ice@a;tag=5", None, "sip:al,ice@a", "5", True),
    ("< sip:alice@a >;tag=5", None, "sip:alice@a", "5", True),
    ("<sip:alice@a", None, "sip:alice@a", None, True),
    ("sip:alice@a>;tag=5", None, "sip:alice@a>", "5", True),
    ("<<sip:alice@a>>;tag=5", None, "<sip:alice@a", "5", True),
    ("<sip:al<ice@a>;tag=5", None, "sip:al<ice@a", "5", True),
    ("<sip:al>ice@a>;tag=5", None, "sip:al", "5", True),
    ("<>;tag=5", None, "", "5", True),
    # A name that should have been quoted, or is quoted badly.
    ("Bell, Alexander <sip:a@b>;tag=43", "Bell, Alexander", "sip:a@b", "43", True),
    ('"never closed <sip:alice@a>;tag=5', "never closed", "sip:alice@a", "5", True),
    ('"a" "b" <sip:alice@a>;tag=5', "a", "sip:alice@a", "5", True),
    ("sip:x@y <sip:alice@a>;tag=5", "sip:x@y", "sip:alice@a", "5", True),
    ('"x" sip:alice@a;tag=5', "x", "sip:alice@a", "5", True),
    # What belongs to nothing hides no tag.
    ("<sip:x@y> <sip:alice@a>;tag=5", None, "sip:x@y", "5", True),
    ("<sip:alice@a>, <sip:eve@e>;tag=5", None, "sip:alice@a", "5", True),
    ("<sip:alice@a>(comment);tag=5", None, "sip:alice@a", "5", True),
    ('"a" ;tag=5', "a", "", "5", True),
    ("<sip:alice@a>;;tag=5", None, "sip:alice@a", "5", True),
    ("<sip:alice@a>;tag=5;", None, "sip:alice@a", "5", True),
    ("<sip:alice@a>;tag=", None, "sip:alice@a", "", True),
    ("*", None, "*", None, True),
    ("alice@a;tag=5", None, "alice@a", "5", True),
    ("", None, None, None, True),
]

# Value of CSeq in an INVITE: number, method, whether the field is reported as bad.
CSEQS: list[tuple[str, int | None, str | None, bool]] = [
    ("1 INVITE", 1, "INVITE", False),
    ("1\tINVITE", 1, "INVITE", False),
    ("1\r\n INVITE", 1, "INVITE", False),
    ("0009   INVITE", 9, "INVITE", False),
    ("0 INVITE", 0, "INVITE", False),
    ("4294967295 INVITE", 4294967295, "INVITE", False),
    ("4294967296 INVITE", None, "INVITE", True),
    ("99999999999999999999 INVITE", None, "INVITE", True),
    ("-1 INVITE", None, "INVITE", True),
    ("x INVITE", None, "INVITE", True),
    ("0x10 INVITE", None, "INVITE", True),
    ("1 INVITE extra", 1, "INVITE extra", True),
    ("1INVITE", 1, "INVITE", True),
    ("INVITE", None, "INVITE", True),
    ("1", 1, "", True),
    ("", None, "", True),
]

# Status line: status code (0: none), reason phrase, whether it is reported as bad.
STATUS_LINES: list[tuple[str, int, str | None, bool]] = [
    ("SIP/2.0 200 OK", 200, "OK", False),
    ("SIP/2.0 200 ", 200, "", False),
    ("SIP/2.0 478 Not registered", 478, "Not registered", False),
    ("SIP/2.0 200", 200, None, True),
    ("SIP/2.0 700 Beyond", 700, "Beyond", True),
    ("SIP/2.0 999 Beyond", 999, "Beyond", True),
    ("SIP/2.0 099 Below", 99, "Below", True),
    ("SIP/2.0 42 Short", 0, "Short", True),
    ("SIP/2.0 1000 Long", 0, "Long", True),
    ("SIP/2.0 4294967301 Long", 0, "Long", True),
    ("SIP/2.0 -20 Negative", 0, "Negative", True),
    ("SIP/2.0 2x0 Word", 0, "Word", True),
    ("SIP/2.0\t200 OK", 200, "OK", True),
    ("SIP/2.0 200\tOK", 200, "OK", True),
    ("SIP/2.0  200  OK", 200, " OK", True),
    ("sip/2.0 200 OK", 200, "OK", False),
    ("SIP/3.0 200 OK", 200, "OK", True),
]

# Request line: method, Request-URI, what is reported.
REQUEST_LINES: list[tuple[str, str, str, set[str]]] = [
    ("INVITE sip:a@b SIP/2.0", "INVITE", "sip:a@b", set()),
    ("INVITE sip:a@b sip/2.0", "INVITE", "sip:a@b", set()),
    ("INVITE tel:+1-201;phone-context=x SIP/2.0", "INVITE", "tel:+1-201;phone-context=x", set()),
    (
        "INVITE sip:a@[2001:db8::1]:65535;x=y SIP/2.0",
        "INVITE",
        "sip:a@[2001:db8::1]:65535;x=y",
        set(),
    ),
    ("OPTIONS urn:service:sos SIP/2.0", "OPTIONS", "urn:service:sos", set()),
    ("INVITE  sip:a@b SIP/2.0", "INVITE", "sip:a@b", {"bad_start_line"}),
    ("INVITE sip:a@b  SIP/2.0", "INVITE", "sip:a@b", {"bad_start_line"}),
    ("INVITE\tsip:a@b SIP/2.0", "INVITE", "sip:a@b", {"bad_start_line"}),
    ("INVITE sip:a@b\tSIP/2.0", "INVITE", "sip:a@b", {"bad_start_line"}),
    ("INVITE sip:a@b SIP/2.0 ", "INVITE", "sip:a@b", {"bad_start_line"}),
    ("INVITE sip:a@b", "INVITE", "sip:a@b", {"bad_start_line", "bad_version"}),
    ("INVITE sip:a@b SIP/2.00", "INVITE", "sip:a@b", {"bad_version"}),
    ("INVITE sip:a@b SIP/7.0", "INVITE", "sip:a@b", {"bad_version"}),
    ("INVITE <sip:a@b> SIP/2.0", "INVITE", "sip:a@b", {"bad_request_uri"}),
    ("INVITE sip:a b@c SIP/2.0", "INVITE", "sip:a b@c", {"bad_request_uri"}),
    ("INVITE sip:a@b?Subject=x SIP/2.0", "INVITE", "sip:a@b?Subject=x", {"bad_request_uri"}),
    ("INVITE sip:a@b:65536 SIP/2.0", "INVITE", "sip:a@b:65536", {"bad_request_uri"}),
    ("INVITE sip:a@b: SIP/2.0", "INVITE", "sip:a@b:", {"bad_request_uri"}),
    ("INVITE a@b SIP/2.0", "INVITE", "a@b", {"bad_request_uri"}),
    ("OPTIONS * SIP/2.0", "OPTIONS", "*", {"bad_request_uri"}),
]

FIELDS = {
    "Via": "SIP/2.0/UDP h;branch=z9hG4bK1",
    "From": "<sip:a@b>;tag=1",
    "To": "<sip:c@d>",
    "Call-ID": "c",
    "CSeq": "1 INVITE",
    "Max-Forwards": "70",
    "Content-Length": "0",
}


def message(start: str = "INVITE sip:c@d SIP/2.0", **fields: str) -> bytes:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    lines = [f"{name}: {value}" for name, value in {**FIELDS, **named}.items()]
    return "\r\n".join([start, *lines, "", ""]).encode("utf-8")


def read(sip_dump: SipDump, folder: Path, messages: list[bytes]) -> list[Dump]:
    paths = [folder / f"{index:03d}.sip" for index in range(len(messages))]
    for path, octets in zip(paths, messages, strict=True):
        path.write_bytes(octets)
    dumps = sip_dump.parse_files(paths)
    assert [dump.status for dump in dumps] == ["ok"] * len(messages)
    assert all(dump.fields["can_handle"] for dump in dumps)
    return dumps


@pytest.mark.parametrize("field", ["From", "To"])
def test_addresses(field: str, sip_dump: SipDump, tmp_path: Path) -> None:
    """Name, URI and tag are found wherever they stand; what is wrong is reported as such."""
    dumps = read(sip_dump, tmp_path, [message(**{field: value}) for value, *_ in ADDRESSES])
    got = []
    for (value, *_), dump in zip(ADDRESSES, dumps, strict=True):
        found = dump.fields[field.lower()]
        bad = f"bad_{field.lower()}" in dump.fields["anomalies"]
        got.append((value, found["display_name"], found["uri"], found["tag"], bad))
    assert got == ADDRESSES


def test_cseq(sip_dump: SipDump, tmp_path: Path) -> None:
    """A number that can be read is given, also where the rest of the field is off."""
    dumps = read(sip_dump, tmp_path, [message(CSeq=value) for value, *_ in CSEQS])
    got = []
    for (value, *_), dump in zip(CSEQS, dumps, strict=True):
        fields = dump.fields
        number = fields["cseq"] if fields["has_cseq"] else None
        bad = "bad_cseq" in fields["anomalies"]
        got.append((value, number, fields["cseq_method"], bad))
    assert got == CSEQS


def test_status_lines(sip_dump: SipDump, tmp_path: Path) -> None:
    """Three digits are a status code, also one that no class has."""
    dumps = read(sip_dump, tmp_path, [message(start=line) for line, *_ in STATUS_LINES])
    got = []
    for (line, *_), dump in zip(STATUS_LINES, dumps, strict=True):
        fields = dump.fields
        bad = {"bad_status_code", "bad_start_line", "bad_version"} & set(fields["anomalies"])
        got.append((line, fields["status_code"], fields["reason"], bool(bad)))
    assert got == STATUS_LINES


def test_a_lone_cr_ends_a_line(sip_dump: SipDump, tmp_path: Path) -> None:
    """One, or all of them: the fields behind are read, and the octet is reported."""
    whole = message().replace(b"\r\n", b"\n")
    messages = [
        message().replace(b"b>;tag=1\r\n", b"b>;tag=1\r"),
        whole.replace(b"\n", b"\r"),
        message().replace(b"\r\nCSeq", b"\r\r\nCSeq"),  # one line end, and a CR too many
    ]
    for dump in read(sip_dump, tmp_path, messages):
        assert dump.fields["anomalies"] == ["control_octets"]
        assert len(dump.headers) == len(FIELDS)
        assert dump.fields["from"]["tag"] == "1"
        assert dump.fields["to"]["uri"] == "sip:c@d"
        assert (dump.fields["call_id"], dump.fields["cseq"]) == ("c", 1)
        assert dump.body == ""


def test_request_lines(sip_dump: SipDump, tmp_path: Path) -> None:
    """Method and Request-URI are found, and each defect of the line has its name."""
    messages = [message(start=line, CSeq=f"1 {method}") for line, method, *_ in REQUEST_LINES]
    dumps = read(sip_dump, tmp_path, messages)
    got = []
    for (line, *_), dump in zip(REQUEST_LINES, dumps, strict=True):
        fields = dump.fields
        got.append((line, fields["method"], fields["request_uri"], set(fields["anomalies"])))
    assert got == REQUEST_LINES
