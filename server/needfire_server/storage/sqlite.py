"""The store in one SQLite file, owned by one process.

Readers see everything that was committed before they began, and do not hold up the writer. The file
is never on a network file system: its journal needs shared memory.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from needfire_protocol.errors import StorageError
from needfire_server.storage.engine import Listeners, StreamKey, Wakes
from needfire_server.storage.lock import DirectoryLock
from needfire_server.storage.migrate_sqlite import migrate
from needfire_server.storage.migrations import KNOWN
from needfire_server.storage.store import READERS, DatabaseStore

__all__ = ["SqliteEngine", "SqliteStore"]

T = TypeVar("T")

_BUSY_TIMEOUT_S: Final = 5.0
_JOURNAL_BYTES_KEPT: Final = 64 * 1024 * 1024
"""The journal shrinks to this again after a burst."""

_ROWS_AT_ONCE: Final = (64, 8, 1)
"""Rows of one statement. Python's lock is given away at each, and with a busy loop beside it takes
up to 5 ms to get it back. SQLite takes 32,766 values in one statement."""

_OF_ONE_JOB: Final = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)


class SqliteStore(DatabaseStore):
    """Implements ``Store``; made by ``open``, ended by ``close``."""

    @classmethod
    def open(
        cls,
        path: str,
        *,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> "SqliteStore":
        """Open the store, making it or bringing it up to date where needed.

        The directory is made (0700) if only its last part is missing.

        Raises:
            StorageError: another process has it, it is damaged, newer than this program, or not
                accessible.
        """
        directory = os.path.dirname(os.path.abspath(path))
        lock = DirectoryLock.of(directory)
        with contextlib.ExitStack() as undo:
            undo.callback(lock.release)
            try:
                _create(path, directory)
                _prepare(path)
                store = cls(SqliteEngine(path), lock, random_bytes)
            except OSError as error:
                raise StorageError(f"{path}: {error.strerror}") from error
            # SQLite quotes a damaged schema in its messages, and Python takes those for UTF-8.
            except (sa.exc.SQLAlchemyError, sqlite3.Error, UnicodeDecodeError) as error:
                raise StorageError(f"{path}: {getattr(error, 'orig', error)}") from error
            undo.pop_all()
        return store


class SqliteEngine:
    """Implements ``Engine``."""

    errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    is_shared = False

    def __init__(self, path: str) -> None:
        self.name = path
        self._anchor: sqlite3.Connection | None = None
        self._writing = _engine(
            lambda: _connect_for_writing(path), begin="BEGIN IMMEDIATE", pool=sa.NullPool
        )
        self.readers = _engine(
            lambda: _connect_for_reading(path), begin="BEGIN", pool=sa.QueuePool, pool_size=READERS
        )

    def connect(self) -> sa.Connection:
        connection = self._writing.connect()
        if self._anchor is None:
            self._anchor = self._anchored()
        return connection

    def _anchored(self) -> sqlite3.Connection:
        """Return a connection that only stays open.

        Whoever closes the last one removes the journal. On a full disk it could not be made again,
        and then not even reading would work.
        """
        anchor = _connect_for_reading(self.name)
        anchor.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return anchor

    def begin(self, connection: sa.Connection) -> contextlib.AbstractContextManager[object]:
        return _transaction(connection)

    def is_of_one_job(self, error: Exception) -> bool:
        if isinstance(error, sqlite3.Error):
            return isinstance(error, _OF_ONE_JOB)
        return not isinstance(error, OSError | MemoryError | sa.exc.SQLAlchemyError)

    def highest_sequences(
        self, connection: sa.Connection, keys: Sequence[StreamKey]
    ) -> Mapping[StreamKey, int]:
        driver = _driver(connection)
        highest: dict[StreamKey, int] = {}
        for portion in _portions(keys):
            # One row with all of the answer: Python's lock is given away at each.
            values = tuple(chain.from_iterable(portion))
            ((found,),) = driver.execute(_wanted_streams(len(portion)), values).fetchall()
            numbers = iter(map(int, (found or "").split()))
            highest.update(
                (portion[place], last) for place, last in zip(numbers, numbers, strict=True)
            )
        return highest

    def gaps_around(
        self, connection: sa.Connection, key: StreamKey, sequences: Sequence[int]
    ) -> list[tuple[int, int]]:
        driver = _driver(connection)
        gaps: dict[int, int] = {}
        for sequence in sequences:
            row = driver.execute(
                "SELECT first_sequence, last_sequence FROM stream_gaps WHERE client = ? "
                "AND stream = ? AND first_sequence <= ? ORDER BY first_sequence DESC LIMIT 1",
                (*key, sequence),
            ).fetchone()
            if row is not None and row[1] >= sequence:
                gaps[row[0]] = row[1]
        return list(gaps.items())

    def save_sequences(
        self, connection: sa.Connection, rows: Sequence[tuple[str, bytes, int]]
    ) -> None:
        driver = _driver(connection)
        for portion in _portions(rows):
            sql = _insertion("streams", ("client", "stream", "last_sequence"), len(portion))
            change = " ON CONFLICT DO UPDATE SET last_sequence = excluded.last_sequence"
            driver.execute(sql + change, tuple(chain.from_iterable(portion)))

    def insert_many(
        self,
        connection: sa.Connection,
        table: str,
        columns: Sequence[str],
        rows: Sequence[tuple[Any, ...]],
    ) -> None:
        driver = _driver(connection)
        for portion in _portions(rows):
            values = tuple(chain.from_iterable(portion))
            driver.execute(_insertion(table, tuple(columns), len(portion)), values)

    def run(self, connection: sa.Connection, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        _driver(connection).executemany(sql, rows)

    def ask(
        self, connection: sa.Connection, sql: str, values: tuple[Any, ...] = ()
    ) -> tuple[Any, ...] | None:
        # All of them: a statement that is not at its end keeps the transaction from ending.
        rows = _driver(connection).execute(sql, values).fetchall()
        return rows[0] if rows else None

    def wake_others(self, connection: sa.Connection, wakes: Iterable[Wakes]) -> None:
        """There are no others: the directory is locked."""

    def holds(self, job: str) -> bool:
        return True

    @contextlib.contextmanager
    def watch(self, listeners: Listeners) -> Iterator[None]:
        yield

    def close(self) -> None:
        self.readers.dispose()
        if self._anchor is not None:
            self._anchor.close()
            self._anchor = None


@contextlib.contextmanager
def _transaction(connection: sa.Connection) -> Iterator[None]:
    """A transaction by the driver itself: SQLAlchemy's own way costs four times as much.

    What SQLAlchemy begins by itself with its first statement is only a note there; it ends with ours.
    """
    driver = _driver(connection)
    driver.execute("BEGIN IMMEDIATE")
    try:
        yield
        _end(connection, connection.commit, driver.commit)
    except BaseException:
        with contextlib.suppress(sqlite3.Error, sa.exc.SQLAlchemyError):
            _end(connection, connection.rollback, driver.rollback)
        raise


def _end(
    connection: sa.Connection, by_sqlalchemy: Callable[[], None], by_driver: Callable[[], None]
) -> None:
    if connection.in_transaction():
        by_sqlalchemy()
    # Nothing where SQLAlchemy has done it.
    by_driver()


def _portions(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield rows as one statement takes them: few lengths, so that few statements are prepared."""
    done = 0
    for count in _ROWS_AT_ONCE:
        while len(rows) - done >= count:
            yield rows[done : done + count]
            done += count


@lru_cache(maxsize=8)
def _wanted_streams(count: int) -> str:
    """Ask for the highest numbers of some streams, each behind the stream's place in the question."""
    values = ", ".join(f"({place}, ?, ?)" for place in range(count))
    return (
        f"WITH wanted (place, client, stream) AS (VALUES {values}) "  # noqa: S608
        "SELECT group_concat(place || ' ' || last_sequence, ' ') "
        # In this order of the tables, whatever SQLite knows of them: by the key, once for each.
        "FROM wanted CROSS JOIN streams USING (client, stream)"
    )


@lru_cache(maxsize=64)
def _insertion(table: str, columns: tuple[str, ...], rows: int) -> str:
    names, places = ", ".join(columns), ", ".join("?" * len(columns))
    values = ", ".join([f"({places})"] * rows)
    return f"INSERT INTO {table} ({names}) VALUES {values}"  # noqa: S608


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
    engine = _engine(lambda: _connect(path), begin="BEGIN IMMEDIATE", pool=sa.NullPool)
    with engine.connect() as connection:
        migrate(connection, path, KNOWN)


def _engine(
    connect: Callable[[], sqlite3.Connection], *, begin: str, pool: type[sa.Pool], **options: Any
) -> sa.Engine:
    engine = sa.create_engine("sqlite://", creator=connect, poolclass=pool, **options)

    # Python's own transactions begin late and without IMMEDIATE; ours begin when we say.
    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # Not where ``SqliteEngine.begin`` has begun one already.
        if not _driver(connection).in_transaction:
            connection.exec_driver_sql(begin)

    return engine


def _connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )


def _connect_for_writing(path: str) -> sqlite3.Connection:
    connection = _connect(path)
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


def _driver(connection: sa.Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver
