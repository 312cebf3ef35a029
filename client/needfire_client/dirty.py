"""Which paths real-time watching named, until somebody looks at them again.

Coalesced (a log that is written a thousand times a second is one path) and bounded: beyond the
bound the paths are forgotten and the answer is "anything", which a full check takes care of.
"""

import threading
from collections.abc import Callable
from itertools import islice
from typing import Final

__all__ = ["DIRTY_MAX", "DirtyPaths"]

DIRTY_MAX: Final = 10_000
"""Paths: unpacking a large archive names more of them than a full check would cost."""


class DirtyPaths:
    """A set of paths that another thread fills.

    Args:
        on_first: called when the set was empty and is not any more; from the filling thread.
        on_overflow: called when the bound was reached and the paths were forgotten.
    """

    def __init__(
        self,
        *,
        on_first: Callable[[], None],
        on_overflow: Callable[[], None],
        count_max: int = DIRTY_MAX,
    ) -> None:
        self._on_first = on_first
        self._on_overflow = on_overflow
        self._count_max = count_max
        self._lock = threading.Lock()
        self._paths: dict[bytes, None] = {}

    def __bool__(self) -> bool:
        return bool(self._paths)

    def add(self, path: bytes) -> None:
        """Remember that a path may have changed."""
        with self._lock:
            is_first = not self._paths
            is_overflow = path not in self._paths and len(self._paths) >= self._count_max
            if is_overflow:
                self._paths.clear()
            else:
                self._paths[path] = None
        if is_overflow:
            self._on_overflow()
        elif is_first:
            self._on_first()

    def take(self, count_max: int | None = None) -> list[bytes]:
        """Return the paths in the order in which they were named first, and forget them.

        Args:
            count_max: no more than so many; the others stay.
        """
        with self._lock:
            taken = list(islice(self._paths, count_max))
            for path in taken:
                del self._paths[path]
        return taken
