"""One accepted TCP connection: moves bytes between the socket and the protocol, and nothing else.

Made for many connections that hardly ever say anything: it is asyncio's protocol itself, without
the reader, the writer and the buffers of a stream, and what it holds while nobody speaks is a
socket and a state machine. One task receives; any may send.

What a peer sends is taken from the kernel once and then no more until the task asks for it, so
that TCP holds a peer back who is faster than we are.
"""

import asyncio
import socket
import struct
from copy import copy
from typing import Final

from needfire_protocol.connection import ServerConnection
from needfire_protocol.connection_events import ConnectionEvent
from needfire_protocol.messages import Message

__all__ = ["RESET_ON_CLOSE", "Wire"]

RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""Value of SO_LINGER with which a close is a reset."""

_READ_BYTES_MAX: Final = 65_536
_WRITE_LIMIT_S: Final = 60
"""A peer that does not take what we send within this time is gone, or means harm."""

_LINGER_LIMIT_S: Final = 2
_LINGER_BYTES_MAX: Final = 4 * 1024 * 1024
"""What a peer may still send after we have ended; more than a window of reports."""


class Wire(asyncio.Protocol):
    """A connection of one peer, with the protocol's state machine on it."""

    __slots__ = (
        "_awaited",
        "_deadline_s",
        "_discarded_bytes",
        "_has_ended",
        "_is_held",
        "_lost",
        "_received",
        "_timer",
        "_transport",
        "_writable",
        "address",
        "connection",
        "has_address",
        "peer",
    )

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.has_address = False
        self.address = "unknown"
        """The peer's address as text, without a port."""
        self.peer = "unknown"
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._is_held = False
        """Nothing more is taken from the kernel until the task asks for it."""
        self._has_ended = False
        """The peer sends no more."""
        self._lost: OSError | None = None
        """Why nothing can be sent or received any more. A copy is raised: an error keeps the frames that
        it went through, they keep the connection, and such circles last (``circles.py``)."""
        self._awaited: asyncio.Future[None] | None = None
        self._deadline_s: float | None = None
        """Until when it is awaited, by the loop's clock; None: for as long as it takes."""
        self._timer: asyncio.TimerHandle | None = None
        """Goes off at the deadline or before it."""
        self._writable: asyncio.Future[None] | None = None
        """Exists while the peer does not take what we send."""
        self._discarded_bytes: int | None = None
        """Counts what comes after we have ended; None until then."""

    # ---- for the server

    @property
    def is_lost(self) -> bool:
        """True once nothing can be sent or received any more."""
        return self._lost is not None

    async def receive(self, limit_s: float | None = None) -> list[ConnectionEvent]:
        """Wait for bytes and return what they mean.

        Args:
            limit_s: how long to wait.

        Raises:
            OSError: the connection broke.
            TimeoutError: nothing came within the limit.
        """
        if not self._received and not self._has_ended and self._lost is None:
            await self._until_something(limit_s)
        if self._received:
            data, self._received = self._received, b""
            self._resume_reading()
            return self.connection.receive_data(data)
        if self._lost is not None and not self._has_ended:
            raise copy(self._lost)
        return self.connection.receive_eof()

    async def send(self, *messages: Message) -> None:
        """Seal and send messages, and wait until the peer has taken most of them.

        Raises:
            OSError: the connection broke, or the peer takes nothing.
        """
        for message in messages:
            if self.connection.is_closed:
                # What came after the message that we answer was no protocol, and ended it.
                raise ConnectionResetError("the peer broke the protocol")
            self.connection.send(message)
        await self.flush()

    async def flush(self) -> None:
        """Send what the state machine has to say.

        Raises:
            OSError: the connection broke, or the peer takes nothing.
        """
        data = self.connection.data_to_send()
        if self._lost is not None:
            raise copy(self._lost)
        if data and self._transport is not None:
            self._transport.write(data)
        if self._writable is not None:
            # Several may wait for it, and one that is cancelled must not take it from the others.
            done, _ = await asyncio.wait((self._writable,), timeout=_WRITE_LIMIT_S)
            if not done:
                # No TimeoutError, which says to who receives that nothing came.
                raise ConnectionAbortedError("the peer takes nothing")
            if self._lost is not None:
                raise copy(self._lost)

    async def close(self) -> None:
        """Close the connection after what was sent; never raises for a peer that is gone.

        Closing while bytes of the peer lie unread would be a reset, and a reset throws away what
        the peer has not read yet: the very refusal or farewell that we have just sent. So we end
        our direction first and give the peer a moment to end its own.
        """
        transport = self._transport
        if transport is None or self._lost is not None:
            return
        try:
            if not transport.is_closing():
                transport.write_eof()
                self._discarded_bytes, self._received = 0, b""
                self._resume_reading()
                if not self._has_ended:
                    await self._until_something(_LINGER_LIMIT_S)
        except (OSError, TimeoutError):
            pass
        transport.close()
        try:
            if self._lost is None:
                await self._until_something(_WRITE_LIMIT_S)
        except TimeoutError:
            transport.abort()

    def abort(self, reason: OSError | None = None) -> None:
        """Close at once; what waits to be sent is lost.

        Args:
            reason: what the task that receives is told; without one, that the connection has ended.
        """
        if self._lost is None:
            self._lost = reason
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """Close at once with a reset, so that the peer sees "Connection reset by peer".

        Documented state 2: a refused peer reports exactly these words. An ordinary close of a
        connection from which nothing was read would be a reset only by luck.
        """
        if self._transport is None:
            return
        connected = self._transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._transport.abort()

    # ---- for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # Of asyncio's own transports; 256 KiB at once is more than a stranger should cost.
        transport.max_size = _READ_BYTES_MAX  # type: ignore[attr-defined]
        name = transport.get_extra_info("peername")
        if name:
            self.has_address = True
            self.address = name[0]
            self.peer = _host_port(name[0], name[1])

    def data_received(self, data: bytes) -> None:
        if self._discarded_bytes is not None:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > _LINGER_BYTES_MAX:
                self._has_ended = True
                self._wake()
            return
        self._received = self._received + data if self._received else data
        if self._awaited is None and self._transport is not None:
            self._is_held = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._has_ended = True
        self._wake()
        # We may have something to say still; asyncio would close.
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if self._lost is None:
            if error is None:
                # We ended it ourselves; whoever still reads sees an end.
                self._has_ended = True
            is_known = isinstance(error, OSError)
            self._lost = error if is_known else ConnectionResetError("the connection is closed")  # type: ignore[assignment]
        self._wake()
        self.resume_writing()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None:
            writable.set_result(None)

    # ---- inside

    async def _until_something(self, limit_s: float | None) -> None:
        """Wait until bytes or the end have come.

        Raises:
            TimeoutError: nothing came within the limit.
        """
        assert self._awaited is None, "one task receives"
        loop = asyncio.get_running_loop()
        self._awaited = loop.create_future()
        self._deadline_s = None
        if limit_s is not None:
            self._deadline_s = deadline_s = loop.time() + limit_s
            if self._timer is None or self._timer.when() > deadline_s:
                self._set_timer(deadline_s)
        try:
            await self._awaited
        finally:
            self._awaited = None

    def _set_timer(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(at_s, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        """The timer went off. It may have been set for something that came in time.

        One for each time that something is awaited would cost more: nearly always something comes,
        and a timer that is cancelled stays with the loop for a while.
        """
        timer, self._timer = self._timer, None
        if self._awaited is None or self._deadline_s is None or timer is None:
            return
        if self._deadline_s > timer.when():
            self._set_timer(self._deadline_s)
        elif not self._awaited.done():
            self._awaited.set_exception(TimeoutError())

    def _wake(self) -> None:
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(None)

    def _resume_reading(self) -> None:
        transport = self._transport
        if self._is_held and transport is not None and not transport.is_closing():
            self._is_held = False
            transport.resume_reading()


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
