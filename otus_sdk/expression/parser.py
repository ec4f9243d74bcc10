"""From tokens to a tree.

CEL's precedence, of which the subset has

expr     = and { "||" and }
and      = relation { "&&" relation }
relation = unary { ("==" | "!=" | "<" | "<=" | ">" | ">=" | "in") unary }
unary    = { "!" } member | "-" number
member   = primary { "." method "(" expr ")" }
primary  = literal | name { "." name } | "labels" "[" string "]" | "has" "(" name ")"
         | "[" literal { "," literal } "]" | "(" expr ")"
"""

from __future__ import annotations

from otus_sdk.expression.error import ExpressionError
from otus_sdk.expression.lexer import Token, TokenKind, tokenize
from otus_sdk.expression.tree import (
    Comparison,
    Expression,
    Field,
    Has,
    ListLiteral,
    Literal,
    Logical,
    Membership,
    MethodCall,
    Not,
    Span,
)

__all__ = ["METHODS", "parse_expression"]

METHODS = ("startsWith", "endsWith", "contains", "matches")
MAX_DEPTH = 64
_RELATIONS = frozenset({"==", "!=", "<", "<=", ">", ">="})
_LABELS = "labels"


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokenize(text)
        self.index = 0
        self.depth = 0

    # --- tokens ---

    @property
    def next(self) -> Token:
        return self.tokens[self.index]

    def take(self) -> Token:
        token = self.tokens[self.index]
        if token.kind is not TokenKind.END:
            self.index += 1
        return token

    def is_operator(self, *operators: str) -> bool:
        return self.next.kind is TokenKind.OPERATOR and self.next.value in operators

    def expect(self, operator: str, after: str) -> Token:
        if not self.is_operator(operator):
            raise self.error(f"expected {operator!r} {after}, not {self.name_next()}")
        return self.take()

    def name_next(self) -> str:
        token = self.next
        if token.kind is TokenKind.END:
            return str(token.kind.value)
        return repr(self.text[token.span.start : token.span.end])

    def error(self, reason: str, span: Span | None = None) -> ExpressionError:
        return ExpressionError(reason, self.text, span or self.next.span)

    # --- grammar ---

    def whole(self) -> Expression:
        if len(self.tokens) == 1:
            raise self.error("is empty: write a condition such as sip.method == 'INVITE'")
        expression = self.scalar(self.expr())
        if self.next.kind is not TokenKind.END:
            raise self.error(f"unexpected {self.name_next()} behind the expression")
        return expression

    def expr(self) -> Expression | ListLiteral:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"nested deeper than {MAX_DEPTH} levels")
        found = self.logical("||")
        self.depth -= 1
        return found

    def logical(self, operator: str) -> Expression | ListLiteral:
        operand = self.relation if operator == "&&" else lambda: self.logical("&&")
        first = operand()
        if not self.is_operator(operator):
            return first
        operands = [self.scalar(first)]
        while self.is_operator(operator):
            self.take()
            operands.append(self.scalar(operand()))
        return _balanced(operator, operands)

    def relation(self) -> Expression | ListLiteral:
        left = self.unary()
        for _ in range(MAX_DEPTH):
            if self.next.kind is TokenKind.IDENTIFIER and self.next.value == "in":
                self.take()
                left = self.membership(self.scalar(left))
            elif self.next.kind is TokenKind.OPERATOR and self.next.value in _RELATIONS:
                first = self.scalar(left)
                token = self.take()
                right = self.scalar(self.unary())
                left = Comparison(
                    str(token.value), first, right, first.span.to(right.span), token.span
                )
            else:
                return left
        raise self.error(f"more than {MAX_DEPTH} comparisons of comparisons")

    def membership(self, left: Expression) -> Expression:
        token = self.next
        if token.kind is TokenKind.IDENTIFIER and token.value == _LABELS:
            self.take()
            if not isinstance(left, Literal) or not isinstance(left.value, str):
                raise self.error("a label's name in quotes stands left of 'in labels'", left.span)
            return Has(Field(left.value, left.span), left.span.to(token.span))
        right = self.unary()
        if not isinstance(right, ListLiteral):
            raise self.error("'in' needs a list in brackets on its right: ['a', 'b']", right.span)
        return Membership(left, right, left.span.to(right.span))

    def unary(self) -> Expression | ListLiteral:
        if self.is_operator("!"):
            token = self.take()
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise self.error(f"nested deeper than {MAX_DEPTH} levels")
            operand = self.scalar(self.unary())
            self.depth -= 1
            return Not(operand, token.span.to(operand.span))
        if self.is_operator("-"):
            return self.negative()
        return self.member()

    def negative(self) -> Literal:
        minus = self.take()
        if self.next.kind is not TokenKind.INT:
            raise self.error(f"'-' stands in front of a number only, not {self.name_next()}")
        number = self.take()
        return Literal(-int(number.value), minus.span.to(number.span))

    def member(self) -> Expression | ListLiteral:
        found = self.primary()
        while self.is_operator("."):
            receiver = self.scalar(found)
            if isinstance(receiver, MethodCall):
                raise self.error(f"{receiver.method}() is true or false: nothing to call here")
            self.take()
            name = self.take()
            if name.kind is not TokenKind.IDENTIFIER:
                raise self.error("expected a name after '.'", name.span)
            if not self.is_operator("("):
                raise self.error(f"nothing here has a field {name.value!r}", name.span)
            found = self.call(receiver, name)
        return found

    def call(self, receiver: Expression, name: Token) -> MethodCall:
        if name.value not in METHODS:
            raise self.error(
                f"unknown function {str(name.value)!r}; there are {', '.join(METHODS)} and has",
                name.span,
            )
        self.take()
        argument = self.scalar(self.expr())
        close = self.expect(")", f"after the argument of {name.value}")
        span = receiver.span.to(close.span)
        return MethodCall(str(name.value), receiver, argument, span, name.span)

    def primary(self) -> Expression | ListLiteral:
        token = self.take()
        if token.kind is TokenKind.STRING:
            return Literal(token.value, token.span)
        if token.kind is TokenKind.INT:
            if int(token.value) > 2**63 - 1:
                raise self.error("number does not fit 64 bits", token.span)
            return Literal(token.value, token.span)
        if token.kind is TokenKind.IDENTIFIER:
            return self.name(token)
        if token.kind is TokenKind.OPERATOR and token.value == "(":
            inner = self.scalar(self.expr())
            self.expect(")", "to close the parenthesis")
            return inner
        if token.kind is TokenKind.OPERATOR and token.value == "[":
            return self.list(token)
        what = "it ends" if token.kind is TokenKind.END else f"found {token.value!r}"
        raise self.error(f"expected a field or a value, but {what}", token.span)

    def name(self, token: Token) -> Expression:
        if token.value in ("true", "false"):
            return Literal(token.value == "true", token.span)
        if token.value == "null":
            raise self.error("no field is ever null: use has(field)", token.span)
        if token.value == "in":
            raise self.error("'in' needs a value on its left", token.span)
        if token.value == _LABELS and self.is_operator("["):
            return self.label_by_name(token)
        if self.is_operator("("):
            if token.value == "has":
                return self.has(token)
            raise self.error(
                f"unknown function {str(token.value)!r}; there are has(field) and, behind a "
                f"value and a dot, {', '.join(METHODS)}",
                token.span,
            )
        return self.dotted(token)

    def dotted(self, token: Token) -> Field:
        """The longest chain of names; one in front of '(' is a method and stays."""
        parts = [str(token.value)]
        span = token.span
        while self.is_operator("."):
            name, behind = self.tokens[self.index + 1 : self.index + 3] + [self.tokens[-1]] * (
                2 - len(self.tokens[self.index + 1 : self.index + 3])
            )
            if name.kind is not TokenKind.IDENTIFIER:
                raise self.error("expected a name after '.'", name.span)
            if behind.kind is TokenKind.OPERATOR and behind.value == "(":
                break
            self.index += 2
            parts.append(str(name.value))
            span = span.to(name.span)
        return Field(".".join(parts), span)

    def label_by_name(self, token: Token) -> Field:
        self.take()
        name = self.take()
        if name.kind is not TokenKind.STRING:
            raise self.error("expected a label's name in quotes", name.span)
        close = self.expect("]", "after the label's name")
        return Field(str(name.value), token.span.to(close.span))

    def has(self, token: Token) -> Has:
        self.take()
        name = self.take()
        if name.kind is not TokenKind.IDENTIFIER:
            raise self.error("has() takes a label: has(sip.method)", name.span)
        field = self.name(name)
        if not isinstance(field, Field):
            raise self.error("has() takes a label: has(sip.method)", field.span)
        close = self.expect(")", "after the label of has")
        return Has(field, token.span.to(close.span))

    def list(self, opening: Token) -> ListLiteral:
        items: list[Literal] = []
        while not self.is_operator("]"):
            item = self.unary()
            if not isinstance(item, Literal):
                raise self.error("a list holds literals only", item.span)
            items.append(item)
            if not self.is_operator(","):
                break
            self.take()
        close = self.expect("]", "to close the list")
        return ListLiteral(tuple(items), opening.span.to(close.span))

    def scalar(self, found: Expression | ListLiteral) -> Expression:
        if isinstance(found, ListLiteral):
            raise self.error("a list stands right of 'in' only", found.span)
        return found


def _balanced(operator: str, operands: list[Expression]) -> Expression:
    """A chain as a tree of little depth, so that a long one needs no deep recursion."""
    if len(operands) == 1:
        return operands[0]
    middle = len(operands) // 2
    left = _balanced(operator, operands[:middle])
    right = _balanced(operator, operands[middle:])
    return Logical(operator, left, right, left.span.to(right.span))


def parse_expression(text: str) -> Expression:
    """Reads an expression without looking at fields or types.

    Raises:
        ExpressionError: It is no expression of the subset.
    """
    return _Parser(text).whole()
