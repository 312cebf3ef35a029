"""The store in a PostgreSQL database, which any number of servers may share.

Each server has one connection that writes, a few that read, one that listens for what others do, and
one that holds the locks of its singleton jobs. They must be PostgreSQL's own sessions: a pooler in
transaction mode would lose the last two.
"""

import contextlib
import os
import select
import socket
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict

# Whoever gives up root's rights before he connects may not be able to read it later.
from sqlalchemy.dialects.postgresql import psycopg as _dialect  # noqa: F401

from needfire_protocol.errors import StorageError
from needfire_server.storage.engine import Listeners, StreamKey, Wakes
from needfire_server.storage.lock import DirectoryLock
from needfire_server.storage.migrate_postgresql import migrate
from needfire_server.storage.migrations import KNOWN
from needfire_server.storage.store import READERS, DatabaseStore

__all__ = ["PostgresEngine", "PostgresStore"]

_LOCK_SPACE: Final = 0x4E664972
"""Our advisory locks, among those of whoever else uses the database."""
_WRITING: Final = 0
"""The lock of who writes. Singleton jobs have the others."""

_EVENTS_CHANNEL: Final = "needfire_events"
_COMMANDS_CHANNEL: Final = "needfire_commands"
_CLIENTS_CHANNEL: Final = "needfire_clients"

_RECONNECT_S: Final = 1.0
_COPY_ROWS_MIN: Final = 8
"""Rows from which on COPY is cheaper than an INSERT for each."""

_DEFAULTS: Final = {
    "application_name": "needfire-server",
    "client_encoding": "UTF8",
    "connect_timeout": "5",
    # A host that vanished is noticed after this, not after two hours.
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
"""What the URL does not say itself."""

_SESSION: Final = """
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off'
"""
"""What was acknowledged must be on disk, whatever somebody set for the whole database."""

_LIMITS: Final = """
    SELECT set_config('statement_timeout', '60s', false),
           set_config('lock_timeout', '30s', false),
           set_config('idle_in_transaction_session_timeout', '60s', false),
           set_config('default_transaction_isolation', 'read committed', false),
           set_config('default_transaction_read_only', %s, false)
"""
"""A server that was stopped in the middle must not hold up all others for ever."""

_OF_ONE_JOB: Final = (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError)


class PostgresStore(DatabaseStore):
    """Implements ``Store``; made by ``open``, ended by ``close``."""

    @classmethod
    def open(
        cls,
        url: str,
        data_directory: str,
        *,
        password: str | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> "PostgresStore":
        """Connect, and make the tables or bring them up to date where needed.

        Args:
            url: ``postgresql://…``, without a password, as libpq takes it.
            data_directory: where the server keeps what is not in the database; it is locked.
            password: None leaves it to libpq (peer authentication, certificates, ~/.pgpass).

        Raises:
            StorageError: the database cannot be reached, is newer than this program or holds
                somebody else's tables; or another process has the directory.
        """
        lock = DirectoryLock.of(os.path.abspath(data_directory))
        with contextlib.ExitStack() as undo:
            undo.callback(lock.release)
            engine = PostgresEngine(url, password)
            undo.callback(engine.close)
            try:
                engine.prepare()
                store = cls(engine, lock, random_bytes)
            except (sa.exc.SQLAlchemyError, psycopg.Error) as error:
                raise StorageError(f"{engine.name}: {_one_line(error)}") from error
            undo.pop_all()
        return store


class PostgresEngine:
    """Implements ``Engine``."""

    errors: tuple[type[Exception], ...] = (psycopg.Error,)
    is_shared = True

    def __init__(self, url: str, password: str | None) -> None:
        self.name = _without_options(url)
        self._parameters: dict[str, Any] = {**_DEFAULTS, **_parsed(url)}
        if password is not None:
            self._parameters["password"] = password
        self._writing = self._engine(lambda: self._connect(is_reader=False), poolclass=sa.NullPool)
        self.readers = self._engine(
            lambda: self._connect(is_reader=True), pool_size=READERS, pool_pre_ping=True
        )
        self._writer_pid = 0
        self._singletons: psycopg.Connection[Any] | None = None
        self._held: set[str] = set()

    def prepare(self) -> None:
        """Bring the database to the schema of this version."""
        # Without limits of time: a step may have much to do, and starting servers wait for it.
        engine = self._engine(lambda: psycopg.connect(**self._parameters), poolclass=sa.NullPool)
        with engine.connect() as connection:
            migrate(connection, self.name, KNOWN)

    def connect(self) -> sa.Connection:
        connection = self._writing.connect()
        self._writer_pid = _driver(connection).info.backend_pid
        return connection

    @contextlib.contextmanager
    def begin(self, connection: sa.Connection) -> Iterator[None]:
        with connection.begin():
            _driver(connection).execute(
                "SELECT pg_advisory_xact_lock(%s, %s)", (_LOCK_SPACE, _WRITING)
            )
            yield

    def is_of_one_job(self, error: Exception) -> bool:
        if isinstance(error, psycopg.Error):
            return isinstance(error, _OF_ONE_JOB)
        return not isinstance(error, OSError | MemoryError | sa.exc.SQLAlchemyError)

    def highest_sequences(
        self, connection: sa.Connection, keys: Sequence[StreamKey]
    ) -> Mapping[StreamKey, int]:
        rows = _driver(connection).execute(
            "SELECT client, stream, last_sequence FROM streams "
            "JOIN unnest(%s::text[], %s::bytea[]) AS wanted (client, stream) USING (client, stream)",
            ([client for client, _ in keys], [stream for _, stream in keys]),
        )
        return {(client, stream): last for client, stream, last in rows}

    def gaps_around(
        self, connection: sa.Connection, key: StreamKey, sequences: Sequence[int]
    ) -> list[tuple[int, int]]:
        rows = _driver(connection).execute(
            "SELECT DISTINCT first_sequence, last_sequence FROM stream_gaps "
            "JOIN unnest(%s::bigint[]) AS late (sequence) "
            "ON first_sequence <= sequence AND last_sequence >= sequence "
            "WHERE client = %s AND stream = %s",
            (list(sequences), *key),
        )
        return list(rows)

    def save_sequences(
        self, connection: sa.Connection, rows: Sequence[tuple[str, bytes, int]]
    ) -> None:
        _driver(connection).execute(
            "INSERT INTO streams (client, stream, last_sequence) "
            "SELECT * FROM unnest(%s::text[], %s::bytea[], %s::bigint[]) "
            "ON CONFLICT (client, stream) DO UPDATE SET last_sequence = excluded.last_sequence",
            [list(column) for column in zip(*rows, strict=True)],
        )

    def insert_many(
        self,
        connection: sa.Connection,
        table: str,
        columns: Sequence[str],
        rows: Sequence[tuple[Any, ...]],
    ) -> None:
        names = ", ".join(columns)
        with _driver(connection).cursor() as cursor:
            if len(rows) < _COPY_ROWS_MIN:
                places = ", ".join(["%s"] * len(columns))
                insert = f"INSERT INTO {table} ({names}) VALUES ({places})"  # noqa: S608
                cursor.executemany(insert.encode(), rows)
                return
            with cursor.copy(f"COPY {table} ({names}) FROM STDIN".encode()) as copy:
                for row in rows:
                    copy.write_row(row)

    def run(self, connection: sa.Connection, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with _driver(connection).cursor() as cursor:
            cursor.executemany(_placed(sql), rows)

    def ask(
        self, connection: sa.Connection, sql: str, values: tuple[Any, ...] = ()
    ) -> tuple[Any, ...] | None:
        cursor = _driver(connection).execute(_placed(sql), values)
        return None if cursor.description is None else cursor.fetchone()

    def wake_others(self, connection: sa.Connection, wakes: Iterable[Wakes]) -> None:
        for wake in wakes:
            if wake.events:
                self._notify(connection, _EVENTS_CHANNEL, "")
            if wake.commands_of is not None:
                self._notify(connection, _COMMANDS_CHANNEL, wake.commands_of)
            if wake.client is not None:
                self._notify(connection, _CLIENTS_CHANNEL, wake.client)

    def holds(self, job: str) -> bool:
        try:
            return self._has_lock(job)
        except psycopg.Error as error:
            self._drop_singletons()
            raise StorageError(f"{self.name}: {_one_line(error)}") from error

    @contextlib.contextmanager
    def watch(self, listeners: Listeners) -> Iterator[None]:
        stop, stopped = socket.socketpair()
        with stop, stopped:
            thread = threading.Thread(
                target=self._listen,
                args=(stopped, listeners),
                name="needfire-listen",
                daemon=True,
            )
            thread.start()
            try:
                yield
            finally:
                stop.send(b"x")
                thread.join()

    def close(self) -> None:
        self.readers.dispose()
        self._drop_singletons()

    # ---- connections -------------------------------------------------------------------------

    def _engine(self, connect: Callable[[], Any], **options: Any) -> sa.Engine:
        return sa.create_engine("postgresql+psycopg://", creator=connect, **options)

    def _connect(self, *, is_reader: bool) -> psycopg.Connection[Any]:
        connection = psycopg.connect(**self._parameters)
        try:
            connection.execute(_SESSION)
            connection.execute(_LIMITS, ("on" if is_reader else "off",))
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection

    # ---- singleton jobs ----------------------------------------------------------------------

    def _has_lock(self, job: str) -> bool:
        if self._singletons is None:
            self._singletons = psycopg.connect(**self._parameters, autocommit=True)
        if job in self._held:
            # The lock lives as long as the session, so it is enough that this one answers.
            self._singletons.execute("SELECT 1")
            return True
        key = zlib.crc32(job.encode()) >> 1 or 1
        row = self._singletons.execute(
            "SELECT pg_try_advisory_lock(%s, %s)", (_LOCK_SPACE, key)
        ).fetchone()
        if row is not None and row[0]:
            self._held.add(job)
        return job in self._held

    def _drop_singletons(self) -> None:
        connection, self._singletons = self._singletons, None
        self._held.clear()
        if connection is not None:
            connection.close()

    # ---- what others do ----------------------------------------------------------------------

    def _notify(self, connection: sa.Connection, channel: str, text: str) -> None:
        _driver(connection).execute("SELECT pg_notify(%s, %s)", (channel, text))

    def _listen(self, stop: socket.socket, listeners: Listeners) -> None:
        wait_s = 0.0
        while not select.select([stop], [], [], wait_s)[0]:
            wait_s = _RECONNECT_S
            with contextlib.suppress(psycopg.Error, OSError):
                self._listen_once(stop, listeners)

    def _listen_once(self, stop: socket.socket, listeners: Listeners) -> None:
        with psycopg.connect(**self._parameters, autocommit=True) as connection:
            connection.execute(f"LISTEN {_EVENTS_CHANNEL}")
            connection.execute(f"LISTEN {_COMMANDS_CHANNEL}")
            connection.execute(f"LISTEN {_CLIENTS_CHANNEL}")
            # Nobody kept what was said while nobody listened.
            listeners.on_events()
            listeners.on_commands(None)
            listeners.on_client(None)
            self._hear(connection, stop, listeners)

    def _hear(
        self,
        connection: psycopg.Connection[Any],
        stop: socket.socket,
        listeners: Listeners,
    ) -> None:
        watched = [connection.fileno(), stop.fileno()]
        while stop.fileno() not in select.select(watched, [], [])[0]:
            for notify in connection.notifies(timeout=0):
                if notify.pid == self._writer_pid:
                    continue
                if notify.channel == _COMMANDS_CHANNEL:
                    listeners.on_commands(notify.payload)
                elif notify.channel == _CLIENTS_CHANNEL:
                    listeners.on_client(notify.payload or None)
                else:
                    listeners.on_events()


@lru_cache(maxsize=64)
def _placed(sql: str) -> bytes:
    """Return a statement with the driver's own places."""
    return sql.replace("?", "%s").encode()


def _parsed(url: str) -> dict[str, Any]:
    try:
        return {key: value for key, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.Error as error:
        raise StorageError(f"{_without_options(url)}: {_one_line(error)}") from None


def _without_options(url: str) -> str:
    return urlsplit(url)._replace(query="", fragment="").geturl()


def _one_line(error: BaseException) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _driver(connection: sa.Connection) -> psycopg.Connection[Any]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver
