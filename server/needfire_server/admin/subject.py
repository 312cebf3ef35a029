"""What the verbs work on, and what each of them is called with."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol

from needfire_protocol.audit.record import Draft
from needfire_protocol.errors import StorageError
from needfire_protocol.event import FieldValue
from needfire_protocol.messages import FileKind
from needfire_server.admin.requests import Arguments
from needfire_server.admin.wakeup import Wakeup

if TYPE_CHECKING:
    # Half of what a server is, and a short command needs none of it.
    from needfire_server.audit.log import AuditLog
    from needfire_server.datafiles import DataFiles
    from needfire_server.health import Health
    from needfire_server.outputs.engine import OutputEngine
    from needfire_server.registry import Registry
    from needfire_server.states import ClientState
    from needfire_server.storage.base import ClientConnection, Store
    from needfire_server.vitals import Pulse

__all__ = ["AdminHooks", "Call", "RecordEvent", "Subject"]


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
        record_event: raises one of the server's own events.
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
    connections: "Callable[[], Awaitable[Mapping[str, ClientConnection]]]"
    states: "Callable[[], Mapping[str, ClientState]]"
    pulse: "Callable[[str], Pulse | None]" = lambda _client: None
    health: "Callable[[], Awaitable[Health]] | None" = None
    warning: Callable[[], str | None] = lambda: None
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
    _putting: Mapping[FileKind, asyncio.Lock] = field(
        default_factory=lambda: {kind: asyncio.Lock() for kind in FileKind}
    )

    def putting(self, kind: FileKind) -> asyncio.Lock:
        """Return what files of a kind are put in place under, one after the other.

        Else of two that are put at once, both would be compared with what neither replaced.
        """
        return self._putting[kind]


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

    def draft(self, code: str, /, *, client: str | None = None, **fields: FieldValue) -> Draft:
        """Return the record of what this request did."""
        return Draft(code, subject=self.user, client=client, request=self.request, fields=fields)
