"""How much may one client ask for? Leaky buckets by client and by kind of wish. Pure.

Time comes in as an argument, in seconds of a clock that never goes back. A bucket may run over by
one wish, however large; the next one waits until it has run down to its brim again. So nothing is
ever refused for its size, and in the long run nobody gets more than the rate.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

__all__ = ["SWEPT_AT_ONCE", "Allowance", "HeldBack", "Quotas", "Wish"]

QUIET_S: Final = 10.0
"""Seconds without waiting after which a client keeps to its quota again."""

SWEPT_AT_ONCE: Final = 1_000
"""Clients whose buckets are looked at in one sweep: some 3 ms. A bucket that has run empty only takes
room until its turn comes."""


class Wish(Enum):
    """What is counted of each client."""

    # One object each; asked for with every message, and Enum's own hash is slow.
    __hash__ = object.__hash__

    REPORTS = "reports"
    BYTES = "bytes of reports"
    STREAMS = "new streams of reports"
    FILES = "requests for files"
    FILE_BYTES = "bytes of files"
    PROPOSALS = "proposals"
    PROPOSAL_BYTES = "bytes of proposals"
    MESSAGES = "messages beside reports"
    LOG_INS = "log-ins"
    RESUMPTIONS = "resumptions"


@dataclass(frozen=True, slots=True)
class Allowance:
    """So much at once, and so much a second in the long run."""

    burst: float
    per_s: float


@dataclass(frozen=True, slots=True)
class HeldBack:
    """One time of being held back, when it is over."""

    client: str
    seconds: float
    """From its first wait to the end of its last."""
    waited_s: float
    reports: int
    """How many came later for it. None is lost."""


@dataclass(slots=True)
class _Bucket:
    level: float
    at_s: float
    per_s: float

    def run_down(self, now_s: float) -> float:
        self.level = max(0.0, self.level - max(0.0, now_s - self.at_s) * self.per_s)
        self.at_s = now_s
        return self.level


@dataclass(slots=True)
class _Held:
    since_s: float
    until_s: float
    waited_s: float = 0.0
    reports: int = 0


@dataclass(slots=True)
class Quotas:
    """What all clients have used. Holds nothing of those who keep far below their quota."""

    _buckets: dict[str, dict[Wish, _Bucket]] = field(default_factory=dict)
    _held: dict[str, _Held] = field(default_factory=dict)
    _unswept: list[str] = field(default_factory=list)

    def wait_s(self, client: str, wish: Wish, allowance: Allowance, now_s: float) -> float:
        """Return for how many seconds the next wish has to wait; 0.0 for one that need not."""
        bucket = self._buckets.get(client, {}).get(wish)
        if bucket is None:
            return 0.0
        bucket.per_s = allowance.per_s
        return max(0.0, (bucket.run_down(now_s) - allowance.burst) / allowance.per_s)

    def charge(
        self, client: str, wish: Wish, allowance: Allowance, amount: float, now_s: float
    ) -> None:
        """A client gets something, whether or not it has any of its quota left."""
        buckets = self._buckets.setdefault(client, {})
        bucket = buckets.get(wish)
        if bucket is None:
            bucket = buckets[wish] = _Bucket(0.0, now_s, allowance.per_s)
        bucket.run_down(now_s)
        bucket.level += amount

    def hold(self, client: str, reports: int, wait_s: float, now_s: float) -> bool:
        """Note that a client has to wait; True where that is the beginning of it."""
        held = self._held.get(client)
        is_new = held is None
        if held is None:
            held = self._held[client] = _Held(now_s, now_s)
        held.until_s = max(held.until_s, now_s + wait_s)
        held.waited_s += wait_s
        held.reports += reports
        return is_new

    @property
    def held(self) -> int:
        """Clients that are beyond their quota now."""
        return len(self._held)

    def sweep(self, now_s: float, quiet_s: float = QUIET_S) -> list[HeldBack]:
        """Return who keeps to the quota again, and forget some of what has no effect any more."""
        over = [name for name, held in self._held.items() if held.until_s + quiet_s <= now_s]
        ended = []
        for client in over:
            held = self._held.pop(client)
            seconds = held.until_s - held.since_s
            ended.append(HeldBack(client, seconds, held.waited_s, held.reports))
        for client in self._next_to_sweep():
            self._forget_empty(client, now_s)
        return ended

    def _next_to_sweep(self) -> Iterator[str]:
        if not self._unswept:
            self._unswept = list(self._buckets)
        for _ in range(min(SWEPT_AT_ONCE, len(self._unswept))):
            yield self._unswept.pop()

    def _forget_empty(self, client: str, now_s: float) -> None:
        buckets = self._buckets.get(client, {})
        for wish in [each for each, bucket in buckets.items() if not bucket.run_down(now_s)]:
            del buckets[wish]
        if not buckets:
            self._buckets.pop(client, None)
