"""How far a pass comes without other processes: to its end, where the tree is small.

Most trees are done before another Python has started. So this knows nothing of how a pass is
shared out, which takes its time to load.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from needfire_client.attributes import Examiner, never
from needfire_client.efforts import AS_BEFORE_PER_EFFORT, effort_of
from needfire_client.policy import Selection
from needfire_client.record import DirectoryRecord
from needfire_client.walk import Rest, Walker

__all__ = ["BESIDE_EFFORT", "Beginning", "is_large"]

EFFORT: Final = 10_000
"""Objects (and 16 KiB each of contents) that the parent does alone: less than it takes to start."""
BESIDE_EFFORT: Final = 3_000
"""The same where processes are starting meanwhile."""
_BYTES_PER_EFFORT: Final = 16 * 1024
_DEFER_ABOVE_BYTES: Final = 64 * 2**20
"""A larger file alone is worth the start of processes, if there are others."""
_LARGE_EFFORT: Final = 30_000
"""Effort from which on processes will be needed for certain, so that they are started at once, and
the parent does alone only what it can do until they are ready."""


def is_large(expected: int, selection: Selection) -> bool:
    """Return whether there will be work for processes, if the tree is much as it was.

    Args:
        expected: objects that the baseline has; 0 where nobody knows.
    """
    if selection.groups is not None:
        return False
    effort = expected // AS_BEFORE_PER_EFFORT if selection.quick else expected
    return effort >= _LARGE_EFFORT


class Beginning:
    """The part of a pass that its own process does first.

    Args:
        clock: says how many changes were told of; every record comes with what it said then.
    """

    def __init__(self, walker: Walker, examiner: Examiner, clock: Callable[[], int]) -> None:
        self._walker = walker
        self._examiner = examiner
        self._clock = clock
        self.held: list[DirectoryRecord] = []
        """Afterwards: the last record, where contents of its files are still to be read."""
        self.rests: list[Rest] = []
        """Afterwards: what is left, in the order of the walk."""
        self.ended_at = 0
        """Afterwards: what the clock said."""

    @property
    def is_all(self) -> bool:
        """True where nothing is left."""
        return not (self.held or self.rests)

    def records(
        self, rests: Sequence[Rest] | None, effort_max: int | None = None
    ) -> Iterator[tuple[DirectoryRecord, int]]:
        """Yield records in the order of the walk, until it has been effort enough.

        Args:
            rests: what is left of a walk; None: everything.
            effort_max: 0: nothing is opened.
        """
        if rests is not None and effort_max == 0:
            self.rests, self.ended_at = list(rests), self._clock()
            return
        most = EFFORT if effort_max is None else min(EFFORT, effort_max)
        effort, read_before = 0, self._examiner.bytes_read

        def is_enough() -> bool:
            read = self._examiner.bytes_read - read_before
            return bool(self.held) or effort + read // _BYTES_PER_EFFORT >= most

        self._examiner.defer_above_bytes = _DEFER_ABOVE_BYTES
        self._walker.pause = is_enough
        taken_at = self._clock()
        for record in self._walker.walk_rests(rests):
            effort += effort_of(record)
            if record.deferred:
                self.held.append(record)
            else:
                yield record, taken_at
            taken_at = self._clock()
        self._walker.pause = never
        self._examiner.defer_above_bytes = None
        self.rests, self._walker.rest = self._walker.rest, []
        self.ended_at = taken_at
