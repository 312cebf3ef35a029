"""Which rows were stored last, by commits that were too small for a summary of their own? Pure.

They are summed up with a later commit, while what a summary needs of them is at hand: read again
and taken apart, in the background, they cost five times as much, and the store's only writer.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

__all__ = ["Mark", "Rows", "Unsummed"]

Rows: TypeAlias = tuple[Sequence[tuple[Any, ...]], Sequence[Mapping[str, Any]]]
"""Rows of events in the order of ``EVENT_COLUMNS``, or of records (``RecordRow``), and the fields
of each. The first column is the number."""

Mark: TypeAlias = tuple[list[tuple[Any, ...]], int]

_COLUMNS: Final = 9
"""Of a row those that a summary looks at: not the message and the fields, which may be long."""
_FIELDS: Final = ("path", "request")


class Unsummed:
    """Rows that follow each other, up to the last one that this process stored in the table.

    In memory only. What is forgotten is summed up in the background, like all that has no summary.
    """

    __slots__ = ("_fields", "_rows")

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._fields: list[Mapping[str, Any]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def before(self, last: int) -> int:
        """Return the last number that is none of theirs, of the last one in the table."""
        is_at_end = bool(self._rows) and self._rows[-1][0] == last
        return last - len(self) if is_at_end else last

    def mark(self) -> Mark:
        """Return what ``back_to`` needs to forget all that comes from now on."""
        return self._rows, len(self)

    def back_to(self, mark: Mark) -> None:
        """Forget what came since; all, where what was there has been summed up meanwhile."""
        rows, count = mark
        kept = count if rows is self._rows else 0
        del self._rows[kept:], self._fields[kept:]

    def add(self, stored: Rows, enough: int) -> Rows | None:
        """Take in what one commit stores; return all there is once that is enough, and forget it."""
        rows, fields = stored
        if self._rows and rows[0][0] != self._rows[-1][0] + 1:
            # Another server has stored something in between.
            self._rows, self._fields = [], []
        if len(self) + len(rows) >= enough:
            together = [*self._rows, *rows], [*self._fields, *fields]
            self._rows, self._fields = [], []
            return together
        self._rows += [row[:_COLUMNS] for row in rows]
        self._fields += [{name: each[name] for name in _FIELDS if name in each} for each in fields]
        return None
