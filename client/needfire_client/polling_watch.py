"""Which directories changed since the last look: for where no kernel tells.

Goes round what the rules cover and keeps eight bytes for each directory: a digest of the names and
of what lstat(2) says of them. A directory with another digest is told as changed; the look at it
finds what it was. Contents are never read here, so a change that leaves size, times and
inode as they were is left to the full check, as everything else that is missed.
"""

import hashlib
import os
import random
import stat
import threading
import time
from collections.abc import Iterator
from typing import Final

from needfire_client.mounts import is_below
from needfire_client.paths import join
from needfire_client.policy import Place, Ruleset
from needfire_client.watcher import Listener, WatchHealth, now_us
from needfire_protocol.rc.agent import AgentSettings

__all__ = ["POLL_S", "PollingWatcher"]

POLL_S: Final = 15.0
"""Seconds between two rounds, at least."""

_SHARE: Final = 20
"""A round is followed by a rest of so many times its length: five per cent of one processor."""

_DIRECTORIES_MAX: Final = 1_000_000
"""Directories whose digests are kept: about 150 MB; those beyond are not polled, and it is told."""


class PollingWatcher:
    """Watches by looking.

    Args:
        points: mount points that are polled; None: everything that the rules cover.
    """

    def __init__(
        self,
        settings: AgentSettings,
        listener: Listener,
        points: tuple[bytes, ...] | None = None,
        *,
        poll_s: float = POLL_S,
        directories_max: int = _DIRECTORIES_MAX,
    ) -> None:
        self._ruleset = Ruleset(settings)
        self._listener = listener
        self._points = points
        self._poll_s = poll_s
        self._directories_max = directories_max
        self._health = WatchHealth("polling")
        self._known: dict[bytes, bytes] | None = None
        self._is_told = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def health(self) -> WatchHealth:
        """Counters."""
        return self._health

    def start(self, *, waits: bool = True) -> None:
        """Look once, so that what changes from now on is seen, and go round from then on.

        Args:
            waits: return after the first look, which a dead network file system may hold up.
        """
        if waits:
            self.look()
        self._thread = threading.Thread(
            target=self._run, args=(waits,), name="polling", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop; afterwards nothing is told any more. A look that hangs is left behind."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(1.0)
            self._thread = None

    def probe(self) -> frozenset[bytes]:
        """Return nothing: there is nobody who might fall silent."""
        return frozenset()

    def reconcile(self) -> None:
        """Do nothing: each round looks at everything."""

    def _run(self, has_looked: bool) -> None:
        length_s = 0.0
        while not self._stop.is_set():
            if has_looked:
                rest_s = max(self._poll_s, _SHARE * length_s)
                if self._stop.wait(rest_s * random.uniform(0.95, 1.05)):  # noqa: S311
                    return
            has_looked = True
            began_us, began_s = now_us(), time.monotonic()
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - whatever it is, it must be told
                self._lost(f"polling failed: {type(error).__name__}: {error}")
                return
            self._health.heard_us = began_us
            length_s = time.monotonic() - began_s

    def look(self) -> None:
        """Go round once, and tell what differs from the round before."""
        known = self._known
        seen: dict[bytes, bytes] = {}
        for path, digest in self._directories():
            if self._stop.is_set():
                return
            if len(seen) >= self._directories_max:
                if not self._is_told:
                    self._is_told = True
                    self._lost(f"more than {self._directories_max} directories to poll")
                break
            seen[path] = digest
            if known is not None and known.get(path) != digest:
                self._tell(path)
        for path in (known or {}).keys() - seen.keys():
            self._tell(path)
        self._known = seen
        self._health.watched = len(seen)

    def _tell(self, path: bytes) -> None:
        if not self._stop.is_set():
            self._health.events += 1
            self._listener.wrote(path, None)
            self._listener.changed(path)

    def _lost(self, reason: str) -> None:
        self._health.losses += 1
        scope = b"/" if not self._points else os.path.commonpath(self._points)
        self._listener.lost(reason, scope, self._health.heard_us)

    def _directories(self) -> Iterator[tuple[bytes, bytes]]:
        points = self._points or (b"/",)
        for point in points:
            if any(is_below(point, other) for other in points if other != point):
                continue
            pending = [(point, self._ruleset.locate(point)[1])]
            while pending:
                path, place = pending.pop()
                if not place.is_open:
                    continue
                digest, inner = _look_at(path, place)
                yield path, digest
                pending.extend(inner)


def _look_at(path: bytes, place: Place) -> tuple[bytes, list[tuple[bytes, Place]]]:
    """Return the digest of a directory, and the directories in it; a link counts as itself."""
    digest = hashlib.blake2b(digest_size=8)
    inner = []
    for name in _names(path, place):
        decision, below = place.child(name)
        if decision is None and not below.is_open:
            continue
        full = join(path, name)
        try:
            info = os.lstat(full)
        except OSError:
            continue
        is_directory = stat.S_ISDIR(info.st_mode)
        if decision is not None:
            # The times of a directory that only names its contents move with those.
            digest.update(
                b"%d %b\0%d %d %d %d %d %d %d"
                % (
                    len(name),
                    name,
                    info.st_mode,
                    info.st_uid,
                    info.st_gid,
                    info.st_size,
                    info.st_ino,
                    info.st_mtime_ns,
                    info.st_ctime_ns,
                )
            )
        elif is_directory:
            digest.update(b"%d %b" % (len(name), name))
        if is_directory and below.is_open:
            inner.append((full, below))
    return digest.digest(), inner


def _names(path: bytes, place: Place) -> list[bytes]:
    if not place.needs_listing:
        return sorted(place.named())
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
