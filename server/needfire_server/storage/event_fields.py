"""What the fields of an event hold, asked of their text: the database need not take JSON apart.

The text is always written the same way (``event_rows.py``): flat, without blanks, keys as they are.
Within a value each quote has a backslash before it. So ``"path":"/etc/`` stands in it exactly where
the field ``path`` begins with ``/etc/``, and looking for that costs a tenth of reading the JSON.
"""

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from needfire_server.storage import tables

__all__ = ["field_is", "field_is_at_or_below"]


class _Position(GenericFunction[int]):
    """Where a text stands in another one; each database has its own name for it. 0: nowhere."""

    type = sa.Integer()
    inherit_cache = True
    name = "needfire_position"


def field_is(name: str, value: str) -> sa.ColumnElement[bool]:
    """Return whether a field of the table of events is this text."""
    return _begins(name, _quoted(value))


def field_is_at_or_below(name: str, directory: str) -> sa.ColumnElement[bool]:
    """Return whether a field is this path, or one below it; the root is the empty text."""
    return _begins(name, _quoted(directory), f"{_quoted(directory)[:-1]}/")


def _begins(name: str, *starts: str) -> sa.ColumnElement[bool]:
    """Texts of the same length. Nearly always the field is the first one; that is seen soonest."""
    key = f'"{name}":'
    fields = tables.events.c.fields
    whole = [key + start for start in starts]
    anywhere = sa.or_(*(_Position(fields, each) > sa.literal_column("0") for each in whole))
    beginning = sa.func.substr(fields, 2, len(whole[0]))
    return sa.case(
        (
            sa.func.substr(fields, 2, len(key)) == key,
            sa.or_(*(beginning == each for each in whole)),
        ),
        else_=anywhere,
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@compiles(_Position, "sqlite")
def _in_sqlite(element: _Position, compiler: SQLCompiler, **options: Any) -> str:
    return f"instr({compiler.process(element.clauses, **options)})"


@compiles(_Position, "postgresql")
def _in_postgresql(element: _Position, compiler: SQLCompiler, **options: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **options)})"
