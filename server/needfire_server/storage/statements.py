"""The SQL of the store: each function is one operation on an open connection.

Writing functions run inside a transaction that the caller begins and commits; reading ones need
none. Nothing here waits, and nothing of a peer's ever becomes part of a statement's text.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.event import Event
from needfire_protocol.severity import Severity
from needfire_protocol.srp import Verifier
from needfire_server.states import ClientState, ClientStatus
from needfire_server.storage.base import (
    COMMANDS_PENDING_MAX,
    EVENTS_PAGE_MAX,
    ClientRecord,
    Command,
    EventQuery,
    IncomingReport,
    IngestResult,
    Proposal,
    TooManyCommandsError,
)

__all__ = [
    "acknowledge_command",
    "add_proposal",
    "client_record",
    "clients",
    "ingest",
    "last_rowid",
    "load_client_states",
    "mark_command_delivered",
    "nth_newest_rowid",
    "pending_commands",
    "proposal",
    "proposals",
    "query_events",
    "queue_command",
    "record",
    "register",
    "remove",
    "remove_proposal",
    "save_client_state",
    "secret",
]

SEQUENCE_MAX: Final = 2**63 - 1
"""SQLite's largest integer. At a thousand reports a second it lasts for 292 million years."""

STREAM_BYTES: Final = 16
SECRET_BYTES: Final = 32

_EVENT_COLUMNS: Final = (
    "id, time_us, received_us, client, about, class, severity, code, msg, fields"
)
_INSERT_EVENT: Final = f"INSERT INTO events ({_EVENT_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)"  # noqa: S608
_COMMAND_COLUMNS: Final = (
    "id, client, verb, user, queued_us, expires_us, delivered_us, acknowledged_us, outcome, detail"
)
_PROPOSAL_COLUMNS: Final = "id, client, path, size_bytes, sha256, received_us"


# ---- reports and events ----------------------------------------------------------------------


def ingest(
    connection: sqlite3.Connection,
    client: str,
    stream: bytes,
    reports: Sequence[IncomingReport],
    received_us: int,
) -> IngestResult:
    """Keep what is new of a batch.

    Raises:
        FormatError: a sequence or the stream's identifier is out of range.
    """
    _check_batch(stream, reports)
    before = highest = _last_sequence(connection, client, stream)
    accepted: list[Event] = []
    duplicates = 0
    first_gap: tuple[int, int] | None = None
    for report in reports:
        if report.sequence > highest:
            if report.sequence > highest + 1:
                gap = (highest, report.sequence)
                _open_gap(connection, client, stream, highest + 1, report.sequence - 1)
                first_gap = first_gap or gap
            highest = report.sequence
        elif not _fill_gap(connection, client, stream, report.sequence):
            duplicates += 1
            continue
        if report.event is None:
            _keep_unusable(connection, client, stream, report, received_us)
        else:
            accepted.append(report.event.received(client, received_us))
    connection.executemany(_INSERT_EVENT, [_event_row(event) for event in accepted])
    if highest != before:
        connection.execute(
            "INSERT INTO streams VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET last_sequence = excluded.last_sequence",
            (client, stream, highest),
        )
    return IngestResult(tuple(accepted), duplicates, before, first_gap)


def record(connection: sqlite3.Connection, event: Event) -> None:
    """Keep one event as it is."""
    connection.execute(_INSERT_EVENT, _event_row(event))


def query_events(connection: sqlite3.Connection, query: EventQuery) -> list[tuple[int, Event]]:
    """Return (row_id, event) of what the query asks for."""
    where, values = _where(query)
    order = "DESC" if query.newest_first else "ASC"
    limit = min(max(query.limit, 1), EVENTS_PAGE_MAX)
    rows = connection.execute(
        f"SELECT row_id, {_EVENT_COLUMNS} FROM events {where} ORDER BY row_id {order} LIMIT ?",  # noqa: S608
        (*values, limit),
    )
    return [(row[0], _event(row[1:])) for row in rows]


def nth_newest_rowid(connection: sqlite3.Connection, query: EventQuery, count: int) -> int:
    """Return the row_id of the count-th newest event that matches; 0 where there are fewer."""
    where, values = _where(query)
    row = connection.execute(
        f"SELECT row_id FROM events {where} ORDER BY row_id DESC LIMIT 1 OFFSET ?",  # noqa: S608
        (*values, count - 1),
    ).fetchone()
    return 0 if row is None else int(row[0])


def last_rowid(connection: sqlite3.Connection) -> int:
    """Return the highest row_id of an event, or 0."""
    value: int = connection.execute("SELECT coalesce(max(row_id), 0) FROM events").fetchone()[0]
    return value


def _check_batch(stream: bytes, reports: Sequence[IncomingReport]) -> None:
    if len(stream) != STREAM_BYTES:
        raise FormatError(f"a stream's identifier has {STREAM_BYTES} bytes, not {len(stream)}")
    for report in reports:
        if not 1 <= report.sequence <= SEQUENCE_MAX:
            raise FormatError(f"the report's number {report.sequence} is not from 1 to 2**63-1")


def _last_sequence(connection: sqlite3.Connection, client: str, stream: bytes) -> int:
    row = connection.execute(
        "SELECT last_sequence FROM streams WHERE client = ? AND stream = ?", (client, stream)
    ).fetchone()
    return 0 if row is None else int(row[0])


def _open_gap(
    connection: sqlite3.Connection, client: str, stream: bytes, first: int, last: int
) -> None:
    connection.execute("INSERT INTO stream_gaps VALUES (?, ?, ?, ?)", (client, stream, first, last))


def _fill_gap(connection: sqlite3.Connection, client: str, stream: bytes, sequence: int) -> bool:
    """Take a late number out of the gap that it belongs to; False where it had come before."""
    row = connection.execute(
        "SELECT first_sequence, last_sequence FROM stream_gaps WHERE client = ? AND stream = ? "
        "AND first_sequence <= ? ORDER BY first_sequence DESC LIMIT 1",
        (client, stream, sequence),
    ).fetchone()
    if row is None or sequence > row[1]:
        return False
    first, last = row
    connection.execute(
        "DELETE FROM stream_gaps WHERE client = ? AND stream = ? AND first_sequence = ?",
        (client, stream, first),
    )
    if first < sequence:
        _open_gap(connection, client, stream, first, sequence - 1)
    if sequence < last:
        _open_gap(connection, client, stream, sequence + 1, last)
    return True


def _keep_unusable(
    connection: sqlite3.Connection,
    client: str,
    stream: bytes,
    report: IncomingReport,
    received_us: int,
) -> None:
    connection.execute(
        "INSERT INTO unusable_reports (client, stream, sequence, received_us, body, problem) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (client, stream, report.sequence, received_us, report.body, report.problem or ""),
    )


def _event_row(event: Event) -> tuple[Any, ...]:
    return (
        event.id,
        event.time_us,
        event.received_us,
        event.client,
        _about(event),
        event.event_class.value,
        int(event.severity),
        event.code,
        event.msg,
        json.dumps(dict(event.fields), ensure_ascii=False, separators=(",", ":")),
    )


def _about(event: Event) -> str | None:
    """Whom the event is about. A report is about its sender, whatever its fields say."""
    if event.client is not None:
        return event.client
    named = event.fields.get("client")
    return named.lower() if isinstance(named, str) and named else None


def _event(row: Sequence[Any]) -> Event:
    return Event(
        id=row[0],
        time_us=row[1],
        received_us=row[2],
        client=row[3],
        event_class=EventClass(row[5]),
        severity=Severity(row[6]),
        code=row[7],
        msg=row[8],
        fields=json.loads(row[9]),
    )


def _where(query: EventQuery) -> tuple[str, list[Any]]:
    """Return the WHERE clause (empty for all) and the values for its places."""
    given: list[tuple[str, Any]] = [
        ("about = ?", None if query.client is None else query.client.lower()),
        ("class = ?", None if query.event_class is None else query.event_class.value),
        ("severity >= ?", None if query.severity is None else int(query.severity)),
        ("code = ?", query.code),
        ("row_id > ?", query.after_rowid),
        ("row_id < ?", query.before_rowid),
    ]
    clauses = [clause for clause, value in given if value is not None]
    values = [value for _, value in given if value is not None]
    span, span_values = _span(query.since_us, query.until_us)
    clauses += span
    where = f"WHERE {' AND '.join(clauses)}" if clauses else ""
    return where, values + span_values


def _span(since_us: int | None, until_us: int | None) -> tuple[list[str], list[Any]]:
    """Terms for "happened or arrived within"."""
    bounds = [
        (operator, value)
        for operator, value in ((">=", since_us), ("<", until_us))
        if value is not None
    ]
    if not bounds:
        return [], []
    sides = [
        " AND ".join(f"{column} {operator} ?" for operator, _ in bounds)
        for column in ("time_us", "received_us")
    ]
    return [f"(({sides[0]}) OR ({sides[1]}))"], [value for _, value in bounds] * 2


# ---- clients -----------------------------------------------------------------------------------


def client_record(connection: sqlite3.Connection, name: str) -> ClientRecord | None:
    """Return one registration."""
    row = connection.execute("SELECT * FROM clients WHERE name = ?", (name,)).fetchone()
    return None if row is None else _client_record(row)


def clients(connection: sqlite3.Connection) -> list[ClientRecord]:
    """Return all registrations by name."""
    return [
        _client_record(row) for row in connection.execute("SELECT * FROM clients ORDER BY name")
    ]


def register(
    connection: sqlite3.Connection, name: str, verifier: Verifier, now_us: int, user: str
) -> bool:
    """Keep a verifier; True where it replaces one."""
    replaced = client_record(connection, name) is not None
    connection.execute(
        "INSERT OR REPLACE INTO clients VALUES (?, ?, ?, ?, ?)",
        (name, verifier.salt, verifier.verifier, now_us, user),
    )
    return replaced


def remove(connection: sqlite3.Connection, name: str) -> bool:
    """Take a registration out, with the commands that wait."""
    connection.execute("DELETE FROM commands WHERE client = ? AND acknowledged_us IS NULL", (name,))
    return connection.execute("DELETE FROM clients WHERE name = ?", (name,)).rowcount > 0


def load_client_states(connection: sqlite3.Connection) -> dict[str, ClientState]:
    """Return all states by name."""
    states = [_client_state(row) for row in connection.execute("SELECT * FROM client_states")]
    return {state.name: state for state in states}


def save_client_state(connection: sqlite3.Connection, state: ClientState) -> None:
    """Keep a state instead of the one before."""
    latest = {status.value: time_us for status, time_us in state.latest.items()}
    connection.execute(
        "INSERT OR REPLACE INTO client_states VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            state.name,
            state.status.value,
            state.instance,
            state.last_seen_us,
            state.address,
            int(state.is_overdue),
            json.dumps(latest),
        ),
    )


def _client_record(row: Sequence[Any]) -> ClientRecord:
    name, salt, verifier, registered_us, registered_by = row
    try:
        return ClientRecord(name, Verifier(salt, verifier), registered_us, registered_by)
    except FormatError as error:
        raise StorageError(f"the registration of {name} is damaged: {error}") from error


def _client_state(row: Sequence[Any]) -> ClientState:
    name, status, instance, last_seen_us, address, is_overdue, latest = row
    return ClientState(
        name=name,
        status=ClientStatus(status),
        instance=instance,
        last_seen_us=last_seen_us,
        address=address,
        is_overdue=bool(is_overdue),
        latest={ClientStatus(word): time_us for word, time_us in json.loads(latest).items()},
    )


# ---- commands ----------------------------------------------------------------------------------


def queue_command(
    connection: sqlite3.Connection,
    client: str,
    verb: str,
    user: str,
    now_us: int,
    expires_us: int | None,
) -> int:
    """Queue a command; return its number.

    Raises:
        TooManyCommandsError: as many wait as may.
    """
    if len(pending_commands(connection, client, now_us)) >= COMMANDS_PENDING_MAX:
        raise TooManyCommandsError(client)
    return _inserted(
        connection,
        "INSERT INTO commands (client, verb, user, queued_us, expires_us) VALUES (?, ?, ?, ?, ?)",
        (client, verb, user, now_us, expires_us),
    )


def pending_commands(connection: sqlite3.Connection, client: str, now_us: int) -> list[Command]:
    """Return what is neither acknowledged nor expired, oldest first."""
    rows = connection.execute(
        f"SELECT {_COMMAND_COLUMNS} FROM commands "  # noqa: S608
        "WHERE client = ? AND acknowledged_us IS NULL AND (expires_us IS NULL OR expires_us > ?) "
        "ORDER BY id",
        (client, now_us),
    )
    return [Command(*row) for row in rows]


def mark_command_delivered(connection: sqlite3.Connection, command_id: int, now_us: int) -> None:
    """Note that it was sent; the last time counts."""
    connection.execute("UPDATE commands SET delivered_us = ? WHERE id = ?", (now_us, command_id))


def acknowledge_command(
    connection: sqlite3.Connection,
    command_id: int,
    outcome: str,
    detail: str,
    now_us: int,
    client: str | None,
) -> Command | None:
    """Note what came of a pending command; None where there is none for that client."""
    if command_id > SEQUENCE_MAX:
        return None
    row = connection.execute(
        "UPDATE commands SET outcome = ?, detail = ?, acknowledged_us = ? "  # noqa: S608
        "WHERE id = ? AND acknowledged_us IS NULL AND client = coalesce(?, client) "
        f"RETURNING {_COMMAND_COLUMNS}",
        (outcome, detail, now_us, command_id, client),
    ).fetchone()
    return None if row is None else Command(*row)


# ---- proposals ---------------------------------------------------------------------------------


def add_proposal(
    connection: sqlite3.Connection,
    client: str,
    path: str,
    size_bytes: int,
    sha256: bytes,
    now_us: int,
) -> tuple[int, str | None]:
    """Keep a proposal; return its number and the path of the one that it supersedes."""
    superseded = proposals(connection, client)
    connection.execute("DELETE FROM proposals WHERE client = ?", (client,))
    number = _inserted(
        connection,
        "INSERT INTO proposals (client, path, size_bytes, sha256, received_us) "
        "VALUES (?, ?, ?, ?, ?)",
        (client, path, size_bytes, sha256, now_us),
    )
    return number, superseded[0].path if superseded else None


def proposals(connection: sqlite3.Connection, client: str | None) -> list[Proposal]:
    """Return the proposals of one client or of all, by client."""
    rows = connection.execute(
        f"SELECT {_PROPOSAL_COLUMNS} FROM proposals "  # noqa: S608
        "WHERE client = coalesce(?, client) ORDER BY client",
        (client,),
    )
    return [Proposal(*row) for row in rows]


def proposal(connection: sqlite3.Connection, proposal_id: int) -> Proposal | None:
    """Return one proposal."""
    row = connection.execute(
        f"SELECT {_PROPOSAL_COLUMNS} FROM proposals WHERE id = ?",  # noqa: S608
        (proposal_id,),
    ).fetchone()
    return None if row is None else Proposal(*row)


def remove_proposal(connection: sqlite3.Connection, proposal_id: int) -> str | None:
    """Forget a proposal; return the path of its file, or None where there was none."""
    row = connection.execute(
        "DELETE FROM proposals WHERE id = ? RETURNING path", (proposal_id,)
    ).fetchone()
    return None if row is None else str(row[0])


# ---- secrets -----------------------------------------------------------------------------------


def secret(
    connection: sqlite3.Connection, name: str, random_bytes: Callable[[int], bytes]
) -> bytes:
    """Return the secret, making it where there is none yet."""
    connection.execute(
        "INSERT INTO secrets VALUES (?, ?) ON CONFLICT DO NOTHING",
        (name, random_bytes(SECRET_BYTES)),
    )
    row = connection.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()
    value: bytes = row[0]
    return value


def _inserted(connection: sqlite3.Connection, sql: str, values: Sequence[Any]) -> int:
    number = connection.execute(sql, values).lastrowid
    assert number is not None
    return number
