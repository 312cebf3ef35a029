"""Syslog over UDP (RFC 5426): one datagram a message, and no more safety than that has."""

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from typing import Final

from needfire_protocol.event import Event
from needfire_server.outputs.records import rendered, syslog_message
from needfire_server.outputs.settings import OutputSettings
from needfire_server.outputs.target import RefusedError, TargetError

__all__ = ["SyslogUdpTarget"]

SETTLE_S: Final = 1.0
"""Time in which a host says that nobody listens there. A datagram that is lost says nothing."""
_LOSS: Final = "nothing listens there"
_PAUSE_EVERY: Final = 50


class SyslogUdpTarget:
    """A connected socket, so that the system tells when the port is closed. Implements ``Target``."""

    settle_s: float = SETTLE_S
    loss: str = _LOSS
    remark: str = ""

    def __init__(
        self, settings: OutputSettings, on_lost: Callable[[], None], *, hostname: str
    ) -> None:
        self._settings = settings
        self._message = syslog_message(settings, hostname)
        self._watch = _Watch(on_lost)
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def is_lost(self) -> bool:
        return self._watch.is_lost

    async def open(self) -> None:
        async with asyncio.timeout(self._settings.time_limit_s):
            self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: self._watch,
                remote_addr=self._settings.address,
                proto=socket.IPPROTO_UDP,
            )

    async def deliver(self, events: Sequence[Event]) -> None:
        assert self._transport is not None
        for number, event in enumerate(events):
            if self._watch.is_lost:
                raise TargetError(self.loss)
            self._transport.sendto(await rendered(self._message, event))
            if self._watch.is_too_long:
                reason = "it is too long for a datagram"
                raise RefusedError(reason, delivered=number, is_next=True)
            if number % _PAUSE_EVERY == 0:
                # A receiver on this host gets a chance to read.
                await asyncio.sleep(0)

    def handed_over(self) -> int:
        return 0

    def acknowledged(self) -> int:
        return 0

    async def finish(self) -> bool:
        self.abort()
        return False

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Watch(asyncio.DatagramProtocol):
    """Hears that nobody listens."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self.is_lost = False
        self.is_too_long = False
        self._on_lost = on_lost

    def error_received(self, error: Exception) -> None:
        self.is_too_long = isinstance(error, OSError) and error.errno == errno.EMSGSIZE
        self.is_lost = True
        self._on_lost()

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_lost = True
