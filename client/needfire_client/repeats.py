"""Whether a trouble is worth a line in the log, or was just said.

A server that is away for a night would otherwise fill the disk with one and the same sentence.
Pure: times come in as monotonic seconds.
"""

from collections.abc import Hashable
from typing import Final

__all__ = ["REPEAT_S", "RepeatFilter"]

REPEAT_S: Final = 600.0
"""Seconds after which the same trouble is said again: a person who looks at the last lines of
the log must see it, a disk must not."""


class RepeatFilter:
    """Lets a trouble through when it differs from the last one, or when enough time has passed."""

    def __init__(self, repeat_s: float = REPEAT_S) -> None:
        self._repeat_s = repeat_s
        self._last: Hashable = None
        self._said_s = 0.0

    def is_news(self, trouble: Hashable, now_s: float) -> bool:
        """True where the trouble should be said now; remembers that it was."""
        if trouble == self._last and now_s - self._said_s < self._repeat_s:
            return False
        self._last, self._said_s = trouble, now_s
        return True

    def clear(self) -> None:
        """Forget: the trouble is over, and the next one is news whatever it is."""
        self._last = None
