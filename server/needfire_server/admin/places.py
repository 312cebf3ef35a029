"""Who may have a connection to the admin socket at the same time as others, and who makes room.

Whoever is let in can open connections and say nothing. So one user has a share of the places, who
steers the server has some that nobody else gets, and a connection on which nothing is asked makes
room for one that is wanted. Pure: time comes in as an argument, in seconds of a steady clock.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from needfire_server.admin.requests import AdminRefusedError

__all__ = ["Place", "Places", "Standing"]

_USER_SHARE: Final = 4
"""One user has a quarter of the places at most."""
_STRANGERS_MAX: Final = 8
_STRANGER_MAX: Final = 2
"""Of one user. They are turned away at once: the rest come again, or do not."""


class Standing(Enum):
    """What a user is to the socket."""

    STRANGER = "stranger"
    MEMBER = "member"
    """Has a role."""
    STEERING = "steering"
    """Administers the server, or is root."""


@dataclass(slots=True, eq=False)
class Place:
    """One connection that is open."""

    uid: int
    standing: Standing
    end: Callable[[], object]
    idle_since_s: float | None = None
    """Since when nothing is asked on it; None while something is."""


class Places:
    """All connections that are open."""

    def __init__(self, members: int) -> None:
        """Args:
        members: places for those who have a role. Who steers has as many others, of which one
            user leaves a quarter to the rest.
        """
        assert members >= 1
        self._members = members
        self._reserved = max(1, members // _USER_SHARE)
        self._open: list[Place] = []

    def take(self, uid: int, standing: Standing, end: Callable[[], object], now_s: float) -> Place:
        """Return a place, for which an idle connection may have had to end.

        Args:
            end: ends the connection; called at most once.

        Raises:
            AdminRefusedError: there is none.
        """
        place = Place(uid, standing, end, now_s)
        alike = [each for each in self._open if each.standing is standing]
        own = [each for each in alike if each.uid == uid]
        if standing is Standing.STRANGER:
            if len(own) >= _STRANGER_MAX or len(alike) >= _STRANGERS_MAX:
                raise _none_left("too many connections of strangers are open")
        elif standing is Standing.MEMBER:
            if len(own) >= max(1, self._members // _USER_SHARE):
                self._make_room(own)
            elif len(alike) >= self._members:
                self._make_room(alike)
        elif len(own) >= self._members:
            self._make_room(own)
        elif len(alike) >= self._members + self._reserved:
            self._make_room(alike)
        self._open.append(place)
        return place

    def leave(self, place: Place) -> None:
        """A connection has ended."""
        if place in self._open:
            self._open.remove(place)

    def _make_room(self, places: list[Place]) -> None:
        """End the connection that was idle longest, of the user who has most.

        Raises:
            AdminRefusedError: something is going on on each of them.
        """
        counts = Counter(each.uid for each in places)
        idle = [(each, each.idle_since_s) for each in places if each.idle_since_s is not None]
        if not idle:
            raise _none_left("too many admin connections are open")
        place, _ = min(idle, key=lambda pair: (-counts[pair[0].uid], pair[1]))
        self._open.remove(place)
        place.end()


def _none_left(text: str) -> AdminRefusedError:
    return AdminRefusedError(text, "end a command that follows events, or try again in a while")
