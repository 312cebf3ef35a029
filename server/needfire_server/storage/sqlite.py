"""The store in one SQLite file, owned by one process.

Writes go through one thread that commits them in groups (``writer.py``); a call returns after the
commit that holds its effect. Reads have connections of their own, which cannot write, and see
everything that was committed before they began. The file is never on a network file system: its
journal needs shared memory.
"""

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from needfire_protocol.errors import StorageError
from needfire_protocol.event import Event
from needfire_protocol.srp import Verifier
from needfire_server import clock
from needfire_server.states import ClientState
from needfire_server.storage import statements
from needfire_server.storage.base import (
    ClientRecord,
    Command,
    EventQuery,
    IncomingReport,
    IngestResult,
    Proposal,
)
from needfire_server.storage.lock import DirectoryLock
from needfire_server.storage.migrate import migrate, steps
from needfire_server.storage.writer import GroupCommitWriter

__all__ = ["SqliteStore"]

T = TypeVar("T")
P = ParamSpec("P")

_JOBS_WAITING_MAX: Final = 1_024
"""Writes of coroutines that may wait for the disk; the next ones wait for their place."""
_READERS: Final = 4
_BUSY_TIMEOUT_S: Final = 5.0
_JOURNAL_BYTES_KEPT: Final = 64 * 1024 * 1024
"""The journal shrinks to this again after a burst."""


class SqliteStore:
    """Implements ``Store``; made by ``open``, ended by ``close``."""

    def __init__(
        self, path: str, lock: DirectoryLock, random_bytes: Callable[[int], bytes]
    ) -> None:
        """Use ``open``."""
        self._path = path
        self._lock = lock
        self._random_bytes = random_bytes
        self._room = asyncio.Semaphore(_JOBS_WAITING_MAX)
        self._writer = GroupCommitWriter(lambda: _connect_for_writing(path), path)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="needfire-read")
        self._reader_of_thread = threading.local()
        self._reader_connections: list[sqlite3.Connection] = []

    @classmethod
    def open(cls, path: str, *, random_bytes: Callable[[int], bytes] = os.urandom) -> "SqliteStore":
        """Open the store, making it or bringing it up to date where needed.

        The directory is made (0700) if only its last part is missing.

        Raises:
            StorageError: another process has it, it is damaged, newer than this program, or not
                accessible.
        """
        directory = os.path.dirname(os.path.abspath(path))
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700)
        except OSError as error:
            raise StorageError(f"{directory}: {error.strerror}") from error
        lock = DirectoryLock(directory)
        with contextlib.ExitStack() as undo:
            undo.callback(lock.release)
            try:
                _create(path, directory)
                _prepare(path)
                store = cls(path, lock, random_bytes)
            except OSError as error:
                raise StorageError(f"{path}: {error.strerror}") from error
            # SQLite quotes a damaged schema in its messages, and Python takes those for UTF-8.
            except (sqlite3.Error, UnicodeDecodeError) as error:
                raise StorageError(f"{path}: {error}") from error
            undo.pop_all()
        return store

    @property
    def path(self) -> str:
        """The database's file."""
        return self._path

    @property
    def random_bytes(self) -> Callable[[int], bytes]:
        """Where its secrets come from."""
        return self._random_bytes

    def close(self) -> None:
        """Finish every write that was begun, then release the file and the directory."""
        self._readers.shutdown(wait=True)
        for connection in self._reader_connections:
            connection.close()
        self._reader_connections.clear()
        self._writer.close()
        self._lock.release()

    def write_now(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        /,
        *args: P.args,
        **kw: P.kwargs,
    ) -> T:
        """Run a writing statement and wait for its commit: for callers without an event loop.

        Raises:
            StorageError: nothing is promised.
        """
        return self._writer.submit(lambda connection: function(connection, *args, **kw)).result()

    # ---- Store -------------------------------------------------------------------------------

    async def ingest(
        self,
        client: str,
        stream: bytes,
        reports: Sequence[IncomingReport],
        *,
        received_us: int,
    ) -> IngestResult:
        return await self._write(statements.ingest, client, stream, tuple(reports), received_us)

    async def record(self, event: Event) -> None:
        await self._write(statements.record, event)

    async def query_events(self, query: EventQuery) -> list[tuple[int, Event]]:
        return await self._read(statements.query_events, query)

    async def nth_newest_rowid(self, query: EventQuery, count: int) -> int:
        return await self._read(statements.nth_newest_rowid, query, count)

    async def last_rowid(self) -> int:
        return await self._read(statements.last_rowid)

    async def client_record(self, name: str) -> ClientRecord | None:
        return await self._read(statements.client_record, name)

    async def clients(self) -> list[ClientRecord]:
        return await self._read(statements.clients)

    async def register(self, name: str, verifier: Verifier, *, now_us: int, user: str) -> bool:
        return await self._write(statements.register, name, verifier, now_us, user)

    async def remove(self, name: str) -> bool:
        return await self._write(statements.remove, name)

    async def load_client_states(self) -> dict[str, ClientState]:
        return await self._read(statements.load_client_states)

    async def save_client_state(self, state: ClientState) -> None:
        await self._write(statements.save_client_state, state)

    async def queue_command(
        self, client: str, verb: str, user: str, now_us: int, expires_us: int | None = None
    ) -> int:
        return await self._write(statements.queue_command, client, verb, user, now_us, expires_us)

    async def pending_commands(self, client: str, now_us: int | None = None) -> list[Command]:
        moment_us = clock.now_us() if now_us is None else now_us
        return await self._read(statements.pending_commands, client, moment_us)

    async def mark_command_delivered(self, command_id: int, now_us: int) -> None:
        await self._write(statements.mark_command_delivered, command_id, now_us)

    async def acknowledge_command(
        self, command_id: int, outcome: str, detail: str, now_us: int, *, client: str | None = None
    ) -> Command | None:
        return await self._write(
            statements.acknowledge_command, command_id, outcome, detail, now_us, client
        )

    async def add_proposal(
        self, client: str, path: str, size_bytes: int, sha256: bytes, now_us: int
    ) -> int:
        number, superseded = await self._write(
            statements.add_proposal, client, path, size_bytes, sha256, now_us
        )
        if superseded is not None and superseded != path:
            _unlink(superseded)
        return number

    async def proposals(self, client: str | None = None) -> list[Proposal]:
        return await self._read(statements.proposals, client)

    async def proposal(self, proposal_id: int) -> Proposal | None:
        return await self._read(statements.proposal, proposal_id)

    async def remove_proposal(self, proposal_id: int) -> bool:
        path = await self._write(statements.remove_proposal, proposal_id)
        if path is not None:
            _unlink(path)
        return path is not None

    async def secret(self, name: str) -> bytes:
        return await self._write(statements.secret, name, self._random_bytes)

    # ---- how -----------------------------------------------------------------------------------

    async def _write(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        /,
        *args: P.args,
        **kw: P.kwargs,
    ) -> T:
        async with self._room:
            future = self._writer.submit(lambda connection: function(connection, *args, **kw))
            return await asyncio.wrap_future(future)

    async def _read(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        /,
        *args: P.args,
        **kw: P.kwargs,
    ) -> T:
        def work() -> T:
            try:
                return function(self._reader(), *args, **kw)
            except sqlite3.Error as error:
                raise StorageError(f"{self._path}: {error}") from error

        try:
            future = self._readers.submit(work)
        except RuntimeError as error:
            raise StorageError(f"{self._path}: the store is closed") from error
        return await asyncio.wrap_future(future)

    def _reader(self) -> sqlite3.Connection:
        """Return the connection of this thread; it cannot write."""
        connection: sqlite3.Connection | None = getattr(self._reader_of_thread, "connection", None)
        if connection is None:
            connection = _connect_for_reading(self._path)
            self._reader_connections.append(connection)
            self._reader_of_thread.connection = connection
        return connection


def _create(path: str, directory: str) -> None:
    """Make the file before SQLite would, so that nobody else could ever read it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(path, flags, 0o600))
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _prepare(path: str) -> None:
    # Nothing is changed, not even the kind of journal, before it is known whose database it is.
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    try:
        migrate(connection, path, steps())
    finally:
        connection.close()


def _connect_for_writing(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # With FULL every commit is flushed before it is reported, which acknowledgements rest on.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES_KEPT}")
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_for_reading(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{Path(os.path.abspath(path)).as_uri()}?mode=ro",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA query_only = ON")
    return connection


def _unlink(path: str) -> None:
    """Delete a file that no row names any more; one that is gone already is fine."""
    with contextlib.suppress(OSError):
        os.unlink(path)
