"""From text to tokens: CEL's lexical rules, as far as the subset goes."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from otus_sdk.expression.error import ExpressionError
from otus_sdk.expression.tree import Span

__all__ = ["MAX_EXPRESSION_LENGTH", "Token", "TokenKind", "tokenize"]

MAX_EXPRESSION_LENGTH = 8192
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


class TokenKind(enum.Enum):
    """What a token is."""

    IDENTIFIER = "name"
    STRING = "string"
    INT = "number"
    OPERATOR = "operator"
    END = "end of the expression"


@dataclass(frozen=True, slots=True)
class Token:
    """One token; `value` is its meaning (the string without quotes, the number)."""

    kind: TokenKind
    value: str | int
    span: Span


_BLANK = re.compile(r"(?:[ \t\n\f\r]|//[^\n]*)+")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_FRACTION = re.compile(r"[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+")
_OPERATOR = re.compile(r"&&|\|\||==|!=|<=|>=|[<>!()\[\],.\-]")
_FOREIGN_OPERATOR = re.compile(r"[+*/%?:{}=&|]")
_STRING_START = re.compile(r"""([rRbB]{0,2})('{3}|"{3}|'|")""")
_SIMPLE_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "'": "'", '"': '"', "`": "`", "?": "?",
}  # fmt: skip
_NUMERIC_ESCAPE = re.compile(
    r"[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})"
)
_FOREIGN_HINTS = {
    "=": "comparison is '=='",
    "&": "'and' is '&&'",
    "|": "'or' is '||'",
    "?": "the conditional operator is not supported: use && and ||",
    ":": "the conditional operator is not supported: use && and ||",
    "{": "maps are not supported",
    "}": "maps are not supported",
}


class _Lexer:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def error(self, reason: str, start: int, end: int) -> ExpressionError:
        return ExpressionError(reason, self.text, Span(start, end))

    def tokens(self) -> list[Token]:
        found: list[Token] = []
        while True:
            blank = _BLANK.match(self.text, self.at)
            if blank:
                self.at = blank.end()
            if self.at == len(self.text):
                found.append(Token(TokenKind.END, "", Span(self.at, self.at)))
                return found
            found.append(self.token())

    def token(self) -> Token:
        start = self.at
        string = _STRING_START.match(self.text, start)
        if string:
            return self.string(string)
        fraction = _FRACTION.match(self.text, start)
        if fraction:
            raise self.error(
                "numbers with a fraction are not supported: every number field is whole",
                start,
                fraction.end(),
            )
        for kind, pattern in (
            (TokenKind.IDENTIFIER, _IDENTIFIER),
            (TokenKind.INT, _NUMBER),
            (TokenKind.OPERATOR, _OPERATOR),
        ):
            match = pattern.match(self.text, start)
            if match:
                self.at = match.end()
                if kind is TokenKind.INT:
                    return self.number(match)
                return Token(kind, match.group(), Span(start, self.at))
        char = self.text[start]
        if _FOREIGN_OPERATOR.match(char):
            hint = _FOREIGN_HINTS.get(char, "arithmetic is not supported")
            raise self.error(f"unexpected {char!r}: {hint}", start, start + 1)
        raise self.error(f"unexpected character {char!r}", start, start + 1)

    def number(self, match: re.Match[str]) -> Token:
        if re.match(r"[A-Za-z_]", self.text[self.at : self.at + 1]):
            if self.text[self.at] in "uU":
                raise self.error(
                    "unsigned literals are not supported: leave out the 'u'",
                    match.start(),
                    self.at + 1,
                )
            raise self.error("a number ends in letters", match.start(), self.at + 1)
        # int(text, 0) would refuse leading zeros, which CEL reads as decimal.
        text = match.group()
        value = int(text, 16) if text[:2] in ("0x", "0X") else int(text)
        # One more than the largest: "-9223372036854775808" is read as minus and a number.
        if value > _INT_MAX + 1:
            raise self.error("number does not fit 64 bits", match.start(), self.at)
        return Token(TokenKind.INT, value, Span(match.start(), self.at))

    def string(self, opening: re.Match[str]) -> Token:
        prefix, quote = opening.group(1).lower(), opening.group(2)
        start = opening.start()
        if "b" in prefix:
            raise self.error("bytes literals are not supported", start, opening.end())
        if len(prefix) > 1:
            raise self.error("a string has at most one 'r' in front", start, opening.end())
        if len(quote) == 3:
            raise self.error("triple-quoted strings are not supported", start, opening.end())
        parts: list[str] = []
        self.at = opening.end()
        while True:
            if self.at >= len(self.text) or self.text[self.at] in "\r\n":
                raise self.error("the string is never closed", start, self.at)
            char = self.text[self.at]
            if char == quote:
                self.at += 1
                return Token(TokenKind.STRING, "".join(parts), Span(start, self.at))
            if char == "\\" and not prefix:
                parts.append(self.escape())
            else:
                parts.append(char)
                self.at += 1

    def escape(self) -> str:
        start = self.at
        char = self.text[start + 1 : start + 2]
        if char in _SIMPLE_ESCAPES and char:
            self.at += 2
            return _SIMPLE_ESCAPES[char]
        numeric = _NUMERIC_ESCAPE.match(self.text, start + 1)
        if not numeric:
            raise self.error(
                f"unknown escape '\\{char}' (a regular expression is easiest as r'...')",
                start,
                start + 2,
            )
        hexadecimal = numeric.group(1) or numeric.group(2) or numeric.group(3)
        code = int(hexadecimal, 16) if hexadecimal else int(numeric.group(4), 8)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise self.error("the escape names no character", start, numeric.end())
        self.at = numeric.end()
        return chr(code)


def tokenize(text: str) -> list[Token]:
    """Splits an expression into tokens, the last of kind END.

    Raises:
        ExpressionError: Something in it is no token of the subset.
    """
    if len(text) > MAX_EXPRESSION_LENGTH:
        raise ExpressionError(
            f"longer than {MAX_EXPRESSION_LENGTH} characters",
            text,
            Span(MAX_EXPRESSION_LENGTH, MAX_EXPRESSION_LENGTH),
        )
    for offset, char in enumerate(text):
        if 0xD800 <= ord(char) <= 0xDFFF:
            raise ExpressionError("is no valid text", text, Span(offset, offset + 1))
    return _Lexer(text).tokens()
