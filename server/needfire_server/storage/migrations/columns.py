"""Columns and tables for the migrations: 64-bit numbers and text ordered by bytes, everywhere.

These must never change: a step that was taken once must mean the same for ever.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

__all__ = ["identity", "make_table", "number", "octets", "text"]


def number(name: str, **options: Any) -> sa.Column[Any]:
    """Return a column for whole numbers; NOT NULL unless told otherwise."""
    return _column(name, sa.Integer().with_variant(sa.BigInteger(), "postgresql"), options)


def text(name: str, **options: Any) -> sa.Column[Any]:
    """Return a column for text."""
    return _column(name, sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), options)


def octets(name: str, **options: Any) -> sa.Column[Any]:
    """Return a column for bytes."""
    return _column(name, sa.LargeBinary(), options)


def identity(name: str) -> sa.Column[Any]:
    """Return a key whose numbers are told to people or clients: none is ever used again."""
    kind = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
    return sa.Column(name, kind, sa.Identity(always=False), primary_key=True)


def make_table(name: str, *columns: sa.Column[Any]) -> sa.Table:
    """Create a table; strict about types, and stored by its key where that is no single number."""
    has_identity = any(column.identity is not None for column in columns)
    keys = [column for column in columns if column.primary_key]
    return op.create_table(
        name,
        *columns,
        sqlite_strict=True,
        sqlite_autoincrement=has_identity,
        sqlite_with_rowid=len(keys) == 1,
    )


def _column(name: str, kind: Any, options: dict[str, Any]) -> sa.Column[Any]:
    options.setdefault("nullable", False)
    if options.get("primary_key"):
        options.setdefault("autoincrement", False)
    return sa.Column(name, kind, **options)
