"""A record as one line that a person can read."""

from __future__ import annotations

import re

from otus_sdk.model import OutputPacket

__all__ = ["format_line", "summary"]

_RESET = "\x1b[0m"
_DIM = "\x1b[2m"
_CYAN, _GREEN, _YELLOW, _RED = "\x1b[36m", "\x1b[32m", "\x1b[33m", "\x1b[31m"
# What comes from the network must not move the cursor or set the title.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SHOWN_LABELS = 6


def format_line(packet: OutputPacket, *, color: bool = False) -> bytes:
    """The line with its line end, in UTF-8: time, addresses, what it is."""
    time = packet.timestamp.strftime("%H:%M:%S.%f")
    source = _endpoint(packet.src_ip, packet.src_port)
    target = _endpoint(packet.dst_ip, packet.dst_port)
    what, rest = summary(packet)
    what, rest = printable(what), printable(rest)
    if color:
        code = packet.labels.get("sip.status_code", "")
        what = f"{_color_of(code)}{what}{_RESET}"
        time = f"{_DIM}{time}{_RESET}"
    line = f"{time} {source} -> {target} {packet.protocol_name} {what} {rest}".rstrip()
    return line.encode("utf-8", "replace") + b"\n"


def printable(text: str) -> str:
    """The text with control characters replaced."""
    return _CONTROL.sub("\ufffd", text)


def summary(packet: OutputPacket) -> tuple[str, str]:
    """What the record is, in a word or two, and what tells it from others."""
    labels = packet.labels
    kind = packet.payload_type
    if kind == "sip":
        what = labels.get("sip.method") or " ".join(
            filter(None, (labels.get("sip.status_code"), labels.get("sip.reason")))
        )
        rest = (
            f"{labels.get('sip.from_uri', '-')} > {labels.get('sip.to_uri', '-')} "
            f"call-id={labels.get('sip.call_id', '-')} "
            f"cseq={labels.get('sip.cseq', '-')} {labels.get('sip.cseq_method', '')}"
        )
        return what or "SIP", rest
    if kind in ("rtp", "rtcp"):
        pairs = [f"{name.partition('.')[2]}={value}" for name, value in labels.items()]
        return kind.upper(), " ".join(pairs)
    shown = [f"{name}={value}" for name, value in list(labels.items())[:_SHOWN_LABELS]]
    return kind, " ".join(shown)


def _endpoint(address: str, port: int) -> str:
    if ":" in address:
        address = f"[{address}]"
    return f"{address}:{port}" if port else address or "-"


def _color_of(status_code: str) -> str:
    return {"": _CYAN, "1": _YELLOW, "2": _GREEN, "3": _YELLOW}.get(status_code[:1], _RED)
