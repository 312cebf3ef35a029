"""Which record of a batch a target refuses for good, and whether the record is to blame at all.

Pure. Smaller batches tell which one. One client's record that is refused is its own fault, and must
hold up nobody else's. Where records of several clients are refused and nothing is taken in between,
it is the target's: then each is tried three times before it is set aside.
"""

from collections.abc import Sequence
from typing import Final

from needfire_protocol.event import Event

__all__ = ["REFUSALS_MAX", "SOURCES_MAX", "Suspects", "source_of"]

REFUSALS_MAX: Final = 3
"""Refusals of one record by itself after which it is set aside, where the target may be to blame."""
SOURCES_MAX: Final = 3
"""Clients (or the server itself) whose records are refused in a row: then the target is to blame.
Fewer, and two agents in the hands of one attacker would bring every output to a halt."""


def source_of(event: Event) -> str | None:
    """Return the client that brought an event, also one of others; None for the server's own.

    A relay gives names to those that it speaks for: they count as one with it.
    """
    return None if event.client is None else event.client.partition("/")[0]


class Suspects:
    """The events among which is one that is refused."""

    def __init__(self) -> None:
        self._up_to = 0
        self._size = 0
        self._refused = 0
        self._number = 0
        self._sources: set[str | None] = set()

    def delivery_size(self, confirmed: int, otherwise: int) -> int:
        """Return how many events may go together behind a position."""
        return min(self._size, otherwise) if confirmed < self._up_to else otherwise

    def narrowed(self, events: Sequence[tuple[int, Event]]) -> bool:
        """Note a refusal of these events, at least one; True where it is the only one.

        False: half of them are to be tried next, at once.
        """
        first, event = events[0]
        if len(events) > 1:
            self._up_to = max(self._up_to, events[-1][0])
            self._size = len(events) // 2
            return False
        self._refused = self._refused + 1 if first == self._number else 1
        self._number = first
        self._up_to, self._size = max(self._up_to, first), 1
        if len(self._sources) < SOURCES_MAX:
            self._sources.add(source_of(event))
        return True

    def taken(self) -> None:
        """Note that the target took something."""
        self._sources.clear()

    @property
    def is_target_to_blame(self) -> bool:
        """Whether records of too many are refused and nothing was taken in between."""
        return len(self._sources) >= SOURCES_MAX

    @property
    def is_certain(self) -> bool:
        """Whether the event that was refused last has been refused often enough."""
        return not self.is_target_to_blame or self._refused >= REFUSALS_MAX
