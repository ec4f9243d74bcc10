"""Types: every field exists, every operator has operands that it can take."""

from __future__ import annotations

from otus_sdk.expression.address import canonical_ip
from otus_sdk.expression.error import ExpressionError
from otus_sdk.expression.regex import RegexError, parse_regex
from otus_sdk.expression.schema import Schema
from otus_sdk.expression.tree import (
    Comparison,
    Expression,
    Field,
    FieldType,
    Has,
    Literal,
    Logical,
    Membership,
    MethodCall,
    Not,
    Span,
)
from otus_sdk.model import PROTOCOL_NAMES, TunnelKind

__all__ = ["check"]

MAX_LIST_ITEMS = 4096
_IP_FIELDS = frozenset({"src_ip", "dst_ip"})
_PROTOCOLS = frozenset(PROTOCOL_NAMES.values())
_TUNNELS = frozenset({"", *(kind.value for kind in TunnelKind)})


def _a(kind: FieldType) -> str:
    return f"an {kind.value}" if kind is FieldType.INT else f"a {kind.value}"


class _Checker:
    def __init__(self, text: str, schema: Schema) -> None:
        self.text = text
        self.schema = schema
        self.fields: set[str] = set()

    def error(self, reason: str, span: Span) -> ExpressionError:
        return ExpressionError(reason, self.text, span)

    def type_of(self, node: Expression) -> FieldType:
        match node:
            case Literal():
                return node.type
            case Field():
                return self.field(node)
            case Has():
                self.has(node)
            case Not():
                self.want(node.operand, FieldType.BOOL, "'!'")
            case Logical():
                self.want(node.left, FieldType.BOOL, f"'{node.operator}'")
                self.want(node.right, FieldType.BOOL, f"'{node.operator}'")
            case Comparison():
                self.comparison(node)
            case Membership():
                self.membership(node)
            case MethodCall():
                self.method(node)
        return FieldType.BOOL

    def want(self, node: Expression, wanted: FieldType, by: str) -> None:
        found = self.type_of(node)
        if found is wanted:
            return
        hint = ""
        if wanted is FieldType.BOOL and isinstance(node, Field):
            example = "'...'" if found is FieldType.STRING else "..."
            hint = f"; compare it: {node.name} == {example}"
            if self.schema.is_label(node.name):
                hint += f", or test for it: has({node.name})"
        raise self.error(f"{by} needs {_a(wanted)}, this is {_a(found)}{hint}", node.span)

    def field(self, node: Field) -> FieldType:
        found = self.schema.type_of(node.name)
        if found is None:
            near = self.schema.near(node.name)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise self.error(f"unknown field {node.name!r}{hint}", node.span)
        self.fields.add(node.name)
        return found

    def has(self, node: Has) -> None:
        self.field(node.field)
        if not self.schema.is_label(node.field.name):
            raise self.error(
                f"{node.field.name} is there on every packet; has() is for labels", node.field.span
            )

    def comparison(self, node: Comparison) -> None:
        left, right = self.type_of(node.left), self.type_of(node.right)
        if left is not right:
            raise self.error(
                f"'{node.operator}' compares {_a(left)} with {_a(right)}"
                + self.quoting_hint(node.left, left, node.right)
                + self.quoting_hint(node.right, right, node.left),
                node.operator_span,
            )
        if left is FieldType.BOOL and node.operator not in ("==", "!="):
            raise self.error(
                f"'{node.operator}' orders numbers and strings, not truth", node.operator_span
            )
        if node.operator in ("==", "!="):
            self.plausible(node.left, node.right)
            self.plausible(node.right, node.left)

    def quoting_hint(self, field: Expression, kind: FieldType, literal: Expression) -> str:
        if not isinstance(field, Field) or not isinstance(literal, Literal):
            return ""
        if kind is FieldType.STRING:
            return f"; {field.name} is text: write '{literal.value}'"
        if kind is FieldType.INT and isinstance(literal.value, str) and literal.value.isdecimal():
            return f"; {field.name} is a number: write {literal.value} without quotes"
        return ""

    def plausible(self, field: Expression, value: Expression) -> None:
        """Refuses values that a field never has: such a condition is a typo."""
        if not isinstance(field, Field) or not isinstance(value, Literal):
            return
        text = str(value.value)
        if field.name in _IP_FIELDS:
            canonical = canonical_ip(text)
            if canonical is None:
                raise self.error(f"{text!r} is no IP address", value.span)
            if canonical != text:
                raise self.error(f"write the address as {canonical!r}", value.span)
        elif field.name == "protocol" and text not in _PROTOCOLS and not text.isdecimal():
            names = ", ".join(sorted(_PROTOCOLS))
            raise self.error(f"no protocol {text!r}; there are {names}, and numbers", value.span)
        elif field.name == "tunnel" and text not in _TUNNELS:
            names = ", ".join(sorted(_TUNNELS - {""}))
            raise self.error(f"no tunnel {text!r}; there are {names}", value.span)

    def membership(self, node: Membership) -> None:
        left = self.type_of(node.left)
        if left is FieldType.BOOL:
            raise self.error("'in' looks for a number or a string", node.left.span)
        if len(node.right.items) > MAX_LIST_ITEMS:
            raise self.error(f"more than {MAX_LIST_ITEMS} items", node.right.span)
        for item in node.right.items:
            if item.type is not left:
                raise self.error(
                    f"the list holds {_a(item.type)}, what is looked for is {_a(left)}",
                    item.span,
                )
            self.plausible(node.left, item)

    def method(self, node: MethodCall) -> None:
        self.want(node.receiver, FieldType.STRING, f"{node.method}()")
        self.want(node.argument, FieldType.STRING, f"{node.method}()")
        if node.method != "matches":
            return
        if not isinstance(node.argument, Literal):
            raise self.error(
                "matches() needs its pattern as a literal: it is compiled once", node.argument.span
            )
        try:
            parse_regex(str(node.argument.value))
        except RegexError as error:
            raise self.error(
                f"in the pattern, at {error.at + 1}: {error}", node.argument.span
            ) from error


def check(node: Expression, text: str, schema: Schema) -> frozenset[str]:
    """Checks a whole expression.

    Args:
        node: As `parse_expression` gave it.
        text: The expression, for messages.
        schema: The fields there are.

    Returns:
        The names of the fields that it looks at.

    Raises:
        ExpressionError: An unknown field, operands of wrong types, a pattern
            that is none, or the whole is no condition.
    """
    checker = _Checker(text, schema)
    checker.want(node, FieldType.BOOL, "a condition")
    return frozenset(checker.fields)
