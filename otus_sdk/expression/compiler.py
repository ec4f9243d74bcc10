"""From a checked tree to the core's bytecode (docs/internals/filter-bytecode.md).

`&&`, `||` and `!` cost nothing at run time: each test has a place to go on at
where it holds and another where it does not, and these operators only choose
the places.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from otus_sdk.expression.address import ip_octets
from otus_sdk.expression.automaton import Automaton, compile_pattern
from otus_sdk.expression.checker import check
from otus_sdk.expression.error import ExpressionError
from otus_sdk.expression.parser import parse_expression
from otus_sdk.expression.reference import evaluate
from otus_sdk.expression.regex import RegexError
from otus_sdk.expression.schema import NETWORK_FIELDS, Schema
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

__all__ = ["Program", "compile_expression"]

_T = TypeVar("_T")

MAGIC = b"OTUF"
VERSION = 1
HOLDS = 0xFFFF
FAILS = 0xFFFE
MAX_INSTRUCTIONS = 4096
MAX_POOL = 4096
MAX_PROGRAM_OCTETS = 1 << 20


class Operation(enum.IntEnum):
    """What one instruction tests."""

    ALWAYS = 0
    HAS = 1
    FLAG = 2
    STRING_EQUAL = 3
    STRING_BELOW = 4
    STRING_AT_MOST = 5
    STRING_IN = 6
    STARTS_WITH = 7
    ENDS_WITH = 8
    CONTAINS = 9
    MATCHES = 10
    INT_EQUAL = 11
    INT_BELOW = 12
    INT_AT_MOST = 13
    INT_IN = 14
    IP_EQUAL = 15
    IP_IN = 16


class Operand(enum.IntEnum):
    """Where an operand lies: the top four bits of its 16."""

    LABEL = 0
    NETWORK = 1
    STRING = 2
    INT = 3


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled expression.

    Attributes:
        bytecode: What `otus_filter_load` takes.
        fields: The fields it looks at.
        expression: The text it was made from.
    """

    bytecode: bytes
    fields: frozenset[str]
    expression: str


@dataclass(slots=True)
class _Target:
    """A place in the program, known once the code in front of it is there."""

    at: int | None = None


@dataclass(frozen=True, slots=True)
class _Instruction:
    operation: Operation
    left: int
    right: int
    holds: _Target
    fails: _Target


@dataclass(slots=True)
class _Pools:
    strings: list[bytes] = field(default_factory=list)
    ints: list[int] = field(default_factory=list)
    ips: list[bytes] = field(default_factory=list)
    lists: list[tuple[int, int]] = field(default_factory=list)
    automata: list[Automaton] = field(default_factory=list)


_SWAPPED = {">": "<", ">=": "<="}
_IP_FIELDS = frozenset({"src_ip", "dst_ip"})


class _Compiler:
    def __init__(self, text: str, schema: Schema) -> None:
        self.text = text
        self.schema = schema
        self.code: list[_Instruction] = []
        self.pools = _Pools()
        self.known: dict[tuple[str, object], int] = {}
        self.span = Span(0, len(text))

    def error(self, reason: str, span: Span) -> ExpressionError:
        return ExpressionError(reason, self.text, span)

    # --- operands ---

    def put(self, pool: list[_T], kind: str, value: _T) -> int:
        key = (kind, value)
        if key not in self.known:
            if len(pool) >= MAX_POOL:
                raise self.error(f"more than {MAX_POOL} different values", self.span)
            self.known[key] = len(pool)
            pool.append(value)
        return self.known[key]

    def put_list(self, pool: list[_T], values: Sequence[_T]) -> int:
        if len(pool) + len(values) > MAX_POOL:
            raise self.error(f"more than {MAX_POOL} list items in all", self.span)
        self.pools.lists.append((len(pool), len(values)))
        pool.extend(values)
        return len(self.pools.lists) - 1

    def operand(self, node: Expression) -> int:
        if isinstance(node, Literal) and isinstance(node.value, str):
            return Operand.STRING << 12 | self.put(
                self.pools.strings, "string", node.value.encode()
            )
        if isinstance(node, Literal):
            return Operand.INT << 12 | self.put(self.pools.ints, "int", int(node.value))
        if not isinstance(node, Field):
            raise TypeError(f"{node!r} has no value but truth")
        if node.name in NETWORK_FIELDS:
            return Operand.NETWORK << 12 | NETWORK_FIELDS[node.name]
        return Operand.LABEL << 12 | self.label(node)

    def label(self, node: Field) -> int:
        found = self.schema.label_id(node.name)
        if found is None:
            raise self.error(f"the core has no id for the label {node.name!r}", node.span)
        return found

    # --- code ---

    def emit(
        self, operation: Operation, left: int, right: int, holds: _Target, fails: _Target
    ) -> None:
        if len(self.code) >= MAX_INSTRUCTIONS:
            raise self.error(f"compiles to more than {MAX_INSTRUCTIONS} tests", self.span)
        self.code.append(_Instruction(operation, left, right, holds, fails))

    def bind(self, target: _Target) -> None:
        target.at = len(self.code)

    def generate(self, node: Expression, holds: _Target, fails: _Target) -> None:
        match node:
            case Literal():
                self.emit(Operation.ALWAYS, 0, 0, holds if node.value else fails, fails)
            case Field():
                number = NETWORK_FIELDS[node.name]
                self.emit(Operation.FLAG, Operand.NETWORK << 12 | number, 0, holds, fails)
            case Has():
                self.emit(Operation.HAS, self.label(node.field), 0, holds, fails)
            case Not():
                self.generate(node.operand, fails, holds)
            case Logical():
                self.logical(node, holds, fails)
            case Comparison():
                self.comparison(node, holds, fails)
            case Membership():
                self.membership(node, holds, fails)
            case MethodCall():
                self.method(node, holds, fails)

    def logical(self, node: Logical, holds: _Target, fails: _Target) -> None:
        behind = _Target()
        if node.operator == "&&":
            self.generate(node.left, behind, fails)
        else:
            self.generate(node.left, holds, behind)
        self.bind(behind)
        self.generate(node.right, holds, fails)

    def comparison(self, node: Comparison, holds: _Target, fails: _Target) -> None:
        if node.operator == "!=":
            holds, fails = fails, holds
        kind = _type_of(node.left, self.schema)
        if kind is FieldType.BOOL:
            self.same_truth(node, holds, fails)
            return
        left, right = node.left, node.right
        if node.operator in _SWAPPED:
            left, right = right, left
        operator = _SWAPPED.get(node.operator, node.operator)
        if operator in ("==", "!="):
            if isinstance(left, Literal):
                left, right = right, left
            if _is_ip_test(left, right):
                self.ip_equal(left, right, holds, fails)
                return
        operations = {
            FieldType.STRING: (
                Operation.STRING_BELOW, Operation.STRING_AT_MOST, Operation.STRING_EQUAL
            ),
            FieldType.INT: (Operation.INT_BELOW, Operation.INT_AT_MOST, Operation.INT_EQUAL),
        }[kind]  # fmt: skip
        operation = operations[("<", "<=").index(operator) if operator in ("<", "<=") else 2]
        self.emit(operation, self.operand(left), self.operand(right), holds, fails)

    def same_truth(self, node: Comparison, holds: _Target, fails: _Target) -> None:
        """Both true or both false: the right side is there twice."""
        if_left, if_not_left = _Target(), _Target()
        self.generate(node.left, if_left, if_not_left)
        self.bind(if_left)
        self.generate(node.right, holds, fails)
        self.bind(if_not_left)
        self.generate(node.right, fails, holds)

    def ip_equal(
        self, address: Expression, value: Expression, holds: _Target, fails: _Target
    ) -> None:
        index = self.put(self.pools.ips, "ip", ip_octets(_text_of(value)) or b"")
        self.emit(Operation.IP_EQUAL, self.operand(address), index, holds, fails)

    def membership(self, node: Membership, holds: _Target, fails: _Target) -> None:
        values = [item.value for item in node.right.items]
        if isinstance(node.left, Field) and node.left.name in _IP_FIELDS:
            index = self.put_list(
                self.pools.ips, [ip_octets(str(value)) or b"" for value in values]
            )
            operation = Operation.IP_IN
        elif _type_of(node.left, self.schema) is FieldType.STRING:
            index = self.put_list(self.pools.strings, [str(value).encode() for value in values])
            operation = Operation.STRING_IN
        else:
            index = self.put_list(self.pools.ints, [int(value) for value in values])
            operation = Operation.INT_IN
        self.emit(operation, self.operand(node.left), index, holds, fails)

    def method(self, node: MethodCall, holds: _Target, fails: _Target) -> None:
        receiver = self.operand(node.receiver)
        if node.method == "matches":
            argument = self.automaton(_text_of(node.argument), node.argument.span)
            operation = Operation.MATCHES
        else:
            argument = self.operand(node.argument)
            operation = {
                "startsWith": Operation.STARTS_WITH,
                "endsWith": Operation.ENDS_WITH,
                "contains": Operation.CONTAINS,
            }[node.method]
        self.emit(operation, receiver, argument, holds, fails)

    def automaton(self, pattern: str, span: Span) -> int:
        try:
            return self.put(self.pools.automata, "automaton", compile_pattern(pattern))
        except RegexError as error:
            raise self.error(f"in the pattern, at {error.at + 1}: {error}", span) from error

    # --- octets ---

    def finish(self) -> bytes:
        pools = self.pools
        parts = [
            struct.pack(
                "<4s8H", MAGIC, VERSION, len(self.code), len(pools.strings), len(pools.ints),
                len(pools.lists), len(pools.ips), len(pools.automata), 0,
            )
        ]  # fmt: skip
        parts.extend(
            struct.pack("<BxHHHHxx", one.operation, one.left, one.right, one.holds.at, one.fails.at)
            for one in self.code
        )
        parts.extend(struct.pack("<I", len(text)) + text for text in pools.strings)
        parts.extend(struct.pack("<q", number) for number in pools.ints)
        parts.extend(struct.pack("<HH", first, count) for first, count in pools.lists)
        parts.extend(bytes([6 if len(ip) == 16 else 4]) + ip.ljust(16, b"\0") for ip in pools.ips)
        parts.extend(map(_pack_automaton, pools.automata))
        return b"".join(parts)


def _pack_automaton(automaton: Automaton) -> bytes:
    return b"".join(
        (
            struct.pack("<HHHH", automaton.num_states, automaton.num_classes, automaton.start, 0),
            automaton.classes,
            automaton.accepts_at_end,
            struct.pack(f"<{len(automaton.next)}H", *automaton.next),
        )
    )


def _is_ip_test(left: Expression, right: Expression) -> bool:
    return isinstance(left, Field) and left.name in _IP_FIELDS and isinstance(right, Literal)


def _type_of(node: Expression, schema: Schema) -> FieldType:
    """The type of a node that has been checked."""
    if isinstance(node, Literal):
        return node.type
    found = schema.type_of(node.name) if isinstance(node, Field) else None
    return found or FieldType.BOOL


def _text_of(node: Expression) -> str:
    """The value of a node that has been checked to be a string literal."""
    if not isinstance(node, Literal):
        raise TypeError(f"{node!r} is no literal")
    return str(node.value)


def _fold(node: Expression) -> Expression:
    """Replaces what no packet can change by its value."""
    match node:
        case Not():
            folded: Expression = Not(_fold(node.operand), node.span)
        case Logical():
            left, right = _fold(node.left), _fold(node.right)
            for known, other in ((left, right), (right, left)):
                if isinstance(known, Literal):
                    decides = known.value == (node.operator == "||")
                    return known if decides else other
            return Logical(node.operator, left, right, node.span)
        case Comparison():
            folded = Comparison(
                node.operator, _fold(node.left), _fold(node.right), node.span, node.operator_span
            )
        case _:
            folded = node
    return Literal(evaluate(folded, {}), node.span) if _is_constant(folded) else folded


def _is_constant(node: Expression) -> bool:
    match node:
        case Not():
            return isinstance(node.operand, Literal)
        case Comparison():
            return isinstance(node.left, Literal) and isinstance(node.right, Literal)
        case Membership():
            return isinstance(node.left, Literal)
        case MethodCall():
            return isinstance(node.receiver, Literal) and isinstance(node.argument, Literal)
        case _:
            return False


def compile_expression(text: str, schema: Schema | None = None) -> Program:
    """Checks an expression and compiles it for the core.

    Args:
        text: The condition.
        schema: The fields there are; without one, the built-in ones.

    Raises:
        ExpressionError: It is no condition over these fields, or too large.
    """
    schema = schema or Schema()
    tree = parse_expression(text)
    fields = check(tree, text, schema)
    compiler = _Compiler(text, schema)
    compiler.generate(_fold(tree), _Target(HOLDS), _Target(FAILS))
    bytecode = compiler.finish()
    if len(bytecode) > MAX_PROGRAM_OCTETS:
        raise ExpressionError(
            f"compiles to {len(bytecode)} octets, more than {MAX_PROGRAM_OCTETS}: "
            "simplify its patterns",
            text,
            Span(0, len(text)),
        )
    return Program(bytecode, fields, text)
