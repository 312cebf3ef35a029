"""Which numbers of one stream have come: everything up to the highest, but for the gaps. Pure."""

from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence

__all__ = ["Ledger"]


class Ledger:
    """The account of one stream while a batch is taken.

    Numbers begin with 1. ``opened`` and ``closed`` say afterwards what has changed about the gaps
    that the store has.
    """

    __slots__ = ("_firsts", "_gaps", "_known", "before", "highest")

    def __init__(self, highest: int, gaps: Iterable[tuple[int, int]] = ()) -> None:
        """Args:
        highest: 0 for a new stream.
        gaps: (first, last) of at least those gaps that hold a number that is going to be taken.
        """
        self.before = self.highest = highest
        self._known = dict(gaps)
        self._gaps = dict(self._known)
        self._firsts = sorted(self._gaps)

    @property
    def gaps(self) -> int:
        """How many of the gaps that it knows are open."""
        return len(self._gaps)

    def take(self, sequence: int) -> bool:
        """Note that a number came; False where it had come before."""
        if sequence > self.highest:
            if sequence > self.highest + 1:
                self._open(self.highest + 1, sequence - 1)
            self.highest = sequence
            return True
        return self._fill(sequence)

    def rise(self, sequence: int) -> bool:
        """Note that a number came in a stream that may leave some out; False where one as high had."""
        if sequence <= self.highest:
            return False
        self.highest = sequence
        return True

    def opened(self) -> list[tuple[int, int]]:
        """Return the gaps that the store does not have yet."""
        return [gap for gap in self._gaps.items() if self._known.get(gap[0]) != gap[1]]

    def closed(self) -> Sequence[int]:
        """Return the first numbers of those that it has and that are no more."""
        return [first for first, last in self._known.items() if self._gaps.get(first) != last]

    def _open(self, first: int, last: int) -> None:
        self._gaps[first] = last
        insort(self._firsts, first)

    def _fill(self, sequence: int) -> bool:
        place = bisect_right(self._firsts, sequence) - 1
        if place < 0:
            return False
        first = self._firsts[place]
        last = self._gaps[first]
        if sequence > last:
            return False
        del self._firsts[place], self._gaps[first]
        if first < sequence:
            self._open(first, sequence - 1)
        if sequence < last:
            self._open(sequence + 1, last)
        return True
