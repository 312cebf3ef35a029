"""What a monitoring system is answered: /metrics, /healthz and /readyz over HTTP, read only.

Whoever reaches the port may ask, so nothing here is secret and nothing can be changed. A peer gets
one request of a few kilobytes and a few seconds; answers are made at most once a second, whatever
is asked. HTTP is spoken here only as far as that needs it: one request line, no body, no keep-alive.
"""

import asyncio
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from needfire_server.health import HealthCheck

__all__ = ["MonitoringEndpoint"]

HEAD_BYTES_MAX: Final = 8_192
CONNECTIONS_MAX: Final = 32
REQUEST_LIMIT_S: Final = 5.0
ANSWER_LIMIT_S: Final = 10.0
_FRESH_S: Final = 1.0

_TEXT: Final = "text/plain; charset=utf-8"
_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
_JSON: Final = "application/json"
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    kind: str = _TEXT


def _problem(status: int, text: str) -> _Answer:
    return _Answer(status, f"{text}\n".encode())


class MonitoringEndpoint:
    """Serves the three pages on one socket that is bound already.

    Args:
        expose: makes the text of /metrics.
        is_public: the socket is bound to an address that other hosts reach.
    """

    def __init__(
        self, expose: Callable[[], Awaitable[bytes]], health: HealthCheck, *, is_public: bool
    ) -> None:
        self._expose = expose
        self._health = health
        self._is_public = is_public
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._exposing = asyncio.Lock()
        self._exposed = b""
        self._exposed_s = float("-inf")

    async def start(self, bound: socket.socket) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(
            self._accepted, sock=bound, limit=HEAD_BYTES_MAX, backlog=CONNECTIONS_MAX
        )

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await self._server.wait_closed()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            async with asyncio.timeout(REQUEST_LIMIT_S):
                head = await _read_head(reader)
            answer = head if isinstance(head, _Answer) else await self._answer(head)
            async with asyncio.timeout(ANSWER_LIMIT_S):
                writer.write(_encode(answer, is_head=_is_head(head)))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, EOFError):
            writer.transport.abort()
        finally:
            self._open.discard(writer)

    async def _answer(self, head: bytes) -> _Answer:
        line, *headers = head.split(b"\r\n")
        words = line.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _problem(400, "this is no request of HTTP/1")
        if words[0] not in (b"GET", b"HEAD"):
            return _problem(405, "only GET and HEAD are served here")
        if not self._is_public and not _names_loopback(headers):
            return _problem(403, "ask by address or as localhost")
        return await self._page(words[1].partition(b"?")[0])

    async def _page(self, path: bytes) -> _Answer:
        if path == b"/metrics":
            return _Answer(200, await self._metrics(), _METRICS)
        if path == b"/healthz":
            # That the event loop answers is what this page says.
            return _Answer(200, b"ok\n")
        if path == b"/readyz":
            health = await self._health.look()
            body = json.dumps(health.as_data()).encode() + b"\n"
            return _Answer(200 if health.is_ready else 503, body, _JSON)
        return _problem(404, "there are /metrics, /healthz and /readyz")

    async def _metrics(self) -> bytes:
        async with self._exposing:
            now_s = asyncio.get_running_loop().time()
            if now_s - self._exposed_s > _FRESH_S:
                self._exposed = await self._expose()
                self._exposed_s = asyncio.get_running_loop().time()
            return self._exposed


async def _read_head(reader: asyncio.StreamReader) -> bytes | _Answer:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return _problem(431, f"a request has at most {HEAD_BYTES_MAX} bytes")
    return head[:-4]


def _is_head(head: bytes | _Answer) -> bool:
    return isinstance(head, bytes) and head.startswith(b"HEAD ")


def _encode(answer: _Answer, *, is_head: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}",
        f"Content-Type: {answer.kind}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + (b"" if is_head else answer.body)


def _names_loopback(headers: list[bytes]) -> bool:
    """False where a name of somebody's own leads here: a web page that reads us in a browser.

    A page can point a name of its own domain at 127.0.0.1 (DNS rebinding), but the browser sends
    that name.
    """
    for header in headers:
        name, _, value = header.partition(b":")
        if name.strip().lower() == b"host":
            host = value.strip().decode("latin-1")
            return host.rpartition(":")[0] == "localhost" or host == "localhost" or _is_ip(host)
    # HTTP/1.0 without the header: no browser does that.
    return True


def _is_ip(host: str) -> bool:
    bare = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return False
    return True
