"""How old events leave the store: little by little in the background, and never unannounced.

Only one of the servers that share a store does it. Each step is a transaction of its own that looks
at a bounded number of rows, so that reports wait for one step at most.

What an output has not sent yet stays for longer, up to RetainForOutputs, and that is told while it
lasts. Nothing is held where there is no room: what is old enough to go anyway must not keep agents
from reporting.

An alarm that holds stays, however old it is: nobody has looked into it yet.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.errors import StorageError
from needfire_protocol.event import Event, format_time, make_event
from needfire_server.audit.drafts import draft_of_event
from needfire_server.clock import now_us
from needfire_server.config import ServerSettings
from needfire_server.open_alarms import rows_of_open_alarms
from needfire_server.runtime import Runtime
from needfire_server.storage.base import Expired, HeldBack, Store

__all__ = ["Hold", "Retention", "count_held", "remove_expired", "retain", "retention_s"]

_JOB: Final = "retention"
_INTERVAL_S: Final = 600
_ROWS_MAX: Final = 1_000
"""Rows of one step: some 20 ms during which no report is stored."""
_PAUSE_S: Final = 0.02
"""Between two steps, for the reports that wait."""
_US_PER_S: Final = 1_000_000
_CLASSES: Final = frozenset(each.value for each in EventClass)


@dataclass(frozen=True, slots=True)
class Hold:
    """What outputs have not sent yet.

    Attributes:
        positions: by output, the event up to which it needs nothing more; at least one.
        extra_s: how much longer than otherwise the rest is kept.
    """

    positions: Mapping[str, int]
    extra_s: int

    def of(self, what: str, before_us: int) -> HeldBack | None:
        """Return what it means for things that go where they are older than a time."""
        if what not in _CLASSES:
            return None
        return HeldBack(min(self.positions.values()), before_us - self.extra_s * _US_PER_S)


async def retain(runtime: Runtime) -> None:
    """Remove what is too old, for ever; cancelled at the end of the server."""
    retention = Retention(runtime)
    while True:
        try:
            await retention.round(now_us())
        except StorageError as error:
            runtime.journal.store_failed(error)
        await asyncio.sleep(_INTERVAL_S)


class Retention:
    """Removes what is too old, and knows which outputs it was told of that hold something up."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._told: frozenset[str] = frozenset()

    async def round(self, moment_us: int) -> None:
        """Do it once.

        Raises:
            StorageError: what was removed by then is told the next time.
        """
        runtime = self._runtime
        limits_s, hold = retention_s(runtime.settings), await self._hold()
        for event in await remove_expired(
            runtime.store, limits_s, now_us=moment_us, pause_s=_PAUSE_S, hold=hold
        ):
            runtime.journal.already_stored(event)
        held = (
            {}
            if hold is None
            else await count_held(runtime.store, limits_s, hold, now_us=moment_us)
        )
        self._tell(held)

    async def _hold(self) -> Hold | None:
        runtime = self._runtime
        extra_s = runtime.settings.retain_for_outputs_s
        if extra_s == 0 or runtime.journal.has_no_room:
            return None
        positions = await runtime.outputs.positions()
        return Hold(positions, extra_s) if positions else None

    def _tell(self, held: Mapping[str, int]) -> None:
        """Say which outputs hold something up, and which ones no longer do; each once."""
        journal, limit_s = self._runtime.journal, self._runtime.settings.retain_for_outputs_s
        self._runtime.outputs.held = held
        for name in sorted(held.keys() - self._told):
            journal.raise_event(
                "OUTPUT_EVENTS_HELD", output=name, count=held[name], limit_s=limit_s
            )
        for name in sorted(self._told - held.keys()):
            journal.raise_event("OUTPUT_EVENTS_RELEASED", output=name)
        self._told = frozenset(held)


def retention_s(settings: ServerSettings) -> Mapping[str, int]:
    """Return for everything that expires how long it is kept."""
    classes = {
        EventClass.INTEGRITY: settings.retain_integrity_s,
        EventClass.TRAFFIC: settings.retain_traffic_s,
        EventClass.ADMINISTRATION: settings.retain_administration_s,
        EventClass.SYSTEM: settings.retain_system_s,
        EventClass.ALARM: settings.retain_alarm_s,
        EventClass.PROVISIONING: settings.retain_provisioning_s,
    }
    return {each.value: limit_s for each, limit_s in classes.items()} | {
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
    hold: Hold | None = None,
) -> list[Event]:
    """Remove all that is older than its limit; return the events that say so, which are stored.

    Does nothing where another server does it.

    Raises:
        StorageError: what was removed by then is counted, and told the next time.
    """
    for what, before_us in _ends(limits_s, now_us):
        held = None if hold is None else hold.of(what, before_us)
        kept: frozenset[int] = frozenset()
        if what == EventClass.ALARM.value and await store.holds(_JOB):
            kept = await rows_of_open_alarms(store)
        row: int | None = 0
        while row is not None:
            if not await store.holds(_JOB):
                return []
            bite = await store.expire(
                what, before_us=before_us, from_row=row, rows_max=rows_max, held=held, kept=kept
            )
            row = bite.next_row
            if row is not None:
                await asyncio.sleep(pause_s)
    return await store.tell_expired(_event, draft_of_event)


async def count_held(
    store: Store,
    limits_s: Mapping[str, int],
    hold: Hold,
    *,
    now_us: int,
    rows_max: int = _ROWS_MAX,
) -> Mapping[str, int]:
    """Return for each output how many events are kept beyond their time; only those that have any.

    Empty where another server removes what is old.
    """
    counts = dict.fromkeys(hold.positions, 0)
    first = min(hold.positions.values()) + 1
    for what, before_us in _ends(limits_s, now_us):
        row: int | None = first if what in _CLASSES else None
        while row is not None:
            if not await store.holds(_JOB):
                return {}
            old, row = await store.stored_before(
                what, before_us=before_us, from_row=row, rows_max=rows_max
            )
            for name, position in hold.positions.items():
                counts[name] += sum(number > position for number in old)
    return {name: count for name, count in counts.items() if count}


def _ends(limits_s: Mapping[str, int], now_us: int) -> Iterator[tuple[str, int]]:
    for what, limit_s in limits_s.items():
        yield what, now_us - limit_s * _US_PER_S


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
