"""NATS JetStream: each record is published and confirmed; the stream leaves out what it has already.

Needs the library nats-py. A stream that takes the subject must exist; without one nothing confirms.
"""

import asyncio
import ssl
from collections.abc import Sequence
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.js.errors import APIError

from needfire_protocol.event import Event
from needfire_server.outputs.records import identity_of, line_of, rendered
from needfire_server.outputs.settings import OutputSettings
from needfire_server.outputs.target import ConfirmingTarget, RefusedError, TargetError
from needfire_server.outputs.tls import client_context

__all__ = ["NatsTarget"]

_TOO_LARGE: Final = 10054
"""JSStreamMessageExceedsMaximumErr of nats-server: the stream takes no message of this size."""


class NatsTarget(ConfirmingTarget):
    """One connection; the header ``Nats-Msg-Id`` is the id of the event."""

    def __init__(self, settings: OutputSettings) -> None:
        self._settings = settings
        self._line = line_of(settings)
        self._client = Client()

    async def open(self) -> None:
        limit_s = self._settings.time_limit_s
        context: ssl.SSLContext | None = None
        if self._settings.addresses[0].startswith("tls://"):
            context = client_context(self._settings.tls)
        try:
            async with asyncio.timeout(limit_s):
                # Reconnecting is the engine's: the library would hide that the target is away.
                await self._client.connect(
                    servers=list(self._settings.addresses),
                    allow_reconnect=False,
                    connect_timeout=limit_s,
                    max_reconnect_attempts=0,
                    tls=context,
                    error_cb=_ignore,
                )
        except NatsError as error:
            raise TargetError(str(error) or type(error).__name__) from None

    async def deliver(self, events: Sequence[Event]) -> None:
        stream = self._client.jetstream(timeout=self._settings.time_limit_s)
        for number, event in enumerate(events):
            try:
                await stream.publish(
                    self._settings.topic,
                    await rendered(self._line, event),
                    headers={"Nats-Msg-Id": identity_of(event)},
                )
            except MaxPayloadError as error:
                raise RefusedError(str(error), delivered=number, is_next=True) from None
            except APIError as error:
                failed = RefusedError if error.err_code == _TOO_LARGE else TargetError
                raise failed(str(error), delivered=number) from None
            except (NatsError, OSError) as error:
                raise TargetError(str(error) or type(error).__name__, delivered=number) from None

    async def finish(self) -> bool:
        await self._client.close()
        return True

    def abort(self) -> None:
        transport = self._client._transport
        if transport is not None:
            transport.close()  # type: ignore[no-untyped-call]  # the library's


async def _ignore(_error: Exception) -> None:
    """The engine hears of every failure by itself; the library would log a traceback."""
