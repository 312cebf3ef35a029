"""How much may one source make us say? A token bucket for each source, and for a bounded number.

Pure: time comes in as an argument, in seconds of any clock that never goes back.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

__all__ = ["PUSHED_OUT", "RateLimiter", "Suppressed"]

SOURCES_MAX: Final = 4096
"""Sources that are told apart; whoever has more addresses than that pushes out the oldest."""
PUSHED_OUT: Final = "others"
"""Stands for the sources that were pushed out while something of theirs was suppressed."""


@dataclass(frozen=True, slots=True)
class Suppressed:
    """How much was not said because of one source."""

    source: str
    count: int


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float
    suppressed: int = 0


class RateLimiter:
    """Admits ``burst`` things at once for each source, and ``per_s`` a second in the long run."""

    def __init__(self, *, burst: int, per_s: float, sources_max: int = SOURCES_MAX) -> None:
        assert burst >= 1
        assert per_s > 0
        assert sources_max >= 1
        self._burst = burst
        self._per_s = per_s
        self._sources_max = sources_max
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._pushed_out = 0

    def admit(self, source: str, now: float) -> bool:
        """True where the source may have one more; otherwise one more is counted as suppressed."""
        bucket = self._buckets.get(source)
        if bucket is None:
            self._buckets[source] = _Bucket(self._burst - 1, now)
            self._push_out()
            return True
        self._buckets.move_to_end(source)
        self._fill(bucket, now)
        if bucket.tokens < 1:
            bucket.suppressed += 1
            return False
        bucket.tokens -= 1
        return True

    def collect(self, now: float) -> list[Suppressed]:
        """Return what was suppressed since the last call, and forget the sources that are quiet."""
        found = []
        for source, bucket in list(self._buckets.items()):
            self._fill(bucket, now)
            if bucket.suppressed:
                found.append(Suppressed(source, bucket.suppressed))
                bucket.suppressed = 0
            if bucket.tokens >= self._burst:
                del self._buckets[source]
        if self._pushed_out:
            found.append(Suppressed(PUSHED_OUT, self._pushed_out))
            self._pushed_out = 0
        return found

    def _fill(self, bucket: _Bucket, now: float) -> None:
        elapsed_s = max(0.0, now - bucket.filled_at)
        bucket.tokens = min(self._burst, bucket.tokens + elapsed_s * self._per_s)
        bucket.filled_at = now

    def _push_out(self) -> None:
        while len(self._buckets) > self._sources_max:
            _, bucket = self._buckets.popitem(last=False)
            self._pushed_out += bucket.suppressed
