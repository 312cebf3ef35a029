"""Which server tells that clients have fallen silent, are dead, or are back: one, and each thing once.

Of several servers on one store, the one that holds the lock of this job tells it; another one takes
over when it dies. Before anybody is called silent, the store is asked what all servers have heard.
"""

import asyncio
from collections.abc import Collection
from typing import Final

from needfire_protocol.event import format_time
from needfire_server.clock import monotonic_s
from needfire_server.runtime import Runtime
from needfire_server.storage.base import EventQuery

__all__ = ["Watchman"]

_JOB: Final = "silence"
_REFRESH_S: Final = 30.0
"""How old what is shown of clients at other servers may be."""


class Watchman:
    """Looks for silent clients, where it is this server's turn."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._is_on_duty = not runtime.store.is_shared
        self._refreshed_s = monotonic_s()

    async def round(self) -> None:
        """Tell what there is to tell, and save what was heard.

        Raises:
            StorageError: what was not told or saved is so the next time.
        """
        runtime, settings = self._runtime, self._runtime.settings
        names = runtime.registry.names()
        if runtime.store.is_shared:
            await self._look_around()
        told: Collection[str] = ()
        if self._is_on_duty:
            silent = runtime.vitals.silent(names, settings.silence_limit_s)
            if runtime.store.is_shared and (
                silent or runtime.fleet.overdue(names, settings.client_time_limit_s)
            ):
                # They may be connected to another server by now.
                await self._refresh()
                silent = runtime.vitals.silent(names, settings.silence_limit_s)
                told = [client for client in silent if await self._is_told(client)]
            runtime.vitals.sweep(silent, settings.silence_limit_s, told=told)
            # Each of these goes through the whole fleet: not in one turn of the loop.
            await asyncio.sleep(0)
            await runtime.fleet.sweep(names, settings.client_time_limit_s)
        else:
            await runtime.fleet.save()

    async def _look_around(self) -> None:
        is_on_duty = await self._runtime.store.holds(_JOB)
        if self._is_on_duty and not is_on_duty:
            self._runtime.vitals.leave_to_another()
        self._is_on_duty = is_on_duty
        if monotonic_s() - self._refreshed_s >= _REFRESH_S:
            await self._refresh()

    async def _refresh(self) -> None:
        stored = await self._runtime.store.load_client_states()
        self._refreshed_s = monotonic_s()
        fleet = self._runtime.fleet
        dead = [state.name for state in fleet.states().values() if state.is_overdue]
        self._runtime.vitals.heard_elsewhere(fleet.adopt(stored.values()), told=dead)

    async def _is_told(self, client: str) -> bool:
        """True where the server that had this job before told of this same silence."""
        last_us = self._runtime.fleet.state(client).last_seen_us
        assert last_us is not None
        query = EventQuery(
            client=client, code="STOPPED_WITHOUT_GOODBYE", limit=1, newest_first=True
        )
        found = await self._runtime.store.query_events(query)
        return any(event.fields.get("last") == format_time(last_us) for _, event in found)
