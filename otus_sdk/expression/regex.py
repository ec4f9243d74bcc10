"""Regular expressions of RE2's syntax: from text to a tree of octet ranges.

Matching must take time linear in the text whatever the pattern, so what needs
a backtracking matcher (backreferences, lookaround) is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

__all__ = [
    "Alternation",
    "Assertion",
    "CharacterSet",
    "Concatenation",
    "RegexError",
    "RegexNode",
    "Repetition",
    "parse_regex",
]

MAX_REPEAT = 1000
MAX_CODE_POINT = 0x10FFFF
Ranges = tuple[tuple[int, int], ...]


class RegexError(ValueError):
    """The pattern is none, or asks for what linear time can't give.

    Attributes:
        at: Offset in the pattern, in characters.
    """

    def __init__(self, reason: str, at: int) -> None:
        self.at = at
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """One character out of these code point ranges, both ends included."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Assertion:
    """A place: "begin", "end", "line_begin", "line_end", "word", "not_word"."""

    kind: str


@dataclass(frozen=True, slots=True)
class Concatenation:
    """One after the other; none: the empty match."""

    parts: tuple[RegexNode, ...]


@dataclass(frozen=True, slots=True)
class Alternation:
    """One of these."""

    options: tuple[RegexNode, ...]


@dataclass(frozen=True, slots=True)
class Repetition:
    """`least` to `most` times; most None: without bound."""

    node: RegexNode
    least: int
    most: int | None


RegexNode = CharacterSet | Assertion | Concatenation | Alternation | Repetition

_DIGIT: Ranges = ((0x30, 0x39),)
_SPACE: Ranges = ((0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20))
_WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_CLASS_ESCAPES = {"d": _DIGIT, "s": _SPACE, "w": _WORD}
_POSIX = {
    "alnum": ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)),
    "alpha": ((0x41, 0x5A), (0x61, 0x7A)),
    "ascii": ((0x00, 0x7F),),
    "blank": ((0x09, 0x09), (0x20, 0x20)),
    "cntrl": ((0x00, 0x1F), (0x7F, 0x7F)),
    "digit": _DIGIT,
    "graph": ((0x21, 0x7E),),
    "lower": ((0x61, 0x7A),),
    "print": ((0x20, 0x7E),),
    "punct": ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)),
    "space": ((0x09, 0x0D), (0x20, 0x20)),
    "upper": ((0x41, 0x5A),),
    "word": _WORD,
    "xdigit": ((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)),
}
_SIMPLE_ESCAPES = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}
_ASSERTION_ESCAPES = {"A": "begin", "z": "end", "b": "word", "B": "not_word"}


def normalise(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Sorted and joined."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return tuple(joined)


def negate(ranges: Ranges) -> Ranges:
    """Every code point that is not in them."""
    found: list[tuple[int, int]] = []
    low = 0
    for first, last in normalise(ranges):
        if first > low:
            found.append((low, first - 1))
        low = last + 1
    if low <= MAX_CODE_POINT:
        found.append((low, MAX_CODE_POINT))
    return tuple(found)


@lru_cache(maxsize=1)
def _fold_orbits() -> dict[int, frozenset[int]]:
    """Code points that are one letter in different cases."""
    orbits: dict[int, set[int]] = {}
    for code in range(0x1E944):
        if 0xD800 <= code <= 0xDFFF:
            continue
        char = chr(code)
        for other in (char.lower(), char.upper(), char.casefold()):
            if len(other) == 1 and other != char:
                joined = orbits.get(code, {code}) | orbits.get(ord(other), {ord(other)})
                for member in joined:
                    orbits[member] = joined
    return {code: frozenset(orbit) for code, orbit in orbits.items()}


# The letters outside ASCII that fold to ASCII ones: LONG S and KELVIN SIGN.
_ASCII_FOLDS = {ord("s"): 0x17F, ord("S"): 0x17F, ord("k"): 0x212A, ord("K"): 0x212A}


def fold(ranges: Ranges) -> Ranges:
    """With every letter in every case."""
    found = list(ranges)
    for low, high in ranges:
        for code in range(low, min(high, 0x7F) + 1):
            if chr(code).isalpha():
                found.append((code ^ 0x20, code ^ 0x20))
                if code in _ASCII_FOLDS:
                    found.append((_ASCII_FOLDS[code], _ASCII_FOLDS[code]))
        if high > 0x7F:
            orbits = _fold_orbits()
            for code in range(max(low, 0x80), min(high, 0x1E943) + 1):
                found.extend((other, other) for other in orbits.get(code, ()))
    return normalise(found)


@dataclass(frozen=True, slots=True)
class _Flags:
    ignore_case: bool = False
    multi_line: bool = False
    dot_all: bool = False


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.flags = _Flags()
        self.depth = 0

    def error(self, reason: str, at: int | None = None) -> RegexError:
        return RegexError(reason, self.at if at is None else at)

    def peek(self, length: int = 1) -> str:
        return self.pattern[self.at : self.at + length]

    # --- structure ---

    def whole(self) -> RegexNode:
        found = self.alternation()
        if self.at < len(self.pattern):
            raise self.error("')' without '('")
        return found

    def alternation(self) -> RegexNode:
        self.depth += 1
        if self.depth > 100:
            raise self.error("groups nested too deep")
        outer = self.flags
        options = [self.concatenation()]
        while self.peek() == "|":
            self.at += 1
            options.append(self.concatenation())
        self.flags = outer
        self.depth -= 1
        return options[0] if len(options) == 1 else Alternation(tuple(options))

    def concatenation(self) -> RegexNode:
        parts: list[RegexNode] = []
        while self.at < len(self.pattern) and self.peek() not in ("|", ")"):
            if self.peek(2) == r"\Q":
                parts.extend(self.quoted())
                continue
            atom = self.atom()
            if atom is not None:
                parts.append(self.repeated(atom))
        return parts[0] if len(parts) == 1 else Concatenation(tuple(parts))

    def quoted(self) -> list[RegexNode]:
        end = self.pattern.find(r"\E", self.at + 2)
        text = self.pattern[self.at + 2 : end if end >= 0 else None]
        self.at = end + 2 if end >= 0 else len(self.pattern)
        parts: list[RegexNode] = [self.literal(ord(char)) for char in text]
        if parts:
            parts[-1] = self.repeated(parts[-1])
        return parts

    def repeated(self, atom: RegexNode) -> RegexNode:
        start = self.at
        bounds = self.quantifier()
        if bounds is None:
            return atom
        least, most = bounds
        if self.peek() == "?":  # fewest first: the same texts match
            self.at += 1
        behind = self.at
        if self.quantifier() is not None:
            raise self.error(
                f"repetition of a repetition: {self.pattern[start : self.at]!r}", behind
            )
        return Repetition(atom, least, most)

    def quantifier(self) -> tuple[int, int | None] | None:
        char = self.peek()
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if char in simple and char:
            self.at += 1
            return simple[char]
        if char != "{":
            return None
        end = self.pattern.find("}", self.at)
        least, comma, most = self.pattern[self.at + 1 : max(end, self.at + 1)].partition(",")
        if end < 0 or not _is_number(least) or (most and not _is_number(most)):
            return None  # an ordinary brace, as in RE2
        bounds = (int(least), (int(most) if most else None) if comma else int(least))
        if max(bounds[0], bounds[1] or 0) > MAX_REPEAT:
            raise self.error(f"repeated more than {MAX_REPEAT} times")
        if bounds[1] is not None and bounds[1] < bounds[0]:
            raise self.error("repeated at least more often than at most")
        self.at = end + 1
        return bounds

    # --- atoms ---

    def atom(self) -> RegexNode | None:
        char = self.peek()
        if char == "(":
            return self.group()
        if char == "[":
            return CharacterSet(self.bracket())
        if char == "\\":
            return self.escape()
        if char in ("*", "+", "?") or self.is_repeat_brace():
            raise self.error(f"nothing in front of {char!r} to repeat")
        self.at += 1
        if char == ".":
            return CharacterSet(negate(() if self.flags.dot_all else ((10, 10),)))
        if char == "^":
            return Assertion("line_begin" if self.flags.multi_line else "begin")
        if char == "$":
            return Assertion("line_end" if self.flags.multi_line else "end")
        return self.literal(ord(char))

    def is_repeat_brace(self) -> bool:
        before = self.at
        found = self.peek() == "{" and self.quantifier() is not None
        self.at = before
        return found

    def literal(self, code: int) -> CharacterSet:
        ranges: Ranges = ((code, code),)
        return CharacterSet(fold(ranges) if self.flags.ignore_case else ranges)

    def group(self) -> RegexNode | None:
        start = self.at
        self.at += 1
        outer = self.flags
        if self.peek() == "?" and not self.group_head(start):
            return None  # (?i): holds for the rest of the enclosing group
        found = self.alternation()
        if self.peek() != ")":
            raise self.error("'(' is never closed", start)
        self.at += 1
        self.flags = outer
        return found

    def group_head(self, start: int) -> bool:
        """Reads what follows `(?`; False where the group ends with it."""
        for head in ("?=", "?!", "?<=", "?<!"):
            if self.peek(len(head)) == head:
                raise self.error(f"lookaround '({head}' is not supported", start)
        if self.peek(2) == "?>":
            raise self.error("atomic groups are not supported", start)
        if self.peek(2) == "?#":
            raise self.error("comments are not supported", start)
        for head in ("?P<", "?<"):
            if self.peek(len(head)) == head:
                end = self.pattern.find(">", self.at)
                name = self.pattern[self.at + len(head) : max(end, self.at)]
                if end < 0 or not name.replace("_", "a").isalnum():
                    raise self.error("a group's name is missing or bad", start)
                self.at = end + 1
                return True
        if self.peek(2) == "?P":
            raise self.error("backreferences are not supported", start)
        self.at += 1
        return self.read_flags(start)

    def read_flags(self, start: int) -> bool:
        value = True
        flags = {"i": self.flags.ignore_case, "m": self.flags.multi_line, "s": self.flags.dot_all}
        while self.peek() not in (":", ")", ""):
            char = self.peek()
            self.at += 1
            if char == "-" and value:
                value = False
            elif char in flags:
                flags[char] = value
            elif char != "U":  # swaps greediness: the same texts match
                raise self.error(f"unknown flag {char!r}", self.at - 1)
        if not self.peek():
            raise self.error("'(' is never closed", start)
        self.flags = _Flags(flags["i"], flags["m"], flags["s"])
        self.at += 1
        return self.pattern[self.at - 1] == ":"

    # --- escapes and classes ---

    def escape(self) -> RegexNode:
        char = self.pattern[self.at + 1 : self.at + 2]
        if char in _ASSERTION_ESCAPES and char:
            self.at += 2
            return Assertion(_ASSERTION_ESCAPES[char])
        if char == "Z":
            raise self.error(r"'\Z' is not supported: the end of the text is '\z' or '$'")
        if char in "123456789" and char:
            raise self.error("backreferences are not supported")
        if char == "k":
            raise self.error("backreferences are not supported")
        ranges = self.class_escape()
        if ranges is not None:
            return CharacterSet(ranges)
        return self.literal(self.character_escape())

    def class_escape(self) -> Ranges | None:
        char = self.pattern[self.at + 1 : self.at + 2]
        if char in ("p", "P"):
            raise self.error("Unicode classes (\\p) are not supported")
        if char.lower() not in _CLASS_ESCAPES or not char:
            return None
        self.at += 2
        ranges = _CLASS_ESCAPES[char.lower()]
        if self.flags.ignore_case:
            ranges = fold(ranges)
        return negate(ranges) if char.isupper() else ranges

    def character_escape(self) -> int:
        start = self.at
        char = self.pattern[self.at + 1 : self.at + 2]
        self.at += 2
        if not char:
            raise self.error("ends in a backslash", start)
        if char in _SIMPLE_ESCAPES:
            return _SIMPLE_ESCAPES[char]
        if char == "x":
            return self.hexadecimal(start)
        if char == "0":
            digits = ""
            while len(digits) < 2 and self.peek() in "01234567" and self.peek():
                digits += self.peek()
                self.at += 1
            return int(digits or "0", 8)
        if char.isascii() and (char.isalnum()):
            raise self.error(f"unknown escape '\\{char}'", start)
        if not char.isascii():
            raise self.error("unknown escape", start)
        return ord(char)

    def hexadecimal(self, start: int) -> int:
        if self.peek() == "{":
            end = self.pattern.find("}", self.at)
            digits = self.pattern[self.at + 1 : max(end, self.at)]
            self.at = end + 1 if end >= 0 else self.at
        else:
            digits = self.peek(2) if len(self.peek(2)) == 2 else ""
            self.at += 2
        if not digits or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
            raise self.error("bad hexadecimal escape", start)
        code = int(digits, 16)
        if code > MAX_CODE_POINT:
            raise self.error("the escape names no character", start)
        return code

    def bracket(self) -> Ranges:
        start = self.at
        self.at += 1
        negated = self.peek() == "^"
        self.at += negated
        ranges: list[tuple[int, int]] = []
        first = True
        while first or self.peek() != "]":
            if not self.peek():
                raise self.error("'[' is never closed", start)
            first = False
            ranges.extend(self.bracket_item())
        self.at += 1
        found = normalise(ranges)
        if self.flags.ignore_case:
            found = fold(found)
        return negate(found) if negated else found

    def bracket_item(self) -> Ranges:
        if self.peek(2) == "[:":
            posix = self.posix_class()
            if posix is not None:
                return posix
        if self.peek() == "\\":
            ranges = self.class_escape()
            if ranges is not None:
                return ranges
        start = self.at
        low = self.bracket_character()
        if self.peek() != "-" or self.pattern[self.at + 1 : self.at + 2] in ("]", ""):
            return ((low, low),)
        self.at += 1
        high = self.bracket_character()
        if high < low:
            raise self.error("a range that runs backwards", start)
        return ((low, high),)

    def bracket_character(self) -> int:
        if self.peek() == "\\":
            return self.character_escape()
        char = self.peek()
        self.at += 1
        return ord(char)

    def posix_class(self) -> Ranges | None:
        end = self.pattern.find(":]", self.at)
        if end < 0:
            return None
        name = self.pattern[self.at + 2 : end]
        negated = name.startswith("^")
        ranges = _POSIX.get(name.removeprefix("^"))
        if ranges is None:
            raise self.error(f"unknown class '[:{name}:]'")
        self.at = end + 2
        return negate(ranges) if negated else ranges


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def parse_regex(pattern: str) -> RegexNode:
    """Reads a pattern.

    Raises:
        RegexError: It is no pattern, or needs a backtracking matcher.
    """
    return _Parser(pattern).whole()
