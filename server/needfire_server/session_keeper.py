"""How sessions outlive the process: in memory for use, in the store for the next start.

After a restart, or a crash, every agent goes on with the session that it has. Without this, a fleet
of ten thousand would have to log in with passwords at the same time: half a minute of two cores.

Where several servers share the store, it decides: what is in memory is taken from it whenever an
agent comes, and whenever another server says that it has changed something (``neighbours.py``).
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol
from weakref import WeakValueDictionary

from needfire_protocol.srp import Verifier
from needfire_server.clock import monotonic_s, now_us
from needfire_server.registry import Registry
from needfire_server.session_seal import (
    SealedSession,
    SessionSeal,
    StoredSession,
    registration_of,
)
from needfire_server.sessions import Session, SessionTable
from needfire_server.states import ClientState

__all__ = ["SessionKeeper", "SessionRows"]

_US_PER_S: Final = 1_000_000


class SessionRows(Protocol):
    """What a store has to do with sessions. Each method raises StorageError."""

    async def load_sessions(self) -> list[SealedSession]:
        """Return every row; where several servers share the store, those of all."""

    async def client_of_session(self, session_id: bytes) -> str | None:
        """Return whose session has this identifier; None where there is none."""

    async def keep_session(
        self, row: SealedSession, known: tuple[bytes, ...], states: Sequence[ClientState] = ()
    ) -> None:
        """Keep the current session of a client; durable when it returns.

        The rows that the client had become superseded, but for those that are not among the
        session ids in known: they are removed.

        Args:
            states: of clients, stored with it.
        """

    async def end_session(self, client: str, session_id: bytes) -> None:
        """Remove a session of a client."""

    async def sweep_sessions(self, now_us: int) -> None:
        """Remove every session that has expired."""


class SessionKeeper:
    """The table of sessions, and its shadow in the store."""

    def __init__(self, table: SessionTable, rows: SessionRows, seal: SessionSeal) -> None:
        self.table = table
        self._rows = rows
        self._seal = seal
        self._changing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.unreadable = 0
        """Sessions that were met in the store and are sealed with another key, or damaged."""

    def changing(self, client: str) -> AbstractAsyncContextManager[object]:
        """Hold this while a client's session is changed here or taken from the store.

        What was read of the store before a change of ours must not be applied after it.
        """
        lock = self._changing.get(client)
        if lock is None:
            lock = self._changing[client] = asyncio.Lock()
        return lock

    async def restore(self, registry: Registry, lifetime_limit_s: int) -> int:
        """Take what the store has; return how many sessions can be resumed.

        Left out is what has expired, what was sealed with another key, and what was negotiated
        with a password that does not count any more.

        Args:
            lifetime_limit_s: no session lives longer from now, however the clock was changed.
        """
        restored = 0
        for row in await self._rows.load_sessions():
            session = self._opened(row, registry, lifetime_limit_s)
            if session is not None:
                self.table.restore(session, is_current=row.is_current)
                restored += row.is_current
        return restored

    def adopt(
        self,
        client: str,
        rows: Iterable[SealedSession],
        registry: Registry,
        lifetime_limit_s: int,
    ) -> None:
        """Let the table say of a client what the store says; the caller holds ``changing``.

        Args:
            rows: all of the client, the current one last.
        """
        table, current = self.table, None
        for row in rows:
            session = table.find(row.session_id)
            if session is None:
                session = self._opened(row, registry, lifetime_limit_s)
            if session is None:
                continue
            if row.is_current:
                current = session
            elif table.find(row.session_id) is None:
                table.restore(session, is_current=False)
        ours = table.current(client)
        if current is not None and current is not ours:
            table.install(current)
        elif current is None and ours is not None and ours.expires_s > monotonic_s():
            # Else it is only swept there, and its agent is to hear that its key is too old.
            table.end(ours)

    async def client_of(self, session_id: bytes) -> str | None:
        """Return whose session it is, of those in memory and of those in the store.

        Raises:
            StorageError: the store cannot be asked.
        """
        known = self.table.find(session_id)
        return known.client if known else await self._rows.client_of_session(session_id)

    def _opened(
        self, row: SealedSession, registry: Registry, lifetime_limit_s: int
    ) -> Session | None:
        left_s = min((row.expires_us - now_us()) / _US_PER_S, lifetime_limit_s)
        if left_s <= 0:
            return None
        stored = self._seal.open(row)
        if stored is None:
            self.unreadable += 1
            return None
        if not _is_registered(registry, stored):
            return None
        return Session(stored.client, stored.keys, stored.instance, monotonic_s() + left_s)

    async def keep(
        self, session: Session, verifier: Verifier, states: Sequence[ClientState] = ()
    ) -> None:
        """Make a current session survive the process; durable when it returns.

        Before that, its agent must not be welcomed: it would take the place of another one that
        a crash would bring back.

        Args:
            states: what the log-in makes of its client's state, stored with it.

        Raises:
            StorageError: it may not survive.
        """
        left_us = int((session.expires_s - monotonic_s()) * _US_PER_S)
        stored = StoredSession(
            session.client,
            session.keys,
            session.instance,
            registration_of(verifier),
            now_us() + left_us,
        )
        known = self.table.known(session.client)
        await self._rows.keep_session(self._seal.seal(stored), known, states)

    async def end(self, session: Session) -> None:
        """Forget a session whose agent said goodbye, if it is still the current one.

        Raises:
            StorageError: the store still has it; it expires there.
        """
        async with self.changing(session.client):
            if self.table.is_current(session):
                self.table.end(session)
                await self._rows.end_session(session.client, session.keys.session_id)

    async def sweep(self) -> None:
        """Forget what has expired, here and in the store.

        Raises:
            StorageError: the store still has some of it.
        """
        self.table.sweep(monotonic_s())
        await self._rows.sweep_sessions(now_us())


def _is_registered(registry: Registry, stored: StoredSession) -> bool:
    verifier = registry.lookup(stored.client)
    return verifier is not None and registration_of(verifier) == stored.registration
