"""What outputs ask of the store: how far each has come, which events follow, which ones are gone.

This is all that outputs know of a database. Events are numbered without gaps, in the order in which
they become visible: no event can appear behind a cursor, and a gap is what was removed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final, Protocol

import sqlalchemy as sa

from needfire_protocol.errors import StorageError
from needfire_protocol.event import Event
from needfire_server.storage import tables
from needfire_server.storage.base import EventQuery, Store
from needfire_server.storage.inserting import insert_for

__all__ = [
    "OUTPUT_PAGE",
    "CursorStore",
    "OutputCursor",
    "OutputStore",
    "Skipped",
    "StoredEvent",
]

OUTPUT_PAGE: Final = 200
"""Events that an output reads at a time, and so the most that are sent again after a crash."""

_JOB: Final = "outputs"

StoredEvent = tuple[int, Event]
"""The number of an event in the store, and the event."""


@dataclass(frozen=True, slots=True)
class OutputCursor:
    """How far an output has come.

    Attributes:
        confirmed: number of an event; up to it everything was delivered or was not selected.
        attempted: up to it the target may have got something already, so that what is sent
            again between the two is marked. Never below ``confirmed``.
        sent: events that were delivered.
        retried: events that were sent once more, because it was not certain that they arrived.
        dropped: events that the store no longer had when it was their turn.
    """

    name: str
    confirmed: int
    attempted: int
    sent: int = 0
    retried: int = 0
    dropped: int = 0

    def passed(self, number: int) -> "OutputCursor":
        """Return the cursor after everything up to number is delivered."""
        return replace(self, confirmed=number, attempted=max(self.attempted, number))


@dataclass(frozen=True, slots=True)
class Skipped:
    """An event that the target of an output refused for good.

    Attributes:
        number: of the event in the store.
        reason: what the target said.
    """

    output: str
    number: int
    event: Event
    reason: str
    skipped_us: int


class OutputStore(Protocol):
    """What the engine works with. Every method raises StorageError where the database fails."""

    async def cursors(self) -> list[OutputCursor]:
        """Return every cursor that was ever saved."""

    async def save(self, cursor: OutputCursor) -> None:
        """Keep a cursor instead of the one before; durable on return.

        Raises:
            StorageError: it was not kept; also where another server sends by now.
        """

    async def after(self, number: int, limit: int = OUTPUT_PAGE) -> Sequence[StoredEvent]:
        """Return the events behind a number, in order."""

    async def last(self) -> int:
        """Return the number of the newest event; 0 where there is none."""

    async def skip(self, cursor: OutputCursor, skipped: Skipped) -> None:
        """Set an event aside and keep the cursor behind it, both or neither."""

    async def skipped_counts(self) -> Mapping[str, int]:
        """Return how many events are set aside, by output."""

    async def skipped_of(self, output: str, source: str | None) -> int:
        """Return how many events of a client, and of those that it speaks for, are set aside.

        None: of the server's own.
        """

    async def skipped(self, output: str, after: int, limit: int = OUTPUT_PAGE) -> Sequence[Skipped]:
        """Return what is set aside for an output behind a number, in order."""

    async def forget_skipped(self, output: str, numbers: Sequence[int]) -> int:
        """Remove events from those that are set aside; return how many were there."""

    async def may_send(self) -> bool:
        """Whether this server is the one of those at the store that sends for all."""


class _Cursors(Protocol):
    async def output_cursors(self) -> list[OutputCursor]: ...

    async def save_output_cursor(self, cursor: OutputCursor) -> None: ...

    async def skip_event(self, cursor: OutputCursor, skipped: Skipped) -> None: ...

    async def skipped_counts(self) -> Mapping[str, int]: ...

    async def skipped_of(self, output: str, source: str | None) -> int: ...

    async def skipped_events(self, output: str, after: int, limit: int) -> Sequence[Skipped]: ...

    async def forget_skipped(self, output: str, numbers: Sequence[int]) -> int: ...


class _StoreWithCursors(Store, _Cursors, Protocol):
    """A store that keeps cursors as well."""


class CursorStore:
    """Implements ``OutputStore`` on the server's store."""

    def __init__(self, store: _StoreWithCursors) -> None:
        self._store = store

    async def cursors(self) -> list[OutputCursor]:
        return await self._store.output_cursors()

    async def save(self, cursor: OutputCursor) -> None:
        # Nothing is sent before "attempted" is saved: who has lost his turn sends nothing more.
        # What was delivered already may always be said.
        if cursor.attempted > cursor.confirmed and not await self._store.holds(_JOB):
            raise StorageError("another server on this store sends now")
        await self._store.save_output_cursor(cursor)

    async def skip(self, cursor: OutputCursor, skipped: Skipped) -> None:
        if not await self._store.holds(_JOB):
            raise StorageError("another server on this store sends now")
        await self._store.skip_event(cursor, skipped)

    async def skipped_counts(self) -> Mapping[str, int]:
        return await self._store.skipped_counts()

    async def skipped_of(self, output: str, source: str | None) -> int:
        return await self._store.skipped_of(output, source)

    async def skipped(self, output: str, after: int, limit: int = OUTPUT_PAGE) -> Sequence[Skipped]:
        return await self._store.skipped_events(output, after, limit)

    async def forget_skipped(self, output: str, numbers: Sequence[int]) -> int:
        return await self._store.forget_skipped(output, numbers)

    async def after(self, number: int, limit: int = OUTPUT_PAGE) -> Sequence[StoredEvent]:
        return await self._store.query_events(EventQuery(after_rowid=number, limit=limit))

    async def last(self) -> int:
        return await self._store.last_rowid()

    async def may_send(self) -> bool:
        return await self._store.holds(_JOB)


def load(connection: sa.Connection) -> list[OutputCursor]:
    """Return every cursor."""
    columns = tables.output_cursors.c
    rows = connection.execute(sa.select(tables.output_cursors).order_by(columns.name))
    return [OutputCursor(*row) for row in rows]


def save(connection: sa.Connection, cursor: OutputCursor) -> None:
    """Keep a cursor. It never goes back: what was confirmed is."""
    insert = insert_for(connection, tables.output_cursors).values(asdict(cursor))
    names = ("confirmed", "attempted", "sent", "retried", "dropped")
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["name"],
            set_={name: insert.excluded[name] for name in names},
            where=insert.excluded.confirmed >= tables.output_cursors.c.confirmed,
        )
    )
