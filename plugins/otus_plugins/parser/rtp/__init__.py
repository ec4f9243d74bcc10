"""RTP and RTCP (RFC 3550) of known flows: run by the core."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from otus_sdk.errors import PacketTooShort
from otus_sdk.factory import NativeStage, NoConfig, PluginFactory, PluginKind, Stability
from otus_sdk.model import DecodedPacket, PayloadType

__all__ = ["FACTORY", "RtpParser"]

HEADER_OCTETS = 12


class RtpParser:
    """The reference form for what a header holds; it knows no flow registry."""

    name = "rtp"
    payload_type = PayloadType.RTP.value

    def init(self, config: NoConfig) -> None:
        """There is nothing to configure."""

    def start(self) -> None:
        """Nothing to open."""

    def stop(self) -> None:
        """Nothing to close."""

    def can_handle(self, packet: DecodedPacket) -> bool:
        """Whether it is UDP and could be RTP: version 2, and no RTCP packet type."""
        payload = packet.payload
        if packet.ip.protocol != 17 or len(payload) < HEADER_OCTETS or payload[0] >> 6 != 2:
            return False
        # RFC 5761 4: RTCP packet types, read as RTP, are payload types 64 to 95.
        return not 192 <= payload[1] <= 223

    def handle(self, packet: DecodedPacket) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """The header's fields.

        Raises:
            PacketTooShort: CSRCs, extension or padding do not fit.
        """
        payload = packet.payload
        first, second, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", payload)
        num_csrc = first & 0x0F
        begin = HEADER_OCTETS + 4 * num_csrc
        if first & 0x10:  # RFC 3550 5.3.1
            if begin + 4 > len(payload):
                raise PacketTooShort("RTP extension is cut off")
            begin += 4 + 4 * int.from_bytes(payload[begin + 2 : begin + 4])
        end = len(payload)
        if first & 0x20:  # RFC 3550 5.1: the last octet counts the padding
            padding = payload[-1]
            if not 0 < padding <= end - begin:
                raise PacketTooShort("RTP padding is longer than the packet")
            end -= padding
        if begin > end:
            raise PacketTooShort("RTP header is cut off")
        fields = {
            "ssrc": ssrc,
            "sequence": sequence,
            "timestamp": timestamp,
            "payload_type": second & 0x7F,
            "marker": bool(second & 0x80),
            "num_csrc": num_csrc,
            "has_extension": bool(first & 0x10),
            "payload_len": end - begin,
        }
        labels = {"rtp.ssrc": str(ssrc), "rtp.payload_type": str(second & 0x7F)}
        return fields, labels


def _native(_config: NoConfig) -> NativeStage:
    return NativeStage("rtp")


FACTORY = PluginFactory(
    kind=PluginKind.PARSER,
    name="rtp",
    create=RtpParser,
    description="RTP and RTCP of calls whose SDP was seen, with their Call-ID",
    stability=Stability.STABLE,
    native=_native,
)
