"""When the status page is written: soon after something changed, and once a minute."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from needfire_server.clock import monotonic_s, now_us
from needfire_server.listener import Listener
from needfire_server.runtime import Runtime
from needfire_server.status_page import Head, Row, render, rows_of
from needfire_server.status_page_file import load_templates, write_page
from needfire_server.storage.base import ClientConnection

__all__ = ["StatusPages"]

_AT_LEAST_EVERY_S: Final = 60.0
_SHARE: Final = 50
"""Writing takes at most one part in so many of the time, however large the fleet is."""


class StatusPages:
    """Writes the page of HtmlStatusFile, where one is configured."""

    def __init__(
        self,
        runtime: Runtime,
        listener: Listener,
        data_directory: str,
        connections: Callable[[], Awaitable[Mapping[str, ClientConnection]]],
        steady_s: Callable[[], float] = monotonic_s,
    ) -> None:
        self._runtime = runtime
        self._listener = listener
        self._data_directory = data_directory
        self._connections = connections
        self._steady_s = steady_s
        self._started_us = now_us()
        self._written: Sequence[Row] = ()
        self._written_s = float("-inf")
        self._not_before_s = float("-inf")
        self._path: str | None = None
        self._is_failing = False
        self._is_over = False
        self._writing = threading.Lock()

    async def refresh(self) -> None:
        """Write the page if it is time to."""
        path = self._runtime.settings.html_status_file
        if path != self._path:
            await self._clear()
            self._path, self._written_s = path, float("-inf")
        now_s = self._steady_s()
        if path is None or now_s < self._not_before_s:
            return
        rows = await self._rows()
        if rows == self._written and now_s - self._written_s < _AT_LEAST_EVERY_S:
            return
        head = self._head()
        await self._put(path, lambda: render(load_templates(self._data_directory), head, rows))
        self._written, self._written_s = rows, now_s
        self._not_before_s = now_s + _SHARE * (self._steady_s() - now_s)

    async def end(self) -> None:
        """Empty the page, as Yule does at its end: nobody may take it for the present."""
        # A thread whose round was cancelled may be about to write what it had.
        self._is_over = True
        await self._clear()

    async def _clear(self) -> None:
        if self._path is not None:
            await self._put(self._path, None)

    async def _rows(self) -> Sequence[Row]:
        runtime = self._runtime
        names = runtime.registry.names()
        behind = runtime.fleet.behind_relays(names)
        connected = {client: at.server for client, at in (await self._connections()).items()}
        states = runtime.fleet.states()
        silent = {name for name, pulse in runtime.vitals.pulses().items() if pulse.is_missed}
        return rows_of(sorted((*names, *behind)), states, self._started_us, connected, silent)

    def _head(self) -> Head:
        runtime = self._runtime
        return Head(
            now_us(),
            self._started_us,
            runtime.metrics.last_connection_us,
            self._listener.open_connections(),
            runtime.metrics.connections,
            runtime.settings.connection_limit,
        )

    async def _put(self, path: str, make: Callable[[], str] | None) -> None:
        try:
            await asyncio.to_thread(self._write, path, make)
        except OSError as error:
            self._failed(path, error.strerror or str(error))
        else:
            self._is_failing = False

    def _write(self, path: str, make: Callable[[], str] | None) -> None:
        """In a thread. Without ``make`` the page is emptied."""
        with self._writing:
            if make is None:
                write_page(path, "")
            elif not self._is_over:
                write_page(path, make())

    def _failed(self, path: str, reason: str) -> None:
        if not self._is_failing:
            self._is_failing = True
            self._runtime.journal.raise_event("STATUS_PAGE_FAILED", path=path, reason=reason)
