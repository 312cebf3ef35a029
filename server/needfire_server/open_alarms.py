"""Which alarms hold now, and which events show it: read from the store."""

from typing import Final

from needfire_protocol.catalogue_entry import EventClass
from needfire_server.alarms import OpenAlarms
from needfire_server.storage.base import EventQuery, Store

__all__ = ["open_alarms", "rows_of_open_alarms"]

_PAGE: Final = 100


async def open_alarms(store: Store) -> OpenAlarms:
    """Read all alarms that the store has; there is an index, and they are few beside reports."""
    alarms = OpenAlarms()
    after = 0
    while True:
        page = await store.query_events(
            EventQuery(event_class=EventClass.ALARM, after_rowid=after, limit=_PAGE)
        )
        for row, event in page:
            alarms.take(event, row)
        if len(page) < _PAGE:
            return alarms
        after = page[-1][0]


async def rows_of_open_alarms(store: Store) -> frozenset[int]:
    """Return what must not expire, or an alarm that nobody has looked into would be gone: the first and
    the last event of each. What came between may, so that no alarm keeps more however often it comes.
    """
    alarms = (await open_alarms(store)).alarms()
    return frozenset(row for each in alarms for row in (each.first_row, each.last_row))
