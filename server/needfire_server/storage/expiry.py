"""How old things are removed: in small bites, each counted in the commit that removes it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from needfire_protocol.catalogue_entry import EventClass
from needfire_server.storage import tables
from needfire_server.storage.base import Expired, ExpiryBite, HeldBack

__all__ = ["EXPIRING", "expire", "stored_before", "take_counts"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """What of a table may expire.

    Attributes:
        row: its key, which rises with time.
        stored_us: when it was stored.
        conditions: which rows; all where there are none.
    """

    row: sa.Column[int]
    stored_us: sa.ColumnElement[int]
    conditions: Sequence[sa.ColumnElement[bool]] = ()


def _events_of(event_class: EventClass) -> _Kind:
    column = tables.events.c
    is_of_class = [column["class"] == event_class.value]
    if event_class.value != tables.BULK_CLASS:
        is_of_class.append(tables.rare_class())
    return _Kind(column.row_id, sa.func.coalesce(column.received_us, column.time_us), is_of_class)


_KINDS: Final = {each.value: _events_of(each) for each in EventClass} | {
    "unusable_reports": _Kind(
        tables.unusable_reports.c.row_id, tables.unusable_reports.c.received_us
    ),
    "commands": _Kind(
        tables.commands.c.id,
        # A command that nobody will carry out any more is as good as done.
        sa.func.coalesce(tables.commands.c.acknowledged_us, tables.commands.c.expires_us),
        [
            sa.or_(
                tables.commands.c.acknowledged_us.is_not(None),
                tables.commands.c.expires_us.is_not(None),
            )
        ],
    ),
}

EXPIRING: Final = tuple(_KINDS)
"""What may expire: the classes of events, and what else."""


def expire(
    connection: sa.Connection,
    what: str,
    before_us: int,
    from_row: int,
    rows_max: int,
    held: HeldBack | None = None,
    kept: Collection[int] = (),
) -> ExpiryBite:
    """Look at the next rows and remove those that were stored before a time.

    It ends where nothing in a whole bite is old enough: what comes later was stored later, but for
    single rows that came while the clock was wrong.
    """
    kind = _KINDS[what]
    rows = _next_rows(connection, kind, from_row, rows_max)
    old = [
        (row, stored_us)
        for row, stored_us in rows
        if stored_us < (before_us if held is None or row <= held.after_row else held.before_us)
    ]
    if not old:
        return ExpiryBite(0, None)
    gone = [each for each in old if each[0] not in kept]
    if gone:
        connection.execute(
            sa.delete(kind.row.table).where(kind.row.in_(sa.bindparam("gone", expanding=True))),
            {"gone": [row for row, _ in gone]},
        )
        times = [stored_us for _, stored_us in gone]
        _count(connection, Expired(what, len(gone), min(times), max(times)))
    return ExpiryBite(len(gone), rows[-1][0] + 1 if len(rows) == rows_max else None)


def stored_before(
    connection: sa.Connection, what: str, before_us: int, from_row: int, rows_max: int
) -> tuple[list[int], int | None]:
    """Return the next rows that were stored before a time, and where to go on, as ``expire`` does."""
    rows = _next_rows(connection, _KINDS[what], from_row, rows_max)
    old = [row for row, stored_us in rows if stored_us < before_us]
    return old, rows[-1][0] + 1 if old and len(rows) == rows_max else None


def _next_rows(
    connection: sa.Connection, kind: _Kind, from_row: int, rows_max: int
) -> list[tuple[int, int]]:
    found = connection.execute(
        sa.select(kind.row, kind.stored_us)
        .where(kind.row >= from_row, *kind.conditions)
        .order_by(kind.row)
        .limit(rows_max)
    )
    return [(row, stored_us) for row, stored_us in found]


def take_counts(connection: sa.Connection) -> list[Expired]:
    """Return what was removed since this was last asked, and forget it."""
    rows = connection.execute(sa.delete(tables.expiries).returning(*tables.expiries.c)).all()
    return [Expired(*row) for row in sorted(rows)]


def _count(connection: sa.Connection, bite: Expired) -> None:
    table = tables.expiries
    found = connection.execute(sa.select(table).where(table.c.what == bite.what)).first()
    before = None if found is None else Expired(*found)
    if before is None:
        connection.execute(
            sa.insert(table).values(
                what=bite.what,
                count=bite.count,
                oldest_us=bite.oldest_us,
                newest_us=bite.newest_us,
            )
        )
        return
    connection.execute(
        sa.update(table)
        .where(table.c.what == bite.what)
        .values(
            count=before.count + bite.count,
            oldest_us=min(before.oldest_us, bite.oldest_us),
            newest_us=max(before.newest_us, bite.newest_us),
        )
    )
