"""The reference pages of records and of expressions name all that there is, and no more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otus_sdk.expression import NETWORK_FIELDS, ExpressionError, Schema, compile_expression
from otus_sdk.expression.compiler import Operation
from otus_sdk.expression.parser import METHODS
from otus_sdk.labels import BUILTIN_LABELS

ROOT = Path(__file__).resolve().parents[2]
RECORD = (ROOT / "docs/reference/record.md").read_text(encoding="utf-8")
EXPRESSIONS = (ROOT / "docs/reference/filter-expressions.md").read_text(encoding="utf-8")
BYTECODE = (ROOT / "docs/internals/filter-bytecode.md").read_text(encoding="utf-8")
SCHEMA = (ROOT / "configs/otus.proto").read_text(encoding="utf-8")

#: What only one of the two forms has; the page's last section says so.
ONLY_JSON = {"Record": {"timestamp", "payload"}, "Sip": {"body_base64"}}
ONLY_PROTOBUF = {"Record": {"timestamp_ns", "sip", "rtp", "rtcp", "payload_json"}}


def tables(page: str) -> dict[str, list[list[str]]]:
    """The cells of each section's table rows, by the section's heading."""
    found: dict[str, list[list[str]]] = {}
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        rows = re.findall(r"^\|(.+)\|$", text, flags=re.MULTILINE)
        cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)] for row in rows]
        found[heading] = cells[2:]
    return found


def names(rows: list[list[str]]) -> list[str]:
    """What stands in code marks in the first column."""
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row[0])]


def messages() -> dict[str, set[str]]:
    """The fields of each message of the schema."""
    text = re.sub(r"//.*", "", SCHEMA)
    text = re.sub(r"oneof \w+ \{([^}]*)\}", r"\1", text)
    return {
        name: set(re.findall(r"(\w+) = \d+;", body))
        for name, body in re.findall(r"message (\w+) \{([^}]*)\}", text)
    }


def test_every_field_of_a_record_is_described() -> None:
    """Each message of the schema has a table with exactly its fields, and JSON's own."""
    described = tables(RECORD)
    schema = messages()
    assert schema.pop("SipHeader") == {"name", "value"}  # a pair in JSON
    assert len(schema["Sip"]) == 21
    for message, fields in schema.items():
        keys = names(described[message])
        wanted = fields - ONLY_PROTOBUF.get(message, set()) | ONLY_JSON.get(message, set())
        assert sorted(keys) == sorted(wanted), message
    assert set(described) == {*schema, "Protobuf"}
    for name in ("timestamp_ns", "payload_json", "body_base64", "SipHeader"):
        assert f"`{name}`" in RECORD.partition("## Protobuf")[2] or name == "SipHeader"


def test_every_field_of_an_expression_is_described() -> None:
    """Each network field and label has a row with its type."""
    described = tables(EXPRESSIONS)
    schema = Schema()
    for section, wanted in (("Network fields", NETWORK_FIELDS), ("Labels", BUILTIN_LABELS)):
        assert sorted(names(described[section])) == sorted(wanted)
        for row in described[section]:
            for name in names([row]):
                kind = schema.type_of(name)
                assert kind is not None
                assert row[1] == kind.value, name
    functions = [name for row in described["Functions"] for name in re.findall(r"(\w+)\(", row[0])]
    assert sorted(functions) == sorted([*METHODS, "has"])


def test_every_number_of_a_program_is_described() -> None:
    """Operations and network fields have the numbers that the page says."""
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", BYTECODE, flags=re.MULTILINE)
    assert [(name, int(number)) for name, number in rows] == [(o.name, o.value) for o in Operation]
    fields = re.findall(r"`(\w+)` (\d+)", re.findall(r"network field: (.+) \|", BYTECODE)[0])
    assert {name: int(number) for name, number in fields} == dict(NETWORK_FIELDS)


def test_examples_of_the_page_compile() -> None:
    """The page's expressions hold, and the message it shows is the one there is."""
    blocks = re.findall(r"(?:^    .+\n)+", EXPRESSIONS, flags=re.MULTILINE)
    condition, refusal = (re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in blocks)
    compile_expression(condition.strip())
    with pytest.raises(ExpressionError) as caught:
        compile_expression(refusal.splitlines()[1].strip())
    assert caught.value.pointed() == refusal.rstrip()


@pytest.mark.parametrize(
    "text",
    [
        "sip.cseq == '5'",
        "src_ip == '10.0'",
        "protocol == 'upd'",
        "sip.method",
        "sip.cseq + 1 == 2",
        "ttl > 1.5",
        "truncated ? true : false",
        "ttl == 5u",
        "sip.method == b'x'",
        "sip.method.matches(r'\\p{Greek}')",
        "ttl in [" + "1, " * 4096 + "1]",
        "!" * 65 + "true",
        "true" + " " * 8192,
    ],
)
def test_what_the_page_calls_refused_is(text: str) -> None:
    """Each kind of expression that the page says is refused is."""
    with pytest.raises(ExpressionError):
        compile_expression(text)
