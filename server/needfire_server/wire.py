"""One accepted TCP connection: moves bytes between the socket and the protocol, and nothing else."""

import asyncio
import socket
import struct
from typing import Final

from needfire_protocol.connection import ServerConnection
from needfire_protocol.connection_events import ConnectionEvent
from needfire_protocol.messages import Message

__all__ = ["Wire"]

_READ_BYTES_MAX: Final = 65_536
_WRITE_LIMIT_S: Final = 60
"""A peer that does not take what we send within this time is gone, or means harm."""

_LINGER_LIMIT_S: Final = 2
_LINGER_BYTES_MAX: Final = 4 * 1024 * 1024
"""What a peer may still send after we have ended; more than a window of reports."""


class Wire:
    """A connection of one peer, with the protocol's state machine on it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: ServerConnection,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.connection = connection
        name = writer.get_extra_info("peername")
        self.has_address = bool(name)
        self.address: str = name[0] if name else "unknown"
        """The peer's address as text, without a port."""
        self.peer: str = _host_port(name[0], name[1]) if name else "unknown"

    async def receive(self) -> list[ConnectionEvent]:
        """Wait for bytes and return what they mean.

        Raises:
            OSError: the connection broke.
        """
        data = await self._reader.read(_READ_BYTES_MAX)
        if not data:
            return self.connection.receive_eof()
        return self.connection.receive_data(data)

    async def send(self, *messages: Message) -> None:
        """Seal and send messages, and wait until the peer has taken most of them.

        Raises:
            OSError: the connection broke, or the peer takes nothing (TimeoutError).
        """
        for message in messages:
            if self.connection.is_closed:
                # What came after the message that we answer was no protocol, and ended it.
                raise ConnectionResetError("the peer broke the protocol")
            self.connection.send(message)
        await self.flush()

    async def flush(self) -> None:
        """Send what the state machine has to say."""
        data = self.connection.data_to_send()
        if data:
            self._writer.write(data)
        async with asyncio.timeout(_WRITE_LIMIT_S):
            await self._writer.drain()

    async def close(self) -> None:
        """Close the connection after what was sent; never raises for a peer that is gone.

        Closing while bytes of the peer lie unread would be a reset, and a reset throws away what
        the peer has not read yet: the very refusal or farewell that we have just sent. So we end
        our direction first and give the peer a moment to end its own.
        """
        try:
            async with asyncio.timeout(_LINGER_LIMIT_S):
                if self._writer.can_write_eof() and not self._writer.is_closing():
                    self._writer.write_eof()
                    await self._discard(_LINGER_BYTES_MAX)
        except (OSError, TimeoutError):
            pass
        try:
            async with asyncio.timeout(_WRITE_LIMIT_S):
                self._writer.close()
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()

    async def _discard(self, bytes_max: int) -> None:
        while bytes_max > 0 and (data := await self._reader.read(_READ_BYTES_MAX)):
            bytes_max -= len(data)

    def abort(self) -> None:
        """Close at once; what waits to be sent is lost."""
        self._writer.transport.abort()

    def reset(self) -> None:
        """Close at once with a reset, so that the peer sees "Connection reset by peer".

        Documented state 2: a refused peer reports exactly these words. An ordinary close of a
        connection from which nothing was read would be a reset only by luck.
        """
        connected = self._writer.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
