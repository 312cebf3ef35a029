"""Records posted to an HTTPS address, signed as Standard Webhooks 1.0 says.

    POST /path          webhook-id: BATCH   webhook-timestamp: SECONDS   webhook-signature: v1,BASE64
    one record a line   signed: BATCH.SECONDS.BODY with HMAC-SHA256

The id is made of the identities of the events in the body, so that the same batch has the same id again.
Redirects are not followed: they would carry the records to a place that nobody configured.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import http.client
import select
import socket
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from needfire_protocol import __version__
from needfire_protocol.escape import printable
from needfire_protocol.event import Event
from needfire_server.outputs.records import identity_of, line_of
from needfire_server.outputs.settings import OutputSettings
from needfire_server.outputs.target import ConfirmingTarget, RefusedError, TargetError
from needfire_server.outputs.threads import in_thread
from needfire_server.outputs.tls import client_context

__all__ = ["WebhookTarget", "signature"]

ANSWER_BYTES_MAX: Final = 65_536
_CONTENT_TYPES: Final = {"json": "application/x-ndjson", "ecs": "application/x-ndjson"}


def signature(key: bytes, batch_id: str, timestamp_s: int, body: bytes) -> str:
    """Return the value of the header ``webhook-signature``."""
    signed = f"{batch_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode("ascii")


class WebhookTarget(ConfirmingTarget):
    """One connection, kept open between deliveries."""

    def __init__(self, settings: OutputSettings) -> None:
        url = urlsplit(settings.where)
        self._settings = settings
        self._line = line_of(settings)
        self._host = url.hostname or ""
        self._port = url.port
        self._is_encrypted = url.scheme == "https"
        self._path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._connection: http.client.HTTPConnection | None = None

    async def deliver(self, events: Sequence[Event]) -> None:
        ids = ",".join(identity_of(event) for event in events)
        batch_id = "msg_" + hashlib.sha256(ids.encode()).hexdigest()[:32]
        limit_s = self._settings.time_limit_s
        try:
            async with asyncio.timeout(limit_s):
                await in_thread(lambda: self._post(batch_id, events))
        except TimeoutError:
            raise TargetError(f"it did not answer within {limit_s} seconds") from None
        except http.client.HTTPException as error:
            raise TargetError(f"its answer is not HTTP: {type(error).__name__}") from None

    def abort(self) -> None:
        """Take the socket away, also from the thread that waits for an answer that trickles in."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()

    # ---- in a thread ---------------------------------------------------------------------------

    def _post(self, batch_id: str, events: Sequence[Event]) -> None:
        body = b"".join(self._line(event) + b"\n" for event in events)
        connection = self._opened()
        timestamp_s = int(time.time())
        connection.request(
            "POST",
            self._path,
            body,
            {
                "Content-Type": _CONTENT_TYPES.get(
                    self._settings.format, "text/plain; charset=utf-8"
                ),
                "User-Agent": f"needfire/{__version__}",
                "webhook-id": batch_id,
                "webhook-timestamp": str(timestamp_s),
                "webhook-signature": signature(self._settings.key, batch_id, timestamp_s, body),
            },
        )
        answer = connection.getresponse()
        answer.read(ANSWER_BYTES_MAX)
        if not answer.isclosed():
            # More than anybody needs to say; the rest would be taken for the next answer.
            self._connection = None
            connection.close()
        _check(answer)

    def _opened(self) -> http.client.HTTPConnection:
        if self._connection is not None and _is_stale(self._connection):
            self.abort()
        if self._connection is None:
            limit_s = self._settings.time_limit_s
            if self._is_encrypted:
                context = client_context(self._settings.tls)
                self._connection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=limit_s, context=context
                )
            else:
                self._connection = http.client.HTTPConnection(
                    self._host, self._port, timeout=limit_s
                )
        return self._connection


_REFUSALS: Final = frozenset({400, 413, 415, 422})
"""RFC 9110, 15.5: what is said of the body. The rest is said of who asks, or of the place."""


def _is_stale(connection: http.client.HTTPConnection) -> bool:
    """True where the other side has closed a connection that was kept, or speaks unasked."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _check(answer: http.client.HTTPResponse) -> None:
    if 200 <= answer.status < 300:
        return
    reason = printable(answer.reason, 80)
    if 300 <= answer.status < 400:
        raise TargetError(f"it answered {answer.status} {reason}; redirects are not followed")
    failed = RefusedError if answer.status in _REFUSALS else TargetError
    raise failed(f"it answered {answer.status} {reason}")
