"""How long to wait before the next attempt to reach the server.

Doubling with full jitter: when a server comes back, a thousand agents that lost it in the same
second must not all knock in the same second again. Pure: randomness comes in.
"""

from collections.abc import Callable
from typing import Final

__all__ = ["FIRST_S", "LEAST_S", "MOST_S", "Backoff"]

FIRST_S: Final = 1.0
MOST_S: Final = 60.0
LEAST_S: Final = 0.25
"""Seconds: full jitter alone could come out as no wait at all, and again, and again."""


class Backoff:
    """Delays whose upper bound doubles with each failure.

    Args:
        random: gives a float in [0, 1).
        first_s: upper bound of the first delay.
        most_s: upper bound that is never passed.
        least_s: no delay is shorter.
    """

    def __init__(
        self,
        random: Callable[[], float],
        *,
        first_s: float = FIRST_S,
        most_s: float = MOST_S,
        least_s: float = LEAST_S,
    ) -> None:
        assert 0 < least_s <= first_s <= most_s
        self._random = random
        self._least_s = least_s
        self._first_s = first_s
        self._most_s = most_s
        self._bound_s = first_s

    def next_delay_s(self) -> float:
        """Return how long to wait now; the next one may be twice as long."""
        delay_s = max(self._least_s, self._random() * self._bound_s)
        self._bound_s = min(self._most_s, self._bound_s * 2)
        return delay_s

    def reset(self) -> None:
        """Begin anew: an attempt succeeded."""
        self._bound_s = self._first_s
