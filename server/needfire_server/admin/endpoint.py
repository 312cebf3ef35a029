"""The admin socket: who may use it is decided by the kernel's word about the peer, not by a secret.

Peers are accepted by SO_PEERCRED: root, the user that the server runs as, and the uids that the
configuration allows. Everybody else is turned away before a byte is read. Requests are lines of
JSON with at most one open file each; size, time and number of connections are bounded, so that a
program gone wild on the log host cannot stop the server.
"""

import asyncio
import logging
import os
import pwd
import socket
import stat
import struct
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, BinaryIO, Final

from needfire_protocol.errors import NeedfireError, StorageError
from needfire_server.admin.local_socket import bind_path
from needfire_server.admin.peer import Peer, PeerGoneError
from needfire_server.admin.requests import (
    AdminRefusedError,
    encode_error,
    parse_request,
)
from needfire_server.admin.service import AdminService

__all__ = ["AdminEndpoint"]

_CONNECTIONS_MAX: Final = 64
"""Connections at a time; each command that follows events keeps one."""
_REQUEST_LIMIT_S: Final = 30.0
"""From the acceptance, or from the last reply, to the end of the next request."""
_REFUSAL_INTERVAL_S: Final = 60.0
"""A refused user is reported once in this time: refusals must not fill the store."""
_REFUSED_UIDS_MAX: Final = 1_024
_BACKLOG: Final = 64
_SETTLE_S: Final = 1.0
"""Pause after the system has no descriptor for another connection."""

_logger = logging.getLogger(__name__)


class AdminEndpoint:
    """Serves an ``AdminService`` on a Unix socket, between ``start`` and ``close``."""

    def __init__(
        self,
        service: AdminService,
        socket_path: str,
        allowed_uids: Collection[int] = (),
        *,
        request_limit_s: float = _REQUEST_LIMIT_S,
        connections_max: int = _CONNECTIONS_MAX,
    ) -> None:
        """Args:
        allowed_uids: who may steer the server besides root and its own user.
        """
        self._service = service
        self._path = socket_path
        self._extra_uids = frozenset(allowed_uids) - {0, os.geteuid()}
        self._allowed = self._extra_uids | {0, os.geteuid()}
        self._request_limit_s = request_limit_s
        self._connections_max = connections_max
        self._refused_at: dict[int, float] = {}
        self._open = 0
        self._listening: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen. The caller owns the data directory, so a socket left there is stale.

        Raises:
            StorageError: the socket cannot be made.
        """
        try:
            self._listening = self._listen()
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror or error}") from error
        self._task = asyncio.get_running_loop().create_task(self._serve(self._listening))

    async def close(self) -> None:
        """Stop listening and close every connection."""
        task, self._task = self._task, None
        if task is None or self._listening is None:
            return
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        self._listening.close()
        with suppress(OSError):
            os.unlink(self._path)

    async def __aenter__(self) -> "AdminEndpoint":
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _listen(self) -> socket.socket:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(self._path).st_mode):
                os.unlink(self._path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # On Linux the socket in the directory gets the mode of the descriptor: there is no
            # moment at which somebody else could connect.
            os.fchmod(listening.fileno(), 0o600)
            bind_path(listening, self._path)
            if self._extra_uids:
                self._let_others_reach_it()
            listening.listen(_BACKLOG)
        except BaseException:
            listening.close()
            raise
        return listening

    def _let_others_reach_it(self) -> None:
        """Without this the kernel would stop the allowed users; the credentials still decide.

        The directory can be passed through then, but not listed, and its files have modes of
        their own.
        """
        os.chmod(self._path, 0o666)  # noqa: S103 - connecting is all that it allows
        directory = os.path.dirname(os.path.abspath(self._path))
        mode = stat.S_IMODE(os.stat(directory).st_mode)
        os.chmod(directory, mode | 0o011)  # noqa: S103 - passing through, not listing

    async def _serve(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listening)
                except OSError as error:
                    _logger.warning("the admin socket accepts nothing now: %s", error)
                    await asyncio.sleep(_SETTLE_S)
                    continue
                group.create_task(self._serve_connection(connection))

    async def _serve_connection(self, connection: socket.socket) -> None:
        self._open += 1
        peer = Peer(connection)
        try:
            uid = _peer_uid(connection)
            self._admit(uid)
            await self._serve_requests(peer, _user_name(uid))
        except NeedfireError as error:
            with suppress(PeerGoneError):
                await peer.send(encode_error(error))
        except (PeerGoneError, TimeoutError):
            pass
        except Exception:
            # It ends one connection, not the server.
            _logger.exception("internal error while serving the admin socket")
            internal = AdminRefusedError(
                "internal error: please report it; the log has the details"
            )
            with suppress(PeerGoneError):
                await peer.send(encode_error(internal))
        finally:
            self._open -= 1
            peer.close()

    def _admit(self, uid: int) -> None:
        """Raise AdminRefusedError where the user may not use the socket, or there is no room."""
        if uid not in self._allowed:
            self._report_refused(uid)
            raise AdminRefusedError(
                f"user {uid} may not steer this server",
                "use the user that the server runs as, or root, or SetSocketAllowUid",
            )
        if self._open > self._connections_max:
            raise AdminRefusedError("too many admin connections are open")

    def _report_refused(self, uid: int) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._refused_at.get(uid, -_REFUSAL_INTERVAL_S) < _REFUSAL_INTERVAL_S:
            return
        if len(self._refused_at) >= _REFUSED_UIDS_MAX:
            self._refused_at.clear()
        self._refused_at[uid] = now_s
        self._service.hooks.record_event("ADMIN_REFUSED", uid=uid)

    async def _serve_requests(self, peer: Peer, user: str) -> None:
        while True:
            async with asyncio.timeout(self._request_limit_s):
                received = await peer.receive_request()
            if received is None:
                return
            line, file = received
            try:
                await self._answer(peer, line, user, file)
            finally:
                if file is not None:
                    file.close()

    async def _answer(self, peer: Peer, line: bytes, user: str, file: BinaryIO | None) -> None:
        try:
            reply = await self._service.handle(parse_request(line), user=user, file=file)
            if reply.items is not None:
                await _send_items(peer, reply.items)
        except NeedfireError as error:
            await peer.send(encode_error(error))
            return
        try:
            await peer.send({"result": reply.result}, reply.file)
        finally:
            if reply.file is not None:
                reply.file.close()


async def _send_items(peer: Peer, items: AsyncGenerator[Mapping[str, Any], None]) -> None:
    """Send items until there are no more or the peer has gone.

    Raises:
        PeerGoneError: it has gone.
        NeedfireError: there was a failure on the way; it becomes the last line.
    """

    try:
        async with asyncio.TaskGroup() as group, aclosing(items):
            # Without this, one that follows and goes away would be kept until the next event.
            watch = group.create_task(peer.wait_until_gone())
            async for item in items:
                await peer.send({"item": item})
            watch.cancel()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _peer_uid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    _pid, uid, _gid = struct.unpack("iII", credentials)
    return int(uid)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
