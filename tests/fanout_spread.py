"""Sends fragments to a fanout group of four sockets and prints where they went, as JSON.

Runs in a network namespace of its own: `fanout_spread.py FANOUT_FLAGS`. The result maps
each kind of traffic to [datagrams whose fragments were parted, sockets used].
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Callable

from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import GRE, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

SOL_PACKET, PACKET_FANOUT, ETH_P_ALL = 263, 18, 3
NUM_DATAGRAMS = 48
DEADLINE_S = 120
# RFC 5342: an ethertype for experiments.
LAST = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x88B5) / Raw(b"last"))
OUTER = {"src": "192.0.2.1", "dst": "192.0.2.2"}


def ethernet() -> Packet:
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x0800)


def ipv4(number: int) -> list[Packet]:
    payload = Raw(bytes(UDP(sport=5060 + number, dport=5060) / Raw(b"x" * 1200)))
    return fragment(IP(src=f"10.0.0.{number}", dst="10.9.0.1", id=number, proto=17) / payload, 576)


def ipv6(number: int) -> list[Packet]:
    payload = Raw(bytes(UDP(sport=5060 + number, dport=5060) / Raw(b"x" * 1200)))
    header = IPv6(src=f"fd00::{number + 1:x}", dst="fd00::ffff")
    return fragment6(header / IPv6ExtHdrFragment(id=number, nh=17) / payload, 576)


def vxlan(number: int, port_step: int) -> list[Packet]:
    """The source port is a hash of the inner flow; port_step: the ports were in it."""
    return [
        ethernet()
        / IP(**OUTER)
        / UDP(sport=50000 + number * 7 + port_step * part, dport=4789)
        / VXLAN(vni=5, flags=8)
        / ethernet()
        / inner
        for part, inner in enumerate(ipv4(number))
    ]


KINDS: dict[str, Callable[[int], list[Packet]]] = {
    "ipv4": lambda n: [ethernet() / part for part in ipv4(n)],
    "ipv6": lambda n: [Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x86DD) / part
                       for part in ipv6(n)],
    "vlan": lambda n: [Ether(dst="02:00:00:00:00:02") / Dot1Q(vlan=7) / part for part in ipv6(n)],
    "gre": lambda n: [ethernet() / IP(**OUTER) / GRE() / part for part in ipv4(n)],
    "ipip": lambda n: [ethernet() / IP(**OUTER, proto=4) / part for part in ipv4(n)],
    "vxlan": lambda n: vxlan(n, 0),
    "vxlan, ports hashed": lambda n: vxlan(n, 1),
}  # fmt: skip


def open_group(interface: str, flags: int) -> list[socket.socket]:
    group = []
    for _ in range(4):
        member = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(ETH_P_ALL))
        member.bind((interface, ETH_P_ALL))
        member.setsockopt(SOL_PACKET, PACKET_FANOUT, struct.pack("I", 77 | flags << 16))
        member.setblocking(False)
        group.append(member)
    return group


def drain(group: list[socket.socket]) -> list[tuple[int, bytes]]:
    found = []
    for index, member in enumerate(group):
        with contextlib.suppress(BlockingIOError):
            while frame := member.recv(65535):
                found.append((index, frame))
    return found


def receive(group: list[socket.socket]) -> set[int]:
    """Returns which sockets got frames, once the last one is there: one CPU keeps the order."""
    found = []
    while LAST not in [frame for _, frame in found]:
        readable, _, _ = select.select(group, [], [], DEADLINE_S)
        assert readable, "the last frame did not arrive"
        found += drain(group)
    found += drain(group)
    return {index for index, frame in found if frame != LAST}


def main() -> None:
    for command in (
        "ip link add fan0 type veth peer name fan1",
        "sysctl -qw net.ipv6.conf.fan0.disable_ipv6=1",
        "sysctl -qw net.ipv6.conf.fan1.disable_ipv6=1",
        "ip link set fan0 up",
        "ip link set fan1 up",
    ):
        subprocess.run(command.split(), check=True)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    group = open_group("fan1", int(sys.argv[1], 0))
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sender.bind(("fan0", 0))
    result = {}
    for kind, make in KINDS.items():
        parted, used = 0, set()
        for number in range(NUM_DATAGRAMS):
            for frame in make(number):
                sender.send(bytes(frame))
            sender.send(LAST)
            sockets = receive(group)
            parted += len(sockets) > 1
            used |= sockets
        result[kind] = [parted, len(used)]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
