"""When the next full check is due.

Pure: times come in as monotonic seconds, randomness as an argument.
"""

from collections.abc import Callable
from typing import Final

__all__ = ["JITTER", "CheckSchedule"]

JITTER: Final = 0.1
"""Part of the interval by which a check may come early: hosts that were started by one command
do not hash their disks, and fill the server's queue, in the same second for ever."""


class CheckSchedule:
    """Full checks at an interval (SetFilecheckTime), counted from the start of the last one.

    The first is due at once. A request brings the next one forward, never back.
    """

    def __init__(self, interval_s: float, *, now_s: float, random: Callable[[], float]) -> None:
        self._interval_s = interval_s
        self._random = random
        self._due_s = now_s
        self._started_s: float | None = None

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until the next full check is due; 0 where it is."""
        return max(0.0, self._due_s - now_s)

    def started(self, now_s: float) -> None:
        """A full check starts now, which takes care of every request so far."""
        self._started_s = now_s
        self._due_s = now_s + self._interval_s * (1 - JITTER * self._random())

    def request(self, now_s: float, within_s: float = 0.0) -> None:
        """Ask for a full check no later than ``within_s`` seconds from now."""
        self._due_s = min(self._due_s, now_s + within_s)

    def set_interval(self, interval_s: float) -> None:
        """Use another interval, from the start of the last check on."""
        if interval_s == self._interval_s:
            return
        self._interval_s = interval_s
        if self._started_s is not None:
            self._due_s = self._started_s + interval_s * (1 - JITTER * self._random())
