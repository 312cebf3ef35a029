"""Who may open a connection, and what runs on it: accept, access lists, limits, log-in, session."""

import asyncio
import os
import socket
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from needfire_protocol.connection import ServerConnection
from needfire_protocol.errors import StorageError
from needfire_server.access import check_access
from needfire_server.addresses import neighbourhood, plain_address
from needfire_server.agent_session import AgentSession
from needfire_server.login import log_in
from needfire_server.runtime import Runtime
from needfire_server.wire import Wire

__all__ = ["Listener"]

HANDSHAKE_LIMIT_S: Final = 10
"""From the connection to the proof of who it is."""

_BACKLOG: Final = 1024
_STOP_LIMIT_S: Final = 5
_UNANNOUNCED_MAX: Final = 8
"""Connections of one client that have not said yet which process they are: its secret alone must
not be enough to use up everybody's connections."""
_HANDSHAKES_PER_ADDRESS_MIN: Final = 4
"""Log-ins at the same time that one address may always have; above, a quarter of HandshakeLimit."""
_ACCESS_NOTES_MAX: Final = 1_000


class Listener:
    """Accepts connections on the bound sockets and serves each in a task of its own."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._servers: list[asyncio.Server] = []
        self._open: set[Wire] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._handshakes: Counter[str] = Counter()
        self._sessions: dict[str, AgentSession] = {}
        self._wake: dict[str, asyncio.Event] = {}
        self._unannounced: Counter[str] = Counter()
        self._access_notes: set[str] = set()

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Begin to accept on sockets that are bound already."""
        for bound in sockets:
            server = await asyncio.start_server(self._accepted, sock=bound, backlog=_BACKLOG)
            self._servers.append(server)

    async def stop(self) -> None:
        """Accept nothing more, close every connection, and wait for those who serve them.

        What was acknowledged is stored; what was not, the agents send again.
        """
        for server in self._servers:
            server.close()
        for wire in list(self._open):
            wire.abort()
        if self._serving:
            await asyncio.wait(self._serving, timeout=_STOP_LIMIT_S)
        for server in self._servers:
            await server.wait_closed()

    def connected(self) -> dict[str, str]:
        """Return the address of each client that has a session open."""
        return {client: session.wire.peer for client, session in self._sessions.items()}

    def reloaded(self) -> None:
        """The configuration was read again: what is odd about the access lists is told anew."""
        self._access_notes.clear()

    def wake(self, client: str | None) -> None:
        """A command waits for a client: send it now if the client is connected.

        Args:
            client: None where it may be any.
        """
        for event in self._wake.values() if client is None else (self._wake.get(client),):
            if event is not None:
                event.set()

    def drop(self, client: str) -> None:
        """Close the connection of a client that is no longer registered."""
        session = self._sessions.get(client)
        if session is not None:
            session.wire.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        connection = ServerConnection(
            random_bytes=os.urandom, fake_salt_key=self._runtime.fake_salt_key
        )
        wire = Wire(reader, writer, connection)
        if not wire.has_address:
            # It was gone before we asked who it is.
            wire.abort()
            return
        if len(self._open) >= (limit := self._runtime.settings.connection_limit):
            self._too_many(wire, limit)
            return
        self._open.add(wire)
        try:
            if not await self._is_admitted(wire):
                wire.reset()
                return
            await self._serve(wire)
        except OSError as error:
            self._runtime.journal.raise_event(
                "CONNECTION_CLOSED", peer=wire.peer, reason=str(error) or type(error).__name__
            )
            wire.abort()
        except StorageError as error:
            self._runtime.journal.store_failed(error)
            wire.abort()
        except Exception as error:  # noqa: BLE001  # a bug must not take the other clients along
            self._runtime.journal.raise_event(
                "SERVER_INTERNAL_ERROR",
                error=type(error).__name__,
                detail=_place(error),
                peer=wire.peer,
            )
            wire.abort()
        finally:
            self._open.discard(wire)
            await wire.close()

    async def _is_admitted(self, wire: Wire) -> bool:
        settings, journal = self._runtime.settings, self._runtime.journal
        decision = await check_access(
            settings.hosts_allow_file,
            settings.hosts_deny_file,
            wire.address,
            self._runtime.names,
        )
        self._tell_notes(decision.notes)
        if not decision.allowed:
            journal.raise_event(
                "REFUSED_CONNECTION", peer=wire.address, subroutine="libwrap", rule=decision.rule
            )
            return False
        # One address must not be able to keep all others from logging in.
        per_address = max(_HANDSHAKES_PER_ADDRESS_MIN, settings.handshake_limit // 4)
        for count, limit in (
            (self._handshakes.total(), settings.handshake_limit),
            (self._handshakes[_source(wire)], per_address),
        ):
            if count >= limit:
                journal.raise_event("TOO_MANY_CONNECTIONS", peer=wire.address, limit=limit)
                return False
        journal.raise_event("NEW_CONNECTION", peer=wire.peer)
        return True

    def _too_many(self, wire: Wire, limit: int) -> None:
        self._runtime.journal.raise_event("TOO_MANY_CONNECTIONS", peer=wire.address, limit=limit)
        wire.reset()

    def _tell_notes(self, notes: Iterable[str]) -> None:
        """Report what is odd about the access lists: once, not at each connection."""
        for note in notes:
            if note not in self._access_notes and len(self._access_notes) < _ACCESS_NOTES_MAX:
                self._access_notes.add(note)
                self._runtime.journal.raise_event("ACCESS_LIST_NOTICE", text=note)

    async def _serve(self, wire: Wire) -> None:
        source = _source(wire)
        self._handshakes[source] += 1
        try:
            async with asyncio.timeout(HANDSHAKE_LIMIT_S):
                login = await log_in(wire, self._runtime)
        except TimeoutError:
            self._runtime.journal.raise_event(
                "CONNECTION_TIMEOUT", peer=wire.peer, limit_s=HANDSHAKE_LIMIT_S
            )
            wire.abort()
            return
        finally:
            self._handshakes[source] -= 1
            if not self._handshakes[source]:
                del self._handshakes[source]
        if login is not None:
            await self._serve_client(AgentSession(wire, self._runtime, login))

    async def _serve_client(self, session: AgentSession) -> None:
        client = session.client
        if self._unannounced[client] >= _UNANNOUNCED_MAX:
            self._too_many(session.wire, _UNANNOUNCED_MAX)
            return
        announced = asyncio.Event()
        self._unannounced[client] += 1
        wake = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                commands = group.create_task(self._send_commands(session, announced, wake))
                await session.run(announced)
                commands.cancel()
        except* (OSError, StorageError) as group:
            # Both tasks may fail at once; the first reason is the one to tell.
            raise group.exceptions[0] from None
        finally:
            if not announced.is_set():
                self._one_unannounced_less(client)
            if self._sessions.get(client) is session:
                del self._sessions[client]
                self._wake.pop(client, None)

    def _one_unannounced_less(self, client: str) -> None:
        self._unannounced[client] -= 1
        if not self._unannounced[client]:
            del self._unannounced[client]

    async def _send_commands(
        self, session: AgentSession, announced: asyncio.Event, wake: asyncio.Event
    ) -> None:
        await announced.wait()
        self._one_unannounced_less(session.client)
        # Registered here only: a peer that has logged in but has not been admitted must not
        # displace the connection of the process that holds the session.
        earlier = self._sessions.get(session.client)
        if earlier is not None and earlier.is_same_process(session):
            # The client reconnected before we noticed that its old connection is dead.
            earlier.wire.abort()
        self._sessions[session.client] = session
        self._wake[session.client] = wake
        while True:
            await session.send_commands()
            await wake.wait()
            wake.clear()


def _place(error: Exception) -> str:
    """Where the error arose, innermost call first; no values, which could be secrets."""
    frames = reversed(traceback.extract_tb(error.__traceback__)[-5:])
    return " < ".join(f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in frames)


def _source(wire: Wire) -> str:
    """What the limits for one peer count by."""
    return neighbourhood(plain_address(wire.address))
