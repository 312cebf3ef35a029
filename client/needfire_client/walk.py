"""What is there now: one record for each directory that the rules lead to, in key order.

An object is an entry of its parent's record; a directory that is only on the way to a named
object has a record of the named ones alone. Directories are opened one inside the other through
descriptors and never by path, so that a directory that becomes a symbolic link meanwhile cannot
lead the walk elsewhere. Nothing that is found raises: it becomes a ``Finding`` of the record.

A directory is the unit of work: ``Walker`` keeps nothing between two of them but the descriptors
of the way down, and which rules have been met.
"""

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, NamedTuple

from needfire_client.attributes import (
    ATTEMPTS_MAX,
    Examiner,
    ScanStoppedError,
    Skips,
    never,
    open_directory,
)
from needfire_client.packing import pack_into
from needfire_client.policy import Decision, Place, Ruleset
from needfire_client.quick import QuickLook
from needfire_protocol.baseline import (
    ENTRIES_BYTES_MAX,
    ENTRIES_PER_DIRECTORY_MAX,
    TIMELESS_FIELDS,
    FileEntry,
    RowWriter,
    State,
    TimelessEntry,
    without_access_time,
)
from needfire_protocol.escape import escape_bytes, is_weird
from needfire_protocol.plain_classes import dataclass
from needfire_protocol.rc.policies import Policy, RuleKind
from needfire_protocol.rc.skip_checksum import SkipLine
from needfire_protocol.rc.values import DEPTH_MAX
from needfire_protocol.severity import Severity

if TYPE_CHECKING:
    # The processes of a scan make no events, and need not load the catalogue.
    from needfire_protocol.event import FieldValue

__all__ = ["DirectoryRecord", "Finding", "Rest", "Severities", "Walker", "join"]

_GONE_ERRORS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
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

_NAMES_OF_A_LOG_MAX: Final = 4
"""Names of one inode that are read in search of a rotated log: more say the same again."""

_PLACES_MAX: Final = 4_096
"""Directories of which it is kept what the rules say."""

_NOTHING: Final[frozenset[bytes]] = frozenset()

_NAMES: Final = sys.getfilesystemencoding()
_NAME_ERRORS: Final = sys.getfilesystemencodeerrors()
"""What os.fsencode uses, without its question for the type: this is asked of every name."""


@dataclass(frozen=True, slots=True)
class Severities:
    """What [EventSeverity] says of the findings of a walk."""

    files: Severity
    dirs: Severity
    names: Severity


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is no difference but worth an event."""

    code: str
    path: bytes
    severity: Severity | None
    """None: the catalogue's."""
    fields: "Mapping[str, FieldValue]"
    """Without the path."""


@dataclass(slots=True)
class DirectoryRecord:
    """What is in one directory, as far as the rules cover it."""

    path: bytes
    _place: Place | Callable[[bytes], Place]
    rows: list[TimelessEntry]
    """Its objects, sorted by name, but for their access times."""
    atimes_ns: list[int]
    """Of the objects in ``rows``, in the same order."""
    scope: frozenset[bytes] | None
    """Names that the record speaks of, present or absent; None: all names."""
    is_readable: bool
    """False: nothing is known of what is in it, nor below it."""
    prefixes: dict[bytes, bytes]
    """Of files that may grow: digest of as much as there was before."""
    findings: list[Finding]
    deferred: list[bytes]
    """Names of files whose contents somebody else is to read."""
    packed: bytes | None
    """The objects as a row of a baseline, where another process examined them, or they are many;
    then ``rows`` is empty."""
    packed_count: int
    is_whole: bool
    """Every object could be examined."""
    is_as_before: bool
    """The entries are those of the baseline's row: a quick look has found no difference. Where
    another process looked, ``packed`` is empty until somebody needs the row and fetches it."""

    def __init__(
        self,
        path: bytes,
        place: Place | Callable[[bytes], Place],
        *,
        scope: frozenset[bytes] | None = None,
        is_readable: bool = True,
        packed: bytes | None = None,
        packed_count: int = 0,
        is_whole: bool = True,
        is_as_before: bool = False,
    ) -> None:
        self.path = path
        self._place = place
        self.rows = []
        self.atimes_ns = []
        self.scope = scope
        self.is_readable = is_readable
        self.prefixes = {}
        self.findings = []
        self.deferred = []
        self.packed = packed
        self.packed_count = packed_count
        self.is_whole = is_whole and is_readable
        self.is_as_before = is_as_before

    @property
    def place(self) -> Place:
        """What the rules say of it. Nobody asks where nothing has changed, so it may be looked up
        only then."""
        if not isinstance(self._place, Place):
            self._place = self._place(self.path)
        return self._place

    @property
    def count(self) -> int:
        """How many objects it has."""
        return len(self.rows) if self.packed is None else self.packed_count

    def add(self, name: bytes, entry: FileEntry) -> None:
        """Take in an object that comes behind all others."""
        self.rows.append((name, without_access_time(entry)))
        self.atimes_ns.append(entry.atime_ns)
        self.is_whole = self.is_whole and entry.is_known

    def fold(self, packed: bytes, count: int) -> None:
        """Hold a row of so many objects in the place of them."""
        self.packed, self.packed_count, self.rows, self.atimes_ns = packed, count, [], []


class _Descent(NamedTuple):
    name: bytes
    place: Place
    follow: bool


class Rest(NamedTuple):
    """Directories that a walk has not come to."""

    path: bytes
    names: list[bytes]
    """In the directory ``path``; sorted."""


class _Open(NamedTuple):
    fd: int
    path: bytes
    descents: Iterator[_Descent]


def join(path: bytes, name: bytes) -> bytes:
    """Return the path of the entry ``name`` of the directory ``path``."""
    if not path:
        return name
    return path + name if path == b"/" else path + b"/" + name


def no_size(_path: bytes, _name: bytes) -> int | None:
    """Stand in for ``growing_size`` where there is no baseline yet."""
    return None


class Walker:
    """Walks what the rules cover.

    Args:
        growing_size: called with the directory and the name of a file that may grow; says how
            large it was (None: not there), so that the same part can be hashed again.
        skip_lines: say of which files the contents are left alone (SkipChecksum).
        stop: asked before each directory; ScanStoppedError comes out of the walk if it says yes.
        pause: asked before each directory; if it says yes, the walk ends and ``rest`` is what
            it did not come to.
        quick: looks at the files of quick rules; without it they are read.
        entries_max: a directory that has more is not looked into, which is a finding; nor is one
            whose entries have more than a KiB for each of so many.
    """

    def __init__(
        self,
        ruleset: Ruleset,
        severities: Severities,
        examiner: Examiner,
        *,
        growing_size: Callable[[bytes, bytes], int | None] = no_size,
        skip_lines: Sequence[SkipLine] = (),
        stop: Callable[[], bool] = never,
        pause: Callable[[], bool] = never,
        quick: QuickLook | None = None,
        entries_max: int = ENTRIES_PER_DIRECTORY_MAX,
    ) -> None:
        self._entries_max = entries_max
        self._bytes_max = min(ENTRIES_BYTES_MAX, entries_max * _BYTES_PER_ENTRY_MAX)
        self._quick = quick
        self._skip_lines = skip_lines
        self._ruleset = ruleset
        self._severities = severities
        self._examiner = examiner
        self._growing_size = growing_size
        self._stop = stop
        self.pause = pause
        self.met: set[Decision] = set()
        """Decisions whose rule names something that is there."""
        self.rest: list[Rest] = []
        """After a pause: what is left, in the order of the walk."""
        self.followed: set[bytes] = set()
        """Directories that were entered through a symbolic link, on the way to a named object."""
        self._places: dict[bytes, Place] = {}
        """Of directories that were asked for, while ``followed`` has ``_places_after`` names."""
        self._places_after = 0

    def walk(self) -> Iterator[DirectoryRecord]:
        """Yield the record of everything that the rules cover."""
        record = DirectoryRecord(b"", Place((), None, -1), scope=frozenset((b"/",)))
        decision, place = self._ruleset.root()
        if decision is not None:
            self._add(record, -1, b"/", decision, place)
            yield record
        self.met.update(place.own())
        yield from self._below(-1, b"", iter((_Descent(b"/", place, False),)))

    def walk_rests(self, rests: Sequence[Rest] | None) -> Iterator[DirectoryRecord]:
        """Yield the records of what is left of a walk, in its order; None: of everything."""
        if rests is None:
            yield from self.walk()
            return
        for index, rest in enumerate(rests):
            yield from self.walk_inside(rest.path, rest.names)
            if self.rest:
                self.rest += rests[index + 1 :]
                return

    def rests_after(self, path: bytes) -> list[Rest]:
        """Return what a walk has not come to whose last record was that of the directory ``path``.

        Raises:
            OSError: a directory on the way there cannot be listed.
        """
        rests = []
        after = b""
        while path not in (b"", b"/"):
            rests.append(Rest(path, self._directories_in(path, after)))
            path, after = _split(path)
        if path:
            rests.append(Rest(path, self._directories_in(path, after)))
        else:
            rests.append(Rest(b"", [b"/"]))
        return [rest for rest in rests if rest.names]

    def _directories_in(self, path: bytes, after: bytes) -> list[bytes]:
        """Return the sorted names of the directories to go into that come after a name."""
        opened = self._open_path(path)
        if opened is None:
            return []
        fd, place = opened
        record = DirectoryRecord(path, place)
        try:
            found = []
            for name, is_regular in self._list(fd, record):
                below = place.child(name)[1]
                if name > after and not is_regular and below.is_open:
                    descent = self._descent(fd, name, below, None)
                    found += [] if descent is None else [descent.name]
        finally:
            os.close(fd)
        if not record.is_readable:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return found

    def walk_from(self, path: bytes) -> Iterator[DirectoryRecord]:
        """Yield the records of one directory and of everything covered below it."""
        if path == b"/":
            yield from self._below(-1, b"", iter((_Descent(b"/", self._ruleset.root()[1], False),)))
            return
        parent, name = _split(path)
        try:
            opened = self._open_path(parent)
        except OSError as error:
            yield self._unopened(path, self._ruleset.locate(path)[1], error)
            return
        if opened is None:
            return
        fd, place = opened
        try:
            descent = self._descent(fd, name, place.child(name)[1], None)
            if descent is not None:
                yield from self._below(fd, parent, iter((descent,)))
        finally:
            os.close(fd)

    def walk_inside(self, path: bytes, names: Sequence[bytes]) -> Iterator[DirectoryRecord]:
        """Yield the records of some directories in ``path``, and of everything covered below them.

        The pair (b"", [b"/"]) is everything but the entry of the root itself.
        """
        if not path:
            yield from self.walk_from(b"/")
            return
        gone = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        try:
            opened = self._open_path(path)
        except OSError as error:
            opened, gone = None, error
        if opened is None:
            # Unknown, not missing: it was there when its parent was listed.
            for name in names:
                yield self._unopened(join(path, name), self._ruleset.locate(path)[1], gone)
            return
        fd, place = opened
        try:
            yield from self._below(fd, path, (self._again(fd, name, place) for name in names))
        finally:
            os.close(fd)

    def _again(self, fd: int, name: bytes, place: Place) -> _Descent:
        """Return how to go into a directory that was listed before, and may have gone since."""
        inner = place.child(name)[1]
        return self._descent(fd, name, inner, None) or _Descent(name, inner, False)

    def unopened(self, path: bytes, reason: str) -> DirectoryRecord:
        """Return the record of a directory that nobody can look into, with its finding."""
        return self._unopened(path, self.place_of(path), OSError(errno.EIO, reason))

    def unread(
        self, directory: bytes, name: bytes, entry: FileEntry, reason: str
    ) -> DirectoryRecord:
        """Return a record of one object that nobody can read, with its finding."""
        place = self.place_of(directory)
        record = DirectoryRecord(directory, place, scope=frozenset((name,)))
        entry = entry._replace(state=int(State.UNREADABLE), reason=reason)
        record.add(name, entry)
        decision = place.child(name)[0]
        if decision is not None:
            self._judge_entry(record, name, entry, decision)
        return record

    def reread(self, path: bytes) -> DirectoryRecord | None:
        """Return the record of one directory as it is now; None if there is none any more."""
        try:
            return self.scan(path)
        except OSError as error:
            return self._unopened(path, self.place_of(path), error)

    def take_followed(self) -> list[bytes]:
        """Return ``followed``, and begin anew."""
        taken = sorted(self.followed)
        self.followed.clear()
        self._places.clear()
        return taken

    def place_of(self, path: bytes) -> Place:
        """Return the place of a directory, with regard to the links on the way that were met."""
        places = self._places
        if len(self.followed) != self._places_after or len(places) > _PLACES_MAX:
            places.clear()
            self._places_after = len(self.followed)
        # Nearly always the parent's is there, because it was asked for not long ago.
        unknown = []
        while path not in places and path not in (b"", b"/"):
            parent, name = _split(path)
            unknown.append((path, name))
            path = parent
        place = places.get(path) or self._ruleset.root()[1]
        for inner, name in reversed(unknown):
            place = places[inner] = self._place_inside(place, name, inner)
        return place

    def _place_inside(self, place: Place, name: bytes, path: bytes) -> Place:
        inner = place.child(name)[1]
        return inner.only_named() if path in self.followed else inner

    def scan(self, path: bytes) -> DirectoryRecord | None:
        """Return the record of one directory alone; None if there is no such directory now."""
        opened = self._open_path(path)
        if opened is None:
            return None
        fd, place = opened
        try:
            return self._record(fd, path, place, [])
        finally:
            os.close(fd)

    def look(self, path: bytes) -> tuple[DirectoryRecord, FileEntry | None] | None:
        """Return a record that speaks of one object alone, and its entry, None if it is gone.

        None where the way there cannot be gone: then nothing is known of the object.
        """
        parent, name = _split(path)
        decision, place = self._ruleset.locate(path)
        if decision is None:
            return None
        scope = frozenset((name,))
        if path == b"/":
            record = DirectoryRecord(parent, Place((), None, -1), scope=scope)
            return record, self._add(record, -1, name, decision, place)
        try:
            opened = self._open_path(parent)
        except OSError:
            return None
        if opened is None:
            return DirectoryRecord(parent, self._ruleset.locate(parent)[1], scope=scope), None
        fd, parent_place = opened
        try:
            # On a way through a symbolic link less is covered than the path alone tells.
            decision, place = parent_place.child(name)
            if decision is None:
                return None
            record = DirectoryRecord(parent, parent_place, scope=scope)
            entry = self._add(record, fd, name, decision, place)
        finally:
            os.close(fd)
        self._judge_names(record, [(name, False)])
        return record, entry

    def rotated_prefix(
        self, path: bytes, is_inode: Callable[[int], bool], size: int
    ) -> bytes | None:
        """Return the digest of the first ``size`` bytes of a directory's file with that inode.

        None where there is no such file, or it is shorter: what was in it is not there any more.
        """
        try:
            opened = self._open_path(path)
        except OSError:
            return None
        if opened is None:
            return None
        fd, _ = opened
        try:
            with os.scandir(fd) as found:
                same = (os.fsencode(entry.name) for entry in found if is_inode(entry.inode()))
                names = list(islice(same, _NAMES_OF_A_LOG_MAX))
            for name in names:
                entry, prefix = self._examiner.examine_growing(fd, name, size)
                if entry is not None and is_inode(entry.inode) and prefix is not None:
                    return prefix
        except OSError:
            return None
        finally:
            os.close(fd)
        return None

    def _open_path(self, path: bytes) -> tuple[int, Place] | None:
        """Return descriptor and place of a directory; None where there is none (any more).

        Raises:
            OSError: it is there but cannot be opened.
        """
        _, place = self._ruleset.root()
        fd = open_directory(b"/", None)
        inner = b""
        try:
            for name in path.split(b"/")[1:]:
                if not name:
                    continue
                inner += b"/" + name
                descent = self._descent(fd, name, place.child(name)[1], None)
                if descent is None:
                    os.close(fd)
                    return None
                if descent.follow:
                    self.followed.add(inner)
                deeper = open_directory(
                    name, fd, lists=descent.place.needs_listing, follow=descent.follow
                )
                os.close(fd)
                fd, place = deeper, descent.place
        except OSError as error:
            os.close(fd)
            if error.errno in _GONE_ERRORS:
                return None
            raise
        return fd, place

    def _below(
        self, fd: int, path: bytes, descents: Iterator[_Descent]
    ) -> Iterator[DirectoryRecord]:
        """Yield the records of the given directories inside ``fd``, and of all below them."""
        stack = [_Open(fd, path, descents)]
        try:
            while stack:
                top = stack[-1]
                descent = next(top.descents, None)
                if descent is None:
                    stack.pop()
                    if stack:
                        os.close(top.fd)
                    continue
                if self._stop():
                    raise ScanStoppedError
                if self.pause():
                    stack[-1] = _Open(top.fd, top.path, chain((descent,), top.descents))
                    self.rest = [
                        Rest(opened.path, [left.name for left in opened.descents])
                        for opened in reversed(stack)
                    ]
                    return
                inner = join(top.path, descent.name)
                if descent.follow:
                    self.followed.add(inner)
                try:
                    # The root has no parent to be opened from; its name is its path.
                    inner_fd = open_directory(
                        descent.name,
                        top.fd if top.fd >= 0 else None,
                        lists=descent.place.needs_listing,
                        follow=descent.follow,
                    )
                except OSError as error:
                    yield self._unopened(inner, descent.place, error)
                    continue
                deeper: list[_Descent] = []
                stack.append(_Open(inner_fd, inner, iter(deeper)))
                # An iterator of a list gives what is put into it before it is asked.
                yield self._record(inner_fd, inner, descent.place, deeper)
        finally:
            for opened in stack[1:]:
                os.close(opened.fd)

    def _unopened(self, path: bytes, place: Place, error: OSError) -> DirectoryRecord:
        record = DirectoryRecord(path, place, scope=_NOTHING, is_readable=False)
        # Nobody can say now that a rule inside matches nothing.
        self.met.update(place.inner())
        if error.errno not in _GONE_ERRORS:
            record.findings.append(self._unreadable(path, place, error))
        return record

    def _unreadable(self, path: bytes, place: Place, error: OSError) -> Finding:
        policy = "" if place.contents is None else place.contents.policy.value
        reason = error.strerror or f"error {error.errno}"
        return Finding(
            "FILE_UNREADABLE", path, self._severities.dirs, {"reason": reason, "policy": policy}
        )

    def _record(
        self, fd: int, path: bytes, place: Place, descents: list[_Descent]
    ) -> DirectoryRecord:
        """Return the record of an open directory; add the directories to go into."""
        record = DirectoryRecord(path, place)
        if place.contents is not None:
            self.met.add(place.contents)
        if self._quick is not None and self._add_quick(record, fd, descents, self._quick):
            return record
        listing = self._list(fd, record)
        if len(listing) > _FOLDED_FROM_NAMES:
            self._add_folded(record, fd, listing, descents)
        else:
            self._add_listed(record, fd, listing, descents)
            if (
                len(record.rows) > self._bytes_max // _HEAVIEST_ENTRY_BYTES
                and (found_bytes := _weight(record.rows)) > self._bytes_max
            ):
                descents.clear()
                self._unweighed(record, found_bytes)
        if self._examiner.deferred:
            record.deferred, self._examiner.deferred = self._examiner.deferred, []
        return record

    def _add_listed(
        self,
        record: DirectoryRecord,
        fd: int,
        listing: list[tuple[bytes, bool]],
        descents: list[_Descent],
    ) -> None:
        if record.place.is_uniform:
            self._add_uniform(record, fd, listing, descents)
        else:
            self._add_named(record, fd, listing, descents)
        self._judge_names(record, listing)

    def _add_folded(
        self,
        record: DirectoryRecord,
        fd: int,
        listing: list[tuple[bytes, bool]],
        descents: list[_Descent],
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
            if writer.size_bytes > self._bytes_max - _HEADERS_BYTES:
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
        reason = f"entries of {found_bytes} bytes (limit {self._bytes_max})"
        self._unlisted(record, OSError(errno.EOVERFLOW, reason))

    def _list(self, fd: int, record: DirectoryRecord) -> list[tuple[bytes, bool]]:
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

    def _unlisted(self, record: DirectoryRecord, error: OSError) -> list[tuple[bytes, bool]]:
        record.findings.append(self._unreadable(record.path, record.place, error))
        record.scope, record.is_readable, record.is_whole = _NOTHING, False, False
        self.met.update(record.place.inner())
        return []

    def _add_quick(
        self,
        record: DirectoryRecord,
        fd: int,
        descents: list[_Descent],
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
            descents += [_Descent(name, below, False) for name in row.directories]
        elif record.place.is_cut:
            for name in row.directories:
                self._judge_depth(record, name, decision)
        return True

    def _add_uniform(
        self,
        record: DirectoryRecord,
        fd: int,
        listing: list[tuple[bytes, bool]],
        descents: list[_Descent],
    ) -> None:
        """Take in a directory in which no rule names anything: the usual case, and the hot one."""
        decision = record.place.contents
        if decision is None:
            return
        if decision.grows:
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
                self._judge_entry(record, name, entry, decision)
            # What cannot be examined may be a directory; opening it will tell.
            if goes_on and not is_regular and (stat.S_ISDIR(entry.mode) or not entry.mode):
                descents.append(_Descent(name, below, False))
            elif is_cut and stat.S_ISDIR(entry.mode):
                self._judge_depth(record, name, decision)

    def _add_named(
        self,
        record: DirectoryRecord,
        fd: int,
        listing: list[tuple[bytes, bool]],
        descents: list[_Descent],
    ) -> None:
        """Take in a directory in which each name may have a rule of its own."""
        for name, is_regular in listing:
            decision, place = record.place.child(name)
            entry = None
            if decision is not None:
                entry = self._add(record, fd, name, decision, place, is_regular=is_regular)
            if place.is_open and not is_regular:
                descent = self._descent(fd, name, place, entry)
                if descent is not None:
                    descents.append(descent)
            elif (
                entry is not None
                and decision is not None
                and record.place.is_cut
                and place is record.place.below
                and stat.S_ISDIR(entry.mode)
            ):
                self._judge_depth(record, name, decision)

    def _add(
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
            self._judge_entry(record, name, entry, decision)
        self._judge_directory(record, name, entry, place)
        return entry

    def _skips(self, path: bytes, name: bytes) -> Skips | None:
        """Return what is to be asked before an object's contents are read; None for nothing."""
        whole = join(path, name)
        lines = [line for line in self._skip_lines if line.may_hold(whole)]
        if not lines:
            return None
        return lambda mode, size: any(line.holds(whole, mode, size) for line in lines)

    def _descent(
        self, fd: int, name: bytes, place: Place, entry: FileEntry | None
    ) -> _Descent | None:
        """Return how to go into the object ``name``; None if it is no directory to go into."""
        try:
            mode = (
                os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
                if entry is None
                else entry.mode
            )
            if stat.S_ISDIR(mode) or not mode:
                # What cannot be examined may be a directory; opening it will tell.
                return _Descent(name, place, False)
            named = place.only_named()
            if not stat.S_ISLNK(mode) or not named.is_open:
                return None
            is_directory = stat.S_ISDIR(os.stat(name, dir_fd=fd).st_mode)
        except OSError as error:
            return None if error.errno in _GONE_ERRORS else _Descent(name, place, False)
        return _Descent(name, named, True) if is_directory else None

    def _judge_entry(
        self, record: DirectoryRecord, name: bytes, entry: FileEntry, decision: Decision
    ) -> None:
        path, policy = join(record.path, name), decision.policy.value
        if entry.state == State.UNSTABLE:
            unstable: dict[str, FieldValue] = {"policy": policy, "attempts": ATTEMPTS_MAX}
            record.findings.append(Finding("FILE_UNSTABLE", path, None, unstable))
        else:
            unreadable: dict[str, FieldValue] = {"reason": entry.reason, "policy": policy}
            record.findings.append(
                Finding("FILE_UNREADABLE", path, self._severities.files, unreadable)
            )

    def _judge_depth(self, record: DirectoryRecord, name: bytes, decision: Decision) -> None:
        """Say so of a directory that is too deep to be entered: a tree can be hidden down there."""
        fields: dict[str, FieldValue] = {
            "reason": f"deeper than the {DEPTH_MAX} levels that a rule can enter",
            "policy": decision.policy.value,
        }
        path = join(record.path, name)
        record.findings.append(Finding("FILE_UNREADABLE", path, self._severities.dirs, fields))

    def _judge_directory(
        self, record: DirectoryRecord, name: bytes, entry: FileEntry, place: Place
    ) -> None:
        """Say so where a ``dir=`` rule names something that is none."""
        if stat.S_ISDIR(entry.mode) or not entry.is_known:
            return
        for decision in place.own():
            rule = decision.rule
            # A wildcard may well match files; depth -1 asks for nothing inside.
            if rule.kind is RuleKind.DIR and not rule.is_glob and decision.levels >= 0:
                fields: dict[str, FieldValue] = {"rule": f"{rule.source}:{rule.line}"}
                if entry.link is not None:
                    fields["link"] = escape_bytes(entry.link)
                path, code = join(record.path, name), "POLICY_NODIRECTORY"
                if entry.link is not None and (real := self._behind_link(path)):
                    fields["resolved"] = escape_bytes(real)
                    code = "POLICY_ROOT_IS_LINK"
                record.findings.append(Finding(code, path, None, fields))

    def _behind_link(self, path: bytes) -> bytes | None:
        """Return the directory that a root leads to, where a rule covers it (``roots.py``)."""
        real = os.path.realpath(path)
        is_covered = self._ruleset.locate(real)[1].contents is not None
        return real if is_covered and os.path.isdir(real) else None

    def _judge_names(self, record: DirectoryRecord, listing: list[tuple[bytes, bool]]) -> None:
        together = b"".join(name for name, _ in listing)
        # One look at all names of a directory: nearly all have nothing but visible ASCII.
        if together.isascii() and together.decode("ascii").isprintable():
            return
        for name, _ in record.rows:
            decision = record.place.child(name)[0]
            if is_weird(name) and decision is not None and decision.policy is not Policy.IGNORE_ALL:
                record.findings.append(
                    Finding("WEIRD_FILENAME", join(record.path, name), self._severities.names, {})
                )


def _weight(rows: Sequence[TimelessEntry]) -> int:
    """Return about how many bytes entries have in a row of the baseline."""
    return sum(
        _FIXED_BYTES
        + len(name)
        + len(attributes[_LINK] or b"")
        + sum(len(each) + len(data) for each, _, data in attributes[_XATTRS])
        for name, attributes in rows
    )


def _split(path: bytes) -> tuple[bytes, bytes]:
    """Return the directory that a path is an entry of, and its name there."""
    if path == b"/":
        return b"", b"/"
    parent, _, name = path.rpartition(b"/")
    return parent or b"/", name
