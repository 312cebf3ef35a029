"""What other servers on the same store have done: whom they registered, and who is logged in where.

Each server has its clients and sessions in memory. Where the store is shared, it decides instead:
it is asked when an agent logs in or resumes, and whenever another server says that it has changed
something. What that ends here, ends: sessions that were superseded or ended elsewhere, connections
of clients that were removed or have a new password. Where it is not shared, nothing is asked.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from needfire_protocol.errors import StorageError
from needfire_server.fleet import Fleet
from needfire_server.journal import Journal
from needfire_server.registry import Registry
from needfire_server.seal_key import SealKeyError
from needfire_server.session_keeper import SessionKeeper
from needfire_server.sessions import Session
from needfire_server.storage.base import ClientFacts, ClientRecord, Store
from needfire_server.vitals import Vitals

__all__ = ["Neighbours"]

_RETRY_S: Final = 1.0
_TOGETHER: Final = 64
"""Clients whose sessions are looked at together, when all of them are."""


class Neighbours:
    """Keeps registry, sessions and states in step with the store. In the event loop's thread.

    Args:
        lifetime_limit_s: SessionKeyLifetime, asked each time.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        keeper: SessionKeeper,
        fleet: Fleet,
        vitals: Vitals,
        journal: Journal,
        *,
        lifetime_limit_s: Callable[[], int],
    ) -> None:
        self._store = store
        self._registry = registry
        self._keeper = keeper
        self._fleet = fleet
        self._vitals = vitals
        self._journal = journal
        self._lifetime_limit_s = lifetime_limit_s
        self._heard: asyncio.Queue[str | None] = asyncio.Queue()
        self._waiting: set[str | None] = set()
        self._is_unreadable_told = False
        self.drop: Callable[[str], object] = lambda _client: None
        """Closes the connection of a client; the listener's."""
        self.on_key_exchanged: Callable[[], object] = lambda: None
        """Called once where another seal key has come into use than the one that we have."""

    async def restore(self) -> None:
        """Begin with the sessions that the store has.

        Raises:
            StorageError: they cannot be read.
        """
        await self._keeper.restore(self._registry, self._lifetime_limit_s())
        self._tell_unreadable()

    async def find(self, session_id: bytes, limit_s: float) -> Session | None:
        """Return a session that an agent brings, current or superseded, as the store has it now.

        Args:
            limit_s: how long the store may take to answer.

        Raises:
            StorageError: the store cannot be asked.
            TimeoutError: it did not answer within the limit.
        """
        if self._store.is_shared:
            async with asyncio.timeout(limit_s):
                client = await self._keeper.client_of(session_id)
                if client is None:
                    return None
                async with self.changing(client):
                    await self.refresh(client)
        return self._keeper.table.find(session_id)

    def changing(self, client: str) -> AbstractAsyncContextManager[object]:
        """Hold this while a session of the client is made."""
        return self._keeper.changing(client)

    async def refresh(self, client: str, *, is_new_here: bool = True) -> None:
        """Learn of a client what other servers have changed; the caller holds ``changing``.

        Args:
            is_new_here: it comes just now, so that what other servers know of its state is newer.

        Raises:
            StorageError: the store cannot be asked.
        """
        if not self._store.is_shared:
            return
        facts = await self._facts(client)
        self._take_record(client, facts.record)
        self._keeper.adopt(client, facts.sessions, self._registry, self._lifetime_limit_s())
        if is_new_here and facts.state is not None:
            self._fleet.take(facts.state)
        self._tell_unreadable()

    def forget(self, client: str) -> None:
        """A client was removed, or has a new password: what it had counts no more."""
        self._keeper.table.drop_client(client)
        self._vitals.forget(client)
        self.drop(client)

    # ---- what others say -------------------------------------------------------------------------

    def heard(self, client: str | None) -> None:
        """Another server has changed something of a client; None: maybe of any."""
        if client not in self._waiting:
            self._waiting.add(client)
            self._heard.put_nowait(client)

    async def follow(self) -> None:
        """Look at what was heard, one after the other, as long as our seal key is the store's."""
        while True:
            client = await self._heard.get()
            # Before it is looked at: what changes meanwhile is to be looked at again.
            self._waiting.discard(client)
            try:
                await self._look(client)
            except SealKeyError:
                # Neither log-ins nor registrations work here any more, and no waiting helps.
                self.on_key_exchanged()
                return
            except StorageError as error:
                self._journal.store_failed(error)
                self.heard(client)
                await asyncio.sleep(_RETRY_S)

    async def _look(self, client: str | None) -> None:
        if client is None:
            await self._look_at_all()
            return
        if self._registry.stored(client) is None or self._keeper.table.current(client) is None:
            # Nothing of its sessions is known here; whoever brings one makes us ask.
            await self._look_at_record(client)
            return
        await self._look_at_session(client)

    async def _look_at_record(self, client: str) -> None:
        facts = await self._facts(client)
        self._take_record(client, facts.record)

    async def _look_at_all(self) -> None:
        await self._store.check_seal()
        records = await self._records()
        for name in self._registry.stored_names() | records.keys():
            self._take_record(name, records.get(name))
        clients = self._keeper.table.clients()
        for start in range(0, len(clients), _TOGETHER):
            portion = clients[start : start + _TOGETHER]
            # One at a time, each would cost a round trip; ten thousand of them, a minute's work.
            looks = (self._look_at_session(client) for client in portion)
            found = await asyncio.gather(*looks, return_exceptions=True)
            failed = {client: error for client, error in zip(portion, found, strict=True) if error}
            for error in failed.values():
                # Where nobody of several can be read, it is not the row of one that is damaged.
                if not isinstance(error, StorageError) or 1 < len(portion) == len(failed):
                    raise error
            for client in failed:
                # Alone: it is tried each second, and the whole fleet would be asked about so often.
                self.heard(client)

    async def _look_at_session(self, client: str) -> None:
        async with self.changing(client):
            await self.refresh(client, is_new_here=False)

    async def _records(self) -> dict[str, ClientRecord]:
        while True:
            version = self._registry.version
            records = await self._store.clients()
            if version == self._registry.version:
                return {record.name: record for record in records}

    async def _facts(self, client: str) -> ClientFacts:
        while True:
            version = self._registry.version
            facts = await self._store.client_facts(client)
            if version == self._registry.version:
                return facts

    def _take_record(self, client: str, record: ClientRecord | None) -> None:
        if record == self._registry.stored(client):
            return
        before = self._registry.lookup(client)
        if record is None:
            self._registry.take_out(client)
        else:
            self._registry.put(record)
        if before is not None and self._registry.lookup(client) != before:
            self.forget(client)

    def _tell_unreadable(self) -> None:
        if self._keeper.unreadable and not self._is_unreadable_told:
            self._is_unreadable_told = True
            self._journal.raise_event("SEAL_KEY_DIFFERS")
