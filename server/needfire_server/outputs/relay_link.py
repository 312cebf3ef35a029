"""A connection to another server, on which this one is a client.

The rules are ``AgentConnection``'s; this moves its bytes. The arithmetic of the log-in (30 ms) runs
in a thread: this server has agents to serve meanwhile.
"""

import asyncio
import os
from collections import deque
from functools import partial
from typing import Final

from needfire_protocol.connection import AgentConnection
from needfire_protocol.connection_events import (
    ConnectionEvent,
    Established,
    Failed,
    MessageReceived,
    Refused,
)
from needfire_protocol.keys import SessionKeys
from needfire_protocol.messages import AgentMessage, Message, RefusalCode
from needfire_server.outputs.settings import RelaySettings
from needfire_server.outputs.target import TargetError
from needfire_server.outputs.threads import in_thread

__all__ = ["RelayLink"]

_READ_BYTES: Final = 65_536


class RelayLink:
    """An open session. One task receives; any may send."""

    def __init__(
        self,
        connection: AgentConnection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._writer = writer
        self._events: deque[ConnectionEvent] = deque()
        self._sending = asyncio.Lock()

    @classmethod
    async def open(cls, address: str, settings: RelaySettings, limit_s: float) -> "RelayLink":
        """Connect and log in.

        Args:
            address: HOST:PORT or [IPv6]:PORT.

        Raises:
            TargetError, OSError: that did not work; nothing stays open.
        """
        host, _, port = address.rpartition(":")
        async with asyncio.timeout(limit_s):
            reader, writer = await asyncio.open_connection(
                host.removeprefix("[").removesuffix("]"), int(port)
            )
            try:
                negotiate = partial(
                    AgentConnection.negotiate,
                    settings.name,
                    settings.password,
                    takeover=True,
                    random_bytes=os.urandom,
                )
                link = cls(await in_thread(negotiate), reader, writer)
                await link._log_in()
            except BaseException:
                writer.transport.abort()
                raise
        return link

    @property
    def keys(self) -> SessionKeys:
        """The keys of the session."""
        assert self._connection.keys is not None
        return self._connection.keys

    async def send(self, message: AgentMessage) -> None:
        """Send a message; waits while the network is slower than we are.

        Raises:
            OSError: the connection is gone.
        """
        async with self._sending:
            if self._connection.is_closed or self._writer.is_closing():
                raise ConnectionResetError("the connection is closed")
            self._connection.send(message)
            await self._flush()

    async def receive(self) -> Message:
        """Return the next message.

        Raises:
            TargetError, OSError: the connection has ended.
        """
        while not self._events:
            data = await self._reader.read(_READ_BYTES)
            self._take(self._connection.receive_data(data) if data else None)
        event = self._events.popleft()
        if isinstance(event, MessageReceived):
            return event.message
        raise _ending(event)

    def abort(self) -> None:
        """Close at once."""
        self._writer.transport.abort()

    async def _log_in(self) -> None:
        await self._flush()
        while not self._events:
            data = await self._reader.read(_READ_BYTES)
            take = partial(self._connection.receive_data, data)
            self._take(await in_thread(take) if data else None)
            await self._flush()
        event = self._events.popleft()
        if not isinstance(event, Established):
            raise _ending(event)

    def _take(self, events: list[ConnectionEvent] | None) -> None:
        self._events.extend(self._connection.receive_eof() if events is None else events)

    async def _flush(self) -> None:
        if data := self._connection.data_to_send():
            self._writer.write(data)
            await self._writer.drain()


def _ending(event: ConnectionEvent) -> TargetError:
    if isinstance(event, Refused):
        return TargetError(f"it refused: {event.detail or _REFUSALS.get(event.code, _word(event))}")
    if isinstance(event, Failed):
        return TargetError(f"it does not speak the protocol: {event.error}")
    return TargetError("it closed the connection")


def _word(refused: Refused) -> str:
    return refused.code.name.lower().replace("_", " ")


_REFUSALS: Final = {
    RefusalCode.AUTHENTICATION_FAILED: "name or password is wrong",
    RefusalCode.SESSION_SUPERSEDED: "another server logged in with our name (OutputUser)",
    RefusalCode.PROTOCOL: "it knows no relays, or another version of the protocol",
}
