"""SIP (RFC 3261): run by the core; the Python form is its reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from otus_plugins.parser.sip.message import looks_like_sip, parse_message
from otus_sdk.errors import UnsupportedProtocol
from otus_sdk.factory import NativeStage, PluginFactory, PluginKind, Stability
from otus_sdk.labels import check_label_name
from otus_sdk.model import DecodedPacket, PayloadType

__all__ = ["FACTORY", "SipParser", "SipParserConfig"]


class SipParserConfig(BaseModel):
    """The `config` section of the parser."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    headers: dict[str, str] = Field(default_factory=dict, max_length=64)

    @field_validator("headers")
    @classmethod
    def _names(cls, headers: dict[str, str]) -> dict[str, str]:
        for label, header in headers.items():
            check_label_name(label)
            if not header:
                raise ValueError(f"{label}: header name is empty")
        return headers


class SipParser:
    """The reference form of the core's SIP stage."""

    name = "sip"
    payload_type = PayloadType.SIP.value

    def init(self, config: SipParserConfig) -> None:
        """Takes the configuration."""
        self._headers = dict(config.headers)

    def start(self) -> None:
        """Nothing to open."""

    def stop(self) -> None:
        """Nothing to close."""

    def can_handle(self, packet: DecodedPacket) -> bool:
        """Whether the payload begins with a SIP start line, on whatever port."""
        return looks_like_sip(packet.payload)

    def handle(self, packet: DecodedPacket) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """The message as payload, and its labels.

        Raises:
            UnsupportedProtocol: There is no start line to speak of.
        """
        message = parse_message(packet.payload)
        if message is None:
            raise UnsupportedProtocol("no SIP start line")
        labels = message.labels()
        labels["sip.transport"] = packet.ip.protocol_name
        for label, header in self._headers.items():
            value = message.header(header)
            if value is not None:
                labels[label] = value
        return message.payload(), labels


def _native(config: SipParserConfig) -> NativeStage:
    return NativeStage("sip", {"header_labels": config.headers})


FACTORY = PluginFactory(
    kind=PluginKind.PARSER,
    name="sip",
    create=SipParser,
    config_type=SipParserConfig,
    description="SIP (RFC 3261 and extensions) on any port and transport, with SDP",
    stability=Stability.STABLE,
    native=_native,
)
