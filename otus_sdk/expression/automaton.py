r"""From a pattern's tree to a deterministic automaton over octets.

The automaton answers one question: does the pattern match anywhere in the text?
It is built whole, at compile time, with a bound on its states; running it is
one table look-up an octet. Positions (`^`, `$`, `\b`) are decided when the next
octet is known, so each state also remembers what kind the last octet was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from otus_sdk.expression.regex import (
    Alternation,
    Assertion,
    CharacterSet,
    Concatenation,
    RegexError,
    RegexNode,
    Repetition,
    parse_regex,
)

__all__ = ["ACCEPT", "DEAD", "MAX_STATES", "Automaton", "compile_pattern", "matches"]

MAX_STATES = 2000
MAX_POSITIONS = 20000
DEAD = 0
ACCEPT = 1
_END = 256  # the symbol behind the last octet
_BEGIN, _NEWLINE, _WORD, _OTHER = range(4)  # what the last octet was

OctetRange = tuple[int, int]


def _class_of(octet: int) -> int:
    if octet == 10:
        return _NEWLINE
    if octet == 95 or 48 <= octet <= 57 or 65 <= octet <= 90 or 97 <= octet <= 122:
        return _WORD
    return _OTHER


# --- UTF-8 ---------------------------------------------------------------------


def utf8_sequences(low: int, high: int) -> Iterator[tuple[OctetRange, ...]]:
    """The octet ranges, one a position, that spell the code points low to high."""
    for limit in (0x7F, 0x7FF, 0xD7FF, 0xDFFF, 0xFFFF):
        if low <= limit < high:
            yield from utf8_sequences(low, limit)
            yield from utf8_sequences(limit + 1, high)
            return
    if 0xD800 <= low <= 0xDFFF:
        return  # surrogates have no UTF-8
    for bits in (6, 12, 18):
        mask = (1 << bits) - 1
        if high > 0x7F and low & ~mask != high & ~mask:
            if low & mask:
                yield from utf8_sequences(low, low | mask)
                yield from utf8_sequences((low | mask) + 1, high)
                return
            if high & mask != mask:
                yield from utf8_sequences(low, (high & ~mask) - 1)
                yield from utf8_sequences(high & ~mask, high)
                return
    yield tuple(zip(chr(low).encode(), chr(high).encode(), strict=True))


# --- nondeterministic ------------------------------------------------------------


class _Network:
    """Positions with edges: over octets, over nothing, over an assertion."""

    def __init__(self) -> None:
        self.octets: list[list[tuple[int, int, int]]] = []
        self.empty: list[list[int]] = []
        self.guarded: list[list[tuple[str, int]]] = []

    def add(self) -> int:
        if len(self.octets) >= MAX_POSITIONS:
            raise RegexError("the pattern is too large: repeat less", 0)
        self.octets.append([])
        self.empty.append([])
        self.guarded.append([])
        return len(self.octets) - 1

    def build(self, node: RegexNode, start: int) -> int:
        """Adds the node behind `start`; returns the position behind it."""
        match node:
            case CharacterSet():
                return self.build_set(node, start)
            case Assertion():
                end = self.add()
                self.guarded[start].append((node.kind, end))
                return end
            case Concatenation():
                for part in node.parts:
                    start = self.build(part, start)
                return start
            case Alternation():
                end = self.add()
                for option in node.options:
                    first = self.add()
                    self.empty[start].append(first)
                    self.empty[self.build(option, first)].append(end)
                return end
            case Repetition():
                return self.build_repetition(node, start)

    def build_set(self, node: CharacterSet, start: int) -> int:
        end = self.add()
        # Sequences that begin alike share their positions.
        known: dict[tuple[int, OctetRange], int] = {}
        for low, high in node.ranges:
            for sequence in utf8_sequences(low, high):
                at = start
                for octets in sequence[:-1]:
                    following = known.get((at, octets))
                    if following is None:
                        following = known[at, octets] = self.add()
                        self.octets[at].append((*octets, following))
                    at = following
                self.octets[at].append((*sequence[-1], end))
        return end

    def build_repetition(self, node: Repetition, start: int) -> int:
        for _ in range(node.least):
            start = self.build(node.node, start)
        if node.most is None:
            loop = self.add()
            self.empty[start].append(loop)
            self.empty[self.build(node.node, loop)].append(loop)
            end = self.add()
            self.empty[loop].append(end)
            return end
        end = self.add()
        self.empty[start].append(end)
        for _ in range(node.most - node.least):
            start = self.build(node.node, start)
            self.empty[start].append(end)
        return end

    def closure(self, positions: frozenset[int], last: int, symbol: int) -> set[int]:
        """All positions reached without an octet, between `last` and the next symbol."""
        stack = list(positions)
        found = set(positions)
        while stack:
            at = stack.pop()
            following = list(self.empty[at])
            following += [to for kind, to in self.guarded[at] if _holds(kind, last, symbol)]
            for to in following:
                if to not in found:
                    found.add(to)
                    stack.append(to)
        return found


def _holds(kind: str, last: int, symbol: int) -> bool:
    if kind == "begin":
        return last == _BEGIN
    if kind == "end":
        return symbol == _END
    if kind == "line_begin":
        return last in (_BEGIN, _NEWLINE)
    if kind == "line_end":
        return symbol in (_END, 10)
    at_boundary = (last == _WORD) != (symbol != _END and _class_of(symbol) == _WORD)
    return at_boundary == (kind == "word")


@dataclass(frozen=True, slots=True)
class _Pattern:
    network: _Network
    start: int
    end: int
    assertions: frozenset[str]


def _network_of(node: RegexNode) -> _Pattern:
    network = _Network()
    start = network.add()
    end = network.build(node, start)
    kinds = frozenset(kind for edges in network.guarded for kind, _ in edges)
    return _Pattern(network, start, end, kinds)


def matches(pattern: str, octets: bytes) -> bool:
    """Whether the pattern matches anywhere: the reference, by walking the network.

    Raises:
        RegexError: It is no pattern.
    """
    found = _network_of(parse_regex(pattern))
    network = found.network
    positions = frozenset({found.start})
    last = _BEGIN
    for symbol in (*octets, _END):
        reached = network.closure(positions, last, symbol)
        if found.end in reached:
            return True
        stepped = {
            to for at in reached for low, high, to in network.octets[at] if low <= symbol <= high
        }
        positions = frozenset(stepped | {found.start})
        last = _class_of(symbol) if symbol != _END else _OTHER
    return False


# --- deterministic ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Automaton:
    """A table over classes of octets that behave alike.

    Attributes:
        start: The first state.
        classes: 256 class numbers, by octet.
        num_classes: How many there are.
        accepts_at_end: For each state, whether the text may end there.
        next: The state that follows, by state * num_classes + class. DEAD never
            matches any more, ACCEPT has matched.
    """

    start: int
    classes: bytes
    num_classes: int
    accepts_at_end: bytes
    next: tuple[int, ...]

    @property
    def num_states(self) -> int:
        """States, DEAD and ACCEPT included."""
        return len(self.accepts_at_end)

    def run(self, octets: bytes) -> bool:
        """Whether the pattern matches anywhere in the octets."""
        state = self.start
        for octet in octets:
            state = self.next[state * self.num_classes + self.classes[octet]]
            if state == ACCEPT:
                return True
        return bool(self.accepts_at_end[state])


def _octet_classes(pattern: _Pattern) -> tuple[bytes, list[int]]:
    """Octets that no edge and no assertion tells apart; one octet of each class."""
    cuts = {0}
    for edges in pattern.network.octets:
        for low, high, _ in edges:
            cuts.update((low, high + 1))
    by_kind: list[int] = [0] * 256
    if pattern.assertions & {"word", "not_word"}:
        by_kind = [int(_class_of(octet) == _WORD) for octet in range(256)]
    if pattern.assertions & {"line_begin", "line_end"}:
        by_kind[10] = 2
    classes = bytearray(256)
    samples: list[int] = []
    known: dict[tuple[int, int], int] = {}
    interval = -1
    for octet in range(256):
        interval += octet in cuts
        key = (interval, by_kind[octet])
        if key not in known:
            known[key] = len(samples)
            samples.append(octet)
        classes[octet] = known[key]
    return bytes(classes), samples


class _Builder:
    def __init__(self, pattern: _Pattern) -> None:
        self.pattern = pattern
        self.anchored = False
        self.states: dict[tuple[frozenset[int], int], int] = {}
        self.todo: list[tuple[frozenset[int], int]] = []

    def state(self, positions: frozenset[int], last: int) -> int:
        """The number of a state; what no assertion asks for is not told apart."""
        if not positions:
            return DEAD
        assertions = self.pattern.assertions
        if last == _WORD and not assertions & {"word", "not_word"}:
            last = _OTHER
        if last == _NEWLINE and not assertions & {"line_begin"}:
            last = _OTHER
        if last == _BEGIN and not assertions & {"begin", "line_begin"}:
            last = _OTHER  # no word in front either
        key = (positions, last)
        if key not in self.states:
            if len(self.states) + 2 >= MAX_STATES:
                raise RegexError(
                    f"the pattern needs more than {MAX_STATES} states: "
                    "anchor it with ^, or repeat less",
                    0,
                )
            self.states[key] = len(self.states) + 2
            self.todo.append(key)
        return self.states[key]

    def step(self, positions: frozenset[int], last: int, symbol: int) -> int:
        network = self.pattern.network
        reached = network.closure(positions, last, symbol)
        if self.pattern.end in reached:
            return ACCEPT
        if symbol == _END:
            return DEAD
        stepped = {
            to for at in reached for low, high, to in network.octets[at] if low <= symbol <= high
        }
        if not self.anchored:
            stepped.add(self.pattern.start)
        return self.state(frozenset(stepped), _class_of(symbol))

    def build(self) -> Automaton:
        self.anchored = self.is_anchored()
        classes, samples = _octet_classes(self.pattern)
        start = self.state(frozenset({self.pattern.start}), _BEGIN)
        at_end = [0, 1]
        rows: list[int] = [DEAD] * len(samples) + [ACCEPT] * len(samples)
        done = 0
        while done < len(self.todo):
            positions, last = self.todo[done]
            done += 1
            rows.extend(self.step(positions, last, symbol) for symbol in samples)
            at_end.append(int(self.step(positions, last, _END) == ACCEPT))
        return Automaton(start, classes, len(samples), bytes(at_end), tuple(rows))

    def is_anchored(self) -> bool:
        """Whether a match can begin at the text's begin only."""
        network = self.pattern.network
        # Without the assertion no octet and no end is reached.
        reached = network.closure(frozenset({self.pattern.start}), _OTHER, _END)
        for symbol in range(256):
            reached |= network.closure(frozenset({self.pattern.start}), _OTHER, symbol)
            reached |= network.closure(frozenset({self.pattern.start}), _WORD, symbol)
            reached |= network.closure(frozenset({self.pattern.start}), _NEWLINE, symbol)
        return self.pattern.end not in reached and not any(network.octets[at] for at in reached)


def compile_pattern(pattern: str) -> Automaton:
    """Builds the automaton of a pattern.

    Raises:
        RegexError: It is no pattern, or it needs too many states.
    """
    return _Builder(_network_of(parse_regex(pattern))).build()
