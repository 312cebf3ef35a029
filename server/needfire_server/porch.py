"""Strangers that were accepted and have not been let in yet; cheap, because they may be a flood.

A connection costs hundreds of microseconds until it has said who it is, and all of them share one
event loop. So a stranger waits here as a bare socket, a few are let in with each turn of the loop,
and whoever is not a stranger meets a loop that comes round quickly. Nothing is left with the
kernel, whose queue knows no order but that of arrival.

Pure but for the sockets that it holds, of which it asks nothing.
"""

from collections import deque
from typing import Final, Generic, TypeVar

from needfire_server.anteroom import share_of_one_source

__all__ = ["PORCH_MAX", "Porch"]

PORCH_MAX: Final = 4_096
"""A whole fleet may come back in a second; beyond that the newcomer goes. One source may have a
quarter."""

_T = TypeVar("_T")


class Porch(Generic[_T]):
    """Waiting peers, in the order in which they came."""

    def __init__(self, places: int = PORCH_MAX) -> None:
        self._places = places
        self._waiting: deque[tuple[str, _T]] = deque()
        # Not a Counter: nearly every stranger begins a count, and ends it.
        self._of: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, source: str, peer: _T) -> bool:
        """Let a peer wait; False where there is no place for it."""
        if len(self._waiting) >= self._places:
            return False
        known = self._of.get(source, 0)
        if known >= share_of_one_source(self._places):
            return False
        self._waiting.append((source, peer))
        self._of[source] = known + 1
        return True

    def take(self) -> tuple[str, _T]:
        """Return the source and the peer that came first; there must be one."""
        source, peer = self._waiting.popleft()
        self._of[source] -= 1
        if not self._of[source]:
            del self._of[source]
        return source, peer
