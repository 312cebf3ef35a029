"""One accepted TCP connection: moves bytes between the socket and the protocol, and nothing else.

Made for many connections that hardly ever say anything, and for a whole fleet that comes at once: it
reads and writes the socket itself when the event loop says that it can. asyncio's transports and
protocols do the same with three more turns of the loop and twice the objects for each connection: a
tenth of what it costs to let an agent in. What a connection holds while nobody speaks is a socket and
a state machine. One task receives; any may send.

What a peer sends is taken from the kernel once and then no more until the task asks for it, so
that TCP holds a peer back who is faster than we are.
"""

import asyncio
import contextlib
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
_BACKLOG_BYTES_MAX: Final = 65_536
"""What may wait for the kernel to take it before those who send have to wait too."""
_WRITE_LIMIT_S: Final = 60
"""A peer that does not take what we send within this time is gone, or means harm."""

_TIMER_LATE_S: Final = 0.01
"""A timer that goes off so much after a deadline need not be set anew for it: the waits of a log-in have
one deadline, which each of them counts from another moment."""

_LINGER_LIMIT_S: Final = 2
_LINGER_BYTES_MAX: Final = 4 * 1024 * 1024
"""What a peer may still send after we have ended; more than a window of reports."""


class Wire:
    """A connection of one peer, with the protocol's state machine on it."""

    __slots__ = (
        "_awaited",
        "_backlog",
        "_deadline_s",
        "_discarded_bytes",
        "_has_ended",
        "_is_reading",
        "_is_sending_over",
        "_loop",
        "_lost",
        "_received",
        "_socket",
        "_timer",
        "_writable",
        "address",
        "connection",
        "peer",
    )

    def __init__(
        self, connection: ServerConnection, connected: socket.socket, address: str, port: int
    ) -> None:
        """Take a socket over, of which nothing is read before ``receive``.

        Args:
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
        self._deadline_s: float | None = None
        """Until when it is awaited, by the loop's clock; None: for as long as it takes."""
        self._timer: asyncio.TimerHandle | None = None
        """Goes off at the deadline, before it, or ``_TIMER_LATE_S`` after it."""
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
        if data and self._lost is None:
            self._send(data)
        if self._lost is not None:
            raise copy(self._lost)
        if len(self._backlog) > _BACKLOG_BYTES_MAX:
            if not await self._is_taken():
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
        if self._lost is not None:
            return
        self._is_sending_over = True
        self._end_sending()
        self._discarded_bytes, self._received = 0, b""
        if not self._has_ended and self._lost is None:
            with contextlib.suppress(OSError):  # Or that it took too long.
                await self._until_something(_LINGER_LIMIT_S)
        if self._backlog:
            # It has been listened to long enough: one that takes nothing could go on for a minute.
            self._stop_reading()
            await self._is_taken()
        self._end(None)

    def abort(self, reason: OSError | None = None) -> None:
        """Close at once; what waits to be sent is lost.

        Args:
            reason: what the task that receives is told; without one, that the connection has ended.
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

    # ---- called by the event loop

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
            if self._awaited is None:
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

    async def _until_something(self, limit_s: float | None) -> None:
        """Wait until bytes or the end have come.

        Raises:
            TimeoutError: nothing came within the limit.
        """
        assert self._awaited is None, "one task receives"
        if not self._is_reading and self._socket is not None:
            self._is_reading = True
            # By its number: for a socket the loop would put its addresses into words, two system calls.
            self._loop.add_reader(self._socket.fileno(), self._read)
        self._awaited = self._loop.create_future()
        self._deadline_s = None
        if limit_s is not None:
            self._deadline_s = deadline_s = self._loop.time() + limit_s
            if self._timer is None or self._timer.when() > deadline_s + _TIMER_LATE_S:
                self._set_timer(deadline_s)
        try:
            await self._awaited
        finally:
            self._awaited = None

    def _set_timer(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at_s, self._look_at_deadline)

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

    def _stop_reading(self) -> None:
        if self._is_reading and self._socket is not None:
            self._is_reading = False
            self._loop.remove_reader(self._socket.fileno())

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
            self._loop.remove_reader(connected.fileno())
        if self._backlog:
            self._backlog = b""
            self._loop.remove_writer(connected.fileno())
        connected.close()
        if self._lost is None:
            self._has_ended = error is None or self._has_ended
            # Without the frames that it came through: they hold this connection.
            broken = error and error.with_traceback(None)
            self._lost = broken or ConnectionResetError("the connection is closed")
        self._wake()
        self._end_waiting_for_room()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _no_memory() -> ConnectionAbortedError:
    """The loop would only tell of it, and find the socket ready again at once."""
    return ConnectionAbortedError("there is no memory for it")


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
