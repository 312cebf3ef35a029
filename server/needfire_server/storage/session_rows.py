"""The rows of sessions: sealed, one current one a client (``session_seal.py``)."""

from typing import Any

import sqlalchemy as sa

from needfire_server.session_seal import SealedSession
from needfire_server.storage import tables

__all__ = [
    "client_of_session",
    "end_session",
    "keep_session",
    "load_sessions",
    "sessions_of",
    "sweep_sessions",
]

_T = tables.sessions


def load_sessions(connection: sa.Connection) -> list[SealedSession]:
    """Return all rows, of each client the superseded ones first."""
    return _rows(connection, sa.select(_T))


def sessions_of(connection: sa.Connection, client: str) -> list[SealedSession]:
    """Return the rows of one client, the superseded ones first."""
    return _rows(connection, sa.select(_T).where(_T.c.client == client))


def client_of_session(connection: sa.Connection, session_id: bytes) -> str | None:
    """Return whose session it is; None where there is no such row."""
    found: str | None = connection.execute(
        sa.select(_T.c.client).where(_T.c.session_id == session_id)
    ).scalar()
    return found


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


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> list[SealedSession]:
    ordered = query.order_by(_T.c.client, _T.c.is_current, _T.c.expires_us)
    return [
        SealedSession(bytes(row[0]), row[1], row[2], bool(row[3]), bytes(row[4]))
        for row in connection.execute(ordered)
    ]


def end_session(connection: sa.Connection, session_id: bytes) -> None:
    """Remove a session."""
    connection.execute(sa.delete(_T).where(_T.c.session_id == session_id))


def sweep_sessions(connection: sa.Connection, now_us: int) -> None:
    """Remove what has expired."""
    connection.execute(sa.delete(_T).where(_T.c.expires_us <= now_us))
