"""The reports that the server has not confirmed yet, in memory: what stands in for the spool's file.

For as long as the disk refuses. A stream of its own, so that the server tells a second copy here
as it does there; its numbers are not used again, and its end is no gap. Pure.
"""

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final

from needfire_client.spool import (
    REPORT_OVERHEAD_BYTES,
    NewReport,
    SpoolBatch,
    SpooledReport,
    SpoolFullError,
)

__all__ = ["MEMORY_MAX_BYTES", "MEMORY_VITAL_BYTES", "MemorySpool"]

MEMORY_MAX_BYTES: Final = 4 * 1_048_576
"""Some ten thousand reports. An attacker who fills the disk must not take the host's memory too."""

MEMORY_VITAL_BYTES: Final = 65_536
"""Bytes beyond that for starts, stops and the news that there is no room."""


class MemorySpool:
    """Reports of one stream, numbered from 1. For one thread at a time."""

    def __init__(self, stream: bytes) -> None:
        self.stream = stream
        self.bytes_used = 0
        self._reports: deque[NewReport] = deque()
        self._first = 1
        self._offered = 0

    @property
    def waiting(self) -> int:
        """Reports that are not acknowledged."""
        return len(self._reports)

    @property
    def is_offered(self) -> bool:
        """True once a report was handed out: from then on the server may know the stream."""
        return self._offered > 0

    def append(self, reports: Sequence[NewReport]) -> None:
        """Take reports.

        Raises:
            SpoolFullError: there is no room for all of them; none was taken.
        """
        size = sum(map(_size, reports))
        reserve = MEMORY_VITAL_BYTES if all(r.is_vital for r in reports) else 0
        if self.bytes_used + size > MEMORY_MAX_BYTES + reserve:
            raise SpoolFullError(self.bytes_used, MEMORY_MAX_BYTES)
        self._reports.extend(reports)
        self.bytes_used += size

    def read_batch(self, after: int, count_max: int, bytes_max: int) -> SpoolBatch:
        """Return the oldest reports above a number, bounded as those of a ``Spool`` are."""
        start = max(0, after + 1 - self._first)
        batch: list[SpooledReport] = []
        size = 0
        for offset, report in enumerate(islice(self._reports, start, start + count_max), start):
            size += _size(report)
            if batch and size > bytes_max:
                break
            batch.append(SpooledReport(self._first + offset, report.body))
        if batch:
            self._offered = max(self._offered, batch[-1].sequence)
        return SpoolBatch(self.stream, tuple(batch))

    def acknowledge(self, sequence: int) -> int:
        """Forget the reports up to and with a number that was given; return how many."""
        count = max(0, min(sequence, self._offered) + 1 - self._first)
        for _ in range(count):
            self.bytes_used -= _size(self._reports.popleft())
        self._first += count
        return count

    def oldest_us(self) -> int | None:
        return self._reports[0].time_us if self._reports else None

    def never_offered(self) -> list[NewReport]:
        """Return the reports that the server cannot know: those may get numbers elsewhere."""
        return list(islice(self._reports, max(0, self._offered + 1 - self._first), None))

    def drop_never_offered(self) -> None:
        """Forget them; they are kept elsewhere now."""
        for _ in self.never_offered():
            self.bytes_used -= _size(self._reports.pop())


def _size(report: NewReport) -> int:
    return len(report.body) + REPORT_OVERHEAD_BYTES
