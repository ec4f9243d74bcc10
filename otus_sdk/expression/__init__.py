"""Filter expressions: a subset of CEL over labels and network fields.

    sip.method == 'OPTIONS' && !src_ip.startsWith('10.')

`compile_expression` checks a text and makes the core's bytecode of it;
`evaluate` is the same condition in Python, over a record or a mapping.
docs/reference/filter-expressions.md is the language's reference.
"""

from __future__ import annotations

from otus_sdk.expression.checker import check
from otus_sdk.expression.compiler import Program, compile_expression
from otus_sdk.expression.error import ExpressionError
from otus_sdk.expression.parser import parse_expression
from otus_sdk.expression.reference import evaluate, fields_of_packet
from otus_sdk.expression.schema import NETWORK_FIELDS, Schema
from otus_sdk.expression.tree import Expression, FieldType

__all__ = [
    "NETWORK_FIELDS",
    "Expression",
    "ExpressionError",
    "FieldType",
    "Program",
    "Schema",
    "check",
    "compile_expression",
    "evaluate",
    "fields_of_packet",
    "parse_expression",
]
