"""Who may stand between the door and a session, and who makes room when it is full.

A stranger costs memory while it waits and arithmetic once it has said hello. Both are bounded, for
all of them together and for one source, and neither bound can be used up for long:

* **Silent** peers have not sent a first frame, or have been refused and linger, or are in the
  middle of resuming a session. An honest agent needs no second for that, so when there are too
  many, whoever has been here longest makes room, if that is longer than a second: first among
  those of the newcomer's own source, if they are too many. Else the newcomer has to go: in the
  stampede of a whole fleet nobody may be sent away who is about to come in.
* **Negotiating** peers have said hello and cost two portions of arithmetic. When all places are
  taken, the newcomer is refused, in a few bytes; unless somebody has kept us waiting for its proof
  for longer than any honest agent needs: then that one makes room.

Peers from an address from which a client logged in lately (``familiar.py``) come first: for them a
silent stranger makes room at once, and an eighth of the negotiating places is only theirs.

Who resumes a session never comes into the second room: it needs no arithmetic worth the name. So a
flood of strangers does not keep a fleet out that is known already.

Pure: times come in as monotonic seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["SILENT_FACTOR", "Anteroom", "Visit", "share_of_one_source", "strangers_places"]

SILENT_FACTOR: Final = 16
"""Silent peers for each place of a negotiating one: they cost 3 KiB and no arithmetic. Those who
resume are among them until they have proved themselves, and a whole fleet may do that at once."""
PROOF_PATIENCE_S: Final = 2.0
"""Seconds after which a peer that owes us its proof may be sent away for a newcomer. The arithmetic
takes an agent 30 ms, or ten times that on a slow host."""
SILENCE_PATIENCE_S: Final = 1.0
"""Seconds after which a silent peer may be sent away for a newcomer."""
_SHARE_MIN: Final = 4


def share_of_one_source(places: int) -> int:
    """Return how many of the places one source may have: a quarter, and never less than four."""
    return max(_SHARE_MIN, places // 4)


def strangers_places(places: int) -> int:
    """Return how many of the negotiating places are open to everybody: all but an eighth."""
    return places - places // 8


@dataclass(slots=True, eq=False)
class Visit:
    """One peer, from its connection to its session."""

    source: str
    send_away: Callable[[], None]
    """Ends its connection; called when it has to make room."""
    is_familiar: bool = False
    """It comes from where a client logged in lately."""
    is_negotiating: bool = False
    entered_s: float = 0.0
    owes_since_s: float | None = None
    """Since when it is expected to send its proof; None while the work is ours."""


class Anteroom:
    """All peers that have no session yet."""

    def __init__(self) -> None:
        # Dictionaries as ordered sets: the first one has been here longest.
        self._silent: dict[Visit, None] = {}
        self._negotiating: dict[Visit, None] = {}
        # Not Counters: to begin and to end a count costs them many times as much, and nearly every
        # peer has a source of its own.
        self._silent_of: dict[str, int] = {}
        self._negotiating_of: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._silent) + len(self._negotiating)

    def enter(self, visit: Visit, places: int, now_s: float) -> Visit | None:
        """Take a peer in; return who has been sent away for that, if anybody.

        That is the newcomer itself where all others have come within the last second.

        Args:
            places: for negotiating peers; ``SILENT_FACTOR`` times as many may be silent.
        """
        visit.entered_s = now_s
        limit = places * SILENT_FACTOR
        displaced, is_urgent = None, False
        if self._silent_of.get(visit.source, 0) >= share_of_one_source(limit):
            displaced = next(each for each in self._silent if each.source == visit.source)
        elif len(self._silent) >= limit:
            displaced = self._oldest_stranger() if visit.is_familiar else None
            is_urgent = displaced is not None
            displaced = displaced or next(iter(self._silent))
        if (
            displaced is not None
            and not is_urgent
            and now_s - displaced.entered_s <= SILENCE_PATIENCE_S
        ):
            visit.send_away()
            return visit
        self._silent[visit] = None
        _count_up(self._silent_of, visit.source)
        self._send_away(displaced)
        return displaced

    def negotiate(self, visit: Visit, places: int, now_s: float) -> bool:
        """A peer has said hello; False where there is no place for it: refuse it."""
        if visit not in self._silent:
            return False
        if self._negotiating_of.get(visit.source, 0) >= share_of_one_source(places):
            return False
        if len(self._negotiating) >= (places if visit.is_familiar else strangers_places(places)):
            debtor = self._debtor(now_s)
            if debtor is None:
                return False
            self._send_away(debtor)
        self._take_out(visit)
        visit.is_negotiating = True
        self._negotiating[visit] = None
        _count_up(self._negotiating_of, visit.source)
        return True

    def refused(self, visit: Visit) -> None:
        """The peer gets no session; it may linger until it has read why, as a silent one."""
        if visit in self._negotiating:
            self._take_out(visit)
            visit.is_negotiating = False
            visit.entered_s = 0.0
            self._silent[visit] = None
            _count_up(self._silent_of, visit.source)

    def leave(self, visit: Visit) -> None:
        """The peer has a session, or its connection is gone."""
        self._take_out(visit)

    def make_room(self) -> bool:
        """Send the stranger away that has been silent for longest; False where there is none."""
        stranger = self._oldest_stranger()
        self._send_away(stranger)
        return stranger is not None

    def _oldest_stranger(self) -> Visit | None:
        return next((visit for visit in self._silent if not visit.is_familiar), None)

    def _debtor(self, now_s: float) -> Visit | None:
        for visit in self._negotiating:
            if visit.owes_since_s is not None and now_s - visit.owes_since_s > PROOF_PATIENCE_S:
                return visit
        return None

    def _send_away(self, visit: Visit | None) -> None:
        if visit is not None:
            self._take_out(visit)
            visit.send_away()

    def _take_out(self, visit: Visit) -> None:
        if visit in self._silent:
            del self._silent[visit]
            _count_down(self._silent_of, visit.source)
        elif visit in self._negotiating:
            del self._negotiating[visit]
            _count_down(self._negotiating_of, visit.source)


def _count_up(count: dict[str, int], source: str) -> None:
    count[source] = count.get(source, 0) + 1


def _count_down(count: dict[str, int], source: str) -> None:
    if count[source] > 1:
        count[source] -= 1
    else:
        del count[source]
