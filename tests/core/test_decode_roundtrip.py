"""Arbitrary nestings of tags, tunnels and fragmentation, built by scapy, come out as they went in."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decode_dumping import DecodeDump

pytest.importorskip("scapy", reason="scapy builds the packets")

from scapy.contrib.geneve import GENEVE
from scapy.contrib.gtp import GTP_U_Header
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import GRE, Dot1AD, Dot1Q, Ether
from scapy.layers.ppp import PPPoE
from scapy.layers.sctp import SCTP
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

MACS = {"src": "02:aa:bb:cc:dd:ee", "dst": "02:11:22:33:44:55"}
#: Kinds that carry IP, and those that carry Ethernet.
OVER_IP = ("ipip", "gre", "pptp", "gtpu", "geneve", "gpe")
OVER_ETHERNET = ("vxlan", "gre", "geneve", "erspan", "erspan3", "tzsp")
#: What the decoder calls those that are variants.
KINDS = {"gpe": "vxlan", "pptp": "gre", "erspan3": "erspan"}
#: What may lie between Ethernet and IP.
SHIMS = ("", "", "mpls", "pseudowire", "pppoe")


@dataclass
class Layer:
    """One IP level: what carries it inwards, and how it is cut."""

    version: int
    tunnel: str  # how the next level is carried in this one; "" for the innermost
    ethernet: bool  # an Ethernet header inside the tunnel
    vlans: list[int]  # of that Ethernet header
    shim: str  # behind it
    key: int
    fragment_size: int  # 0: not cut
    number: int = field(default=0)

    @property
    def src(self) -> str:
        return f"10.{self.number}.0.1" if self.version == 4 else f"fd00:{self.number + 1}::1"

    @property
    def dst(self) -> str:
        return f"10.{self.number}.0.2" if self.version == 4 else f"fd00:{self.number + 1}::2"


@st.composite
def stacks(draw: st.DrawFn) -> list[Layer]:
    """From the outermost level to the innermost."""
    depth = draw(st.integers(0, 3))
    layers = []
    for number in range(depth + 1):
        innermost = number == depth
        ethernet = draw(st.booleans())
        kind = "" if innermost else draw(st.sampled_from(OVER_ETHERNET if ethernet else OVER_IP))
        layers.append(
            Layer(
                version=draw(st.sampled_from((4, 6))),
                tunnel=kind,
                ethernet=ethernet and not innermost,
                vlans=draw(st.lists(st.integers(0, 4095), max_size=2)) if ethernet else [],
                shim=draw(st.sampled_from(SHIMS)) if ethernet else "",
                key=draw(st.integers(0, 2**24 - 1)),
                fragment_size=draw(st.sampled_from((0, 0, 48, 200, 576))),
                number=number,
            )
        )
    return layers


def ethernet_around(packet: Packet, vlans: list[int], shim: str = "") -> Packet:
    frame = Ether(**MACS)
    for index, vlan in enumerate(vlans):
        outer = index == 0 and len(vlans) > 1
        frame /= Dot1AD(vlan=vlan) if outer else Dot1Q(vlan=vlan)
    match shim:
        case "mpls":
            return frame / MPLS(label=16, s=0) / MPLS(label=17, s=1) / packet
        case "pseudowire":  # with its control word
            inner = bytes(Ether(**MACS) / packet)
            return frame / MPLS(label=16, s=1) / Raw(bytes(4) + inner)
        case "pppoe":
            six = packet.version == 6
            octets = bytes(packet)
            ppp = Raw((0x57 if six else 0x21).to_bytes(2, "big") + octets)
            return frame / PPPoE(sessionid=9, len=2 + len(octets)) / ppp
        case _:
            return frame / packet


def tunnel_payload(layer: Layer, inner: Packet) -> Packet:
    """What stands behind the IP header of the level."""
    carried = ethernet_around(inner, layer.vlans, layer.shim) if layer.ethernet else inner
    six = inner.version == 6
    match layer.tunnel:
        case "ipip":
            return carried
        case "gre":
            ethertype = 0x6558 if layer.ethernet else 0x86DD if six else 0x0800
            return GRE(proto=ethertype, key_present=1, key=layer.key, seqnum_present=1) / carried
        case "erspan":
            # Type II: version 1, VLAN, session in ten bits; then an index.
            header = (1 << 12 | 5).to_bytes(2, "big") + (layer.key & 0x3FF).to_bytes(2, "big")
            gre = GRE(proto=0x88BE, seqnum_present=1, sequence_number=1)
            return gre / Raw(header + bytes(4) + bytes(carried))
        case "erspan3":
            # Type III: version 2; for every other session a platform-specific subheader.
            optional = layer.key & 1
            header = struct.pack("!HHIHH", 2 << 12 | 5, layer.key & 0x3FF, 7, 0, optional)
            gre = GRE(proto=0x22EB, seqnum_present=1, sequence_number=1)
            return gre / Raw(header + bytes(8 * optional) + bytes(carried))
        case "pptp":
            # GRE version 1: payload length and call ID for a key, PPP inside.
            ppp = b"\xff\x03\x00" + (b"\x57" if six else b"\x21") + bytes(carried)
            header = struct.pack("!HHHHI", 0x3001, 0x880B, len(ppp), layer.key & 0xFFFF, 1)
            return Raw(header + ppp)
        case "gpe":
            header = struct.pack("!BBBBI", 0x0C, 0, 0, 2 if six else 1, layer.key << 8)
            return UDP(sport=50000, dport=4790, chksum=0) / Raw(header + bytes(carried))
        case "tzsp":
            tags = bytes.fromhex("0a01c4 00 01")  # signal strength, padding, end
            header = struct.pack("!BBH", 1, 0, 1) + tags
            return UDP(sport=50000, dport=37008, chksum=0) / Raw(header + bytes(carried))
        case "gtpu":
            udp = UDP(sport=2152, dport=2152, chksum=0)
            return udp / GTP_U_Header(teid=layer.key, gtp_type=255, S=1, seq=9) / carried
        case "geneve":
            ethertype = 0x6558 if layer.ethernet else 0x86DD if six else 0x0800
            udp = UDP(sport=50000, dport=6081, chksum=0)
            return udp / GENEVE(vni=layer.key, proto=ethertype) / carried
        case _:
            udp = UDP(sport=50000, dport=4789, chksum=0)
            return udp / VXLAN(vni=layer.key, flags=8) / carried


def protocol_of(layer: Layer, inside: Packet) -> int:
    match layer.tunnel:
        case "":
            return {"UDP": 17, "TCP": 6, "SCTP": 132}[inside.name]
        case "ipip":
            return 41 if inside.version == 6 else 4
        case "gre" | "pptp" | "erspan" | "erspan3":
            return 47
        case _:
            return 17


def level(layer: Layer, inside: Packet, identification: int) -> list[Packet]:
    """The level's datagram, whole or as fragments."""
    protocol = protocol_of(layer, inside)
    # As octets, so that scapy does not dissect and rebuild what is inside.
    octets = Raw(bytes(inside))
    addresses = {"src": layer.src, "dst": layer.dst}
    if layer.version == 4:
        packet = IP(**addresses, id=identification & 0xFFFF, proto=protocol) / octets
        return fragment(packet, layer.fragment_size) if layer.fragment_size else [packet]
    if not layer.fragment_size:
        return [IPv6(**addresses, nh=60) / IPv6ExtHdrDestOpt(nh=protocol) / octets]
    packet = IPv6(**addresses) / IPv6ExtHdrFragment(id=identification, nh=protocol) / octets
    return fragment6(packet, layer.fragment_size + 48)


def build(layers: list[Layer], transport: Packet) -> list[Packet]:
    packets = [transport]
    identification = 1
    for layer in reversed(layers):
        outer = []
        for packet in packets:
            inside = packet if not layer.tunnel else tunnel_payload(layer, packet)
            identification += 1
            outer += level(layer, inside, identification)
        packets = outer
    return packets


def expected_tunnels(layers: list[Layer]) -> list[tuple[str, int | None, str, str]]:
    expected = []
    for layer in layers[:-1]:
        key: int | None = layer.key
        if layer.tunnel in ("ipip", "tzsp"):
            key = None
        elif layer.tunnel in ("erspan", "erspan3"):
            key = layer.key & 0x3FF
        elif layer.tunnel == "pptp":
            key = layer.key & 0xFFFF
        expected.append((KINDS.get(layer.tunnel, layer.tunnel), key, layer.src, layer.dst))
    return expected


def transport_of(kind: str) -> Packet:
    ports = {"sport": 5060, "dport": 5080}
    return {"udp": UDP(**ports), "tcp": TCP(**ports, seq=7, ack=9), "sctp": SCTP(**ports)}[kind]


@settings(max_examples=200)
@given(
    layers=stacks(),
    outer_vlans=st.lists(st.integers(0, 4095), max_size=2),
    outer_shim=st.sampled_from(SHIMS),
    payload=st.binary(min_size=1, max_size=900),
    kind=st.sampled_from(("udp", "tcp", "sctp")),
    order=st.randoms(use_true_random=False),
)
def test_nested_and_fragmented_packets_round_trip(
    decode_dump: DecodeDump,
    layers: list[Layer],
    outer_vlans: list[int],
    outer_shim: str,
    payload: bytes,
    kind: str,
    order: random.Random,
) -> None:
    packets = build(layers, transport_of(kind) / Raw(payload))
    frames = [bytes(ethernet_around(packet, outer_vlans, outer_shim)) for packet in packets]
    order.shuffle(frames)
    decoded = decode_dump.frames(frames, ("-f", "8192"))
    assert len(decoded) == len(frames)
    whole: list[dict[str, Any]] = [line for line in decoded if line["status"] == "ok"]
    assert [line["status"] for line in decoded if line["status"] != "ok"] == ["held"] * (
        len(frames) - 1
    )
    assert len(whole) == 1
    packet = whole[0]
    innermost = layers[-1]
    assert bytes.fromhex(packet["payload"]) == payload
    assert (packet["src"], packet["dst"]) == (innermost.src, innermost.dst)
    assert (packet["sport"], packet["dport"]) == (5060, 5080)
    assert packet["proto"] == {"udp": 17, "tcp": 6, "sctp": 132}[kind]
    inner_vlans = [vlan for layer in layers[:-1] for vlan in layer.vlans]
    assert packet["vlans"] == outer_vlans + inner_vlans
    assert packet["reassembled"] == (len(frames) > 1)
    assert not packet["truncated"]
    tunnels = [(t["kind"], t.get("key"), t["src"], t["dst"]) for t in packet["tunnels"]]
    assert tunnels == expected_tunnels(layers)
