"""What travels through a pipeline: packets before decoding, after it, and after parsing.

All of these are immutable, and all memory they refer to is owned by Python: a
plugin may keep any of them for as long as it likes. (The one mutable thing is
the `labels` dict of an `OutputPacket`, which a processor may change while it
has the packet in hand.)

The agent hands out subclasses of `DecodedPacket` and `OutputPacket` that read
a field when it is asked for; rely on the attributes, not on `type(packet)`.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = [
    "IP",
    "LINK_ETHERNET",
    "PROTOCOL_NAMES",
    "CaptureStats",
    "DecodedPacket",
    "Envelope",
    "Ethernet",
    "OutputPacket",
    "PayloadType",
    "RawPacket",
    "Transport",
    "Tunnel",
    "TunnelKind",
]

LINK_ETHERNET: Final = 1
"""LINKTYPE_ETHERNET of https://www.tcpdump.org/linktypes.html."""

PROTOCOL_NAMES: Final[Mapping[int, str]] = {
    1: "icmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "icmpv6",
    132: "sctp",
}
"""IANA protocol numbers to the names used in labels, JSON and filters."""


def _protocol_name(number: int) -> str:
    return PROTOCOL_NAMES.get(number, str(number))


def _utc(ts_ns: int) -> datetime.datetime:
    seconds, nanoseconds = divmod(ts_ns, 1_000_000_000)
    whole = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
    return whole.replace(microsecond=nanoseconds // 1000)


class PayloadType(enum.StrEnum):
    """The payload types of the built-in parsers; a plugin's own is any other text."""

    RAW = "raw"
    SIP = "sip"
    RTP = "rtp"
    RTCP = "rtcp"


class TunnelKind(enum.StrEnum):
    """The encapsulations that the decoder follows where a task asks for it."""

    VXLAN = "vxlan"
    GRE = "gre"
    ERSPAN = "erspan"
    GENEVE = "geneve"
    IPIP = "ipip"
    GTPU = "gtpu"
    TZSP = "tzsp"


@dataclass(frozen=True, slots=True)
class RawPacket:
    """One frame as a capture source gives it.

    Attributes:
        data: The frame's octets, `caplen` of them.
        ts_ns: Nanoseconds since the epoch, by the kernel's clock or the NIC's.
        wirelen: Octets that the frame had on the wire; 0 means as many as captured.
        if_index: Index of the interface, 0 where there is none.
        link_type: LINKTYPE_ value of the frame's first header.
    """

    data: bytes
    ts_ns: int
    wirelen: int = 0
    if_index: int = 0
    link_type: int = LINK_ETHERNET

    @property
    def caplen(self) -> int:
        """Octets captured."""
        return len(self.data)

    @property
    def timestamp(self) -> datetime.datetime:
        """`ts_ns` as an aware UTC datetime, cut to microseconds."""
        return _utc(self.ts_ns)


@dataclass(frozen=True, slots=True)
class CaptureStats:
    """What a capture source has seen since it was opened, in frames.

    Attributes:
        received: Frames that the filter let pass, the dropped ones included.
        dropped: Of those, lost because nobody took them in time.
        interface_dropped: Lost before the socket, by NIC or driver.
    """

    received: int = 0
    dropped: int = 0
    interface_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Ethernet:
    """The outermost Ethernet header.

    Attributes:
        src_mac: "02:00:00:00:00:01"; empty where the link has no MAC addresses.
        dst_mac: The same form.
        ethertype: Of the innermost layer-2 header, VLAN tags skipped.
        vlans: VLAN IDs (12 bits), outermost first, those inside tunnels and the
            one that the kernel stripped included.
    """

    src_mac: str = ""
    dst_mac: str = ""
    ethertype: int = 0
    vlans: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class IP:
    """The innermost IP header.

    Attributes:
        version: 4, 6, or 0 where the packet has no IP.
        src_ip: Text form ("192.0.2.1", "2001:db8::1").
        dst_ip: The same.
        protocol: IANA number of the transport, IPv6 extension headers skipped.
        ttl: Or the hop limit.
        total_len: Octets of the datagram, header included; after reassembly the
            whole datagram's.
    """

    version: int = 0
    src_ip: str = ""
    dst_ip: str = ""
    protocol: int = 0
    ttl: int = 0
    total_len: int = 0

    @property
    def protocol_name(self) -> str:
        """Its name ("udp", "tcp", ...); the number as text where it has no name here."""
        return _protocol_name(self.protocol)


@dataclass(frozen=True, slots=True)
class Transport:
    """The transport header: UDP, TCP or SCTP.

    Attributes:
        src_port: 0 where no transport header was read.
        dst_port: The same.
        protocol: IANA number.
        tcp_flags: The flags octet (FIN 0x01, SYN 0x02, RST 0x04, PSH 0x08, ACK 0x10).
        tcp_seq: Sequence number.
        tcp_ack: Acknowledgement number.
    """

    src_port: int = 0
    dst_port: int = 0
    protocol: int = 0
    tcp_flags: int = 0
    tcp_seq: int = 0
    tcp_ack: int = 0


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One level of encapsulation that the packet came through.

    Attributes:
        kind: A `TunnelKind` value.
        key: VNI, GRE key, ERSPAN session id or TEID; None where there is none.
        src_ip: Of the outer header, text form.
        dst_ip: The same.
        src_port: Of the outer UDP header, 0 where there is none.
        dst_port: The same.
        version: GRE 0/1, ERSPAN type 1/2/3, GTP or TZSP version.
    """

    kind: str
    key: int | None
    src_ip: str
    dst_ip: str
    src_port: int = 0
    dst_port: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class DecodedPacket:
    """A packet after decoding: what a parser is asked about.

    After reassembly this is the whole datagram; from a TCP stream it is one
    message (`stream` is set) with the last segment's headers.

    Attributes:
        ts_ns: Nanoseconds since the epoch; of the last fragment or segment.
        ethernet: Outermost Ethernet header.
        ip: Innermost IP header.
        transport: Its transport header.
        payload: Octets after the transport header; after the IP header where
            no transport header was read.
        tunnels: The levels it came through, outermost first.
        caplen: Octets captured of the (last) frame.
        wirelen: Octets that it had on the wire.
        if_index: Index of the interface, 0 where there is none.
        reassembled: Put together from IP fragments, at any level.
        truncated: The capture cut it short: `payload` is not whole.
        stream: `payload` is one message cut from a TCP stream.
    """

    ts_ns: int
    ethernet: Ethernet
    ip: IP
    transport: Transport
    payload: bytes
    tunnels: tuple[Tunnel, ...] = ()
    caplen: int = 0
    wirelen: int = 0
    if_index: int = 0
    reassembled: bool = False
    truncated: bool = False
    stream: bool = False

    @property
    def timestamp(self) -> datetime.datetime:
        """`ts_ns` as an aware UTC datetime, cut to microseconds."""
        return _utc(self.ts_ns)

    @property
    def flow_key(self) -> str:
        """The 5-tuple as text, the same for both directions of a conversation."""
        ends = sorted(
            ((self.ip.src_ip, self.transport.src_port), (self.ip.dst_ip, self.transport.dst_port))
        )
        (low, low_port), (high, high_port) = ends
        return f"{self.ip.protocol_name} {low} {low_port} {high} {high_port}"


@dataclass(frozen=True, slots=True)
class Envelope:
    """Where a record comes from.

    Attributes:
        task_id: The task.
        agent_id: The agent that runs it.
        pipeline_id: One of the task's pipelines.
    """

    task_id: str = ""
    agent_id: str = ""
    pipeline_id: str = ""


@dataclass(frozen=True, slots=True)
class OutputPacket:
    """A record: what processors judge and reporters report.

    Attributes:
        ts_ns: Nanoseconds since the epoch.
        envelope: Task, agent and pipeline.
        src_ip: Innermost source address, text form; empty where there is no IP.
        dst_ip: The same for the destination.
        src_port: 0 where there is none.
        dst_port: The same.
        protocol: IANA number of the transport.
        labels: Text to text. A processor may change it while it has the packet
            in hand; changes made later are lost.
        payload_type: "sip", "rtp", "rtcp", "raw", or a plugin's own.
        payload: What the parser made of it, JSON-able; empty for "raw".
        vlans: VLAN IDs, outermost first.
        tunnels: The levels it came through, outermost first.
        raw_payload: The payload's octets where the task asks for them
            (`raw_payload: true`) or the packet is "raw", else None.
        truncated: The capture cut the packet short.
        reassembled: Put together from IP fragments.
        ttl: Of the innermost IP header, or the hop limit.
        caplen: Octets captured of the (last) frame.
        wirelen: Octets that it had on the wire.
    """

    ts_ns: int
    envelope: Envelope = Envelope()
    src_ip: str = ""
    dst_ip: str = ""
    src_port: int = 0
    dst_port: int = 0
    protocol: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    payload_type: str = PayloadType.RAW.value
    payload: Mapping[str, Any] = field(default_factory=dict)
    vlans: tuple[int, ...] = ()
    tunnels: tuple[Tunnel, ...] = ()
    raw_payload: bytes | None = None
    truncated: bool = False
    reassembled: bool = False
    ttl: int = 0
    caplen: int = 0
    wirelen: int = 0

    @property
    def timestamp(self) -> datetime.datetime:
        """`ts_ns` as an aware UTC datetime, cut to microseconds."""
        return _utc(self.ts_ns)

    @property
    def protocol_name(self) -> str:
        """Its name ("udp", "tcp", ...); the number as text where it has no name here."""
        return _protocol_name(self.protocol)
