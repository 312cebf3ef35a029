"""The admin socket: who may use it is decided by the kernel's word about the peer, not by a secret.

Peers are known by SO_PEERCRED and SO_PEERGROUPS; whoever has no role (``gate.py``) is turned away
before a byte is read. Requests are lines of JSON with at most one open file each; size, time and
number of connections are bounded, so that a program gone wild on the log host cannot stop the server.
"""

import asyncio
import errno
import logging
import os
import pwd
import socket
import stat
import struct
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import BinaryIO, Final

from needfire_protocol.errors import NeedfireError, StorageError
from needfire_server.admin.gate import Gate, PeerIdentity
from needfire_server.admin.local_socket import bind_path
from needfire_server.admin.peer import Peer, PeerGoneError
from needfire_server.admin.places import Place, Places
from needfire_server.admin.requests import (
    AdminRefusedError,
    Page,
    encode_error,
    parse_request,
)
from needfire_server.admin.roles import Access
from needfire_server.admin.service import AdminService
from needfire_server.admin.warnings import with_warnings
from needfire_server.clock import monotonic_s
from needfire_server.lockout import LockLimits
from needfire_server.trouble import Warned

__all__ = ["AdminEndpoint"]

_CONNECTIONS_MAX: Final = 64
"""Connections at a time of those who have a role, and as many of those who steer (``places.py``);
each command that follows events keeps one."""
_REQUEST_LIMIT_S: Final = 30.0
"""From the acceptance, or from the last reply, to the end of the next request."""
_SO_PEERGROUPS: Final = 59
"""asm-generic/socket.h of Linux 4.13; Python has no name for it."""
_GROUPS_BYTES_MAX: Final = 1_024
"""256 groups of 32 bits; Python takes no more."""
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
        access: Access,
        limits: LockLimits,
        *,
        request_limit_s: float = _REQUEST_LIMIT_S,
        connections_max: int = _CONNECTIONS_MAX,
    ) -> None:
        self._service = service
        self._path = socket_path
        self._gate = Gate(access, limits, service.hooks.record_event, service.refusals)
        self._access = access
        self._request_limit_s = request_limit_s
        self._places = Places(connections_max)
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

    def configure(self, access: Access, limits: LockLimits) -> None:
        """Let other people in from now on.

        Raises:
            StorageError: the socket's mode cannot be changed.
        """
        self._gate.configure(access, limits)
        self._access = access
        try:
            self._set_mode()
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror or error}") from error

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
            self._set_mode()
            listening.listen(_BACKLOG)
        except BaseException:
            listening.close()
            raise
        return listening

    def _set_mode(self) -> None:
        """Let others reach the socket where others have a role; the credentials still decide.

        Without this the kernel would stop them. The directory can be passed through then, but not
        listed, and its files have modes of their own.
        """
        if not self._access.others_than({0, os.geteuid()}):
            os.chmod(self._path, 0o600)
            return
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
        peer = Peer(connection)
        task = asyncio.current_task()
        assert task is not None
        place: Place | None = None
        try:
            identity = _identity(connection)
            standing = self._gate.standing(identity)
            place = self._places.take(identity.uid, standing, task.cancel, monotonic_s())
            await self._gate.admit(identity)
            await self._serve_requests(peer, identity, place)
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
            if place is not None:
                self._places.leave(place)
            peer.close()

    async def _serve_requests(self, peer: Peer, identity: PeerIdentity, place: Place) -> None:
        while True:
            place.idle_since_s = monotonic_s()
            async with asyncio.timeout(self._request_limit_s):
                received = await peer.receive_request()
            if received is None:
                return
            place.idle_since_s = None
            line, file = received
            try:
                await self._answer(peer, line, identity, file)
            finally:
                if file is not None:
                    file.close()

    async def _answer(
        self, peer: Peer, line: bytes, identity: PeerIdentity, file: BinaryIO | None
    ) -> None:
        warning = self._service.hooks.warning
        told: Warned | None = None
        try:
            request = parse_request(line)
            lines = await self._gate.authorize(identity, request.verb)
            told = warning()
            await _tell(peer, *lines, None if told is None else told.text)
            reply = await self._service.handle(request, user=identity.name, file=file)
            await _tell_news(peer, told, warning())
            if reply.pages is not None:
                await _send_pages(peer, reply.pages, warning)
        except NeedfireError as error:
            await _tell_news(peer, told, warning())
            await peer.send(encode_error(error))
            return
        try:
            await peer.send({"result": reply.result}, reply.file)
        finally:
            if reply.file is not None:
                reply.file.close()


async def _tell(peer: Peer, *texts: str | None) -> None:
    for text in texts:
        if text is not None:
            await peer.send({"notice": text})


async def _tell_news(peer: Peer, told: Warned | None, now: Warned | None) -> None:
    """Tell of trouble that this very request ran into."""
    if now is not None and (told is None or not now.kinds <= told.kinds):
        await _tell(peer, now.text)


async def _send_pages(
    peer: Peer, pages: AsyncGenerator[Page, None], warning: Callable[[], Warned | None]
) -> None:
    """Send pages until there are no more or the peer has gone.

    Raises:
        PeerGoneError: it has gone.
        NeedfireError: there was a failure on the way; it becomes the last line.
    """

    try:
        async with (
            asyncio.TaskGroup() as group,
            aclosing(pages),
            aclosing(with_warnings(pages, warning)) as told,
        ):
            # Without this, one that follows and goes away would be kept until the next event.
            watch = group.create_task(peer.wait_until_gone())
            async for lines in told:
                await peer.send_all(lines)
            watch.cancel()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _identity(connection: socket.socket) -> PeerIdentity:
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    _pid, uid, gid = struct.unpack("iII", credentials)
    name = _user_name(uid)
    return PeerIdentity(uid, frozenset((gid, *_groups(connection, name, gid))), name)


def _groups(connection: socket.socket, name: str, gid: int) -> Iterable[int]:
    """Return the groups that the process was in when it connected."""
    try:
        groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES_MAX)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        # More groups than fit; those of the user database are as good, but may be slow to come.
        return os.getgrouplist(name, gid)
    return struct.unpack(f"{len(groups) // 4}I", groups)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
