"""What the oracle's line about a frame lets us expect of the decoder, and how to compare.

The oracle is a dissector that follows more than the decoder does (Teredo, CAPWAP,
802.11, ...). Its protocol chain is read up to the first layer that the decoder
does not follow; what lies behind it is not expected.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

#: Layers between link and transport that the decoder follows.
FOLLOWED = frozenset(
    [
        "sll",
        "eth",
        "ethertype",
        "vlan",
        "ieee8021ad",
        "mpls",
        "pppoes",
        "ppp",
        "chdlc",
        "raw",
        "fr",
        "fddi",
        "nflog",
        "null",
        "loop",
        "gre",
        "erspan",
        "vxlan",
        "geneve",
        "gtp",
        "udp",
        "ip",
        "ipv6",
        "nsh",
        "ah",
        "llc",
        "ieee8021ah",
        "cfp",
        "pwethheuristic",
        "pwethcw",
        "vntag",
        "ipv6.hopopts",
        "ipv6.routing",
        "ipv6.fraghdr",
        "ipv6.dstopts",
    ]
)
TRANSPORTS = frozenset({"udp", "tcp", "sctp"})
PROTOCOL_NUMBERS = {"udp": 17, "tcp": 6, "sctp": 132}
#: The oracle's names of tunnels that the decoder follows.
TUNNELS = {
    "vxlan": "vxlan",
    "gre": "gre",
    "erspan": "erspan",
    "geneve": "geneve",
    "gtp": "gtpu",
    "ipip": "ipip",
    "4in6": "ipip",
    "6in4": "ipip",
    "6in6": "ipip",
}
KEYS = {"vxlan": "vni", "gre": "key", "erspan": "session", "geneve": "vni", "gtpu": "teid"}


@dataclass
class Expectation:
    """None in a field: the oracle does not tell."""

    #: "ok", "held", "undecodable", or "any" where the frame is broken.
    status: str
    fields: dict[str, Any] = field(default_factory=dict)


def _address(text: str | None) -> str | None:
    return None if text is None else str(ipaddress.ip_address(text))


@dataclass(frozen=True)
class _Reach:
    """How far into the oracle's protocol chain the decoder comes."""

    num_ips: int
    num_vlans: int  # tags in front of the innermost IP header
    complete: bool  # no IP lies behind a layer that the decoder does not follow


def _reach(protos: list[str]) -> _Reach:
    num_ips = vlans = vlans_of_ip = 0
    for index, name in enumerate(protos):
        if name in {"ip", "ipv6"}:
            num_ips += 1
            vlans_of_ip = vlans
        elif name in {"vlan", "ieee8021ad"}:
            vlans += 1
        elif name in {"icmp", "icmpv6"}:
            break
        elif name not in FOLLOWED:
            complete = not any(later in {"ip", "ipv6"} for later in protos[index:])
            return _Reach(num_ips, vlans_of_ip, complete)
    return _Reach(num_ips, vlans_of_ip, True)


def _tunnels(oracle: dict[str, Any], num_ips: int) -> list[dict[str, Any]] | None:
    """The tunnels as the decoder names them; ERSPAN stands for the GRE that carries it."""
    tunnels = []
    listed = oracle.get("tunnels", [])
    protos = oracle["protos"]
    for index, tunnel in enumerate(listed):
        following = listed[index + 1]["kind"] if index + 1 < len(listed) else None
        kind = TUNNELS.get(tunnel["kind"])
        if tunnel["kind"] == "ah" and (":ah:ip:" in protos or ":ah:ipv6:" in protos):
            kind = "ipip"  # AH in tunnel mode: the decoder steps over AH
        if kind is None or (tunnel["kind"] == "gre" and following == "erspan"):
            continue
        entry = {"kind": kind}
        key = tunnel.get(KEYS.get(kind, ""))
        if key is not None:
            entry["key"] = int(key, 0) if isinstance(key, str) else key
        tunnels.append(entry)
    # A tunnel without IP inside leaves the packet that carries it.
    return tunnels if len(tunnels) < num_ips else tunnels[: max(0, num_ips - 1)]


def expect(oracle: dict[str, Any]) -> Expectation:
    """Reads one line of a .dec.jsonl."""
    protos = oracle["protos"].split(":")
    ips = oracle["ips"]
    reach = _reach(protos)
    reached = min(reach.num_ips, len(ips))
    if reached == 0:
        return Expectation("any" if oracle.get("bad") else "undecodable")
    innermost = ips[reached - 1]
    broken = bool(oracle.get("bad")) or any(ip.get("invalid") for ip in ips[:reached])
    fragment = innermost.get("frag") if not innermost.get("reassembled") else None
    # An atomic fragment (RFC 6946) is whole.
    if fragment is not None and (fragment["off"] != 0 or fragment["mf"]):
        return Expectation("any" if broken else "held")
    if innermost.get("invalid") or innermost["src"] is None:
        return Expectation("any")
    fields: dict[str, Any] = {
        "v": innermost["v"],
        "src": _address(innermost["src"]),
        "dst": _address(innermost["dst"]),
        "ttl": innermost["ttl"] if innermost["v"] == 4 else innermost["hlim"],
        "vlans": oracle.get("vlans", [])[: reach.num_vlans],
    }
    if reach.complete and reached == len(ips):
        fields["tunnels"] = _tunnels(oracle, reached)
        fields["reassembled"] = any(ip.get("reassembled") for ip in ips)
        fields |= _transport(oracle)
    return Expectation("any" if broken else "ok", fields)


def _transport(oracle: dict[str, Any]) -> dict[str, Any]:
    l4 = oracle.get("l4")
    if l4 is None or l4["proto"] not in TRANSPORTS:
        return {}
    fields = {
        "proto": PROTOCOL_NUMBERS[l4["proto"]],
        "sport": l4["sport"],
        "dport": l4["dport"],
    }
    if l4["proto"] != "sctp":
        # len is what the UDP header or the IP header says, cap what was captured of it.
        lengths = [length for length in (l4["len"], l4.get("cap")) if length is not None]
        if l4.get("cap") is None and oracle.get("truncated"):
            lengths = [0]
        fields["len"] = min(lengths, default=None)
    if l4["proto"] == "tcp":
        fields["seq"] = l4["seq_raw"]
        fields["flags"] = None if l4["flags"] is None else int(l4["flags"], 0) & 0xFF
    return fields


def observed(decoded: dict[str, Any]) -> dict[str, Any]:
    """The decoder's line in the oracle's terms."""
    if decoded["status"] != "ok":
        return {}
    return decoded | {
        "src": _address(decoded["src"]) if decoded["src"] else None,
        "dst": _address(decoded["dst"]) if decoded["dst"] else None,
        "len": len(decoded["payload"]) // 2,
    }


def differences(oracle: dict[str, Any], decoded: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Field: (what the oracle says, what the decoder says); empty where they agree."""
    expectation = expect(oracle)
    if expectation.status not in {"any", decoded["status"]}:
        return {"status": (expectation.status, decoded["status"])}
    if decoded["status"] != "ok":
        return {}
    got = observed(decoded)
    wrong = {}
    for name, want in expectation.fields.items():
        have: Any = got.get(name)
        if name == "tunnels" and want is not None:
            # A key that the oracle does not give (GRE version 1) is not compared.
            have = [
                {k: v for k, v in tunnel.items() if k in (want[i] if i < len(want) else tunnel)}
                for i, tunnel in enumerate(have or [])
            ]
        if want is not None and have != want:
            wrong[name] = (want, have)
    return wrong
