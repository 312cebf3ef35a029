"""Which paths were looked at while a full check runs, and so are newer than what it has read. Pure.

A full check reads ahead of what it compares. A look at a single path in the meantime reports what
is there now; the older state that the full check still holds must not be taken for a newer one.
"""

from typing import Final

__all__ = ["LOOKS_MAX", "RecentLooks", "touches"]

LOOKS_MAX: Final = 10_000
"""Paths that are kept. Beyond, everything counts as looked at, which costs time and nothing else."""


def touches(path: bytes, directory: bytes) -> bool:
    """True where a look at the path reads entries of the directory, or looks below the path."""
    parent = _parent(path)
    return directory in (path, parent, _parent(parent)) or directory.startswith(path + b"/")


class RecentLooks:
    """The looks since the full check began, numbered."""

    def __init__(self) -> None:
        self.count = 0
        """Number of looks so far."""
        self._directories: dict[bytes, int] = {}
        """Directories whose entries were read: the number of the last look that did."""
        self._trees: dict[bytes, int] = {}
        self._all_until = 0

    def clear(self) -> None:
        """Begin anew."""
        self.__init__()  # type: ignore[misc]

    def add(self, path: bytes) -> None:
        """Note a look at a path."""
        self.count += 1
        if len(self._trees) >= LOOKS_MAX:
            self._all_until = self.count
            self._trees.clear()
            self._directories.clear()
        parent = _parent(path)
        for directory in (path, parent, _parent(parent)):
            self._directories[directory] = self.count
        self._trees[path] = self.count

    def touched(self, directory: bytes, *, since: int) -> bool:
        """True where a look after the first ``since`` ones read the directory's entries."""
        if self.count <= since:
            return False
        if self._all_until > since or self._directories.get(directory, 0) > since:
            return True
        while directory not in (b"/", b""):
            directory = _parent(directory)
            if self._trees.get(directory, 0) > since:
                return True
        return False


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0] or b"/"
