"""POSIX extended regular expressions over bytes, matched in linear time.

Theory of operation: an expression becomes a non-deterministic automaton (Thompson's construction),
and matching walks the set of its states byte by byte, remembering steps it has taken before.
Python's ``re`` backtracks instead: with an expression like ``/srv/([a-z]+)*x``, whoever can name a
file on a watched host could hold the agent busy for years. POSIX expressions have no
back-references, so nothing is lost. Bytes, not characters, are matched, as in the C locale.
"""

import re
from typing import Final

from needfire_protocol.errors import FormatError
from needfire_protocol.plain_classes import dataclass

__all__ = ["EXPRESSION_BYTES_MAX", "PosixRegex", "compile_posix_regex"]

EXPRESSION_BYTES_MAX: Final = 1_024
"""Bytes of one expression."""
STATES_MAX: Final = 1_000
"""States of one automaton. A byte of a path costs at most so many steps."""
REPEAT_MAX: Final = 255
"""Largest number in ``{m,n}``: RE_DUP_MAX of POSIX."""
NESTING_MAX: Final = 50
"""Groups inside groups; the compiler recurses once for each."""
REMEMBERED_STATES_MAX: Final = 10_000
"""States in all the sets that are remembered (less than a MiB); then all are forgotten."""

_ANY: Final = (1 << 256) - 1


def _bits(data: bytes) -> int:
    """Return a set of bytes as an integer with one bit for each."""
    bits = 0
    for byte in data:
        bits |= 1 << byte
    return bits


def _span(first: int, last: int) -> int:
    return _bits(bytes(range(first, last + 1)))


_DIGIT: Final = _span(0x30, 0x39)
_UPPER: Final = _span(0x41, 0x5A)
_LOWER: Final = _span(0x61, 0x7A)
_SPACE: Final = _bits(b" \t\n\r\f\v")
_ALNUM: Final = _DIGIT | _UPPER | _LOWER

_CLASSES: Final = {
    b"alpha": _UPPER | _LOWER,
    b"digit": _DIGIT,
    b"alnum": _ALNUM,
    b"upper": _UPPER,
    b"lower": _LOWER,
    b"space": _SPACE,
    b"blank": _bits(b" \t"),
    b"punct": _span(0x21, 0x7E) & ~_ALNUM,
    b"print": _span(0x20, 0x7E),
    b"graph": _span(0x21, 0x7E),
    b"cntrl": _span(0x00, 0x1F) | _bits(b"\x7f"),
    b"xdigit": _DIGIT | _span(0x41, 0x46) | _span(0x61, 0x66),
}

_LETTER_ESCAPES: Final = {
    ord("w"): _ALNUM | _bits(b"_"),
    ord("W"): _ANY & ~(_ALNUM | _bits(b"_")),
    ord("s"): _SPACE,
    ord("S"): _ANY & ~_SPACE,
}
"""GNU's extensions, which expressions of existing installations may use."""

_INTERVAL = re.compile(rb"\{(\d{1,3})(,(\d{1,3})?)?\}")
_BRACKET_CLASS = re.compile(rb"\[:([a-z]+):\]")
_BRACKET_NAMED = re.compile(rb"\[([.=])(.)\1\]", re.DOTALL)


# ---- the tree that an expression is read into ---------------------------------


@dataclass(frozen=True, slots=True)
class _Bytes:
    bits: int


@dataclass(frozen=True, slots=True)
class _Edge:
    """``^`` (at_start) or ``$``."""

    at_start: bool


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: "tuple[_Node, ...]"


@dataclass(frozen=True, slots=True)
class _Choice:
    options: "tuple[_Node, ...]"


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: "_Node"
    least: int
    most: int | None


_Node = _Bytes | _Edge | _Sequence | _Choice | _Repeat


class PosixRegex:
    """A compiled expression. Matching never costs more than (bytes of text) x (states)."""

    __slots__ = ("_automaton", "_remembered", "_steps", "pattern")

    def __init__(self, pattern: bytes) -> None:
        """Compile the expression.

        Raises:
            FormatError: it is no POSIX extended expression, or too large.
        """
        self.pattern = pattern
        self._automaton = _Automaton(_Reader(pattern).read())
        self._steps: dict[tuple[frozenset[int], int], frozenset[int]] = {}
        self._remembered = 0

    def __repr__(self) -> str:
        return f"PosixRegex({self.pattern!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PosixRegex) and self.pattern == other.pattern

    def __hash__(self) -> int:
        return hash(self.pattern)

    def fullmatch(self, text: bytes, /) -> bool:
        """True where the whole text matches."""
        current = self._automaton.start
        for byte in text:
            current = self._step(current, byte)
            if not current:
                return False
        return self._automaton.accepts_at_end(current, at_start=not text)

    def search(self, text: bytes, /) -> bool:
        """True where any part of the text matches, as regexec finds it."""
        automaton = self._automaton
        current = automaton.start
        for byte in text:
            if automaton.accepts(current):
                return True
            current = self._step(current, byte) | automaton.restart
        return automaton.accepts_at_end(current, at_start=not text)

    def _step(self, current: frozenset[int], byte: int) -> frozenset[int]:
        key = (current, byte)
        reached = self._steps.get(key)
        if reached is None:
            reached = self._automaton.step(current, byte)
            self._remember(key, reached)
        return reached

    def _remember(self, key: tuple[frozenset[int], int], reached: frozenset[int]) -> None:
        self._remembered += len(key[0]) + len(reached) + 2
        if self._remembered > REMEMBERED_STATES_MAX:
            self._steps.clear()
            self._remembered = 0
        self._steps[key] = reached


def compile_posix_regex(pattern: bytes) -> PosixRegex:
    """Return the compiled expression.

    Raises:
        FormatError: it is no POSIX extended expression, or too large.
    """
    return PosixRegex(pattern)


# ---- reading ------------------------------------------------------------------


class _Reader:
    """Recursive descent over the bytes of an expression."""

    def __init__(self, pattern: bytes) -> None:
        if len(pattern) > EXPRESSION_BYTES_MAX:
            raise FormatError(
                f"the expression has {len(pattern)} bytes; at most {EXPRESSION_BYTES_MAX} are read"
            )
        self._pattern = pattern
        self._at = 0
        self._nesting = 0

    def read(self) -> _Node:
        node = self._choice()
        if self._at < len(self._pattern):
            raise self._error("')' without '('")
        return node

    def _peek(self) -> int | None:
        return self._pattern[self._at] if self._at < len(self._pattern) else None

    def _take(self, expected: bytes) -> bool:
        if self._pattern.startswith(expected, self._at):
            self._at += len(expected)
            return True
        return False

    def _error(self, text: str) -> FormatError:
        return FormatError(f"{text} at byte {self._at + 1} of the expression")

    def _choice(self) -> _Node:
        options = [self._sequence()]
        while self._take(b"|"):
            options.append(self._sequence())
        return options[0] if len(options) == 1 else _Choice(tuple(options))

    def _sequence(self) -> _Node:
        parts: list[_Node] = []
        while self._peek() not in (None, ord("|"), ord(")")):
            parts.append(self._repeats(self._atom()))
        return parts[0] if len(parts) == 1 else _Sequence(tuple(parts))

    def _repeats(self, node: _Node) -> _Node:
        while True:
            if self._take(b"*"):
                node = _Repeat(node, 0, None)
            elif self._take(b"+"):
                node = _Repeat(node, 1, None)
            elif self._take(b"?"):
                node = _Repeat(node, 0, 1)
            elif self._peek() == ord("{"):
                node = self._interval(node)
            else:
                return node

    def _interval(self, node: _Node) -> _Node:
        match = _INTERVAL.match(self._pattern, self._at)
        if match is None:
            raise self._error("'{' that begins no {m}, {m,} or {m,n}; write \\{ for the character")
        least = int(match[1])
        most = least if match[2] is None else None if match[3] is None else int(match[3])
        if max(least, most or 0) > REPEAT_MAX or (most is not None and most < least):
            raise self._error(f"{{m,n}} must have m <= n <= {REPEAT_MAX}, but does not")
        self._at = match.end()
        return _Repeat(node, least, most)

    def _atom(self) -> _Node:
        char = self._pattern[self._at]
        if char in b"*+?{":
            raise self._error(f"{chr(char)!r} with nothing before it to repeat")
        self._at += 1
        if char == ord("("):
            return self._group()
        if char == ord("["):
            return _Bytes(self._bracket())
        if char == ord("\\"):
            return _Bytes(self._escape())
        if char in b"^$":
            return _Edge(at_start=char == ord("^"))
        return _Bytes(_ANY if char == ord(".") else 1 << char)

    def _group(self) -> _Node:
        self._nesting += 1
        if self._nesting > NESTING_MAX:
            raise self._error(f"more than {NESTING_MAX} groups inside each other")
        node = self._choice()
        self._nesting -= 1
        if not self._take(b")"):
            raise self._error("'(' without ')'")
        return node

    def _escape(self) -> int:
        char = self._peek()
        if char is None:
            raise self._error("a backslash with nothing behind it")
        if char in _LETTER_ESCAPES:
            self._at += 1
            return _LETTER_ESCAPES[char]
        if chr(char).isalnum() or char in b"<>`'":
            raise self._error(
                f"\\{chr(char)} is not known in POSIX expressions "
                "(a digit is [0-9], a letter [[:alpha:]])"
            )
        self._at += 1
        return 1 << char

    def _bracket(self) -> int:
        opened_at = self._at
        negated = self._take(b"^")
        bits = 0
        first = True
        while first or self._peek() != ord("]"):
            if self._peek() is None:
                self._at = opened_at
                raise self._error("'[' without ']'")
            bits |= self._bracket_item()
            first = False
        self._at += 1
        return _ANY & ~bits if negated else bits

    def _bracket_item(self) -> int:
        match = _BRACKET_CLASS.match(self._pattern, self._at)
        if match is not None:
            if match[1] not in _CLASSES:
                raise self._error(f"[:{match[1].decode()}:] is no character class")
            self._at = match.end()
            return _CLASSES[match[1]]
        low = self._bracket_char()
        following = self._pattern[self._at : self._at + 2]
        if len(following) < 2 or following[:1] != b"-" or following[1:] == b"]":
            return 1 << low
        self._at += 1
        high = self._bracket_char()
        if high < low:
            raise self._error("a range whose end comes before its beginning")
        return _span(low, high)

    def _bracket_char(self) -> int:
        match = _BRACKET_NAMED.match(self._pattern, self._at)
        if match is not None:
            self._at = match.end()
            return match[2][0]
        if self._pattern[self._at : self._at + 2] in (b"[:", b"[.", b"[="):
            raise self._error("a character class or element that is not closed")
        char = self._peek()
        if char is None:
            raise self._error("'[' without ']'")
        self._at += 1
        return char


# ---- the automaton ------------------------------------------------------------

_ACCEPT: Final = 0
_CONSUME: Final = 1
_SPLIT: Final = 2
_AT_START: Final = 3
_AT_END: Final = 4


class _Automaton:
    """States as ``(kind, bits, targets)``; state 0 accepts."""

    def __init__(self, tree: _Node) -> None:
        self._states: list[tuple[int, int, tuple[int, ...]]] = [(_ACCEPT, 0, ())]
        entry = self._build(tree, 0)
        self.start = self._closure([entry], at_start=True, at_end=False)
        self.restart = self._closure([entry], at_start=False, at_end=False)

    def accepts(self, current: frozenset[int]) -> bool:
        return 0 in current

    def accepts_at_end(self, current: frozenset[int], *, at_start: bool) -> bool:
        return 0 in current or 0 in self._closure(current, at_start=at_start, at_end=True)

    def step(self, current: frozenset[int], byte: int) -> frozenset[int]:
        reached = [
            self._states[state][2][0]
            for state in current
            if self._states[state][0] == _CONSUME and self._states[state][1] >> byte & 1
        ]
        return self._closure(reached, at_start=False, at_end=False)

    def _closure(
        self, states: "list[int] | frozenset[int]", *, at_start: bool, at_end: bool
    ) -> frozenset[int]:
        seen: set[int] = set()
        waiting = list(states)
        while waiting:
            state = waiting.pop()
            if state in seen:
                continue
            seen.add(state)
            kind, _, targets = self._states[state]
            if kind == _SPLIT or (kind == _AT_START and at_start) or (kind == _AT_END and at_end):
                waiting.extend(targets)
        return frozenset(seen)

    def _add(self, kind: int, bits: int, targets: tuple[int, ...]) -> int:
        if len(self._states) >= STATES_MAX:
            raise FormatError(f"the expression needs more than {STATES_MAX} states; shorten it")
        self._states.append((kind, bits, targets))
        return len(self._states) - 1

    def _build(self, node: _Node, after: int) -> int:
        """Return the state that begins node and leads to the state after."""
        match node:
            case _Bytes(bits):
                return self._add(_CONSUME, bits, (after,))
            case _Edge(at_start):
                return self._add(_AT_START if at_start else _AT_END, 0, (after,))
            case _Sequence(parts):
                for part in reversed(parts):
                    after = self._build(part, after)
                return after
            case _Choice(options):
                return self._add(_SPLIT, 0, tuple(self._build(o, after) for o in options))
            case _Repeat(part, least, most):
                return self._build_repeat(part, least, most, after)

    def _build_repeat(self, part: _Node, least: int, most: int | None, after: int) -> int:
        if most is None:
            loop = self._add(_SPLIT, 0, ())
            self._states[loop] = (_SPLIT, 0, (self._build(part, loop), after))
            entry = loop
        else:
            entry = after
            for _ in range(most - least):
                entry = self._add(_SPLIT, 0, (self._build(part, entry), after))
        for _ in range(least):
            entry = self._build(part, entry)
        return entry
