"""How a file from the server gets onto the disk: whole and as announced, or not at all."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from needfire_client.durable import put_in_place
from needfire_protocol.errors import FormatError, NeedfireError, StorageError
from needfire_protocol.file_kind import FileKind
from needfire_protocol.plain_classes import dataclass

if TYPE_CHECKING:
    from needfire_protocol.messages import FileBegin

__all__ = ["SIZE_MAX_BYTES", "Download", "DownloadFile", "FileRefusedError"]

SIZE_MAX_BYTES: Final = {
    FileKind.CONFIGURATION: 4 * 1024 * 1024,
    FileKind.BASELINE: 16 * 1024 * 1024 * 1024,
}
"""Bytes of a file of each kind. A server that was broken into must not fill our disk for nothing:
a baseline of ten million files has about 3 GiB."""


@dataclass(frozen=True, slots=True)
class Download:
    """A file that arrived."""

    path: Path
    size_bytes: int
    sha256: str
    """In hexadecimal."""


class FileRefusedError(NeedfireError):
    """The server has no such file for this agent, or what came was not what was announced."""

    def __init__(self, kind: FileKind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class DownloadFile:
    """A file that is arriving. It takes its place, atomically, only in ``finish``.

    Raises:
        FormatError: what was announced is beyond the limit of its kind.
        StorageError: the file cannot be made; from every method.
    """

    def __init__(self, begin: "FileBegin", path: Path) -> None:
        size_max = SIZE_MAX_BYTES[begin.kind]
        if begin.size_bytes > size_max:
            raise FormatError(
                f"the server announced {begin.size_bytes} bytes; at most {size_max} are taken"
            )
        self._begin = begin
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._size_bytes = 0
        self._digest = hashlib.sha256()
        with self._storage_errors(), contextlib.suppress(FileNotFoundError):
            self._temporary.unlink()
        with self._storage_errors():
            self._handle = os.open(
                self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            FormatError: more came than was announced.
        """
        self._size_bytes += len(data)
        if self._size_bytes > self._begin.size_bytes:
            raise FormatError(f"more than the announced {self._begin.size_bytes} bytes came")
        self._digest.update(data)
        with self._storage_errors():
            view = memoryview(data)
            while view:
                view = view[os.write(self._handle, view) :]

    def finish(self) -> Download:
        """Put the file in place.

        Raises:
            FormatError: it is not the file that was announced.
        """
        if self._size_bytes != self._begin.size_bytes:
            raise FormatError(
                f"{self._size_bytes} bytes came, {self._begin.size_bytes} were announced"
            )
        if self._digest.digest() != self._begin.sha256:
            raise FormatError("the file that came is not the one that was announced")
        with self._storage_errors():
            os.fsync(self._handle)
            put_in_place(self._temporary, self._path)
        self._close()
        return Download(self._path, self._size_bytes, self._digest.hexdigest())

    def abandon(self) -> None:
        """Leave no trace, whatever happened so far."""
        self._close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    @contextlib.contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror or error}") from error
