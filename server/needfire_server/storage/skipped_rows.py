"""The rows of events that a target refused for good, each with its event: retention takes that away."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from needfire_server.storage import output_cursors, tables
from needfire_server.storage.event_rows import EVENT_COLUMNS, event_of_row, row_of_event
from needfire_server.storage.output_cursors import OutputCursor, Skipped

__all__ = ["count_of", "counts", "forget", "load", "skip"]

_T: Final = tables.output_skipped


def skip(connection: sa.Connection, cursor: OutputCursor, skipped: Skipped) -> None:
    """Set an event aside, and let the output go on behind it: both or neither."""
    row = dict(zip(EVENT_COLUMNS, row_of_event(skipped.number, skipped.event), strict=True))
    row |= {
        "output": skipped.output,
        "skipped_us": skipped.skipped_us,
        "reason": skipped.reason,
    }
    is_same = (_T.c.output == skipped.output) & (_T.c.row_id == skipped.number)
    connection.execute(sa.delete(_T).where(is_same))
    connection.execute(sa.insert(_T).values(row))
    output_cursors.save(connection, cursor)


def counts(connection: sa.Connection) -> dict[str, int]:
    """Return how many events are set aside, by output."""
    found = connection.execute(sa.select(_T.c.output, sa.func.count()).group_by(_T.c.output))
    return {row[0]: row[1] for row in found}


def count_of(connection: sa.Connection, output: str, source: str | None) -> int:
    """Return how many events of a client, and of those that it speaks for, are set aside."""
    client = _T.c.client
    below = client.startswith(f"{source}/", autoescape=True)
    is_its = client.is_(None) if source is None else sa.or_(client == source, below)
    wanted = sa.select(sa.func.count()).select_from(_T).where(_T.c.output == output, is_its)
    return connection.execute(wanted).scalar_one()


def load(connection: sa.Connection, output: str, after: int, limit: int) -> list[Skipped]:
    """Return what is set aside for an output behind a number, in order."""
    event = [_T.c[name] for name in EVENT_COLUMNS]
    wanted = sa.select(_T.c.skipped_us, _T.c.reason, *event)
    wanted = wanted.where(_T.c.output == output, _T.c.row_id > after)
    return [
        Skipped(output, *event_of_row(row[2:]), reason=row[1], skipped_us=row[0])
        for row in connection.execute(wanted.order_by(_T.c.row_id).limit(limit))
    ]


def forget(connection: sa.Connection, output: str, numbers: Sequence[int]) -> int:
    """Remove events of an output from those that are set aside; return how many were there."""
    wanted = (_T.c.output == output) & _T.c.row_id.in_(numbers)
    return connection.execute(sa.delete(_T).where(wanted)).rowcount
