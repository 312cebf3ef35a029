"""A question to a store's database, asked in the calling thread."""

from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from needfire_protocol.errors import StorageError
from needfire_server.storage.engine import Engine

__all__ = ["among", "read_now"]

T = TypeVar("T")
P = ParamSpec("P")


def read_now(
    engine: Engine,
    function: Callable[Concatenate[sa.Connection, P], T],
    /,
    *args: P.args,
    **kw: P.kwargs,
) -> T:
    """Return what a reading statement says; blocks, so never in the event loop's thread.

    Raises:
        StorageError: the database cannot be read.
    """
    try:
        with engine.readers.connect() as connection:
            return function(connection, *args, **kw)
    # SQLite quotes a damaged schema in its messages, and Python takes those for UTF-8. Nor has every
    # text that Python can hold a form there.
    except (sa.exc.SQLAlchemyError, UnicodeError) as error:
        text = " ".join(str(getattr(error, "orig", None) or error).split())
        raise StorageError(f"{engine.name}: {text}") from error


def among(column: sa.Column[Any], values: Sequence[Any]) -> sa.ColumnElement[bool]:
    """Return that a column has one of at least one values.

    The list is filled up to a power of four, so that the statement has few forms, and the one that
    the database has prepared is found again.
    """
    width = 1
    while width < len(values):
        width *= 4
    return column.in_([*values, *[values[-1]] * (width - len(values))])
