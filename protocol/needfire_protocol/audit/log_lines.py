"""The lines of a log that is checked, with a look at those ahead; a long line comes as nothing."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from needfire_protocol.audit.record import Head, parse_head, parse_record
from needfire_protocol.errors import FormatError

__all__ = ["LogLine", "LogLines"]

_AHEAD: Final = 8
"""Lines that are looked at in advance, at a fault only."""


@dataclass(slots=True)
class LogLine:
    """One line of the input, without its newline.

    Attributes:
        line: its number, from 1.
        head: None for what does not look like a record.
    """

    line: int
    raw: bytes
    head: Head | None

    def is_canonical(self) -> bool:
        """Whether it is exactly a record; the head alone does not say so."""
        try:
            parse_record(self.raw)
        except FormatError:
            return False
        return True


class LogLines:
    """The input, with a look ahead."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._source = iter(lines)
        self._ahead: deque[LogLine] = deque()
        self._line = 0
        self.records = 0
        """Lines that were read and look like records."""
        self.torn: bytes | None = None
        """The last line, where it has no newline."""

    def __iter__(self) -> Iterator[LogLine]:
        return self

    def __next__(self) -> LogLine:
        return self._ahead.popleft() if self._ahead else self._read()

    def _read(self) -> LogLine:
        raw = next(self._source)
        self._line += 1
        if raw.endswith(b"\n"):
            raw = raw[:-1]
            head = parse_head(raw)
            self.records += head is not None
            return LogLine(self._line, raw, head)
        following = next(self._source, None)
        if following is None:
            self.torn = raw
            raise StopIteration
        # A piece of a line that is longer than any line may be.
        self._source = _again(following, self._source)
        return LogLine(self._line, b"", None)

    def peek(self) -> list[LogLine]:
        """Return the next lines that are no checkpoints, as far as we look ahead."""
        while len(self._ahead) < _AHEAD:
            try:
                self._ahead.append(self._read())
            except StopIteration:
                break
        return [each for each in self._ahead if not each.raw.startswith(b'{"checkpoint"')]

    def peek_line(self) -> LogLine | None:
        """Return the next line, whatever it is."""
        self.peek()
        return self._ahead[0] if self._ahead else None


def _again(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
