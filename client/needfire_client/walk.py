"""What is there now: one record for each directory that the rules lead to, in key order.

An object is an entry of its parent's record; a directory that is only on the way to a named
object has a record of the named ones alone. Directories are opened one inside the other through
descriptors and never by path, so that a directory that becomes a symbolic link meanwhile cannot
lead the walk elsewhere. Nothing that is found raises: it becomes a ``Finding`` of the record.

A directory is the unit of work: ``Walker`` keeps nothing between two of them but the descriptors
of the way down, and which rules have been met. What is in one, ``directory.py`` tells.
"""

import errno
import os
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import chain, islice
from typing import Final, NamedTuple

from needfire_client.attributes import Examiner, ScanStoppedError, never, open_directory
from needfire_client.directory import (
    GONE_ERRORS,
    UNANSWERED,
    Descent,
    DirectoryReader,
    descent_into,
)
from needfire_client.judging import Judge, Severities
from needfire_client.paths import join, split
from needfire_client.policy import Place, Ruleset
from needfire_client.quick import QuickLook
from needfire_client.record import DirectoryRecord
from needfire_protocol.baseline import ENTRIES_PER_DIRECTORY_MAX, FileEntry, State
from needfire_protocol.rc.skip_checksum import SkipLine

__all__ = ["Rest", "Walker", "Whereabouts", "no_size"]

_NAMES_OF_A_LOG_MAX: Final = 4
"""Names of one inode that are read in search of a rotated log: more say the same again."""

_PLACES_MAX: Final = 4_096
"""Directories of which it is kept what the rules say."""


class Rest(NamedTuple):
    """Directories that a walk has not come to."""

    path: bytes
    names: list[bytes]
    """In the directory ``path``; sorted."""


class Whereabouts:
    """Where a walk is, for those who look on from another thread."""

    __slots__ = ("path",)

    def __init__(self) -> None:
        self.path = b""
        """The directory that was opened last, or is to be opened; empty: none yet."""


class _Open(NamedTuple):
    fd: int
    path: bytes
    descents: Iterator[Descent]


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
        whereabouts: is told where it is.
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
        whereabouts: Whereabouts | None = None,
    ) -> None:
        self._ruleset = ruleset
        self._whereabouts = Whereabouts() if whereabouts is None else whereabouts
        self._examiner = examiner
        self._judge = Judge(ruleset, severities)
        self._reader = DirectoryReader(
            self._judge,
            examiner,
            growing_size=growing_size,
            skip_lines=skip_lines,
            stop=stop,
            quick=quick,
            entries_max=entries_max,
        )
        self._stop = stop
        self.pause = pause
        self.met = self._reader.met
        """Decisions whose rule names something that is there."""
        self.rest: list[Rest] = []
        """After a pause: what is left, in the order of the walk."""
        self.followed: set[bytes] = set()
        """Directories that were entered through a symbolic link, on the way to a named object."""
        self.avoids: frozenset[bytes] = frozenset()
        """What ``avoid`` was told so far."""
        self._places: dict[bytes, Place] = {}
        """Of directories that were asked for, while ``followed`` has ``_places_after`` names."""
        self._places_after = 0

    def avoid(self, paths: frozenset[bytes]) -> None:
        """Leave alone what is mounted at some paths too: the system does not answer for it."""
        self.avoids |= paths
        self._reader.avoid(paths)

    def walk(self) -> Iterator[DirectoryRecord]:
        """Yield the record of everything that the rules cover."""
        record = DirectoryRecord(b"", Place((), None, -1), scope=frozenset((b"/",)))
        decision, place = self._ruleset.root()
        if decision is not None:
            self._reader.add(record, -1, b"/", decision, place)
            yield record
        self.met.update(place.own())
        yield from self._below(-1, b"", iter((Descent(b"/", place, False),)))

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

    def rests_after(self, path: bytes, unasked: Container[bytes] = ()) -> list[Rest]:
        """Return what a walk has not come to whose last record was that of the directory ``path``.

        Args:
            unasked: directories that are such without a question, which could remain unanswered.

        Raises:
            OSError: a directory on the way there cannot be listed.
        """
        rests = []
        after = b""
        while path not in (b"", b"/"):
            rests.append(Rest(path, self._directories_in(path, after, unasked)))
            path, after = split(path)
        if path:
            rests.append(Rest(path, self._directories_in(path, after, unasked)))
        else:
            rests.append(Rest(b"", [b"/"]))
        return [rest for rest in rests if rest.names]

    def _directories_in(self, path: bytes, after: bytes, unasked: Container[bytes]) -> list[bytes]:
        """Return the sorted names of the directories to go into that come after a name."""
        opened = self._open_path(path)
        if opened is None:
            return []
        fd, place = opened
        record = DirectoryRecord(path, place)
        try:
            found = []
            for name, is_regular in self._reader.listed(fd, record):
                below = place.child(name)[1]
                if name > after and not is_regular and below.is_open:
                    is_one = join(path, name) in unasked
                    found += [name] if is_one or descent_into(fd, name, below, None) else []
        finally:
            os.close(fd)
        if not record.is_readable:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return found

    def walk_from(self, path: bytes) -> Iterator[DirectoryRecord]:
        """Yield the records of one directory and of everything covered below it."""
        if path == b"/":
            yield from self._below(-1, b"", iter((Descent(b"/", self._ruleset.root()[1], False),)))
            return
        parent, name = split(path)
        try:
            opened = self._open_path(parent)
        except OSError as error:
            yield self._reader.unopened(path, self._ruleset.locate(path)[1], error)
            return
        if opened is None:
            return
        fd, place = opened
        try:
            descent = descent_into(fd, name, place.child(name)[1], None)
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
                yield self._reader.unopened(join(path, name), self._ruleset.locate(path)[1], gone)
            return
        fd, place = opened
        try:
            yield from self._below(
                fd, path, (self._again(fd, join(path, name), place) for name in names)
            )
        finally:
            os.close(fd)

    def _again(self, fd: int, path: bytes, place: Place) -> Descent:
        """Return how to go into a directory that was listed before, and may have gone since."""
        name = split(path)[1]
        inner = place.child(name)[1]
        unasked = Descent(name, inner, False)
        return unasked if path in self.avoids else descent_into(fd, name, inner, None) or unasked

    @property
    def bytes_max(self) -> int:
        """Bytes that the entries of a directory may have together."""
        return self._reader.bytes_max

    def unopened(self, path: bytes, reason: str) -> DirectoryRecord:
        """Return the record of a directory that nobody can look into, with its finding."""
        return self._reader.unopened(path, self.place_of(path), OSError(errno.EIO, reason))

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
            self._judge.entry(record, name, entry, decision)
        return record

    def reread(self, path: bytes) -> DirectoryRecord | None:
        """Return the record of one directory as it is now; None if there is none any more."""
        try:
            return self.scan(path)
        except OSError as error:
            return self._reader.unopened(path, self.place_of(path), error)

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
            parent, name = split(path)
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
            return self._reader.read(fd, path, place, [])
        finally:
            os.close(fd)

    def look(self, path: bytes) -> tuple[DirectoryRecord, FileEntry | None] | None:
        """Return a record that speaks of one object alone, and its entry, None if it is gone.

        None where the way there cannot be gone: then nothing is known of the object.
        """
        parent, name = split(path)
        decision, place = self._ruleset.locate(path)
        if decision is None:
            return None
        scope = frozenset((name,))
        if path == b"/":
            record = DirectoryRecord(parent, Place((), None, -1), scope=scope)
            return record, self._reader.add(record, -1, name, decision, place)
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
            entry = self._reader.add(record, fd, name, decision, place)
        finally:
            os.close(fd)
        self._judge.names(record, [(name, False)])
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
        self._whereabouts.path = path
        fd = open_directory(b"/", None)
        inner = b""
        try:
            for name in path.split(b"/")[1:]:
                if not name:
                    continue
                inner += b"/" + name
                descent = self._inside(fd, inner, place)
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
            if error.errno in GONE_ERRORS:
                return None
            raise
        return fd, place

    def _inside(self, fd: int, path: bytes, place: Place) -> Descent | None:
        """Return how to go into a path, which is in ``fd``; None where it is no directory.

        Raises:
            OSError: it is not to be asked.
        """
        if path in self.avoids:
            raise OSError(errno.EIO, UNANSWERED)
        name = split(path)[1]
        return descent_into(fd, name, place.child(name)[1], None)

    def _below(
        self, fd: int, path: bytes, descents: Iterator[Descent]
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
                inner = self._whereabouts.path = join(top.path, descent.name)
                if inner in self.avoids:
                    error = OSError(errno.EIO, UNANSWERED)
                    yield self._reader.unopened(inner, descent.place, error)
                    continue
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
                    yield self._reader.unopened(inner, descent.place, error)
                    continue
                deeper: list[Descent] = []
                stack.append(_Open(inner_fd, inner, iter(deeper)))
                # An iterator of a list gives what is put into it before it is asked.
                yield self._reader.read(inner_fd, inner, descent.place, deeper)
        finally:
            for opened in stack[1:]:
                os.close(opened.fd)
