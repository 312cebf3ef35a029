"""The store on any engine: one thread writes, a few read, and coroutines wait for both.

Writes are committed in groups (``writer.py``); a call returns after the commit that holds its effect.
Reads have connections of their own, which cannot write, and see everything that was committed before
they began.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Concatenate, Final, ParamSpec, TypeVar

import sqlalchemy as sa

from needfire_protocol.audit.record import Draft
from needfire_protocol.errors import StorageError
from needfire_protocol.event import Event
from needfire_protocol.srp import Verifier
from needfire_server import clock
from needfire_server.lockout import Counted, LockLimits, Settled
from needfire_server.session_seal import SealedSession
from needfire_server.states import ClientState
from needfire_server.storage import (
    audit_statements,
    client_rows,
    connection_rows,
    event_search,
    expiry,
    file_rows,
    output_cursors,
    refusal_rows,
    seal_rows,
    session_rows,
    skipped_rows,
    statements,
    summaries,
)
from needfire_server.storage.audit_base import AuditOf, Kept
from needfire_server.storage.audit_search import AUDIT_BLOCKS
from needfire_server.storage.audit_tables import DatabaseAuditTables
from needfire_server.storage.base import (
    EVENTS_PAGE_MAX,
    ClientConnection,
    ClientFacts,
    ClientRecord,
    Command,
    EventPage,
    EventQuery,
    Expired,
    ExpiryBite,
    HeldBack,
    IncomingReport,
    IngestResult,
    Proposal,
    ServerSign,
    Told,
)
from needfire_server.storage.engine import Engine, Listeners, Transaction, Wakes
from needfire_server.storage.event_search import EVENT_BLOCKS
from needfire_server.storage.gathered_reads import GatheredReads
from needfire_server.storage.ingesting import (
    Batch,
    Entries,
    Item,
    KeptSession,
    KeptStates,
    Stored,
    check_batch,
    store_all,
)
from needfire_server.storage.lock import DirectoryLock
from needfire_server.storage.output_cursors import OutputCursor, Skipped
from needfire_server.storage.reading import read_now
from needfire_server.storage.writer import GroupCommitWriter, Work
from needfire_server.verifier_seal import VerifierSeal

__all__ = ["READERS", "DatabaseStore"]

T = TypeVar("T")
P = ParamSpec("P")

READERS: Final = 4
"""Questions that are answered at the same time."""
_JOBS_WAITING_MAX: Final = 1_024
"""Writes of coroutines that may wait for the disk; the next ones wait for their place."""


class DatabaseStore:
    """Implements ``Store``; ``SqliteStore.open`` and ``PostgresStore.open`` make one."""

    def __init__(
        self,
        engine: Engine,
        lock: DirectoryLock,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """Use ``open`` of one of the engines."""
        self._engine = engine
        self._lock = lock
        self._random_bytes = random_bytes
        self._room = asyncio.Semaphore(_JOBS_WAITING_MAX)
        self._verifier_seal: VerifierSeal | None = None
        self._writer = GroupCommitWriter(engine)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="needfire-read")
        self._singletons = ThreadPoolExecutor(1, thread_name_prefix="needfire-singleton")
        self._facts = GatheredReads[str, ClientFacts](
            lambda names: self._ask(_client_facts, names, self._verifier_seal)
        )
        self._session_owners = GatheredReads[bytes, str | None](
            lambda session_ids: self._ask(_clients_of_sessions, session_ids)
        )
        self.audit = DatabaseAuditTables(engine, self._submit, self._read)
        """The audit log's part of the store."""

    @property
    def name(self) -> str:
        """What the store is, for people: a path or a host, never a secret."""
        return self._engine.name

    @property
    def is_shared(self) -> bool:
        return self._engine.is_shared

    def close(self) -> None:
        """Finish every write that was begun, then release the database and the directory."""
        self._readers.shutdown(wait=True)
        self._singletons.shutdown(wait=True)
        self._writer.close()
        self._lock.release()

    def write_now(self, work: Work[T]) -> T:
        """Do something in a transaction and wait for its commit: for callers without a loop.

        Raises:
            StorageError: nothing is promised.
        """
        return self._writer.submit(work).result()

    def read_now(
        self,
        function: Callable[Concatenate[sa.Connection, P], T],
        /,
        *args: P.args,
        **kw: P.kwargs,
    ) -> T:
        """Ask something and wait for the answer: for callers in a thread of their own.

        Raises:
            StorageError: the database cannot be read.
        """
        return read_now(self._engine, function, *args, **kw)

    def record_now(self, event: Event, draft: Draft | None = None) -> None:
        """Keep one of our own events and its record, for callers without a loop."""
        entries = Entries(((event, draft),))
        self.write_now(lambda transaction: store_all(transaction, [entries]))

    def use_verifier_seal(self, seal: VerifierSeal) -> None:
        """Open verifiers with this and seal each one that is registered; nothing plain counts."""
        self._verifier_seal = seal

    async def seal_check(self) -> bytes | None:
        """Return the check of the key that seals the store; None where nothing is sealed yet."""
        return await self._read(seal_rows.stored_check)

    async def change_seal(self, change: Callable[[sa.Connection], T], audit: AuditOf[T]) -> T:
        """Seal things with another key, and let other servers look whether they have that one."""

        def work(transaction: Transaction) -> T:
            result = change(transaction.connection)
            transaction.put_on_record(audit, result)
            transaction.engine.wake_others(transaction.connection, [Wakes(client="")])
            return result

        return await self._submit(work)

    # ---- Store -------------------------------------------------------------------------------

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
        batch = Batch(client, stream, tuple(reports), received_us, state, audit)
        # Before it can share a transaction: one client's nonsense is nobody else's matter.
        check_batch(batch)
        result = await self._together(batch)
        assert result is not None
        return result

    async def record(self, event: Event) -> None:
        await self._together(event)

    async def record_all(self, items: Sequence[Kept]) -> None:
        await self._together(Entries(tuple(items)))

    async def query_events(self, query: EventQuery) -> list[tuple[int, Event]]:
        limit = min(max(query.limit, 1), EVENTS_PAGE_MAX)
        found: list[tuple[int, Event]] = []
        while True:
            page = await self.search_events(replace(query, limit=limit - len(found)))
            found += page.events
            if page.reached is None or len(found) >= limit:
                return found
            query = query.behind(page.reached)

    async def search_events(self, query: EventQuery) -> EventPage:
        return await self._read(event_search.search, query)

    async def nth_newest_rowid(self, query: EventQuery, count: int) -> int:
        query = replace(query, newest_first=True)
        while True:
            page = await self._read(event_search.count_newest, query, count)
            count -= page.count
            if count == 0:
                return page.first or 0
            if page.reached is None:
                return 0
            query = query.behind(page.reached)

    async def sum_up(self) -> bool:
        return await self._submit(_sum_up)

    async def last_rowid(self) -> int:
        return await self._read(statements.last_rowid)

    async def has_report(self, client: str, event_id: str, time_us: int) -> bool:
        return await self._read(event_search.has_report, client, event_id, time_us)

    async def missing_reports(self) -> int:
        missing, behind = await self._read(statements.missing_reports, None)
        while behind is not None:
            found, behind = await self._read(statements.missing_reports, behind)
            missing += found
        return missing

    async def client_record(self, name: str) -> ClientRecord | None:
        return (await self.client_facts(name)).record

    async def clients(self) -> list[ClientRecord]:
        return await self._read(client_rows.clients, self._verifier_seal)

    async def register(
        self,
        name: str,
        verifier: Verifier,
        *,
        now_us: int,
        user: str,
        audit: AuditOf[bool] | None = None,
    ) -> bool:
        seal = self._verifier_seal
        return await self._audited_about(
            name, audit, statements.register, name, verifier, now_us, user, seal
        )

    async def remove(self, name: str, audit: AuditOf[bool] | None = None) -> bool:
        return await self._audited_about(name, audit, statements.remove, name)

    async def check_seal(self) -> None:
        seal = self._verifier_seal
        await self._read(seal_rows.check_key, None if seal is None else seal.check)

    async def client_facts(self, name: str) -> ClientFacts:
        return await self._facts.get(name)

    async def load_client_states(self) -> dict[str, ClientState]:
        return await self._read(statements.load_client_states)

    async def save_client_states(self, states: Sequence[ClientState]) -> None:
        await self._together(KeptStates(tuple(states)))

    async def tell_connections(
        self,
        sign: ServerSign,
        opened: Mapping[str, str],
        closed: Collection[str],
        silent_since_us: int,
    ) -> bool:
        return await self._write(
            connection_rows.tell_connections, sign, opened, closed, silent_since_us
        )

    async def connections_elsewhere(
        self, instance: str, silent_since_us: int
    ) -> dict[str, ClientConnection]:
        return await self._read(connection_rows.connections_elsewhere, instance, silent_since_us)

    async def forget_server(self, instance: str) -> None:
        await self._write(connection_rows.forget_server, instance)

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
        def work(transaction: Transaction) -> int:
            connection = transaction.connection
            number = statements.queue_command(
                connection, client, verb, user, now_us, expires_us, request
            )
            transaction.engine.wake_others(connection, [Wakes(commands_of=client)])
            transaction.put_on_record(audit, number)
            return number

        return await self._submit(work)

    async def pending_commands(self, client: str, now_us: int | None = None) -> list[Command]:
        moment_us = clock.now_us() if now_us is None else now_us
        return await self._read(statements.pending_commands, client, moment_us)

    async def clients_with_commands(self) -> set[str]:
        return await self._read(statements.clients_with_commands)

    async def mark_command_delivered(self, command_id: int, now_us: int) -> None:
        await self._write(statements.mark_command_delivered, command_id, now_us)

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
        return await self._audited(
            audit, statements.acknowledge_command, command_id, outcome, detail, now_us, client
        )

    async def add_proposal(
        self,
        client: str,
        path: str,
        size_bytes: int,
        sha256: bytes,
        now_us: int,
        audit: AuditOf[tuple[int, str | None]] | None = None,
    ) -> int:
        number, superseded = await self._audited(
            audit, statements.add_proposal, client, path, size_bytes, sha256, now_us
        )
        if superseded is not None and superseded != path:
            await self._discard(superseded)
        return number

    async def proposals(self, client: str | None = None) -> list[Proposal]:
        return await self._read(statements.proposals, client)

    async def proposal(self, proposal_id: int) -> Proposal | None:
        return await self._read(statements.proposal, proposal_id)

    async def remove_proposal(self, proposal_id: int) -> bool:
        path = await self._write(statements.remove_proposal, proposal_id)
        if path is not None:
            await self._discard(path)
        return path is not None

    async def _discard(self, path: str) -> None:
        """Get rid of what a proposal offered, which no row names any more."""
        number = path.removeprefix(file_rows.PROPOSAL_PREFIX)
        if number == path:
            # It may be large, and take a while.
            await asyncio.to_thread(_unlink, path)
        else:
            await self._write(file_rows.give_up, int(number))

    async def secret(self, name: str) -> bytes:
        return await self._write(statements.secret, name, self._random_bytes)

    async def renew_secret(self, name: str) -> bytes:
        """Make another secret of that name, and return it."""
        return await self._write(statements.renew_secret, name, self._random_bytes)

    async def output_cursors(self) -> list[OutputCursor]:
        return await self._read(output_cursors.load)

    async def save_output_cursor(self, cursor: OutputCursor) -> None:
        await self._write(output_cursors.save, cursor)

    async def all_known(self, prefix: str) -> dict[str, str]:
        return await self._read(statements.all_known, prefix)

    async def remember(
        self, name: str, value: str, tell: Callable[[str | None], Sequence[Told]]
    ) -> list[Event]:
        def work(transaction: Transaction) -> list[Event]:
            before = statements.known(transaction, name)
            if before == value:
                return []
            statements.remember(transaction, name, value)
            told = tell(before)
            events = [event for event, _ in told]
            store_all(transaction, [Entries(told)])
            return events

        return await self._submit(work)

    async def skip_event(self, cursor: OutputCursor, skipped: Skipped) -> None:
        await self._write(skipped_rows.skip, cursor, skipped)

    async def skipped_counts(self) -> Mapping[str, int]:
        return await self._read(skipped_rows.counts)

    async def skipped_of(self, output: str, source: str | None) -> int:
        return await self._read(skipped_rows.count_of, output, source)

    async def skipped_events(self, output: str, after: int, limit: int) -> Sequence[Skipped]:
        return await self._read(skipped_rows.load, output, after, limit)

    async def forget_skipped(self, output: str, numbers: Sequence[int]) -> int:
        return await self._write(skipped_rows.forget, output, tuple(numbers))

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
        return await self._write(expiry.expire, what, before_us, from_row, rows_max, held, kept)

    async def stored_before(
        self, what: str, *, before_us: int, from_row: int, rows_max: int
    ) -> tuple[Sequence[int], int | None]:
        return await self._read(expiry.stored_before, what, before_us, from_row, rows_max)

    async def tell_expired(
        self, event_of: Callable[[Expired], Event], audit: AuditOf[Event] | None = None
    ) -> list[Event]:
        def work(transaction: Transaction) -> list[Event]:
            events = [event_of(each) for each in expiry.take_counts(transaction.connection)]
            store_all(transaction, events)
            for event in events:
                transaction.put_on_record(audit, event)
            return events

        return await self._submit(work)

    async def holds(self, job: str) -> bool:
        future = self._singletons.submit(self._engine.holds, job)
        return await asyncio.wrap_future(future)

    @contextlib.contextmanager
    def watch(
        self,
        *,
        on_events: Callable[[], None],
        on_commands: Callable[[str | None], None],
        on_client: Callable[[str | None], None],
    ) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def call(function: Callable[..., None], *args: object) -> None:
            # The loop may be gone before the thread that calls.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(function, *args)

        listeners = Listeners(
            lambda: call(on_events),
            lambda client: call(on_commands, client),
            lambda client: call(on_client, client),
        )
        with self._engine.watch(listeners):
            yield

    # ---- RefusalStore ----------------------------------------------------------------------------

    async def count_refusal(
        self,
        user: str,
        now_us: int,
        limits: LockLimits,
        count: int = 1,
        *,
        is_stranger: bool = False,
    ) -> Counted:
        work = partial(refusal_rows.count_refusal, is_stranger=is_stranger)
        return await self._write(work, user, now_us, limits, count)

    async def settle_refusals(self, user: str, now_us: int, limits: LockLimits) -> Settled:
        # As a rule there are none, and nothing has to be written.
        if await self._read(refusal_rows.find, user) is None:
            return Settled()
        return await self._write(refusal_rows.settle_refusals, user, now_us, limits)

    # ---- SessionRows ---------------------------------------------------------------------------

    async def load_sessions(self) -> list[SealedSession]:
        return await self._read(session_rows.load_sessions)

    async def client_of_session(self, session_id: bytes) -> str | None:
        return await self._session_owners.get(session_id)

    async def keep_session(
        self, row: SealedSession, known: tuple[bytes, ...], states: Sequence[ClientState] = ()
    ) -> None:
        await self._together(KeptSession(row, known, tuple(states)))

    async def end_session(self, client: str, session_id: bytes) -> None:
        await self._audited_about(client, None, session_rows.end_session, session_id)

    async def sweep_sessions(self, now_us: int) -> None:
        await self._write(session_rows.sweep_sessions, now_us)

    # ---- how -----------------------------------------------------------------------------------

    async def _write(
        self,
        function: Callable[Concatenate[sa.Connection, P], T],
        /,
        *args: P.args,
        **kw: P.kwargs,
    ) -> T:
        return await self._submit(lambda transaction: function(transaction.connection, *args, **kw))

    async def _audited(
        self,
        audit: AuditOf[T] | None,
        function: Callable[Concatenate[sa.Connection, P], T],
        /,
        *args: P.args,
        **kw: P.kwargs,
    ) -> T:
        """Write, and record what was written in the same transaction."""

        def work(transaction: Transaction) -> T:
            result = function(transaction.connection, *args, **kw)
            transaction.put_on_record(audit, result)
            return result

        return await self._submit(work)

    async def _audited_about(
        self,
        client: str,
        audit: AuditOf[T] | None,
        function: Callable[Concatenate[sa.Connection, P], T],
        /,
        *args: P.args,
        **kw: P.kwargs,
    ) -> T:
        """Write and record what other servers must know of a client at once."""

        def work(transaction: Transaction) -> T:
            result = function(transaction.connection, *args, **kw)
            transaction.put_on_record(audit, result)
            transaction.engine.wake_others(transaction.connection, [Wakes(client=client)])
            return result

        return await self._submit(work)

    async def _together(self, item: Item) -> Stored:
        """Store something with all else that waits."""
        async with self._room:
            return await self._writer.store(item)

    async def _submit(self, work: Work[T]) -> T:
        async with self._room:
            return await self._writer.run(work)

    async def _read(
        self,
        function: Callable[Concatenate[sa.Connection, P], T],
        /,
        *args: P.args,
        **kw: P.kwargs,
    ) -> T:
        return await self._ask(function, *args, **kw)

    def _ask(
        self,
        function: Callable[Concatenate[sa.Connection, P], T],
        /,
        *args: P.args,
        **kw: P.kwargs,
    ) -> asyncio.Future[T]:
        try:
            future = self._readers.submit(lambda: self.read_now(function, *args, **kw))
        except RuntimeError as error:
            raise StorageError(f"{self.name}: the store is closed") from error
        return asyncio.wrap_future(future)


def _sum_up(transaction: Transaction) -> bool:
    connection = transaction.connection
    # The last ones will be summed up by those who store the next ones.
    last = transaction.unsummed.before(statements.last_rowid(connection))
    is_more = summaries.sum_up(transaction, EVENT_BLOCKS, last)
    last = transaction.unsummed_records.before(audit_statements.head(connection).size - 1)
    is_more |= summaries.sum_up(transaction, AUDIT_BLOCKS, last)
    return is_more or summaries.forget(connection, EVENT_BLOCKS) > 0


def _client_facts(
    connection: sa.Connection, names: Sequence[str], seal: VerifierSeal | None
) -> dict[str, ClientFacts | StorageError]:
    # In one transaction of the reader's, but not at one moment: who writes wakes us again.
    records = client_rows.client_records(connection, names, seal)
    states = statements.client_states(connection, names)
    sessions: dict[str, list[SealedSession]] = {}
    for session in session_rows.sessions_of(connection, names):
        sessions.setdefault(session.client, []).append(session)
    facts: dict[str, ClientFacts | StorageError] = {}
    for name in names:
        record, state = records.get(name), states.get(name)
        if isinstance(record, StorageError):
            facts[name] = record
        elif isinstance(state, StorageError):
            facts[name] = state
        else:
            facts[name] = ClientFacts(record, state, tuple(sessions.get(name, ())))
    return facts


def _clients_of_sessions(
    connection: sa.Connection, session_ids: Sequence[bytes]
) -> dict[bytes, str | None]:
    found = session_rows.clients_of_sessions(connection, session_ids)
    return {session_id: found.get(session_id) for session_id in session_ids}


def _unlink(path: str) -> None:
    """Delete a file that no row names any more; one that is gone already is fine."""
    with contextlib.suppress(OSError):
        os.unlink(path)
