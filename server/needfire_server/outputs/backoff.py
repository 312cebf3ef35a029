"""How long an output waits before it tries its target again."""

from typing import Final

__all__ = ["Backoff"]

FIRST_S: Final = 1.0
LONGEST_S: Final = 60.0
CALM_S: Final = 60.0
"""A target counts as well again after so long without a failure. One that takes a record, fails,
and takes the next one (each failure is an event, which is a record again) is slowed down."""


class Backoff:
    """Doubles the wait with each failure, up to a minute."""

    def __init__(self, *, first_s: float = FIRST_S) -> None:
        self._first_s = first_s
        self._next_s = first_s
        self._failed_at: float | None = None

    def failed(self, now_s: float, random_0_to_1: float) -> float:
        """Return how long to wait after a failure at now_s: half of it, and a random part."""
        if self._failed_at is not None and now_s - self._failed_at > CALM_S + self._next_s:
            self._next_s = self._first_s
        self._failed_at = now_s
        wait_s, self._next_s = self._next_s, min(self._next_s * 2, LONGEST_S)
        return wait_s * (0.5 + random_0_to_1 / 2)
