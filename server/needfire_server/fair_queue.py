"""Who is next when many want to be served, and some want much: deficit round robin. Pure.

Every source has a queue of its own. A turn goes round; at each turn a source may spend a little
more, and what it wants is served once it may spend that much. So who asks for little waits for one
round, however much others ask for (Shreedhar and Varghese, "Efficient Fair Queuing using Deficit
Round Robin", 1995).
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

T = TypeVar("T")


@dataclass(slots=True)
class _Source(Generic[T]):
    waiting: deque[tuple[T, int]] = field(default_factory=deque)
    may_spend: int = 0


class FairQueue(Generic[T]):
    """What waits, by source.

    The cost of a ``pop`` is bounded by the largest cost of an item, in portions, times the number
    of sources that wait.
    """

    def __init__(self, portion: int) -> None:
        """Args:
        portion: what a source may spend more at each turn; what a small wish costs.
        """
        assert portion >= 1
        self._portion = portion
        self._sources: OrderedDict[str, _Source[T]] = OrderedDict()
        """Those that have something waiting, and no others; the first is next."""
        self._has_turn: str | None = None
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, source: str, item: T, cost: int) -> None:
        """Let an item wait behind all others of its source."""
        self._sources.setdefault(source, _Source()).waiting.append((item, cost))
        self._length += 1

    def pop(self) -> T | None:
        """Return the next item; None where none waits."""
        while self._sources:
            name, source = next(iter(self._sources.items()))
            if self._has_turn != name:
                self._has_turn = name
                source.may_spend += self._portion
            item, cost = source.waiting[0]
            if cost > source.may_spend and len(self._sources) > 1:
                self._end_turn(name)
                continue
            source.waiting.popleft()
            source.may_spend -= cost
            self._length -= 1
            if not source.waiting:
                # Who wants nothing saves nothing up.
                del self._sources[name]
                self._has_turn = None
            return item
        return None

    def _end_turn(self, name: str) -> None:
        self._sources.move_to_end(name)
        self._has_turn = None
