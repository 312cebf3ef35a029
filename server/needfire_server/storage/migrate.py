"""How a database comes to the schema of this version: one numbered step after another.

``PRAGMA user_version`` is the number of the last step taken. Each step and its number are one
transaction, so a crash leaves the database before the step or after it.
"""

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from needfire_protocol.errors import StorageError

__all__ = ["APPLICATION_ID", "Step", "migrate", "steps"]

APPLICATION_ID: Final = 0x4E664972
"""Stands in the file's header; ``file`` and we know by it whose database it is."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change of the schema: its number, from 1 without gaps, and its SQL."""

    number: int
    sql: str


def steps() -> tuple[Step, ...]:
    """Return every step that this version knows, in order."""
    return _STEPS


def _load() -> tuple[Step, ...]:
    folder = files("needfire_server.storage.schema")
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    ordered = tuple(
        Step(int(entry.name[:4]), entry.read_text("utf-8"))
        for entry in sorted(found, key=lambda entry: entry.name)
    )
    assert [step.number for step in ordered] == list(range(1, len(ordered) + 1))
    return ordered


_STEPS: Final = _load()
"""Read at the import: later the process may not have the right to read the program's files."""


def migrate(connection: sqlite3.Connection, path: str, known: tuple[Step, ...]) -> None:
    """Bring the database to the last known step; a copy of one with data is made before.

    The copy is ``PATH.vN.backup``, N being the version that it has.

    Raises:
        StorageError: the database belongs to a newer version or to another program.
        sqlite3.Error: it could not be read or written.
    """
    version = _pragma(connection, "user_version")
    latest = known[-1].number
    if version > latest:
        raise StorageError(
            f"{path} has schema {version}, written by a newer version of Needfire; this one knows "
            f"up to {latest}. Run the newer version, or restore the backup from before its update"
        )
    is_empty = version == 0 and not connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
    if not is_empty and _pragma(connection, "application_id") != APPLICATION_ID:
        raise StorageError(f"{path} is a database of another program, not a store of Needfire")
    if version == latest:
        return
    if not is_empty:
        _back_up(connection, f"{path}.v{version}.backup")
    for step in known[version:]:
        _take(connection, step)


def _take(connection: sqlite3.Connection, step: Step) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _statements(step.sql):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {step.number}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """Split a script: ``executescript`` would commit before it begins."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    assert not statement.strip(), "a step ends inside a statement"


def _back_up(connection: sqlite3.Connection, path: str) -> None:
    partial = f"{path}.part"
    # Made before SQLite opens it, so that it never has other permissions for a moment.
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600))
    copy = sqlite3.connect(partial)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    os.replace(partial, path)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
