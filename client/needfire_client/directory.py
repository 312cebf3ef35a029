"""What is in one open directory now, as a record, and which directories in it to go into."""

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple

from needfire_client.attributes import Examiner, ScanStoppedError, Skips
from needfire_client.judging import Judge
from needfire_client.packing import pack_into
from needfire_client.paths import join, split
from needfire_client.policy import Decision, Place
from needfire_client.quick import QuickLook
from needfire_client.record import DirectoryRecord
from needfire_protocol.baseline import (
    ENTRIES_BYTES_MAX,
    ENTRIES_PER_DIRECTORY_MAX,
    TIMELESS_FIELDS,
    FileEntry,
    RowWriter,
    State,
    TimelessEntry,
)
from needfire_protocol.rc.skip_checksum import SkipLine

__all__ = [
    "GONE_ERRORS",
    "UNANSWERED",
    "Descent",
    "DirectoryReader",
    "descent_into",
    "too_heavy",
]

GONE_ERRORS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
"""Opening a directory fails so if it has gone, or become something else, since it was listed."""

_FIXED_BYTES: Final = 160
"""Of one entry in a row of the baseline, without name, link target and extended attributes."""
_BYTES_PER_ENTRY_MAX: Final = 256
"""Of the entries of a directory, on average, where it has as many as it may: half of what memory
has room for (``memory.py``), because a row is compared with another one."""
_HEAVIEST_ENTRY_BYTES: Final = 8_192
"""No entry has more, so a directory of few need not be weighed."""
_HEADERS_BYTES: Final = 64
"""Of a row, besides its entries; more than there are."""

_FOLDED_FROM_NAMES: Final = 4_096
"""A directory with more is packed part by part: an entry takes five times as much unpacked."""

_LINK: Final = TIMELESS_FIELDS.index("link")
_XATTRS: Final = TIMELESS_FIELDS.index("xattrs")

_NOTHING: Final[frozenset[bytes]] = frozenset()

UNANSWERED: Final = "the system does not answer"
"""Reason why something could not be examined."""

_UNASKED: Final = FileEntry(*(0,) * 11, None, None, int(State.UNREADABLE), UNANSWERED)
"""Of an object for which the system does not answer."""

_NAMES: Final = sys.getfilesystemencoding()
_NAME_ERRORS: Final = sys.getfilesystemencodeerrors()
"""What os.fsencode uses, without its question for the type: this is asked of every name."""


class Descent(NamedTuple):
    """How to go into a directory."""

    name: bytes
    place: Place
    follow: bool
    """Through a symbolic link."""


class DirectoryReader:
    """Makes records of directories that somebody else has opened.

    It keeps nothing between two of them but which rules have been met. Nothing that is found
    raises: it becomes a ``Finding`` of the record.

    Args:
        growing_size, skip_lines, stop, quick, entries_max: as of a ``Walker``.
    """

    def __init__(
        self,
        judge: Judge,
        examiner: Examiner,
        *,
        growing_size: Callable[[bytes, bytes], int | None],
        skip_lines: Sequence[SkipLine],
        stop: Callable[[], bool],
        quick: QuickLook | None,
        entries_max: int,
    ) -> None:
        self._judge = judge
        self._examiner = examiner
        self._growing_size = growing_size
        self._skip_lines = skip_lines
        self._stop = stop
        self._quick = quick
        self._entries_max = entries_max
        self._avoids: frozenset[bytes] = frozenset()
        self._avoids_in: set[bytes] = set()
        self.bytes_max = min(ENTRIES_BYTES_MAX, entries_max * _BYTES_PER_ENTRY_MAX)
        """Bytes that the entries of a directory may have together."""
        self.met: set[Decision] = set()
        """Decisions whose rule names something that is there."""

    def avoid(self, paths: frozenset[bytes]) -> None:
        """Ask nothing of some objects from now on: the system does not answer for them."""
        self._avoids |= paths
        self._avoids_in.update(split(path)[0] for path in paths)

    def read(self, fd: int, path: bytes, place: Place, descents: list[Descent]) -> DirectoryRecord:
        """Return the record of an open directory; add the directories to go into."""
        record = DirectoryRecord(path, place)
        if place.contents is not None:
            self.met.add(place.contents)
        quick = None if path in self._avoids_in else self._quick
        if quick is not None and self._add_quick(record, fd, descents, quick):
            return record
        listing = self.listed(fd, record)
        if len(listing) > _FOLDED_FROM_NAMES:
            self._add_folded(record, fd, listing, descents)
        else:
            self._add_listed(record, fd, listing, descents)
            if (
                len(record.rows) > self.bytes_max // _HEAVIEST_ENTRY_BYTES
                and (found_bytes := _weight(record.rows)) > self.bytes_max
            ):
                descents.clear()
                self._unweighed(record, found_bytes)
        if self._examiner.deferred:
            record.deferred, self._examiner.deferred = self._examiner.deferred, []
        return record

    def unopened(self, path: bytes, place: Place, error: OSError) -> DirectoryRecord:
        """Return the record of a directory that could not be opened, with its finding."""
        record = DirectoryRecord(path, place, scope=_NOTHING, is_readable=False)
        # Nobody can say now that a rule inside matches nothing.
        self.met.update(place.inner())
        if error.errno not in GONE_ERRORS:
            record.findings.append(self._judge.unreadable(path, place, error))
        return record

    def listed(self, fd: int, record: DirectoryRecord) -> list[tuple[bytes, bool]]:
        """Return the sorted names of a directory, each with whether it is a regular file."""
        if not record.place.needs_listing:
            return [(name, False) for name in sorted(record.place.named())]
        try:
            with os.scandir(fd) as found:
                listing = [
                    (entry.name.encode(_NAMES, _NAME_ERRORS), entry.is_file(follow_symlinks=False))
                    for entry in islice(found, self._entries_max + 1)
                ]
        except OSError as error:
            return self._unlisted(record, error)
        if len(listing) > self._entries_max:
            reason = f"more than {self._entries_max} entries"
            if self._entries_max < ENTRIES_PER_DIRECTORY_MAX:
                reason += "; ScanMemoryLimit has no room for more"
            return self._unlisted(record, OSError(errno.EOVERFLOW, reason))
        listing.sort()
        return listing

    def add(
        self,
        record: DirectoryRecord,
        fd: int,
        name: bytes,
        decision: Decision,
        place: Place,
        *,
        is_regular: bool = False,
    ) -> FileEntry | None:
        """Examine one object into the record; return its entry, None if it is gone."""
        if self._avoids and join(record.path, name) in self._avoids:
            record.add(name, _UNASKED)
            self.met.update(place.own())
            if not place.is_open:
                # Of others it is said when they are not opened.
                self._judge.entry(record, name, _UNASKED, decision)
            return _UNASKED
        if decision.is_quick and decision.hashes and self._quick is not None and is_regular:
            entry = self._quick.carried(fd, record.path, name)
            if entry is not None:
                record.add(name, entry)
                self.met.update(place.own())
                return entry
        skips = self._skips(record.path, name) if self._skip_lines else None
        if decision.grows and decision.hashes:
            before = self._growing_size(record.path, name)
            entry, prefix = self._examiner.examine_growing(fd, name, before, skips=skips)
            if prefix is not None:
                record.prefixes[name] = prefix
        else:
            entry = self._examiner.examine(
                fd, name, hashes=decision.hashes, is_regular=is_regular, skips=skips
            )
        if entry is None:
            return None
        record.add(name, entry)
        self.met.update(place.own())
        if entry.state:
            self._judge.entry(record, name, entry, decision)
        self._judge.directory(record, name, entry, place)
        return entry

    def _add_listed(
        self,
        record: DirectoryRecord,
        fd: int,
        listing: list[tuple[bytes, bool]],
        descents: list[Descent],
    ) -> None:
        if record.place.is_uniform:
            self._add_uniform(record, fd, listing, descents)
        else:
            self._add_named(record, fd, listing, descents)
        self._judge.names(record, listing)

    def _add_uniform(
        self,
        record: DirectoryRecord,
        fd: int,
        listing: list[tuple[bytes, bool]],
        descents: list[Descent],
    ) -> None:
        """Take in a directory in which no rule names anything: the usual case, and the hot one."""
        decision = record.place.contents
        if decision is None:
            return
        if decision.grows or record.path in self._avoids_in:
            self._add_named(record, fd, listing, descents)
            return
        if decision.is_quick and decision.hashes and self._quick is not None:
            # Another way, so that the hot one need not ask at every file.
            self._add_named(record, fd, listing, descents)
            return
        examine, hashes, below = self._examiner.examine, decision.hashes, record.place.below
        goes_on, is_cut = below.is_open, record.place.is_cut
        skips_any = hashes and bool(self._skip_lines)
        left: Iterable[tuple[bytes, bool]] = listing
        if hashes and not skips_any:
            left = self._examiner.take_usual(fd, listing, record.rows, record.atimes_ns)
        for name, is_regular in left:
            skips = self._skips(record.path, name) if skips_any else None
            entry = examine(fd, name, hashes=hashes, skips=skips)
            if entry is None:
                continue
            record.add(name, entry)
            if entry.state:
                self._judge.entry(record, name, entry, decision)
            # What cannot be examined may be a directory; opening it will tell.
            if goes_on and not is_regular and (stat.S_ISDIR(entry.mode) or not entry.mode):
                descents.append(Descent(name, below, False))
            elif is_cut and stat.S_ISDIR(entry.mode):
                self._judge.depth(record, name, decision)

    def _add_named(
        self,
        record: DirectoryRecord,
        fd: int,
        listing: list[tuple[bytes, bool]],
        descents: list[Descent],
    ) -> None:
        """Take in a directory in which each name may have a rule of its own."""
        for name, is_regular in listing:
            decision, place = record.place.child(name)
            entry = None
            if decision is not None:
                entry = self.add(record, fd, name, decision, place, is_regular=is_regular)
            if place.is_open and not is_regular:
                is_avoided = bool(self._avoids) and join(record.path, name) in self._avoids
                descent = descent_into(fd, name, place, _UNASKED if is_avoided else entry)
                if descent is not None:
                    descents.append(descent)
            elif (
                entry is not None
                and decision is not None
                and record.place.is_cut
                and place is record.place.below
                and stat.S_ISDIR(entry.mode)
            ):
                self._judge.depth(record, name, decision)

    def _add_quick(
        self,
        record: DirectoryRecord,
        fd: int,
        descents: list[Descent],
        quick: QuickLook,
    ) -> bool:
        """Take in a directory as a whole, if quick rules let it be and nothing in it has changed."""
        decision = record.place.contents
        if (
            decision is None
            or not decision.is_quick
            or not record.place.is_uniform
            or decision.watches_reading
        ):
            return False
        row = quick.row(fd, record.path, hashes=decision.hashes)
        if row is None:
            return False
        record.fold(row.packed, row.objects)
        record.is_as_before = True
        below = record.place.below
        if below.is_open:
            descents += [Descent(name, below, False) for name in row.directories]
        elif record.place.is_cut:
            for name in row.directories:
                self._judge.depth(record, name, decision)
        return True

    def _add_folded(
        self,
        record: DirectoryRecord,
        fd: int,
        listing: list[tuple[bytes, bool]],
        descents: list[Descent],
    ) -> None:
        """Take in a large directory some thousand names at a time, each packed before the next."""
        writer = RowWriter()
        for first in range(0, len(listing), _FOLDED_FROM_NAMES):
            if self._stop():
                raise ScanStoppedError
            part = listing[first : first + _FOLDED_FROM_NAMES]
            self._add_listed(record, fd, part, descents)
            pack_into(writer, record)
            record.rows, record.atimes_ns = [], []
            if writer.size_bytes > self.bytes_max - _HEADERS_BYTES:
                descents.clear()
                self._unweighed(record, writer.size_bytes)
                return
        record.fold(writer.row(), writer.count)

    def _unweighed(self, record: DirectoryRecord, found_bytes: int) -> None:
        """Give up a directory whose entries no row of a baseline has room for.

        Hard links to a link with a long target cost their owner next to nothing.
        """
        record.rows, record.atimes_ns = [], []
        record.prefixes.clear()
        record.findings.clear()
        self._examiner.deferred = []
        reason = too_heavy(found_bytes, self.bytes_max)
        self._unlisted(record, OSError(errno.EOVERFLOW, reason))

    def _unlisted(self, record: DirectoryRecord, error: OSError) -> list[tuple[bytes, bool]]:
        record.findings.append(self._judge.unreadable(record.path, record.place, error))
        record.scope, record.is_readable, record.is_whole = _NOTHING, False, False
        self.met.update(record.place.inner())
        return []

    def _skips(self, path: bytes, name: bytes) -> Skips | None:
        """Return what is to be asked before an object's contents are read; None for nothing."""
        whole = join(path, name)
        lines = [line for line in self._skip_lines if line.may_hold(whole)]
        if not lines:
            return None
        return lambda mode, size: any(line.holds(whole, mode, size) for line in lines)


def too_heavy(found_bytes: int, bytes_max: int) -> str:
    """Return why a directory is not looked into whose entries are too large."""
    return f"entries of {found_bytes} bytes (limit {bytes_max})"


def descent_into(fd: int, name: bytes, place: Place, entry: FileEntry | None) -> Descent | None:
    """Return how to go into the object ``name``; None if it is no directory to go into."""
    try:
        mode = (
            os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode if entry is None else entry.mode
        )
        if stat.S_ISDIR(mode) or not mode:
            # What cannot be examined may be a directory; opening it will tell.
            return Descent(name, place, False)
        named = place.only_named()
        if not stat.S_ISLNK(mode) or not named.is_open:
            return None
        is_directory = stat.S_ISDIR(os.stat(name, dir_fd=fd).st_mode)
    except OSError as error:
        return None if error.errno in GONE_ERRORS else Descent(name, place, False)
    return Descent(name, named, True) if is_directory else None


def _weight(rows: Sequence[TimelessEntry]) -> int:
    """Return about how many bytes entries have in a row of the baseline."""
    return sum(
        _FIXED_BYTES
        + len(name)
        + len(attributes[_LINK] or b"")
        + sum(len(each) + len(data) for each, _, data in attributes[_XATTRS])
        for name, attributes in rows
    )
