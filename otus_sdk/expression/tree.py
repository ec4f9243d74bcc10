"""The syntax tree of an expression. Every node knows where it stands in the text."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = [
    "Comparison",
    "Expression",
    "Field",
    "FieldType",
    "Has",
    "ListLiteral",
    "Literal",
    "Logical",
    "Membership",
    "MethodCall",
    "Not",
    "Span",
]


class FieldType(enum.Enum):
    """The types that an expression can have."""

    STRING = "string"
    INT = "int"
    BOOL = "bool"


@dataclass(frozen=True, slots=True)
class Span:
    """Where something stands: characters `start` to `end` (exclusive) of the text."""

    start: int
    end: int

    def to(self, other: Span) -> Span:
        """From here to the end of the other."""
        return Span(self.start, other.end)


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, a number, `true` or `false`."""

    value: str | int | bool
    span: Span

    @property
    def type(self) -> FieldType:
        """Its type."""
        if isinstance(self.value, bool):
            return FieldType.BOOL
        return FieldType.INT if isinstance(self.value, int) else FieldType.STRING


@dataclass(frozen=True, slots=True)
class Field:
    """A label (`sip.method`, `labels['x-y']`) or a network field (`src_ip`)."""

    name: str
    span: Span


@dataclass(frozen=True, slots=True)
class Has:
    """`has(sip.method)` or `'sip.method' in labels`."""

    field: Field
    span: Span


@dataclass(frozen=True, slots=True)
class Not:
    """`!operand`."""

    operand: Expression
    span: Span


@dataclass(frozen=True, slots=True)
class Logical:
    """`left && right` or `left || right`."""

    operator: str
    left: Expression
    right: Expression
    span: Span


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left == right` and its like: `==` `!=` `<` `<=` `>` `>=`."""

    operator: str
    left: Expression
    right: Expression
    span: Span
    operator_span: Span


@dataclass(frozen=True, slots=True)
class ListLiteral:
    """`[1, 2, 3]`: stands right of `in` only."""

    items: tuple[Literal, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Membership:
    """`left in [...]`."""

    left: Expression
    right: ListLiteral
    span: Span


@dataclass(frozen=True, slots=True)
class MethodCall:
    """`receiver.startsWith(argument)` and its like."""

    method: str
    receiver: Expression
    argument: Expression
    span: Span
    method_span: Span


Expression = Literal | Field | Has | Not | Logical | Comparison | Membership | MethodCall
