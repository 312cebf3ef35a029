"""The rows of users who were refused on the admin socket (``lockout.py`` says what they mean)."""

import sqlalchemy as sa

from needfire_server.lockout import USERS_MAX, Counted, LockLimits, Refusals, Settled
from needfire_server.storage import tables

__all__ = ["count_refusal", "find", "settle_refusals"]

_T = tables.refusals


def find(connection: sa.Connection, user: str) -> Refusals | None:
    """Return what is known of a user."""
    wanted = (_T.c.since_us, _T.c.count, _T.c.towards_lock, _T.c.locked_until_us, _T.c.last_us)
    row = connection.execute(sa.select(*wanted).where(_T.c.user == user)).first()
    return None if row is None else Refusals(*row)


def count_refusal(
    connection: sa.Connection,
    user: str,
    now_us: int,
    limits: LockLimits,
    count: int,
    is_stranger: bool = False,
) -> Counted:
    """Count a refusal; nobody else writes meanwhile."""
    before = find(connection, user)
    if before is None and is_stranger and _users(connection) >= USERS_MAX // 2:
        return Counted()
    after, counted = (before or Refusals(now_us)).with_one_more(now_us, limits, count)
    if before is None:
        _forget_some(connection, now_us)
    _save(connection, user, after, is_new=before is None)
    return counted


def settle_refusals(
    connection: sa.Connection, user: str, now_us: int, limits: LockLimits
) -> Settled:
    """Forget the refusals of a user; of one who is locked out, count one more."""
    before = find(connection, user)
    if before is None:
        return Settled()
    locked_us = before.lock_end_us(now_us, limits)
    if locked_us is None:
        connection.execute(sa.delete(_T).where(_T.c.user == user))
        return Settled(failures=before.failures)
    after, _ = before.with_one_more(now_us, limits)
    _save(connection, user, after, is_new=False)
    return Settled(locked_us)


def _save(connection: sa.Connection, user: str, refusals: Refusals, *, is_new: bool) -> None:
    values = {
        "since_us": refusals.since_us,
        "count": refusals.count,
        "towards_lock": refusals.towards_lock,
        "locked_until_us": refusals.locked_until_us,
        "last_us": refusals.last_us,
    }
    if is_new:
        connection.execute(sa.insert(_T).values(user=user, **values))
    else:
        connection.execute(sa.update(_T).where(_T.c.user == user).values(**values))


def _forget_some(connection: sa.Connection, now_us: int) -> None:
    """Make room for one more: whose first refusal is the oldest goes, unless they are locked out.

    Only who has a role gets here with a full table, and of them there are not many.
    """
    surplus = _users(connection) - (USERS_MAX - 1)
    if surplus > 0:
        is_free = _T.c.locked_until_us <= now_us
        oldest = sa.select(_T.c.user).where(is_free).order_by(_T.c.since_us, _T.c.user.desc())
        connection.execute(sa.delete(_T).where(_T.c.user.in_(oldest.limit(surplus))))


def _users(connection: sa.Connection) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(_T)).scalar() or 0
