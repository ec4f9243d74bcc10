"""Valid messages made at random: each field is read as it was written, and nothing is found wrong.

A message is written by the rules of RFC 3261 section 25.1 from fields that are drawn first,
with white space, folds, case, short forms and order as the grammar allows them. What is
expected is what was drawn; no parser is asked. The draw is the same in every run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sip_dumping import Dump, SipDump

METHODS = ["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "REGISTER", "PRACK", "SUBSCRIBE", "NOTIFY"]
METHODS += [
    "PUBLISH",
    "INFO",
    "REFER",
    "MESSAGE",
    "UPDATE",
    "KDMQ",
    "invite",
    "!int.er-est*_+`'~%1",
]
TOKEN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~"
COMPACT = {"Via": "v", "From": "f", "To": "t", "Call-ID": "i", "Contact": "m"}
COMPACT |= {"Content-Length": "l", "Content-Type": "c", "Subject": "s"}
URIS = [
    "sip:{user}@example.com",
    "sips:{user}@example.com:5061",
    "sip:{user}:secret@[2001:db8::9:1]:5070",
    "sip:example.com",
    "sip:{user}%20%3c%3e%22@192.0.2.4",
    "tel:+1-201-555-0123",
    "sip:{user}/z&x=$+@example.com",
]
URIS_IN_BRACKETS = [
    "sip:{user}@example.com;transport=tcp;lr",
    "sip:{user};x=y@example.com;user=phone",
    "sip:{user}@example.com?Subject=a%20b&To=c",
    "sip:{user},{user}@example.com",
    "tel:+1-201-555-0123;phone-context=example.com",
    "SIP:{user}@EXAMPLE.com",
    "urn:service:sos",
    "http://example.com/{user}?a=b;c,d",
]


@dataclass
class Writer:
    """Draws what the grammar leaves open."""

    draw: random.Random
    line_end: bytes

    def token(self, most: int = 20) -> str:
        return "".join(self.draw.choices(TOKEN, k=self.draw.randint(1, most)))

    def sws(self) -> bytes:
        """White space that may be missing, a fold among it."""
        return self.lws() if self.draw.random() < 0.25 else b""

    def lws(self) -> bytes:
        blank = self.draw.choice([b" ", b" ", b" ", b"\t", b"   ", b" \t "])
        if self.draw.random() < 0.15:
            return self.draw.choice([b"", blank]) + self.line_end + blank
        return blank

    def around(self, mark: bytes) -> bytes:
        return self.sws() + mark + self.sws()

    def name(self, name: str) -> bytes:
        """A field's name and its colon."""
        if name in COMPACT and self.draw.random() < 0.3:
            name = COMPACT[name]
        written = "".join(self.draw.choice([c, c, c.lower(), c.upper()]) for c in name)
        return written.encode() + self.draw.choice([b"", b"", b" ", b"\t"]) + b":" + self.sws()

    def parameters(self, known: dict[str, str | None]) -> bytes:
        items: list[tuple[str, str | None]] = list(known.items())
        for _ in range(self.draw.choice([0, 0, 1, 3])):
            values = [None, self.token(), '"a;tag=no, \\" <b>"', "[2001:db8::1]"]
            items.append((f"x{self.token(6)}", self.draw.choice(values)))
        self.draw.shuffle(items)
        written = b""
        for name, value in items:
            case = self.draw.choice([str.lower, str.upper, str])
            written += self.around(b";") + case(name).encode()
            if value is not None:
                written += self.around(b"=") + value.encode()
        return written


@dataclass
class Message:
    octets: bytes = b""
    expected: dict[str, Any] = field(default_factory=dict)


def write_address(writer: Writer, tag: str | None) -> tuple[bytes, dict[str, str | None]]:
    draw = writer.draw
    parameters = writer.parameters({} if tag is None else {"tag": tag})
    if draw.random() < 0.25:
        uri = draw.choice(URIS).format(user=draw.choice(["bob", "+1201", "a.b-c"]))
        return uri.encode() + parameters, {"display_name": None, "uri": uri, "tag": tag}
    uri = draw.choice(URIS + URIS_IN_BRACKETS).format(user=draw.choice(["bob", "+1201", "a.b-c"]))
    display: str | None = None
    written = b""
    kind = draw.random()
    if kind < 0.4:
        pieces = [
            "<",
            ">",
            ";",
            ",",
            ":",
            "@",
            "a",
            "B",
            " ",
            '\\"',
            "\\\\",
            "=",
            "\xd0\x96",
            "sip:",
        ]
        display = "".join(draw.choices(pieces, k=draw.randint(1, 30)))
        written = b'"' + display.encode("latin-1") + b'"' + writer.sws()
    elif kind < 0.6:
        display = " ".join(writer.token(8) for _ in range(draw.randint(1, 3)))
        written = display.encode() + writer.sws()
    written += b"<" + uri.encode() + b">" + parameters
    return written, {"display_name": display, "uri": uri, "tag": tag}


def write_via(writer: Writer) -> tuple[bytes, dict[str, Any]]:
    draw = writer.draw
    transport = draw.choice(["UDP", "TCP", "TLS", "SCTP", "WS", "udp"])
    host = draw.choice(["192.0.2.1", "example.com", "[2001:db8::9:1]", "a_b"])
    port = draw.choice(["", ":5060", ":1"])
    branch = "z9hG4bK" + writer.token()
    rport = draw.choice([None, "5061"])
    known: dict[str, str | None] = {"branch": branch, "received": "192.0.2.9"}
    if has_rport := draw.random() < 0.5:
        known["rport"] = rport
    written = b"SIP" + writer.around(b"/") + b"2.0" + writer.around(b"/") + transport.encode()
    written += writer.lws() + host.encode()
    if port:
        written += writer.around(b":") + port[1:].encode()
    expected = {
        "transport": transport,
        "sent_by": host + port,
        "branch": branch,
        "received": "192.0.2.9",
        "rport": rport if has_rport else None,
        "has_rport": has_rport,
    }
    return written + writer.parameters(known), expected


def write_list(writer: Writer, name: str, values: list[bytes]) -> list[bytes]:
    """Values in one field or in several, RFC 3261 7.3.1."""
    fields = [writer.name(name) + values[0]]
    for value in values[1:]:
        if writer.draw.random() < 0.5:
            fields[-1] += writer.around(b",") + value
        else:
            fields.append(writer.name(name) + value)
    return fields


def write_message(seed: int) -> Message:
    draw = random.Random(seed)
    writer = Writer(draw, draw.choice([b"\r\n", b"\r\n", b"\n"]))
    message = Message()
    expected = message.expected
    method = draw.choice(METHODS)
    if draw.random() < 0.6:
        uri = draw.choice(URIS + URIS_IN_BRACKETS[:2]).format(user="bob")
        start = f"{method} {uri} SIP/2.0".encode()
        expected |= {"method": method, "request_uri": uri, "status_code": 0, "reason": None}
    else:
        status = draw.randint(100, 699)
        reason = draw.choice(["OK", "", "Not  found", "\xd0\x9d\xd0\xb5\xd1\x82", '= 2**3 / "x"'])
        start = f"SIP/2.0 {status} {reason}".encode("latin-1")
        expected |= {"method": None, "request_uri": None, "status_code": status, "reason": reason}
    call_id = writer.token(40) + draw.choice(["", "@example.com", "@[::1]", '<{}>?/\\":()'])
    cseq = draw.choice([0, 1, draw.randint(0, 2**32 - 1), 2**32 - 1])
    agent = draw.choice(["test/1 (a; b, c)", "x" * draw.randint(1, 200)])
    body = bytes(draw.choices(range(256), k=draw.choice([0, 0, 3, 100])))
    expected |= {"call_id": call_id, "cseq": cseq, "cseq_method": method, "user_agent": agent}
    sender, expected["from"] = write_address(writer, writer.token())
    target, expected["to"] = write_address(writer, draw.choice([None, writer.token()]))
    vias = [write_via(writer) for _ in range(draw.choice([1, 1, 2, 5]))]
    contacts = [write_address(writer, None) for _ in range(draw.choice([1, 1, 3]))]
    expected["via"], expected["contact"] = vias[0][1], contacts[0][1]
    groups = [
        write_list(writer, "Via", [via for via, _ in vias]),
        write_list(writer, "Contact", [contact for contact, _ in contacts]),
        [writer.name("From") + sender],
        [writer.name("To") + target],
        [writer.name("Call-ID") + call_id.encode("latin-1")],
        [writer.name("CSeq") + str(cseq).encode() + writer.lws() + method.encode()],
        [writer.name("Max-Forwards") + str(draw.randint(0, 255)).encode()],
        [writer.name("User-Agent" if expected["method"] else "Server") + agent.encode()],
    ]
    if body:
        groups.append([writer.name("Content-Type") + b"application/octet-stream"])
    if body or draw.random() < 0.7:
        groups.append([writer.name("Content-Length") + b"%d" % len(body)])
    groups += [
        [writer.name(f"X-{writer.token(30)}") + draw.choice([b"", b"a:b", b"\xff" * 9])]
        for _ in range(draw.choice([0, 2, 2, 40]))
    ]
    draw.shuffle(groups)
    lines = [start, *(line + writer.sws() for group in groups for line in group), b"", body]
    message.octets = writer.line_end.join(lines)
    expected |= {
        "num_headers": sum(map(len, groups)),
        "body": body.decode("latin-1") or None,
        "anomalies": ["bare_lf"] if writer.line_end == b"\n" else [],
    }
    return message


def one_space(text: str | None) -> str | None:
    return None if text is None else " ".join(text.split())


def without_space(text: str | None) -> str | None:
    return None if text is None else "".join(text.split())


def reading(dump: Dump) -> dict[str, Any]:
    """The fields of the dump that a message expects."""
    got: dict[str, Any] = {"num_headers": len(dump.headers)}
    for name in ("method", "request_uri", "status_code", "reason", "call_id", "cseq"):
        got[name] = dump.fields[name]
    for name in ("cseq_method", "user_agent", "body", "anomalies"):
        got[name] = dump.fields[name]
    for name in ("from", "to", "contact"):
        got[name] = {key: dump.fields[name][key] for key in ("display_name", "uri", "tag")}
        if '"' not in (got[name]["display_name"] or "") and "\\" not in (
            got[name]["display_name"] or ""
        ):
            got[name]["display_name"] = one_space(got[name]["display_name"])
    got["via"] = {key: value for key, value in dump.fields["via"].items() if key != "_"}
    got["via"]["sent_by"] = without_space(got["via"]["sent_by"])
    return got


def comparable(expected: dict[str, Any]) -> dict[str, Any]:
    for name in ("from", "to", "contact"):
        display = expected[name]["display_name"] or ""
        if '"' not in display and "\\" not in display:
            expected[name]["display_name"] = one_space(expected[name]["display_name"])
    return expected


@pytest.mark.parametrize("first_seed", [0, 400, 800])
def test_messages_are_read_as_they_were_written(
    first_seed: int, sip_dump: SipDump, sip_dump_portable: SipDump, tmp_path: Path
) -> None:
    """Four hundred messages, by the code with vector instructions and by the code without."""
    messages = [write_message(seed) for seed in range(first_seed, first_seed + 400)]
    paths = [tmp_path / f"{index:03d}.sip" for index in range(len(messages))]
    for path, message in zip(paths, messages, strict=True):
        path.write_bytes(message.octets)
    for program in (sip_dump, sip_dump_portable):
        for message, dump in zip(messages, program.parse_files(paths), strict=True):
            assert dump.status == "ok", message.octets
            assert dump.fields["can_handle"], message.octets
            assert reading(dump) == comparable(message.expected), message.octets
