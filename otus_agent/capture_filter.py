"""Capture filters that lose nothing: `udp port 5060` made safe for fragments, tags and tunnels.

libpcap compiles the operator's expression for a plain frame. Attached as it is,
it drops every fragment but the first, and all that comes in a tunnel. So two
programs are made of it: a wider one for the kernel, which also lets pass what
only decoding can judge, and the exact one, which the core runs over the
innermost datagram after decoding. docs/internals/filters.md tells how.

libpcap is loaded when an expression is compiled, and for nothing else.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from functools import cache
from pathlib import Path
from typing import Any

from otus_agent import capture_program as program
from otus_agent.capture_program import Instruction
from otus_sdk.errors import ConfigurationInvalid

LINK_ETHERNET = 1
LINK_LINUX_SLL = 113

# The kernel's BPF_MAXINSNS.
MAX_INSTRUCTIONS = 4096
# What a program returns to take the whole frame; the core puts the snap length in its place.
WHOLE_FRAME = 262144

# Ports that the decoder takes where the configuration names none (decode.h).
REGISTERED_PORTS: Mapping[str, tuple[int, ...]] = {
    "vxlan": (4789, 4790),
    "geneve": (6081,),
    "gtpu": (2152,),
    "tzsp": (37008,),
}
# IP protocol numbers of the tunnels that have no UDP port.
TUNNEL_PROTOCOLS: Mapping[str, tuple[int, ...]] = {
    "gre": (47,),
    "erspan": (47,),
    "ipip": (4, 41),
}

_LIBRARY_NAMES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")
_RAW_TEXT = (
    "raw: the kernel runs the program as it is; nothing is widened, fragments, tags and tunnels "
    "are its author's business, and no exact filter follows"
)
_ARPHRD_ETHER = 1
_ARPHRD_LOOPBACK = 772


class ExactView(IntFlag):
    """What the exact filter is run over (core_c/include/otus/bpf.h, `enum otus_exact_view`)."""

    INNER = 0
    TAGGED = 1
    EXTENSIONS = 2
    FRAME = 4


@dataclass(frozen=True, slots=True)
class CaptureFilter:
    """One operator's expression, as programs.

    Attributes:
        kernel: attached to the socket; empty: no filter, every frame is taken.
        exact: run over each decoded packet; empty: none.
        exact_view: bits of `ExactView`: what of the packet `exact` is shown.
        explanation: lines that say what was widened and why.
    """

    kernel: tuple[Instruction, ...] = ()
    exact: tuple[Instruction, ...] = ()
    exact_view: ExactView = ExactView.INNER
    explanation: tuple[str, ...] = ()


class _BpfInsn(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    )


class _BpfProgram(ctypes.Structure):
    _fields_ = (("bf_len", ctypes.c_uint), ("bf_insns", ctypes.POINTER(_BpfInsn)))


# Before 1.8 libpcap's compiler kept its state in globals.
_compile_lock = threading.Lock()


@cache
def _libpcap() -> Any:
    """Load libpcap.

    Raises:
        ConfigurationInvalid: it is not installed.
    """
    for name in (*_LIBRARY_NAMES, ctypes.util.find_library("pcap")):
        if name is None:
            continue
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.pcap_open_dead.restype = ctypes.c_void_p
        library.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
        library.pcap_geterr.restype = ctypes.c_char_p
        library.pcap_geterr.argtypes = (ctypes.c_void_p,)
        library.pcap_close.argtypes = (ctypes.c_void_p,)
        library.pcap_compile.argtypes = (
            ctypes.c_void_p,
            ctypes.POINTER(_BpfProgram),
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_uint32,
        )
        library.pcap_freecode.argtypes = (ctypes.POINTER(_BpfProgram),)
        return library
    raise ConfigurationInvalid(
        "capture filters need libpcap, which is not installed: "
        "apt-get install libpcap0.8 (Debian, Ubuntu), or give bpf_filter as raw:PROGRAM"
    )


def has_libpcap() -> bool:
    """Whether expressions can be compiled here."""
    try:
        _libpcap()
    except ConfigurationInvalid:
        return False
    return True


def compile_expression(expression: str, link_type: int = LINK_ETHERNET) -> list[Instruction]:
    """Compile an expression of pcap-filter(7) as libpcap does.

    Args:
        expression: what tcpdump takes.
        link_type: LINKTYPE_ value of the frames.

    Returns:
        Instructions (code, jt, jf, k).

    Raises:
        ConfigurationInvalid: libpcap is missing, or it refuses the expression;
            with its own words.
    """
    if "\0" in expression:
        raise ConfigurationInvalid("bpf_filter: NUL in the expression")
    library = _libpcap()
    compiled = _BpfProgram()
    unknown_netmask = 0xFFFFFFFF
    with _compile_lock:
        handle = library.pcap_open_dead(link_type, WHOLE_FRAME)
        if handle is None:
            raise ConfigurationInvalid("bpf_filter: libpcap is out of memory")
        try:
            text = expression.encode()
            if library.pcap_compile(handle, ctypes.byref(compiled), text, 1, unknown_netmask) != 0:
                reason = library.pcap_geterr(handle).decode(errors="replace")
                raise ConfigurationInvalid(f'bpf_filter: "{expression}": {reason}')
            instructions = [
                Instruction(insn.code, insn.jt, insn.jf, insn.k)
                for insn in compiled.bf_insns[: compiled.bf_len]
            ]
            library.pcap_freecode(ctypes.byref(compiled))
        finally:
            library.pcap_close(handle)
    return instructions


def parse_raw(text: str) -> list[Instruction]:
    """Read a program as `tcpdump -ddd` prints it: a count, then "code jt jf k" each.

    Args:
        text: lines, or the same joined by commas.

    Raises:
        ConfigurationInvalid: it is none; the message says which entry is wrong.
    """
    entries = [entry.strip() for entry in re.split(r"[\n,]", text) if entry.strip()]
    if not entries or not entries[0].isdecimal():
        raise ConfigurationInvalid(
            "bpf_filter: raw: wants what `tcpdump -ddd` prints: a count, then code jt jf k each"
        )
    if int(entries[0]) != len(entries) - 1 or not 1 <= int(entries[0]) <= MAX_INSTRUCTIONS:
        raise ConfigurationInvalid(
            f"bpf_filter: raw: says {entries[0]} instructions and has {len(entries) - 1}"
        )
    instructions = []
    limits = (0xFFFF, 0xFF, 0xFF, 0xFFFFFFFF)
    for number, entry in enumerate(entries[1:]):
        fields = entry.split()
        if len(fields) != len(limits) or not all(
            part.isascii() and part.isdecimal() and int(part) <= limit
            for part, limit in zip(fields, limits, strict=True)
        ):
            raise ConfigurationInvalid(f'bpf_filter: raw: instruction {number} is "{entry}"')
        code, jt, jf, k = (int(part) for part in fields)
        instructions.append(Instruction(code, jt, jf, k))
    return instructions


def interface_link_type(interface: str) -> int:
    """Return the LINKTYPE_ value under which the core captures on an interface.

    Ethernet and loopback have their own header; all others, and `any`, are cooked.
    """
    try:
        kind = int((Path("/sys/class/net") / interface / "type").read_text())
    except (OSError, ValueError):
        # Unknown here (`any`, or no such interface, which opening reports).
        return LINK_LINUX_SLL if interface == "any" else LINK_ETHERNET
    return LINK_ETHERNET if kind in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK) else LINK_LINUX_SLL


@dataclass(slots=True)
class _Wanted:
    """What the expression speaks about, as far as its words tell."""

    vlan: bool
    frame: bool
    extensions: bool

    @classmethod
    def of(cls, expression: str) -> _Wanted:
        words = re.sub(r"\s+", " ", expression.lower())
        return cls(
            vlan=re.search(r"\bvlan\b", words) is not None,
            frame=re.search(r"\b(mpls|pppoed|pppoes|geneve|vxlan|(link|ether) ?\[)", words)
            is not None,
            extensions=re.search(r"\b(protochain|ah|ip6 ?\[|proto \\?(0|43|44|51|60)\b)", words)
            is not None,
        )

    @property
    def view(self) -> ExactView:
        view = ExactView.INNER
        if self.vlan:
            view |= ExactView.TAGGED
        if self.frame:
            view |= ExactView.FRAME
        if self.extensions:
            view |= ExactView.EXTENSIONS
        return view


@dataclass(slots=True)
class _Widening:
    """One kernel program in the making."""

    expression: str
    link_type: int
    tunnels: program.Tunnels
    wanted: _Wanted
    notes: list[str] = field(default_factory=list)

    @property
    def _cooked(self) -> bool:
        return self.link_type == LINK_LINUX_SLL

    def _compile(self, depth: int) -> list[Instruction] | str:
        """The operator's program behind `depth` tags in the frame, or why there is none."""
        expression = "vlan and " * depth + f"({self.expression})" if depth else self.expression
        try:
            instructions = compile_expression(expression, self.link_type)
        except ConfigurationInvalid as error:
            return error.message.removeprefix("bpf_filter: ")
        if not self._cooked:
            return instructions
        cooked = program.without_cooked_header(instructions)
        if cooked is None:
            return "it looks into the link header or at the length, which are not there"
        return cooked

    def _compile_tagged(self, plain: list[Instruction]) -> list[list[Instruction]]:
        """The same behind one tag and two; none where there is no telling."""
        made = []
        # An expression that speaks of tags, of the frame or of its length means
        # something else there than after decoding.
        if not self.wanted.vlan and not self.wanted.frame and not program.loads_length(plain):
            for depth in (1, 2):
                instructions = self._compile(depth)
                if isinstance(instructions, str):
                    return []
                made.append(instructions)
        return made

    def _widen(self, judging: list[list[Instruction]]) -> list[Instruction]:
        return program.widened(
            judging,
            self.tunnels,
            cooked=self._cooked,
            take_stripped_tags=self.wanted.vlan,
        )

    def make(self) -> tuple[Instruction, ...]:
        """Make the program; empty where every frame has to be taken."""
        if self.link_type not in (LINK_ETHERNET, LINK_LINUX_SLL):
            self.notes.append(f"kernel: takes every frame of link type {self.link_type}")
            return ()
        plain = self._compile(0)
        if isinstance(plain, str):
            self.notes.append(f"kernel: takes every frame of a cooked interface: {plain}")
            return ()
        tagged = self._compile_tagged(plain)
        made = self._widen([plain, *tagged])
        if tagged and len(made) > MAX_INSTRUCTIONS:
            tagged = []
            made = self._widen([plain])
        if len(made) > MAX_INSTRUCTIONS:
            self.notes.append(
                f"kernel: takes every frame: the program would have {len(made)} instructions, "
                f"and the kernel takes {MAX_INSTRUCTIONS}"
            )
            return ()
        self._explain(bool(tagged))
        return tuple(made)

    def _explain(self, tags_judged: bool) -> None:
        self.notes.append("kernel: takes what the expression takes, and besides:")
        self.notes.append("  IPv4 and IPv6 fragments, put together before they are judged")
        self.notes.append("  IPv6 extension headers and AH, behind which libpcap does not look")
        self.notes.append(
            "  VLAN tags in the frame: judged behind one or two tags, three and more taken"
            if tags_judged
            else "  VLAN tags in the frame: all taken"
        )
        if self.wanted.vlan:
            self.notes.append("  VLAN tags that the kernel stripped: all taken")
        self.notes.append("  MPLS, PPPoE, NSH, PBB, FabricPath, VN-Tag, IP in LLC: all taken")
        for name, where in self.tunnels.described():
            self.notes.append(f"  {name}: all on {where}")


def _tunnels(kinds: Sequence[str], ports: Mapping[str, Sequence[int]]) -> program.Tunnels:
    udp: dict[str, tuple[int, ...]] = {}
    protocols: dict[str, tuple[int, ...]] = {}
    for kind in kinds:
        if kind in REGISTERED_PORTS:
            udp[kind] = tuple(ports.get(kind) or REGISTERED_PORTS[kind])
        elif kind in TUNNEL_PROTOCOLS:
            protocols[kind] = TUNNEL_PROTOCOLS[kind]
        else:
            known = ", ".join((*REGISTERED_PORTS, *TUNNEL_PROTOCOLS))
            raise ConfigurationInvalid(f"decoder.tunnels: no tunnel {kind}; there are: {known}")
    return program.Tunnels(udp, protocols)


def fanout_program(
    tunnels: Sequence[str] = (), tunnel_ports: Mapping[str, Sequence[int]] | None = None
) -> tuple[Instruction, ...]:
    """Make the program by which the kernel spreads frames over a task's pipelines.

    Both directions of a flow, the fragments of a datagram, and what belongs
    together inside a tunnel go to one pipeline. See docs/decisions on fanout.
    """
    return tuple(program.fanout(_tunnels(tunnels, tunnel_ports or {})))


def _notes_on(expression: str, tunnels: program.Tunnels, link_type: int) -> list[str]:
    """What an operator may not expect of the exact filter."""
    # A filter that names a tunnel's own port asks for what is gone by then.
    notes = [
        f"note: the expression names port {port}, but {name} is followed and the exact filter "
        "sees what is inside; take it out of decoder.tunnels to select the tunnel itself"
        for name, ports in tunnels.udp.items()
        for port in ports
        if re.search(rf"\bport {port}\b", expression)
    ]
    if re.search(r"\bether\b", expression):
        notes.append(
            "note: a cooked interface has no MAC addresses"
            if link_type == LINK_LINUX_SLL
            else "note: of a tunnelled packet, ether means the outermost MAC addresses"
        )
    return notes


def compile_capture_filter(
    expression: str,
    *,
    link_type: int = LINK_ETHERNET,
    tunnels: Sequence[str] = (),
    tunnel_ports: Mapping[str, Sequence[int]] | None = None,
    as_it_is: bool = False,
) -> CaptureFilter:
    """Make the kernel's program and the exact one of an operator's expression.

    Args:
        expression: pcap-filter(7); empty: no filter; `raw:` and what `tcpdump -ddd`
            prints: that program as it is, and no exact filter.
        link_type: of the socket, see `interface_link_type`.
        tunnels: kinds that the task's decoder follows.
        tunnel_ports: UDP ports by kind; none: the registered ones.
        as_it_is: what tcpdump would attach, nothing widened and no exact filter.

    Returns:
        The programs. `kernel` accepts each frame that `exact` may accept once it
        is decoded, alone or with others.

    Raises:
        ConfigurationInvalid: one line; libpcap's own words where it refuses the expression.
    """
    expression = expression.strip()
    if not expression:
        return CaptureFilter(explanation=("no filter: every frame is taken",))
    if expression.startswith("raw:"):
        instructions = parse_raw(expression.removeprefix("raw:"))
        return CaptureFilter(
            kernel=tuple(instructions),
            explanation=(_RAW_TEXT,),
        )
    if as_it_is:
        return CaptureFilter(tuple(_as_tcpdump(expression, link_type)), explanation=(_RAW_TEXT,))
    wanted = _Wanted.of(expression)
    try:
        exact = compile_expression(expression, LINK_ETHERNET)
    except ConfigurationInvalid as error:
        if not wanted.vlan or "rejects all packets" not in error.message:
            raise
        # pcap-filter(7): vlan changes the offsets of what stands behind it in the expression.
        hint = "libpcap looks for what stands in front of vlan outside the tag: put vlan first"
        raise ConfigurationInvalid(f"{error.message}; {hint}") from error
    followed = _tunnels(tunnels, tunnel_ports or {})
    widening = _Widening(expression, link_type, followed, wanted)
    kernel = widening.make()
    notes = [*widening.notes, "exact: run over each packet after decoding, " + _view_text(wanted)]
    notes += _notes_on(expression, followed, link_type)
    return CaptureFilter(kernel, tuple(exact), wanted.view, tuple(notes))


def _as_tcpdump(expression: str, link_type: int) -> list[Instruction]:
    instructions = compile_expression(expression, link_type)
    if link_type != LINK_LINUX_SLL:
        return instructions
    cooked = program.without_cooked_header(instructions)
    if cooked is None:
        raise ConfigurationInvalid(
            f'bpf_filter: "{expression}" looks into the link header or at the length, which a '
            "cooked interface does not have"
        )
    return cooked


def _view_text(wanted: _Wanted) -> str:
    parts = ["innermost datagram, put together"]
    if wanted.frame:
        parts = ["the frame as captured"]
    parts.append("VLAN tags put back" if wanted.vlan else "VLAN tags taken off")
    parts.append(
        "IPv6 extension headers left in"
        if wanted.extensions
        else "IPv6 extension headers stepped over"
    )
    return "; ".join(parts)


def explain(
    expression: str,
    *,
    link_type: int = LINK_ETHERNET,
    tunnels: Sequence[str] = (),
    tunnel_ports: Mapping[str, Sequence[int]] | None = None,
) -> str:
    """Say what becomes of an expression: the widening in words, then both programs."""
    made = compile_capture_filter(
        expression, link_type=link_type, tunnels=tunnels, tunnel_ports=tunnel_ports
    )
    lines = [f"filter: {expression.strip() or '(none)'}", *made.explanation]
    if made.kernel:
        lines += ["", f"kernel program, {len(made.kernel)} instructions:"]
        lines += program.listing(made.kernel)
    if made.exact:
        lines += ["", f"exact program, {len(made.exact)} instructions:"]
        lines += program.listing(made.exact)
    return "\n".join(lines)
