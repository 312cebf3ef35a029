"""When the next full check is due.

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
    """Full checks at an interval (SetFilecheckTime), counted from the start of the last one.

    Or at times of the clock on the wall (FileCheckScheduleOne). The first is due at once. A
    request brings the next one forward, never back.

    Args:
        wall: says what the local clock shows now, without a zone.
    """

    def __init__(
        self,
        interval_s: float,
        *,
        now_s: float,
        random: Callable[[], float],
        wall: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._interval_s = interval_s
        self._random = random
        self._wall = wall
        self._crontabs: tuple[Crontab, ...] = ()
        self._due_s: float | None = now_s
        """None: only the clock on the wall decides."""
        self._due_at: datetime | None = None
        self._jitter = 0.0
        self._started_s: float | None = None

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until it is worth asking again; 0 where a full check is due."""
        by_time_s = None if self._due_s is None else max(0.0, self._due_s - now_s)
        if not self._crontabs:
            assert by_time_s is not None
            return by_time_s
        until_s = min(self._until_s(), RECHECK_S)
        return until_s if by_time_s is None else min(until_s, by_time_s)

    def started(self, now_s: float) -> None:
        """A full check starts now, which takes care of every request so far."""
        self._started_s = now_s
        if self._crontabs:
            self._due_s = None
            self._plan()
        else:
            self._due_s = now_s + self._interval_s * (1 - JITTER * self._random())

    def request(self, now_s: float, within_s: float = 0.0) -> None:
        """Ask for a full check no later than ``within_s`` seconds from now."""
        due_s = now_s + within_s
        self._due_s = due_s if self._due_s is None else min(self._due_s, due_s)

    def set_interval(self, interval_s: float) -> None:
        """Use another interval, from the start of the last check on."""
        if interval_s == self._interval_s:
            return
        self._interval_s = interval_s
        if self._started_s is not None and not self._crontabs:
            self._due_s = self._started_s + interval_s * (1 - JITTER * self._random())

    def set_times(self, crontabs: Sequence[Crontab]) -> None:
        """Use the clock on the wall; without any times, the interval."""
        if tuple(crontabs) == self._crontabs:
            return
        self._crontabs = tuple(crontabs)
        if self._started_s is None:
            self._plan()
        else:
            # As if the last check had been the first one under the new plan.
            self.started(self._started_s)

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
