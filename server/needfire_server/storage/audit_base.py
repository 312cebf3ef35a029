"""What the audit log asks of its store, whichever database keeps it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, TypeVar

from needfire_protocol.audit.merkle import Frontier
from needfire_protocol.audit.record import Draft
from needfire_protocol.errors import StorageError
from needfire_protocol.event import Event

__all__ = [
    "AuditHead",
    "AuditIncompleteError",
    "AuditOf",
    "AuditPage",
    "AuditPages",
    "AuditQuery",
    "AuditTables",
    "AuditWriteError",
    "Kept",
    "StoredCheckpoint",
    "StoredKey",
    "Stray",
]

T_contra = TypeVar("T_contra", contravariant=True)

Kept: TypeAlias = tuple[Event | None, Draft | None]
"""What the store keeps of one of the server's own events, and what the audit log says of it."""

AuditOf: TypeAlias = Callable[[T_contra], Draft | Kept | None]
"""Says what to record of a write, given its result, or with it the event that tells of the write; both
are part of the same transaction. Called once more where the transaction is tried once more."""


class AuditWriteError(StorageError):
    """The audit log's part of a write failed, and so all of it: there is no write off the record."""


class AuditIncompleteError(StorageError):
    """A record, or a node of the tree, is not there any more."""


@dataclass(frozen=True, slots=True)
class AuditHead:
    """How far the log is.

    Attributes:
        previous: hash of the last record.
        frontier: the tree over all records.
    """

    previous: bytes
    frontier: Frontier

    @property
    def size(self) -> int:
        """Records."""
        return self.frontier.size


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint as it was signed."""

    number: int
    size: int
    note: str


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key that signs or signed, and the line by which the key before named it."""

    key: str
    signature: str | None


@dataclass(frozen=True, slots=True)
class Stray:
    """A record where the server has written none: outside of the ``size`` that the log has."""

    number: int
    size: int


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which records to return.

    Attributes:
        since_us, until_us: recorded at the one or later, and before the other.
        codes: with one of these codes.
        outcome: ``success``, ``failure`` or ``asked``.
        client: about this client.
        subject: what this user or client did.
        request: of one request of the admin tool.
        path, below: as in ``EventQuery``.
        after, before: behind the one number, and before the other.
        limit: at most so many, in one step.
        newest_first: the order, and so which ones the limit cuts off.
    """

    since_us: int | None = None
    until_us: int | None = None
    codes: frozenset[str] | None = None
    outcome: str | None = None
    client: str | None = None
    subject: str | None = None
    request: str | None = None
    path: str | None = None
    below: str | None = None
    after: int | None = None
    before: int | None = None
    limit: int = 100
    newest_first: bool = False

    def behind(self, reached: int) -> "AuditQuery":
        """Return what is left of a search that came to a number."""
        if self.newest_first:
            return replace(self, before=reached)
        return replace(self, after=reached)


@dataclass(frozen=True, slots=True)
class AuditPage:
    """What a bounded part of a search found: as ``EventPage``, with (number, parts of the record)."""

    records: list[tuple[int, Mapping[str, Any]]]
    reached: int | None


class AuditPages(Protocol):
    """What reads the log page by page. Each method blocks: for threads, and programs of their own."""

    def records_now(self, first: int, count: int) -> list[tuple[int, bytes]]:
        """Return (number, line) of records from a number on."""

    def checkpoints_now(self, after: int, count: int) -> list[StoredCheckpoint]:
        """Return checkpoints behind a number, in order."""

    def stray_now(self) -> Stray | None:
        """Return the first record that the log has no place for, looked for at one moment."""


class AuditTables(AuditPages, Protocol):
    """The part of the store that holds the audit log.

    A write returns after its effect is durable, with everything in it or nothing. Each method
    raises StorageError where the database cannot be read or written.
    """

    async def append(self, drafts: Sequence[Draft]) -> None:
        """Append records."""

    async def announce_key(self, key: StoredKey, draft: Draft, *, after: str | None) -> bool:
        """Keep a key and append the record that tells of it.

        False, and nothing is done, where the latest key is not ``after``: another server was first.
        """

    async def head(self) -> AuditHead:
        """Return how far the log is."""

    async def keys(self) -> list[StoredKey]:
        """Return all keys, oldest first."""

    async def add_checkpoint(self, checkpoint: StoredCheckpoint, *, key: str) -> bool:
        """Keep a checkpoint that a key signed.

        False, and nothing is done, where its number is not the next, or the key is not the latest:
        another server was first.
        """

    async def last_checkpoint(self) -> StoredCheckpoint | None:
        """Return the latest checkpoint."""

    async def search(self, query: AuditQuery) -> AuditPage:
        """Do one bounded step of a search: it may find less than there is, or nothing yet."""

    async def subtrees(self, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the hashes of full subtrees, each given as (level, position)."""
