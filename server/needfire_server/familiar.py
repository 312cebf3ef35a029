"""From which addresses did a client log in lately? Those come first where strangers queue. Pure.

Nobody proves anything by an address, and several hosts may share one. So being familiar is a
credit: each connection that comes first because of it spends one, a client that is admitted gives
all back, and one comes back by itself in a while. Log-ins that lead to nothing have no quota, so
they give nothing: else one secret and a network of addresses would drive all others out of the
table. Who has only the address, and not the secret, uses up what the honest ones behind it had over
strangers, and nothing of anybody else.

One client makes a few addresses familiar at a time, and those that it came from first: with its secret
and a network of addresses somebody would otherwise have thousands of them, with the credits of all,
and would drive the agent's own one out.

In memory only: after a restart everybody is a stranger, and a fleet that comes back then needs no
advantage over itself.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["CREDITS", "LATELY_S", "REFILL_S", "SOURCES_MAX", "SOURCES_OF_ONE_MAX", "Familiar"]

SOURCES_MAX: Final = 65_536
"""Sources that are remembered, some 15 MiB; beyond that the one that logged in longest ago goes."""

SOURCES_OF_ONE_MAX: Final = 4
"""Sources that one client makes familiar at a time: a host has one or two, one that travels some more."""

LATELY_S: Final = 4 * 3600.0
"""Seconds after a log-in in which a source is familiar: twice the life of a session's key."""

CREDITS: Final = 8
"""Connections of one source that come first without a log-in among them."""

REFILL_S: Final = 10.0
"""Seconds in which one credit comes back by itself: an agent whose network fails has done nothing."""


@dataclass(slots=True)
class _Credit:
    until_s: float
    left: float
    counted_s: float


class Familiar:
    """The sources, oldest log-in first. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._credits: dict[str, _Credit] = {}
        # Tuples: there is one of these for each of many thousand agents.
        self._sources_of: dict[str, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._credits)

    def logged_in(self, source: str, client: str, now_s: float) -> None:
        """A client proved itself from there."""
        known = [each for each in self._sources_of.get(client, ()) if self._is_known(each, now_s)]
        if source not in known:
            if len(known) >= SOURCES_OF_ONE_MAX:
                return
            known.append(source)
        self._sources_of[client] = tuple(known)
        self._credits.pop(source, None)
        self._credits[source] = _Credit(now_s + LATELY_S, CREDITS, now_s)
        if len(self._credits) > SOURCES_MAX:
            del self._credits[next(iter(self._credits))]

    def forget(self, client: str) -> None:
        """A client is no longer registered; its addresses stay familiar for a while."""
        self._sources_of.pop(client, None)

    def _is_known(self, source: str, now_s: float) -> bool:
        credit = self._credits.get(source)
        return credit is not None and now_s < credit.until_s

    def spend(self, source: str, now_s: float) -> bool:
        """Return whether a connection from there comes first, and count it."""
        credit = self._credits.get(source)
        if credit is None:
            return False
        if now_s >= credit.until_s:
            del self._credits[source]
            return False
        back = (now_s - credit.counted_s) / REFILL_S
        credit.left, credit.counted_s = min(CREDITS, credit.left + back), now_s
        if credit.left < 1:
            return False
        credit.left -= 1
        return True
