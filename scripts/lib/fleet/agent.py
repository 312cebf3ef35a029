"""One simulated agent: the real protocol on a real socket, and of the agent nothing else.

A thousand whole agents would measure themselves. This one has no spool, no scanner and no thread;
it says what the bench wants it to say, signs it as an agent does, and notes when it was answered.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable

from needfire_protocol.connection import AgentConnection
from needfire_protocol.connection_events import (
    ConnectionEvent,
    Established,
    MessageReceived,
    Refused,
)
from needfire_protocol.keys import SessionKeys, sign_report
from needfire_protocol.messages import (
    EVENT_REPORT,
    Acknowledge,
    Announce,
    Heartbeat,
    Message,
    RefusalCode,
    Report,
    ReportBatch,
    SessionExpired,
    Welcome,
)

_UNREAD_BYTES = 262_144

WINDOW_BATCHES = 4
"""Batches on their way, as the real agent has them."""


class SimulatedAgent(asyncio.Protocol):
    """Args:
    address: its own on loopback, which is its name as well: so nothing asks a name server.
    on_lost: called when a connection ends that was not ended by us.
    """

    def __init__(self, address: str, on_lost: Callable[["SimulatedAgent", str], None]) -> None:
        self.address = address
        self.stream = os.urandom(16)
        self.instance = os.urandom(16)
        self.sequence = 0
        self.acknowledged = 0
        self.latencies_s: list[float] = []
        self.welcomed_at_s = 0.0
        self.was_resumed = False
        self.keys: SessionKeys | None = None
        self.refusals: list[str] = []
        self._on_lost = on_lost
        self._connection: AgentConnection | None = None
        self._transport: asyncio.Transport | None = None
        self._welcome: asyncio.Future[None] | None = None
        self._sent: deque[tuple[int, float]] = deque()
        self._room = asyncio.Event()
        self._is_quiet = False

    # ---- what the bench wants

    async def connect(self, port: int, password: str, *, limit_s: float = 30) -> None:
        """Resume the session where there is one, else negotiate; return after the welcome.

        Raises:
            OSError, TimeoutError: it did not work.
        """
        loop = asyncio.get_running_loop()
        if self.keys is not None:
            self._connection = AgentConnection.resume(self.keys, random_bytes=os.urandom)
        else:
            self._connection = AgentConnection.negotiate(
                self.address, password, takeover=True, random_bytes=os.urandom
            )
        self._welcome = loop.create_future()
        self._is_quiet = False
        self._sent.clear()
        async with asyncio.timeout(limit_s):
            # The real agent binds an address only where it is told to; here it is who we are.
            await loop.create_connection(
                lambda: self, "127.0.0.1", port, local_addr=(self.address, 0)
            )
            await self._welcome

    def heartbeat(self) -> None:
        self._say(Heartbeat(time.time_ns() // 1000, 0, None))

    async def report(self, bodies: list[bytes], due_s: float | None = None) -> None:
        """Send one batch as soon as the window has room; its latency is noted when it is answered.

        Args:
            due_s: when it was to be sent (monotonic): from there its latency counts, so that a
                slow answer shows in all that had to wait for it. None: from when it is sent.

        Raises:
            ConnectionError: the connection is gone; nothing of the batch is noted.
        """
        while len(self._sent) >= WINDOW_BATCHES:
            self._room.clear()
            await self._room.wait()
        self._send(bodies, time.monotonic() if due_s is None else due_s)

    def be_deaf(self) -> None:
        """Read nothing any more: what the server says piles up on its side."""
        if self._transport is not None:
            self._transport.pause_reading()

    def shout(self, bodies: list[bytes]) -> bool:
        """Send a batch whatever waits for an answer; False where the server has stopped reading too.

        Raises:
            ConnectionError: the connection is gone.
        """
        if self._transport is not None and self._transport.get_write_buffer_size() > _UNREAD_BYTES:
            return False
        self._send(bodies, time.monotonic())
        return True

    async def all_acknowledged(self) -> None:
        while self._sent:
            self._room.clear()
            await self._room.wait()

    def close(self) -> None:
        self._is_quiet = True
        if self._transport is not None:
            self._transport.abort()

    async def closed(self) -> None:
        """Close, and return when the loop has told of it: from then on ``connect`` is safe."""
        self.close()
        while self._transport is not None:
            self._room.clear()
            await self._room.wait()

    @property
    def is_welcome(self) -> bool:
        """Between ``close`` and what the loop tells of it, what is written would go nowhere."""
        return (
            self._transport is not None
            and not self._is_quiet
            and self._welcome is not None
            and self._welcome.done()
        )

    # ---- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self._connection is not None:
            for event in self._connection.receive_data(data):
                self._told(event)
            self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._sent.clear()
        # There is no spool: the same numbers come again, as a real agent would send them again.
        self.sequence = self.acknowledged
        self._room.set()
        reason = str(error) if error is not None else "closed"
        if self._welcome is not None and not self._welcome.done():
            self._welcome.set_exception(ConnectionResetError(reason))
        elif not self._is_quiet:
            self._on_lost(self, reason)

    # ---- inside

    def _send(self, bodies: list[bytes], since_s: float) -> None:
        if not self.is_welcome or self.keys is None:
            raise ConnectionResetError("not connected")
        reports = []
        for body in bodies:
            self.sequence += 1
            signature = sign_report(self.keys, self.stream, self.sequence, EVENT_REPORT, body)
            reports.append(Report(self.sequence, EVENT_REPORT, body, signature))
        self._sent.append((self.sequence, since_s))
        self._say(ReportBatch(self.stream, tuple(reports)))

    def _told(self, event: ConnectionEvent) -> None:
        if isinstance(event, Established):
            self.keys, self.was_resumed = event.keys, event.resumed
            self._say(Announce(self.instance, "boot", 1, "bench", "run", prior_exit_pending=False))
        elif isinstance(event, MessageReceived):
            self._heard(event.message)
        elif isinstance(event, Refused):
            self.refusals.append(event.code.name)
            if event.code is RefusalCode.SESSION_UNKNOWN:
                self.keys = None

    def _heard(self, message: Message) -> None:
        if isinstance(message, Welcome):
            self.welcomed_at_s = time.monotonic()
            if self._welcome is not None and not self._welcome.done():
                self._welcome.set_result(None)
        elif isinstance(message, Acknowledge):
            now_s = time.monotonic()
            while self._sent and self._sent[0][0] <= message.sequence:
                self.latencies_s.append(now_s - self._sent.popleft()[1])
            self.acknowledged = message.sequence
            self._room.set()
        elif isinstance(message, SessionExpired):
            self.keys = None

    def _say(self, message: Announce | Heartbeat | ReportBatch) -> None:
        if self._connection is None or self._transport is None or self._connection.is_closed:
            raise ConnectionResetError("not connected")
        self._connection.send(message)
        self._flush()

    def _flush(self) -> None:
        if self._connection is not None and self._transport is not None:
            data = self._connection.data_to_send()
            if data:
                self._transport.write(data)
