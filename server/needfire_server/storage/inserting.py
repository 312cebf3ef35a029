"""INSERT in the words of a database, which has ON CONFLICT; the other database's are not loaded."""

from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

__all__ = ["insert_for", "upsert_for"]


def insert_for(connection: sa.Connection, table: sa.Table) -> Any:
    """Return an INSERT of the connection's dialect."""
    return _insert(connection.dialect.name, table)


def upsert_for(connection: sa.Connection, table: sa.Table, names: tuple[str, ...]) -> sa.Insert:
    """Return an INSERT of these columns that replaces the row with the same primary key."""
    return _upsert(connection.dialect.name, table, names)


@lru_cache(maxsize=16)
def _upsert(dialect: str, table: sa.Table, names: tuple[str, ...]) -> sa.Insert:
    """Made once: putting such a statement together costs more than carrying it out."""
    insert = _insert(dialect, table)
    keys = [column.name for column in table.primary_key]
    changed = {name: insert.excluded[name] for name in names if name not in keys}
    made: sa.Insert = insert.on_conflict_do_update(index_elements=keys, set_=changed)
    return made


def _insert(dialect: str, table: sa.Table) -> Any:
    if dialect == "sqlite":
        return sqlite.insert(table)
    # The driver's module has loaded it.
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)
