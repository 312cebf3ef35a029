"""How events are found among millions: by an index that answers in order, or by summaries of blocks.

One filter that has an index of its own is answered by it. Everything else goes through the blocks of
events in order, from the end where it begins, and reads those that may hold something. A step looks
at a bounded number of rows and says where it came to, so that nobody's question keeps a thread.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa

from needfire_protocol.event import Event
from needfire_server.storage import statements, tables
from needfire_server.storage.base import EVENTS_PAGE_MAX, CountPage, EventPage, EventQuery
from needfire_server.storage.event_rows import EVENT_COLUMNS, event_of_row
from needfire_server.storage.summaries import Blocks, Stretch, stretches
from needfire_server.storage.summary import (
    Kind,
    Summary,
    Wanted,
    event_summary,
    key,
    place_keys,
    unreadable_summary,
)

__all__ = ["EVENT_BLOCKS", "count_newest", "has_own_index", "has_report", "search", "wanted_of"]

_COST_MAX: Final = 65_536
"""Rows that one step looks at, or the like of it: some tenths of a second."""
_COUNTED_MAX: Final = 65_536


def search(connection: sa.Connection, query: EventQuery) -> EventPage:
    """Do one step of a search."""
    limit = min(max(query.limit, 1), EVENTS_PAGE_MAX)
    found: list[tuple[int, Event]] = []
    cost = 0
    statement = statements.event_query(query)
    for stretch in _stretches(connection, query):
        cost += stretch.cost
        if stretch.may_hold:
            rows = connection.execute(statement, _within(stretch, limit - len(found)))
            found += [event_of_row(row) for row in rows]
            if len(found) >= limit:
                return EventPage(found, found[-1][0])
        if cost >= _COST_MAX:
            return EventPage(found, _far_end(query, stretch))
    return EventPage(found, None)


def count_newest(connection: sa.Connection, query: EventQuery, count: int) -> CountPage:
    """Do one step of counting the newest events that match; its limit and order are not used."""
    query = replace(query, newest_first=True)
    count = min(count, _COUNTED_MAX)
    counted, lowest = 0, None
    cost = 0
    statement = statements.event_count(query)
    for stretch in _stretches(connection, query):
        cost += stretch.cost
        if stretch.may_hold:
            more, first = connection.execute(statement, _within(stretch, count - counted)).one()
            counted, lowest = counted + more, lowest if first is None else first
            if counted >= count:
                return CountPage(counted, lowest, lowest)
        if cost >= _COST_MAX:
            return CountPage(counted, lowest, stretch.first)
    return CountPage(counted, lowest, None)


def has_report(connection: sa.Connection, client: str, event_id: str, time_us: int) -> bool:
    """Return whether a report of the client is stored."""
    query = EventQuery(client=client, since_us=time_us, until_us=time_us + 1, limit=EVENTS_PAGE_MAX)
    while True:
        page = search(connection, query)
        if any(each.id == event_id and each.client == client for _, each in page.events):
            return True
        if page.reached is None:
            return False
        query = query.behind(page.reached)


def has_own_index(query: EventQuery) -> bool:
    """Tell whether the database finds what is asked for in its order, without looking at others."""
    if wanted_of(query).is_anything:
        return True
    filters = [
        query.client,
        query.event_class,
        query.code,
        query.severity,
        query.path,
        query.below,
        query.request,
        query.since_us,
        query.until_us,
    ]
    if sum(each is not None for each in filters) > 1:
        return False
    if query.event_class is not None:
        return query.event_class.value != tables.BULK_CLASS
    if query.code is not None:
        return query.code not in tables.BULK_CODES
    return query.client is not None


def wanted_of(query: EventQuery) -> Wanted:
    """Return what a block must have to hold something that matches."""
    place = place_keys(query.path, query.below)
    return replace(
        place,
        since_us=query.since_us,
        until_us=query.until_us,
        severity=None if query.severity is None else int(query.severity),
        keys=tuple((each,) for each in _keys(query)) + place.keys,
    )


def _keys(query: EventQuery) -> Iterator[int]:
    client = None if query.client is None else query.client.lower()
    event_class = None if query.event_class is None else query.event_class.value
    if query.request is not None:
        yield key(Kind.REQUEST, query.request)
    if query.code is not None:
        yield key(Kind.CODE, query.code)
    if event_class is not None:
        yield key(Kind.CLASS, event_class)
    if client is None:
        return
    yield key(Kind.CLIENT, client)
    if query.code is not None:
        yield key(Kind.CLIENT_CODE, client, query.code)
    if event_class is not None:
        yield key(Kind.CLIENT_CLASS, client, event_class)


def _stretches(connection: sa.Connection, query: EventQuery) -> Iterator[Stretch]:
    end = statements.last_rowid(connection) + 1
    after = max(query.after_rowid or 0, 0)
    before = end if query.before_rowid is None else min(query.before_rowid, end)
    if before - after <= 1:
        return
    if has_own_index(query):
        yield Stretch(after + 1, before - 1, may_hold=True)
        return
    yield from stretches(
        connection, EVENT_BLOCKS, wanted_of(query), after, before, newest_first=query.newest_first
    )


def _within(stretch: Stretch, count: int) -> Mapping[str, int]:
    return {"after": stretch.first - 1, "before": stretch.last + 1, "count": count}


def _far_end(query: EventQuery, stretch: Stretch) -> int:
    return stretch.first if query.newest_first else stretch.last


def _sum_up(connection: sa.Connection, first: int, last: int) -> Summary | None:
    columns = [tables.events.c[name] for name in EVENT_COLUMNS]
    number = tables.events.c.row_id
    rows: list[tuple[Any, ...]] = [
        tuple(row)
        for row in connection.execute(
            sa.select(*columns).where(number.between(first, last)).order_by(number)
        )
    ]
    if not rows:
        return None
    try:
        summary = event_summary(rows, [json.loads(row[-1]) for row in rows])
    except (ValueError, AttributeError, RecursionError):
        # Somebody else wrote into the table.
        return unreadable_summary(first, last)
    return replace(summary, first=first, last=last)


EVENT_BLOCKS: Final = Blocks(
    tables.event_summaries, tables.events.c.row_id, "event_summaries", _sum_up
)
