"""Where log lines go: the console, the log file, and one file for each client.

Nothing here ever stops the server. A full disk costs lines, and they are counted; a reader of the
console that has gone to sleep costs lines as well, because the alternative is to sleep with it.
"""

import errno
import os
import select
import stat
from collections import OrderedDict
from typing import Final

from needfire_protocol.errors import StorageError
from needfire_protocol.escape import printable
from needfire_protocol.names import is_client_name

__all__ = ["ClientFiles", "Console", "LogFile"]

CLIENT_FILES_OPEN_MAX: Final = 64
"""Files of clients that are held open; the one that was not written for the longest is closed."""

_NAME_BYTES_MAX: Final = 255

_FLAGS: Final = (
    os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK
)
"""A log file is never a link, and a FIFO in its place must not stop the server."""


class LogFile:
    """A file to which lines are appended, no line in more than one write.

    Attributes:
        path: as configured.
        lost: lines that could not be written and that nobody has been told about yet.
        reason: why the last line could not be written; empty when it could.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.lost = 0
        self.reason = ""
        self._handle: int | None = None
        self._is_torn = False

    def open(self) -> None:
        """Open the file now, and create it (0640) where it does not exist.

        Raises:
            StorageError: it cannot be written, or is no regular file.
        """
        try:
            self._open()
        except OSError as error:
            shown = printable(self.path, 200)
            raise StorageError(f"the log file {shown} cannot be opened: {error.strerror}") from None

    def write(self, text: str, lines: int = 1) -> bool:
        """Append so many lines in one write; False where some of them are lost.

        Opens the file again if it has to. After a write that was cut, all are counted as lost.
        """
        data = text.encode("utf-8", "backslashreplace") + b"\n"
        try:
            handle = self._open()
            # A full disk may have taken the first half of the line before.
            written = os.write(handle, b"\n" + data if self._is_torn else data)
        except OSError as error:
            self.close()
            return self._lose(error.strerror or str(error), lines)
        if written < len(data):
            self._is_torn = self._is_torn or written > 0
            return self._lose(os.strerror(errno.ENOSPC), lines)
        self._is_torn = False
        self.reason = ""
        return True

    def close(self) -> None:
        """Close the file; the next line opens it again by its name."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _lose(self, reason: str, lines: int) -> bool:
        self.lost += lines
        self.reason = reason
        return False

    def _open(self) -> int:
        if self._handle is None:
            handle = _open_or_create(self.path)
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                os.close(handle)
                raise OSError(errno.EINVAL, "not a regular file")
            self._handle = handle
        return self._handle


class ClientFiles:
    """One log file for each client, beside the main one: ``log.NAME``."""

    def __init__(self, main_path: str) -> None:
        self._main_path = main_path
        self._open: OrderedDict[str, LogFile] = OrderedDict()

    def file_of(self, client: str) -> LogFile | None:
        """Return the file of a client; None where the name cannot be part of one."""
        path = f"{self._main_path}.{client}"
        if not is_client_name(client) or len(os.path.basename(path)) > _NAME_BYTES_MAX:
            return None
        file = self._open.setdefault(client, LogFile(path))
        self._open.move_to_end(client)
        if len(self._open) > CLIENT_FILES_OPEN_MAX:
            _, oldest = self._open.popitem(last=False)
            oldest.close()
        return file

    def close(self) -> None:
        """Close all of them; each is opened again by its name when it is needed."""
        for file in self._open.values():
            file.close()


class Console:
    """A file descriptor that somebody reads: a terminal, a pipe, the journal."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._is_torn = False

    def write(self, line: str) -> None:
        """Write a line unless nobody reads; never waits.

        The descriptor itself is not made non-blocking: that would hold for every process that
        shares the terminal.
        """
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        if self._is_torn:
            data = b"\n" + data
        try:
            self._is_torn = self._write_all(data)
        except OSError:
            self._is_torn = False

    def _write_all(self, data: bytes) -> bool:
        """Write what can be written; True where the line broke off in the middle."""
        poll = select.poll()
        poll.register(self._handle, select.POLLOUT)
        rest = memoryview(data)
        while rest:
            # What poll() calls writable takes PIPE_BUF bytes without blocking, and no more.
            ready = poll.poll(0)
            if not ready or not ready[0][1] & select.POLLOUT:
                break
            rest = rest[os.write(self._handle, rest[: select.PIPE_BUF]) :]
        return len(rest) < len(data) and len(rest) > 0


def _open_or_create(path: str) -> int:
    try:
        handle = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o640)
    except FileExistsError:
        return os.open(path, _FLAGS)
    # Whatever umask the server was started with: the group may read the log.
    os.fchmod(handle, 0o640)
    return handle
