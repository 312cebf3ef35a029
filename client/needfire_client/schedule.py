"""When the next check by one schedule is due.

Pure: times come in as monotonic seconds, the clock on the wall and randomness as arguments.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from needfire_protocol.rc.crontab import Crontab, next_time

__all__ = ["JITTER", "JITTER_MAX_S", "RECHECK_S", "CheckSchedule"]

JITTER: Final = 0.1
"""Part of the interval by which a check may come early: hosts that were started by one command
do not hash their disks, and fill the server's queue, in the same second for ever."""

JITTER_MAX_S: Final = 300.0
"""Seconds by which a check may come later than its schedule says, for the same reason; a tenth of
the time to the next one where that is less."""

RECHECK_S: Final = 60.0
"""Seconds after which the clock on the wall is asked again: somebody may have set it."""


class CheckSchedule:
    """Checks at an interval, counted from the start of the last one, or at times of the clock.

    The first is due at once.

    Args:
        times: of the clock on the wall; with any, there is no interval.
        wall: says what the local clock shows now, without a zone.
    """

    def __init__(
        self,
        interval_s: float,
        times: Sequence[Crontab] = (),
        *,
        now_s: float,
        random: Callable[[], float],
        wall: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._interval_s = interval_s
        self._crontabs = tuple(times)
        self._random = random
        self._wall = wall
        self._due_s: float | None = now_s
        """None: only the clock on the wall decides."""
        self._due_at: datetime | None = None
        self._jitter = 0.0

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until it is worth asking again; 0 where a check is due."""
        if self._due_s is None:
            return min(self._until_s(), RECHECK_S)
        return max(0.0, self._due_s - now_s)

    def started(self, now_s: float) -> None:
        """A check starts now."""
        if self._crontabs:
            self._due_s = None
            self._plan()
        else:
            self._due_s = now_s + self._interval_s * (1 - JITTER * self._random())

    def _plan(self) -> None:
        self._jitter = self._random()
        self._due_at = self._next(self._wall())

    def _next(self, now: datetime) -> datetime | None:
        due = next_time(self._crontabs, now)
        if due is None:
            return None
        after = next_time(self._crontabs, due)
        gap_s = JITTER_MAX_S if after is None else (after - due).total_seconds() * JITTER
        return due + timedelta(seconds=self._jitter * min(gap_s, JITTER_MAX_S))

    def _until_s(self) -> float:
        now = self._wall()
        again = self._next(now)
        # Never later than a plan made now: the clock may have been put back.
        due = min((each for each in (self._due_at, again) if each is not None), default=None)
        if due is None:
            return RECHECK_S
        self._due_at = due
        return max(0.0, (due - now).total_seconds())
