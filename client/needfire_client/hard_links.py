"""Which large files of several names were read already, so that they are not read once a name.

Names cost their owner nothing: 65,000 of a file of a GiB would keep a check busy for days. What is
known of an inode counts only where everything is as it was when it was read, its ctime too, which
nobody can set. So it is as for a file of one name: its contents are what they were at one moment of
the pass. Who writes through a mapping without moving a time (mmap(2)) after that moment is seen by
the next pass, with one name as with many. Nothing is kept from one pass to another.

A file system that gives two files one inode number, two names, and all times the same to the
nanosecond does so on purpose, and could as well show this process other contents than everybody
else (FUSE).
"""

from os import stat_result
from typing import Final

__all__ = ["FROM_BYTES", "LINKS_MAX", "HardLinks"]

FROM_BYTES: Final = 256 * 1024
"""Smaller files are read again, by one call. They are nearly all that there are, and few of them
have several names."""

LINKS_MAX: Final = 4_096
"""Inodes that are known at a time: a MiB. Of more, the larger ones are."""

_Inode = tuple[int, int, int, int, int]
"""Size, number, device, mtime and ctime: sorted by size."""


class HardLinks:
    """Digests of what one process read in one pass."""

    def __init__(self) -> None:
        self._digests: dict[_Inode, bytes] = {}

    def digest(self, status: stat_result) -> bytes | None:
        """Return the digest of an open file, if it was read under another name as it is now."""
        return self._digests.get(_inode(status)) if _counts(status) else None

    def add(self, status: stat_result, digest: bytes) -> None:
        """Take in what was read, where ``status`` was the same before and after."""
        if not _counts(status):
            return
        self._digests[_inode(status)] = digest
        if len(self._digests) > LINKS_MAX:
            # The larger half: many small files must not drive out one that takes a minute.
            kept = sorted(self._digests)[LINKS_MAX // 2 :]
            self._digests = {inode: self._digests[inode] for inode in kept}


def _counts(status: stat_result) -> bool:
    return status.st_nlink > 1 and status.st_size >= FROM_BYTES


def _inode(status: stat_result) -> _Inode:
    return (
        status.st_size,
        status.st_ino,
        status.st_dev,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
