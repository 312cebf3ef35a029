"""Which parts of the file system are to be checked early, and when.

A part is a directory with all that is below it: where real-time watching had a gap, or where more
changed at once than can be looked at one by one. It is put off for a moment, for what caused it
is mostly not over yet, and then checked once, however often it was named meanwhile.
"""

import threading
from typing import Final

from needfire_client.looks import touches
from needfire_client.mounts import is_below

__all__ = ["PARTS_MAX", "Parts"]

PARTS_MAX: Final = 64
"""Parts that are kept apart; with more of them a check of everything costs no more."""

_ALL: Final = b"/"


class Parts:
    """The parts that wait. May be used from several threads; holds no time of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due_s: dict[bytes, float] = {}

    def add(self, part: bytes, due_s: float) -> bool:
        """Put a part off until a time; False if it is a full check now that is needed.

        What is in a part that waits already is checked with it.
        """
        with self._lock:
            if any(is_below(part, other) for other in self._due_s):
                return True
            for other in [each for each in self._due_s if is_below(each, part)]:
                due_s = min(due_s, self._due_s.pop(other))
            if part == _ALL or len(self._due_s) >= PARTS_MAX:
                self._due_s.clear()
                return False
            self._due_s[part] = due_s
            return True

    def take(self, now_s: float, *, beside: bytes | None = None) -> bytes | None:
        """Return one that is due, and forget it; None: there is none.

        Args:
            beside: a directory that a full check has read and not compared yet.
        """
        with self._lock:
            for part, due_s in self._due_s.items():
                if due_s <= now_s and (beside is None or not touches(part, beside)):
                    del self._due_s[part]
                    return part
        return None

    def clear(self) -> None:
        """Forget all: everything is checked now."""
        with self._lock:
            self._due_s.clear()

    def wait_s(self, now_s: float, wait_s: float) -> float:
        """Return the seconds until one is due, at most ``wait_s``."""
        with self._lock:
            soonest_s = min(self._due_s.values(), default=now_s + wait_s)
        return min(wait_s, max(0.0, soonest_s - now_s))
