"""One accepted TCP connection: moves bytes between the socket and the protocol, and nothing else.

Made for many connections that hardly ever say anything, and for a whole fleet that comes at once: it
reads and writes the socket itself when it is told that it can (``poller.py``). asyncio's transports and
protocols do the same with three more turns of the loop and twice the objects for each connection: a
tenth of what it costs to let an agent in. What a connection holds while nobody speaks is a socket and
a state machine. One task receives, or something is called in its place; any may send.

What a peer sends is taken from the kernel once and then no more until the task asks for it, so
that TCP holds a peer back who is faster than we are.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from copy import copy
from typing import Final

from needfire_protocol.connection import ServerConnection
from needfire_protocol.connection_events import ConnectionEvent
from needfire_protocol.messages import Message
from needfire_server.deadlines import step_of
from needfire_server.poller import Poller

__all__ = ["RESET_ON_CLOSE", "Wire"]

RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""Value of SO_LINGER with which a close is a reset."""

_READ_BYTES_MAX: Final = 65_536
_BACKLOG_BYTES_MAX: Final = 65_536
"""What may wait for the kernel to take it before those who send have to wait too."""
_WRITE_LIMIT_S: Final = 60
"""A peer that does not take what we send within this time is gone, or means harm."""

_LINGER_LIMIT_S: Final = 2
_LINGER_BYTES_MAX: Final = 4 * 1024 * 1024
"""What a peer may still send after we have ended; more than a window of reports."""


class Wire:
    """A connection of one peer, with the protocol's state machine on it."""

    __slots__ = (
        "_awaited",
        "_backlog",
        "_call",
        "_deadline_s",
        "_discarded_bytes",
        "_has_ended",
        "_is_reading",
        "_is_sending_over",
        "_loop",
        "_lost",
        "_poller",
        "_received",
        "_socket",
        "_step",
        "_writable",
        "address",
        "connection",
        "peer",
    )

    def __init__(
        self,
        connection: ServerConnection,
        poller: Poller,
        connected: socket.socket,
        address: str,
        port: int,
    ) -> None:
        """Take a socket over, of which nothing is read before ``receive`` or ``call_back``.

        Args:
            poller: says when there is something to read.
            connected: does not block.
            address: the peer's, as text.
            port: the peer's.
        """
        self.connection = connection
        self.address = address
        """The peer's address as text, without a port."""
        self.peer = _host_port(address, port)
        # Kept: to ask for it is a system call each time in Python 3.11.
        self._loop = asyncio.get_running_loop()
        self._poller = poller
        self._socket: socket.socket | None = connected
        """None once it is closed."""
        self._received = b""
        self._is_reading = False
        """What comes is taken from the kernel."""
        self._has_ended = False
        """The peer sends no more."""
        self._lost: OSError | None = None
        """Why nothing can be sent or received any more. A copy is raised: an error keeps the frames that
        it went through, they keep the connection, and such circles last (``circles.py``)."""
        self._awaited: asyncio.Future[None] | None = None
        self._call: Callable[[], object] | None = None
        """Called once, in place of a task that waits."""
        self._deadline_s: float | None = None
        """Until when it is awaited, by the loop's clock; None: for as long as it takes."""
        self._step: int | None = None
        """In which we are told that a deadline has passed: this one, or an earlier one. To be told of each
        would cost more; nearly always something comes before."""
        self._backlog = b""
        """What the kernel has not taken yet."""
        self._writable: asyncio.Future[None] | None = None
        """Done when the kernel has taken all of the backlog, or the connection is lost; None where nobody
        has waited for that since."""
        self._is_sending_over = False
        """We end our direction when the backlog is gone."""
        self._discarded_bytes: int | None = None
        """Counts what comes after we have ended; None until then."""

    # ---- for the server

    @property
    def is_lost(self) -> bool:
        """True once nothing can be sent or received any more."""
        return self._lost is not None

    async def receive(self, until_s: float | None = None) -> list[ConnectionEvent]:
        """Wait for bytes and return what they mean.

        Args:
            until_s: when patience ends, by the loop's clock; None: never.

        Raises:
            OSError: the connection broke.
            TimeoutError: nothing came until then.
        """
        if not self._received and not self._has_ended and self._lost is None:
            await self._until_something(until_s)
        if self._received:
            return self.received()
        if self._lost is not None and not self._has_ended:
            raise copy(self._lost)
        return self.connection.receive_eof()

    def received(self) -> list[ConnectionEvent]:
        """Return what the bytes mean that have come since the last time, without waiting for any."""
        data, self._received = self._received, b""
        return self.connection.receive_data(data) if data else []

    def call_back(self, call: Callable[[], object], until_s: float) -> None:
        """Have something called once that bytes have come, nothing more can come, or patience ends.

        For peers that are answered without a task of their own; whoever is called may ask for it again.
        It is called by the event loop, or by who ends the connection, and must not raise.
        """
        assert self._awaited is None, "one receives"
        # First: where that fails, nobody is to be called.
        self._expect(until_s)
        self._call = call
        if self._received or self._has_ended or self._lost is not None:
            self._loop.call_soon(self._wake)

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
        self.flush_at_once()
        if self._lost is not None:
            raise copy(self._lost)
        if len(self._backlog) > _BACKLOG_BYTES_MAX:
            if not await self._is_taken():
                # No TimeoutError, which says to who receives that nothing came.
                raise ConnectionAbortedError("the peer takes nothing")
            if self._lost is not None:
                raise copy(self._lost)

    def flush_at_once(self) -> None:
        """Send what the state machine has to say, or let it wait for the kernel; see ``is_lost`` then."""
        data = self.connection.data_to_send()
        if data and self._lost is None:
            self._send(data)

    async def close(self) -> None:
        """Close the connection after what was sent; never raises for a peer that is gone.

        Closing while bytes of the peer lie unread would be a reset, and a reset throws away what
        the peer has not read yet: the very refusal or farewell that we have just sent. So we end
        our direction first and give the peer a moment to end its own.
        """
        if self._lost is not None:
            return
        self._is_sending_over = True
        self._end_sending()
        self._discarded_bytes, self._received = 0, b""
        if not self._has_ended and self._lost is None:
            with contextlib.suppress(OSError):  # Or that it took too long.
                await self._until_something(self._loop.time() + _LINGER_LIMIT_S)
        if self._backlog:
            # It has been listened to long enough: one that takes nothing could go on for a minute.
            self._stop_reading()
            await self._is_taken()
        self._end(None)

    def abort(self, reason: OSError | None = None) -> None:
        """Close at once; what waits to be sent is lost.

        Args:
            reason: what ``receive`` raises; without one, it says that the connection has ended.
        """
        self._end(reason)

    def reset(self) -> None:
        """Close at once with a reset, so that the peer sees "Connection reset by peer".

        Documented state 2: a refused peer reports exactly these words. An ordinary close of a
        connection from which nothing was read would be a reset only by luck.
        """
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._end(None)

    # ---- called by the event loop, the poller and the deadlines

    def deadline_passed(self) -> None:
        """It may have been that of something that came in time."""
        self._step = None
        if self._deadline_s is None or (self._awaited is None and self._call is None):
            return
        if self._deadline_s > self._loop.time():
            self._step = self._poller.deadlines.add(self, self._deadline_s)
        elif self._awaited is None:
            self._wake()
        elif not self._awaited.done():
            self._awaited.set_exception(TimeoutError())

    def _read(self) -> None:
        connected = self._socket
        if connected is None:
            return
        try:
            data = connected.recv(_READ_BYTES_MAX)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        except MemoryError:
            self._end(_no_memory())
            return
        if not data:
            # A socket that has ended stays readable. We may have something to say still.
            self._stop_reading()
            self._has_ended = True
        elif self._discarded_bytes is None:
            self._received = self._received + data if self._received else data
            if self._awaited is None and self._call is None:
                self._stop_reading()
        else:
            self._discarded_bytes += len(data)
            if self._discarded_bytes <= _LINGER_BYTES_MAX:
                return
            self._has_ended = True
        self._wake()

    def _write(self) -> None:
        connected = self._socket
        if connected is None:
            return
        try:
            sent = connected.send(self._backlog)
            self._backlog = self._backlog[sent:]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        except MemoryError:
            # What was sent already must not be sent again.
            self._end(_no_memory())
            return
        if not self._backlog:
            self._loop.remove_writer(connected.fileno())
            self._end_waiting_for_room()
            self._end_sending()

    # ---- inside

    async def _until_something(self, until_s: float | None) -> None:
        """Wait until bytes or the end have come.

        Raises:
            TimeoutError: nothing came until then.
        """
        assert self._awaited is None, "one receives"
        self._expect(until_s)
        self._awaited = self._loop.create_future()
        try:
            await self._awaited
        finally:
            self._awaited = None

    def _expect(self, until_s: float | None) -> None:
        if not self._is_reading and self._socket is not None:
            self._poller.add(self._socket.fileno(), self._read)
            self._is_reading = True
        self._deadline_s = until_s
        if until_s is not None and (self._step is None or self._step > step_of(until_s)):
            self._forget_deadline()
            self._step = self._poller.deadlines.add(self, until_s)

    def _forget_deadline(self) -> None:
        if self._step is not None:
            self._poller.deadlines.remove(self, self._step)
            self._step = None

    def _wake(self) -> None:
        if self._awaited is not None:
            if not self._awaited.done():
                self._awaited.set_result(None)
        elif self._call is not None:
            call, self._call = self._call, None
            call()

    def _stop_reading(self) -> None:
        if self._is_reading and self._socket is not None:
            self._is_reading = False
            self._poller.remove(self._socket.fileno())

    def _send(self, data: bytes) -> None:
        """Hand bytes to the kernel, or put them behind those that it does not take now."""
        connected = self._socket
        if connected is None:
            return
        if self._backlog:
            self._backlog += data
            return
        try:
            sent = connected.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._end(error)
            return
        if sent < len(data):
            self._backlog = data[sent:]
            self._loop.add_writer(connected.fileno(), self._write)

    async def _is_taken(self) -> bool:
        """Wait until the kernel has taken the backlog, or the connection is lost; False after too long."""
        if self._writable is None:
            self._writable = self._loop.create_future()
        # Several may wait for it, and one that is cancelled must not take it from the others.
        done, _ = await asyncio.wait((self._writable,), timeout=_WRITE_LIMIT_S)
        return bool(done)

    def _end_waiting_for_room(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None:
            writable.set_result(None)

    def _end_sending(self) -> None:
        if self._is_sending_over and not self._backlog and self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError as error:
                self._end(error)

    def _end(self, error: OSError | None) -> None:
        """Close the socket, and tell those who wait.

        Args:
            error: what broke it; None where we end it ourselves, and whoever still reads sees an end.
        """
        connected, self._socket = self._socket, None
        if connected is None:
            return
        if self._is_reading:
            self._is_reading = False
            self._poller.remove(connected.fileno())
        if self._backlog:
            self._backlog = b""
            self._loop.remove_writer(connected.fileno())
        connected.close()
        if self._lost is None:
            self._has_ended = error is None or self._has_ended
            # Without the frames that it came through: they hold this connection.
            broken = error and error.with_traceback(None)
            self._lost = broken or ConnectionResetError("the connection is closed")
        self._forget_deadline()
        self._end_waiting_for_room()
        self._wake()


def _no_memory() -> ConnectionAbortedError:
    """The loop would only tell of it, and find the socket ready again at once."""
    return ConnectionAbortedError("there is no memory for it")


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
