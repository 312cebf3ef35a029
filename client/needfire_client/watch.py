"""Which paths changed just now: inotify, through watchdog's reader, with every loss reported.

The watcher only names paths that may have changed, and says when it may have missed some. It is
the fast way; the regular full check is the truth, and this module never claims otherwise.

Theory of operation. watchdog's ``InotifyFD`` owns the descriptor and reads and parses events in a
thread of its own. Its observers above that are not used: they put events into a queue without a
bound, tell nobody of an overflow or of a directory that could not be watched, and answer an
overflow by removing and adding all watches, which on large trees overflows the queue again, for
ever. Instead this module keeps a tree of the watched directories beside the rules' tree of
``Place``: a directory is watched if something in it is or may be covered, one that is only on the
way to a named object included. Events become paths through that tree, so a directory that is moved
away takes its watches with it. A watch is removed only then; recovery from an overflow just adds.

The canary's directory is watched beside the rules' tree, and its events never become paths. A root
is probed by asking for IN_OPEN for the moment in which it is opened: for good, that would tell of
every file in it that anybody reads.

What inotify cannot see (writes through another hard link, through a mapping before it is synced,
from other hosts of a network file system; a mount over a directory) is left to the full check.
"""

import ctypes
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from watchdog.observers.inotify_c import (
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
    inotify_add_watch,
    inotify_rm_watch,
)

from needfire_client.attributes import open_directory
from needfire_client.paths import join
from needfire_client.policy import Decision, Place, Ruleset
from needfire_client.probing import held, open_audibly, probe_roots
from needfire_client.watcher import Listener, WatchHealth, now_us
from needfire_protocol.rc.agent import AgentSettings
from needfire_protocol.rc.policies import Check

__all__ = ["InotifyWatcher", "OnDirty", "OnLoss", "Watcher"]

OnDirty = Callable[[bytes, bool], None]
"""Called with a path that may have changed, and whether everything below it may have. In the
watcher's thread: note it, and return."""

OnLoss = Callable[[str, bytes], None]
"""Called with a reason (a text for people) and the directory that it concerns (raw bytes)."""

_MASK: Final = Mask(
    InotifyConstants.IN_MODIFY
    | InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_MOVED_FROM
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_CREATE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_EXCL_UNLINK
)
"""Neither IN_OPEN, IN_ACCESS nor IN_CLOSE_NOWRITE: our own hashing must not cause events."""

_CONTENT_EVENTS: Final = InotifyConstants.IN_MODIFY | InotifyConstants.IN_CLOSE_WRITE
_CONTENT_CHECKS: Final = Check.CHK | Check.SIZ | Check.MTM | Check.CTM | Check.ATM
"""A policy without any of these does not care about writing (LogFiles, Attributes)."""

_DIRECTORY_CHECKS: Final = Check.SIZ | Check.MTM | Check.CTM | Check.HLN
"""What moves in a directory when something in it comes or goes."""

_STRUCTURAL_EVENTS: Final = (
    InotifyConstants.IN_CREATE | InotifyConstants.IN_DELETE | InotifyConstants.IN_MOVE
)

_GONE_ERRORS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})

_TOLD_MAX: Final = 1_024
"""Losses that are remembered so as not to be told twice; beyond that they are told again."""

_LIMIT: Final = "limit of watches reached (fs.inotify.max_user_watches)"


class _Watched:
    """A directory that is watched, or on the way to one that is."""

    __slots__ = ("children", "decision", "name", "parent", "place", "wd")

    def __init__(
        self,
        parent: "_Watched | None",
        name: bytes,
        decision: Decision | None,
        place: Place,
    ) -> None:
        self.parent = parent
        self.name = name
        self.decision = decision
        self.place = place
        self.wd = WatchDescriptor(-1)
        """-1 before it is watched, and after it was given up."""
        self.children: dict[bytes, _Watched] = {}

    @property
    def path(self) -> bytes:
        names = []
        at: _Watched | None = self
        while at is not None and at.parent is not None:
            names.append(at.name)
            at = at.parent
        return b"/" + b"/".join(reversed(names))


class _Reader(InotifyFD):
    """watchdog's reader, handing each batch of events to one sink. Private names: pinned 7.1."""

    def __init__(
        self, sink: Callable[[list[InotifyEvent]], None], on_failed: Callable[[str], None]
    ) -> None:
        super().__init__()
        self._sink = sink
        self._on_failed = on_failed

    def run(self) -> None:
        """Read until stopped. A thread that dies without a word would be the worst loss."""
        try:
            while self.should_keep_running():
                self._sink(self.read_events())
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be told
            self._on_failed(f"the reader failed: {type(error).__name__}: {error}")

    def arm(self, path: bytes, *, follow: bool) -> WatchDescriptor:
        """Watch a directory; one that is watched already gives its old descriptor.

        Raises:
            OSError: it cannot be watched.
        """
        mask = _MASK if follow else Mask(_MASK | InotifyConstants.IN_DONT_FOLLOW)
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "the watcher was stopped")
            watch = self._get_or_create_watch(path, mask)
            if watch.wd < 0:
                # watchdog keeps silent about EACCES and notes down a watch that is none.
                self._watch_for_wd.pop(watch.wd, None)
                code = ctypes.get_errno() or errno.EACCES
                raise OSError(code, os.strerror(code))
            return watch.wd

    def probe(self, path: bytes) -> None:
        """Open a directory so that its watch tells of it, if it has one.

        Args:
            path: leads to it through a descriptor that is held.

        Raises:
            OSError: it is gone, or not for us.
        """
        with self._lock:
            if self._closed:
                return
            mask = Mask(_MASK | InotifyConstants.IN_OPEN)
            wd = inotify_add_watch(self._inotify_fd, path, mask)
            try:
                open_audibly(path)
            finally:
                if wd in self._watch_for_wd:
                    inotify_add_watch(self._inotify_fd, path, _MASK)
                elif wd >= 0:
                    inotify_rm_watch(self._inotify_fd, wd)

    def disarm(self, wd: WatchDescriptor) -> None:
        """Stop watching a directory; one that the kernel has dropped meanwhile is no error."""
        with self._lock:
            if not self._closed and self._watch_for_wd.pop(wd, None) is not None:
                inotify_rm_watch(self._inotify_fd, wd)

    def forget(self, wd: WatchDescriptor) -> None:
        """Note that the kernel has dropped a watch."""
        with self._lock:
            self._watch_for_wd.pop(wd, None)


class Watcher:
    """Watches what the rules of the settings cover.

    Args:
        on_dirty: gets each path that may have changed, and whether all below it may have; several
            events of one batch come as one.
        on_loss: gets each loss: an overflow, a directory that cannot be watched, a file system
            that was unmounted, a reader that died. A loss that lasts is told once until it heals.
    """

    def __init__(
        self,
        settings: AgentSettings,
        on_dirty: OnDirty,
        on_loss: OnLoss,
        *,
        canary: bytes | None = None,
        on_canary: Callable[[bytes], None] | None = None,
    ) -> None:
        self.health = WatchHealth("inotify")
        self._canary = canary
        self._canary_wd = WatchDescriptor(-1)
        self._on_canary = on_canary
        self._ruleset = Ruleset(settings)
        self._root_rules = self._ruleset.root()
        self._on_dirty = on_dirty
        self._on_loss = on_loss
        self._reader: _Reader | None = None
        # Guards the tree: events change it in the reader's thread, reconcile in the caller's.
        self._lock = threading.RLock()
        self._root: _Watched | None = None
        self._by_wd: dict[int, list[_Watched]] = {}
        self._told: set[tuple[str, bytes]] = set()

    @property
    def watched_count(self) -> int:
        """How many directories are watched now."""
        return len(self._by_wd)

    def start(self) -> None:
        """Watch everything that should be; takes about a second for 30,000 directories.

        Where the system gives no inotify at all, that is told as a loss of everything.
        """
        try:
            self._reader = _Reader(self._handle, self._reader_failed)
        except OSError as error:
            self._on_loss(f"no real-time watching: {error.strerror}", b"/")
            return
        # Armed before the first event is read: the kernel keeps what comes meanwhile.
        self._arm_canary()
        self.reconcile()
        self._reader.start()

    def stop(self) -> None:
        """Stop; afterwards no callback comes any more."""
        if self._reader is not None:
            self._reader.stop()
            if self._reader.is_alive():
                self._reader.join()
            self._reader = None
        with self._lock:
            self._root = None
            self._by_wd.clear()

    def reconcile(self) -> None:
        """Watch what should be watched and is not: worth a call after each full check."""
        decision, place = self._root_rules
        if _is_watched(decision, place):
            self._arm(_Watched(None, b"/", decision, place), is_whole=True)
        self.health.watched = self.watched_count

    def probe(self) -> frozenset[bytes]:
        """Open the roots of the rules, so that the watcher hears of it; return which."""
        probed = set()
        for root in probe_roots(self._ruleset):
            if self._reader is None:
                break
            with suppress(OSError), held(root) as same:
                self._reader.probe(same)
                probed.add(root)
        return frozenset(probed)

    def _arm_canary(self) -> None:
        if self._canary is None or self._reader is None:
            return
        directory = self._canary.rpartition(b"/")[0] or b"/"
        try:
            self._canary_wd = self._reader.arm(directory, follow=True)
        except OSError as error:
            self._on_loss(f"the canary is not watched: {error.strerror}", directory)

    # ---- arming ----------------------------------------------------------------------------------

    def _arm(self, first: _Watched, *, is_whole: bool = False) -> None:
        """Watch a directory and everything below it that is to be watched."""
        losses: dict[tuple[str, bytes], int] = {}
        pending = [first]
        while pending:
            # The lock is taken anew for each directory, so that events are read meanwhile.
            with self._lock:
                node = self._arm_one(pending.pop(), losses)
            if node is not None:
                pending.extend(self._inner(node, losses))
        self._tell(losses, is_whole=is_whole)

    def _arm_one(self, node: _Watched, losses: dict[tuple[str, bytes], int]) -> _Watched | None:
        """Watch one directory; return what stands for it in the tree, None if it is none."""
        reader, parent = self._reader, node.parent
        if reader is None or (parent is not None and parent.wd < 0):
            return None
        path, follow = node.path, False
        try:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                # A link on the way to a named object is followed, as the walk does.
                node.place, follow = node.place.only_named(), True
                if not node.place.is_open:
                    return None
            node.wd = reader.arm(path, follow=follow)
        except OSError as error:
            self._note(losses, error, path)
            return None
        return self._put(node)

    def _put(self, node: _Watched) -> _Watched:
        """Put a directory into the tree; return what stands there, which may be there already."""
        parent, name, wd = node.parent, node.name, node.wd
        old = self._root if parent is None else parent.children.get(name)
        if old is not None and old.wd == wd:
            return old
        if old is not None:
            # Another directory under the same name. The kernel drops the watch of one that was
            # deleted; of one that was moved away while events were lost, we have to.
            self._give_up(old)
        if parent is None:
            self._root = node
        else:
            parent.children[name] = node
        self._by_wd.setdefault(wd, []).append(node)
        return node

    def _inner(self, node: _Watched, losses: dict[tuple[str, bytes], int]) -> Iterator[_Watched]:
        """Yield each object inside that may be a directory to watch."""
        place = node.place
        if not place.is_open or (place.is_uniform and not _is_watched(place.contents, place.below)):
            return
        names = self._list(node, losses) if place.needs_listing else place.named()
        for name in names:
            decision, below = place.child(name)
            if _is_watched(decision, below):
                yield _Watched(node, name, decision, below)

    def _list(self, node: _Watched, losses: dict[tuple[str, bytes], int]) -> set[bytes]:
        path = node.path
        try:
            fd = open_directory(path, None, follow=node.place.contents is None)
        except OSError as error:
            self._note(losses, error, path)
            return set()
        try:
            with os.scandir(fd) as found:
                named = node.place.named()
                return {
                    name
                    for entry in found
                    if (name := os.fsencode(entry.name)) in named
                    or entry.is_dir(follow_symlinks=False)
                    or (not node.place.is_uniform and entry.is_symlink())
                }
        except OSError as error:
            self._note(losses, error, path)
            return set()
        finally:
            os.close(fd)

    def _give_up(self, node: _Watched) -> None:
        """Remove the watches of a directory and of all below it."""
        pending = [node]
        while pending:
            at = pending.pop()
            pending.extend(at.children.values())
            others = self._by_wd.get(at.wd)
            if others is not None:
                with suppress(ValueError):
                    others.remove(at)
                if not others:
                    del self._by_wd[at.wd]
                    if self._reader is not None:
                        self._reader.disarm(at.wd)
            at.wd = WatchDescriptor(-1)
        if node.parent is not None and node.parent.children.get(node.name) is node:
            del node.parent.children[node.name]

    # ---- losses ----------------------------------------------------------------------------------

    def _note(self, losses: dict[tuple[str, bytes], int], error: OSError, path: bytes) -> None:
        if error.errno in _GONE_ERRORS or self._reader is None:
            return
        # Every directory beyond the limit fails: that is one loss, not thousands.
        is_limit = error.errno == errno.ENOSPC
        key = (_LIMIT, b"") if is_limit else (error.strerror or f"error {error.errno}", path)
        losses[key] = losses.get(key, 0) + 1

    def _tell(self, losses: dict[tuple[str, bytes], int], *, is_whole: bool) -> None:
        if is_whole:
            # What did not fail in a pass over everything has healed.
            self._told.intersection_update(losses)
        for (reason, path), count in losses.items():
            if (reason, path) in self._told:
                continue
            if len(self._told) < _TOLD_MAX:
                self._told.add((reason, path))
            what = "a directory is" if count == 1 else f"{count} directories are"
            self._on_loss(f"{what} not watched: {reason}", path or b"/")

    def _reader_failed(self, reason: str) -> None:
        self._on_loss(reason, b"/")

    # ---- events ----------------------------------------------------------------------------------

    def _handle(self, events: list[InotifyEvent]) -> None:
        """Take a batch of events, in the reader's thread."""
        dirty: dict[bytes, bool] = {}
        for event in events:
            if self._reader is None or not self._reader.should_keep_running():
                return
            self.health.events += 1
            if event.is_queue_overflow:
                self.health.losses += 1
                self._on_loss("the queue of events overflowed", b"/")
                self.reconcile()
                continue
            if event.wd == self._canary_wd and self._is_canarys(event):
                continue
            with self._lock:
                nodes = tuple(self._by_wd.get(event.wd, ()))
            if event.mask & InotifyConstants.IN_OPEN:
                if not event.name:
                    for node in nodes:
                        self._came(node.path)
                continue
            for node in nodes:
                for path in self._changed(node, event):
                    # What was done in it while it was elsewhere, nobody heard.
                    came = event.is_directory and event.is_moved_to
                    dirty[path] = dirty.get(path, False) or came
        for path, below in dirty.items():
            self._on_dirty(path, below)
        self.health.heard_us = now_us()

    def _is_canarys(self, event: InotifyEvent) -> bool:
        if self._canary is None or event.name != self._canary.rpartition(b"/")[2]:
            return False
        self._came(self._canary)
        return True

    def _came(self, which: bytes) -> None:
        if self._on_canary is not None:
            self._on_canary(which)

    def _changed(self, node: _Watched, event: InotifyEvent) -> Iterator[bytes]:
        """Yield the paths that an event in one directory makes dirty; keep the tree up to date."""
        if event.is_ignored:
            self._dropped(node, event.wd)
        elif event.mask & InotifyConstants.IN_UNMOUNT:
            self._on_loss("the file system was unmounted", node.path)
        elif not event.name:
            # An event of the directory itself. Its parent is watched and tells the same, but for
            # the root, which has none, and for one that was reached through a link.
            if node.parent is None or event.is_delete_self:
                yield node.path
        else:
            decision, place = node.place.child(event.name)
            if event.is_directory or not place.is_uniform:
                self._follow(_Watched(node, event.name, decision, place), event)
            if _matters(decision, place, event):
                yield join(node.path, event.name)
            elif node.decision is not None and event.mask & _STRUCTURAL_EVENTS:
                yield node.path

    def _dropped(self, node: _Watched, wd: WatchDescriptor) -> None:
        with self._lock:
            if self._reader is not None:
                self._reader.forget(wd)
            self._by_wd.pop(wd, None)
            self._give_up(node)

    def _follow(self, node: _Watched, event: InotifyEvent) -> None:
        """Watch a directory that came, stop watching one that was moved away."""
        assert node.parent is not None
        if event.is_moved_from:
            with self._lock:
                child = node.parent.children.get(node.name)
                if child is not None:
                    self._give_up(child)
        elif (event.is_create or event.is_moved_to) and _is_watched(node.decision, node.place):
            self._arm(node)


class InotifyWatcher:
    """The watcher as one of several methods: tells a listener, and says so if it cannot start."""

    def __init__(
        self, settings: AgentSettings, listener: Listener, canary: bytes | None = None
    ) -> None:
        self._listener = listener
        self._at_start: list[tuple[str, bytes]] | None = []
        self._watcher = Watcher(
            settings,
            self._changed,
            self._lost,
            canary=canary,
            on_canary=listener.canary_came,
        )

    @property
    def health(self) -> WatchHealth:
        """Counters."""
        return self._watcher.health

    def start(self) -> None:
        """Watch.

        Raises:
            OSError: this system gives no inotify, or not a single watch.
        """
        self._watcher.start()
        losses, self._at_start = self._at_start or [], None
        if not self._watcher.watched_count:
            self._watcher.stop()
            reason = losses[0][0] if losses else "nothing to watch"
            raise OSError(errno.ENOSPC, reason)
        for reason, scope in losses:
            self._lost(reason, scope)

    def stop(self) -> None:
        """Stop; afterwards nothing is told any more."""
        self._watcher.stop()

    def reconcile(self) -> None:
        """Watch what should be watched and is not."""
        self._watcher.reconcile()

    def probe(self) -> frozenset[bytes]:
        """Open the roots of the rules, so that the watcher hears of it; return which."""
        return self._watcher.probe()

    def _changed(self, path: bytes, below: bool) -> None:
        # Inotify says nothing of processes.
        self._listener.wrote(path, None)
        self._listener.changed(path, below=below)

    def _lost(self, reason: str, scope: bytes) -> None:
        if self._at_start is not None:
            self._at_start.append((reason, scope))
            return
        self._listener.lost(reason, scope, self._watcher.health.heard_us)


def _is_watched(decision: Decision | None, place: Place) -> bool:
    """True where a directory is to be watched: for what is in it, or for its own times."""
    return place.is_open or (decision is not None and bool(decision.mask & _DIRECTORY_CHECKS))


def _matters(decision: Decision | None, place: Place, event: InotifyEvent) -> bool:
    if decision is None:
        return place.is_open
    is_content = not event.mask & ~_CONTENT_EVENTS
    return not is_content or bool(decision.mask & _CONTENT_CHECKS)
