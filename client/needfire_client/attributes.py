"""What is one object of the file system: attributes, link target, digest. Nothing can hang it.

Every name is somebody else's choice and may change under our hands: a file may become a symbolic
link, a FIFO or a device between two system calls, vanish, grow without end, or claim a size that
it does not have. So everything goes through the directory's own descriptor, never through a path;
nothing but a regular file is ever read; an open neither follows a link (O_NOFOLLOW) nor waits
(O_NONBLOCK); what is read is bounded by the size seen first; and a digest counts only if the
attributes are the same before and after.
"""

import errno
import grp
import os
import pwd
import resource
import stat
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from needfire_client.digests import new_digest
from needfire_client.hard_links import HardLinks
from needfire_client.inode import (
    AT_EMPTY_PATH,
    STATX_WANTED,
    Inode,
    Inspector,
    Times,
    statx_buffer,
)
from needfire_client.read_buffer import read_buffer
from needfire_protocol.baseline import (
    FileEntry,
    Looked,
    State,
    TimelessEntry,
    with_access_time,
)

__all__ = [
    "ATTEMPTS_MAX",
    "CONTENT_BYTES_MAX",
    "Examiner",
    "ScanStoppedError",
    "Skips",
    "group_name",
    "never",
    "open_directory",
    "owner_name",
]

ATTEMPTS_MAX: Final = 3
"""How often a file is read that changes meanwhile, before it is reported as unstable."""

CONTENT_BYTES_MAX: Final = 2**40
"""Bytes of a file that is read: a quarter of an hour at the speed of SHA-256. Only a sparse file
costs its owner nothing to make larger, and would otherwise keep a check busy for years."""

_SPARSE_BYTES: Final = 2**26
_SPARSE_RATIO: Final = 64
"""A file above a GiB whose blocks are less than a 64th of its size is not read either."""

_ONE_READ_BYTES: Final = 256 * 1024
"""Files up to this size are read by one call: two system calls and one hash call less."""
_CHUNK_BYTES: Final = 512 * 1024

_DROP_FROM_BYTES: Final = 16 * 1024
"""Contents from this size on are taken out of the page cache. To ask for less costs more than
the few pages are worth."""

_AHEAD_FILES: Final = 32
"""Files whose contents are asked for together where the disk is slow: 8 MiB at most."""
_SLOW_S: Final = 50e-6
"""Seconds a file from which on the disk may be slow; from memory there is no waiting."""
_OTHER_WAITS: Final = 1
"""Times that a thread may wait in a batch for something else, such as another of our threads."""

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_QUIET_FLAGS: Final = _FLAGS | os.O_NOATIME
_NOT_QUIETLY_ERRORS: Final = (errno.EPERM, errno.EINVAL)
"""O_NOATIME is for the owner and for root; network file systems may refuse it to both."""
_LISTED: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_PASSED: Final = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC

_FORMAT: Final = 0o170000
_REGULAR: Final = stat.S_IFREG
_NS: Final = 1_000_000_000
_STATUS: Final = struct.Struct("=I12xIIIH2xQQ16xqI4xqI4xqI4xqI12x8s")
"""Of statx: stx_mask, nlink, uid, gid, mode, inode, size, then atime, btime, ctime and mtime as
seconds and nanoseconds, and the device's two numbers."""
_ATIME: Final = struct.Struct("=qI4x")
_ATIME_BYTES: Final = slice(64, 80)
_STATX_BASIC: Final = 0x7FF
_STATX_BTIME: Final = 0x800

_CHANGED_ERRORS: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EAGAIN})
"""Errors of an open that mean: this is no longer the regular file that it was a moment ago."""
VANISHED_ERRORS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})


_REASON_TEXT_MAX: Final = 128


Skips = Callable[[int, int], bool]
"""Called with mode and size of a regular file; says whether its contents are left alone."""


class ScanStoppedError(Exception):
    """The caller's ``stop`` said so, in the middle of a large file or between two directories."""


def never() -> bool:
    """Stand in for ``stop`` where nothing stops."""
    return False


def open_directory(
    name: bytes, dir_fd: int | None, *, lists: bool = True, follow: bool = False
) -> int:
    """Return a descriptor of a directory, without moving its access time where that is allowed.

    Args:
        lists: its names will be read; otherwise it need only be passable, not readable.
        follow: take a symbolic link to a directory as the directory.

    Raises:
        OSError: it cannot be opened, or is no directory.
    """
    flags = _LISTED if lists else _PASSED
    if follow:
        flags &= ~os.O_NOFOLLOW
    return _open_quietly(name, flags, dir_fd) if lists else os.open(name, flags, dir_fd=dir_fd)


def _open_quietly(name: bytes, flags: int, dir_fd: int | None) -> int:
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in _NOT_QUIETLY_ERRORS:
            raise
        return os.open(name, flags, dir_fd=dir_fd)


class Examiner:
    """Examines objects, and counts what it read.

    Args:
        algorithm: one of ``DIGEST_BYTES``.
        stop: asked while a large file is read; where it says yes, ScanStoppedError is raised.
        groups: which extended attributes are looked at.
        drops_cache: take contents out of the page cache again that were not in it before.

    Raises:
        StorageError: this host cannot make digests of the algorithm.
    """

    def __init__(
        self,
        algorithm: str,
        stop: Callable[[], bool] = never,
        groups: Looked = Looked.EVERYTHING,
        *,
        drops_cache: bool = False,
    ) -> None:
        self._new = new_digest(algorithm)
        self._stop = stop
        self._inspector = Inspector(groups)
        self._drop_from_bytes = _DROP_FROM_BYTES if drops_cache else CONTENT_BYTES_MAX + 1
        # One buffer for everything: a block for each chunk of a large file would be mapped, and
        # each of its pages faulted in, again and again.
        self._buffer = read_buffer(_CHUNK_BYTES)
        self._buffers = (self._buffer,)
        self._before, self._before_at = statx_buffer()
        self._after, self._after_at = statx_buffer()
        self._is_slow = False
        self._fetched: set[bytes] = set()
        """Names of the files whose contents were asked for, and so are in memory because of us."""
        self._links = HardLinks()
        self.hashed = 0
        """Files whose contents were read, under this name or another."""
        self.bytes_read = 0
        self.skipped = 0
        """Files whose contents SkipChecksum left alone."""
        self.quick = 0
        """Files whose contents a quick look took for unchanged."""
        self.defer_above_bytes: int | None = None
        """Contents larger than this are left to somebody else; None: everything is read here."""
        self.defers_growing = False
        """Files that may grow are left to somebody else, who knows how large they were."""
        self.deferred: list[bytes] = []
        """Names of files of which that was so; their entries have no digest. Taken by the walk."""

    def take_numbers(self) -> list[int]:
        """Return the numbers so far, for ``add_numbers`` of another one, and begin anew."""
        numbers = [self.hashed, self.skipped, self.unread, self.bytes_read, self.quick]
        self.hashed = self.skipped = self.bytes_read = self._inspector.unread = self.quick = 0
        return numbers

    def add_numbers(
        self, hashed: int, skipped: int, unread: int, bytes_read: int, quick: int
    ) -> None:
        """Count what another one did."""
        self.hashed += hashed
        self.skipped += skipped
        self.quick += quick
        self.bytes_read += bytes_read
        self._inspector.unread += unread

    @property
    def looked(self) -> int:
        """The extended attributes that are looked at and can be seen: a ``Looked``."""
        return self._inspector.looked

    @property
    def unread(self) -> int:
        """Objects whose extended attributes could not be read."""
        return self._inspector.unread

    def ahead(
        self, dir_fd: int, listing: Sequence[tuple[bytes, bool]]
    ) -> Iterator[tuple[bytes, bool]]:
        """Yield names, each with whether it is a regular file that will be read, as they come.

        While reading has to wait for the disk, the contents of several files are asked for
        together: the disk then works at all of them at once, where a process that reads one after
        the other would wait for each. That takes more calls, so it begins when there was a wait,
        and ends when everything is in memory anyway.
        """
        clock = time.monotonic
        for first in range(0, len(listing), _AHEAD_FILES):
            batch = listing[first : first + _AHEAD_FILES]
            if self._is_slow:
                self._is_slow = self._fetch(dir_fd, batch)
            began_s, waits = clock(), _waits()
            yield from batch
            # The clock alone would take a busy processor for a slow disk.
            if clock() - began_s > _SLOW_S * len(batch) and _waits() > waits + _OTHER_WAITS:
                self._is_slow = True

    def _fetch(self, dir_fd: int, batch: Sequence[tuple[bytes, bool]]) -> bool:
        """Ask for the contents of files; return whether any was not in memory."""
        self._fetched.clear()
        for name, is_regular in batch:
            if not is_regular:
                continue
            with suppress(OSError):
                fd = _open_quietly(name, _FLAGS, dir_fd)
                try:
                    if stat.S_ISREG(os.fstat(fd).st_mode) and not _is_cached(fd):
                        os.posix_fadvise(fd, 0, _ONE_READ_BYTES, os.POSIX_FADV_WILLNEED)
                        self._fetched.add(name)
                finally:
                    os.close(fd)
        return bool(self._fetched)

    def _is_ours(self, fd: int, name: bytes) -> bool:
        """Return whether a file's contents are or will be in memory because of us."""
        return name in self._fetched or not _is_cached(fd)

    def examine(
        self,
        dir_fd: int,
        name: bytes,
        *,
        hashes: bool,
        is_regular: bool = False,
        skips: Skips | None = None,
    ) -> FileEntry | None:
        """Return what the object ``name`` of an open directory is; None where it is gone.

        Args:
            hashes: read a regular file's contents.
            is_regular: the listing said that it is a regular file: saves a call, decides nothing.
            skips: asked before contents are read; where it says yes they are left alone.
        """
        if (
            is_regular
            and hashes
            and skips is None
            and (found := self.at_once(dir_fd, name)) is not None
        ):
            return with_access_time(*found)
        return self._patiently(
            dir_fd, name, hashes=hashes, grows=False, prefix_bytes=None, skips=skips
        )[0]

    def examine_growing(
        self, dir_fd: int, name: bytes, prefix_bytes: int | None, *, skips: Skips | None = None
    ) -> tuple[FileEntry | None, bytes | None]:
        """Examine a file that may grow meanwhile; the size seen first is what is read.

        Returns:
            The entry, and the digest of the first ``prefix_bytes`` if there are that many.
        """
        return self._patiently(
            dir_fd, name, hashes=True, grows=True, prefix_bytes=prefix_bytes, skips=skips
        )

    def take_usual(
        self,
        dir_fd: int,
        listing: Sequence[tuple[bytes, bool]],
        rows: list[TimelessEntry],
        atimes_ns: list[int],
    ) -> Iterator[tuple[bytes, bool]]:
        """Put in what ``examine`` would say of small regular files; yield all other names.

        What is yielded has to be put in before the next one is asked for: then all are in order.

        Args:
            listing: names, each with whether it is a regular file.
        """
        at_once = self.at_once
        for item in self.ahead(dir_fd, listing):
            name, is_regular = item
            if is_regular and (found := at_once(dir_fd, name)) is not None:
                attributes, atime_ns = found
                rows.append((name, attributes))
                atimes_ns.append(atime_ns)
            else:
                yield item

    def at_once(self, dir_fd: int, name: bytes) -> tuple[tuple[Any, ...], int] | None:
        """Return a small regular file that nobody changes as a row has it; None for all others.

        It is what ``examine`` would return, for the usual case and in the fewest calls; what is
        None here says nothing and must be asked of ``examine``.

        Returns:
            The attributes of a ``TimelessEntry``, and the access time.
        """
        try:
            fd = os.open(name, _QUIET_FLAGS, dir_fd=dir_fd)
        except OSError as error:
            if error.errno not in _NOT_QUIETLY_ERRORS:
                return None
            try:
                fd = os.open(name, _FLAGS, dir_fd=dir_fd)
            except OSError:
                return None
        inspector = self._inspector
        statx, before, after = inspector.statx, self._before, self._after
        try:
            if statx(fd, b"", AT_EMPTY_PATH, STATX_WANTED, self._before_at):
                return None
            # Times are seconds and nanoseconds.
            mask, nlink, uid, gid, mode, inode, size, a_s, a, b_s, b, c_s, c, m_s, m, at = (
                _STATUS.unpack_from(before)
            )
            if not (0 < size <= _ONE_READ_BYTES and mode & _FORMAT == _REGULAR):
                return None
            flags, project, looked, xattrs = inspector.of_open(fd)
            is_ours = size >= self._drop_from_bytes and self._is_ours(fd, name)
            # The buffer is larger than the file should be, to see whether there is more.
            count = os.readv(fd, self._buffers)
            if statx(fd, b"", AT_EMPTY_PATH, STATX_WANTED, self._after_at):
                return None
            if is_ours:
                _drop(fd)
            if before != after:
                # Where O_NOATIME was refused, reading moves the access time, which is then what
                # the next check will see.
                before[_ATIME_BYTES] = after[_ATIME_BYTES]
                if before != after:
                    return None
                a_s, a = _ATIME.unpack_from(after, _ATIME_BYTES.start)
            if count != size or mask & _STATX_BASIC != _STATX_BASIC:
                return None
            device, keeps_birth = inspector.file_system(fd, at)
        except OSError:
            return None
        finally:
            os.close(fd)
        self.hashed += 1
        self.bytes_read += size
        digest = self._new(self._buffer[:size]).digest()
        birth_ns = b_s * _NS + b if keeps_birth and mask & _STATX_BTIME else None
        # fmt: off
        return (
            mode, uid, gid, size, m_s * _NS + m, c_s * _NS + c, inode, device, nlink, 0, None,
            digest, 0, "", birth_ns, flags, project, looked, xattrs,
        ), a_s * _NS + a
        # fmt: on

    def _patiently(
        self,
        dir_fd: int,
        name: bytes,
        *,
        hashes: bool,
        grows: bool,
        prefix_bytes: int | None,
        skips: Skips | None,
    ) -> tuple[FileEntry | None, bytes | None]:
        last = leased = None
        for _ in range(ATTEMPTS_MAX):
            try:
                last = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
                if stat.S_ISLNK(last.st_mode):
                    link = os.readlink(name, dir_fd=dir_fd)
                    return self._unopened(dir_fd, name, last)._replace(link=link), None
                if not (hashes and stat.S_ISREG(last.st_mode)):
                    return self._unhashed(dir_fd, name, last), None
                if skips is not None and skips(last.st_mode, last.st_size):
                    self.skipped += 1
                    return self._unhashed(dir_fd, name, last), None
                if (refusal := _refusal(last)) is not None:
                    entry = self._unhashed(dir_fd, name, last)
                    return entry._replace(state=int(State.UNREADABLE), reason=refusal), None
                if self._is_deferred(last.st_size, grows):
                    self.deferred.append(name)
                    return _entry(last), None
                found = self._read(dir_fd, name, grows=grows, prefix_bytes=prefix_bytes)
            except OSError as error:
                if error.errno in VANISHED_ERRORS:
                    return None, None
                # EINVAL is readlink's word for "this is no link any more".
                if error.errno in _CHANGED_ERRORS or (
                    error.errno == errno.EINVAL and last is not None
                ):
                    leased = error if error.errno == errno.EAGAIN else None
                    continue
                return self._unreadable(dir_fd, name, last, error), None
            leased = None
            if found is not None:
                return found
        if last is None:
            return None, None
        if leased is not None:
            return self._unreadable(dir_fd, name, last, leased), None
        entry = self._unopened(dir_fd, name, last)
        return entry._replace(state=int(State.UNSTABLE), reason="changed while it was read"), None

    def _unopened(self, dir_fd: int, name: bytes, status: os.stat_result) -> FileEntry:
        """Return the entry of what must not or cannot be opened."""
        return self._inspector.of_name(dir_fd, name, status.st_dev).into(_entry(status))

    def _unhashed(self, dir_fd: int, name: bytes, status: os.stat_result) -> FileEntry:
        """Return the entry of an object that is not read; only some objects are opened."""
        is_directory = stat.S_ISDIR(status.st_mode)
        if not (is_directory or stat.S_ISREG(status.st_mode)) or (
            is_directory and self._inspector.is_automount(dir_fd, name, status.st_dev)
        ):
            return self._unopened(dir_fd, name, status)
        try:
            fd = _open_quietly(name, _FLAGS, dir_fd)
        except OSError:
            return self._unopened(dir_fd, name, status)
        try:
            opened = os.fstat(fd)
            if (opened.st_ino, opened.st_dev) != (status.st_ino, status.st_dev):
                # Another object by now: what its kind is was not asked.
                return self._unopened(dir_fd, name, status)
            said = self._inspector.of_open(fd)
            times = self._inspector.times(fd, opened.st_dev)
        finally:
            os.close(fd)
        return Inode(times.birth_ns, *said).into(_entry(opened))

    def _unreadable(
        self, dir_fd: int, name: bytes, status: os.stat_result | None, error: OSError
    ) -> FileEntry:
        # Any user can have a lease on a file of theirs (fcntl(2)); the kernel ends it after a while.
        is_leased = error.errno == errno.EAGAIN
        text = "a process has a lease on it" if is_leased else error.strerror
        reason = (text or f"error {error.errno}")[:_REASON_TEXT_MAX]
        state = int(State.UNREADABLE)
        if status is None:
            return FileEntry(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, None, None, state, reason)
        return self._unopened(dir_fd, name, status)._replace(state=state, reason=reason)

    def _is_deferred(self, size: int, grows: bool) -> bool:
        if grows and self.defers_growing:
            return True
        return self.defer_above_bytes is not None and size > self.defer_above_bytes

    def _read(
        self, dir_fd: int, name: bytes, *, grows: bool, prefix_bytes: int | None
    ) -> tuple[FileEntry, bytes | None] | None:
        """Return entry and digest of the prefix; None where the file changed meanwhile."""
        fd = _open_quietly(name, _FLAGS, dir_fd)
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode) or _refusal(before) is not None:
                # Not what it was a moment ago. A giant that took its place is looked at once more.
                return None
            said = self._inspector.of_open(fd)
            known = None if grows else self._links.digest(before)
            if known is None:
                digest, prefix, has_more = self._contents(fd, name, before, grows, prefix_bytes)
            else:
                digest, prefix, has_more = known, None, False
            after = self._inspector.times(fd, before.st_dev)
        finally:
            os.close(fd)
        self.hashed += 1
        if not _is_same(before, after, grows=grows):
            return None
        entry = Inode(after.birth_ns, *said).into(_entry(before))
        if has_more:
            # Files of the kernel do that (/proc): no size, contents without an end perhaps.
            reason = f"has contents beyond its size of {before.st_size} bytes"
            return entry._replace(state=int(State.UNREADABLE), reason=reason), None
        if not grows:
            self._links.add(before, digest)
        # Fewer bytes than the size, and no change: files of /sys are like that.
        return entry._replace(digest=digest, atime_ns=after.atime_ns), prefix

    def _contents(
        self, fd: int, name: bytes, status: os.stat_result, grows: bool, prefix_bytes: int | None
    ) -> tuple[bytes, bytes | None, bool]:
        """Return digest, digest of the prefix, and whether there is more than there should be."""
        size = status.st_size
        is_ours = size >= self._drop_from_bytes and self._is_ours(fd, name)
        digest, prefix = self._hash(fd, size, prefix_bytes)
        has_more = not grows and os.read(fd, 1) != b""
        if is_ours:
            _drop(fd)
        return digest, prefix, has_more

    def _hash(self, fd: int, size: int, prefix_bytes: int | None) -> tuple[bytes, bytes | None]:
        """Return the digest of the first ``size`` bytes, and that of the prefix."""
        hasher = self._new(b"")
        prefix = hasher.digest() if prefix_bytes == 0 else None
        count = 0
        while count < size:
            if self._stop():
                raise ScanStoppedError
            # Up to the end of the prefix first, then on to the end of what was seen.
            edge = prefix_bytes if prefix_bytes and count < prefix_bytes < size else size
            got = os.readv(fd, (self._buffer[: edge - count],))
            if not got:
                break
            hasher.update(self._buffer[:got])
            count += got
            self.bytes_read += got
            if count == prefix_bytes:
                prefix = hasher.copy().digest()
        return hasher.digest(), prefix


def _waits() -> int:
    """Return how often this thread has given the processor away to wait for something."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


_PROBE: Final = [bytearray(1)]


def _is_cached(fd: int) -> bool:
    """Return whether a file's beginning is in memory; True where the file system cannot tell."""
    try:
        os.preadv(fd, _PROBE, 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _drop(fd: int) -> None:
    """Let the kernel forget a file's pages, but for those that are mapped or not written yet."""
    with suppress(OSError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _is_same(before: os.stat_result, after: Times, *, grows: bool) -> bool:
    if grows:
        return after.size >= before.st_size
    return (
        before.st_ctime_ns == after.ctime_ns
        and before.st_mtime_ns == after.mtime_ns
        and before.st_size == after.size
    )


def _refusal(status: os.stat_result) -> str | None:
    if status.st_size > CONTENT_BYTES_MAX:
        return f"{status.st_size} bytes are too many to read (limit {CONTENT_BYTES_MAX})"
    if status.st_size > _SPARSE_BYTES and status.st_blocks * 512 * _SPARSE_RATIO < status.st_size:
        return f"sparse: {status.st_blocks * 512} bytes on disk claim to be {status.st_size}"
    return None


def _entry(status: os.stat_result) -> FileEntry:
    is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    return FileEntry(
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_atime_ns,
        status.st_ino,
        status.st_dev,
        status.st_nlink,
        status.st_rdev if is_device else 0,
        None,
        None,
        int(State.OK),
        "",
    )


@lru_cache(maxsize=4096)
def owner_name(uid: int) -> str:
    """Return the name of a user, or the number as text where nobody has it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


@lru_cache(maxsize=4096)
def group_name(gid: int) -> str:
    """Return the name of a group, or the number as text where there is none."""
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return str(gid)
