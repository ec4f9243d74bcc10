"""STUN messages (RFC 8489), a batch at a time.

A busy link carries thousands of packets that are no STUN for each one that is:
looking at the payload's octets first keeps objects from being made for them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from otus_sdk import (
    NoConfig,
    PacketBatch,
    PacketTooShort,
    ParseResult,
    PluginFactory,
    PluginFault,
    PluginKind,
)

MAGIC_COOKIE = b"\x21\x12\xa4\x42"  # RFC 8489 section 5
HEADER_OCTETS = 20
CLASSES = ("request", "indication", "success", "error")
METHODS = {1: "binding", 3: "allocate", 4: "refresh", 6: "send", 7: "data", 8: "create_permission"}
SOFTWARE = 0x8022


class StunParser:
    """Takes what carries STUN's magic cookie, on any port."""

    name = payload_type = "stun"

    def init(self, config: NoConfig) -> None:
        """There is nothing to configure."""

    def start(self) -> None:
        """Nothing to open."""

    def stop(self) -> None:
        """Nothing to close."""

    def parse_batch(self, batch: PacketBatch) -> Sequence[ParseResult | PluginFault | None]:
        """One answer a packet: the message, a traffic error, or None for what is no STUN."""
        answers: list[ParseResult | PluginFault | None] = []
        for index in range(len(batch)):
            payload = batch.payload(index)
            if payload[4:8] != MAGIC_COOKIE or payload[0] & 0xC0:
                answers.append(None)
                continue
            try:
                answers.append(parse(payload))
            except PacketTooShort as error:
                answers.append(PluginFault(error))
        return answers


def parse(payload: bytes) -> ParseResult:
    """One message.

    Raises:
        PacketTooShort: It ends before its length says.
    """
    if len(payload) < HEADER_OCTETS:
        raise PacketTooShort("STUN header is cut off")
    kind, length = struct.unpack_from("!HH", payload)
    if HEADER_OCTETS + length > len(payload):
        raise PacketTooShort("STUN message is cut off")
    # RFC 8489 section 5: the class bits lie between the method's.
    message_class = CLASSES[kind >> 7 & 2 | kind >> 4 & 1]
    number = kind & 0xF | kind >> 1 & 0x70 | kind >> 2 & 0xF80
    method = METHODS.get(number, str(number))
    fields: dict[str, Any] = {
        "class": message_class,
        "method": method,
        "transaction_id": payload[8:20].hex(),
    }
    labels = {"stun.class": message_class, "stun.method": method}
    software = _attribute(payload[HEADER_OCTETS : HEADER_OCTETS + length], SOFTWARE)
    if software is not None:
        fields["software"] = software.decode("utf-8", "replace")
    return ParseResult(fields, labels)


def _attribute(octets: bytes, wanted: int) -> bytes | None:
    at = 0
    while at + 4 <= len(octets):
        kind, length = struct.unpack_from("!HH", octets, at)
        if kind == wanted:
            return octets[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4  # RFC 8489 section 14: padded to 4 octets
    return None


FACTORY = PluginFactory(
    kind=PluginKind.PARSER,
    name="stun",
    create=StunParser,
    description="STUN messages (RFC 8489)",
)
