"""What the rest of a log says about its first fault: kinds that look alike at that place.

A record that is missing may have been moved, and one that is too many may be what lacks elsewhere.
"""

from dataclasses import dataclass, field
from typing import Final

from needfire_protocol.audit.export import parse_line
from needfire_protocol.audit.log_lines import LogLine, LogLines
from needfire_protocol.audit.note import Checkpoint, parse_checkpoint, parse_note
from needfire_protocol.audit.record import Head
from needfire_protocol.audit.verdict import Verdict
from needfire_protocol.errors import FormatError

__all__ = ["Clues", "judge_by_rest"]

_STRAYS_MAX: Final = 64
"""Lines out of place that are remembered, to find out where they belong."""


@dataclass(slots=True)
class Clues:
    """What was seen at the first fault, and would show that it is of another kind.

    Attributes:
        wanted: hashes of records that are missing.
        strays: hashes of records that stand where they do not belong.
        checkpoint: number of a checkpoint that is not where it should be; 0: of none.
        otherwise: what the fault is where that checkpoint is never met.
        is_misplaced: a checkpoint or the header is not where it should be.
    """

    wanted: set[bytes] = field(default_factory=set)
    strays: set[bytes] = field(default_factory=set)
    checkpoint: int = 0
    otherwise: Verdict = Verdict.MISSING_CHECKPOINT
    is_misplaced: bool = False

    def note_stray(self, item: LogLine) -> None:
        """Remember a line that stands where it does not belong, if it is a record."""
        if item.head is not None and len(self.strays) < _STRAYS_MAX:
            self.strays.add(item.head.hash)

    def note_gap(self, head: Head | None) -> None:
        """Remember that what is before a record is missing."""
        if head is not None:
            self.wanted.add(head.previous)


def judge_by_rest(
    verdict: Verdict,
    clues: Clues,
    lines: LogLines,
    *,
    count: int,
    closing: Checkpoint | None,
    has_header: bool,
) -> Verdict:
    """Read a log to its end; return what the first fault is then.

    Args:
        verdict: what it looks like at its place.
        lines: those behind it.
        count: records before it.
        closing: what the log says it ends with, where it says so.
        has_header: false where the log begins without one.
    """
    if verdict in (Verdict.WRONG_KEY, Verdict.CUT_OFF):
        return verdict
    rest = _Rest(verdict, clues, closing, has_header=has_header)
    return rest.read(lines, count)


class _Rest:
    def __init__(
        self, verdict: Verdict, clues: Clues, closing: Checkpoint | None, *, has_header: bool
    ) -> None:
        self._first_sight = verdict
        self._verdict = verdict
        self._clues = clues
        self._closing = closing
        self._has_header = has_header

    def read(self, lines: LogLines, count: int) -> Verdict:
        expected: tuple[int, bytes] | None = None
        clues, highest = self._clues, count
        for item in lines:
            head = item.head
            if head is None:
                self._meet(item)
                continue
            is_linked = expected is None or (head.number, head.previous) == expected
            if head.hash in clues.wanted or (not is_linked and head.previous in clues.strays):
                return Verdict.REORDERED
            expected = (head.number + 1, head.hash)
            highest = max(highest, head.number + 1)
        return self._at_the_end(lines.records, highest)

    def _meet(self, item: LogLine) -> None:
        """A checkpoint or a header behind the first fault may tell what that was."""
        clues = self._clues
        if item.raw.startswith(b'{"needfire_audit"'):
            if not self._has_header:
                self._verdict = Verdict.REORDERED
            return
        try:
            text = parse_line(item.raw)
            number = 0 if text is None else parse_checkpoint(parse_note(text)).number
        except FormatError:
            return
        if not number or not clues.checkpoint:
            return
        if self._first_sight is Verdict.MISSING_CHECKPOINT and number == clues.checkpoint:
            self._verdict = Verdict.REORDERED
        elif self._first_sight is Verdict.INSERTED:
            # Something in the place of a checkpoint, or beside it?
            if number > clues.checkpoint:
                self._verdict = clues.otherwise
            clues.checkpoint = 0

    def _at_the_end(self, records: int, highest: int) -> Verdict:
        """Args:
        records: in the whole log.
        highest: number that a record behind the last one would have.
        """
        clues, closing = self._clues, self._closing
        size = 0 if closing is None else closing.size
        is_inserted = self._first_sight is Verdict.INSERTED
        if not records and self._first_sight is Verdict.REMOVED:
            return Verdict.CUT_OFF
        if clues.is_misplaced and records == size:
            return Verdict.REORDERED
        if is_inserted and clues.strays and highest < size:
            # What was too many is what lacks at the end.
            return Verdict.REORDERED
        is_closing_lost = closing is not None and 0 < closing.number == clues.checkpoint
        return clues.otherwise if is_inserted and is_closing_lost else self._verdict
