"""What the server asks of its store, whichever database keeps it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol, TypeAlias

from needfire_protocol.audit.record import Draft
from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.errors import NeedfireError
from needfire_protocol.event import Event
from needfire_protocol.severity import Severity
from needfire_protocol.srp import Verifier
from needfire_server.lockout import RefusalStore
from needfire_server.session_seal import SealedSession
from needfire_server.states import ClientState, ClientStatus
from needfire_server.storage.audit_base import AuditOf, AuditTables, Kept

__all__ = [
    "COMMANDS_PENDING_MAX",
    "COMMAND_VERBS",
    "EVENTS_PAGE_MAX",
    "ClientConnection",
    "ClientFacts",
    "ClientRecord",
    "ClientState",
    "ClientStatus",
    "Command",
    "CountPage",
    "EventPage",
    "EventQuery",
    "Expired",
    "ExpiryBite",
    "HeldBack",
    "IncomingReport",
    "IngestResult",
    "Proposal",
    "ServerSign",
    "Store",
    "Told",
    "TooManyCommandsError",
]

COMMAND_VERBS: Final = ("reload", "scan", "stop")

EVENTS_PAGE_MAX: Final = 1_000
"""Events that one query returns at most; who wants more asks again with ``after_rowid``.

An event has at most 2 MB of text, so this bounds what a query can make the server hold.
"""

COMMANDS_PENDING_MAX: Final = 100
"""Commands that may wait for one client. A person who has sent this many has lost track."""


class TooManyCommandsError(NeedfireError):
    """As many commands wait for this client as may wait."""

    def __init__(self, client: str) -> None:
        self.client = client
        super().__init__(
            f"{COMMANDS_PENDING_MAX} commands wait for {client} already; no more are queued"
        )


class IncomingReport(NamedTuple):
    """One report whose signature has been verified.

    Attributes:
        sequence: 1 or more, without gaps within a stream.
        event: what it says; None where the body is no event.
        body: the bytes as they came; kept where there is a problem.
        problem: why there is no event. Without event and problem it counts as come and is not kept.
        fields_text: the event's fields as its row has them (``event_rows.fields_texts``), where they
            are written already.
        is_relayed: another server passes it on. Its event says itself whose it is, and the numbers of
            its stream rise, but need not follow on each other.
    """

    sequence: int
    event: Event | None
    body: bytes
    problem: str | None
    is_relayed: bool = False
    fields_text: str | None = None


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What became of a batch; everything in it is durable now.

    Attributes:
        accepted: the new events, with client and received_us set, in the order of the batch.
        gap: (last number that came, number that came now) of the first jump; None without one.
        saved: the state of the client that was written together with them; None where it has none
            that a crash must not take away.
        unusable: new reports that are no events, and are kept raw.
        new_gaps: how many gaps in the numbers there are more than before: one at each jump, and one
            where a number comes out of the middle of one.
    """

    accepted: tuple[Event, ...]
    gap: tuple[int, int] | None
    saved: ClientState | None = None
    unusable: int = 0
    new_gaps: int = 0


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """A client that was registered with the admin tool."""

    name: str
    verifier: Verifier | None
    """None where the key at hand does not open it: it lets nobody in."""
    registered_us: int
    registered_by: str


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """What the store has of one client that other servers may have changed.

    Attributes:
        sessions: sealed; the superseded ones first, the current one last.
    """

    record: ClientRecord | None
    state: ClientState | None
    sessions: tuple[SealedSession, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """Something an administrator wants a client to do.

    ``delivered_us`` says that it was sent, ``acknowledged_us`` that the client took it. Until
    then it is pending and is sent again on the next connection; agents know the numbers of the
    commands that they have carried out.
    """

    id: int
    client: str
    verb: str
    user: str
    queued_us: int
    expires_us: int | None = None
    delivered_us: int | None = None
    acknowledged_us: int | None = None
    outcome: str | None = None
    detail: str | None = None
    request: str | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """A baseline that a client offers; it counts only once an administrator puts it in place."""

    id: int
    client: str
    path: str
    size_bytes: int
    sha256: bytes
    received_us: int


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events to return.

    Attributes:
        client: reports of this client, and the server's own events that name it in ``client``.
        since_us: what happened or arrived at this time or later. Both count because the clock
            of a host that was broken into may be set so as to hide its events.
        until_us: what happened or arrived before this time; with since_us, one of the two
            times lies between them.
        severity: this one and above.
        path: about this path, written as events have it (``escape_bytes``).
        below: about this directory or anything below it; the root is the empty text.
        request: the server's own events of one request of the admin tool.
        after_rowid: what was stored after this one.
        before_rowid: what was stored before this one.
        limit: at most so many, 1 to ``EVENTS_PAGE_MAX``.
        newest_first: the order, and so which ones the limit cuts off.
    """

    client: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    event_class: EventClass | None = None
    severity: Severity | None = None
    code: str | None = None
    path: str | None = None
    below: str | None = None
    request: str | None = None
    after_rowid: int | None = None
    before_rowid: int | None = None
    limit: int = 100
    newest_first: bool = False

    def behind(self, reached: int) -> "EventQuery":
        """Return what is left of a search that came to a number."""
        if self.newest_first:
            return replace(self, before_rowid=reached)
        return replace(self, after_rowid=reached)


@dataclass(frozen=True, slots=True)
class EventPage:
    """What a bounded part of a search found.

    Attributes:
        events: (rowid, event) in the order that was asked for.
        reached: the rowid up to which everything was looked at, to go on behind it or before it;
            None where there is nothing left.
    """

    events: list[tuple[int, Event]]
    reached: int | None


@dataclass(frozen=True, slots=True)
class CountPage:
    """What a bounded part of counting backwards came to.

    Attributes:
        count: events that match.
        first: the lowest rowid among them; None without any.
        reached: as in ``EventPage``.
    """

    count: int
    first: int | None
    reached: int | None


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Events that somebody still needs: they go only where they are older still.

    Attributes:
        after_row: which ones; all that were stored behind this one.
        before_us: they go where they were stored before this time.
    """

    after_row: int
    before_us: int


@dataclass(frozen=True, slots=True)
class ExpiryBite:
    """What one small step of removing old things came to.

    Attributes:
        removed: rows that are gone.
        next_row: where the next step goes on; None where nothing older is left.
    """

    removed: int
    next_row: int | None


@dataclass(frozen=True, slots=True)
class Expired:
    """What was removed because of its age since this was last told.

    Attributes:
        what: the class of the events, or what else it was.
        count: rows.
        oldest_us, newest_us: when the first and the last of them were stored.
    """

    what: str
    count: int
    oldest_us: int
    newest_us: int


Told: TypeAlias = tuple[Event, Draft | None]
"""One of the server's own events, and its record."""


@dataclass(frozen=True, slots=True)
class ServerSign:
    """Which of the servers on a store speaks, and when.

    Attributes:
        instance: of this process, random.
        name: for people.
    """

    instance: str
    name: str
    now_us: int


@dataclass(frozen=True, slots=True)
class ClientConnection:
    """Where a client is connected to, and from where."""

    server: str
    address: str


class Store(RefusalStore, Protocol):
    """The server's memory.

    Every writing method returns only after its effect is durable. Each raises StorageError where
    the database cannot be read or written; then nothing of what was asked is promised, and the
    next call may succeed again.

    Where ``audit`` is given, what it returns for the result is recorded in the audit log by the
    same transaction, and an event that it returns is stored by it: there is no write without its
    record, and no record without its write.
    """

    @property
    def is_shared(self) -> bool:
        """Whether other servers may use it at the same time."""

    @property
    def audit(self) -> AuditTables:
        """The audit log's part of the store."""

    async def ingest(
        self,
        client: str,
        stream: bytes,
        reports: Sequence[IncomingReport],
        *,
        received_us: int,
        state: ClientState | None = None,
        audit: AuditOf[IngestResult] | None = None,
    ) -> IngestResult:
        """Keep the reports that are new, by (client, stream, sequence); idempotent.

        Args:
            state: what is known of the client. Where the new reports change it in a way that a
                crash must not take away, its new form is part of the same commit.

        Raises:
            StorageError: nothing of the batch is promised.
            FormatError: a sequence is not from 1 to 2**63 - 1, or the stream not 16 bytes.
        """

    async def record(self, event: Event) -> None:
        """Keep an event of the server's own. The client it is about is its field ``client``."""

    async def record_all(self, items: Sequence[Kept]) -> None:
        """Keep events of the server's own, each with its record, all of them or none."""

    async def query_events(self, query: EventQuery) -> list[tuple[int, Event]]:
        """Return (rowid, event) pairs; rowids rise in the order in which events were stored.

        However much lies between them is searched, step by step; others get their turn meanwhile.
        """

    async def search_events(self, query: EventQuery) -> EventPage:
        """Do one bounded step of a search: it may find less than there is, or nothing yet."""

    async def nth_newest_rowid(self, query: EventQuery, count: int) -> int:
        """Return the rowid from which on at most count events match; its limit and order are not used.

        0 where no more than count match.
        """

    async def last_rowid(self) -> int:
        """Return the rowid of the event that was stored last; 0 where there is none."""

    async def has_report(self, client: str, event_id: str, time_us: int) -> bool:
        """True where an event with this identifier and time is stored as a report of the client."""

    async def missing_reports(self) -> int:
        """Return how many numbers are missing in all streams together: reports that never came."""

    async def client_record(self, name: str) -> ClientRecord | None:
        """Return the registration of one client."""

    async def clients(self) -> list[ClientRecord]:
        """Return all registrations, by name."""

    async def register(
        self,
        name: str,
        verifier: Verifier,
        *,
        now_us: int,
        user: str,
        audit: AuditOf[bool] | None = None,
    ) -> bool:
        """Register a client, or give it a new verifier; return True where there was one.

        Raises:
            SealKeyError: the store is sealed with another key than this process has.
        """

    async def remove(self, name: str, audit: AuditOf[bool] | None = None) -> bool:
        """Take a registration out, with the commands that wait; False where there was none.

        Events stay, and so does the state: it decides whether a restart is illegal if the same
        name is registered again.
        """

    async def client_facts(self, name: str) -> ClientFacts:
        """Return what is known of a client, whichever server has learnt it.

        Questions about many clients at a time are asked together.

        Raises:
            SealKeyError: a registration cannot be opened, because the key was exchanged.
        """

    async def check_seal(self) -> None:
        """Look whether the store is still sealed with the key that this process has.

        Raises:
            SealKeyError: it was exchanged meanwhile.
        """

    async def load_client_states(self) -> dict[str, ClientState]:
        """Return what was last saved of each client, by name."""

    async def save_client_states(self, states: Sequence[ClientState]) -> None:
        """Keep what is known of clients, all of them or none."""

    async def tell_connections(
        self,
        sign: ServerSign,
        opened: Mapping[str, str],
        closed: Collection[str],
        silent_since_us: int,
    ) -> bool:
        """Keep what has changed at a server, and forget servers that were not heard since.

        Args:
            opened: address by name of clients.

        Returns:
            False where nothing was known of the server: then all has to be told.
        """

    async def connections_elsewhere(
        self, instance: str, silent_since_us: int
    ) -> dict[str, ClientConnection]:
        """Return by client the connections of all other servers that were heard since."""

    async def forget_server(self, instance: str) -> None:
        """Remove a server and its connections."""

    async def queue_command(
        self,
        client: str,
        verb: str,
        user: str,
        now_us: int,
        expires_us: int | None = None,
        audit: AuditOf[int] | None = None,
        request: str | None = None,
    ) -> int:
        """Queue a command; return its number.

        Args:
            request: the request of the admin tool that asked for it.

        Raises:
            TooManyCommandsError: ``COMMANDS_PENDING_MAX`` wait for this client.
        """

    async def pending_commands(self, client: str, now_us: int | None = None) -> list[Command]:
        """Return what the client has not acknowledged, oldest first; not what has expired.

        Args:
            now_us: decides what has expired; None takes the clock.
        """

    async def clients_with_commands(self) -> set[str]:
        """Return the clients for which at least one command waits, expired or not."""

    async def mark_command_delivered(self, command_id: int, now_us: int) -> None:
        """Note that a command was sent."""

    async def acknowledge_command(
        self,
        command_id: int,
        outcome: str,
        detail: str,
        now_us: int,
        *,
        client: str | None = None,
        audit: AuditOf[Command | None] | None = None,
    ) -> Command | None:
        """Note what a client did with a command; return it.

        None where there is no such pending command, or where it is another client's: a client
        must not acknowledge for others.
        """

    async def add_proposal(
        self,
        client: str,
        path: str,
        size_bytes: int,
        sha256: bytes,
        now_us: int,
        audit: AuditOf[tuple[int, str | None]] | None = None,
    ) -> int:
        """Keep a client's proposal instead of the one before, whose file is deleted."""

    async def proposals(self, client: str | None = None) -> list[Proposal]:
        """Return the latest proposal of one client or of each."""

    async def proposal(self, proposal_id: int) -> Proposal | None:
        """Return one proposal by its number."""

    async def remove_proposal(self, proposal_id: int) -> bool:
        """Forget a proposal and delete its file; False where there was none."""

    async def secret(self, name: str) -> bytes:
        """Return the 32 random bytes of that name, which are made once and never change."""

    async def all_known(self, prefix: str) -> dict[str, str]:
        """Return what is kept under names that begin with a prefix, by the rest of each name."""

    async def remember(
        self, name: str, value: str, tell: Callable[[str | None], Sequence[Told]]
    ) -> list[Event]:
        """Keep a value under a name, and tell what that changes, in one commit; return the events.

        So every change is told once, whatever happens meanwhile and whichever server notices it.

        Args:
            tell: given the value before (None: there was none), returns what is to be recorded. It
                is called in the store's thread, and not where the value is the same.
        """

    async def expire(
        self,
        what: str,
        *,
        before_us: int,
        from_row: int,
        rows_max: int,
        held: HeldBack | None = None,
        kept: Collection[int] = (),
    ) -> ExpiryBite:
        """Remove things that were stored before a time, looking at no more than rows_max of them.

        What is removed is counted in the same commit, for ``tell_expired``.

        Args:
            what: the word of a class of events, ``unusable_reports`` or ``commands``; of the last
                only those that are done or expired.
            from_row: 0, or what the step before said.
            held: which events are kept for longer; None for other things.
            kept: rows that stay, however old they are.
        """

    async def stored_before(
        self, what: str, *, before_us: int, from_row: int, rows_max: int
    ) -> tuple[Sequence[int], int | None]:
        """Return the next rows of things that were stored before a time, and where to go on.

        It looks at no more than rows_max of them; None where nothing older is left.
        """

    async def tell_expired(
        self, event_of: Callable[[Expired], Event], audit: AuditOf[Event] | None = None
    ) -> list[Event]:
        """Record one event for each kind of thing that was removed, and begin to count anew.

        Both are one commit: whatever happens meanwhile, each removal is told exactly once.
        """

    async def sum_up(self) -> bool:
        """Do one small step of what makes searches quick; False where nothing is left to do."""

    async def holds(self, job: str) -> bool:
        """True where this process is the one that does a job which must not be done twice at once.

        Asked again before each step of the job: it may pass to another server.
        """

    def watch(
        self,
        *,
        on_events: Callable[[], None],
        on_commands: Callable[[str | None], None],
        on_client: Callable[[str | None], None],
    ) -> AbstractContextManager[None]:
        """Say what *other* servers on the same store do, until the context ends.

        All are called in the running event loop. What this process does itself, it knows.

        Args:
            on_events: new events may be there.
            on_commands: new commands may wait for this client; None: for any.
            on_client: this client's registration or session has changed; None: maybe any.
        """

    def close(self) -> None:
        """Finish what was begun and release the store."""
