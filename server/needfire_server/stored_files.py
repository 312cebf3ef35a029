"""The files of the clients where servers share a store: in the store, with copies in ``cache/``.

Each time that a client asks, the store says which contents are its own; they are fetched once and
kept beside the server under their digest. So a file that was put in place at one server counts at
once at all of them, and a hundred clients with the same baseline read it from the disk.
"""

import contextlib
import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, Final, Protocol, TypeVar
from weakref import WeakValueDictionary

from needfire_protocol.errors import StorageError
from needfire_protocol.messages import FileKind
from needfire_server.clock import now_us
from needfire_server.datafiles import (
    DataFiles,
    NotAccessible,
    OpenedFile,
    ProposalFile,
    StagedFile,
)
from needfire_server.storage import file_rows
from needfire_server.storage.engine import Transaction
from needfire_server.storage.file_rows import CHUNK_BYTES, PROPOSAL_PREFIX, Content
from needfire_server.storage.store import DatabaseStore

__all__ = ["StoredFiles", "data_files_of"]

T = TypeVar("T")

_ORIGIN: Final = "store:"
"""Before a file's name, where people read where it is."""
_CACHE: Final = "cache"
_PARTIAL: Final = ".part"
_UNUSED_US: Final = 6 * 3_600 * 1_000_000
"""Microseconds for which contents stay that nothing names: for those who still read or write them."""
_IS_MISSING: Final = "No such file in the store"


class _Store(Protocol):
    def read_now(self, function: Callable[..., T], /, *args: Any) -> T: ...
    def write_now(self, work: Callable[[Transaction], T]) -> T: ...


def data_files_of(store: DatabaseStore, directory: str) -> DataFiles:
    """Return the files that a server with this store serves."""
    return StoredFiles(directory, store) if store.is_shared else DataFiles(directory)


class StoredFiles(DataFiles):
    """Files in a store. Methods raise StorageError where it cannot be read or written."""

    def __init__(self, directory: str, store: _Store) -> None:
        super().__init__(directory)
        self._store = store
        self._cache = os.path.join(self.directory, _CACHE)
        self._fetching: WeakValueDictionary[bytes, threading.Lock] = WeakValueDictionary()
        self._guard = threading.Lock()

    def path_of(self, kind: FileKind, name: str | None) -> str:
        return _ORIGIN + os.path.basename(super().path_of(kind, name))

    def find(self, kind: FileKind, name: str | None) -> OpenedFile | NotAccessible:
        tried = []
        for owner in dict.fromkeys((name, None)):
            origin = self.path_of(kind, owner)
            tried.append(origin)
            found = self._store.read_now(file_rows.find_file, kind.value, owner or "")
            if found is not None:
                return self._open_content(kind, found, origin, is_catch_all=owner is None)
        return NotAccessible(tried[0], _IS_MISSING, tuple(tried), is_missing=True)

    def list_files(self, kind: FileKind) -> list[str | None]:
        names = self._store.read_now(file_rows.list_files, kind.value)
        return [name or None for name in names]

    def commit(self, kind: FileKind, name: str | None, staged: StagedFile) -> str:
        origin = self.path_of(kind, name)
        of_whom = (kind.value, name or "")
        size_bytes, sha256 = staged.size_bytes, staged.sha256
        if not self._write(file_rows.put_known, *of_whom, size_bytes, sha256, now_us()):
            with open(staged.path, "rb") as source:
                number = self._upload(source, size_bytes, sha256)
            if not self._write(file_rows.put_content, *of_whom, number, now_us()):
                raise StorageError(f"{origin}: its contents were removed meanwhile; put it again")
        return origin

    def new_proposal(self, client: str) -> ProposalFile:
        return _StoredProposal(super().new_proposal(client), self._upload_file)

    def open_proposal(self, path: str) -> OpenedFile | NotAccessible:
        number = path.removeprefix(PROPOSAL_PREFIX)
        if number == path or not number.isdecimal():
            return super().open_proposal(path)
        found = self._store.read_now(file_rows.content, int(number))
        if found is None:
            return NotAccessible(path, _IS_MISSING, (path,))
        return self._open_content(FileKind.BASELINE, found, path, is_catch_all=False)

    def sweep(self, proposals: Iterable[str]) -> int:
        """Remove also copies of contents that the store no longer has."""
        return super().sweep(proposals) + self._prune(_names(self._cache))

    def prune(self) -> int:
        """Remove copies of contents that the store no longer has; return how many."""
        return self._prune([name for name in _names(self._cache) if not name.endswith(_PARTIAL)])

    def drop_unused(self) -> bool:
        """Remove a bite of what nothing names any more from the store; True while more is left."""
        return self._write(file_rows.drop_unused, now_us() - _UNUSED_US)

    def take_over(self) -> int:
        """Give a store that has no files those of the data directory; return how many."""
        if self._store.read_now(file_rows.has_files):
            return 0
        local, count = DataFiles(self.directory), 0
        for kind in FileKind:
            for name in local.list_files(kind):
                found = local.find(kind, name)
                if isinstance(found, OpenedFile):
                    with found, self.staged(kind, found.file) as staged:
                        self.commit(kind, name, staged)
                    count += 1
        return count

    # ---- to the store ------------------------------------------------------------------------------

    def _write(self, function: Callable[..., T], *args: object) -> T:
        return self._store.write_now(lambda transaction: function(transaction.connection, *args))

    def _upload_file(self, path: str) -> str:
        with open(path, "rb") as source:
            digest = hashlib.file_digest(source, "sha256").digest()
            size_bytes = source.tell()
            source.seek(0)
            return f"{PROPOSAL_PREFIX}{self._upload(source, size_bytes, digest)}"

    def _upload(self, source: BinaryIO, size_bytes: int, sha256: bytes) -> int:
        number = self._write(file_rows.begin_content, now_us())
        position = 0
        while data := source.read(CHUNK_BYTES):
            self._write(file_rows.add_chunk, number, position, data, now_us())
            position += 1
        if not self._write(file_rows.finish_content, number, size_bytes, sha256, now_us()):
            raise StorageError("the file took so long that its beginning was removed; try again")
        return number

    def _prune(self, names: list[str]) -> int:
        wanted = {digest.hex() for digest in self._store.read_now(file_rows.digests)}
        removed = 0
        for name in names:
            if name not in wanted:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self._cache, name))
                    removed += 1
        return removed

    # ---- from the store ----------------------------------------------------------------------------

    def _open_content(
        self, kind: FileKind, content: Content, origin: str, *, is_catch_all: bool
    ) -> OpenedFile | NotAccessible:
        name = os.path.join(_CACHE, content.sha256.hex())
        path = os.path.join(self.directory, name)
        try:
            with self._lock_of(content):
                if not _is_whole(path, content):
                    self._fetch(content, path)
            return self._open(kind, name, is_catch_all=is_catch_all, origin=origin)
        except OSError as error:
            reason = error.strerror or str(error)
            return NotAccessible(origin, f"{path}: {reason}", (origin,))

    def _lock_of(self, content: Content) -> threading.Lock:
        with self._guard:
            lock = self._fetching.get(content.sha256)
            if lock is None:
                lock = self._fetching[content.sha256] = threading.Lock()
            return lock

    def _fetch(self, content: Content, path: str) -> None:
        """Copy contents from the store; they are in place only if they are what they should be."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._cache, 0o700)
        partial = f"{path}.{secrets.token_hex(8)}{_PARTIAL}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            digest, left = hashlib.sha256(), content.size_bytes
            with os.fdopen(os.open(partial, flags, 0o600), "wb") as target:
                position = 0
                while left > 0:
                    data = self._store.read_now(file_rows.chunk, content.id, position)
                    if not data:
                        break
                    position, left = position + 1, left - len(data)
                    digest.update(data)
                    target.write(data)
                target.flush()
                os.fsync(target.fileno())
            if left or digest.digest() != content.sha256:
                raise StorageError(
                    f"contents {content.id} of the store are damaged, or were removed meanwhile"
                )
            os.replace(partial, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(partial)


class _StoredProposal(ProposalFile):
    """A proposal that goes into the store once it is whole."""

    def __init__(self, local: ProposalFile, upload: Callable[[str], str]) -> None:
        self._local = local
        self._upload = upload

    def write(self, data: bytes) -> None:
        self._local.write(data)

    def keep(self) -> str:
        path = self._local.keep()
        try:
            return self._upload(path)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def discard(self) -> None:
        self._local.discard()


def _is_whole(path: str, content: Content) -> bool:
    try:
        return os.lstat(path).st_size == content.size_bytes
    except OSError:
        return False


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
