"""How a SQLite file comes to the schema of this version: copied first, then changed in one commit.

``PRAGMA user_version`` is the number of the last step, beside the table that Alembic keeps: programs
of before Alembic look only there, and must see that they are too old.
"""

import os
import sqlite3
from typing import Final

import sqlalchemy as sa

from needfire_protocol.errors import StorageError
from needfire_server.storage.migrations import Steps

__all__ = ["APPLICATION_ID", "migrate"]

APPLICATION_ID: Final = 0x4E664972
"""Stands in the file's header; ``file`` and we know by it whose database it is."""

_BEFORE_ALEMBIC: Final = 1
"""The only step that databases have taken without Alembic."""


def migrate(connection: sa.Connection, path: str, steps: Steps) -> None:
    """Bring the database to the last step; a copy of one with data is made before.

    The copy is ``PATH.vN.backup``, N being the step that it has taken. All steps are one
    transaction, so that a crash leaves the database as it was or as it is to be.

    Raises:
        StorageError: the database belongs to a newer version or to another program.
        sqlalchemy.exc.SQLAlchemyError: it could not be read or written.
    """
    version = _pragma(connection, "user_version")
    if version > steps.latest or steps.taken(connection) is None:
        raise StorageError(
            f"{path} has schema {version}, written by a newer version of Needfire; this one knows "
            f"up to {steps.latest}. Run the newer version, or restore the backup from before its "
            "update"
        )
    is_empty = version == 0 and not _count_schema(connection)
    if not is_empty and _pragma(connection, "application_id") != APPLICATION_ID:
        raise StorageError(f"{path} is a database of another program, not a store of Needfire")
    if version == steps.latest:
        return
    connection.rollback()  # What only looked must not be open while the file is copied.
    if not is_empty:
        _back_up(connection, f"{path}.v{version}.backup")
    with connection.begin():
        if version == _BEFORE_ALEMBIC and steps.taken(connection) == 0:
            steps.adopt(connection, _BEFORE_ALEMBIC)
        steps.take(connection)
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.exec_driver_sql(f"PRAGMA user_version = {steps.latest}")


def _back_up(connection: sa.Connection, path: str) -> None:
    partial = f"{path}.part"
    # Made before SQLite opens it, so that it never has other permissions for a moment.
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600))
    source = connection.connection.driver_connection
    assert isinstance(source, sqlite3.Connection)
    copy = sqlite3.connect(partial)
    try:
        source.backup(copy)
    finally:
        copy.close()
    os.replace(partial, path)


def _pragma(connection: sa.Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())


def _count_schema(connection: sa.Connection) -> int:
    return int(connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema").scalar_one())
