"""The statements of the store that are no part of storing reports: each function is one operation.

Writing functions run inside a transaction that the caller begins and commits; reading ones need
none. Nothing here waits, and nothing of a peer's ever becomes part of a statement's text.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import sqlalchemy as sa

from needfire_protocol.errors import StorageError
from needfire_protocol.srp import Verifier
from needfire_server.states import ClientState, ClientStatus
from needfire_server.storage import tables
from needfire_server.storage.base import (
    COMMANDS_PENDING_MAX,
    EVENTS_PAGE_MAX,
    Command,
    EventQuery,
    Proposal,
    TooManyCommandsError,
)
from needfire_server.storage.client_rows import stored_form
from needfire_server.storage.engine import Transaction
from needfire_server.storage.event_fields import field_is, field_is_at_or_below
from needfire_server.storage.event_rows import EVENT_COLUMNS
from needfire_server.storage.inserting import upsert_for
from needfire_server.storage.reading import among
from needfire_server.verifier_seal import VerifierSeal

__all__ = [
    "acknowledge_command",
    "add_proposal",
    "all_known",
    "client_states",
    "clients_with_commands",
    "event_count",
    "event_query",
    "known",
    "last_rowid",
    "load_client_states",
    "mark_command_delivered",
    "missing_reports",
    "pending_commands",
    "proposal",
    "proposals",
    "queue_command",
    "register",
    "remember",
    "remove",
    "remove_proposal",
    "save_client_states",
    "secret",
]

NUMBER_MAX: Final = 2**63 - 1
SECRET_BYTES: Final = 32
GapKey: TypeAlias = tuple[str, bytes, int]
"""Client, stream and first number of a gap."""
_GAPS_PAGE: Final = 10_000
"""Gaps that are counted at once: some 7 ms of one of the few threads that read."""


# ---- events ------------------------------------------------------------------------------------


def event_query(query: EventQuery) -> sa.Select[Any]:
    """Return the statement that answers a query.

    Its parameters ``after``, ``before`` and ``count`` are the query's, unless others are given: a
    search asks the same of many stretches, and making the statement takes longer than most answers.
    """
    columns = [tables.events.c[name] for name in EVENT_COLUMNS]
    order = tables.events.c.row_id
    limit = min(max(query.limit, 1), EVENTS_PAGE_MAX)
    return (
        sa.select(*columns)
        .where(*_conditions(query))
        .order_by(order.desc() if query.newest_first else order)
        .limit(sa.bindparam("count", limit, sa.Integer))
    )


def event_count(query: EventQuery) -> sa.Select[Any]:
    """Return the statement that counts: how many of the newest match, and their lowest row_id.

    Its parameters are those of ``event_query``; ``count`` is how many are counted at most.
    """
    row_id = tables.events.c.row_id
    newest = (
        sa.select(row_id)
        .where(*_conditions(query))
        .order_by(row_id.desc())
        .limit(sa.bindparam("count", 1, sa.Integer))
        .subquery()
    )
    counts: list[sa.ColumnElement[Any]] = [sa.func.count(), sa.func.min(newest.c.row_id)]
    return sa.select(*counts).select_from(newest)


def last_rowid(connection: sa.Connection) -> int:
    """Return the number of the event that was stored last, or 0."""
    return int(
        connection.execute(
            sa.select(tables.counters.c.value).where(tables.counters.c.name == "events")
        ).scalar_one()
    )


def missing_reports(connection: sa.Connection, behind: GapKey | None) -> tuple[int, GapKey | None]:
    """Return how many numbers never came in the next gaps behind one, and which one is the last.

    That is None where no more are left: a hostile client can make very many.
    """
    gaps = tables.stream_gaps.c
    key = sa.tuple_(gaps.client, gaps.stream, gaps.first_sequence)
    here = sa.true() if behind is None else key > behind
    place = sa.select(gaps.client, gaps.stream, gaps.first_sequence).where(here)
    end = connection.execute(place.order_by(*key).offset(_GAPS_PAGE - 1).limit(1)).first()
    last: GapKey | None = None if end is None else (end[0], end[1], end[2])
    # As floating-point numbers: two gaps of a hostile client's would overflow integers.
    length = sa.cast(gaps.last_sequence, sa.Double) - gaps.first_sequence + 1
    until = sa.true() if last is None else key <= last
    found = connection.execute(sa.select(sa.func.sum(length)).where(here, until)).scalar()
    return int(found or 0), last


def _conditions(query: EventQuery) -> list[sa.ColumnElement[bool]]:
    column = tables.events.c
    terms: list[sa.ColumnElement[bool]] = []
    if query.client is not None:
        terms.append(column.about == query.client.lower())
    if query.event_class is not None:
        terms.append(column["class"] == query.event_class.value)
        if query.event_class.value != tables.BULK_CLASS:
            terms.append(tables.rare_class())
    if query.code is not None:
        terms.append(column.code == query.code)
        if query.code not in tables.BULK_CODES:
            terms.append(tables.rare_code())
    if query.severity is not None:
        terms.append(column.severity >= int(query.severity))
    terms += _place(query)
    if query.request is not None:
        terms += [column.client.is_(None), field_is("request", query.request)]
    after = query.after_rowid or 0
    before = NUMBER_MAX if query.before_rowid is None else query.before_rowid
    terms.append(column.row_id > sa.bindparam("after", after))
    terms.append(column.row_id < sa.bindparam("before", before))
    return terms + list(_span(query.since_us, query.until_us))


def _place(query: EventQuery) -> Iterator[sa.ColumnElement[bool]]:
    if query.path is not None:
        yield field_is("path", query.path)
    if query.below is not None:
        yield field_is_at_or_below("path", query.below)


def _span(since_us: int | None, until_us: int | None) -> Iterator[sa.ColumnElement[bool]]:
    """Terms for "happened or arrived within"."""
    if since_us is None and until_us is None:
        return
    sides = []
    for column in (tables.events.c.time_us, tables.events.c.received_us):
        bounds = []
        if since_us is not None:
            bounds.append(column >= since_us)
        if until_us is not None:
            bounds.append(column < until_us)
        sides.append(sa.and_(*bounds))
    yield sa.or_(*sides)


# ---- clients -----------------------------------------------------------------------------------


def register(
    connection: sa.Connection,
    name: str,
    verifier: Verifier,
    now_us: int,
    user: str,
    seal: VerifierSeal | None,
) -> bool:
    """Keep a verifier; True where it replaces one.

    Raises:
        SealKeyError: the store is sealed with another key.
    """
    is_known = tables.clients.c.name == name
    replaced = connection.execute(sa.select(tables.clients.c.name).where(is_known)).first()
    _upsert(
        connection,
        tables.clients,
        [
            {
                "name": name,
                "salt": verifier.salt,
                "verifier": stored_form(connection, name, verifier, seal),
                "registered_us": now_us,
                "registered_by": user,
            }
        ],
    )
    return replaced is not None


def remove(connection: sa.Connection, name: str) -> bool:
    """Take a registration out, with the commands that wait."""
    waiting = tables.commands.c.acknowledged_us.is_(None)
    connection.execute(sa.delete(tables.commands).where(tables.commands.c.client == name, waiting))
    gone = connection.execute(sa.delete(tables.clients).where(tables.clients.c.name == name))
    return gone.rowcount > 0


def load_client_states(connection: sa.Connection) -> dict[str, ClientState]:
    """Return all states by name."""
    rows = connection.execute(sa.select(tables.client_states))
    return {row[0]: _client_state(row) for row in rows}


def client_states(
    connection: sa.Connection, names: Sequence[str]
) -> dict[str, ClientState | StorageError]:
    """Return the states of some clients by name; of one that is damaged, what is wrong with it."""
    table = tables.client_states
    found: dict[str, ClientState | StorageError] = {}
    for row in connection.execute(sa.select(table).where(among(table.c.name, names))):
        try:
            found[row[0]] = _client_state(row)
        except StorageError as error:
            found[row[0]] = error
    return found


def save_client_states(transaction: Transaction, states: Sequence[ClientState]) -> None:
    """Keep states instead of those before."""
    transaction.run(
        _SAVE_STATE,
        [
            (
                state.name,
                state.status.value,
                state.instance,
                state.last_seen_us,
                state.address,
                int(state.is_overdue),
                json.dumps({key.value: at_us for key, at_us in state.latest.items()}),
            )
            for state in states
        ],
    )


_STATE_COLUMNS: Final = tuple(column.name for column in tables.client_states.columns)
_SAVE_STATE: Final = (
    f"INSERT INTO client_states ({', '.join(_STATE_COLUMNS)}) "  # noqa: S608
    f"VALUES ({', '.join('?' * len(_STATE_COLUMNS))}) ON CONFLICT (name) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _STATE_COLUMNS[1:])
)


def _client_state(row: Sequence[Any]) -> ClientState:
    name, status, instance, last_seen_us, address, is_overdue, latest = row
    try:
        return ClientState(
            name=name,
            status=ClientStatus(status),
            instance=instance,
            last_seen_us=last_seen_us,
            address=address,
            is_overdue=bool(is_overdue),
            latest={ClientStatus(word): at_us for word, at_us in json.loads(latest).items()},
        )
    except (ValueError, TypeError, AttributeError) as error:
        # Not what we have written; perhaps a newer server has.
        raise StorageError(f"the state of {name} is damaged: {error}") from error


# ---- commands ----------------------------------------------------------------------------------


def queue_command(
    connection: sa.Connection,
    client: str,
    verb: str,
    user: str,
    now_us: int,
    expires_us: int | None,
    request: str | None,
) -> int:
    """Queue a command; return its number.

    Raises:
        TooManyCommandsError: as many wait as may.
    """
    if len(pending_commands(connection, client, now_us)) >= COMMANDS_PENDING_MAX:
        raise TooManyCommandsError(client)
    table = tables.commands
    return int(
        connection.execute(
            sa.insert(table)
            .values(
                client=client,
                verb=verb,
                user=user,
                queued_us=now_us,
                expires_us=expires_us,
                request=request,
            )
            .returning(table.c.id)
        ).scalar_one()
    )


def pending_commands(connection: sa.Connection, client: str, now_us: int) -> list[Command]:
    """Return what is neither acknowledged nor expired, oldest first."""
    column = tables.commands.c
    rows = connection.execute(
        sa.select(tables.commands)
        .where(
            column.client == client,
            column.acknowledged_us.is_(None),
            sa.or_(column.expires_us.is_(None), column.expires_us > now_us),
        )
        .order_by(column.id)
    )
    return [Command(*row) for row in rows]


def clients_with_commands(connection: sa.Connection) -> set[str]:
    """Return the clients that have not acknowledged something."""
    table = tables.commands
    query = sa.select(table.c.client).where(table.c.acknowledged_us.is_(None)).distinct()
    return set(connection.execute(query).scalars())


def mark_command_delivered(connection: sa.Connection, command_id: int, now_us: int) -> None:
    """Note that it was sent; the last time counts."""
    table = tables.commands
    connection.execute(sa.update(table).where(table.c.id == command_id).values(delivered_us=now_us))


def acknowledge_command(
    connection: sa.Connection,
    command_id: int,
    outcome: str,
    detail: str,
    now_us: int,
    client: str | None,
) -> Command | None:
    """Note what came of a pending command; None where there is none for that client."""
    if command_id > NUMBER_MAX:
        return None
    table = tables.commands
    statement = (
        sa.update(table)
        .where(table.c.id == command_id, table.c.acknowledged_us.is_(None))
        .values(outcome=outcome, detail=detail, acknowledged_us=now_us)
        .returning(*table.c)
    )
    if client is not None:
        statement = statement.where(table.c.client == client)
    row = connection.execute(statement).first()
    return None if row is None else Command(*row)


# ---- proposals ---------------------------------------------------------------------------------


def add_proposal(
    connection: sa.Connection,
    client: str,
    path: str,
    size_bytes: int,
    sha256: bytes,
    now_us: int,
) -> tuple[int, str | None]:
    """Keep a proposal; return its number and the path of the one that it supersedes."""
    table = tables.proposals
    superseded = connection.execute(
        sa.delete(table).where(table.c.client == client).returning(table.c.path)
    ).scalar()
    number = connection.execute(
        sa.insert(table)
        .values(client=client, path=path, size_bytes=size_bytes, sha256=sha256, received_us=now_us)
        .returning(table.c.id)
    ).scalar_one()
    return int(number), superseded


def proposals(connection: sa.Connection, client: str | None) -> list[Proposal]:
    """Return the proposals of one client or of all, by client."""
    statement = sa.select(tables.proposals).order_by(tables.proposals.c.client)
    if client is not None:
        statement = statement.where(tables.proposals.c.client == client)
    return [Proposal(*row) for row in connection.execute(statement)]


def proposal(connection: sa.Connection, proposal_id: int) -> Proposal | None:
    """Return one proposal."""
    row = connection.execute(
        sa.select(tables.proposals).where(tables.proposals.c.id == proposal_id)
    ).first()
    return None if row is None else Proposal(*row)


def remove_proposal(connection: sa.Connection, proposal_id: int) -> str | None:
    """Forget a proposal; return the path of its file, or None where there was none."""
    table = tables.proposals
    path: str | None = connection.execute(
        sa.delete(table).where(table.c.id == proposal_id).returning(table.c.path)
    ).scalar()
    return path


# ---- secrets -----------------------------------------------------------------------------------


def secret(connection: sa.Connection, name: str, random_bytes: Callable[[int], bytes]) -> bytes:
    """Return the secret, making it where there is none yet."""
    column = tables.secrets.c
    known: bytes | None = connection.execute(
        sa.select(column.value).where(column.name == name)
    ).scalar()
    if known is not None:
        return known
    made = random_bytes(SECRET_BYTES)
    connection.execute(sa.insert(tables.secrets).values(name=name, value=made))
    return made


def renew_secret(
    connection: sa.Connection, name: str, random_bytes: Callable[[int], bytes]
) -> bytes:
    """Make another secret of that name, and return it."""
    connection.execute(sa.delete(tables.secrets).where(tables.secrets.c.name == name))
    return secret(connection, name, random_bytes)


def known(transaction: Transaction, name: str) -> str | None:
    """Return what was last remembered under a name."""
    row = transaction.ask("SELECT value FROM known WHERE name = ?", (name,))
    return None if row is None else row[0]


def all_known(connection: sa.Connection, prefix: str) -> dict[str, str]:
    """Return what was last remembered under names that begin with a prefix, by the rest of them."""
    column = tables.known.c
    rows = connection.execute(
        sa.select(column.name, column.value).where(column.name.startswith(prefix, autoescape=True))
    )
    return {name.removeprefix(prefix): value for name, value in rows}


def remember(transaction: Transaction, name: str, value: str) -> None:
    """Keep a value under a name, instead of the one before."""
    transaction.run(
        "INSERT INTO known (name, value) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [(name, value)],
    )


def _upsert(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows, each instead of the one with the same key."""
    if not rows:
        return
    connection.execute(upsert_for(connection, table, tuple(rows[0])), rows)
