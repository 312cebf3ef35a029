"""When a record that was refused for good is sent once more, beside those that follow it.

Pure. Whoever refuses a record may be mistaken: a proxy that is being exchanged answers 400 as well.
It is set aside at its first refusal all the same, so that nobody's records wait for another one's.
"""

import heapq
from typing import Final

__all__ = ["AFTER_S", "SecondChances"]

AFTER_S: Final = (60.0, 600.0)
"""Seconds after the refusal before, each time. Then the record waits for a person."""
RECORDS_MAX: Final = 10_000


class SecondChances:
    """The records of one output that are to be sent again by themselves. Not kept over a restart."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, int]] = []

    def add(self, number: int, now_s: float, *, tries: int = 0) -> None:
        """Note that an event was refused at now_s, the number of tries after the first time."""
        if tries < len(AFTER_S) and len(self._due) < RECORDS_MAX:
            heapq.heappush(self._due, (now_s + AFTER_S[tries], number, tries + 1))

    def wait_s(self, now_s: float) -> float | None:
        """Return the seconds until the next one is due; None where there is none."""
        return max(self._due[0][0] - now_s, 0.0) if self._due else None

    def take(self, now_s: float) -> tuple[int, int] | None:
        """Return the number of an event that is due, and which try it is; it is forgotten here."""
        if not self._due or self._due[0][0] > now_s:
            return None
        _, number, tries = heapq.heappop(self._due)
        return number, tries
