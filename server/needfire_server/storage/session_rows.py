"""The rows of sessions: sealed, one current one a client (``session_seal.py``)."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from needfire_server.session_seal import SealedSession
from needfire_server.storage import tables
from needfire_server.storage.engine import Transaction
from needfire_server.storage.reading import among

__all__ = [
    "clients_of_sessions",
    "end_session",
    "keep_sessions",
    "load_sessions",
    "sessions_of",
    "sweep_sessions",
]

_T = tables.sessions


def load_sessions(connection: sa.Connection) -> list[SealedSession]:
    """Return all rows, of each client the superseded ones first."""
    return _rows(connection, sa.select(_T))


def sessions_of(connection: sa.Connection, clients: Sequence[str]) -> list[SealedSession]:
    """Return the rows of some clients, of each the superseded ones first."""
    return _rows(connection, sa.select(_T).where(among(_T.c.client, clients)))


def clients_of_sessions(
    connection: sa.Connection, session_ids: Sequence[bytes]
) -> dict[bytes, str]:
    """Return whose the sessions are that there are rows of."""
    query = sa.select(_T.c.session_id, _T.c.client).where(among(_T.c.session_id, session_ids))
    return {bytes(session_id): client for session_id, client in connection.execute(query)}


def keep_sessions(
    transaction: Transaction, kept: Sequence[tuple[SealedSession, tuple[bytes, ...]]]
) -> None:
    """Keep the current sessions of clients, and of their others only those that are known.

    Args:
        kept: no client twice; each with the identifiers of sessions that are known of its client.
    """
    if not kept:
        return
    width = max(len(known) for _, known in kept)
    forgotten = [
        # Places that are left over get an identifier that is deleted in any case.
        (row.client, row.session_id, *known, *(row.session_id,) * (width + 1 - len(known)))
        for row, known in kept
    ]
    transaction.run(_forgetting(width + 1), forgotten)
    transaction.run(
        "UPDATE sessions SET is_current = 0 WHERE client = ?", [(row.client,) for row, _ in kept]
    )
    transaction.insert_many(
        "sessions",
        ("session_id", "client", "expires_us", "is_current", "sealed"),
        [
            (row.session_id, row.client, row.expires_us, int(row.is_current), row.sealed)
            for row, _ in kept
        ],
    )


@lru_cache(maxsize=16)
def _forgetting(known: int) -> str:
    """Delete of a client what has the new identifier, and all that is not among so many."""
    return (
        "DELETE FROM sessions WHERE client = ? "  # noqa: S608
        f"AND (session_id = ? OR session_id NOT IN ({', '.join('?' * known)}))"
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
