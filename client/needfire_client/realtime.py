"""How this host is watched in real time: chosen by trying, and looked after.

    fanotify   where kernel and rights allow it, and every local file system has handles
    inotify    else
    polling    where neither works; and beside them for network file systems, on which others
               write without this kernel's knowledge

The guard (``guard.py``) looks after whichever it is.
"""

import os
from pathlib import Path
from typing import Final, Protocol

from needfire_client.fanotify_watch import FanotifyWatcher
from needfire_client.guard import Canary, Guard, Silence
from needfire_client.mounts import concerned, is_network, read_mounts
from needfire_client.policy import Ruleset
from needfire_client.polling_watch import PollingWatcher
from needfire_client.processes import Writer
from needfire_client.watch import InotifyWatcher
from needfire_client.watcher import Listener, PathWatcher, WatchHealth
from needfire_protocol.rc.agent import AgentSettings

__all__ = ["Owner", "RealTime"]

_BETTER: Final = ("fanotify", "inotify", "polling")


class Owner(Protocol):
    """Whom real-time watching tells. Calls come from several threads."""

    def changed(self, path: bytes, *, below: bool = False) -> None:
        """Hear that a path may have changed; ``below`` as for ``Listener``."""

    def wrote(self, path: bytes, writer: Writer | None, *, below: bool = False) -> None:
        """Hear who changed a path."""

    def lost(self, reason: str, scope: bytes, since_us: int | None = None) -> None:
        """Hear that something in ``scope`` may have been missed since then."""

    def silent(self, method: str, path: bytes, scope: bytes, since_us: int) -> None:
        """Hear that a canary did not come back: whatever is said, nobody watches ``scope``."""

    def answered(self, path: bytes) -> None:
        """Hear that a canary came back, as each of them does at each interval."""

    def chosen(self, method: str, reason: str, watched: int, polled: int) -> None:
        """Hear what is used, and why nothing better."""


class RealTime:
    """Watches what the rules of the settings cover.

    Args:
        canary_path: a file in a directory of the agent's own.
    """

    def __init__(self, settings: AgentSettings, canary_path: Path, owner: Owner) -> None:
        self._settings = settings
        self._ruleset = Ruleset(settings)
        self._owner = owner
        self._canary = Canary(
            Path(os.path.realpath(canary_path.parent)) / canary_path.name,
            settings.canary_interval_s,
            probe=self._probe,
        )
        self._watcher: PathWatcher | None = None
        self._poller: PollingWatcher | None = None
        self._guard: Guard | None = None

    @property
    def health(self) -> tuple[WatchHealth, ...]:
        """Counters of what watches: the chosen watcher first, then the poller beside it."""
        return tuple(each.health for each in (self._watcher, self._poller) if each is not None)

    def start(self) -> None:
        """Watch, by the best method that works."""
        self._choose()
        self._canary.is_expected = isinstance(self._watcher, (FanotifyWatcher, InotifyWatcher))
        self._guard = Guard(self._ruleset, self, self._canary)
        self._guard.start()

    def try_out(self) -> None:
        """Choose as ``start`` does, tell what, and stop again. No canary is written."""
        self._choose()
        self.stop()

    def stop(self) -> None:
        """Stop; afterwards nothing is told any more."""
        for each in (self._guard, self._poller, self._watcher):
            if each is not None:
                each.stop()
        self._guard = self._poller = self._watcher = None

    def reconcile(self) -> None:
        """Watch what should be watched and is not: worth a call after each full check."""
        if self._watcher is not None:
            self._watcher.reconcile()

    def last_seen_us(self) -> int | None:
        """Return until when an earlier run of the agent watched; None: there was none."""
        return self._canary.last_seen_us()

    # ---- what is told ----------------------------------------------------------------------------

    def changed(self, path: bytes, *, below: bool = False) -> None:
        """Pass on."""
        self._owner.changed(path, below=below)

    def wrote(self, path: bytes, writer: Writer | None, *, below: bool = False) -> None:
        """Pass on."""
        self._owner.wrote(path, writer, below=below)

    def lost(self, reason: str, scope: bytes, since_us: int | None = None) -> None:
        """Pass on."""
        self._owner.lost(reason, scope, since_us)

    def canary_came(self, which: bytes) -> None:
        """Note it, and pass on."""
        self._canary.came(which)
        self._owner.answered(which)

    def mounts_changed(self) -> None:
        """Watch what was mounted; poll what nobody tells of."""
        self.reconcile()
        if self._poller is not None:
            self._poller.stop()
        # A new mount is told as a gap anyhow; a dead one must not hold up the guard.
        self._start_poller(waits=False)

    def silent(self, silence: Silence) -> None:
        """Pass on; a root that is silent alone may be watched again after reconciling."""
        method = self._watcher.health.method if self._watcher is not None else "none"
        is_file = silence.path == os.fsencode(self._canary.path)
        if not is_file:
            self.reconcile()
        self._owner.silent(
            method, silence.path, b"/" if is_file else silence.path, silence.since_us
        )

    def _probe(self) -> frozenset[bytes]:
        return self._watcher.probe() if self._watcher is not None else frozenset()

    # ---- choosing --------------------------------------------------------------------------------

    def _choose(self) -> None:
        reasons = []
        for method in self._methods():
            watcher = self._make(method)
            try:
                watcher.start()
            except OSError as error:
                reasons.append(f"{method}: {error.strerror or error}")
                continue
            reason = self._shortcoming(watcher)
            if reason and self._settings.realtime_method == "auto":
                watcher.stop()
                reasons.append(f"{method}: {reason}")
                continue
            self._watcher = watcher
            break
        polled = self._start_poller()
        health = self._watcher.health if self._watcher is not None else WatchHealth("none")
        if self._watcher is None:
            self._owner.lost(f"no real-time watching: {'; '.join(reasons)}", b"/")
        if not reasons and health.method in _BETTER[1:]:
            reasons.append(f"RealTimeMethod = {health.method}")
        self._owner.chosen(health.method, "; ".join(reasons), health.watched, polled)

    def _methods(self) -> tuple[str, ...]:
        wanted = self._settings.realtime_method
        return _BETTER if wanted == "auto" else (wanted,)

    def _make(self, method: str) -> PathWatcher:
        canary = os.fsencode(self._canary.path)
        if method == "fanotify":
            return FanotifyWatcher(self._settings, self, canary)
        if method == "inotify":
            return InotifyWatcher(self._settings, self, canary)
        return PollingWatcher(self._settings, self)

    def _shortcoming(self, watcher: PathWatcher) -> str:
        """Return why inotify sees more: local file systems that fanotify cannot mark."""
        if not isinstance(watcher, FanotifyWatcher):
            return ""
        polled = set(self._network_points())
        local = {point: why for point, why in watcher.unwatched.items() if point not in polled}
        return "; ".join(f"{os.fsdecode(point)}: {why}" for point, why in sorted(local.items())[:3])

    def _network_points(self) -> tuple[bytes, ...]:
        mounts = concerned(read_mounts(), self._ruleset)
        return tuple(mount.point for mount in mounts if is_network(mount))

    def _start_poller(self, *, waits: bool = True) -> int:
        """Poll what the watcher cannot see; return how many mount points that are."""
        self._poller = None
        if isinstance(self._watcher, PollingWatcher):
            return 0
        points = set(self._network_points())
        if isinstance(self._watcher, FanotifyWatcher):
            points.update(self._watcher.unwatched)
        if points:
            self._poller = PollingWatcher(self._settings, self, tuple(sorted(points)))
            self._poller.start(waits=waits)
        return len(points)


_LISTENS: type[Listener] = RealTime
