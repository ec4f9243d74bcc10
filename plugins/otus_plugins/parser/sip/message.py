"""SIP messages in plain Python: simple and correct rather than fast.

The core's parser (core_c/src/sip_*.c) is what runs; this is what it is compared
with. Where messages are malformed the two may differ in what they make of the
broken part; a test lists on which messages they have to agree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SipMessage", "looks_like_sip", "parse_message"]

# RFC 3261 25.1: token characters.
_TOKEN = rb"[A-Za-z0-9\-.!%*_+`'~]+"
_REQUEST = re.compile(rb"(" + _TOKEN + rb")[ \t]+(.+?)[ \t]+(?i:SIP/)[0-9][^\r\n]*\Z", re.DOTALL)
_RESPONSE = re.compile(rb"(?i:SIP/)[0-9.]+[ \t]+([0-9]{3})(?:[ \t]+(.*?))?[ \t]*\Z", re.DOTALL)
_LINE_END = re.compile(rb"\r\n|\n|\r")

# RFC 3261 7.3.3 and the extensions that registered compact forms with IANA.
_COMPACT = {
    "v": "Via", "f": "From", "t": "To", "i": "Call-ID", "m": "Contact", "l": "Content-Length",
    "c": "Content-Type", "e": "Content-Encoding", "k": "Supported", "s": "Subject",
    "r": "Refer-To", "b": "Referred-By", "o": "Event", "u": "Allow-Events",
    "x": "Session-Expires", "a": "Accept-Contact", "j": "Reject-Contact",
    "d": "Request-Disposition", "y": "Identity",
}  # fmt: skip


# Header fields that the payload gives under one name, whatever the message wrote.
_CANONICAL = {
    name.lower(): name
    for name in (
        *_COMPACT.values(), "CSeq", "Max-Forwards", "Route", "Record-Route", "User-Agent", "Server",
        "Reason", "P-Asserted-Identity", "Session-ID", "Expires", "Warning",
    )
}  # fmt: skip


def looks_like_sip(octets: bytes) -> bool:
    """Whether a SIP start line begins here, empty lines before it skipped."""
    line = _LINE_END.split(octets.lstrip(b"\r\n")[:8192], maxsplit=1)[0]
    return _RESPONSE.match(line) is not None or _REQUEST.match(line) is not None


def parse_message(octets: bytes) -> SipMessage | None:
    """The message that begins here, or None where there is no start line."""
    octets = octets.lstrip(b"\r\n")
    head, body = _split(octets)
    lines = _LINE_END.split(head)
    start = lines[0].strip()
    message = SipMessage(headers=_headers(lines[1:]))
    if response := _RESPONSE.match(start):
        message.status_code = int(response[1])
        message.reason = _text(response[2] or b"").strip()
    elif request := _REQUEST.match(start):
        message.method = _text(request[1])
        message.request_uri = _text(request[2])
    else:
        return None
    length = message.header("Content-Length")
    if length is not None and length.isascii() and length.isdigit():
        message.content_length = int(length)
        body = body[: message.content_length]
    message.body = body
    return message


def _split(octets: bytes) -> tuple[bytes, bytes]:
    end = re.search(rb"\r?\n\r?\n", octets)
    if end is None:
        return octets, b""
    return octets[: end.start()], octets[end.end() :]


def _headers(lines: list[bytes]) -> list[tuple[str, str]]:
    headers: list[tuple[str, str]] = []
    for line in lines:
        if line[:1] in (b" ", b"\t") and headers:
            name, value = headers[-1]  # RFC 3261 7.3.1: a folded line continues the value
            more = _text(line).strip(" \t")
            headers[-1] = (name, f"{value} {more}".strip(" \t"))
            continue
        name_octets, colon, value_octets = line.partition(b":")
        if colon:
            name = _text(name_octets).strip(" \t")
            name = _COMPACT.get(name.lower(), name)
            headers.append((_CANONICAL.get(name.lower(), name), _text(value_octets).strip(" \t")))
    return headers


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


@dataclass(slots=True)
class Address:
    """A name-addr or addr-spec with its parameters (RFC 3261 25.1)."""

    uri: str
    display_name: str = ""
    params: str = ""

    @property
    def tag(self) -> str:
        """The value of `;tag=`, empty where there is none."""
        return _parameter(self.params, "tag")

    def payload(self) -> dict[str, str]:
        """The JSON form, without what is empty."""
        values = {
            "display_name": self.display_name,
            "uri": self.uri,
            "tag": self.tag,
            "params": self.params,
        }
        return {key: value for key, value in values.items() if value or key == "uri"}


def _address(value: str) -> Address:
    value = _first_of_list(value)
    name, angle, rest = _split_outside_quotes(value, "<")
    if not angle:
        # RFC 3261 20: without angle brackets, parameters belong to the header.
        uri, semicolon, params = value.partition(";")
        return Address(uri.strip(), params=(semicolon + params).strip())
    uri, _, params = rest.partition(">")
    name = name.strip()
    if name.startswith('"'):
        name = name[1:].rpartition('"')[0]
    return Address(uri.strip(), name, params.strip())


def _first_of_list(value: str) -> str:
    depth = 0
    quoted = escaped = False
    for index, char in enumerate(value):
        if escaped:
            escaped = False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif not quoted and char == "<":
            depth += 1
        elif not quoted and char == ">":
            depth -= 1
        elif not quoted and depth <= 0 and char == ",":
            return value[:index].strip()
    return value.strip()


def _split_outside_quotes(value: str, separator: str) -> tuple[str, str, str]:
    quoted = escaped = False
    for index, char in enumerate(value):
        if escaped:
            escaped = False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif not quoted and char == separator:
            return value[:index], char, value[index + 1 :]
    return value, "", ""


def _parameters(params: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    rest = params
    while rest:
        one, semicolon, rest = _split_outside_quotes(rest, ";")
        name, _, value = one.partition("=")
        if name.strip():
            found.append((name.strip().lower(), value.strip()))
        if not semicolon:
            break
    return found


def _parameter(params: str, name: str) -> str:
    return next((value for known, value in _parameters(params) if known == name), "")


@dataclass(slots=True)
class SipMessage:
    """One message; names of header fields in their long form, values unfolded."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    method: str = ""
    request_uri: str = ""
    status_code: int = 0
    reason: str = ""
    content_length: int | None = None
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The first value of a header field, by long or compact name without case."""
        wanted = _COMPACT.get(name.lower(), name).lower()
        for known, value in self.headers:
            if known.lower() == wanted:
                return value
        return None

    def address(self, name: str) -> Address | None:
        """The (first) address of a header field."""
        value = self.header(name)
        return _address(value) if value is not None else None

    def via(self) -> dict[str, str]:
        """The topmost Via, without what is empty."""
        value = self.header("Via")
        if value is None:
            return {}
        protocol, _, params = _first_of_list(value).partition(";")
        sent_protocol, _, sent_by = protocol.strip().rpartition(" ")
        via = {
            "transport": sent_protocol.rpartition("/")[2].strip(),
            "sent_by": sent_by,
            "branch": _parameter(params, "branch"),
            "received": _parameter(params, "received"),
        }
        if any(known == "rport" for known, _ in _parameters(params)):
            via["rport"] = _parameter(params, "rport")
        return {
            key: text
            for key, text in via.items()
            if text or key in ("transport", "sent_by", "rport")
        }

    def cseq(self) -> tuple[int, str] | None:
        """Number and method of the CSeq, None where it can't be read."""
        number, _, method = (self.header("CSeq") or "").partition(" ")
        if not (number.isascii() and number.isdigit()):
            return None
        return int(number), method.strip()

    def labels(self) -> dict[str, str]:
        """The labels of `otus_sdk.labels`, without what is absent."""
        from_, to, contact = map(self.address, ("From", "To", "Contact"))
        cseq = self.cseq()
        agent = self.header("User-Agent") or self.header("Server")
        labels = {
            "sip.method": self.method,
            "sip.request_uri": self.request_uri,
            "sip.status_code": str(self.status_code) if self.status_code else "",
            "sip.reason": self.reason,
            "sip.call_id": self.header("Call-ID") or "",
            "sip.from_uri": from_.uri if from_ else "",
            "sip.from_tag": from_.tag if from_ else "",
            "sip.to_uri": to.uri if to else "",
            "sip.to_tag": to.tag if to else "",
            "sip.cseq": str(cseq[0]) if cseq else "",
            "sip.cseq_method": cseq[1] if cseq else "",
            "sip.contact_uri": contact.uri if contact else "",
            "sip.via_branch": self.via().get("branch", ""),
            "sip.user_agent": agent or "",
            "sip.content_type": self.header("Content-Type") or "",
        }
        return {name: value for name, value in labels.items() if value}

    def payload(self) -> dict[str, Any]:
        """The payload as the core's JSON has it, but `sdp` and `anomalies`."""
        payload: dict[str, Any] = {"type": "request" if self.method else "response"}
        if self.method:
            payload |= {"method": self.method, "request_uri": self.request_uri}
        else:
            payload |= {"status_code": self.status_code, "reason": self.reason}
        for key, name in (("call_id", "Call-ID"), ("content_type", "Content-Type")):
            if value := self.header(name):
                payload[key] = value
        if (cseq := self.cseq()) is not None:
            payload |= {"cseq": cseq[0], "cseq_method": cseq[1]}
        for key, name in (("from", "From"), ("to", "To"), ("contact", "Contact")):
            if (address := self.address(name)) is not None:
                payload[key] = address.payload()
        if via := self.via():
            payload["via"] = via
        if agent := self.header("User-Agent") or self.header("Server"):
            payload["user_agent"] = agent
        if self.content_length is not None:
            payload["content_length"] = self.content_length
        payload["headers"] = [list(header) for header in self.headers]
        if self.body:
            payload["body"] = self.body.decode("utf-8", "replace")
        return payload
