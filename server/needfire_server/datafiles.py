"""Where the files of the clients are: ``rc.NAME`` or ``rc``, ``file.NAME`` or ``file``.

Only a registered name that passes ``parse_client_name`` ever becomes part of a path, so there is no
way out of the data directory. Files are opened relative to it, never through a symbolic link, and
only regular ones: a name that leads to a FIFO would stop the server, one that leads to a device or
elsewhere would give away what is not meant for clients. They change only by being replaced whole.
"""

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Final

from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.messages import FileKind
from needfire_protocol.names import parse_client_name

__all__ = [
    "BASELINE_BYTES_MAX",
    "CONFIGURATION_BYTES_MAX",
    "DataFiles",
    "NotAccessible",
    "OpenedFile",
    "ProposalFile",
    "StagedFile",
]

CONFIGURATION_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes of a configuration: what the language of these files takes at most."""
BASELINE_BYTES_MAX: Final = 4 * 1024**3
"""Bytes of a baseline: some 30 million files."""

_BYTES_MAX: Final = {
    FileKind.CONFIGURATION: CONFIGURATION_BYTES_MAX,
    FileKind.BASELINE: BASELINE_BYTES_MAX,
}
_PREFIX: Final = {FileKind.CONFIGURATION: "rc", FileKind.BASELINE: "file"}
_MODE: Final = {FileKind.CONFIGURATION: 0o640, FileKind.BASELINE: 0o600}
"""A group may be let into the directory to read configurations; baselines say too much of a host."""

_STAGED_PREFIX: Final = ".staged-"
_PROPOSALS: Final = "proposals"
_COPY_BYTES: Final = 1024 * 1024

# O_NONBLOCK: opening a FIFO would otherwise wait for its writer, for ever.
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A file that may be sent to its client; a context manager that closes it."""

    path: str
    file: BinaryIO
    """At its start. What it holds does not change: a new version is a new file."""
    size_bytes: int
    is_catch_all: bool
    origin: str = ""
    """Where people find it, where that is not the path."""

    @property
    def told_as(self) -> str:
        """What people are told of where it is."""
        return self.origin or self.path

    def __enter__(self) -> "OpenedFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.file.close()


@dataclass(frozen=True, slots=True)
class NotAccessible:
    """There is no file for this client that the server can read (documented state 6)."""

    first_path: str
    """The first path that was looked for: where the file should be put."""
    reason: str
    """What was wrong with the last path that was looked at."""
    paths: tuple[str, ...]
    """All that were looked at, in order."""
    is_missing: bool = False
    """True where there simply is none, and nothing is wrong."""


@dataclass(frozen=True, slots=True)
class StagedFile:
    """Bytes that wait beside the place they are meant for, until somebody has looked at them."""

    path: str
    size_bytes: int
    sha256: bytes


class DataFiles:
    """The files of one data directory. Every method blocks; call it in a thread."""

    def __init__(self, directory: str) -> None:
        self._directory = os.path.abspath(directory)

    @property
    def directory(self) -> str:
        """The data directory, absolute."""
        return self._directory

    def path_of(self, kind: FileKind, name: str | None) -> str:
        """Return where the file of a client (None: the catch-all of all) is looked for.

        Raises:
            FormatError: the name is no client name.
        """
        return os.path.join(self._directory, _file_name(kind, name))

    def find(self, kind: FileKind, name: str | None) -> OpenedFile | NotAccessible:
        """Open the client's own file, or the catch-all where it has none.

        A file that is there and cannot be used is not passed over: a wrong permission must not
        silently give a client what is meant for the others.

        Raises:
            FormatError: the name is no client name.
        """
        names = [_file_name(kind, name)]
        if name is not None:
            names.append(_file_name(kind, None))
        tried: list[str] = []
        reason, is_missing = "", False
        for file_name in names:
            tried.append(os.path.join(self._directory, file_name))
            try:
                return self._open(kind, file_name, is_catch_all=file_name == _PREFIX[kind])
            except OSError as error:
                reason, is_missing = _reason(error), error.errno == errno.ENOENT
                if not is_missing:
                    break
        return NotAccessible(tried[0], reason, tuple(tried), is_missing)

    def list_files(self, kind: FileKind) -> list[str | None]:
        """Return the names of the clients that have a file of this kind; None: the catch-all."""
        prefix = f"{_PREFIX[kind]}."
        try:
            present = os.listdir(self._directory)
        except OSError as error:
            raise StorageError(f"{self._directory}: {_reason(error)}") from error
        owners: list[str | None] = [None] if _PREFIX[kind] in present else []
        named = (name.removeprefix(prefix) for name in present if name.startswith(prefix))
        return owners + sorted(name for name in named if _is_stored_name(name))

    @contextmanager
    def staged(self, kind: FileKind, source: BinaryIO) -> Iterator[StagedFile]:
        """Copy source into the data directory, to be looked at and then ``commit``-ed.

        What is checked is the copy: whoever handed over the source may still change it. The copy
        is removed at the end unless it was committed.

        Raises:
            StorageError: no room, not readable, or larger than this kind of file may be.
        """
        staged_path = os.path.join(self._directory, f"{_STAGED_PREFIX}{secrets.token_hex(8)}")
        try:
            try:
                size_bytes, sha256 = _copy(source, staged_path, _BYTES_MAX[kind], _MODE[kind])
                _give_to_owner(staged_path, self._directory)
            except OSError as error:
                raise StorageError(f"{staged_path}: {_reason(error)}") from error
            yield StagedFile(staged_path, size_bytes, sha256)
        finally:
            with suppress(OSError):
                os.unlink(staged_path)

    def commit(self, kind: FileKind, name: str | None, staged: StagedFile) -> str:
        """Put a staged file in place of the one before, in one step; return its path.

        Raises:
            StorageError: the disk did not take it; the one before is still in place.
            FormatError: the name is no client name.
        """
        path = self.path_of(kind, name)
        try:
            os.replace(staged.path, path)
            _sync_directory(self._directory)
        except OSError as error:
            raise StorageError(f"{path}: {_reason(error)}") from error
        return path

    def new_proposal(self, client: str) -> "ProposalFile":
        """Open a place for a baseline that a client offers.

        Raises:
            StorageError: there is no room for it.
            FormatError: the name is no client name.
        """
        folder = os.path.join(self._directory, _PROPOSALS)
        name = f"{_file_name(FileKind.BASELINE, client)}.{secrets.token_hex(8)}"
        try:
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)
                _give_to_owner(folder, self._directory)
            return ProposalFile(folder, name)
        except OSError as error:
            raise StorageError(f"{folder}/{name}: {_reason(error)}") from error

    def open_proposal(self, path: str) -> OpenedFile | NotAccessible:
        """Open a proposal that the store names."""
        folder, name = os.path.split(path)
        if folder != os.path.join(self._directory, _PROPOSALS):
            return NotAccessible(path, "it is not in the proposals of this server", (path,))
        try:
            return self._open(FileKind.BASELINE, os.path.join(_PROPOSALS, name))
        except OSError as error:
            return NotAccessible(path, _reason(error), (path,))

    def sweep(self, proposals: Iterable[str]) -> int:
        """Remove what a crash left behind: staged files, and proposals that nothing names.

        Only for a server that starts: whatever is on its way now is removed as well. Returns how
        many files were removed.

        Args:
            proposals: the paths that the store has.
        """
        wanted = frozenset(proposals)
        folder = os.path.join(self._directory, _PROPOSALS)
        left = [path for path in _listed(folder) if path not in wanted]
        left += [
            path
            for path in _listed(self._directory)
            if os.path.basename(path).startswith(_STAGED_PREFIX)
        ]
        removed = 0
        for path in left:
            with suppress(OSError):
                os.unlink(path)
                removed += 1
        return removed

    def _open(
        self, kind: FileKind, name: str, *, is_catch_all: bool = False, origin: str = ""
    ) -> OpenedFile:
        path = os.path.join(self._directory, name)
        fd = os.open(path, _READ_FLAGS)
        try:
            size_bytes = _regular_size(fd, _BYTES_MAX[kind])
            file = os.fdopen(fd, "rb")
        except BaseException:
            os.close(fd)
            raise
        return OpenedFile(path, file, size_bytes, is_catch_all, origin)


class ProposalFile:
    """A proposal that arrives piece by piece. Every method blocks; call it in a thread."""

    def __init__(self, folder: str, name: str) -> None:
        """Make the file, under a name that does not count yet.

        Raises:
            OSError: there is no room for it.
        """
        self._folder = folder
        self._path = os.path.join(folder, name)
        self._partial_path = f"{self._path}.part"
        fd = os.open(self._partial_path, _CREATE_FLAGS, 0o600)
        self._file = os.fdopen(fd, "wb")

    def write(self, data: bytes) -> None:
        """Append a piece.

        Raises:
            StorageError: the disk does not take it.
        """
        try:
            self._file.write(data)
        except OSError as error:
            raise StorageError(f"{self._partial_path}: {_reason(error)}") from error

    def keep(self) -> str:
        """Make it durable; return the path for the store.

        Raises:
            StorageError: the disk does not take it.
        """
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.rename(self._partial_path, self._path)
            _sync_directory(self._folder)
        except OSError as error:
            self.discard()
            raise StorageError(f"{self._path}: {_reason(error)}") from error
        return self._path

    def discard(self) -> None:
        """Remove what arrived; after ``keep`` this does nothing."""
        # Closing flushes, and that fails on a full disk.
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            os.unlink(self._partial_path)


def _file_name(kind: FileKind, name: str | None) -> str:
    prefix = _PREFIX[kind]
    return prefix if name is None else f"{prefix}.{parse_client_name(name)}"


def _is_stored_name(name: str) -> bool:
    try:
        return parse_client_name(name) == name
    except FormatError:
        return False


def _regular_size(fd: int, size_max: int) -> int:
    """Return the size of an open file that a client may have.

    Raises:
        OSError: it is of another kind or too large.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if status.st_size > size_max:
        raise OSError(errno.EFBIG, f"{status.st_size} bytes exceed the limit of {size_max} bytes")
    return status.st_size


def _copy(source: BinaryIO, path: str, size_max: int, mode: int) -> tuple[int, bytes]:
    """Copy at most size_max bytes into a new durable file; return size and SHA-256."""
    digest = hashlib.sha256()
    size_bytes = 0
    with os.fdopen(os.open(path, _CREATE_FLAGS, mode), "wb") as target:
        while data := source.read(_COPY_BYTES):
            size_bytes += len(data)
            if size_bytes > size_max:
                raise OSError(errno.EFBIG, f"more than the limit of {size_max} bytes")
            digest.update(data)
            target.write(data)
        target.flush()
        os.fchmod(target.fileno(), mode)  # The umask took a part of it.
        os.fsync(target.fileno())
    return size_bytes, digest.digest()


def _give_to_owner(path: str, directory: str) -> None:
    """Let root's new file belong to whom the directory belongs: the server's user must read it."""
    if os.geteuid() == 0:
        owner = os.stat(directory)
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _sync_directory(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _listed(folder: str) -> list[str]:
    try:
        return [entry.path for entry in os.scandir(folder) if not entry.is_dir()]
    except OSError:
        return []


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "it is a symbolic link, and those are not followed; put the file itself there"
    return error.strerror or str(error)
