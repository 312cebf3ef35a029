"""Syslog over TCP (RFC 6587, octet counting) and TLS (RFC 5425), as safe as it can be made.

Theory of operation. Syslog has no acknowledgements: what a receiver had not read when it died is
gone, and the sender's first write afterwards still succeeds. So a record counts only when (1) the
other host's kernel has acknowledged its bytes (TCP_INFO), and (2) the connection has stood for a
while after that, time enough for the receiver to read them. When the connection breaks, everything
younger is sent again, marked. The end of a connection is waited for: a receiver that closes its
side after we closed ours has read everything.
"""

import asyncio
import fcntl
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Final

from needfire_protocol.event import Event
from needfire_server.outputs.formats.syslog import octet_counted
from needfire_server.outputs.records import rendered, syslog_message
from needfire_server.outputs.settings import OutputSettings, TargetKind
from needfire_server.outputs.target import CLOSED, TargetError
from needfire_server.outputs.tls import client_context

__all__ = ["SETTLE_S", "SyslogStreamTarget"]

SETTLE_S: Final = 5.0
FINISH_LIMIT_S: Final = 3.0

TLS_BUFFER_BYTES_MAX: Final = 128 * 1024
"""What asyncio's TLS may hold below us, encrypted and out of our sight."""

_BYTES_ACKED_OFFSET: Final = 120
"""Of ``tcpi_bytes_acked`` in Linux's struct tcp_info (linux/tcp.h), since 4.1."""
_TCP_INFO_SIZE: Final = 128
_SIOCOUTQ: Final = 0x5411


class SyslogStreamTarget:
    """One connection to a receiver. Implements ``Target``."""

    settle_s: float = SETTLE_S
    loss: str = CLOSED
    remark: str = ""

    def __init__(
        self, settings: OutputSettings, on_lost: Callable[[], None], *, hostname: str
    ) -> None:
        self._settings = settings
        self._message = syslog_message(settings, hostname)
        self._connection = _Connection(on_lost)

    @property
    def is_lost(self) -> bool:
        return self._connection.is_lost

    async def open(self) -> None:
        settings = self._settings
        host, port = settings.address
        context: ssl.SSLContext | None = None
        if settings.kind is TargetKind.SYSLOG_TLS:
            context = client_context(settings.tls)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(settings.time_limit_s):
            await loop.create_connection(
                lambda: self._connection,
                host,
                port,
                ssl=context,
                server_hostname=None if context is None else settings.tls.server_name or host,
                ssl_shutdown_timeout=None if context is None else FINISH_LIMIT_S,
            )
        self._connection.raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # A host that lost its power acknowledges nothing; without this it takes a quarter hour.
        limit_ms = settings.time_limit_s * 1_000
        self._connection.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)

    async def deliver(self, events: Sequence[Event]) -> None:
        async with asyncio.timeout(self._settings.time_limit_s):
            for event in events:
                await self._connection.send(octet_counted(await rendered(self._message, event)))
                # Others get a turn: a hostile agent's records may be large and many.
                await asyncio.sleep(0)

    def handed_over(self) -> int:
        """Bytes that the kernel has been given, as it counts them: TLS's own included."""
        is_tls = self._settings.kind is TargetKind.SYSLOG_TLS
        slack = TLS_BUFFER_BYTES_MAX if is_tls else 0
        return self._connection.acknowledged() + self._connection.queued() + slack

    def acknowledged(self) -> int:
        """Bytes that the other host's kernel has acknowledged; any mark once nothing is left."""
        if self._connection.is_lost:
            return 0
        return self._connection.acknowledged() if self._connection.queued() else sys.maxsize

    async def finish(self) -> bool:
        return await self._connection.finish(FINISH_LIMIT_S)

    def abort(self) -> None:
        self._connection.abort()


class _Connection(asyncio.Protocol):
    """The bytes of a connection, and whether it still stands."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self.is_lost = False
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._is_finishing = False
        self._is_clean = False
        self._room = asyncio.Event()
        self._room.set()
        self._ended = asyncio.Event()

    @property
    def raw(self) -> socket.socket:
        assert self._transport is not None
        found: socket.socket = self._transport.get_extra_info("socket")
        return found

    # ---- asyncio.Protocol ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # Nothing waits in our own memory: what was sent is the kernel's to tell about. Not 0: with
        # that, asyncio's TLS pauses at an empty buffer, and never goes on.
        transport.set_write_buffer_limits(high=1, low=0)

    def connection_lost(self, error: Exception | None) -> None:
        self._is_clean = self._is_clean or error is None
        self._lose()
        self._ended.set()

    def eof_received(self) -> bool:
        self._is_clean = self._is_finishing
        self._lose()
        return False

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    # ---- for the target --------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        """Hand bytes to the kernel, all of them.

        Raises:
            TargetError: the connection is broken.
        """
        if self.is_lost or self._transport is None:
            raise TargetError(CLOSED)
        self._transport.write(data)
        await self._room.wait()
        if self.is_lost:
            raise TargetError(CLOSED)

    def acknowledged(self) -> int:
        if self.is_lost or self._transport is None:
            return 0
        try:
            info = self.raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        except OSError:
            return 0
        if len(info) < _TCP_INFO_SIZE:
            return 0
        found: int = struct.unpack_from("=Q", info, _BYTES_ACKED_OFFSET)[0]
        return found

    def queued(self) -> int:
        """Return the bytes that the kernel has and the other host has not acknowledged."""
        if self.is_lost or self._transport is None:
            return 0
        return _bytes_queued(self.raw)

    async def finish(self, limit_s: float) -> bool:
        if self.is_lost or self._transport is None:
            return False
        self._is_finishing = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            # TLS: says that it ends, and waits until the other side has said so too.
            self._transport.close()
        try:
            async with asyncio.timeout(limit_s):
                await self._ended.wait()
        except TimeoutError:
            return False
        finally:
            self.abort()
        return self._is_clean

    def abort(self) -> None:
        self.is_lost = True
        if self._transport is not None:
            self._transport.abort()

    def _lose(self) -> None:
        self.is_lost = True
        self._room.set()
        self._on_lost()


def _bytes_queued(raw: socket.socket) -> int:
    answer = fcntl.ioctl(raw.fileno(), _SIOCOUTQ, bytes(4))
    found: int = struct.unpack("=i", answer)[0]
    return found
