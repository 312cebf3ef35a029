"""The statements of the audit log: each function is one operation on an open connection.

What every commit asks goes to the driver itself (``engine.py``). As in ``statements.py``: writing
functions run inside a transaction that the caller begins and commits. The state of the log is read
from the database by each append and never kept in memory, so what is rolled back leaves no trace,
and several servers continue one log.
"""

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from needfire_protocol.audit.merkle import HASH_BYTES, Frontier, leaf_hash, node_hash
from needfire_protocol.audit.record import FIRST_PREVIOUS, Moment, encode_record
from needfire_protocol.errors import StorageError
from needfire_server import clock
from needfire_server.storage.audit_base import (
    AuditHead,
    AuditIncompleteError,
    StoredCheckpoint,
    StoredKey,
    Stray,
)
from needfire_server.storage.audit_summary import record_summary, row_of_draft
from needfire_server.storage.engine import Transaction, is_taken
from needfire_server.storage.summaries import BLOCK_ROWS, BLOCK_ROWS_MIN, add, left
from needfire_server.storage.tables import (
    audit_checkpoints,
    audit_head,
    audit_keys,
    audit_nodes,
    audit_records,
    audit_summaries,
)
from needfire_server.storage.unsummed import Rows

__all__ = [
    "add_checkpoint",
    "add_key",
    "append",
    "checkpoints",
    "head",
    "keys",
    "last_checkpoint",
    "records",
    "stray",
    "subtrees",
]

LEVEL_STEP: Final = 4
"""Nodes are kept of every fourth level: one row for 15 records, and 16 reads a level at most."""


def append(transaction: Transaction) -> None:
    """Append what the transaction has to record; nobody else writes until its end."""
    if not transaction.drafts:
        return
    state = _state(transaction.ask("SELECT size, previous, frontier FROM audit_head WHERE id = 1"))
    frontier, previous = state.frontier, state.previous
    moment = Moment(clock.now_us(), clock.boottime_us())
    lines, nodes, rows = [], [], []
    for number, draft in enumerate(transaction.drafts, frontier.size):
        line = encode_record(number, previous, moment, draft)
        previous = leaf_hash(line)
        lines.append((number, line))
        rows.append(row_of_draft(number, moment.time_us, draft))
        nodes += [node for node in frontier.complete(previous) if node[0] % LEVEL_STEP == 0]
    _insert(transaction, lines)
    transaction.insert_many("audit_nodes", ("level", "position", "hash"), nodes)
    _save_head(transaction, AuditHead(previous, frontier))
    fields = [draft.fields for draft in transaction.drafts]
    together = transaction.unsummed_records.add((rows, fields), BLOCK_ROWS_MIN)
    if together is not None:
        _add_summaries(transaction, left(transaction, "audit_summaries", together))


def _add_summaries(transaction: Transaction, stored: Rows) -> None:
    rows, fields = stored
    parts = (slice(at, at + BLOCK_ROWS) for at in range(0, len(rows), BLOCK_ROWS))
    made = [record_summary(rows[part], fields[part]) for part in parts]
    add(transaction, audit_summaries, made)


def _insert(transaction: Transaction, lines: Sequence[tuple[int, bytes]]) -> None:
    try:
        transaction.insert_many("audit_records", ("number", "record"), lines)
    except transaction.engine.errors as error:
        if not is_taken(error):
            raise
        # Only one server writes at a time, and each begins where the log ends.
        raise StorageError(
            f"{transaction.engine.name}: the audit log ends before record {lines[0][0]}, and there "
            "is a record in audit_records that the server did not write: somebody put it there; "
            "needfire-admin audit verify --store says which one"
        ) from error


def head(connection: sa.Connection) -> AuditHead:
    """Return how far the log is.

    Raises:
        StorageError: what the database has of it cannot be.
    """
    return _state(connection.execute(_HEAD).first())


def _state(row: Sequence[Any] | None) -> AuditHead:
    if row is None:
        return AuditHead(FIRST_PREVIOUS, Frontier())
    size, previous, joined = row
    hashes = [joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES)]
    try:
        return AuditHead(previous, Frontier(size, hashes))
    except ValueError as error:
        raise StorageError(f"the state of the audit log is damaged: {error}") from None


_HEAD: Final = sa.select(audit_head.c.size, audit_head.c.previous, audit_head.c.frontier)


def _save_head(transaction: Transaction, state: AuditHead) -> None:
    transaction.run(
        "INSERT INTO audit_head (id, size, previous, frontier) VALUES (?, ?, ?, ?) ON CONFLICT (id) "
        "DO UPDATE SET size = excluded.size, previous = excluded.previous, "
        "frontier = excluded.frontier",
        [(1, state.size, state.previous, b"".join(state.frontier.hashes))],
    )


def add_key(connection: sa.Connection, key: StoredKey, after: str | None) -> bool:
    """Keep a key; False where the latest one is not ``after``."""
    known = keys(connection)
    if (known[-1].key if known else None) != after:
        return False
    row = {"number": len(known) + 1, "key": key.key, "signature": key.signature}
    connection.execute(sa.insert(audit_keys), row)
    return True


def keys(connection: sa.Connection) -> list[StoredKey]:
    """Return all keys, oldest first."""
    wanted = sa.select(audit_keys.c.key, audit_keys.c.signature).order_by(audit_keys.c.number)
    return [StoredKey(*row) for row in connection.execute(wanted)]


def add_checkpoint(connection: sa.Connection, checkpoint: StoredCheckpoint, key: str) -> bool:
    """Keep a checkpoint; False where its number is not the next one, or the key not the latest."""
    last = last_checkpoint(connection)
    known = keys(connection)
    if not known or known[-1].key != key:
        # Behind the record that hands over, what the old key signs is a forgery to any check.
        return False
    if checkpoint.number != (0 if last is None else last.number) + 1:
        return False
    row = {"number": checkpoint.number, "size": checkpoint.size, "note": checkpoint.note}
    connection.execute(sa.insert(audit_checkpoints), row)
    return True


def last_checkpoint(connection: sa.Connection) -> StoredCheckpoint | None:
    """Return the latest checkpoint."""
    row = connection.execute(
        _CHECKPOINTS.order_by(audit_checkpoints.c.number.desc()).limit(1)
    ).first()
    return None if row is None else StoredCheckpoint(*row)


def checkpoints(connection: sa.Connection, after: int, count: int) -> list[StoredCheckpoint]:
    """Return checkpoints behind a number, in order."""
    number = audit_checkpoints.c.number
    rows = connection.execute(_CHECKPOINTS.where(number > after).order_by(number).limit(count))
    return [StoredCheckpoint(*row) for row in rows]


_CHECKPOINTS: Final = sa.select(
    audit_checkpoints.c.number, audit_checkpoints.c.size, audit_checkpoints.c.note
)


def records(connection: sa.Connection, first: int, count: int) -> list[tuple[int, bytes]]:
    """Return (number, line) from a number on."""
    number, record = audit_records.c.number, audit_records.c.record
    wanted = sa.select(number, record).where(number >= first).order_by(number).limit(count)
    return [(row[0], row[1]) for row in connection.execute(wanted)]


def stray(connection: sa.Connection) -> Stray | None:
    """Return the first record before 0, or where the next one is to stand or behind that.

    One statement, so that a server which writes meanwhile makes none.
    """
    number = audit_records.c.number
    size = sa.func.coalesce(sa.select(audit_head.c.size).scalar_subquery(), 0)
    before = sa.select(sa.func.min(number)).where(number < 0).scalar_subquery()
    behind = sa.select(sa.func.min(number)).where(number >= size).scalar_subquery()
    row = connection.execute(sa.select(before, behind, size)).one()
    found = row[1] if row[0] is None else row[0]
    return None if found is None else Stray(found, row[2])


def subtrees(connection: sa.Connection, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the hashes of full subtrees.

    Raises:
        AuditIncompleteError: a record or a node of it is missing.
    """
    return [_subtree(connection, level, position) for level, position in wanted]


def _subtree(connection: sa.Connection, level: int, position: int) -> bytes:
    if level == 0:
        wanted = sa.select(audit_records.c.record).where(audit_records.c.number == position)
        return leaf_hash(_one(connection, wanted, position))
    if level % LEVEL_STEP == 0:
        nodes = audit_nodes.c
        is_node = (nodes.level == level) & (nodes.position == position)
        return _one(connection, sa.select(nodes.hash).where(is_node), position)
    return node_hash(
        _subtree(connection, level - 1, 2 * position),
        _subtree(connection, level - 1, 2 * position + 1),
    )


def _one(connection: sa.Connection, wanted: sa.Select[Any], position: int) -> bytes:
    found: bytes | None = connection.execute(wanted).scalar()
    if found is None:
        raise AuditIncompleteError(f"the audit log lacks what stands at {position}")
    return found
