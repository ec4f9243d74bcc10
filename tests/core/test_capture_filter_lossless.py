"""The operator's filter on the inner whole packet is exactly what comes out.

Packets are cut, tagged and tunnelled at will; libpcap's own BPF machine, over the
packet as it was before all that, says what has to come out behind the kernel
program, the decoder with its reassembly, and the exact filter.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import struct
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otus_core
from frames import ethernet, ip, pcap
from otus_agent import capture_filter
from otus_agent.capture_filter import compile_capture_filter, compile_expression
from otus_core import DecoderConfig, ExactView, FileConfig, Pipeline, PipelineConfig
from otus_sdk.errors import ConfigurationInvalid

try:
    LIBPCAP = capture_filter._libpcap()
except ConfigurationInvalid as error:
    pytest.skip(str(error), allow_module_level=True)

OUTER, TUNNELS = ("198.51.100.1", "198.51.100.2"), ("vxlan", "gre", "geneve", "gtpu", "ipip")

EXPRESSIONS = (
    "udp port 5060",
    "udp dst port 5060 and src host 10.0.0.1",
    "udp portrange 5060-5061",
    "not udp",
    "not port 5060",
    "tcp",
    "icmp or icmp6",
    "ip6",
    "host 10.0.0.1 or host 2001:db8::1",
    "net 10.0.0.0/30 and tcp",
    "greater 400",
    "less 300",
    "udp[8:2] = 0x7878",
)
TAGGED_EXPRESSIONS = (
    "vlan",
    "vlan 7",
    "vlan 7 and udp port 5060",
    "vlan and vlan",
    "not vlan",
    "udp port 5060 or (vlan and udp port 5060)",
)


@dataclass(frozen=True)
class Layer:
    """A tunnel around what is inside: its kind, the inner Ethernet's tags, the cut of the outside."""

    kind: str
    tags: tuple[int, ...]
    cut: int
    six: bool


@dataclass(frozen=True)
class Sent:
    """One packet: as libpcap should judge it, and as it is sent."""

    plain: bytes  # IP datagram without extension headers
    real: bytes  # with them
    cut: int  # largest fragment payload; 0: whole
    layers: tuple[Layer, ...]  # innermost first
    tags: tuple[int, ...]  # of the frame
    mpls: bool


def with_extensions(datagram: bytes, kinds: tuple[int, ...]) -> bytes:
    """The same IPv6 datagram behind hop-by-hop and destination options of 8 octets each."""
    if datagram[0] >> 4 != 6:
        return datagram
    upper, body = datagram[6], datagram[40:]
    for kind in reversed(kinds):
        body = struct.pack("!BBBBI", upper, 0, 1, 4, 0) + body
        upper = kind
    return datagram[:4] + struct.pack("!HB", len(body), upper) + datagram[7:40] + body


@st.composite
def sent_packets(draw: st.DrawFn) -> Sent:
    six = draw(st.booleans())
    hosts = ("2001:db8::1", "2001:db8::2") if six else ("10.0.0.1", "10.0.0.9")
    source, target = draw(st.sampled_from((hosts, hosts[::-1])))
    ports = [draw(st.sampled_from((5060, 5061, 80))) for _ in range(2)]
    payload = b"x" * draw(st.sampled_from((16, 100, 400, 1400)))
    kind = draw(st.sampled_from(("udp", "udp", "tcp", "icmp")))
    if kind == "udp":
        body, number = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload, 17
    elif kind == "tcp":
        body, number = struct.pack("!HHIIBBHHH", *ports, 1, 1, 0x50, 16, 9, 0, 0) + payload, 6
    else:
        body, number = struct.pack("!BBHI", 8, 0, 0, 1) + payload, 58 if six else 1
    plain = ip(body, source, target, number)
    layer = st.builds(
        Layer,
        st.sampled_from(TUNNELS),
        st.lists(st.sampled_from((7, 8)), max_size=2).map(tuple),
        st.sampled_from((0, 0, 56, 400)),
        st.booleans(),
    )
    return Sent(
        plain,
        with_extensions(plain, draw(st.sampled_from(((), (), (0,), (60,), (0, 60))))),
        draw(st.sampled_from((0, 0, 24, 160))),
        tuple(draw(st.lists(layer, max_size=2))),
        tuple(draw(st.lists(st.sampled_from((7, 8, 100)), max_size=3))),
        draw(st.sampled_from((False, False, False, True))),
    )


def marked(datagram: bytes, mark: int) -> bytes:
    """The packet's number in its last octets, by which it is known again."""
    return datagram[:-8] + b"<%06d>" % mark


class Cutter:
    """Cuts datagrams into fragments; each gets an identification of its own."""

    def __init__(self) -> None:
        self._id = 0

    def cut(self, datagram: bytes, size: int) -> list[bytes]:
        self._id += 1
        header = 40 if datagram[0] >> 4 == 6 else 20
        body = datagram[header:]
        if size == 0 or len(body) <= size:
            return [datagram]
        pieces = []
        for offset in range(0, len(body), size):
            piece, more = body[offset : offset + size], offset + size < len(body)
            if header == 40:
                extension = struct.pack("!BBHI", datagram[6], 0, offset | more, self._id)
                length = struct.pack("!HB", 8 + len(piece), 44)
                pieces.append(datagram[:4] + length + datagram[7:40] + extension + piece)
            else:
                fields = struct.pack("!HHH", 20 + len(piece), self._id, more << 13 | offset // 8)
                pieces.append(datagram[:2] + fields + datagram[8:20] + piece)
        # Not in order: that too is what networks do.
        return pieces[::-1] if self._id % 2 else pieces


def tagged(frame: bytes, tags: tuple[int, ...]) -> bytes:
    return frame[:12] + b"".join(struct.pack("!HH", 0x8100, tag) for tag in tags) + frame[12:]


def around(inner: bytes, layer: Layer) -> bytes:
    """The datagram that carries `inner` through a tunnel."""
    source, target = ("2001:db8:f::1", "2001:db8:f::2") if layer.six else OUTER
    six = inner[0] >> 4 == 6
    ethertype = 0x86DD if six else 0x0800
    if layer.kind == "ipip":
        return ip(inner, source, target, 41 if six else 4)
    if layer.kind == "gre":
        return ip(struct.pack("!HH", 0, ethertype) + inner, source, target, 47)
    if layer.kind == "gtpu":
        port, body = 2152, struct.pack("!BBHI", 0x30, 255, len(inner), 5) + inner
    elif layer.kind == "geneve":
        port, body = (
            6081,
            struct.pack("!BBHI", 0, 0, 0x6558, 5 << 8) + tagged(ethernet(inner), layer.tags),
        )
    else:
        port, body = (
            4789,
            struct.pack("!BBHI", 8, 0, 0, 5 << 8) + tagged(ethernet(inner), layer.tags),
        )
    return ip(struct.pack("!HHHH", 40000, port, 8 + len(body), 0) + body, source, target, 17)


def frames_of(sent: Sent, mark: int, cutter: Cutter) -> list[bytes]:
    pieces = cutter.cut(marked(sent.real, mark), sent.cut)
    for layer in sent.layers:
        pieces = [cut for p in pieces for cut in cutter.cut(around(p, layer), layer.cut)]
    frames = [ethernet(piece) for piece in pieces]
    if sent.mpls:
        frames = [f[:12] + b"\x88\x47" + (16 << 12 | 0x1FF).to_bytes(4) + f[14:] for f in frames]
    return [tagged(frame, sent.tags) for frame in frames]


def all_tags(sent: Sent) -> tuple[int, ...]:
    """Outermost first, those inside tunnels included."""
    inner = [
        tag
        for layer in reversed(sent.layers)
        if layer.kind in ("vxlan", "geneve")
        for tag in layer.tags
    ]
    return (*sent.tags, *inner)


def libpcap_accepts(expression: str, frame: bytes) -> bool:
    program = compile_expression(expression)
    insns = (capture_filter._BpfInsn * len(program))(*[tuple(insn) for insn in program])
    LIBPCAP.bpf_filter.restype = ctypes.c_uint
    return LIBPCAP.bpf_filter(insns, frame, len(frame), len(frame)) != 0


def what_comes_out(expression: str, frames: list[bytes], tunnels: tuple[str, ...]) -> set[int]:
    """Behind the kernel's program, the decoder and the exact filter: the packets' numbers."""
    made = compile_capture_filter(expression, tunnels=tunnels)
    fd = os.memfd_create("frames")
    os.write(fd, pcap(frames))
    os.lseek(fd, 0, os.SEEK_SET)
    pipeline = Pipeline(
        otus_core.open_file(FileConfig(fd, bpf=made.kernel)),
        PipelineConfig(
            "task", "agent", "0", (),
            decoder=DecoderConfig(tunnels=dict.fromkeys(tunnels, ())),
            exact_filter=made.exact,
            exact_view=ExactView(made.exact_view),
            forward_unmatched=True,
        ),
    )  # fmt: skip
    seen = []
    ended = False
    while not ended:
        ended = pipeline.poll(0).ended
        batch = pipeline.snapshot()
        seen += [batch.payload(i)[-8:] for i in range(len(batch))]
    pipeline.close()
    assert len(seen) == len(set(seen))
    return {int(mark[1:7]) for mark in seen if mark[:1] == b"<"}


def check(expression: str, packets: list[Sent], oracle_tags: bool) -> None:
    cutter, frames, wanted = Cutter(), [], set()
    for mark, sent in enumerate(packets):
        frames += frames_of(sent, mark, cutter)
        inner = ethernet(marked(sent.plain, mark))
        if oracle_tags:
            inner = tagged(inner, all_tags(sent))
        if libpcap_accepts(expression, inner):
            wanted.add(mark)
    assert what_comes_out(expression, frames, TUNNELS) == wanted


@given(st.sampled_from(EXPRESSIONS), st.lists(sent_packets(), min_size=1, max_size=6))
@settings(max_examples=150)
def test_what_the_filter_accepts_whole_is_what_comes_out(expression, packets):
    check(expression, packets, oracle_tags=False)


@given(st.sampled_from(TAGGED_EXPRESSIONS), st.lists(sent_packets(), min_size=1, max_size=6))
@settings(max_examples=100)
def test_what_the_filter_accepts_with_its_tags_is_what_comes_out(expression, packets):
    check(expression, packets, oracle_tags=True)


def shapes() -> list[Sent]:
    """UDP datagrams to port 5060 and to another, of both versions, in every simple shape."""
    made = []
    for six, port, extensions, cut in itertools.product(
        (False, True), (5060, 80), ((), (0, 60)), (0, 24, 160)
    ):
        hosts = ("2001:db8::1", "2001:db8::2") if six else ("10.0.0.1", "10.0.0.9")
        body = struct.pack("!HHHH", 5070, port, 508, 0) + b"x" * 500
        plain = ip(body, *hosts, 17)
        around_it: list[tuple[Layer, ...]] = [()]
        around_it += [(Layer(kind, (7,), outer, six),) for kind in TUNNELS for outer in (0, 56)]
        made += [
            Sent(plain, with_extensions(plain, extensions), cut, layers, tags, mpls)
            for layers in around_it
            for tags in ((), (7,), (7, 8), (7, 8, 100))
            for mpls in (False, True)
        ]
    return made


@pytest.mark.parametrize("expression", [*EXPRESSIONS, *TAGGED_EXPRESSIONS])
def test_every_shape_by_itself(expression):
    """The same without chance: each way to cut, tag and tunnel, once."""
    check(expression, shapes(), oracle_tags="vlan" in expression)


def test_without_the_widening_the_test_would_fail():
    """The property tests something: libpcap's program alone loses the cut and the tunnelled."""
    plain = ip(struct.pack("!HHHH", 5060, 5060, 408, 0) + b"x" * 400, "10.0.0.1", "10.0.0.9", 17)
    cut = Sent(plain, plain, 160, (), (), False)
    inside = Sent(plain, plain, 0, (Layer("vxlan", (), 0, False),), (), False)
    tag = Sent(plain, plain, 0, (), (7,), False)
    cutter = Cutter()
    frames = [
        f for mark, sent in enumerate((cut, inside, tag)) for f in frames_of(sent, mark, cutter)
    ]
    assert what_comes_out("udp port 5060", frames, TUNNELS) == {0, 1, 2}
    taken = [frame for frame in frames if libpcap_accepts("udp port 5060", frame)]
    assert what_comes_out("", taken, TUNNELS) == set()
