"""One connection of the admin socket: lines and open files, in and out, without ever blocking.

asyncio's streams cannot carry open files, so this reads and writes the socket itself.
"""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, Final

from needfire_protocol.errors import FormatError
from needfire_server.admin.requests import REQUEST_BYTES_MAX, encode_line

__all__ = ["Peer", "PeerGoneError"]

_RECEIVE_BYTES: Final = 65_536
_SEND_LIMIT_S: Final = 30.0
"""A peer that takes no byte for so long is given up; events wait for nobody."""
_PIECE_BYTES: Final = 65_536
_FILES_MAX: Final = 1
"""Open files that may wait for their request."""


class PeerGoneError(Exception):
    """The peer closed the connection, or stopped taking what is sent."""


class Peer:
    """The other side of an accepted connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._buffer = bytearray()
        self._files: deque[int] = deque()

    async def receive_request(self) -> tuple[bytes, BinaryIO | None] | None:
        """Return the next line and the file that came with it; None at the end.

        The file is the caller's to close.

        Raises:
            FormatError: the line is too long, or more files came than a request has.
            PeerGoneError: the connection broke.
        """
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > REQUEST_BYTES_MAX:
                raise FormatError(f"a request has more than {REQUEST_BYTES_MAX} bytes")
            if not await self._receive():
                return None
        if end > REQUEST_BYTES_MAX:
            raise FormatError(f"a request has more than {REQUEST_BYTES_MAX} bytes")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line, self._next_file()

    async def send(self, data: Mapping[str, Any], file: BinaryIO | None = None) -> None:
        """Send one line, and an open file with it.

        Raises:
            PeerGoneError: the connection broke, or nothing was taken for too long.
        """
        await self._send(encode_line(data), None if file is None else file.fileno())

    async def send_all(self, page: Sequence[Mapping[str, Any]]) -> None:
        """Send a line for each; others get their turn after each piece, however long the lines are.

        Raises:
            PeerGoneError: as ``send``.
        """
        piece = bytearray()
        for data in page:
            piece += encode_line(data)
            if len(piece) >= _PIECE_BYTES:
                await self._send(bytes(piece))
                piece.clear()
                await asyncio.sleep(0)
        await self._send(bytes(piece))

    async def wait_until_gone(self) -> None:
        """Wait until the peer closes the connection, then raise; what it sends meanwhile waits.

        Raises:
            PeerGoneError: it closed it.
            FormatError: it sent more than a request has.
        """
        while await self._receive():
            if len(self._buffer) > REQUEST_BYTES_MAX:
                raise FormatError(f"a request has more than {REQUEST_BYTES_MAX} bytes")
        raise PeerGoneError

    def close(self) -> None:
        """Close the connection and every file that nobody took."""
        while self._files:
            os.close(self._files.popleft())
        self._socket.close()

    async def _receive(self) -> bool:
        """Read what is there, waiting if there is nothing; False at the end of the stream."""
        while (data := self._receive_now()) is None:
            await self._ready(asyncio.get_running_loop().add_reader, _stop_reading)
        self._buffer += data
        if len(self._files) > _FILES_MAX:
            raise FormatError("more open files came than a request has")
        return bool(data)

    def _receive_now(self) -> bytes | None:
        """Read what is there: None is nothing yet, b"" the end."""
        descriptors = array.array("i")
        # Room for more than may come: the surplus is refused and closed. Without room the kernel
        # would drop it silently.
        room = socket.CMSG_SPACE(16 * descriptors.itemsize)
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                _RECEIVE_BYTES, room, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except OSError as error:
            raise PeerGoneError from error
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                whole = len(content) - len(content) % descriptors.itemsize
                descriptors.frombytes(content[:whole])
        self._files.extend(descriptors)
        if flags & socket.MSG_CTRUNC:
            raise FormatError("more open files came than a request has")
        return data

    def _next_file(self) -> BinaryIO | None:
        if not self._files:
            return None
        fd = self._files.popleft()
        try:
            return os.fdopen(fd, "rb")
        except OSError as error:  # A directory, for example.
            with suppress(OSError):
                os.close(fd)
            raise FormatError(f"what came along is no file: {error.strerror}") from error

    async def _send(self, data: bytes, fd: int | None = None) -> None:
        """Send all of it, and an open file with the first byte.

        Who takes a little now and then is slow, and not gone.
        """
        left = memoryview(data)
        try:
            while left:
                try:
                    if fd is None:
                        sent = self._socket.send(left)
                    else:
                        sent = socket.send_fds(self._socket, [left], [fd])
                except BlockingIOError:
                    async with asyncio.timeout(_SEND_LIMIT_S):
                        await self._ready(asyncio.get_running_loop().add_writer, _stop_writing)
                else:
                    left, fd = left[sent:], None
        except (OSError, TimeoutError) as error:
            raise PeerGoneError from error

    async def _ready(
        self,
        start: Callable[..., None],
        stop: Callable[[asyncio.AbstractEventLoop, int], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        fd = self._socket.fileno()
        start(fd, ready.set)
        try:
            await ready.wait()
        finally:
            stop(loop, fd)


def _stop_reading(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    loop.remove_reader(fd)


def _stop_writing(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    loop.remove_writer(fd)
