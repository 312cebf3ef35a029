"""When does Python look for objects that only refer to each other? Rarely, and when many sessions ended.

A look goes through every object of every connection, 50 ms for ten thousand; at the rates that Python
starts with, a burst of reports would cause one after the other. A session that ends leaves no such
objects (``wire.py``); but an error keeps the frames that it went through, they keep the session, and
what has lasted is not looked at again before tens of millions of objects were made. So a fleet whose
agents come and go must not depend on there being no such error anywhere.
"""

import gc
from collections.abc import Callable
from typing import Final

__all__ = ["SESSIONS_MAX", "Circles", "spare_the_collector"]

SESSIONS_MAX: Final = 1_000
"""Sessions that may have ended without a look: some MiB, if each had left something behind."""


def spare_the_collector() -> None:
    """Look less often from now on. What is loaded by now stays, and thousands of connections do."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


class Circles:
    """Looks when it is time.

    Args:
        ended: how many sessions have ended since the start.
    """

    def __init__(
        self, ended: Callable[[], int], collect: Callable[[], object] = gc.collect
    ) -> None:
        self._ended = ended
        self._collect = collect
        self._ended_then = 0

    def look(self) -> None:
        """To be called now and then; mostly does nothing."""
        ended = self._ended()
        if ended - self._ended_then >= SESSIONS_MAX:
            self._ended_then = ended
            self._collect()
