"""What the server does by itself every few seconds: silent clients, old keys and commands, status page."""

import asyncio
import contextlib
import socket
from functools import partial
from typing import Final

from needfire_protocol.errors import StorageError
from needfire_server.addresses import is_loopback
from needfire_server.circles import Circles
from needfire_server.clock import monotonic_s, now_us
from needfire_server.exposition import Exposition
from needfire_server.health import HealthCheck
from needfire_server.listener import Listener
from needfire_server.monitoring import MonitoringEndpoint
from needfire_server.orders import Expiry
from needfire_server.presence import Presence
from needfire_server.runtime import Runtime
from needfire_server.silence import Watchman
from needfire_server.status_pages import StatusPages
from needfire_server.stored_files import StoredFiles

__all__ = ["Upkeep"]

_INTERVAL_S: Final = 3
"""How often silent clients are looked for; Samhain's interval."""


_BITES_MAX: Final = 200
_PAUSE_S: Final = 0.02
_KEYS_INTERVAL_S: Final = 60
"""How often expired session keys are removed, which is a write."""


class Upkeep:
    """The background work of one server, and what it knows of the server's health."""

    def __init__(
        self, runtime: Runtime, listener: Listener, data_directory: str, name: str
    ) -> None:
        self._runtime = runtime
        self._listener = listener
        self.presence = Presence(runtime.store, name, listener.connected)
        self._pages = StatusPages(runtime, listener, data_directory, self.presence.everywhere)
        self._watchman = Watchman(runtime)
        self._expiry = Expiry(runtime.store, runtime.journal)
        self._endpoint: MonitoringEndpoint | None = None
        self.health = HealthCheck(
            partial(runtime.store.secret, "fake-salt-key"),
            lambda: runtime.journal.is_store_failing,
            monotonic_s,
        )
        self._circles = Circles(lambda: listener.sessions_ended)
        self._keys_swept_s = monotonic_s()
        for client in runtime.registry.names():
            self._expiry.watch(client)

    def command_queued(self, client: str | None) -> None:
        """A command waits for a client: send it if it can be sent, and see that it ends.

        Args:
            client: None where it may be any.
        """
        for name in self._runtime.registry.names() if client is None else (client,):
            self._expiry.watch(name)
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
        runtime = self._runtime
        runtime.vitals.look_at_own_clock(runtime.settings.clock_limit_s)
        runtime.vitals.tell_unsteady_clocks()
        runtime.logbook.tell_suppressed()
        try:
            if monotonic_s() - self._keys_swept_s >= _KEYS_INTERVAL_S:
                self._keys_swept_s = monotonic_s()
                await runtime.keeper.sweep()
                await self._drop_unused_files()
            await self.presence.tell()
            await self._watchman.round()
            await self._expiry.sweep(now_us())
        except StorageError as error:
            runtime.journal.store_failed(error)
        await asyncio.sleep(0)
        runtime.throttle.sweep()
        self._circles.look()
        await self._pages.refresh()
        self.health.swept()

    async def _drop_unused_files(self) -> None:
        files = self._runtime.data_files
        if not isinstance(files, StoredFiles):
            return
        if await self._runtime.store.holds("files"):
            for _ in range(_BITES_MAX):
                if not await asyncio.to_thread(files.drop_unused):
                    break
                # Reports come first.
                await asyncio.sleep(_PAUSE_S)
        await asyncio.to_thread(files.prune)

    async def end(self) -> None:
        """Answer nobody any more, and empty the status page."""
        if self._endpoint is not None:
            await self._endpoint.stop()
        await self._pages.end()
        with contextlib.suppress(StorageError):
            await self.presence.leave()
