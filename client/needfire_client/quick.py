"""Whether objects are as the baseline has them, by what can be seen without reading them.

What writes to a file, or changes an attribute of an object, its access control list, its flags or
another extended attribute, moves its ctime, which no program can set. So where all that stat(2)
tells is the same (but for the access time), the digest and the extended attributes are taken to be
the same. That is not so for whoever sets the clock back, or writes to the disk beneath the file
system, nor for what decays on the disk: for those a full check reads everything at an interval of
its own. On file systems that are not known to keep ctime in all cases, all attributes are looked
at; only the contents are taken on trust. Not even those are in memory (tmpfs), where writing through
a mapping (mmap(2)) moves no time at all. On a disk the first such write moves ctime, and those after it
do not until the kernel has written the page to the disk, half a minute later: who held a mapping while
the baseline was made has that long for a change that only a full check sees.
"""

import ctypes
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from needfire_client.attributes import Examiner
from needfire_client.pieces import InOrder, is_large
from needfire_protocol.baseline import FileEntry, State, entries_to_compare
from needfire_protocol.errors import FormatError
from needfire_protocol.plain_classes import dataclass

if TYPE_CHECKING:
    # SQLite takes as long to load as all the rest, and most passes are not quick.
    from needfire_client.baseline import BaselineReader

__all__ = ["KnownBaseline", "QuickLook", "QuickRow"]

_KEEPS_CTIME: Final = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # xfs
        0x9123683E,  # btrfs
        0xF2F52010,  # f2fs
        0x794C7630,  # overlay, whose objects are those of one of these in all but odd cases
        0xE0F5E1E2,  # erofs: cannot be written to
        0x73717368,  # squashfs: neither
    }
)
"""Numbers of file systems (statfs(2)) that move ctime with extended attributes and flags as well.
tmpfs has done so for a few years only; what a server behind a network does, nobody knows."""

_FORGETS_MAPPED: Final = frozenset(
    {
        0x01021994,  # tmpfs
        0x858458F6,  # ramfs
        0x958458F6,  # hugetlbfs
    }
)
"""Numbers of file systems on which writing through a mapping never moves ctime nor mtime."""

_STATFS_BYTES: Final = 256

_NUMBERS: Final = stat.ST_SIZE + 1
"""Of what stat returns, those before the times in whole seconds."""
_KIND: Final = 0o170_000
_DEVICES: Final = (stat.S_IFCHR, stat.S_IFBLK)
_OK: Final = int(State.OK)

Rows = Sequence[tuple[bytes, Sequence[Any]]]
"""Names and attributes as a row of the baseline has them, without access times; their types are
not checked."""


@dataclass(frozen=True, slots=True)
class KnownBaseline:
    """The baseline that a check goes by."""

    path: Path
    reader: "BaselineReader"


class QuickRow(NamedTuple):
    """A directory in which nothing has changed, as far as can be seen."""

    packed: bytes
    """Its row of the baseline."""
    objects: int
    directories: list[bytes]
    """Names of the directories in it, sorted."""


class QuickLook:
    """Looks at the objects of one pass."""

    def __init__(self, examiner: Examiner, reader: "BaselineReader") -> None:
        self._examiner = examiner
        self._rows = reader.in_order()
        self._kinds: dict[int, int] = {}
        self._path: bytes | None = None
        self._known: InOrder | None = None

    def row(self, dir_fd: int, path: bytes, *, hashes: bool) -> QuickRow | None:
        """Return what a directory is where nothing in it differs; None where that is not certain.

        Access times may differ. Names are of visible ASCII alone: others are worth a finding.

        Args:
            hashes: every regular file has to have a digest.
        """
        packed = self._rows.find(path)
        if packed is None or is_large(packed) or not self._is_trusted(dir_fd):
            return None
        try:
            old = entries_to_compare(packed)
            # All names at once: one by one they would cost as much as all the rest.
            names = "/".join(sorted(os.listdir(dir_fd)))
            if not (names.isascii() and names.isprintable()):
                return None
            if names.encode("ascii") != b"/".join([name for name, _ in old]):
                return None
            return self._compared(dir_fd, packed, old, hashes)
        except (OSError, FormatError, TypeError, ValueError, IndexError):
            # Damaged, or gone since it was listed: the longer way says which.
            return None

    def _compared(self, dir_fd: int, packed: bytes, old: Rows, hashes: bool) -> QuickRow | None:
        look, wanted = os.stat, self._examiner.looked
        files, directories = 0, []
        for name, entry in old:
            # An old baseline has fewer: that raises. What is not used is seen by ctime.
            # fmt: off
            (
                mode, uid, gid, size, mtime, ctime, inode, device, links, rdev, _, digest, state,
                _, _, _, _, looked, _,
            ) = entry
            # fmt: on
            now = look(name, dir_fd=dir_fd, follow_symlinks=False)
            # Asked for one by one, the numbers would take as long as the call.
            if (
                now[:_NUMBERS] != (mode, inode, device, links, uid, gid, size)
                or now.st_ctime_ns != ctime
                or now.st_mtime_ns != mtime
                or state != _OK
                or looked != wanted
            ):
                return None
            kind = mode & _KIND
            if kind == stat.S_IFREG:
                if hashes and digest is None:
                    return None
                files += 1
            elif kind == stat.S_IFDIR:
                directories.append(name)
            elif kind in _DEVICES and now.st_rdev != rdev:
                return None
        if hashes:
            self._examiner.quick += files
        return QuickRow(packed, len(old), directories)

    def carried(self, dir_fd: int, path: bytes, name: bytes) -> FileEntry | None:
        """Return the entry of a file with its old digest; None where it has to be read.

        All of its attributes are looked at.
        """
        if path != self._path:
            forgets = self._kind(dir_fd) in _FORGETS_MAPPED
            packed = None if forgets else self._rows.find(path)
            self._path, self._known = path, None if packed is None else InOrder(packed)
        old = None if self._known is None else self._known.find(name)
        if old is None or old.digest is None or old.state != State.OK:
            return None
        now = self._examiner.examine(dir_fd, name, hashes=False)
        if now is None or now._replace(digest=old.digest, atime_ns=old.atime_ns) != old:
            return None
        self._examiner.quick += 1
        return old._replace(atime_ns=now.atime_ns)

    def _is_trusted(self, dir_fd: int) -> bool:
        return self._kind(dir_fd) in _KEEPS_CTIME

    def _kind(self, dir_fd: int) -> int:
        device = os.fstat(dir_fd).st_dev
        found = self._kinds.get(device)
        if found is None:
            found = self._kinds[device] = _kind_of(dir_fd)
        return found


def _kind_of(fd: int) -> int:
    """Return the number of the kind of file system; 0 where nobody says."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if ctypes.CDLL(None).fstatfs(fd, buffer) != 0:
        return 0
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF
