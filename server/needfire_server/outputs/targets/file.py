"""A file to which records are appended, one line each, flushed to the disk before they count."""

import os
import stat
from collections.abc import Sequence
from typing import Final

from needfire_protocol.event import Event
from needfire_server.outputs.records import line_of
from needfire_server.outputs.settings import OutputSettings
from needfire_server.outputs.target import ConfirmingTarget, TargetError
from needfire_server.outputs.threads import in_thread

__all__ = ["FileTarget"]

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK
"""Never a link; a FIFO in its place must not stop the server. Read: the last byte, after a crash."""


class FileTarget(ConfirmingTarget):
    """Opens the file by its name for each delivery, so that it can be rotated by renaming it."""

    def __init__(self, settings: OutputSettings) -> None:
        self._path = settings.where
        self._line = line_of(settings)

    async def deliver(self, events: Sequence[Event]) -> None:
        """Append the records; all of them are on the disk then."""
        await in_thread(lambda: self._append(events))

    def _append(self, events: Sequence[Event]) -> None:
        _append(self._path, b"".join(self._line(event) + b"\n" for event in events))


def _append(path: str, data: bytes) -> None:
    handle = os.open(path, _FLAGS | os.O_CREAT, 0o640)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise TargetError("it is no regular file")
        if _is_torn(handle, status.st_size):
            data = b"\n" + data
        written = os.write(handle, data)
        if written < len(data):
            # What was written is complete up to some line: it will come again, marked.
            raise TargetError("the disk is full")
        os.fdatasync(handle)
    finally:
        os.close(handle)


def _is_torn(handle: int, size: int) -> bool:
    """True where a crash or a full disk left half a line at the end."""
    return size > 0 and os.pread(handle, 1, size - 1) != b"\n"
