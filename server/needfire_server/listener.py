"""Who may open a connection, and what runs on it: accept, access lists, limits, log-in, session."""

import asyncio
import contextlib
import os
import socket
import traceback
from collections.abc import Coroutine, Iterable, Sequence
from functools import partial
from typing import Final, NamedTuple

from needfire_protocol.connection import ServerConnection
from needfire_protocol.connection_events import ConnectionEvent
from needfire_protocol.errors import StorageError
from needfire_protocol.messages import FEATURE_AUDIT
from needfire_server.access import AccessLists, Decision
from needfire_server.addresses import neighbourhood, plain_address
from needfire_server.agent_session import AgentSession
from needfire_server.anteroom import SILENT_FACTOR, Visit
from needfire_server.clock import monotonic_s
from needfire_server.login import Claim, Login, log_in, resumes_at_once
from needfire_server.poller import Poller
from needfire_server.porch import PORCH_MAX, Porch
from needfire_server.runtime import Runtime
from needfire_server.wire import RESET_ON_CLOSE, Wire

__all__ = ["Listener"]

HANDSHAKE_LIMIT_S: Final = 10
"""From the connection to the proof of who it is."""

_ACCEPT_BURST: Final = 64
"""Connections that are taken from the kernel in one turn of the event loop."""
_STRANGERS_PER_TURN: Final = 2
"""Strangers that are let in in one turn: what is done for them keeps everybody else waiting, a quarter
of a millisecond for each, and an acknowledgement takes some fifteen turns."""
_ACCEPT_PAUSE_S: Final = 1.0
_OVERFLOW_EVERY_S: Final = 1.0
_BACKLOG: Final = 4096
"""Connections that the kernel keeps for us: a whole fleet may come back in a second."""
_STOP_LIMIT_S: Final = 5
_UNANNOUNCED_MAX: Final = 8
"""Connections of one client that have not said yet which process they are: its secret alone must
not be enough to use up everybody's connections."""
_SUPERSEDED_MAX: Final = 4
"""Connections of one client whose session another process of it has taken. Each is told so when it
next speaks; one that only drips bytes never does, and each log-in would leave one more of them."""
_ACCESS_NOTES_MAX: Final = 1_000


class _Newcomer(NamedTuple):
    """A connection as the kernel gave it to us."""

    connected: socket.socket
    address: str
    port: int


class Listener:
    """Accepts connections on the bound sockets and serves each; in a task, once it needs that."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._doors: list[socket.socket] = []
        self._poller = Poller()
        self._porch: Porch[_Newcomer] = Porch()
        self._pumping: asyncio.Handle | None = None
        self._overflow_told_s = -_OVERFLOW_EVERY_S
        self._open: set[Wire] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._sessions: dict[str, AgentSession] = {}
        self._superseded: dict[str, list[AgentSession]] = {}
        """Oldest first; holds none of those clients that have none."""
        self._unannounced: dict[str, dict[AgentSession, None]] = {}
        """Those of each client that have not said which process they are, oldest first."""
        self.sessions_ended = 0
        """Since the start."""
        self._access_notes: set[str] = set()
        self._with_commands: set[str] = set()
        """Clients that may have commands waiting. A fleet that comes back asks the store nothing."""
        runtime.neighbours.drop = self.drop

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Begin to accept on sockets that are bound already.

        Raises:
            StorageError: it is not known which clients have commands waiting.
        """
        self._with_commands |= await self._runtime.store.clients_with_commands()
        for bound in sockets:
            bound.setblocking(False)
            # What is accepted inherits it. An acknowledgement must not wait until the one before it has
            # been confirmed by the peer's kernel, which may take 40 ms.
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            bound.listen(_BACKLOG)
            self._doors.append(bound)
            self._open_door(bound)

    async def stop(self) -> None:
        """Accept nothing more, close every connection, and wait for those who serve them.

        What was acknowledged is stored; what was not, the agents send again.
        """
        for bound in self._doors:
            asyncio.get_running_loop().remove_reader(bound)
            bound.close()
        self._doors.clear()
        while self._porch:
            _reset(self._porch.take()[1].connected)
        for wire in list(self._open):
            wire.abort()
        if self._serving:
            await asyncio.wait(self._serving, timeout=_STOP_LIMIT_S)
        self._poller.close()

    def connected(self) -> dict[str, str]:
        """Return the address of each client that has a session open."""
        return {client: session.wire.peer for client, session in self._sessions.items()}

    def open_connections(self) -> int:
        """Return how many connections are open, of clients and of strangers."""
        return len(self._open) + len(self._porch)

    def reloaded(self) -> None:
        """The configuration was read again: what is odd about the access lists is told anew."""
        self._access_notes.clear()

    def wake(self, client: str | None) -> None:
        """A command waits for a client: send it now if the client is connected.

        Args:
            client: None where it may be any.
        """
        if client is None:
            self._spawn(self._look_for_commands())
            return
        self._with_commands.add(client)
        session = self._sessions.get(client)
        if session is not None:
            self._spawn(self._send_commands(session))

    def drop(self, client: str) -> None:
        """Close the connection of a client that is no longer registered."""
        self._runtime.throttle.forget(client)
        self._runtime.familiar.forget(client)
        session = self._sessions.get(client)
        if session is not None:
            session.wire.abort()

    # ---- from the kernel to a log-in

    def _open_door(self, bound: socket.socket) -> None:
        if bound in self._doors:
            asyncio.get_running_loop().add_reader(bound, self._accept, bound)

    def _accept(self, bound: socket.socket) -> None:
        """Take connections from the kernel. Strangers wait on the porch, the familiar do not."""
        lists = self._access_lists()
        for _ in range(_ACCEPT_BURST):
            try:
                connected, address = bound.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._pause(bound, error)
                return
            connected.setblocking(False)
            self._arrived(_Newcomer(connected, address[0], address[1]), lists)

    def _pause(self, bound: socket.socket, error: OSError) -> None:
        """Descriptors or memory ran out: the door stays ready, and would be tried without end."""
        self._runtime.journal.raise_event("CONNECTION_CLOSED", peer="unknown", reason=str(error))
        loop = asyncio.get_running_loop()
        loop.remove_reader(bound)
        loop.call_later(_ACCEPT_PAUSE_S, self._open_door, bound)

    def _arrived(self, newcomer: _Newcomer, lists: AccessLists) -> None:
        runtime, address = self._runtime, newcomer.address
        runtime.metrics.accepted()
        source = _source(address)
        is_familiar = runtime.familiar.spend(source, monotonic_s())
        if self.open_connections() >= (limit := runtime.connection_limit) and not (
            is_familiar and self._makes_room()
        ):
            runtime.metrics.refused("connection_limit")
            runtime.journal.raise_event("TOO_MANY_CONNECTIONS", peer=address, limit=limit)
            _reset(newcomer.connected)
        elif is_familiar:
            self._let_in(newcomer, source, lists, is_familiar=True)
        elif self._porch.wait(source, newcomer):
            self._pump_soon()
        else:
            runtime.metrics.refused("handshake_limit")
            self._tell_overflow(address)
            _reset(newcomer.connected)

    def _makes_room(self) -> bool:
        """Send a stranger away for a peer that comes first, where there is one."""
        if self._porch:
            _reset(self._porch.take()[1].connected)
            return True
        return self._runtime.anteroom.make_room()

    def _tell_overflow(self, address: str) -> None:
        """Say that the porch is full; not of each one, which would cost more than it does."""
        now_s = monotonic_s()
        if now_s - self._overflow_told_s >= _OVERFLOW_EVERY_S:
            self._overflow_told_s = now_s
            self._runtime.journal.raise_event("TOO_MANY_CONNECTIONS", peer=address, limit=PORCH_MAX)

    def _pump_soon(self) -> None:
        if self._pumping is None:
            self._pumping = asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Let some strangers in, and more of them with the next turn of the loop."""
        self._pumping = None
        lists = self._access_lists()
        try:
            for _ in range(min(_STRANGERS_PER_TURN, len(self._porch))):
                source, newcomer = self._porch.take()
                self._let_in(newcomer, source, lists, is_familiar=False)
        finally:
            if self._porch:
                self._pump_soon()

    def _let_in(
        self, newcomer: _Newcomer, source: str, lists: AccessLists, *, is_familiar: bool
    ) -> None:
        connection = ServerConnection(
            random_bytes=os.urandom,
            fake_salt_key=self._runtime.fake_salt_key,
            features=FEATURE_AUDIT,
        )
        wire = Wire(connection, self._poller, *newcomer)
        visit = Visit(source, wire.reset, is_familiar)
        if self._enters(visit):
            self._open.add(wire)
            self._receive(wire, visit, lists)

    def _access_lists(self) -> AccessLists:
        settings = self._runtime.settings
        return AccessLists(settings.hosts_allow_file, settings.hosts_deny_file)

    def _enters(self, visit: Visit) -> bool:
        """Return whether a peer may say something; tell who had to make room."""
        places = self._runtime.settings.handshake_limit
        displaced = self._runtime.anteroom.enter(visit, places, monotonic_s())
        if displaced is not None:
            self._runtime.metrics.refused("handshake_limit")
            self._runtime.journal.raise_event(
                "TOO_MANY_CONNECTIONS", peer=displaced.source, limit=places * SILENT_FACTOR
            )
        return displaced is not visit

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run work that nobody waits for but ``stop``, and that tells its failures itself."""
        task = asyncio.get_running_loop().create_task(work)
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    # ---- before there is a task: a fleet that comes back resumes its sessions, and a task for each of
    # ---- them from its first byte on would cost a tenth of all that is done for that

    def _receive(self, wire: Wire, visit: Visit, lists: AccessLists) -> None:
        """Let a peer speak, if it may."""
        try:
            decision = lists.check_at_once(wire.address)
            if decision is None:
                self._spawn(self._serve_wire(wire, visit, None, ()))
            elif self._is_admitted(wire, decision):
                self._await_words(wire, visit, Claim(monotonic_s() + HANDSHAKE_LIMIT_S))
            else:
                wire.reset()
                self._gone(wire, visit)
        except Exception as error:  # noqa: BLE001  # a bug must not take the other clients along
            self._gone(wire, visit)
            self._failed(wire, error)

    def _await_words(self, wire: Wire, visit: Visit, claim: Claim) -> None:
        wire.call_back(partial(self._heard, wire, visit, claim), claim.until_s)

    def _heard(self, wire: Wire, visit: Visit, claim: Claim) -> None:
        """Something has come, or nothing will: answer a peer that resumes, and leave all else to a task."""
        try:
            # What comes too late is not looked at.
            events = wire.received() if claim.left_s() else []
            if resumes_at_once(wire, self._runtime, claim, events):
                if not (wire.is_lost or wire.connection.is_closed):
                    self._await_words(wire, visit, claim)
                    return
                events = []
            self._spawn(self._serve_wire(wire, visit, claim, events))
        except Exception as error:  # noqa: BLE001  # a bug must not take the other clients along
            self._gone(wire, visit)
            self._failed(wire, error)

    # ---- a task

    async def _serve_wire(
        self, wire: Wire, visit: Visit, claim: Claim | None, events: Sequence[ConnectionEvent]
    ) -> None:
        """Serve a peer to the end of its connection.

        Args:
            claim: None for a peer that was not let in yet: the access lists need its name.
            events: what has come already.
        """
        try:
            login = await self._log_in(wire, visit, claim, events)
            if login is None:
                self._runtime.anteroom.refused(visit)
            else:
                self._runtime.anteroom.leave(visit)
                session = AgentSession(wire, self._runtime, login)
                self._keep_unannounced(session)
                try:
                    await session.run(partial(self._announced, visit.source))
                finally:
                    self._ended(session)
        except Exception as error:  # noqa: BLE001  # a bug must not take the other clients along
            self._failed(wire, error)
        finally:
            await wire.close()
            # A connection that lingers counts: the limits are ones of memory and of descriptors.
            self._gone(wire, visit)

    def _failed(self, wire: Wire, error: Exception) -> None:
        """Tell what a connection failed of, and end it."""
        journal = self._runtime.journal
        try:
            if isinstance(error, OSError):
                reason = str(error) or type(error).__name__
                journal.raise_event("CONNECTION_CLOSED", peer=wire.peer, reason=reason)
            elif isinstance(error, StorageError):
                journal.store_failed(error)
            else:
                journal.raise_event(
                    "SERVER_INTERNAL_ERROR",
                    error=type(error).__name__,
                    detail=_place(error),
                    peer=wire.peer,
                )
        finally:
            # Also without memory to tell of it.
            wire.abort()

    def _gone(self, wire: Wire, visit: Visit) -> None:
        self._open.discard(wire)
        self._runtime.anteroom.leave(visit)

    def _is_admitted(self, wire: Wire, decision: Decision) -> bool:
        """Tell what the access lists say of a peer; False where it is to be turned away."""
        journal = self._runtime.journal
        self._tell_notes(decision.notes)
        if not decision.allowed:
            self._runtime.metrics.refused("access_list")
            journal.raise_event(
                "REFUSED_CONNECTION", peer=wire.address, subroutine="libwrap", rule=decision.rule
            )
            return False
        journal.raise_event("NEW_CONNECTION", peer=wire.peer)
        return True

    def _tell_notes(self, notes: Iterable[str]) -> None:
        """Report what is odd about the access lists: once, not at each connection."""
        for note in notes:
            if note not in self._access_notes and len(self._access_notes) < _ACCESS_NOTES_MAX:
                self._access_notes.add(note)
                self._runtime.journal.raise_event("ACCESS_LIST_NOTICE", text=note)

    async def _log_in(
        self, wire: Wire, visit: Visit, claim: Claim | None, events: Sequence[ConnectionEvent]
    ) -> Login | None:
        """Return who the peer is; None where it is not let in, which has been told then."""
        if claim is None:
            found = await self._runtime.names.peer_name(wire.address)
            # Read again: that may have taken a while.
            decision = self._access_lists().check_at_once(wire.address, found)
            assert decision is not None
            if not self._is_admitted(wire, decision):
                wire.reset()
                return None
            # Not the peer's fault either.
            claim = Claim(monotonic_s() + HANDSHAKE_LIMIT_S)
        try:
            return await log_in(wire, self._runtime, visit, claim, list(events))
        except TimeoutError:
            self._runtime.metrics.handshake("timed_out")
            self._runtime.journal.raise_event(
                "CONNECTION_TIMEOUT", peer=wire.peer, limit_s=HANDSHAKE_LIMIT_S
            )
            wire.abort()
            return None

    def _keep_unannounced(self, session: AgentSession) -> None:
        """Let a session wait for its first word; of too many, the one that says nothing longest goes.

        Not the newcomer: an agent speaks at once, and a few silent connections of somebody else
        who has its secret would keep it out.
        """
        waiting = self._unannounced.setdefault(session.client, {})
        if len(waiting) >= _UNANNOUNCED_MAX:
            oldest = next(iter(waiting))
            del waiting[oldest]
            self._runtime.journal.raise_event(
                "TOO_MANY_CONNECTIONS", peer=oldest.wire.address, limit=_UNANNOUNCED_MAX
            )
            oldest.wire.abort(ConnectionAbortedError("it said nothing, and others came"))
        waiting[session] = None

    def _announced(self, source: str, session: AgentSession) -> None:
        """Register a session, and only now.

        A peer that has logged in but has not been admitted must not displace the connection of the
        process that holds the session. Nor does it make its address familiar: resumptions have a
        quota only where they are announced.
        """
        self._runtime.familiar.logged_in(source, session.client, monotonic_s())
        self._forget_unannounced(session)
        earlier = self._sessions.get(session.client)
        self._sessions[session.client] = session
        if earlier is not None and earlier.is_same_process(session):
            # The client reconnected before we noticed that its old connection is dead.
            earlier.wire.abort()
        elif earlier is not None:
            self._keep_superseded(earlier)
        if session.client in self._with_commands:
            self._spawn(self._send_commands(session))

    def _keep_superseded(self, session: AgentSession) -> None:
        older = self._superseded.setdefault(session.client, [])
        older.append(session)
        if len(older) > _SUPERSEDED_MAX:
            older.pop(0).wire.abort(ConnectionAbortedError("its session was taken long ago"))

    def _ended(self, session: AgentSession) -> None:
        self.sessions_ended += 1
        self._forget_unannounced(session)
        older = self._superseded.get(session.client, [])
        if self._sessions.get(session.client) is session:
            del self._sessions[session.client]
        elif session in older:
            older.remove(session)
            if not older:
                del self._superseded[session.client]

    def _forget_unannounced(self, session: AgentSession) -> None:
        waiting = self._unannounced.get(session.client)
        if waiting is not None:
            waiting.pop(session, None)
            if not waiting:
                del self._unannounced[session.client]

    async def _look_for_commands(self) -> None:
        """Nobody knows for whom something waits: ask, and send it to those who are here."""
        try:
            clients = await self._runtime.store.clients_with_commands()
        except StorageError as error:
            self._runtime.journal.store_failed(error)
            return
        for client in clients:
            self.wake(client)

    async def _send_commands(self, session: AgentSession) -> None:
        try:
            if not await session.send_commands():
                self._with_commands.discard(session.client)
        except OSError as error:
            # The task that receives is told, and tells it.
            session.wire.abort(error)
        except StorageError as error:
            self._runtime.journal.store_failed(error)
            session.wire.abort()


def _place(error: Exception) -> str:
    """Where the error arose, innermost call first; no values, which could be secrets."""
    frames = reversed(traceback.extract_tb(error.__traceback__)[-5:])
    return " < ".join(f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in frames)


def _source(address: str) -> str:
    """What the limits for one peer count by."""
    return neighbourhood(plain_address(address))


def _reset(peer: socket.socket) -> None:
    """Close a connection of which nothing was read, in the fewest steps."""
    with contextlib.suppress(OSError):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    peer.close()
