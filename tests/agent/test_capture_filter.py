"""Capture filters: libpcap's words, what is widened, and that nothing is lost by it."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otus_agent import capture_filter, capture_program
from otus_agent.capture_filter import (
    ExactView,
    compile_capture_filter,
    compile_expression,
    explain,
    fanout_program,
    interface_link_type,
    parse_raw,
)
from otus_agent.capture_program import Assembler, Instruction
from otus_sdk.errors import ConfigurationInvalid

try:
    LIBPCAP = capture_filter._libpcap()
except ConfigurationInvalid as error:
    pytest.skip(str(error), allow_module_level=True)


def accepts(program, frame: bytes) -> bool:
    """libpcap's own BPF machine, which is not ours."""
    insns = (capture_filter._BpfInsn * len(program))(*[tuple(insn) for insn in program])
    LIBPCAP.bpf_filter.restype = ctypes.c_uint
    return LIBPCAP.bpf_filter(insns, frame, len(frame), len(frame)) != 0


# Annotated octets: 14 of Ethernet, then IP.
def ethernet(ethertype: int, payload: bytes, tags: tuple[tuple[int, int], ...] = ()) -> bytes:
    tagged = b"".join(tpid.to_bytes(2) + tci.to_bytes(2) for tpid, tci in tags)
    return bytes(12) + tagged + ethertype.to_bytes(2) + payload


def ipv4(protocol: int, payload: bytes, flags_offset: int = 0) -> bytes:
    header = bytes((0x45, 0)) + (20 + len(payload)).to_bytes(2) + b"\0\1" + flags_offset.to_bytes(2)
    return header + bytes((64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2)) + payload


def ipv6(next_header: int, payload: bytes) -> bytes:
    return b"\x60\0\0\0" + len(payload).to_bytes(2) + bytes((next_header, 64)) + bytes(32) + payload


def udp(src: int, dst: int, payload: bytes = b"12345678") -> bytes:
    return src.to_bytes(2) + dst.to_bytes(2) + (8 + len(payload)).to_bytes(2) + b"\0\0" + payload


SIP = udp(5060, 5060)
OTHER = udp(1000, 2000)
FRAGMENT_V6 = bytes((17, 0, 0, 8, 0, 0, 0, 1)) + bytes(16)


@pytest.mark.parametrize(
    ("name", "frame", "tunnels", "taken"),
    [
        ("plain", ethernet(0x0800, ipv4(17, SIP)), (), True),
        ("another port", ethernet(0x0800, ipv4(17, OTHER)), (), False),
        ("plain IPv6", ethernet(0x86DD, ipv6(17, SIP)), (), True),
        ("IPv6, another port", ethernet(0x86DD, ipv6(17, OTHER)), (), False),
        ("first fragment", ethernet(0x0800, ipv4(17, OTHER, 0x2000)), (), True),
        ("last fragment", ethernet(0x0800, ipv4(17, OTHER, 0x0001)), (), True),
        ("don't fragment", ethernet(0x0800, ipv4(17, OTHER, 0x4000)), (), False),
        ("reserved bit", ethernet(0x0800, ipv4(17, OTHER, 0x8000)), (), False),
        ("IPv6 fragment", ethernet(0x86DD, ipv6(44, FRAGMENT_V6)), (), True),
        ("hop-by-hop", ethernet(0x86DD, ipv6(0, FRAGMENT_V6)), (), True),
        ("destination options", ethernet(0x86DD, ipv6(60, FRAGMENT_V6)), (), True),
        ("routing header", ethernet(0x86DD, ipv6(43, FRAGMENT_V6)), (), True),
        ("AH over IPv4", ethernet(0x0800, ipv4(51, FRAGMENT_V6)), (), True),
        ("one tag", ethernet(0x0800, ipv4(17, SIP), ((0x8100, 5),)), (), True),
        ("one tag, another port", ethernet(0x0800, ipv4(17, OTHER), ((0x8100, 5),)), (), False),
        ("one tag, fragment", ethernet(0x0800, ipv4(17, OTHER, 1), ((0x8100, 5),)), (), True),
        ("QinQ", ethernet(0x0800, ipv4(17, SIP), ((0x88A8, 5), (0x8100, 6))), (), True),
        ("QinQ, another port", ethernet(0x0800, ipv4(17, OTHER), ((0x8100, 5),) * 2), (), False),
        ("three tags", ethernet(0x0800, ipv4(17, OTHER), ((0x8100, 5),) * 3), (), True),
        ("MPLS", ethernet(0x8847, bytes(60)), (), True),
        ("PPPoE session", ethernet(0x8864, bytes(60)), (), True),
        ("PPPoE discovery", ethernet(0x8863, bytes(60)), (), False),
        ("ARP", ethernet(0x0806, bytes(46)), (), False),
        ("SNAP", ethernet(0x0030, bytes.fromhex("aaaa030000000800") + ipv4(17, SIP)), (), True),
        ("IP's own SAP", ethernet(0x0030, bytes.fromhex("060603") + ipv4(17, SIP)), (), True),
        ("FabricPath", ethernet(0x8903, bytes(60)), (), True),
        ("spanning tree", ethernet(0x0026, bytes.fromhex("424203") + bytes(40)), (), False),
        ("VXLAN followed", ethernet(0x0800, ipv4(17, udp(9, 4789))), ("vxlan",), True),
        ("VXLAN not followed", ethernet(0x0800, ipv4(17, udp(9, 4789))), (), False),
        ("towards VXLAN", ethernet(0x0800, ipv4(17, udp(4789, 9))), ("vxlan",), False),
        ("VXLAN over IPv6", ethernet(0x86DD, ipv6(17, udp(9, 4789))), ("vxlan",), True),
        (
            "VXLAN in a tag",
            ethernet(0x0800, ipv4(17, udp(9, 4789)), ((0x8100, 1),)),
            ("vxlan",),
            True,
        ),
        ("Geneve", ethernet(0x0800, ipv4(17, udp(9, 6081))), ("geneve",), True),
        ("GTP-U", ethernet(0x0800, ipv4(17, udp(9, 2152))), ("gtpu",), True),
        ("TZSP", ethernet(0x0800, ipv4(17, udp(9, 37008))), ("tzsp",), True),
        ("GRE", ethernet(0x0800, ipv4(47, bytes(40))), ("gre",), True),
        ("GRE not followed", ethernet(0x0800, ipv4(47, bytes(40))), ("vxlan",), False),
        ("ERSPAN", ethernet(0x0800, ipv4(47, bytes(40))), ("erspan",), True),
        ("4in4", ethernet(0x0800, ipv4(4, bytes(40))), ("ipip",), True),
        ("6in4", ethernet(0x0800, ipv4(41, bytes(40))), ("ipip",), True),
        ("4in6", ethernet(0x86DD, ipv6(4, bytes(40))), ("ipip",), True),
    ],
)
def test_the_kernel_takes_what_only_decoding_can_judge(name, frame, tunnels, taken):
    made = compile_capture_filter("udp port 5060", tunnels=tunnels)
    assert accepts(made.kernel, frame) is taken, name


def test_ports_of_a_tunnel_are_the_tasks_own():
    made = compile_capture_filter(
        "udp port 5060", tunnels=["vxlan"], tunnel_ports={"vxlan": [8472, 8473]}
    )
    assert accepts(made.kernel, ethernet(0x0800, ipv4(17, udp(9, 8473))))
    assert not accepts(made.kernel, ethernet(0x0800, ipv4(17, udp(9, 4789))))


def test_a_fragment_that_is_too_short_for_the_expression_is_taken():
    """A load past its end would end the program with a refusal, were it asked first."""
    made = compile_capture_filter("udp[500:2] = 7")
    assert accepts(made.kernel, ethernet(0x0800, ipv4(17, bytes(8), 0x2000)))


@pytest.mark.parametrize(
    ("expression", "view"),
    [
        ("udp port 5060", ExactView.INNER),
        ("vlan 5 and udp", ExactView.TAGGED),
        ("VLAN", None),
        ("mpls and udp", ExactView.FRAME),
        ("pppoes", ExactView.FRAME),
        ("ether[0] & 1 = 1", ExactView.FRAME),
        ("vlan and mpls", ExactView.TAGGED | ExactView.FRAME),
        ("ip6 protochain 17", ExactView.EXTENSIONS),
        ("ip6[6] = 0", ExactView.EXTENSIONS),
        ("ah", ExactView.EXTENSIONS),
        ("ip6 proto 44", ExactView.EXTENSIONS),
        ("ether host 02:00:00:00:00:01", ExactView.INNER),
    ],
)
def test_what_the_expression_names_is_left_in(expression, view):
    if view is None:
        # libpcap's words are lower case: nothing to mistake.
        with pytest.raises(ConfigurationInvalid):
            compile_capture_filter(expression)
        return
    assert compile_capture_filter(expression).exact_view == view


def test_vlan_takes_stripped_tags():
    """Compiled without a live handle, `vlan` looks into the frame alone."""
    program = compile_capture_filter("vlan 5 and udp port 5060").kernel
    assert program[0] == Instruction(0x20, 0, 0, capture_program.AD_VLAN_TAG_PRESENT)
    assert not any(
        insn.k >= capture_program.AD_OFF for insn in compile_capture_filter("udp").kernel
    )


def test_a_length_is_judged_after_decoding_where_tags_change_it():
    made = compile_capture_filter("less 100")
    assert accepts(made.kernel, ethernet(0x0800, ipv4(17, bytes(200)), ((0x8100, 5),)))


def test_an_empty_expression_takes_everything():
    made = compile_capture_filter("  ")
    assert made.kernel == ()
    assert made.exact == ()


def test_libpcaps_own_words_tell_what_is_wrong():
    with pytest.raises(ConfigurationInvalid, match=r'"udp prot 5060": .*syntax error') as caught:
        compile_capture_filter("udp prot 5060")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationInvalid, match="NUL"):
        compile_capture_filter("udp\0")
    with pytest.raises(ConfigurationInvalid, match=r"rejects all packets; .*: put vlan first"):
        compile_capture_filter("udp port 5060 and vlan 5")
    with pytest.raises(ConfigurationInvalid, match=r"rejects all packets$"):
        compile_capture_filter("ip and ip6")
    with pytest.raises(ConfigurationInvalid, match="no tunnel vxlam; there are: vxlan"):
        compile_capture_filter("udp", tunnels=["vxlam"])


def test_without_libpcap_one_line_says_what_to_install(monkeypatch):
    def missing(_name):
        raise OSError

    capture_filter._libpcap.cache_clear()
    monkeypatch.setattr(capture_filter.ctypes, "CDLL", missing)
    try:
        with pytest.raises(ConfigurationInvalid, match=r"apt-get install libpcap0\.8"):
            compile_capture_filter("udp port 5060")
        # A program needs no compiler.
        assert compile_capture_filter("raw:1\n6 0 0 65535").kernel == (Instruction(6, 0, 0, 65535),)
    finally:
        capture_filter._libpcap.cache_clear()


def test_raw_is_what_tcpdump_prints():
    printed = subprocess.run(
        ["tcpdump", "-ddd", "-y", "EN10MB", "udp port 5060"],
        capture_output=True,
        text=True,
        check=False,
    )
    if printed.returncode != 0:
        pytest.skip(f"tcpdump: {printed.stderr.strip()}")
    made = compile_capture_filter("raw:" + printed.stdout)
    assert made.exact == ()
    assert list(made.kernel) == compile_expression("udp port 5060")
    assert parse_raw(printed.stdout.replace("\n", ",")) == compile_expression("udp port 5060")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "wants what `tcpdump -ddd` prints"),
        ("udp", "wants what `tcpdump -ddd` prints"),
        ("2,6 0 0 1", "says 2 instructions and has 1"),
        ("0", "says 0 instructions and has 0"),
        ("1,6 0 0", 'instruction 0 is "6 0 0"'),
        ("1,6 0 256 1", 'instruction 0 is "6 0 256 1"'),
        ("1,6 0 0 4294967296", "instruction 0"),
        ("1,6 0 -1 0", "instruction 0"),
    ],
)
def test_raw_that_is_none_is_refused(text, message):
    with pytest.raises(ConfigurationInvalid, match=message):
        parse_raw(text)


def test_cooked_programs_start_at_the_network_layer():
    """The socket has no link header there: protocol and packet type are ancillary loads."""
    program = compile_capture_filter("udp port 5060", link_type=113).kernel
    loads = [insn.k for insn in program if insn.code in (0x20, 0x28, 0x30)]
    assert capture_program.AD_PROTOCOL in loads
    # The farthest look is at an IPv6 UDP destination port.
    assert max(k for k in loads if k < capture_program.AD_OFF) == 42
    assert compile_capture_filter("ether host 02:00:00:00:00:01", link_type=113).kernel == ()
    assert compile_capture_filter("less 100", link_type=113).kernel == ()


def test_as_it_is_is_what_tcpdump_attaches():
    made = compile_capture_filter("udp port 5060", tunnels=["vxlan"], as_it_is=True)
    assert list(made.kernel) == compile_expression("udp port 5060")
    assert made.exact == ()
    with pytest.raises(ConfigurationInvalid, match="cooked interface"):
        compile_capture_filter("less 100", link_type=113, as_it_is=True)


def test_explain_shows_both_programs_and_what_was_widened():
    text = explain("udp port 5060", tunnels=["vxlan", "gre"])
    assert "IPv4 and IPv6 fragments" in text
    assert "vxlan: all on UDP port 4789, 4790" in text
    assert "gre: all on IP protocol 47" in text
    assert "kernel program, " in text
    assert "exact program, 20 instructions:\n(000) ldh [12]" in text
    assert "names port 4789" in explain("udp port 4789", tunnels=["vxlan"])


def test_the_listing_is_tcpdumps():
    printed = subprocess.run(
        ["tcpdump", "-d", "-y", "EN10MB", "udp port 5060"],
        capture_output=True,
        text=True,
        check=False,
    )
    if printed.returncode != 0:
        pytest.skip(f"tcpdump: {printed.stderr.strip()}")
    ours = capture_program.listing(compile_expression("udp port 5060"))
    squeeze = [" ".join(line.split()) for line in printed.stdout.splitlines()]
    assert ours == squeeze


def test_interfaces_are_cooked_unless_ethernet():
    assert interface_link_type("lo") == 1
    assert interface_link_type("any") == 113
    assert interface_link_type("no-such-interface") == 1


def test_a_jump_that_is_too_far_is_a_defect():
    asm = Assembler()
    asm.jump(capture_program.JEQ, 1, "far")
    for _ in range(256):
        asm.put(capture_program.TXA)
    asm.place("far")
    asm.put(capture_program.RET_K, 1)
    with pytest.raises(AssertionError, match="too far"):
        asm.assemble()


TUNNELS = ("vxlan", "geneve", "gtpu", "tzsp", "gre", "erspan", "ipip")


@given(
    tunnels=st.lists(st.sampled_from(TUNNELS), unique=True),
    ports=st.lists(st.integers(1, 65535), min_size=1, max_size=8, unique=True),
    link_type=st.sampled_from((1, 113)),
    expression=st.sampled_from(("udp port 5060", "vlan 3", "tcp or sctp", "host 10.0.0.1 or ip6")),
)
def test_every_program_that_is_made_is_valid(tunnels, ports, link_type, expression):
    """Jumps stay inside and end in a return, whatever the task follows."""
    everywhere = dict.fromkeys(("vxlan", "geneve", "gtpu", "tzsp"), ports)
    made = compile_capture_filter(
        expression, link_type=link_type, tunnels=tunnels, tunnel_ports=everywhere
    )
    for program in (made.kernel, made.exact, fanout_program(tunnels, everywhere)):
        for index, insn in enumerate(program):
            if insn.code & 7 == 5:
                far = insn.k if insn.code == 5 else max(insn.jt, insn.jf)
                assert index + 1 + far < len(program)
        assert not program or program[-1].code & 7 == 6


@given(
    frame=st.binary(max_size=120),
    expression=st.sampled_from(
        ("udp port 5060", "not tcp", "host 10.0.0.1", "vlan and ip", "mpls", "greater 60")
    ),
    tunnels=st.lists(st.sampled_from(TUNNELS), unique=True, max_size=3),
    head=st.sampled_from(
        (b"", ethernet(0x0800, b""), ethernet(0x86DD, b""), ethernet(0x8100, b"\0\5\x08\0"))
    ),
)
@settings(max_examples=300)
def test_the_kernel_takes_all_that_the_expression_takes(frame, expression, tunnels, head):
    """Widening only ever adds: where the frame as it is matches, it is taken.

    `vlan` reads the ring's metadata first, which libpcap's machine has not.
    """
    made = compile_capture_filter(expression, tunnels=tunnels)
    program = list(made.kernel)
    if program[0].k == capture_program.AD_VLAN_TAG_PRESENT:
        del program[:3]
    # Long enough for every header that is looked at: a shorter one is undecodable.
    whole = head + frame + bytes(100)
    assert accepts(program, whole) >= accepts(made.exact, whole)


def test_the_module_loads_without_libpcap():
    """Importing the agent must not need it: only an expression does."""
    code = "import ctypes; ctypes.CDLL = None; import otus_agent.capture_filter"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_views_are_the_cores():
    import otus_core

    assert {view.name: int(view) for view in ExactView} == {
        view.name: int(view) for view in otus_core.ExactView
    }
    assert int(ExactView.INNER) == int(otus_core.ExactView.INNER)


def test_the_command_prints_the_explanation():
    from click.testing import CliRunner

    from otus_agent.cli.explain_filter import explain_filter

    run = CliRunner()
    done = run.invoke(explain_filter, ["udp port 5060", "-t", "vxlan:8472,gre", "-i", "lo"])
    assert done.exit_code == 0
    assert "vxlan: all on UDP port 8472\n" in done.output
    assert (
        done.output
        == explain("udp port 5060", tunnels=["vxlan", "gre"], tunnel_ports={"vxlan": [8472]}) + "\n"
    )
    for wrong in ("vxlam", "gre:47", "vxlan:0", "vxlan:x"):
        assert run.invoke(explain_filter, ["udp", "-t", wrong]).exit_code == 2
