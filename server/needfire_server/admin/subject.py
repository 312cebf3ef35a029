"""What the verbs work on, and what each of them is called with."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar

from needfire_protocol.audit.record import Draft
from needfire_protocol.errors import StorageError
from needfire_protocol.event import Event, FieldValue, make_event
from needfire_protocol.messages import FileKind
from needfire_server.admin.requests import Arguments
from needfire_server.admin.wakeup import Wakeup
from needfire_server.clock import now_us

if TYPE_CHECKING:
    # Half of what a server is, and a short command needs none of it.
    from needfire_server.audit.log import AuditLog
    from needfire_server.datafiles import DataFiles
    from needfire_server.health import Health
    from needfire_server.outputs.engine import OutputEngine
    from needfire_server.registry import Registry
    from needfire_server.states import ClientState
    from needfire_server.storage.audit_base import AuditOf, Kept
    from needfire_server.storage.base import ClientConnection, Store
    from needfire_server.trouble import Warned
    from needfire_server.vitals import Pulse

__all__ = ["AdminHooks", "Call", "RecordEvent", "Subject"]


_T = TypeVar("_T")


class RecordEvent(Protocol):
    """Raises one of the server's own events."""

    def __call__(self, code: str, /, **fields: FieldValue) -> object: ...


@dataclass(frozen=True, slots=True)
class AdminHooks:
    """How the admin service speaks to the rest of the server; all called in the event loop.

    Attributes:
        on_command_queued: a command waits for this client: send it if it is connected.
        on_client_removed: the keys and connections of this client no longer count, because it was
            removed or has a new password.
        record_event: raises one of the server's own events; that it is stored is not waited for. What
            somebody *did* is told through ``Subject``.
        kept_of: what the store is to keep of an event that tells of an act; asked in any thread.
        on_stored: an act's event is in the store.
        store_later: an act's event could not be stored, although the act is done.
        connections: who has a session open, at any of the servers on the store, by name.
        states: what is known of every client.
        pulse: what a client's connections told since the start of the server.
        health: looks how the server is.
        warning: what everybody has to be told who is logged in, for as long as it lasts.
        on_store_failed: a record could not be written; everybody has to be told.
        outputs: where events go; None where no server runs.
    """

    on_command_queued: Callable[[str], object]
    on_client_removed: Callable[[str], object]
    record_event: RecordEvent
    kept_of: "Callable[[Event], Kept]"
    connections: "Callable[[], Awaitable[Mapping[str, ClientConnection]]]"
    states: "Callable[[], Mapping[str, ClientState]]"
    pulse: "Callable[[str], Pulse | None]" = lambda _client: None
    health: "Callable[[], Awaitable[Health]] | None" = None
    warning: "Callable[[], Warned | None]" = lambda: None
    on_stored: Callable[[Event], object] = lambda _event: None
    store_later: Callable[[Event], object] = lambda _event: None
    on_store_failed: Callable[[StorageError], object] = lambda _error: None
    outputs: "OutputEngine | None" = None


@dataclass(frozen=True, slots=True)
class Subject:
    """One server, as far as administrators can reach it."""

    store: "Store"
    registry: "Registry"
    data_files: "DataFiles"
    hooks: AdminHooks
    new_events: Wakeup
    audit: "AuditLog"
    comparing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Whose turn it is to compare baselines, which takes a processor for as long as it takes."""
    _putting: Mapping[FileKind, asyncio.Lock] = field(
        default_factory=lambda: {kind: asyncio.Lock() for kind in FileKind}
    )

    def putting(self, kind: FileKind) -> asyncio.Lock:
        """Return what files of a kind are put in place under, one after the other.

        Else of two that are put at once, both would be compared with what neither replaced.
        """
        return self._putting[kind]

    async def carry_out(
        self,
        act: "Callable[[AuditOf[_T]], Awaitable[_T]]",
        tell: Callable[[_T], Event | None],
    ) -> _T:
        """Do something in the store; the event that tells of it is part of the same commit.

        Args:
            act: a write of the store, given its ``audit``.
            tell: given the result, returns the event; None where nothing was done.

        Raises:
            StorageError: neither is done.
        """
        told: list[Event] = []

        def audit(result: _T) -> "Kept | None":
            event = tell(result)
            told[:] = () if event is None else (event,)
            return None if event is None else self.hooks.kept_of(event)

        result = await act(audit)
        for event in told:
            self.hooks.on_stored(event)
        return result

    async def record(self, *events: Event) -> None:
        """Store events that are an act by themselves, all or none, before anybody is told of it.

        Raises:
            StorageError: nothing is done.
        """
        try:
            await self.store.record_all([self.hooks.kept_of(event) for event in events])
        except StorageError as error:
            self.hooks.on_store_failed(error)
            raise
        for event in events:
            self.hooks.on_stored(event)

    async def record_done(self, done: str, event: Event) -> None:
        """Store the event of an act that is done already, outside of the store.

        Args:
            done: says so to the person, if the event cannot be stored.

        Raises:
            StorageError: it could not; the server goes on trying.
        """
        try:
            await self.record(event)
        except StorageError as error:
            self.hooks.store_later(event)
            raise StorageError(f"{done}, but no record of it could be stored: {error}") from error


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way through a verb."""

    arguments: Arguments
    user: str
    file: BinaryIO | None
    request: str | None = None
    """Names the request in all its records and events."""

    @property
    def who(self) -> Mapping[str, FieldValue]:
        """What every event of this request says: by whom, and which request it was."""
        return {"user": self.user, "request": self.request}

    def event(self, code: str, /, **fields: FieldValue) -> Event:
        """Return the event that tells what this request did."""
        return make_event(
            code, time_us=now_us(), random_10_bytes=os.urandom(10), **fields, **self.who
        )

    def draft(self, code: str, /, *, client: str | None = None, **fields: FieldValue) -> Draft:
        """Return the record of what this request did."""
        return Draft(code, subject=self.user, client=client, request=self.request, fields=fields)
