"""What differs between the databases that a store may stand in, and nothing else.

Most of the store speaks SQLAlchemy and runs on either. What every report, every log-in and every
commit goes through speaks to the driver itself: it costs a third of what the same statements cost
through SQLAlchemy.
"""

import errno
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import sqlalchemy as sa

from needfire_protocol.audit.record import Draft
from needfire_protocol.event import Event
from needfire_server.storage.audit_base import AuditOf
from needfire_server.storage.unsummed import Unsummed

__all__ = [
    "Engine",
    "Listeners",
    "StreamKey",
    "Transaction",
    "Wakes",
    "is_full",
    "is_taken",
]

T = TypeVar("T")

StreamKey: TypeAlias = tuple[str, bytes]
"""Client and stream."""


@dataclass(frozen=True, slots=True)
class Wakes:
    """What other servers are told with the commit that makes it true."""

    events: bool = False
    commands_of: str | None = None
    client: str | None = None
    """Whose registration or session has changed; empty: maybe anybody's."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is called when another server has done something; see ``Store.watch``."""

    on_events: Callable[[], None]
    on_commands: Callable[[str | None], None]
    on_client: Callable[[str | None], None]


def is_full(error: BaseException) -> bool:
    """Tell whether a driver's or the system's error says that there is no room left."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    code = getattr(error, "sqlite_errorcode", None)
    return code == sqlite3.SQLITE_FULL or getattr(error, "sqlstate", None) == _DISK_FULL


def is_taken(error: BaseException) -> bool:
    """Tell whether a driver's error says that a row with this key is there already."""
    code = getattr(error, "sqlite_errorcode", None)
    return code in _TAKEN or getattr(error, "sqlstate", None) == _UNIQUE_VIOLATION


_TAKEN: Final = frozenset(
    {
        sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
        sqlite3.SQLITE_CONSTRAINT_ROWID,
        sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    }
)
_DISK_FULL: Final = "53100"
_UNIQUE_VIOLATION: Final = "23505"
"""PostgreSQL's manual, appendix A."""


class Engine(Protocol):
    """One kind of database. Its methods raise what SQLAlchemy and the driver raise."""

    name: str
    """What errors call the store: a path or a host, never a secret."""
    errors: tuple[type[Exception], ...]
    """What the driver raises."""
    is_shared: bool
    """Whether other servers may use the same database."""
    readers: sa.Engine
    """Gives connections that cannot write."""

    def connect(self) -> sa.Connection:
        """Open the connection that writes."""

    def begin(self, connection: sa.Connection) -> AbstractContextManager[object]:
        """Begin a transaction in which no other process writes; the context commits it.

        One at a time, over all servers: so events are numbered in the order in which they become
        visible, which everybody relies on who asks for what is newer than a number; and no two
        writers can wait for each other.
        """

    def is_of_one_job(self, error: Exception) -> bool:
        """True where the error comes of what one caller wanted, not of the database's condition."""

    def highest_sequences(
        self, connection: sa.Connection, keys: Sequence[StreamKey]
    ) -> Mapping[StreamKey, int]:
        """Return the highest number of each stream; those without one are left out."""

    def gaps_around(
        self, connection: sa.Connection, key: StreamKey, sequences: Sequence[int]
    ) -> list[tuple[int, int]]:
        """Return (first, last) of the gaps of a stream that hold any of the numbers."""

    def save_sequences(
        self, connection: sa.Connection, rows: Sequence[tuple[str, bytes, int]]
    ) -> None:
        """Keep the highest number of streams."""

    def insert_many(
        self,
        connection: sa.Connection,
        table: str,
        columns: Sequence[str],
        rows: Sequence[tuple[Any, ...]],
    ) -> None:
        """Append rows by the fastest way there is. The names are ours, never a peer's."""

    def run(self, connection: sa.Connection, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Carry out a statement that both databases know, once with each row.

        Args:
            sql: ours, never a peer's; with ``?`` for each value, and none anywhere else.
        """

    def ask(
        self, connection: sa.Connection, sql: str, values: tuple[Any, ...] = ()
    ) -> tuple[Any, ...] | None:
        """Carry out such a statement and return the first row of its answer; None without one."""

    def wake_others(self, connection: sa.Connection, wakes: Iterable[Wakes]) -> None:
        """Tell other servers, with the commit."""

    def holds(self, job: str) -> bool:
        """See ``Store.holds``; called in a thread, one call at a time."""

    def watch(self, listeners: Listeners) -> AbstractContextManager[None]:
        """See ``Store.watch``; calls from a thread of its own."""

    def close(self) -> None:
        """Give up what is held besides the connections."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open transaction, for those who write along with it.

    What they do becomes durable with everything else in it, or not at all.
    """

    connection: sa.Connection
    """For statements of SQLAlchemy, which are the same for both databases."""
    engine: Engine
    drafts: list[Draft] = field(default_factory=list)
    """What is appended to the audit log at its end, in this order."""
    events: list[Event] = field(default_factory=list)
    """What tells of the writes in it; stored at its end, in this order."""
    unsummed: Unsummed = field(default_factory=Unsummed)
    """Events before it that have no summary, and its own."""
    unsummed_records: Unsummed = field(default_factory=Unsummed)
    """The same of records of the audit log."""

    def put_on_record(self, audit: AuditOf[T] | None, result: T) -> None:
        """Let the audit log tell of what was done, and an event where there is one."""
        kept = None if audit is None else audit(result)
        # A draft is a tuple as well.
        if kept is None or isinstance(kept, Draft):
            event, draft = None, kept
        else:
            event, draft = kept
        if event is not None:
            self.events.append(event)
        if draft is not None:
            self.drafts.append(draft)

    def insert_many(
        self, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Append many rows fast. The names must be the program's own, never a peer's."""
        if rows:
            self.engine.insert_many(self.connection, table, columns, rows)

    def run(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Carry out a statement once with each row, as ``Engine.run``."""
        if rows:
            self.engine.run(self.connection, sql, rows)

    def ask(self, sql: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        """Carry out a statement that returns one row or none, as ``Engine.ask``."""
        return self.engine.ask(self.connection, sql, values)
