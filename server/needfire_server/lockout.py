"""Users who were refused too often are locked out for a while, and are told of failures later.

Pure: the time is an argument. What is known of a user is a value that the store keeps
(``storage/refusal_rows.py``): each refusal reads and writes it in one transaction, so that of
requests that come at the same time, also to several servers, none slips between the count and the
lock. ``Lockout`` keeps the same in memory, for as long as the store cannot.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Final, Protocol

__all__ = [
    "USERS_MAX",
    "Counted",
    "Failures",
    "LockLimits",
    "Lockout",
    "RefusalStore",
    "Refusals",
    "Settled",
]

USERS_MAX: Final = 1_024
"""Users remembered at a time. Users who have no role take half of the places at most and drive nobody
out: user namespaces give each local user thousands of others."""


@dataclass(frozen=True, slots=True)
class Failures:
    """What was refused since the last request that was not.

    Attributes:
        count: requests, those while locked out as well.
        since_us: time of the first one, microseconds since 1970.
        last_us: that of the last one; None where a server of before counted it.
    """

    count: int
    since_us: int
    last_us: int | None = None

    def with_more(self, other: "Failures | None") -> "Failures":
        """Return both together."""
        if other is None:
            return self
        return Failures(
            self.count + other.count,
            min(self.since_us, other.since_us),
            max((each for each in (self.last_us, other.last_us) if each is not None), default=None),
        )


@dataclass(frozen=True, slots=True)
class LockLimits:
    """When users are locked out.

    Attributes:
        failures_max: refusals in a row that lock a user; at least 1.
        lock_us: how long; microseconds.
    """

    failures_max: int = 5
    lock_us: int = 900_000_000


@dataclass(frozen=True, slots=True)
class Refusals:
    """What is kept of a user who was refused.

    Attributes:
        towards_lock: those since the last lock.
        locked_until_us: end of the last lock; 0 where there was none.
        last_us: time of the last one, where it is known.
    """

    since_us: int
    count: int = 0
    towards_lock: int = 0
    locked_until_us: int = 0
    last_us: int | None = None

    def lock_end_us(self, now_us: int, limits: LockLimits) -> int | None:
        """Return until when the user is locked out; None where they are not.

        A clock that was set back does not make a lock longer than it was meant to be.
        """
        is_locked = now_us < self.locked_until_us <= now_us + limits.lock_us
        return self.locked_until_us if is_locked else None

    def with_one_more(
        self, now_us: int, limits: LockLimits, count: int = 1
    ) -> "tuple[Refusals, Counted]":
        """Return them after another refusal, and what comes of it."""
        more = replace(self, count=self.count + count, last_us=now_us)
        locked_us = self.lock_end_us(now_us, limits)
        if locked_us is not None:
            return more, Counted(locked_us)
        if self.towards_lock + 1 < limits.failures_max:
            return replace(more, towards_lock=self.towards_lock + 1), Counted()
        until_us = now_us + limits.lock_us
        return replace(more, towards_lock=0, locked_until_us=until_us), Counted(None, until_us)

    @property
    def failures(self) -> Failures:
        """What the user is told of them."""
        return Failures(self.count, self.since_us, self.last_us)


@dataclass(frozen=True, slots=True)
class Counted:
    """What a refusal came to.

    Attributes:
        was_locked_us: the user was locked out before, until this time.
        locks_us: this one locks the user out, until this time.
    """

    was_locked_us: int | None = None
    locks_us: int | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What a request comes to that is allowed: the end of a lock, or the refusals before it."""

    locked_us: int | None = None
    failures: Failures | None = None


class RefusalStore(Protocol):
    """Keeps refusals. Each method raises StorageError where it cannot."""

    async def count_refusal(
        self,
        user: str,
        now_us: int,
        limits: LockLimits,
        count: int = 1,
        *,
        is_stranger: bool = False,
    ) -> Counted:
        """Count a refusal, at one stroke.

        Args:
            count: how many there were, which count as one towards a lock.
            is_stranger: the user has no role, and is not counted where there are many of those.
        """

    async def settle_refusals(self, user: str, now_us: int, limits: LockLimits) -> Settled:
        """Forget the refusals of a user who may do what is asked, unless they are locked out."""


class Lockout:
    """Refusals in memory; ``limits`` may be replaced at any time."""

    def __init__(self, limits: LockLimits) -> None:
        self.limits = limits
        self._users: dict[Hashable, Refusals] = {}

    def locked_until_us(self, user: Hashable, now_us: int) -> int | None:
        """Return until when a user is locked out; None where they are not."""
        found = self._users.get(user)
        return None if found is None else found.lock_end_us(now_us, self.limits)

    def refused(self, user: Hashable, now_us: int, *, is_stranger: bool = False) -> Counted:
        """Count a refusal."""
        if is_stranger and user not in self._users and len(self._users) >= USERS_MAX // 2:
            return Counted()
        before = self._users.get(user, Refusals(now_us))
        self._users[user], counted = before.with_one_more(now_us, self.limits)
        self._forget_some(user, now_us)
        return counted

    def succeeded(self, user: Hashable) -> Failures | None:
        """Forget the refusals of a user; return what they were, None where there were none."""
        found = self._users.pop(user, None)
        return None if found is None else found.failures

    def _forget_some(self, newest: Hashable, now_us: int) -> None:
        if len(self._users) <= USERS_MAX:
            return
        free = [
            user
            for user, each in self._users.items()
            if user != newest and each.lock_end_us(now_us, self.limits) is None
        ]
        if free:
            # Whose first refusal is the oldest. Who is locked out stays so.
            del self._users[min(free, key=lambda user: self._users[user].since_us)]
