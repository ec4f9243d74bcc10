"""The core's filter runner beside the Python reference and a CEL implementation."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from native_parts import library
from otus_sdk.expression import NETWORK_FIELDS, Schema, compile_expression, evaluate
from otus_sdk.expression.automaton import compile_pattern, matches
from otus_sdk.expression.regex import RegexError
from otus_sdk.expression.tree import FieldType
from otus_sdk.labels import BUILTIN_LABELS, LabelType
from otus_sdk.model import PROTOCOL_NAMES, TunnelKind

PROTOCOLS = {name: number for number, name in PROTOCOL_NAMES.items()}
TUNNELS = ["", *(kind.value for kind in TunnelKind)]
CUSTOM = {
    "sip.header.x_cid": LabelType.STRING,
    "tag.region": LabelType.STRING,
    "my.count": LabelType.INT,
}
SCHEMA = Schema(CUSTOM)
LABELS = {**BUILTIN_LABELS, **CUSTOM}

Fields = Mapping[str, str | int | bool]


class NativeFilter:
    """A program loaded into the core."""

    def __init__(self, program: bytes) -> None:
        self.ffi, self.lib = library()
        handle = self.ffi.new("struct otus_filter **")
        message = self.ffi.new("char[]", 200)
        status = self.lib.otus_filter_load(handle, message, 200, program, len(program))
        if status != 0:
            raise ValueError(self.ffi.string(message).decode())
        self.filter = self.ffi.gc(handle[0], self.lib.otus_filter_free)

    def run(self, fields: Fields) -> bool:
        ffi = self.ffi
        keep: list[Any] = []

        def slice_of(text: str) -> Any:
            octets = ffi.from_buffer(text.encode() or b"\0")
            keep.append(octets)
            return {"at": ffi.cast("const uint8_t *", octets), "len": len(text.encode())}

        labels = ffi.new("struct otus_label_set *")
        values = {name: str(fields[name]).encode() for name in LABELS if name in fields}
        arena = ffi.from_buffer(b"".join(values.values()) or b"\0")
        labels.octets = at = ffi.cast("const uint8_t *", arena)
        for name, value in values.items():
            self.lib.otus_label_put(labels, SCHEMA.label_id(name), {"at": at, "len": len(value)})
            at += len(value)
        meta = ffi.new("struct otus_packet_meta *")
        for name in ("src_port", "dst_port", "ttl", "caplen", "wirelen", "ip_version"):
            setattr(meta, name, int(fields.get(name, 0)))
        for name in ("src_ip", "dst_ip"):
            if fields.get(name):
                packed = ipaddress.ip_address(str(fields[name])).packed
                setattr(meta, name, packed.ljust(16, b"\0"))
        meta.protocol = int(PROTOCOLS.get(str(fields["protocol"]), 0) or fields["protocol"])
        if fields.get("vlan"):
            meta.num_vlans, meta.vlans[0] = 1, int(fields["vlan"])
        tunnels = ffi.new("struct otus_tunnel[8]")
        if fields.get("tunnel"):
            meta.num_tunnels, tunnels[0].kind = 1, TUNNELS.index(str(fields["tunnel"]))
        meta.flags = bool(fields.get("truncated")) | bool(fields.get("reassembled")) << 1
        source = ffi.new("struct otus_filter_input *")
        source.meta, source.tunnels, source.labels = meta, tunnels, labels
        source.payload_type = slice_of(str(fields["payload_type"]))
        return bool(self.lib.otus_filter_run(self.filter, source))


def native(text: str, fields: Fields) -> bool:
    return NativeFilter(compile_expression(text, SCHEMA).bytecode).run(fields)


PACKET: dict[str, str | int | bool] = {
    "src_ip": "10.0.0.1", "dst_ip": "2001:db8::1", "src_port": 5060, "dst_port": 5061,
    "protocol": "udp", "payload_type": "sip", "ip_version": 4, "ttl": 64, "vlan": 7,
    "tunnel": "vxlan", "caplen": 100, "wirelen": 200, "truncated": True, "reassembled": False,
    "sip.method": "OPTIONS", "sip.cseq": "17", "sip.from_uri": "sip:+4930@example.com",
    "sip.header.x_cid": "é€😀", "my.count": "-5",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("sip.method == 'OPTIONS'", True),
        ("sip.method != 'OPTIONS'", False),
        ("sip.method == 'OPTION'", False),
        ("'OPTIONS' == sip.method", True),
        ("sip.cseq == 17 && sip.cseq != 18 && sip.cseq < 18 && sip.cseq <= 17", True),
        ("sip.cseq > 16 && sip.cseq >= 17 && 16 < sip.cseq", True),
        ("sip.cseq > 17 || sip.cseq < 17", False),
        ("my.count == -5", True),
        ("sip.status_code == -1 && sip.reason == '' && !has(sip.reason)", True),
        ("rtp.payload_type == 0", False),
        ("sip.method in ['INVITE', 'OPTIONS']", True),
        ("sip.method in []", False),
        ("sip.cseq in [1, 17, 3]", True),
        ("src_port in [1, 2]", False),
        ("src_ip in ['10.0.0.2', '10.0.0.1']", True),
        ("src_ip == '10.0.0.1' && dst_ip != '2001:db8::2'", True),
        ("src_ip.startsWith('10.') && !src_ip.startsWith('11.')", True),
        ("sip.from_uri.endsWith('@example.com') && sip.from_uri.contains('4930')", True),
        ("sip.from_uri.matches('^sip:[+]?[0-9]+@')", True),
        ("sip.from_uri.matches(r'^sip:\\d+@')", False),
        ("labels['sip.header.x_cid'].matches('^...$')", True),
        ("'sip.header.x_cid' in labels && !('tag.region' in labels)", True),
        ("protocol == 'udp' && payload_type == 'sip' && tunnel == 'vxlan' && vlan == 7", True),
        ("truncated && !reassembled && truncated != reassembled", True),
        ("truncated == (sip.method == 'OPTIONS')", True),
        ("sip.method < 'P' && 'O' < sip.method && sip.method >= 'OPTIONS'", True),
        ("false || !false && (true || sip.cseq == 1)", True),
        ("wirelen > caplen && ttl == 64 && ip_version == 4 && dst_port == 0x13c5", True),
        ("src_ip != dst_ip && src_port != dst_port", True),
    ],
)
def test_meaning(text: str, holds: bool) -> None:
    """Each operator means in the core and in Python what its row says."""
    assert evaluate(text, PACKET, SCHEMA) is holds
    assert native(text, PACKET) is holds


# --- random expressions ------------------------------------------------------------

WORDS = ["", "a", "sip", "INVITE", "OPTIONS", "10.", "10.0.0.1", "é", "😀", "a.b", "aaa", "0"]
NUMBERS = [-1, 0, 1, 200, 5060, 2**32, -(2**63), 2**63 - 1]
PATTERNS = [
    "a*", "^a", "a$", "^$", "[a-c]+b?", "(a|b){2,3}", r"\d+", r"\bsip\b", "(?i)invite", ".",
    "^.$", "[^a]", "10[.]0", "^(sip|a)", r"\.", "é|😀", "x{0}", "(?s)^.*$", r"\w\W",
]  # fmt: skip
IPS = ["10.0.0.1", "10.0.0.2", "2001:db8::1", "::ffff:1.2.3.4", "::"]
BY_TYPE = {
    kind: sorted(
        [name for name, field in NETWORK_FIELDS.items() if field.type is kind]
        + [name for name in LABELS if SCHEMA.type_of(name) is kind]
    )
    for kind in FieldType
}
FREE_STRINGS = [
    name
    for name in BY_TYPE[FieldType.STRING]
    if name not in ("src_ip", "dst_ip", "protocol", "tunnel")
]


def quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\0", "\\0") + "'"


strings = st.sampled_from(BY_TYPE[FieldType.STRING])
string_literals = st.sampled_from(WORDS).map(quote)
number_operands = st.sampled_from(BY_TYPE[FieldType.INT]) | st.sampled_from(NUMBERS).map(str)
relations = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
tests = st.one_of(
    st.builds("{} {} {}".format, st.sampled_from(FREE_STRINGS), relations, string_literals),
    st.builds("{} {} {}".format, strings, relations, strings),
    st.builds("{} {} {}".format, strings, st.sampled_from(["<", ">="]), string_literals),
    st.builds("{} {} {}".format, number_operands, relations, number_operands),
    st.builds(
        "{} in [{}]".format,
        st.sampled_from(FREE_STRINGS),
        st.lists(string_literals, min_size=1, max_size=4).map(", ".join),
    ),
    st.builds(
        "{} in [{}]".format,
        number_operands,
        st.lists(st.sampled_from(NUMBERS).map(str), min_size=1, max_size=4).map(", ".join),
    ),
    st.builds(
        "{} {} {}".format,
        st.sampled_from(["src_ip", "dst_ip"]),
        st.sampled_from(["==", "!="]),
        st.sampled_from(IPS).map(quote),
    ),
    st.builds(
        "{}.{}({})".format,
        strings,
        st.sampled_from(["startsWith", "endsWith", "contains"]),
        strings | string_literals,
    ),
    st.builds("{}.matches({})".format, strings, st.sampled_from(PATTERNS).map(quote)),
    st.sampled_from(["true", "false", *BY_TYPE[FieldType.BOOL]]),
    st.builds("has({})".format, st.sampled_from(sorted(LABELS))),
)
expressions = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!({})".format, inner),
        st.builds("({}) == ({})".format, inner, inner),
        st.builds("({}) != ({})".format, inner, inner),
    ),
    max_leaves=8,
)
# The oracle's binding cuts texts at NUL: see test_nul_is_an_octet_like_others.
characters = st.characters(exclude_categories=("Cs",), exclude_characters="\0")
texts = st.sampled_from(WORDS) | st.text(characters, max_size=8)
packets = st.fixed_dictionaries(
    {
        "src_ip": st.sampled_from(IPS),
        "dst_ip": st.sampled_from(IPS),
        "protocol": st.sampled_from(sorted(PROTOCOLS)) | st.just("200"),
        "payload_type": st.sampled_from(["sip", "rtp", "raw", "a"]),
        "tunnel": st.sampled_from(TUNNELS),
        "src_port": st.sampled_from([0, 5060, 65535]),
        "dst_port": st.sampled_from([0, 5060, 65535]),
        "ttl": st.integers(0, 255),
        "vlan": st.sampled_from([0, 1, 4095]),
        "caplen": st.integers(0, 2**32 - 1),
        "wirelen": st.integers(0, 2**32 - 1),
        "truncated": st.booleans(),
        "reassembled": st.booleans(),
    },
    optional={
        name: (texts if kind is LabelType.STRING else st.sampled_from(NUMBERS).map(str) | texts)
        for name, kind in LABELS.items()
    },
)


def with_version(fields: dict[str, Any]) -> dict[str, Any]:
    version = 6 if ":" in fields["src_ip"] else 4
    other = 6 if ":" in fields["dst_ip"] else 4
    if version != other:  # a packet has one IP version
        fields = {**fields, "dst_ip": fields["src_ip"]}
    return {**fields, "ip_version": version}


class Oracle:
    """The same condition in another implementation of CEL.

    Labels become plain variables with the values that absent ones read as, and
    `has()` a variable of its own, since CEL's is about members of messages.
    """

    def __init__(self) -> None:
        from cel_expr_python import cel

        kinds = {
            FieldType.STRING: cel.Type.STRING,
            FieldType.INT: cel.Type.INT,
            FieldType.BOOL: cel.Type.BOOL,
        }
        variables = {}
        for name in [*NETWORK_FIELDS, *LABELS]:
            kind = SCHEMA.type_of(name)
            assert kind is not None
            variables[self.plain(name)] = kinds[kind]
            variables["has_" + self.plain(name)] = cel.Type.BOOL
        self.environment = cel.NewEnv(variables=variables)

    @staticmethod
    def plain(name: str) -> str:
        return name.replace(".", "_")

    def translate(self, text: str) -> str:
        pieces = re.split(r"('(?:[^'\\]|\\.)*')", text)
        names = sorted(LABELS, key=len, reverse=True)
        for index in range(0, len(pieces), 2):
            for name in names:
                pieces[index] = pieces[index].replace(f"has({name})", f"has_{self.plain(name)}")
                pieces[index] = pieces[index].replace(name, self.plain(name))
        return "".join(pieces)

    def run(self, text: str, fields: Fields) -> bool:
        data: dict[str, Any] = {}
        for name in [*NETWORK_FIELDS, *LABELS]:
            value = fields.get(name)
            kind = SCHEMA.type_of(name)
            if name in LABELS and kind is FieldType.INT:
                found = re.fullmatch(r"-?[0-9]{1,18}", str(value)) if value is not None else None
                value = int(found.group()) if found else -1
            default: Any = {FieldType.STRING: "", FieldType.INT: 0, FieldType.BOOL: False}[
                kind or FieldType.INT
            ]
            data[self.plain(name)] = default if value is None else value
            data["has_" + self.plain(name)] = name in fields
        answer = self.environment.compile(self.translate(text)).eval(data=data).plain_value()
        assert isinstance(answer, bool), answer
        return answer


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    pytest.importorskip("cel_expr_python", reason="cel-expr-python has no wheel for this machine")
    return Oracle()


@settings(max_examples=400)
@given(text=expressions, fields=packets.map(with_version))
@example(text="sip.method.contains('')", fields=with_version({**PACKET, "dst_ip": "10.0.0.1"}))
def test_core_equals_reference_and_oracle(text: str, fields: Fields, oracle: Oracle) -> None:
    """For any well-typed condition and packet all three say the same."""
    expected = evaluate(text, fields, SCHEMA)
    assert native(text, fields) is expected
    assert oracle.run(text, fields) is expected


pattern_atoms = st.sampled_from(
    ["a", "b", "é", "😀", ".", "[ab]", "[^a]", "[a-é]", r"\d", r"\W", r"\s", "0", "_", r"\b", r"\B", "^", "$",
     "(?i)K", "(?i:ß)", "(?m)^", "(?m:$)", "(?s).", r"\n", r"\x{1F600}", r"\x61", "[[:alpha:]]", "()", r"\Qa.\E", "-"]
)  # fmt: skip
patterns = st.recursive(
    pattern_atoms,
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds(
            "(?:{}){}".format,
            inner,
            st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", "+?", "{0}"]),
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=600)
@given(
    pattern=patterns,
    text=st.text(st.sampled_from("aAbB0_é😀ſKkß \n-."), max_size=8)
    | st.text(characters, max_size=6),
)
@example(pattern="^a$", text="a\n")
@example(pattern="(?m)^b$", text="a\nb\n")
@example(pattern=r"\b", text="é")
def test_patterns_equal_re2(pattern: str, text: str, oracle: Oracle) -> None:
    """An automaton, the network it is made from, and RE2 find the same matches."""
    expected = (
        oracle.environment.compile(f"sip_method.matches({quote(pattern)})")
        .eval(data={"sip_method": text})
        .plain_value()
    )
    assert matches(pattern, text.encode()) is expected
    assert compile_pattern(pattern).run(text.encode()) is expected
    expression = f"sip.method.matches({quote(pattern)})"
    assert native(expression, {**PACKET, "sip.method": text}) is expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("sip.method.matches('^a.b$')", True),
        ("sip.method.matches('a$')", False),
        ("sip.method.endsWith('b')", True),
        ("sip.method.contains('\0')", True),
        ("sip.method == 'a'", False),
        ("sip.method == 'a\0b'", True),
    ],
)
def test_nul_is_an_octet_like_others(expression: str, expected: bool) -> None:
    fields = {**PACKET, "sip.method": "a\0b"}
    assert native(expression, fields) is expected
    assert evaluate(expression, fields, SCHEMA) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?=a)",
        r"(a)\1",
        "(?<!a)b",
        "(",
        "a)",
        "[a",
        "*a",
        "a**",
        "a{2}{3}",
        r"\p{Greek}",
        "a{1001}",
        "[b-a]",
        "(?P=x)",
        r"\k<x>",
        "(?>a)",
        r"\Z",
        "[[:foo:]]",
    ],
)
def test_patterns_refused(pattern: str) -> None:
    """What linear time can't do, and what is no pattern, is refused."""
    with pytest.raises(RegexError):
        compile_pattern(pattern)


def test_states_are_bounded() -> None:
    """A pattern whose automaton would be exponential is refused, quickly."""
    with pytest.raises(RegexError, match="more than 2000 states"):
        compile_pattern("(?:a|b)*a(?:a|b){16}c")


PROGRAM = compile_expression(
    "sip.method in ['a', 'b'] && src_ip == '10.0.0.1' || sip.from_uri.matches('a+b') && sip.cseq in [1, 2]"
    " || src_ip in ['10.0.0.1'] && truncated && has(sip.method)",
    SCHEMA,
).bytecode


def test_every_cut_program_is_refused() -> None:
    """A program that ends early, or goes on, does not load."""
    NativeFilter(PROGRAM)
    for length in range(len(PROGRAM)):
        with pytest.raises(ValueError, match="filter program"):
            NativeFilter(PROGRAM[:length])
    with pytest.raises(ValueError, match="end 0 is invalid"):
        NativeFilter(PROGRAM + b"\0")


@settings(max_examples=300)
@given(at=st.integers(0, len(PROGRAM) - 1), value=st.integers(0, 255))
def test_changed_programs_load_or_not_and_run(at: int, value: int) -> None:
    """Whatever octet is changed, a program is refused or runs to an answer."""
    changed = bytearray(PROGRAM)
    changed[at] = value
    try:
        loaded = NativeFilter(bytes(changed))
    except ValueError:
        return
    loaded.run(PACKET)
