"""What happens within one transaction to what is written often: reports, events, sessions, states.

Everything that waits is stored together: per group one look at the streams, one write of all rows of
a kind, one number drawn. So a report in a large group, or a log-in, costs hardly more than its own
rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Final, TypeAlias

import sqlalchemy as sa

from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.event import Event
from needfire_server.session_seal import SealedSession
from needfire_server.states import ClientState, heard, must_survive
from needfire_server.storage import tables
from needfire_server.storage.audit_base import AuditOf, Kept
from needfire_server.storage.base import IncomingReport, IngestResult
from needfire_server.storage.engine import StreamKey, Transaction, Wakes
from needfire_server.storage.event_rows import EVENT_COLUMNS, rows_of_events
from needfire_server.storage.ledger import Ledger
from needfire_server.storage.session_rows import keep_sessions
from needfire_server.storage.statements import save_client_states
from needfire_server.storage.summaries import BLOCK_ROWS, BLOCK_ROWS_MIN, add, left
from needfire_server.storage.summary import Summary, event_summary

__all__ = [
    "Batch",
    "Entries",
    "Item",
    "KeptSession",
    "KeptStates",
    "Stored",
    "check_batch",
    "store_all",
]

SEQUENCE_MAX: Final = 2**63 - 1
"""The largest integer of both databases. At a thousand reports a second it lasts for 292 million
years."""
STREAM_BYTES: Final = 16

_UNUSABLE_COLUMNS: Final = ("client", "stream", "sequence", "received_us", "body", "problem")
_GAP_COLUMNS: Final = ("client", "stream", "first_sequence", "last_sequence")


@dataclass(frozen=True, slots=True)
class Batch:
    """Reports of one client that came together."""

    client: str
    stream: bytes
    reports: Sequence[IncomingReport]
    received_us: int
    state: ClientState | None = None
    audit: AuditOf[IngestResult] | None = None

    @property
    def key(self) -> StreamKey:
        return self.client, self.stream


@dataclass(frozen=True, slots=True)
class Entries:
    """Events of our own, each with what is recorded of it; either may be None."""

    items: Sequence[Kept]


@dataclass(frozen=True, slots=True)
class KeptSession:
    """The current session of a client; of its others those stay that are among the known ones."""

    row: SealedSession
    known: tuple[bytes, ...]
    states: Sequence[ClientState] = ()
    """What became of the client with it; each client at most once."""


@dataclass(frozen=True, slots=True)
class KeptStates:
    """What is known of clients, each at most once."""

    states: Sequence[ClientState]


Item: TypeAlias = Batch | Event | Entries | KeptSession | KeptStates

Stored: TypeAlias = IngestResult | None
"""What became of a batch; None for everything else."""


def check_batch(batch: Batch) -> None:
    """Refuse what no stream can hold.

    Raises:
        FormatError: a sequence or the stream's identifier is out of range.
    """
    if len(batch.stream) != STREAM_BYTES:
        raise FormatError(
            f"a stream's identifier has {STREAM_BYTES} bytes, not {len(batch.stream)}"
        )
    for report in batch.reports:
        if not 1 <= report.sequence <= SEQUENCE_MAX:
            raise FormatError(f"the report's number {report.sequence} is not from 1 to 2**63-1")


def store_all(transaction: Transaction, items: Sequence[Item]) -> list[Stored]:
    """Store what there is, batches checked before, in this order; return what became of each.

    The caller begins the transaction with ``Engine.begin`` and commits it.
    """
    work = _Work(_ledgers(transaction, [item for item in items if isinstance(item, Batch)]))
    results = [work.take(item) for item in items]
    for item, result in zip(items, results, strict=True):
        if isinstance(item, Batch) and result is not None:
            transaction.put_on_record(item.audit, result)
        elif isinstance(item, Entries):
            transaction.drafts.extend(draft for _, draft in item.items if draft is not None)
    _write(transaction, work)
    return results


def _ledgers(transaction: Transaction, batches: Sequence[Batch]) -> Mapping[StreamKey, Ledger]:
    numbers: dict[StreamKey, list[int]] = {}
    for batch in batches:
        numbers.setdefault(batch.key, []).extend(report.sequence for report in batch.reports)
    if not numbers:
        return {}
    connection, engine = transaction.connection, transaction.engine
    highest = engine.highest_sequences(connection, list(numbers))
    ledgers = {}
    for key, wanted in numbers.items():
        before = highest.get(key, 0)
        # As a rule all are new. Then nobody needs to know of gaps.
        late = sorted({number for number in wanted if number <= before})
        gaps = engine.gaps_around(connection, key, late) if late else []
        ledgers[key] = Ledger(before, gaps)
    return ledgers


@dataclass(slots=True)
class _Work:
    """What a group comes to, before anything is written."""

    ledgers: Mapping[StreamKey, Ledger]
    events: list[Event] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    """The fields of each event; see ``IncomingReport.fields_text``."""
    unusable: list[tuple[Any, ...]] = field(default_factory=list)
    states: dict[str, ClientState] = field(default_factory=dict)
    sessions: list[KeptSession] = field(default_factory=list)

    def take(self, item: Item) -> Stored:
        match item:
            case Batch():
                return self._take(item)
            case Event():
                self._take_own([item])
            case Entries(items=items):
                self._take_own([event for event, _ in items if event is not None])
            case KeptSession():
                self.sessions.append(item)
                self._take_states(item.states)
            case KeptStates(states=states):
                self._take_states(states)
        return None

    def _take_states(self, states: Sequence[ClientState]) -> None:
        self.states.update({state.name: state for state in states})

    def _take_own(self, events: Sequence[Event]) -> None:
        self.events += events
        self.texts += repeat(None, len(events))

    def _take(self, batch: Batch) -> IngestResult:
        ledger = self.ledgers[batch.key]
        client, received_us = batch.client, batch.received_us
        accepted: list[Event] = []
        unusable_before, gaps_before = len(self.unusable), ledger.gaps
        gap: tuple[int, int] | None = None
        for report in batch.reports:
            before = ledger.highest
            if report.is_relayed:
                if not ledger.rise(report.sequence):
                    continue
            elif not ledger.take(report.sequence):
                continue
            elif report.sequence > before + 1 and gap is None:
                gap = (before, report.sequence)
            if report.problem is not None:
                self.unusable.append(
                    (
                        client,
                        batch.stream,
                        report.sequence,
                        received_us,
                        report.body,
                        report.problem,
                    )
                )
            elif report.event is not None:
                whose = report.event.client if report.is_relayed else client
                accepted.append(report.event.received(whose or client, received_us))
                self.texts.append(report.fields_text)
        self.events += accepted
        unusable = len(self.unusable) - unusable_before
        new_gaps = max(0, ledger.gaps - gaps_before)
        state = self._state_after(batch, accepted)
        return IngestResult(tuple(accepted), gap, state, unusable, new_gaps)

    def _state_after(self, batch: Batch, accepted: Sequence[Event]) -> ClientState | None:
        if batch.state is None:
            return None
        codes = [event.code for event in accepted if event.client == batch.client]
        if not must_survive(batch.state, codes):
            return None
        state = heard(batch.state, codes, batch.received_us)
        self.states[batch.client] = state
        return state


def _write(transaction: Transaction, work: _Work) -> None:
    transaction.insert_many("unusable_reports", _UNUSABLE_COLUMNS, work.unusable)
    _write_ledgers(transaction, work.ledgers)
    if work.states:
        save_client_states(transaction, list(work.states.values()))
    _write_sessions(transaction, work.sessions)
    if not work.events:
        return
    first = _draw_numbers(transaction, len(work.events))
    rows = rows_of_events(first, work.events, work.texts)
    transaction.insert_many("events", EVENT_COLUMNS, rows)
    fields = [event.fields for event in work.events]
    together = transaction.unsummed.add((rows, fields), BLOCK_ROWS_MIN)
    if together is not None:
        together = left(transaction, "event_summaries", together)
        add(transaction, tables.event_summaries, list(_summaries(*together)))
    transaction.engine.wake_others(transaction.connection, [Wakes(events=True)])


def _summaries(
    rows: Sequence[tuple[Any, ...]], fields: Sequence[Mapping[str, Any]]
) -> Iterator[Summary]:
    """Sum up what was stored, while it is at hand: later it would have to be read again."""
    blocks = max(1, -(-len(rows) // BLOCK_ROWS))
    size = max(1, -(-len(rows) // blocks))
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        yield event_summary(rows[part], fields[part])


def _write_sessions(transaction: Transaction, sessions: Sequence[KeptSession]) -> None:
    waiting = list(sessions)
    while waiting:
        # Of one client the one after the other: what is kept last is current.
        clients = {each.row.client: each for each in reversed(waiting)}
        at_once = list(clients.values())
        keep_sessions(transaction, [(each.row, each.known) for each in at_once])
        transaction.engine.wake_others(
            transaction.connection, [Wakes(client=client) for client in clients]
        )
        waiting = [each for each in waiting if clients[each.row.client] is not each]


def _write_ledgers(transaction: Transaction, ledgers: Mapping[StreamKey, Ledger]) -> None:
    heads = [
        (*key, ledger.highest) for key, ledger in ledgers.items() if ledger.highest != ledger.before
    ]
    if heads:
        transaction.engine.save_sequences(transaction.connection, heads)
    for key, ledger in ledgers.items():
        for first in ledger.closed():
            _forget_gap(transaction.connection, key, first)
    opened = [(*key, *gap) for key, ledger in ledgers.items() for gap in ledger.opened()]
    transaction.insert_many("stream_gaps", _GAP_COLUMNS, opened)


def _forget_gap(connection: sa.Connection, key: StreamKey, first: int) -> None:
    table = tables.stream_gaps
    connection.execute(
        sa.delete(table).where(
            table.c.client == key[0], table.c.stream == key[1], table.c.first_sequence == first
        )
    )


def _draw_numbers(transaction: Transaction, count: int) -> int:
    """Return the first of count numbers for events; they are given back where the commit fails."""
    row = transaction.ask(
        "UPDATE counters SET value = value + ? WHERE name = 'events' RETURNING value", (count,)
    )
    if row is None:
        raise StorageError("the store lacks the number of its last event")
    last: int = row[0]
    return last - count + 1
