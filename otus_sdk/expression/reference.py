"""What an expression means, in Python: the form that the core's is held equal to."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from otus_sdk.expression.automaton import Automaton, compile_pattern
from otus_sdk.expression.parser import parse_expression
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
)
from otus_sdk.model import OutputPacket

__all__ = ["ABSENT_INT", "ABSENT_STRING", "evaluate", "fields_of_packet"]

ABSENT_STRING = ""
ABSENT_INT = -1
"""How an absent label reads. Not 0: payload type 0 is PCMU."""

_INTEGER = re.compile(r"-?[0-9]{1,18}\Z")
_RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def fields_of_packet(packet: OutputPacket) -> dict[str, str | int | bool]:
    """The fields of a record as `evaluate` takes them: labels and network fields by name."""
    version = 6 if ":" in packet.src_ip else 4 if packet.src_ip else 0
    fields: dict[str, str | int | bool] = dict(packet.labels)
    fields.update(
        src_ip=packet.src_ip,
        dst_ip=packet.dst_ip,
        protocol=packet.protocol_name,
        tunnel=packet.tunnels[0].kind if packet.tunnels else "",
        payload_type=packet.payload_type,
        src_port=packet.src_port,
        dst_port=packet.dst_port,
        ip_version=version,
        ttl=packet.ttl,
        vlan=packet.vlans[0] if packet.vlans else 0,
        caplen=packet.caplen,
        wirelen=packet.wirelen,
        truncated=packet.truncated,
        reassembled=packet.reassembled,
    )
    return fields


@lru_cache(maxsize=64)
def _automaton(pattern: str) -> Automaton:
    return compile_pattern(pattern)


class _Evaluator:
    def __init__(self, fields: Mapping[str, str | int | bool], schema: Schema) -> None:
        self.fields = fields
        self.schema = schema

    def value(self, node: Expression) -> Any:
        match node:
            case Literal():
                return node.value
            case Field():
                return self.field(node.name)
            case Has():
                return node.field.name in self.fields
            case Not():
                return not self.value(node.operand)
            case Logical(operator="&&"):
                return self.value(node.left) and self.value(node.right)
            case Logical():
                return self.value(node.left) or self.value(node.right)
            case Comparison():
                return self.compare(node)
            case Membership():
                left = self.value(node.left)
                return any(left == item.value for item in node.right.items)
            case MethodCall():
                return self.call(node)

    def field(self, name: str) -> str | int | bool:
        found = self.fields.get(name)
        kind = self.schema.type_of(name)
        if name in NETWORK_FIELDS:
            return found if found is not None else "" if kind is FieldType.STRING else 0
        if kind is FieldType.INT:
            text = str(found) if found is not None else ""
            return int(text) if _INTEGER.match(text) else ABSENT_INT
        return str(found) if found is not None else ABSENT_STRING

    def compare(self, node: Comparison) -> bool:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(left, str) and node.operator not in ("==", "!="):
            # By code point, which is the order of the octets of UTF-8.
            return _RELATIONS[node.operator](
                left.encode(errors="surrogatepass"), right.encode(errors="surrogatepass")
            )
        return _RELATIONS[node.operator](left, right)

    def call(self, node: MethodCall) -> bool:
        receiver, argument = self.value(node.receiver), self.value(node.argument)
        match node.method:
            case "startsWith":
                return bool(receiver.startswith(argument))
            case "endsWith":
                return bool(receiver.endswith(argument))
            case "contains":
                return argument in receiver
            case _:
                return _automaton(argument).run(receiver.encode(errors="replace"))


def evaluate(
    expression: str | Expression,
    packet: OutputPacket | Mapping[str, str | int | bool],
    schema: Schema | None = None,
) -> bool:
    """Whether a packet fulfils an expression that has been checked.

    Args:
        expression: Its text, or its tree.
        packet: A record, or field names to values; labels may be absent.
        schema: The types of labels; without one, labels that are not built in
            are strings.

    Raises:
        ExpressionError: The text is no expression.
    """
    tree = parse_expression(expression) if isinstance(expression, str) else expression
    fields = packet if isinstance(packet, Mapping) else fields_of_packet(packet)
    return bool(_Evaluator(fields, schema or Schema(permissive=True)).value(tree))
