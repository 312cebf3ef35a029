"""The rows of sessions: sealed, one current one a client (``session_seal.py``)."""

import sqlalchemy as sa

from needfire_server.session_seal import SealedSession
from needfire_server.storage import tables

__all__ = ["end_session", "keep_session", "load_sessions", "sweep_sessions"]

_T = tables.sessions


def load_sessions(connection: sa.Connection) -> list[SealedSession]:
    """Return all rows, of each client the superseded ones first."""
    rows = connection.execute(sa.select(_T).order_by(_T.c.client, _T.c.is_current, _T.c.expires_us))
    return [
        SealedSession(bytes(row[0]), row[1], row[2], bool(row[3]), bytes(row[4])) for row in rows
    ]


def keep_session(connection: sa.Connection, row: SealedSession, known: tuple[bytes, ...]) -> None:
    """Keep the current session of a client, and of the others only those that are known."""
    is_theirs = _T.c.client == row.client
    is_forgotten = sa.or_(_T.c.session_id == row.session_id, _T.c.session_id.not_in(known))
    connection.execute(sa.delete(_T).where(is_theirs, is_forgotten))
    connection.execute(sa.update(_T).where(is_theirs).values(is_current=0))
    connection.execute(
        sa.insert(_T).values(
            session_id=row.session_id,
            client=row.client,
            expires_us=row.expires_us,
            is_current=int(row.is_current),
            sealed=row.sealed,
        )
    )


def end_session(connection: sa.Connection, session_id: bytes) -> None:
    """Remove a session."""
    connection.execute(sa.delete(_T).where(_T.c.session_id == session_id))


def sweep_sessions(connection: sa.Connection, now_us: int) -> None:
    """Remove what has expired."""
    connection.execute(sa.delete(_T).where(_T.c.expires_us <= now_us))
