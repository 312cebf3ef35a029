"""One TCP connection to a server, with an open session on it.

The rules of the protocol are ``AgentConnection``'s; this module moves its bytes, and turns what
the network does into a few kinds of failure that the rest of the agent tells apart.
"""

import asyncio
import contextlib
import errno
import os
import socket
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from needfire_client.address import ServerAddress
from needfire_protocol.connection_events import (
    Closed,
    ConnectionEvent,
    Established,
    Failed,
    MessageReceived,
    Refused,
)
from needfire_protocol.errors import NeedfireError
from needfire_protocol.keys import SessionKeys
from needfire_protocol.messages import AgentMessage, Message, RefusalCode
from needfire_protocol.plain_classes import dataclass

if TYPE_CHECKING:
    from needfire_protocol.connection import AgentConnection

__all__ = [
    "BrokenError",
    "Link",
    "LinkError",
    "LinkRefusedError",
    "LinkTimes",
    "LocalTroubleError",
    "UnreachableError",
]

_READ_BYTES: Final = 65_536
_KEEPALIVE_IDLE_S: Final = 60
_KEEPALIVE_INTERVAL_S: Final = 15
_KEEPALIVE_COUNT: Final = 4
_UNACKNOWLEDGED_MS: Final = 90_000
"""Milliseconds after which the kernel gives a connection up whose bytes nobody confirms. A server
that lost its power sends no farewell; the heartbeats would vanish in the send buffer for hours."""


class LinkError(NeedfireError):
    """There is no connection, or no longer.

    Attributes:
        server: where it led, or should have led.
    """

    def __init__(self, server: ServerAddress, text: str) -> None:
        super().__init__(f"{server}: {text}")
        self.server = server


class UnreachableError(LinkError):
    """No connection could be opened (documented state 1)."""

    def __init__(self, server: ServerAddress, reason: str) -> None:
        super().__init__(server, reason)
        self.reason = reason


class BrokenError(LinkError):
    """An open connection broke, or the peer does not speak the protocol."""

    def __init__(self, server: ServerAddress, reason: str, *, in_negotiation: bool) -> None:
        super().__init__(server, reason)
        self.reason = reason
        self.in_negotiation = in_negotiation


class LocalTroubleError(LinkError):
    """One of our own files keeps us from talking: the password, or the spool."""

    def __init__(self, server: ServerAddress, reason: str) -> None:
        super().__init__(server, reason)
        self.reason = reason


class LinkRefusedError(LinkError):
    """The server ended the connection and said why.

    Attributes:
        is_authenticated: whether it was surely the server that said so.
    """

    def __init__(self, server: ServerAddress, refused: Refused) -> None:
        super().__init__(server, refused.detail or refused.code.name.lower().replace("_", " "))
        self.code: RefusalCode = refused.code
        self.detail = refused.detail
        self.is_authenticated = refused.authenticated


@dataclass(frozen=True, slots=True)
class LinkTimes:
    """How long to wait for a server, in seconds."""

    connect_s: float = 10.0
    handshake_s: float = 10.0


class Link:
    """An established connection. ``open_link`` makes it."""

    def __init__(
        self,
        server: ServerAddress,
        connection: "AgentConnection",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.server = server
        self.keys: SessionKeys
        self.is_resumed = False
        self._connection = connection
        self._reader = reader
        self._writer = writer
        self._events: deque[ConnectionEvent] = deque()

    @classmethod
    async def open(
        cls,
        server: ServerAddress,
        connection: "AgentConnection",
        *,
        bind_address: str | None,
        times: LinkTimes,
    ) -> "Link":
        """Connect and carry out the handshake.

        Raises:
            LinkError: that did not work; nothing stays open.
        """
        reader, writer = await _connect(server, bind_address, times.connect_s)
        link = cls(server, connection, reader, writer)
        try:
            async with asyncio.timeout(times.handshake_s):
                await link._negotiate()
        except TimeoutError:
            await link.close()
            reason = os.strerror(errno.ETIMEDOUT)
            raise BrokenError(server, reason, in_negotiation=True) from None
        except BaseException:
            await link.close()
            raise
        return link

    async def send(self, message: AgentMessage) -> None:
        """Send one message; waits while the network is slower than we are.

        Raises:
            BrokenError: the connection is gone.
        """
        with self._broken_pipe(in_negotiation=False):
            if self._connection.is_closed or self._writer.is_closing():
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            self._connection.send(message)
            await self._write()

    async def receive(self) -> Message:
        """Return the next message; only one task may wait here.

        Raises:
            LinkError: the connection has ended.
        """
        event = await self._next_event(in_negotiation=False)
        if isinstance(event, MessageReceived):
            return event.message
        raise self._ending(event, in_negotiation=False)

    async def close(self) -> None:
        """Close the connection. What was sent still arrives; nothing is said."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await self._writer.wait_closed()

    async def _negotiate(self) -> None:
        with self._broken_pipe(in_negotiation=True):
            await self._write()
        event = await self._next_event(in_negotiation=True)
        if not isinstance(event, Established):
            raise self._ending(event, in_negotiation=True)
        self.keys, self.is_resumed = event.keys, event.resumed

    async def _next_event(self, *, in_negotiation: bool) -> ConnectionEvent:
        with self._broken_pipe(in_negotiation=in_negotiation):
            while not self._events:
                data = await self._reader.read(_READ_BYTES)
                if data:
                    self._events.extend(self._connection.receive_data(data))
                else:
                    self._events.extend(self._connection.receive_eof() or [Closed()])
                await self._write()
        return self._events.popleft()

    async def _write(self) -> None:
        if data := self._connection.data_to_send():
            self._writer.write(data)
            await self._writer.drain()

    def _ending(self, event: ConnectionEvent, *, in_negotiation: bool) -> LinkError:
        if isinstance(event, Refused):
            return LinkRefusedError(self.server, event)
        # A peer that closes without a word looks the same as one that resets.
        reason = str(event.error) if isinstance(event, Failed) else os.strerror(errno.ECONNRESET)
        return BrokenError(self.server, reason, in_negotiation=in_negotiation)

    @contextlib.contextmanager
    def _broken_pipe(self, *, in_negotiation: bool) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BrokenError(self.server, _reason(error), in_negotiation=in_negotiation) from error


async def _connect(
    server: ServerAddress, bind_address: str | None, timeout_s: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    local = None if bind_address is None else (bind_address, 0)
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(
                server.host, server.port, local_addr=local, happy_eyeballs_delay=0.25
            )
    except TimeoutError:
        raise UnreachableError(server, os.strerror(errno.ETIMEDOUT)) from None
    except OSError as error:
        if error.errno in (errno.ECONNRESET, errno.EPIPE):
            # Reset between the kernel's handshake and ours: access lists do that (state 2).
            raise BrokenError(server, _reason(error), in_negotiation=True) from error
        raise UnreachableError(server, _reason(error)) from error
    _watch_for_dead_peer(writer)
    return reader, writer


def _watch_for_dead_peer(writer: asyncio.StreamWriter) -> None:
    peer: socket.socket = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", _KEEPALIVE_COUNT),
        ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED_MS),
    ):
        if hasattr(socket, option):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _reason(error: OSError) -> str:
    """The system's words: 'Connection reset by peer', 'No route to host'.

    asyncio wraps them ('Connect call failed …'), and writing to a reset connection may be told
    as a broken pipe or as a reset, by chance; people search for the one text.
    """
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    if error.errno in (errno.EPIPE, errno.ESHUTDOWN, None):
        return os.strerror(errno.ECONNRESET)
    return os.strerror(error.errno)
