"""How old events leave the store: little by little in the background, and never unannounced.

Only one of the servers that share a store does it. Each step is a transaction of its own that looks
at a bounded number of rows, so that reports wait for one step at most.
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Final

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.errors import StorageError
from needfire_protocol.event import Event, format_time, make_event
from needfire_server.audit.drafts import draft_of_event
from needfire_server.clock import now_us
from needfire_server.config import ServerSettings
from needfire_server.runtime import Runtime
from needfire_server.storage.base import Expired, Store

__all__ = ["remove_expired", "retain", "retention_s"]

_JOB: Final = "retention"
_INTERVAL_S: Final = 600
_ROWS_MAX: Final = 1_000
"""Rows of one step: some 20 ms during which no report is stored."""
_PAUSE_S: Final = 0.02
"""Between two steps, for the reports that wait."""
_US_PER_S: Final = 1_000_000


async def retain(runtime: Runtime) -> None:
    """Remove what is too old, for ever; cancelled at the end of the server."""
    while True:
        try:
            for event in await remove_expired(
                runtime.store, retention_s(runtime.settings), now_us=now_us(), pause_s=_PAUSE_S
            ):
                runtime.journal.already_stored(event)
        except StorageError as error:
            runtime.journal.store_failed(error)
        await asyncio.sleep(_INTERVAL_S)


def retention_s(settings: ServerSettings) -> Mapping[str, int]:
    """Return for everything that expires how long it is kept."""
    classes = {each.value: int(getattr(settings, f"retain_{each.value}_s")) for each in EventClass}
    return classes | {
        "unusable_reports": settings.retain_integrity_s,
        "commands": settings.retain_administration_s,
    }


async def remove_expired(
    store: Store,
    limits_s: Mapping[str, int],
    *,
    now_us: int,
    pause_s: float = 0.0,
    rows_max: int = _ROWS_MAX,
) -> list[Event]:
    """Remove all that is older than its limit; return the events that say so, which are stored.

    Does nothing where another server does it.

    Raises:
        StorageError: what was removed by then is counted, and told the next time.
    """
    for what, limit_s in limits_s.items():
        row: int | None = 0
        while row is not None:
            if not await store.holds(_JOB):
                return []
            bite = await store.expire(
                what, before_us=now_us - limit_s * _US_PER_S, from_row=row, rows_max=rows_max
            )
            row = bite.next_row
            if row is not None:
                await asyncio.sleep(pause_s)
    return await store.tell_expired(_event, draft_of_event)


def _event(expired: Expired) -> Event:
    return make_event(
        "RECORDS_EXPIRED",
        time_us=now_us(),
        random_10_bytes=os.urandom(10),
        what=expired.what,
        count=expired.count,
        oldest=format_time(expired.oldest_us),
        newest=format_time(expired.newest_us),
    )
