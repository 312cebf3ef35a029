"""The log as lines, straight from the store: for export, and for a check of the store itself.

A page of records at a time, so memory does not grow with the log. Blocking: for threads and for
programs of their own.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from needfire_protocol.audit.export import checkpoint_line, header_line
from needfire_protocol.audit.note import PublicKey
from needfire_server.storage.audit_base import AuditPages, StoredCheckpoint

__all__ = ["log_lines"]

_PAGE: Final = 2_000


def log_lines(
    tables: AuditPages,
    keys: Sequence[PublicKey],
    closing: StoredCheckpoint,
    *,
    size: int | None = None,
) -> Iterator[bytes]:
    """Yield the lines of the log, each with its newline, up to ``size`` records.

    Args:
        size: the closing checkpoint's where not given; more for a log that is still written.
    """
    yield header_line(keys, closing.note) + b"\n"
    checkpoints = _Checkpoints(tables, closing.number)
    wanted = closing.size if size is None else size
    following = 0
    while page := tables.records_now(following, _PAGE):
        for number, line in page:
            if number >= wanted:
                break
            # By the record's own number: where rows are missing, the others keep their places.
            yield from checkpoints.up_to(number)
            yield line + b"\n"
        following = page[-1][0] + 1
        if following >= wanted:
            break
    yield from checkpoints.rest()


class _Checkpoints:
    """The checkpoints that belong between records, read in pages."""

    def __init__(self, tables: AuditPages, last: int) -> None:
        self._tables = tables
        self._last = last
        self._read = 0
        self._waiting: deque[StoredCheckpoint] = deque()

    def up_to(self, count: int) -> Iterator[bytes]:
        """Yield those that cover no more records than were written."""
        while (following := self._next()) is not None and following.size <= count:
            self._waiting.popleft()
            yield checkpoint_line(following.note) + b"\n"

    def rest(self) -> Iterator[bytes]:
        """Yield all that remain."""
        while (following := self._next()) is not None:
            self._waiting.popleft()
            yield checkpoint_line(following.note) + b"\n"

    def _next(self) -> StoredCheckpoint | None:
        if not self._waiting and self._read < self._last:
            page = self._tables.checkpoints_now(self._read, min(_PAGE, self._last - self._read))
            self._waiting.extend(each for each in page if each.number <= self._last)
            self._read = page[-1].number if page else self._last
        return self._waiting[0] if self._waiting else None
