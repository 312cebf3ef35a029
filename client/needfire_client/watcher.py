"""What the three ways of watching have in common: what they are asked, and what they tell."""

import time
from typing import Protocol

from needfire_client.processes import Writer
from needfire_protocol.plain_classes import dataclass, field

__all__ = ["Listener", "PathWatcher", "WatchHealth", "now_us"]


@dataclass(slots=True)
class WatchHealth:
    """Counters of one watcher. Written by its thread, read by anybody."""

    method: str
    """fanotify, inotify or polling."""
    watched: int = 0
    """File systems (fanotify) or directories (the others) that are watched."""
    events: int = 0
    """Events read, also of what no rule covers; of polling: directories that changed."""
    losses: int = 0
    heard_us: int = field(default_factory=lambda: now_us())
    """When it last had heard everything that there was; microseconds since 1970."""


class Listener(Protocol):
    """Is told. Calls come from the watchers' threads: note it, and return."""

    def changed(self, path: bytes, *, below: bool = False) -> None:
        """Hear that a path may have changed.

        Args:
            below: everything below it as well: a directory came from somewhere else, where nobody
                heard what was done in it, or a path that cannot be told lies below.
        """

    def wrote(self, path: bytes, writer: Writer | None, *, below: bool = False) -> None:
        """Hear who changed a path; before ``changed``, and also of a directory around it."""

    def lost(self, reason: str, scope: bytes, since_us: int | None = None) -> None:
        """Hear that something in ``scope`` may have been missed since then."""

    def canary_came(self, which: bytes) -> None:
        """Hear that the canary's file changed, or that a root was opened by a probe."""


class PathWatcher(Protocol):
    """Watches what the rules cover."""

    @property
    def health(self) -> WatchHealth:
        """Counters."""

    def start(self) -> None:
        """Watch. Raises OSError where this way of watching does not work here."""

    def stop(self) -> None:
        """Stop; afterwards nothing is told any more."""

    def probe(self) -> frozenset[bytes]:
        """Do something at each root of the rules that the watcher hears of; return which roots.

        Nothing is changed by it. Each of them is to come back as ``canary_came``; a method that
        has nothing to hear with returns none.
        """

    def reconcile(self) -> None:
        """Watch what should be watched and is not; after a full check, or a change of mounts."""


def now_us() -> int:
    """Return the time in microseconds since 1970."""
    return time.time_ns() // 1000
