"""YAML 1.2 documents with places."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus_agent.config.documents import DocumentError, parse_document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:30:00", "12:30:00"),
        ("no", "no"),
        ("on", "on"),
        ("0o17", 15),
        ("017", 17),
        ("0x1F", 31),
        ("1e3", 1000.0),
        (".inf", float("inf")),
        ("~", None),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("! 5", "5"),
        ("&a !!str 5", "5"),
        ("!!float 5", 5.0),
        ("2026-01-01", "2026-01-01"),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    parsed = parse_document(f"key: {text}").data["key"]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "place", "part"),
    [
        ("a: 1\nb: 2\na: 3", (3, 1), "given twice, first on line 1"),
        ("a:\n  - b\n c: 1", (3, 2), "not valid YAML"),
        ("a: &x [*x]", (1, 4), "nested deeper"),
        ("[" * 5000, (1, 1), "nested deeper"),
        ("a: 1\n---\nb: 2", (2, 1), "another document"),
        ("a: !!python/object:os.system {}", (1, 4), "not allowed"),
        ("? [a]\n: 1", (1, 3), "plain text"),
        ("a: !!int x", (1, 4), "not of the tagged type"),
    ],
)
def test_a_bad_document_is_refused_with_its_place(
    text: str, place: tuple[int, int], part: str
) -> None:
    with pytest.raises(DocumentError, match=part) as caught:
        parse_document(text)
    assert (caught.value.line, caught.value.column) == place


def test_aliases_that_expand_without_bound_are_refused() -> None:
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 9)]
    with pytest.raises(DocumentError, match="holds more than"):
        parse_document("\n".join(lines))


def test_places_are_those_of_the_text() -> None:
    document = parse_document("log:\n  level: info\n  outputs: [{type: file}, x]\n")
    assert document.values["log", "level"] == (2, 10)
    assert document.keys["log", "level"] == (2, 3)
    assert document.values["log", "outputs", 0, "type"] == (3, 20)
    assert document.values["log", "outputs", 1] == (3, 27)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=20,
)


def read(text: str) -> tuple[object, DocumentError | None]:
    try:
        return parse_document(text).data, None
    except DocumentError as error:
        return None, error


@given(st.dictionaries(st.text(max_size=20), JSON_VALUES, max_size=5), st.booleans())
def test_every_json_object_reads_as_itself(value: dict[str, object], tabs: bool) -> None:
    text = json.dumps(value, ensure_ascii=True, indent="\t" if tabs else None)
    data, error = read(text)
    if error is None:
        assert data == json.loads(text)
    else:  # PyYAML takes no simple key longer than 1,024 octets.
        assert "not valid YAML" in error.message
        assert len(text) > 1024


@given(st.text(max_size=200))
def test_any_text_is_a_document_or_a_document_error(text: str) -> None:
    _, error = read(text)
    if error is not None:
        assert error.line >= 1
        assert error.column >= 1
