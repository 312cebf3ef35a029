"""Kafka: each batch is produced and confirmed by all replicas in sync. Needs the library aiokafka."""

import asyncio
import ssl
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidMessageError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)
from aiokafka.structs import RecordMetadata

from needfire_protocol.event import Event
from needfire_server.outputs.records import identity_of, line_of, rendered
from needfire_server.outputs.settings import OutputSettings
from needfire_server.outputs.target import ConfirmingTarget, RefusedError, TargetError
from needfire_server.outputs.tls import client_context

__all__ = ["KafkaTarget"]


class KafkaTarget(ConfirmingTarget):
    """One producer. A record's key is its host, so that the reports of a host stay in order."""

    def __init__(self, settings: OutputSettings) -> None:
        self._settings = settings
        self._line = line_of(settings)
        self._producer: AIOKafkaProducer | None = None

    async def open(self) -> None:
        settings = self._settings
        is_encrypted = settings.addresses[0].startswith("tls://")
        context: ssl.SSLContext | None = client_context(settings.tls) if is_encrypted else None
        self._producer = AIOKafkaProducer(
            bootstrap_servers=[each.removeprefix("tls://") for each in settings.addresses],
            security_protocol="SSL" if is_encrypted else "PLAINTEXT",
            ssl_context=context,
            acks="all",
            request_timeout_ms=settings.time_limit_s * 1_000,
        )
        try:
            async with asyncio.timeout(settings.time_limit_s):
                await self._producer.start()
        except KafkaError as error:
            await self._producer.stop()
            raise TargetError(str(error) or type(error).__name__) from None

    async def deliver(self, events: Sequence[Event]) -> None:
        assert self._producer is not None
        try:
            async with asyncio.timeout(self._settings.time_limit_s):
                confirmations = [await self._send(self._producer, event) for event in events]
                for confirmation in confirmations:
                    await confirmation
        except (MessageSizeTooLargeError, RecordListTooLargeError, InvalidMessageError) as error:
            raise RefusedError(str(error) or type(error).__name__) from None
        except KafkaError as error:
            raise TargetError(str(error) or type(error).__name__) from None

    async def _send(
        self, producer: AIOKafkaProducer, event: Event
    ) -> "asyncio.Future[RecordMetadata]":
        confirmation: asyncio.Future[RecordMetadata] = await producer.send(
            self._settings.topic,
            await rendered(self._line, event),
            key=(event.client or "").encode() or None,
            headers=[("event-id", identity_of(event).encode())],
        )
        return confirmation

    async def finish(self) -> bool:
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None
        return True
