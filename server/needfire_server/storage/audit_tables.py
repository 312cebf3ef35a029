"""The audit log's part of a store, on any engine."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from needfire_protocol.audit.record import Draft
from needfire_server.storage import audit_search, audit_statements
from needfire_server.storage.audit_base import (
    AuditHead,
    AuditPage,
    AuditQuery,
    StoredCheckpoint,
    StoredKey,
    Stray,
)
from needfire_server.storage.engine import Engine, Transaction
from needfire_server.storage.reading import read_now
from needfire_server.storage.writer import Work

__all__ = ["DatabaseAuditTables"]

T = TypeVar("T")


class DatabaseAuditTables:
    """Implements ``AuditTables`` with the threads of the store that it belongs to."""

    def __init__(
        self,
        engine: Engine,
        submit: Callable[[Work[Any]], Awaitable[Any]],
        read: Callable[..., Awaitable[Any]],
    ) -> None:
        """Args:
        submit: does work in a transaction and returns after its commit.
        read: runs a reading statement in a thread.
        """
        self._engine = engine
        self._submit = submit
        self._read = read

    async def append(self, drafts: Sequence[Draft]) -> None:
        await self._submit(lambda transaction: transaction.drafts.extend(drafts))

    async def announce_key(self, key: StoredKey, draft: Draft, *, after: str | None) -> bool:
        def work(transaction: Transaction) -> bool:
            is_next = audit_statements.add_key(transaction.connection, key, after)
            if is_next:
                transaction.drafts.append(draft)
            return is_next

        is_next: bool = await self._submit(work)
        return is_next

    async def head(self) -> AuditHead:
        head: AuditHead = await self._read(audit_statements.head)
        return head

    async def keys(self) -> list[StoredKey]:
        keys: list[StoredKey] = await self._read(audit_statements.keys)
        return keys

    async def add_checkpoint(self, checkpoint: StoredCheckpoint, *, key: str) -> bool:
        def work(transaction: Transaction) -> bool:
            return audit_statements.add_checkpoint(transaction.connection, checkpoint, key)

        is_next: bool = await self._submit(work)
        return is_next

    async def last_checkpoint(self) -> StoredCheckpoint | None:
        found: StoredCheckpoint | None = await self._read(audit_statements.last_checkpoint)
        return found

    async def search(self, query: AuditQuery) -> AuditPage:
        page: AuditPage = await self._read(audit_search.search, query)
        return page

    async def subtrees(self, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
        hashes: list[bytes] = await self._read(audit_statements.subtrees, tuple(wanted))
        return hashes

    def records_now(self, first: int, count: int) -> list[tuple[int, bytes]]:
        return read_now(self._engine, audit_statements.records, first, count)

    def checkpoints_now(self, after: int, count: int) -> list[StoredCheckpoint]:
        return read_now(self._engine, audit_statements.checkpoints, after, count)

    def stray_now(self) -> Stray | None:
        return read_now(self._engine, audit_statements.stray)
