"""What the server does by itself every few seconds: silent clients, old keys and commands, status page."""

import asyncio
import socket
from functools import partial
from typing import Final

from needfire_protocol.errors import StorageError
from needfire_server.addresses import is_loopback
from needfire_server.clock import monotonic_s, now_us
from needfire_server.exposition import Exposition
from needfire_server.health import HealthCheck
from needfire_server.listener import Listener
from needfire_server.monitoring import MonitoringEndpoint
from needfire_server.orders import Expiry
from needfire_server.runtime import Runtime
from needfire_server.status_pages import StatusPages

__all__ = ["Upkeep"]

_INTERVAL_S: Final = 3
"""How often silent clients are looked for; Samhain's interval."""


_KEYS_INTERVAL_S: Final = 60
"""How often expired session keys are removed, which is a write."""


class Upkeep:
    """The background work of one server, and what it knows of the server's health."""

    def __init__(self, runtime: Runtime, listener: Listener, data_directory: str) -> None:
        self._runtime = runtime
        self._listener = listener
        self._pages = StatusPages(runtime, listener, data_directory)
        self._expiry = Expiry(runtime.store, runtime.journal)
        self._endpoint: MonitoringEndpoint | None = None
        self.health = HealthCheck(
            partial(runtime.store.secret, "fake-salt-key"),
            lambda: runtime.journal.is_store_failing,
            monotonic_s,
        )
        self._keys_swept_s = monotonic_s()
        for client in runtime.registry.names():
            self._expiry.watch(client)

    def command_queued(self, client: str) -> None:
        """A command waits for a client: send it if it can be sent, and see that it ends."""
        self._expiry.watch(client)
        self._listener.wake(client)

    async def serve_monitoring(self, bound: socket.socket) -> None:
        """Serve /metrics and its like on a socket."""
        address = bound.getsockname()[0]
        self._endpoint = MonitoringEndpoint(
            Exposition(self._runtime, self._listener).text,
            self.health,
            is_public=not is_loopback(address),
        )
        await self._endpoint.start(bound)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self.round()
            await asyncio.sleep(_INTERVAL_S)

    async def round(self) -> None:
        """Do each thing once. A store that fails does not keep the rest from being done."""
        runtime, settings = self._runtime, self._runtime.settings
        names = runtime.registry.names()
        try:
            if monotonic_s() - self._keys_swept_s >= _KEYS_INTERVAL_S:
                self._keys_swept_s = monotonic_s()
                await runtime.keeper.sweep()
            if runtime.vitals.silent(names, settings.silence_limit_s):
                # It may be connected to another server on the same store by now.
                stored = await runtime.store.load_client_states()
                runtime.vitals.heard_elsewhere(runtime.fleet.adopt(stored.values()))
            runtime.vitals.sweep(names, settings.silence_limit_s, settings.clock_limit_s)
            await runtime.fleet.sweep(names, settings.client_time_limit_s)
            await self._expiry.sweep(now_us())
        except StorageError as error:
            runtime.journal.store_failed(error)
        await self._pages.refresh()
        self.health.swept()

    async def end(self) -> None:
        """Answer nobody any more, and empty the status page."""
        if self._endpoint is not None:
            await self._endpoint.stop()
        await self._pages.end()
