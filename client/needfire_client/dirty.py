"""Which paths real-time watching named, until somebody looks at them again.

Coalesced (a log that is written a thousand times a second is one path) and bounded: beyond the
bound the paths become the few trees that all of them are in. So nothing is lost by it; what is
lost is that only those were meant.
"""

import threading
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

__all__ = ["DIRTY_MAX", "TREES_MAX", "DirtyPaths", "trees_of"]

DIRTY_MAX: Final = 10_000
"""Paths: unpacking a large archive names more of them than a look at its tree would cost."""

TREES_MAX: Final = 16
"""Trees that too many paths become."""


class DirtyPaths:
    """A set of paths that another thread fills.

    Args:
        on_first: called when the set was empty and is not any more; from the filling thread.
        on_overflow: called with the trees that the paths became, when there were too many.
    """

    def __init__(
        self,
        *,
        on_first: Callable[[], None],
        on_overflow: Callable[[frozenset[bytes]], None],
        count_max: int = DIRTY_MAX,
    ) -> None:
        self._on_first = on_first
        self._on_overflow = on_overflow
        self._count_max = count_max
        self._lock = threading.Lock()
        self._paths: dict[bytes, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._paths)

    def add(self, path: bytes, *, below: bool = False) -> None:
        """Remember that a path may have changed, and perhaps everything below it."""
        trees: frozenset[bytes] = frozenset()
        with self._lock:
            is_first = not self._paths
            if path not in self._paths and len(self._paths) >= self._count_max:
                trees = trees_of((*self._paths, path))
                self._paths.clear()
            else:
                self._paths[path] = below or self._paths.get(path, False)
        if trees:
            self._on_overflow(trees)
        elif is_first:
            self._on_first()

    def take(self, count_max: int | None = None) -> dict[bytes, bool]:
        """Return the paths in the order in which they were named first, and forget them.

        Each with whether everything below it is meant as well.

        Args:
            count_max: no more than so many; the others stay.
        """
        with self._lock:
            taken = dict(islice(self._paths.items(), count_max))
            for path in taken:
                del self._paths[path]
        return taken


def trees_of(paths: Iterable[bytes], count_max: int = TREES_MAX) -> frozenset[bytes]:
    """Return at most so many directories, as deep as can be, that every one of the paths is in.

    Args:
        paths: absolute and normalised; of ``/`` itself the directory is ``/``.
    """
    split = {tuple(path.split(b"/")[1:-1]) for path in paths}
    depth = max((len(components) for components in split), default=0)
    while True:
        cut = {components[:depth] for components in split}
        if len(cut) <= count_max or not depth:
            break
        depth -= 1
    # One that is in another is looked at with it.
    tops = {each for each in cut if not any(each[:n] in cut for n in range(len(each)))}
    return frozenset(b"/" + b"/".join(components) for components in tops)
