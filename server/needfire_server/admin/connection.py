"""A connection to the admin socket of a running server, for the command line."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, BinaryIO

from needfire_protocol.errors import FormatError, StorageError
from needfire_server.admin.backend import Answer, UnreachableError
from needfire_server.admin.local_socket import connect_path
from needfire_server.admin.requests import (
    REPLY_LINE_BYTES_MAX,
    decode_line,
    encode_line,
    error_of,
)

__all__ = ["SocketConnection"]

_RECEIVE_BYTES = 65_536


class SocketConnection:
    """Implements ``Backend`` with a running server; one request at a time."""

    is_server = True

    def __init__(
        self,
        path: str,
        on_notice: Callable[[str], None] = lambda _text: None,
        *,
        timeout_s: float | None = None,
    ) -> None:
        """Connect.

        Args:
            on_notice: takes what the server has to say to the user beside its replies.
            timeout_s: for connecting, and for each time that the server is silent.

        Raises:
            UnreachableError: nobody listens at the path.
            StorageError: it may not be used, or is no socket.
        """
        self._path = path
        self._on_notice = on_notice
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        self._buffer = bytearray()
        self._files: list[int] = []
        try:
            connect_path(self._socket, path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            self._socket.close()
            raise UnreachableError(f"no server listens at {path}") from error
        except (TimeoutError, BlockingIOError) as error:
            # The second one: its queue is full, and nobody takes anything out.
            self._socket.close()
            raise UnreachableError(_silent(path)) from error
        except OSError as error:
            self._socket.close()
            raise StorageError(f"{path}: {error.strerror}") from error

    def call(self, verb: str, arguments: Mapping[str, Any], file: BinaryIO | None = None) -> Answer:
        self._send(verb, arguments, file)
        while True:
            reply = self._receive_line()
            if "result" in reply:
                return Answer(reply["result"], self._take_file())

    def stream(self, verb: str, arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        self._send(verb, arguments, None)
        while "item" in (reply := self._receive_line()):
            yield reply["item"]

    def __enter__(self) -> "SocketConnection":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._files:
            os.close(self._files.pop())
        self._socket.close()

    def _send(self, verb: str, arguments: Mapping[str, Any], file: BinaryIO | None) -> None:
        line = encode_line({"verb": verb, "arguments": dict(arguments)})
        # A server that refuses us may have closed its side already; its answer says why.
        with suppress(BrokenPipeError, ConnectionResetError):
            if file is not None:
                sent = socket.send_fds(self._socket, [line], [file.fileno()])
                line = line[sent:]
            self._socket.sendall(line)

    def _receive_line(self) -> dict[str, Any]:
        """Return the next line of the reply.

        Raises:
            NeedfireError: the reply is an error.
        """
        while "notice" in (reply := self._receive_any()):
            self._on_notice(str(reply["notice"]))
        if "error" in reply:
            raise error_of(reply["error"])
        return reply

    def _receive_any(self) -> dict[str, Any]:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > REPLY_LINE_BYTES_MAX:
                raise FormatError(f"a line of the reply has more than {REPLY_LINE_BYTES_MAX} bytes")
            self._receive()
        reply = decode_line(bytes(self._buffer[:end]))
        del self._buffer[: end + 1]
        return reply

    def _receive(self) -> None:
        try:
            data, files, _, _ = socket.recv_fds(
                self._socket, _RECEIVE_BYTES, 1, socket.MSG_CMSG_CLOEXEC
            )
        except TimeoutError as error:
            raise UnreachableError(_silent(self._path)) from error
        except OSError as error:
            raise UnreachableError(f"{self._path}: {error.strerror}") from error
        self._files += files
        if not data:
            raise UnreachableError(f"the server at {self._path} closed the connection")
        self._buffer += data

    def _take_file(self) -> BinaryIO | None:
        return os.fdopen(self._files.pop(0), "rb") if self._files else None


def _silent(path: str) -> str:
    return f"the server at {path} does not answer in time"
