"""Expressions: what is refused and where the message points, limits, and the schema."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus_sdk.errors import ConfigurationInvalid
from otus_sdk.expression import ExpressionError, Schema, compile_expression, evaluate
from otus_sdk.expression.address import canonical_ip
from otus_sdk.labels import LabelType
from otus_sdk.model import OutputPacket, Tunnel

SCHEMA = Schema({"sip.header.x_cid": LabelType.STRING, "x-y": LabelType.STRING})


@pytest.mark.parametrize(
    ("text", "under", "says"),
    [
        ("sip.metod == 'x'", "sip.metod", "did you mean sip.method"),
        ("method == 'x'", "method", "did you mean sip.method"),
        ("sip.method == 5060", "==", "sip.method is text: write '5060'"),
        ("sip.status_code == '200'", "==", "is a number: write 200 without quotes"),
        ("sip.method", "sip.method", "compare it: sip.method == '...'"),
        ("!sip.method", "sip.method", "'!' needs a bool"),
        ("sip.cseq && true", "sip.cseq", "'&&' needs a bool"),
        ("has(src_ip)", "src_ip", "is there on every packet"),
        ("has('a')", "'a'", "has() takes a label"),
        ("src_ip == '10.0.0'", "'10.0.0'", "is no IP address"),
        ("src_ip in ['10.0.0.1', 'x']", "'x'", "is no IP address"),
        ("dst_ip == '2001:DB8::1'", "'2001:DB8::1'", "write the address as '2001:db8::1'"),
        ("protocol == 'UDP'", "'UDP'", "no protocol 'UDP'"),
        ("tunnel == 'vlan'", "'vlan'", "no tunnel 'vlan'"),
        ("truncated < reassembled", "<", "orders numbers and strings"),
        ("sip.method in 'a'", "'a'", "needs a list"),
        ("sip.method in [1]", "1", "the list holds an int"),
        ("sip.method in [sip.reason]", "sip.reason", "holds literals only"),
        ("['a'] == 'a'", "['a']", "stands right of 'in' only"),
        ("sip.method = 'a'", "=", "comparison is '=='"),
        ("truncated & true", "&", "'and' is '&&'"),
        ("truncated ? true : false", "?", "conditional operator"),
        ("sip.cseq + 1 == 2", "+", "arithmetic is not supported"),
        ("sip.cseq == 1.5", "1.5", "fraction"),
        ("sip.cseq == 1u", "1u", "leave out the 'u'"),
        ("sip.cseq == 9223372036854775808", "9223372036854775808", "does not fit 64 bits"),
        ("sip.method == null", "null", "use has(field)"),
        ("sip.method == 'abc", "'abc", "never closed"),
        (r"sip.method == '\d'", r"\d", "unknown escape"),
        ("sip.method == b'a'", "b'", "bytes literals"),
        ("sip.method.size() == 1", "size", "unknown function 'size'"),
        ("size(sip.method) == 1", "size", "unknown function 'size'"),
        ("sip.method.matches(sip.reason)", "sip.reason", "as a literal"),
        ("sip.method.matches('(?=a)')", "'(?=a)'", "lookaround"),
        (r"sip.method.matches(r'(a)\1')", r"r'(a)\1'", "backreferences"),
        ("(sip.method == 'a'", "", "expected ')'"),
        ("sip.method == ", "", "expected a field or a value, but it ends"),
        ("sip.method == 'a' 'b'", "'b'", "unexpected \"'b'\" behind"),
        ("", "", "is empty"),
        ("1", "1", "a condition needs a bool"),
        ("labels['no.such'] == 'a'", "labels['no.such']", "unknown field 'no.such'"),
        ("sip.method == 'a' @", "@", "unexpected character"),
    ],
)
def test_refused_with_a_place(text: str, under: str, says: str) -> None:
    """Each mistake is named, and the caret line underlines exactly what is wrong."""
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, SCHEMA)
    error = caught.value
    assert isinstance(error, ConfigurationInvalid)
    assert says in error.message
    assert "\n" not in error.message
    assert text[error.span.start : error.span.end] == under
    assert f"column {error.column}" in error.message
    *_, line, carets = error.pointed().split("\n")
    start = carets.index("^")
    assert line[start : start + len(carets.strip())] == (under or line[start : start + 1])
    assert error.details["column"] == error.span.start + 1


def test_caret_in_the_right_line() -> None:
    """In an expression of several lines the line with the mistake is shown."""
    with pytest.raises(ExpressionError) as caught:
        compile_expression("truncated &&\n\tsip.metod == 'a' &&\n truncated")
    assert caught.value.pointed().split("\n")[1:] == ["  \tsip.metod == 'a' &&", "  \t^~~~~~~~~"]


@pytest.mark.parametrize(
    "text",
    [
        "(" * 1000 + "true" + ")" * 1000,
        "!" * 1000 + "true",
        "true" + " " * 10000,
        "truncated == (" * 20 + "truncated" + ")" * 20,
        "==".join(["true"] * 1000),
        "sip.method" + ".contains('a')" * 500,
        "sip.cseq in [" + ",".join(map(str, range(5000))) + "]",
    ],
    ids=["parentheses", "nots", "length", "doubling", "chain", "calls", "items"],
)
def test_bounded(text: str) -> None:
    """Nothing that can be written costs more than it should: the limits say no."""
    with pytest.raises(ExpressionError):
        compile_expression(text)


def test_long_chains_compile() -> None:
    """A condition may well have hundreds of parts."""
    assert compile_expression("||".join(f"sip.cseq=={n}" for n in range(500)))
    assert compile_expression("&&".join(["true"] * 1300))


def check_text(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        compile_expression(text)


@given(st.text(max_size=60))
def test_any_text_is_refused_or_compiled(text: str) -> None:
    """No text makes anything but a program or an ExpressionError."""
    check_text(text)


@given(
    st.lists(
        st.sampled_from(
            [
                "sip.method",
                "src_ip",
                "sip.cseq",
                "truncated",
                "==",
                "!=",
                "<",
                "in",
                "&&",
                "||",
                "!",
                "(",
                ")",
                "[",
                "]",
                ",",
                ".",
                "'a'",
                "1",
                "-1",
                "startsWith",
                "matches",
                "('a')",
                "has(sip.method)",
                "true",
                "labels",
            ]
        ),
        max_size=14,
    )
)
def test_any_tokens_are_refused_or_compiled(tokens: list[str]) -> None:
    """The same for texts that look like expressions."""
    check_text(" ".join(tokens))


def test_fields_of_a_program() -> None:
    """A program tells which fields it looks at, the ones in has() included."""
    program = compile_expression("has(sip.reason) || src_ip == '::' && labels['x-y'] == ''", SCHEMA)
    assert program.fields == {"sip.reason", "src_ip", "x-y"}


def test_label_ids_can_be_given() -> None:
    """Where the core interned labels in another order, its ids are used."""
    one = compile_expression("a.b == 'x'", Schema({"a.b": LabelType.STRING}))
    other = compile_expression("a.b == 'x'", Schema({"a.b": LabelType.STRING}, {"a.b": 99}))
    assert one.bytecode != other.bytecode
    assert bytes([99, 0]) in other.bytecode


def test_records_are_evaluated() -> None:
    """A record gives its network fields and labels; a label not declared is a string."""
    packet = OutputPacket(
        ts_ns=0, src_ip="2001:db8::1", protocol=6, vlans=(5, 6), labels={"sip.cseq": "7", "own.x": "y"},
        tunnels=(Tunnel("gre", None, "1.1.1.1", "2.2.2.2"),),
    )  # fmt: skip
    assert evaluate("protocol == 'tcp' && vlan == 5 && tunnel == 'gre' && ip_version == 6", packet)
    assert evaluate("sip.cseq == 7 && own.x == 'y' && own.z == '' && !has(own.z)", packet)
    assert not evaluate("has(sip.method)", packet)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("010.0.0.1", None),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("::ffff:102:304", "::ffff:1.2.3.4"),
        ("fe80::1%eth0", None),
        ("x", None),
    ],
)
def test_canonical_addresses(text: str, canonical: str | None) -> None:
    """RFC 5952, as the core writes addresses."""
    assert canonical_ip(text) == canonical
