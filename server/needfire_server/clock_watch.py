"""Did a clock jump, and is it far from ours? Judged by a clock that never jumps. Pure.

A heartbeat says what time its host believes it is. It may come late, which makes that clock look
slow for a moment; so nothing counts before the next heartbeat agrees. A clock that is moved in
steps below the limit is not seen to move, but in the end it is seen to differ.
"""

from typing import Final

__all__ = ["ClockWatch", "whole_seconds"]

_US_PER_S: Final = 1_000_000


class ClockWatch:
    """What is known of one clock. Times are microseconds."""

    __slots__ = ("_candidate_us", "_offset_us", "difference_us", "is_difference_told")

    def __init__(self) -> None:
        self.difference_us: int | None = None
        """That clock minus ours, at the last look; None before the first."""
        self._offset_us: int | None = None
        self._candidate_us: int | None = None
        self.is_difference_told = False
        """True from when it was told that it is far from ours until they agree again."""

    def moved_us(self, clock_us: int, steady_us: int, limit_us: int) -> int | None:
        """Take a reading; return how far the clock jumped, once it is certain that it did.

        Args:
            clock_us: what the clock says.
            steady_us: the same moment by a clock that never jumps.
        """
        offset_us = clock_us - steady_us
        before_us, candidate_us = self._offset_us, self._candidate_us
        self._candidate_us = None
        if before_us is None or abs(offset_us - before_us) <= limit_us:
            self._offset_us = offset_us
            return None
        if candidate_us is None or 2 * abs(offset_us - candidate_us) > limit_us:
            self._candidate_us = offset_us
            return None
        self._offset_us = offset_us
        return offset_us - before_us

    def differs_us(self, clock_us: int, ours_us: int, limit_us: int) -> int | None:
        """Take a reading; return how far the clock is from ours, once until they agree again."""
        before_us, self.difference_us = self.difference_us, clock_us - ours_us
        if abs(self.difference_us) <= limit_us:
            self.is_difference_told = False
            return None
        was_far = before_us is not None and abs(before_us) > limit_us
        if self.is_difference_told or not was_far:
            return None
        self.is_difference_told = True
        return self.difference_us


def whole_seconds(us: int) -> int:
    """Return microseconds as seconds, rounded to the nearest."""
    return round(us / _US_PER_S)
