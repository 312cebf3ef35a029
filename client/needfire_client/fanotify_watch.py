"""Which paths changed just now, and who did it: fanotify, one mark for each file system.

The kernel tells of every change in the marked file systems, whoever makes it and through whatever
mount, as (directory, name, process). A directory comes as a file handle, which is opened once
and then known, so an event costs a look into a dictionary; whether a rule covers it is decided
there. Nothing is set up for each directory, so nothing can be missing for one.

The path of a directory is read through /proc/self/fd and believed only where it leads to that
very directory (device and inode): what is hidden under another mount, or is not in our view, is not
what the rules speak of. Whenever a directory is moved all paths are forgotten.

The events of this process are left out, but for its canaries: hashing opens files for reading only,
which is not asked for, and the spool may lie in a watched tree.

The kernel's queue is emptied whenever a part of what was read has been taken, into a backlog that
is bounded in bytes; events on the same entry by the same process become one before anything else
is done with them. The kernel does that too while they wait, whatever a process executes in between:
then the program that did the first of them is told. A queue without a bound (FAN_UNLIMITED_QUEUE)
would give whoever writes fast the host's memory while this process does not run; as it is, what is
too much for the backlog stays in the queue, and what is too much for the queue is announced by the
kernel's own overflow event.
"""

import errno
import os
import re
import select
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from needfire_client import fanotify_calls as calls
from needfire_client.fanotify_events import ENTRY, DirectoryEntry, RawEvent, merged, split
from needfire_client.fanotify_events import entries as entries_of
from needfire_client.mounts import (
    VIRTUAL_KINDS,
    Mount,
    concerned,
    is_below,
    is_network,
    read_mounts,
)
from needfire_client.paths import join
from needfire_client.policy import Decision, Place, Ruleset
from needfire_client.probing import held, open_audibly, probe_roots
from needfire_client.processes import Processes, Writer
from needfire_client.watcher import Listener, WatchHealth, now_us
from needfire_protocol.errors import FormatError
from needfire_protocol.rc.agent import AgentSettings
from needfire_protocol.rc.policies import Check

__all__ = ["FanotifyWatcher"]

_ENTRY_EVENTS: Final = (
    calls.MODIFY
    | calls.ATTRIB
    | calls.CLOSE_WRITE
    | calls.CREATE
    | calls.DELETE
    | calls.ONDIR
    | calls.OPEN_EXEC
)
_RENAMES: Final = (calls.RENAME, calls.MOVED_FROM | calls.MOVED_TO)
"""Old and new name in one event since Linux 5.17, in two before."""

_STRUCTURAL: Final = calls.CREATE | calls.DELETE | calls.RENAME | calls.MOVED_FROM | calls.MOVED_TO
_MOVES: Final = calls.RENAME | calls.MOVED_FROM | calls.MOVED_TO
_CONTENT: Final = calls.MODIFY | calls.CLOSE_WRITE
_IGNORABLE: Final = calls.ONDIR | calls.OPEN_EXEC
_APART: Final = calls.OVERFLOW | calls.OPEN_EXEC | _MOVES
"""What these say holds from there on: they are never merged with what came before."""
_CONTENT_CHECKS: Final = Check.CHK | Check.SIZ | Check.MTM | Check.CTM | Check.ATM
"""A policy without any of these does not care about writing (LogFiles, Attributes)."""

_BUFFER_BYTES: Final = 256 * 1024
_BACKLOG_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of events that were read and not taken: some 120,000, besides the kernel's 16,384."""
_BATCH_BYTES: Final = 1_024
"""A read of more than this, some dozen events, is a burst: then it is cheaper to let more come
first. Single ones are read at once, while their process can still be asked about."""
_BATCH_WAIT_S: Final = 0.003
_STORM_BYTES: Final = 8_192
"""Some hundred events in the time that a batch waits: whoever does that is still there later."""
_STORM_WAIT_S: Final = 0.015
_IDLE_S: Final = 0.5
"""Seconds; half of what Processes may be left alone."""

_PROBED: Final = calls.OPEN | calls.ONDIR
_LISTED: Final = re.compile(r"^fanotify sdev:([0-9a-f]+)", re.MULTILINE)

_DIRECTORIES_MAX: Final = 65_536
_GONE: Final = frozenset({errno.ESTALE, errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_TRIES_MAX: Final = 5
"""For a directory that is removed at this moment Linux says in one of 200 cases that there is no memory,
and at the next try that it is gone. A real want of memory lasts longer."""


class _Seen(NamedTuple):
    """A directory as the rules see it."""

    path: bytes
    decision: Decision | None
    place: Place
    all_matter: tuple[Decision | None, bool] | None
    """Where the same decision holds for every name in it: the decision, and whether writing
    matters to it. None where rules name something inside."""


class _Directory(NamedTuple):
    path: bytes | None
    """None where it has no path in our view."""
    seen: tuple[_Seen, ...]
    """Empty where no rule leads here; several where a rule's path goes through a link."""
    is_canarys: bool
    is_too_deep: bool = False
    """Its own path is longer than the kernel tells; this is that of a directory around it."""


_NOWHERE: Final = _Directory(None, (), False)


class _Batch:
    """What a read of events comes to: each path once, and each of its writers once."""

    __slots__ = ("dirty", "notes")

    def __init__(self) -> None:
        self.dirty: dict[bytes, bool] = {}
        """Paths; each with whether everything below it is meant as well."""
        self.notes: dict[tuple[int, bool], tuple[Writer | None, dict[bytes, None]]] = {}
        """Writer and paths, by identity of the writer and whether a directory was moved."""

    def noted(self, writer: Writer | None, *, below: bool = False) -> dict[bytes, None]:
        """Return the paths of a writer, to add to."""
        found = self.notes.get((id(writer), below))
        if found is None:
            found = self.notes[id(writer), below] = (writer, {})
        return found[1]

    def add(self, path: bytes, *, below: bool) -> None:
        """Add a path that may have changed."""
        self.dirty[path] = below or self.dirty.get(path, False)

    def tell(self, listener: Listener) -> None:
        for (_, below), (writer, paths) in self.notes.items():
            for path in paths:
                listener.wrote(path, writer, below=below)
        for path, below in self.dirty.items():
            listener.changed(path, below=below)


class FanotifyWatcher:
    """Watches with fanotify.

    Args:
        canary: a file of the agent's own whose changes are told as such.
    """

    def __init__(
        self, settings: AgentSettings, listener: Listener, canary: bytes | None = None
    ) -> None:
        self._settings = settings
        self._ruleset = Ruleset(settings)
        self._listener = listener
        self._canary_directory, _, self._canary_name = (canary or b"").rpartition(b"/")
        self._health = WatchHealth("fanotify")
        self._own_pid = os.getpid()
        self._group = -1
        self._wake = -1
        self._root = -1
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._buffer = bytearray(_BUFFER_BYTES)
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._processes: Processes
        self._is_stale = threading.Event()
        # Replaced as a whole, so that the reader needs no lock to look at them.
        self._anchors: dict[bytes, tuple[Mount, ...]] = {}
        self._heard: frozenset[int] = frozenset()
        self._unresolved: str | None = None
        """Why a directory of an event of this batch could not be found, though it may be there."""
        self._aliases: tuple[tuple[bytes, bytes], ...] = ()
        self._marked: dict[bytes, bytes] = {}
        self._directories: dict[bytes, _Directory] = {}
        self.unwatched: dict[bytes, str] = {}
        """Mount points that a rule concerns and fanotify does not reach, with the reason."""

    @property
    def health(self) -> WatchHealth:
        """Counters."""
        return self._health

    def start(self) -> None:
        """Watch every file system that a rule concerns.

        Raises:
            OSError: the kernel or the rights do not allow it, or no file system could be marked.
        """
        self._group = calls.open_group()
        try:
            self._root = os.open(b"/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except BaseException:
            self._close()
            raise
        self.reconcile()
        if not self._health.watched:
            self._close()
            reason = next(iter(self.unwatched.values()), "nothing to watch")
            raise OSError(errno.ENODEV, reason)
        try:
            self._prove()
        except (OSError, FormatError) as error:
            self._close()
            code = error.errno if isinstance(error, OSError) else errno.EPROTO
            text = str(error.strerror if isinstance(error, OSError) else error)
            raise OSError(code, f"an event cannot be read: {text}") from error
        self._processes = Processes(is_heard=lambda device: device in self._heard)
        self._thread = threading.Thread(target=self._run, name="fanotify", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop; afterwards nothing is told any more."""
        self._is_stopping = True
        if self._thread is not None:
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            self._thread = None
            self._processes.close()
        self._close()

    def reconcile(self) -> None:
        """Mark what was mounted since the last time, and resolve all paths anew."""
        mounts = read_mounts()
        self._aliases = tuple(_aliases(self._settings))
        wanted = {mount.point for mount in concerned(mounts, self._ruleset)}
        holders = [self._canary_directory, *(real for real, _ in self._aliases)]
        wanted.update(_holder(mounts, path) for path in holders if path)
        anchors: dict[bytes, list[Mount]] = {}
        unwatched: dict[bytes, str] = {}
        marked: dict[bytes, bytes] = {}
        # Of several on one point only the last is to be seen.
        for mount in {mount.point: mount for mount in mounts}.values():
            if mount.kind in VIRTUAL_KINDS:
                continue
            is_wanted = mount.point in wanted
            reason = self._mark(mount, is_wanted=is_wanted, anchors=anchors)
            if reason is not None and is_wanted:
                unwatched[mount.point] = reason
            elif is_wanted:
                marked[mount.device] = mount.point
        self._anchors = {fsid: tuple(found) for fsid, found in anchors.items()}
        self._heard = frozenset(
            _devices(each.point for found in anchors.values() for each in found)
        )
        # One that is hidden by another further up is not what was marked through its path.
        listed = self._listed_devices()
        self._marked = {device: point for device, point in marked.items() if device in listed}
        self._health.watched = len(marked)
        self.unwatched = unwatched
        self._is_stale.set()

    def probe(self) -> frozenset[bytes]:
        """Open the roots of the rules, so that the watcher hears of it; return which.

        Nothing is changed by it. The mark that asks for it is of one directory, and only for the
        moment, for all openings in a file system would be far too many. So that of the file
        system is looked for in the kernel's own list: a point whose mark has gone is returned
        too, and nothing will be heard of it.
        """
        probed = set(self._lacking_points())
        for root in probe_roots(self._ruleset):
            try:
                with held(root) as same:
                    calls.mark_directory(self._group, _PROBED, same)
                    try:
                        open_audibly(same)
                    finally:
                        calls.unmark_directory(self._group, _PROBED, same)
            except OSError:
                # Gone in this moment, or not for us: a full check says so.
                continue
            probed.add(root)
        return frozenset(probed)

    def _lacking_points(self) -> list[bytes]:
        """Return the mount points whose file systems the kernel does not list any more."""
        listed = self._listed_devices()
        return [point for device, point in self._marked.items() if device not in listed]

    def _listed_devices(self) -> set[bytes]:
        """Return the file systems that are marked, as the kernel has it (proc_pid_fdinfo(5))."""
        data = Path(f"/proc/self/fdinfo/{self._group}").read_text("ascii")
        numbers = [int(number, 16) for number in _LISTED.findall(data)]
        return {b"%d:%d" % (number >> 20, number & 0xFFFFF) for number in numbers}

    def _prove(self) -> None:
        """Let an event happen, and find out of which directory it is.

        Raises:
            OSError: without CAP_DAC_READ_SEARCH file systems can be marked, and no event be told.
        """
        for point in self._marked.values():
            with held(point) as same:
                calls.mark_directory(self._group, _PROBED, same)
                open_audibly(same)
                calls.unmark_directory(self._group, _PROBED, same)
        self._fill()
        for event in (event for data in self._backlog for event in split(data)):
            if event.pid == self._own_pid and event.mask & calls.OPEN:
                for entry in entries_of(event):
                    for anchor in self._anchors.get(entry.directory[:8], ()):
                        self._open(anchor, entry.directory[8:])

    def _mark(
        self, mount: Mount, *, is_wanted: bool, anchors: dict[bytes, list[Mount]]
    ) -> str | None:
        """Mark the file system of a mount; return why that is not possible."""
        if is_network(mount):
            return f"{mount.kind}: others may write there"
        if not is_wanted:
            # Only which programs are executed from there.
            with suppress(OSError):
                calls.mark_file_system(self._group, calls.OPEN_EXEC, mount.point)
                anchors.setdefault(_fsid(mount.point), []).append(mount)
            return None
        try:
            self._mark_whole(mount.point)
            anchors.setdefault(_fsid(mount.point), []).append(mount)
        except OSError as error:
            return f"{mount.kind}: {error.strerror or error}"
        return None

    def _mark_whole(self, point: bytes) -> None:
        try:
            calls.mark_file_system(self._group, _ENTRY_EVENTS | _RENAMES[0], point)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            calls.mark_file_system(self._group, _ENTRY_EVENTS | _RENAMES[1], point)

    def _close(self) -> None:
        for descriptor in (self._group, self._root, self._wake):
            if descriptor >= 0:
                os.close(descriptor)
        self._group = self._root = self._wake = -1

    # ---- reading ---------------------------------------------------------------------------------

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._group, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        try:
            while not self._is_stopping:
                poll.poll(_IDLE_S * 1000)
                began_us = now_us()
                size = self._fill()
                while self._backlog and not self._is_stopping:
                    self._take(self._backlog.popleft())
                    self._processes.sweep()
                    began_us = now_us()
                    # The kernel's queue is short: it comes before what was read already.
                    size = max(size, self._fill())
                self._processes.sweep()
                if not self._is_stopping:
                    self._health.heard_us = began_us
                self._rest(size)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be told
            self._lost(f"the reader failed: {type(error).__name__}: {error}")

    def _rest(self, size: int) -> None:
        if size > _BUFFER_BYTES:
            # The kernel's queue fills faster than this thread comes round.
            return
        if size > _STORM_BYTES:
            time.sleep(_STORM_WAIT_S)
        elif size > _BATCH_BYTES:
            time.sleep(_BATCH_WAIT_S)

    def _fill(self) -> int:
        """Read what the kernel has, as far as the backlog takes it; return how many bytes."""
        total = 0
        while self._backlog_bytes + _BUFFER_BYTES <= _BACKLOG_BYTES_MAX and (data := self._read()):
            self._backlog.append(data)
            self._backlog_bytes += len(data)
            total += len(data)
        return total

    def _read(self) -> bytes:
        try:
            size = os.readv(self._group, [self._buffer])
        except BlockingIOError:
            return b""
        return bytes(memoryview(self._buffer)[:size])

    def _take(self, data: bytes) -> None:
        """Take a batch of events."""
        self._backlog_bytes -= len(data)
        if self._is_stale.is_set():
            self._is_stale.clear()
            self._directories.clear()
        batch = _Batch()
        events, number = merged(data, _APART)
        self._health.events += number
        for event in events:
            if event.mask & calls.OVERFLOW:
                self._lost("the queue of events overflowed")
                self._directories.clear()
                continue
            self._take_one(event, batch)
        batch.tell(self._listener)
        if self._unresolved is not None:
            self._lost(f"a directory could not be found again: {self._unresolved}")
            self._unresolved = None

    def _take_one(self, event: RawEvent, batch: _Batch) -> None:
        mask, pid = event.mask, event.pid
        for entry in entries_of(event):
            directory = self._directories.get(entry.directory)
            if directory is None:
                directory = self._learn(entry.directory)
            if pid == self._own_pid:
                self._take_own(directory, entry, mask)
                continue
            if mask & calls.OPEN_EXEC:
                if directory.path is None or directory.is_too_deep:
                    self._processes.executed_unseen(pid)
                else:
                    self._processes.executed(pid, join(directory.path, entry.name))
            if directory.seen and mask & ~_IGNORABLE:
                writer = self._processes.writer(pid)
                notes = batch.noted(writer)
                is_move = bool(mask & calls.ONDIR and mask & _MOVES)
                for seen in directory.seen:
                    if directory.is_too_deep:
                        notes[seen.path] = None
                        batch.add(seen.path, below=True)
                        continue
                    path = _judge(seen, entry, mask, notes)
                    if path is not None:
                        # What was done in it while it was elsewhere was no concern of any rule.
                        batch.add(path, below=is_move)
                        if is_move:
                            batch.noted(writer, below=True)[path] = None
        if mask & calls.ONDIR and mask & _MOVES:
            # Everything below has another path now.
            self._directories.clear()

    def _take_own(self, directory: _Directory, entry: DirectoryEntry, mask: int) -> None:
        if directory.is_canarys and entry.name == self._canary_name:
            self._listener.canary_came(join(self._canary_directory, self._canary_name))
        elif mask & calls.OPEN:
            for seen in directory.seen:
                self._listener.canary_came(seen.path)

    def _lost(self, reason: str) -> None:
        self._health.losses += 1
        self._listener.lost(reason, b"/", self._health.heard_us)

    # ---- directories -----------------------------------------------------------------------------

    def _learn(self, key: bytes) -> _Directory:
        """Find out which directory a handle means, and remember it."""
        paths, is_too_deep = self._resolve(key)
        # Gone, or out of view. That it went is an event in the directory that it was in.
        directory = self._directory(paths)._replace(is_too_deep=is_too_deep) if paths else _NOWHERE
        if not paths and self._unresolved is not None:
            # What fails for want of descriptors or memory must not be taken for gone for good.
            return directory
        while len(self._directories) >= _DIRECTORIES_MAX:
            self._directories.pop(next(iter(self._directories)))
        self._directories[key] = directory
        return directory

    def _directory(self, paths: list[bytes]) -> _Directory:
        path = paths[0]
        aliases = [
            _moved(path, real, alias) for real, alias in self._aliases if is_below(path, real)
        ]
        seen = []
        for each in (*paths, *aliases):
            decision, place = self._ruleset.locate(each)
            if decision is not None or place.is_open:
                seen.append(_seen(each, decision, place))
        return _Directory(path, tuple(seen), path == self._canary_directory)

    def _resolve(self, key: bytes) -> tuple[list[bytes], bool]:
        """Return the paths at which the directory of a handle stands in our view.

        And whether they are those of a directory around it, because its own are too long.
        """
        for anchor in self._anchors.get(key[:8], ()):
            try:
                told, inode, is_too_deep = self._open(anchor, key[8:])
            except OSError as error:
                if error.errno in _GONE:
                    return [], False
                if error.errno in _PASSING:
                    self._unresolved = error.strerror or str(error)
                    return [], False
                continue
            paths = [path for path in self._paths(anchor, told, key[:8]) if _leads(path, inode)]
            if paths:
                return paths, is_too_deep
        return [], False

    def _open(self, anchor: Mount, handle: bytes) -> tuple[bytes, tuple[int, int], bool]:
        # Only the root is kept open: an open mount point could not be unmounted.
        mount = self._root
        if anchor.point != b"/":
            mount = os.open(anchor.point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = _open_handle(mount, handle)
        finally:
            if mount != self._root:
                os.close(mount)
        return _told(found)

    def _paths(self, anchor: Mount, told: bytes, fsid: bytes) -> list[bytes]:
        """Return the paths under which a directory may be seen, the likeliest first."""
        inner = told
        if is_below(told, anchor.point):
            inner = _moved(told, anchor.point, anchor.root)
        return [
            told,
            *(
                _moved(inner, mount.root, mount.point)
                for mount in self._anchors.get(fsid, ())
                if mount is not anchor and is_below(inner, mount.root)
            ),
        ]


def _open_handle(mount: int, handle: bytes) -> int:
    for _ in range(_TRIES_MAX - 1):
        try:
            return calls.open_handle(mount, handle)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
    return calls.open_handle(mount, handle)


def _told(directory: int) -> tuple[bytes, tuple[int, int], bool]:
    """Return path, device and inode of a directory, whose descriptor is closed.

    The kernel tells no path of more than 4,095 bytes, and any user can make a longer one: then it
    is that of the nearest directory around it, and the last value is True.
    """
    is_too_deep = False
    try:
        while True:
            try:
                path = os.readlink(b"/proc/self/fd/%d" % directory)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                is_too_deep = True
                inner = directory
                directory = os.open(b"..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=inner)
                os.close(inner)
            else:
                info = os.fstat(directory)
                return path, (info.st_dev, info.st_ino), is_too_deep
    finally:
        os.close(directory)


def _leads(path: bytes, inode: tuple[int, int]) -> bool:
    try:
        info = os.lstat(path)
    except OSError:
        return False
    return (info.st_dev, info.st_ino) == inode


def _moved(path: bytes, old: bytes, new: bytes) -> bytes:
    """Return the path with the directory ``old``, which it is below, replaced."""
    rest = path[len(old) :] if old != b"/" else path
    rest = rest.strip(b"/")
    if not rest:
        return new
    return join(new, rest)


def _judge(seen: _Seen, entry: DirectoryEntry, mask: int, notes: dict[bytes, None]) -> bytes | None:
    """Note what the writer of an event did; return the path that is to be looked at."""
    kind, _, name = entry
    is_its_own = seen.decision is not None and (mask & _STRUCTURAL or name == b"." or kind != ENTRY)
    if is_its_own:
        # A look at an entry is one at its directory too: who moved its times.
        notes[seen.path] = None
    if name != b"." and _matters(seen, name, mask):
        path = join(seen.path, name)
        notes[path] = None
        return path
    return seen.path if is_its_own else None


def _matters(seen: _Seen, name: bytes, mask: int) -> bool:
    if seen.all_matter is not None:
        decision, is_written = seen.all_matter
    else:
        decision, place = seen.place.child(name)
        if decision is None:
            return place.is_open
        is_written = _cares_for_contents(decision)
    return decision is not None and (is_written or bool(mask & ~(_CONTENT | _IGNORABLE)))


def _cares_for_contents(decision: Decision) -> bool:
    return bool(decision.mask & _CONTENT_CHECKS)


def _seen(path: bytes, decision: Decision | None, place: Place) -> _Seen:
    contents = place.contents
    all_matter = None
    if place.is_uniform:
        all_matter = contents, contents is not None and _cares_for_contents(contents)
    return _Seen(path, decision, place, all_matter)


def _devices(points: Iterable[bytes]) -> Iterator[int]:
    for point in points:
        with suppress(OSError):
            yield os.stat(point).st_dev


def _fsid(path: bytes) -> bytes:
    number = os.statvfs(path).f_fsid
    return struct.pack("=II", number & 0xFFFF_FFFF, number >> 32 & 0xFFFF_FFFF)


def _holder(mounts: tuple[Mount, ...], path: bytes) -> bytes:
    """Return the mount point that a path is in."""
    return max(
        (mount.point for mount in mounts if is_below(path, mount.point)), key=len, default=b"/"
    )


def _aliases(settings: AgentSettings) -> dict[tuple[bytes, bytes], None]:
    """Return (real directory, path that a rule has for it) where a rule goes through a link."""
    found: dict[tuple[bytes, bytes], None] = {}
    for rule in settings.rules:
        path = b""
        for component in rule.path.split(b"/")[1:]:
            path += b"/" + component
            if rule.is_glob and any(byte in component for byte in b"*?["):
                break
            if os.path.islink(path):
                real = os.path.realpath(path)
                if os.path.isdir(real):
                    found[(real, path)] = None
    return found
