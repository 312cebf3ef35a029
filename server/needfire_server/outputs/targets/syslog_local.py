"""The syslog daemon of this host: datagrams to its socket, as syslog(3) sends them."""

import asyncio
import errno
import socket
from collections.abc import Sequence

from needfire_protocol.event import Event
from needfire_server.outputs.formats import FORMATS
from needfire_server.outputs.formats.syslog import local_message
from needfire_server.outputs.records import rendered
from needfire_server.outputs.settings import OutputSettings
from needfire_server.outputs.shortening import fitting
from needfire_server.outputs.target import ConfirmingTarget, RefusedError, TargetError

__all__ = ["SyslogLocalTarget"]


class SyslogLocalTarget(ConfirmingTarget):
    """A record counts once the daemon's socket has it: a full one is waited for."""

    def __init__(self, settings: OutputSettings) -> None:
        self._settings = settings
        self._form = FORMATS[settings.format]
        self._socket: socket.socket | None = None

    async def open(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.connect(self._settings.where)

    async def deliver(self, events: Sequence[Event]) -> None:
        assert self._socket is not None
        loop, limit_s = asyncio.get_running_loop(), self._settings.time_limit_s
        for number, event in enumerate(events):
            try:
                async with asyncio.timeout(limit_s):
                    await loop.sock_sendall(self._socket, await rendered(self._message, event))
            except TimeoutError:
                raise TargetError("the daemon does not read", delivered=number) from None
            except OSError as error:
                reason = error.strerror or str(error)
                if error.errno == errno.EMSGSIZE:
                    raise RefusedError(reason, delivered=number, is_next=True) from None
                raise TargetError(reason, delivered=number) from None
            # Others get a turn: a hostile agent's records may be large and many.
            await asyncio.sleep(0)

    def abort(self) -> None:
        open_socket, self._socket = self._socket, None
        if open_socket is not None:
            open_socket.close()

    def _message(self, event: Event) -> bytes:
        return fitting(event, self._rendered, self._settings.message_bytes_max)

    def _rendered(self, event: Event) -> bytes:
        return local_message(event, self._form(event), facility=self._settings.facility)
