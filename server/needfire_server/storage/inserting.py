"""INSERT in the words of a database, which has ON CONFLICT; the other database's are not loaded."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

__all__ = ["insert_for"]


def insert_for(connection: sa.Connection, table: sa.Table) -> Any:
    """Return an INSERT of the connection's dialect."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    # The driver's module has loaded it.
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)
