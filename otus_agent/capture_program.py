"""BPF programs put together by hand: widening, fanout, and how to print them.

Source: McCanne and Jacobson, "The BSD Packet Filter", USENIX 1993; the ancillary
loads are those of the kernel's Documentation/networking/filter.rst.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Instruction(NamedTuple):
    """One BPF instruction, as the kernel's `struct sock_filter`."""

    code: int
    jt: int
    jf: int
    k: int


LD_W_ABS, LD_H_ABS, LD_B_ABS = 0x20, 0x28, 0x30
LD_W_IND, LD_H_IND = 0x40, 0x48
LD_LEN, LDX_LEN = 0x80, 0x81
LD_MEM, ST, STX = 0x60, 0x02, 0x03
LDX_MSH, LDX_MEM, LDX_IMM = 0xB1, 0x61, 0x01
ADD_X, MUL_K, RSH_K = 0x0C, 0x24, 0x74
JA, JEQ, JGE, JSET = 0x05, 0x15, 0x35, 0x45
RET_K, RET_A, TXA = 0x06, 0x16, 0x87

_CLASS = 0x07
_MODE, _ABS, _IND, _MSH = 0xE0, 0x20, 0x40, 0xA0
_LEN_CODES = (LD_LEN, LDX_LEN)

AD_OFF = 0xFFFFF000
AD_PROTOCOL = AD_OFF + 0
AD_PKTTYPE = AD_OFF + 4
AD_VLAN_TAG_PRESENT = AD_OFF + 48
NET_OFF = 0xFFF00000

IPV4, IPV6 = 0x0800, 0x86DD
TAGS = (0x8100, 0x88A8, 0x9100)
# Tags that libpcap does not step over, and what only the decoder reads: 0x9200,
# MPLS, PPPoE sessions, PPP, NSH, PBB, FabricPath, VN-Tag, WCCP, Ethernet in Ethernet.
ONLY_DECODER = (
    *(0x9200, 0x8847, 0x8848, 0x8864, 0x880B, 0x894F),
    *(0x88E7, 0x8903, 0x8926, 0x883E, 0x6558),
)
# IP in SNAP (RFC 1042), or by its own SAP (RFC 948), behind an IEEE 802.3 length.
LLC_SAPS = (0xAAAA, 0x0606)
ETH_P_802_2 = 4  # the protocol of such a frame on a cooked socket
# Hop-by-hop, routing, fragment, AH, destination options, mobility, HIP, Shim6.
IPV6_EXTENSIONS = (0, 43, 44, 51, 60, 135, 139, 140)
AH, TCP, UDP, SCTP = 51, 6, 17, 132
MORE_OR_OFFSET = 0x3FFF
ACCEPT = 262144
SLL_HEADER = 16


@dataclass(frozen=True, slots=True)
class Tunnels:
    """The tunnels that a task follows: UDP ports and IP protocol numbers by kind."""

    udp: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    protocols: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def all_ports(self) -> tuple[int, ...]:
        """Every UDP port, once."""
        return tuple(dict.fromkeys(port for ports in self.udp.values() for port in ports))

    @property
    def all_protocols(self) -> tuple[int, ...]:
        """Every IP protocol number, once."""
        return tuple(dict.fromkeys(n for numbers in self.protocols.values() for n in numbers))

    def described(self) -> Iterator[tuple[str, str]]:
        """Give each kind with where it is found, for people."""
        for kind, ports in self.udp.items():
            yield kind, "UDP port " + ", ".join(map(str, ports))
        for kind, numbers in self.protocols.items():
            yield kind, "IP protocol " + ", ".join(map(str, numbers))


class Assembler:
    """Instructions with names for places; a conditional jump goes at most 255 ahead."""

    def __init__(self) -> None:
        self._items: list[tuple[int, int, str | None, str | None]] = []
        self._places: dict[str, int] = {}

    def place(self, name: str) -> None:
        """Give the next instruction a name."""
        self._places[name] = len(self._items)

    def put(self, code: int, k: int = 0) -> None:
        """Append an instruction that goes on to the next."""
        self._items.append((code, k, None, None))

    def jump(self, code: int, k: int, yes: str | None = None, no: str | None = None) -> None:
        """Append a conditional jump; None goes on to the next instruction."""
        self._items.append((code, k, yes, no))

    def go(self, name: str) -> None:
        """Append a jump that may be long."""
        self._items.append((JA, 0, name, None))

    def one_of(self, values: Sequence[int], yes: str) -> None:
        """Append a jump to `yes` if A is one of the values."""
        for value in values:
            self.jump(JEQ, value, yes)

    def append(self, instructions: Sequence[Instruction]) -> None:
        """Append a finished program: its jumps are inside itself."""
        for insn in instructions:
            self._items.append((insn.code, insn.k, f"+{insn.jt}", f"+{insn.jf}"))

    def _distance(self, index: int, name: str | None) -> int:
        if name is None:
            return 0
        if name.startswith("+"):
            return int(name[1:])
        return self._places[name] - index - 1

    def assemble(self) -> list[Instruction]:
        """Resolve the names."""
        made = []
        for index, (code, k, yes, no) in enumerate(self._items):
            if code == JA and yes is not None and not yes.startswith("+"):
                made.append(Instruction(JA, 0, 0, self._distance(index, yes)))
                continue
            jt, jf = self._distance(index, yes), self._distance(index, no)
            if not (0 <= jt <= 255 and 0 <= jf <= 255):
                raise AssertionError(f"jump of instruction {index} too far: {jt}, {jf}")
            made.append(Instruction(code, jt, jf, k))
        return made


def loads_length(instructions: Sequence[Instruction]) -> bool:
    """Whether a program looks at the frame's length (`less`, `greater`, `len`)."""
    return any(insn.code in _LEN_CODES for insn in instructions)


def without_cooked_header(instructions: Sequence[Instruction]) -> list[Instruction] | None:
    """Move a program for Linux cooked frames to a socket that has no link header.

    The kernel runs it from the network layer on; the header's protocol and packet
    type are ancillary loads there, as in libpcap's own fix-up.

    Returns:
        None where it loads anything else of the header, or the length.
    """
    made = []
    for insn in instructions:
        if insn.code in _LEN_CODES:
            return None
        is_load = insn.code & _CLASS in (0, 1) and insn.code & _MODE in (_ABS, _IND, _MSH)
        if not is_load or insn.k >= AD_OFF:
            made.append(insn)
        elif insn.k >= SLL_HEADER:
            made.append(insn._replace(k=insn.k - SLL_HEADER))
        elif (insn.code, insn.k) == (LD_H_ABS, 14):
            made.append(insn._replace(k=AD_PROTOCOL))
        elif (insn.code, insn.k) == (LD_H_ABS, 0):
            made.append(insn._replace(k=AD_PKTTYPE))
        else:
            return None
    return made


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things are in what a socket's filter sees, behind `depth` tags in the frame."""

    cooked: bool
    tunnels: Tunnels

    def ethertype(self, depth: int) -> tuple[int, int]:
        """The load of the ethertype."""
        if self.cooked:
            return (LD_W_ABS, AD_PROTOCOL) if depth == 0 else (LD_H_ABS, 4 * depth - 2)
        return LD_H_ABS, 12 + 4 * depth

    def network(self, depth: int) -> int:
        """The offset of what follows the ethertype."""
        return (0 if self.cooked else 14) + 4 * depth


def _take_ip(asm: Assembler, layout: _Layout, depth: int, take: str, judge: str) -> None:
    """Lay out the looks at an IPv4 and an IPv6 header, named ipv4 and ipv6 by depth."""
    at = layout.network(depth)
    protocols, ports = layout.tunnels.all_protocols, layout.tunnels.all_ports
    asm.place(f"ipv4-{depth}")
    asm.put(LD_H_ABS, at + 6)
    asm.jump(JSET, MORE_OR_OFFSET, take)
    asm.put(LD_B_ABS, at + 9)
    asm.one_of((AH, *protocols), take)
    if ports:
        asm.jump(JEQ, UDP, None, judge)
        asm.put(LDX_MSH, at)
        asm.put(LD_H_IND, at + 2)
        asm.one_of(ports, take)
    asm.go(judge)
    asm.place(f"ipv6-{depth}")
    asm.put(LD_B_ABS, at + 6)
    asm.one_of((*IPV6_EXTENSIONS, *protocols), take)
    if ports:
        asm.jump(JEQ, UDP, None, judge)
        asm.put(LD_H_ABS, at + 42)
        asm.one_of(ports, take)
    asm.go(judge)


def _take_or_judge(
    asm: Assembler, layout: _Layout, depth: int, judging: Sequence[Instruction], deeper: bool
) -> None:
    """Lay out one level: take what only decoding can judge, and let `judging` judge the rest.

    The taking comes first: a load of `judging` past the end of a short fragment
    would end the whole program with a refusal.
    """
    take, tagged, judge, llc = (f"{name}-{depth}" for name in ("take", "tagged", "judge", "llc"))
    asm.place(f"level-{depth}")
    asm.put(*layout.ethertype(depth))
    if not layout.cooked:
        asm.jump(JGE, 0x0600, None, llc)
    asm.jump(JEQ, IPV4, f"ipv4-{depth}")
    asm.jump(JEQ, IPV6, f"ipv6-{depth}")
    asm.one_of(TAGS, tagged)
    asm.one_of(ONLY_DECODER, take)
    if layout.cooked:
        asm.jump(JEQ, ETH_P_802_2, take)
    asm.go(judge)
    if not layout.cooked:
        asm.place(llc)
        asm.put(LD_H_ABS, layout.network(depth))
        asm.one_of(LLC_SAPS, take)
        asm.go(judge)
    _take_ip(asm, layout, depth, take, judge)
    asm.place(take)
    asm.put(RET_K, ACCEPT)
    asm.place(tagged)
    if deeper:
        asm.go(f"level-{depth + 1}")
    else:
        asm.put(RET_K, ACCEPT)
    asm.place(judge)
    asm.append(judging)


def widened(
    judging: Sequence[Sequence[Instruction]],
    tunnels: Tunnels,
    *,
    cooked: bool,
    take_stripped_tags: bool,
) -> list[Instruction]:
    """Make a kernel program that takes all that the operator's takes, and what it can't judge.

    Args:
        judging: the operator's program for an untagged frame, one tag in the
            frame, two; frames with more tags than there are programs are taken.
        tunnels: taken whole.
        cooked: the socket has no link header, see `without_cooked_header`.
        take_stripped_tags: take each frame whose tag is in the ring's metadata.
    """
    asm = Assembler()
    layout = _Layout(cooked, tunnels)
    if take_stripped_tags:
        asm.put(LD_W_ABS, AD_VLAN_TAG_PRESENT)
        asm.jump(JEQ, 0, "level-0")
        asm.put(RET_K, ACCEPT)
    for depth, program in enumerate(judging):
        _take_or_judge(asm, layout, depth, program, deeper=depth + 1 < len(judging))
    return asm.assemble()


# --- fanout -------------------------------------------------------------------

# Scratch words: the hash so far, an accumulator, the length of the outer header.
_HASH, _SUM, _OUTER = 0, 1, 2
# Odd constants of good avalanche; the upper half of the product is used.
_MIX, _MIX_PORTS = 0x9E3779B1, 0x85EBCA6B
_UDP_VXLAN_ETHERNET = 8 + 8 + 14


def _hash_words(asm: Assembler, load: int, offsets: Sequence[int]) -> None:
    """_HASH <- the sum of words: the same for either direction."""
    asm.put(load, offsets[0])
    asm.put(ST, _SUM)
    for offset in offsets[1:]:
        if load == LD_W_IND:
            asm.put(LDX_MEM, _OUTER)
        asm.put(load, offset)
        asm.put(LDX_MEM, _SUM)
        asm.put(ADD_X)
        asm.put(ST, _SUM)
    asm.put(ST, _HASH)


def _fanout_vxlan(asm: Assembler, at: int, depth: int) -> None:
    """X is the outer IP header's length: hash the inner addresses, where they are near."""
    inner = at + _UDP_VXLAN_ETHERNET
    asm.place(f"vxlan-{depth}")
    asm.put(STX, _OUTER)
    asm.put(LD_H_IND, inner - 2)
    asm.jump(JEQ, IPV6, f"inner6-{depth}")
    asm.jump(JEQ, IPV4, None, f"done-{depth}")
    _hash_words(asm, LD_W_IND, (inner + 12, inner + 16))
    asm.go(f"done-{depth}")
    asm.place(f"inner6-{depth}")
    _hash_words(asm, LD_W_IND, range(inner + 8, inner + 40, 4))
    asm.go(f"done-{depth}")


def _fanout_ipv4(
    asm: Assembler, at: int, depth: int, vxlan: Sequence[int], others: Sequence[int]
) -> None:
    asm.place(f"ipv4-{depth}")
    _hash_words(asm, LD_W_ABS, (at + 12, at + 16))
    asm.put(LD_H_ABS, at + 6)
    asm.jump(JSET, MORE_OR_OFFSET, f"done-{depth}")
    asm.put(LDX_MSH, at)
    asm.put(LD_B_ABS, at + 9)
    asm.one_of((TCP, SCTP), f"ports-{depth}")
    asm.jump(JEQ, UDP, None, f"done-{depth}")
    asm.put(LD_H_IND, at + 2)
    asm.one_of(vxlan, f"vxlan-{depth}")
    asm.one_of(others, f"done-{depth}")
    asm.place(f"ports-{depth}")
    asm.put(LD_H_IND, at + 2)
    asm.put(ST, _SUM)
    asm.put(LD_H_IND, at)
    asm.put(LDX_MEM, _SUM)
    asm.put(ADD_X)
    asm.put(MUL_K, _MIX_PORTS)
    asm.put(LDX_MEM, _HASH)
    asm.put(ADD_X)
    asm.put(ST, _HASH)
    asm.go(f"done-{depth}")


def _fanout_ipv6(asm: Assembler, at: int, depth: int, vxlan: Sequence[int]) -> None:
    """By addresses alone, so that fragments, which show no ports, follow their flow."""
    asm.place(f"ipv6-{depth}")
    _hash_words(asm, LD_W_ABS, range(at + 8, at + 40, 4))
    if vxlan:
        asm.put(LD_B_ABS, at + 6)
        asm.jump(JEQ, UDP, None, f"done-{depth}")
        asm.put(LDX_IMM, 40)
        asm.put(LD_H_ABS, at + 42)
        asm.one_of(vxlan, f"vxlan-{depth}")
    asm.go(f"done-{depth}")


def fanout(tunnels: Tunnels) -> list[Instruction]:
    """Make a PACKET_FANOUT_CBPF program: what it returns, modulo the sockets, chooses one.

    The kernel runs it where the link header may or may not be there, so that
    every load is relative to the network header.
    """
    asm = Assembler()
    vxlan = tunnels.udp.get("vxlan", ())
    # UDP tunnels whose inner addresses are not looked for: by the outer ones alone.
    others = [port for kind, ports in tunnels.udp.items() if kind != "vxlan" for port in ports]
    for depth in (0, 1):
        at = NET_OFF + 4 * depth
        if depth == 0:
            asm.put(LD_W_ABS, AD_PROTOCOL)
        else:
            asm.place("tagged")
            asm.put(LD_H_ABS, NET_OFF + 2)
        asm.jump(JEQ, IPV4, f"ipv4-{depth}")
        asm.jump(JEQ, IPV6, f"ipv6-near-{depth}")
        if depth == 0:
            asm.one_of(TAGS, "tagged-near")
        asm.put(RET_K, 0)
        if depth == 0:
            asm.place("tagged-near")
            asm.go("tagged")
        asm.place(f"ipv6-near-{depth}")
        asm.go(f"ipv6-{depth}")
        _fanout_ipv4(asm, at, depth, vxlan, others)
        _fanout_ipv6(asm, at, depth, vxlan)
        if vxlan:
            _fanout_vxlan(asm, at, depth)
        asm.place(f"done-{depth}")
        asm.put(LD_MEM, _HASH)
        asm.put(MUL_K, _MIX)
        asm.put(RSH_K, 16)
        asm.put(RET_A)
    return asm.assemble()


# --- printing -----------------------------------------------------------------

_OPERATIONS = ("add", "sub", "mul", "div", "or", "and", "lsh", "rsh", "neg", "mod", "xor")
_JUMPS = ("ja", "jeq", "jgt", "jge", "jset")
_SIZES = {0x00: "", 0x08: "h", 0x10: "b"}
_ANCILLARY = {0: "protocol", 4: "packet type", 8: "interface", 44: "vlan tag", 48: "vlan present"}


def _operand(insn: Instruction) -> str:
    mode = insn.code & _MODE
    if mode == _ABS:
        if insn.k >= AD_OFF:
            return f"#{_ANCILLARY.get(insn.k - AD_OFF, hex(insn.k))}"
        return f"[network+{insn.k - NET_OFF}]" if insn.k >= NET_OFF else f"[{insn.k}]"
    if mode == _IND:
        return f"[x + network+{insn.k - NET_OFF}]" if insn.k >= NET_OFF else f"[x + {insn.k}]"
    return {
        0x00: f"#{insn.k:#x}",
        0x60: f"M[{insn.k}]",
        0x80: "#length",
        _MSH: f"4*([{insn.k}]&0xf)",
    }[mode]


def _text(index: int, insn: Instruction) -> str:
    kind, by_x = insn.code & _CLASS, bool(insn.code & 0x08)
    operand = "x" if by_x else f"#{insn.k:#x}"
    match kind:
        case 0 | 1:
            return f"ld{'x' if kind else ''}{_SIZES[insn.code & 0x18]} {_operand(insn)}"
        case 2 | 3:
            return f"st{'x' if kind == 3 else ''} M[{insn.k}]"
        case 4:
            return f"{_OPERATIONS[insn.code >> 4]} {operand}"
        case 5 if insn.code == JA:
            return f"ja {index + 1 + insn.k}"
        case 5:
            yes, no = index + 1 + insn.jt, index + 1 + insn.jf
            return f"{_JUMPS[insn.code >> 4]} {operand} jt {yes} jf {no}"
        case 6:
            return "ret a" if insn.code == RET_A else f"ret #{insn.k}"
        case _:
            return "txa" if insn.code == TXA else "tax"


def listing(instructions: Sequence[Instruction]) -> list[str]:
    """Print a program, a line an instruction, much as `tcpdump -d` does."""
    return [f"({index:03}) {_text(index, insn)}" for index, insn in enumerate(instructions)]
