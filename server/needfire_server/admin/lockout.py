"""Users who were refused too often are locked out for a while, and are told of failures later.

Pure: the time is an argument. Nothing here waits, so that requests that come at the same time
cannot pass between a look at the count and its change.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["Failures", "LockLimits", "Lockout"]

_USERS_MAX: Final = 1_024
"""Users remembered at a time; local users cannot be made without end."""


@dataclass(frozen=True, slots=True)
class Failures:
    """What was refused since the last request that was not.

    Attributes:
        count: requests, those while locked out as well.
        since_us: time of the first one, microseconds since 1970.
    """

    count: int
    since_us: int


@dataclass(slots=True)
class _Record:
    since_us: int
    count: int = 0
    towards_lock: int = 0
    locked_until_us: int = 0


@dataclass(frozen=True, slots=True)
class LockLimits:
    """When users are locked out.

    Attributes:
        failures_max: refusals in a row that lock a user; at least 1.
        lock_us: how long; microseconds.
    """

    failures_max: int = 5
    lock_us: int = 900_000_000


class Lockout:
    """Counts refusals by user; ``limits`` may be replaced at any time."""

    def __init__(self, limits: LockLimits) -> None:
        self.limits = limits
        self._records: dict[int, _Record] = {}

    def locked_until_us(self, uid: int, now_us: int) -> int | None:
        """Return until when a user is locked out; None where they are not.

        A clock that was set back does not make a lock longer than it was meant to be.
        """
        record = self._records.get(uid)
        if record is None or not now_us < record.locked_until_us <= now_us + self.limits.lock_us:
            return None
        return record.locked_until_us

    def refused(self, uid: int, now_us: int) -> bool:
        """Count a refusal; true where this one locks the user out."""
        record = self._records.setdefault(uid, _Record(now_us))
        record.count += 1
        self._forget_some(uid)
        if self.locked_until_us(uid, now_us) is not None:
            return False
        record.towards_lock += 1
        if record.towards_lock < self.limits.failures_max:
            return False
        record.towards_lock = 0
        record.locked_until_us = now_us + self.limits.lock_us
        return True

    def succeeded(self, uid: int) -> Failures | None:
        """Forget the refusals of a user; return what they were, None where there were none."""
        record = self._records.pop(uid, None)
        return None if record is None else Failures(record.count, record.since_us)

    def _forget_some(self, newest: int) -> None:
        while len(self._records) > _USERS_MAX:
            # Whose first refusal is the oldest goes first: a lock is short, a memory is long.
            oldest = min(
                self._records, key=lambda uid: (uid == newest, self._records[uid].since_us)
            )
            del self._records[oldest]
