"""The rows of users who were refused on the admin socket (``lockout.py`` says what they mean)."""

import sqlalchemy as sa

from needfire_server.lockout import USERS_MAX, Counted, LockLimits, Refusals, Settled
from needfire_server.storage import tables

__all__ = ["count_refusal", "find", "settle_refusals"]

_T = tables.refusals


def find(connection: sa.Connection, user: str) -> Refusals | None:
    """Return what is known of a user."""
    wanted = sa.select(_T.c.since_us, _T.c.count, _T.c.towards_lock, _T.c.locked_until_us)
    row = connection.execute(wanted.where(_T.c.user == user)).first()
    return None if row is None else Refusals(*row)


def count_refusal(
    connection: sa.Connection, user: str, now_us: int, limits: LockLimits, count: int
) -> Counted:
    """Count a refusal; nobody else writes meanwhile."""
    before = find(connection, user)
    after, counted = (before or Refusals(now_us)).with_one_more(now_us, limits, count)
    if before is None:
        _forget_some(connection)
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
    }
    if is_new:
        connection.execute(sa.insert(_T).values(user=user, **values))
    else:
        connection.execute(sa.update(_T).where(_T.c.user == user).values(**values))


def _forget_some(connection: sa.Connection) -> None:
    """Make room for one more: whose first refusal is the oldest goes."""
    kept = sa.select(_T.c.user).order_by(_T.c.since_us.desc(), _T.c.user).limit(USERS_MAX - 1)
    connection.execute(sa.delete(_T).where(_T.c.user.not_in(kept)))
