"""YAML 1.2 documents that remember where every value stood.

PyYAML scans and composes; the values are built here, because PyYAML's own
constructor follows YAML 1.1 (``12:30:00`` is a number, ``no`` is false), takes
the last of two equal keys without a word, and expands aliases without bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]

MAX_DEPTH = 64
MAX_VALUES = 200_000

# YAML 1.2.2 section 10.3.2, the core schema.
_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NOT_A_NUMBER = re.compile(r"\.(nan|NaN|NAN)")

_TAGGED = re.compile(r"(&\S+\s+)?!")

_CORE_TAGS = frozenset(
    "tag:yaml.org,2002:" + name for name in ("str", "int", "float", "bool", "null", "map", "seq")
)


class DocumentError(ValueError):
    """A document that is no single well-formed YAML document, with its place."""

    def __init__(self, line: int, column: int, key: str, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.column = column
        self.key = key
        self.message = message


@dataclass(slots=True)
class Document:
    """A value with the place (line, column; from 1) of every key and value in it."""

    data: Any = None
    values: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    keys: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """Leaves plain scalars untagged, so that the core schema below resolves them."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def parse_document(text: str) -> Document:
    """The one YAML 1.2 document (or JSON, which is a subset) in text.

    Returns:
        The document; its data is None when the text is empty.

    Raises:
        DocumentError: it is malformed, has a key twice, or is nested or
            expanded by aliases beyond reason.
    """
    # JSON allows tabs between tokens where PyYAML does not. A raw tab can't
    # stand in a JSON string (RFC 8259 section 7), so nothing is changed by this.
    if text.lstrip()[:1] in ("{", "["):
        text = text.replace("\t", " ")
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise DocumentError(line, column, "", f"not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        first_line = str(error).splitlines()[0]
        raise DocumentError(1, 1, "", f"not valid YAML: {first_line}") from None
    except RecursionError:
        raise DocumentError(1, 1, "", f"nested deeper than {MAX_DEPTH} levels") from None
    if node is None:
        return Document()
    builder = _Builder()
    data = builder.build(node, ())
    return Document(data, builder.values, builder.keys)


class _Builder:
    """Turns a composed node into plain values and notes where they stood."""

    def __init__(self) -> None:
        self.values: dict[KeyPath, tuple[int, int]] = {}
        self.keys: dict[KeyPath, tuple[int, int]] = {}

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self._check_bounds(node, path)
        self.values[path] = _place(node)
        if isinstance(node, yaml.MappingNode):
            return {
                key: self.build(value, (*path, key)) for key, value in self._members(node, path)
            }
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _check_bounds(self, node: yaml.Node, path: KeyPath) -> None:
        if len(path) > MAX_DEPTH:
            self._fail(node, path[:4], f"nested deeper than {MAX_DEPTH} levels")
        if len(self.values) > MAX_VALUES:
            self._fail(node, path, f"holds more than {MAX_VALUES} values (aliases included)")
        if node.tag not in _CORE_TAGS and node.tag != "!":
            self._fail(node, path, f"tag {node.tag!r} is not allowed")

    def _members(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[str, yaml.Node]]:
        seen: dict[str, tuple[int, int]] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._fail(key_node, path, "a key must be plain text")
            key = _joined_surrogates(key_node.value)
            if key in seen:
                line, _ = seen[key]
                self._fail(key_node, (*path, key), f"given twice, first on line {line}")
            seen[key] = self.keys[(*path, key)] = _place(key_node)
            yield key, value_node

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        text: str = node.value
        plain = getattr(node, "style", None) is None
        tag = node.tag.rpartition(":")[2] if node.tag in _CORE_TAGS else "str"
        if tag == "str" and plain and _is_untagged(node):
            return resolve_plain(text)
        if tag == "str":
            return _joined_surrogates(text)
        value = resolve_plain(text)
        wanted: Any = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}[tag]
        if not isinstance(value, wanted):
            self._fail(node, path, f"{text!r} is not of the tagged type !!{tag}")
        return float(value) if tag == "float" else value

    @staticmethod
    def _fail(node: yaml.Node, path: KeyPath, message: str) -> Any:
        line, column = _place(node)
        raise DocumentError(line, column, dotted(path), message)


def _is_untagged(node: yaml.Node) -> bool:
    # With no implicit resolvers PyYAML gives an untagged scalar the default
    # tag; an explicit !!str is told apart by where the node begins.
    start = node.start_mark
    text = start.buffer[start.pointer : start.pointer + 200] if start.buffer else ""
    return _TAGGED.match(text) is None


def resolve_plain(text: str) -> Any:
    """The value of a plain scalar by the YAML 1.2 core schema."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if _INT.fullmatch(text):
        # int() is quadratic and refuses more than 4,300 digits.
        return int(text) if len(text) <= 400 else text
    if _OCTAL.fullmatch(text):
        return int(text, 0)
    if _HEX.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text) or _INFINITY.fullmatch(text) or _NOT_A_NUMBER.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _joined_surrogates(text: str) -> str:
    """Joins the pairs of surrogates that JSON's ``u`` escapes leave."""
    if not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def dotted(path: KeyPath) -> str:
    """``log.outputs.0.path`` of a key path."""
    return ".".join(str(part) for part in path)
