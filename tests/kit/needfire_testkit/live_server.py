"""The real server's network side in the test's own event loop, and an agent that says what it is told.

What listens is the product's listener with its real store on disk; what connects uses the real
protocol over a real socket, but sends only what the test asks for, in any order and as broken as
the test wants it.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from needfire_protocol.codec import encode
from needfire_protocol.connection import AgentConnection
from needfire_protocol.connection_events import ConnectionEvent, Established, MessageReceived
from needfire_protocol.event import Event, make_event, pack_event
from needfire_protocol.keys import SessionKeys, sign_report
from needfire_protocol.messages import (
    EVENT_REPORT,
    AgentMessage,
    Announce,
    Message,
    Report,
    ReportBatch,
)
from needfire_protocol.severity import SeverityFilter
from needfire_protocol.srp import make_verifier
from needfire_server.audit.log import AuditLog
from needfire_server.clock import now_us
from needfire_server.config import ServerSettings
from needfire_server.datafiles import DataFiles
from needfire_server.fleet import Fleet
from needfire_server.journal import Journal
from needfire_server.listener import Listener
from needfire_server.logbook import Logbook
from needfire_server.lookup import NameChecker
from needfire_server.outputs.engine import OutputEngine
from needfire_server.registry import Registry
from needfire_server.relays import RelayDesk
from needfire_server.runtime import Runtime
from needfire_server.session_keeper import SessionKeeper
from needfire_server.session_seal import SessionSeal
from needfire_server.sessions import SessionTable
from needfire_server.storage.base import EventQuery
from needfire_server.storage.output_cursors import CursorStore
from needfire_server.storage.sqlite import SqliteStore
from needfire_server.storage.store import DatabaseStore

__all__ = ["NAME", "PASSWORD", "LiveServer", "Peer", "event_body", "live_server"]

NAME = "localhost"
PASSWORD = "correct horse battery staple"
SEAL_KEY = bytes(range(32))
WAIT_LIMIT_S = 15.0


@dataclass
class LiveServer:
    """A listening server, and what it said."""

    runtime: Runtime
    listener: Listener
    port: int
    directory: Path
    said: list[Event] = field(default_factory=list)
    peers: "list[Peer]" = field(default_factory=list)

    def codes(self) -> list[str]:
        """Codes of the server's own events so far, in order."""
        return [event.code for event in self.said]

    async def until_said(self, code: str, count: int = 1) -> Event:
        """Wait until the server has raised an event so many times; return the last one."""
        async with asyncio.timeout(WAIT_LIMIT_S):
            while self.codes().count(code) < count:
                await asyncio.sleep(0.005)
        return next(event for event in reversed(self.said) if event.code == code)

    async def until_connected(self, name: str = NAME) -> None:
        """Wait until the listener knows the connection as the client's."""
        async with asyncio.timeout(WAIT_LIMIT_S):
            while name not in self.listener.connected():
                await asyncio.sleep(0.005)

    async def stored(self, **query: Any) -> list[Event]:
        """The events in the store, oldest first."""
        rows = await self.runtime.store.query_events(EventQuery(limit=100_000, **query))
        return [event for _, event in rows]

    def configure(self, **changes: Any) -> None:
        """Change settings as a reload does."""
        self.runtime.settings = replace(self.runtime.settings, **changes)

    async def connect(self) -> "Peer":
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port))
        self.peers.append(peer)
        return peer

    async def log_in(
        self, *, name: str = NAME, password: str = PASSWORD, **announced: Any
    ) -> "Peer":
        """Connect, negotiate and announce; return the peer after its welcome."""
        peer = await self.connect()
        takeover = bool(announced.pop("takeover", True))
        events = await peer.negotiate(name, password, takeover=takeover)
        assert isinstance(events[-1], Established), events
        await peer.announce(**announced)
        return peer


class Peer:
    """One connection to the server, under the test's control."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.stream = os.urandom(16)
        self.heard: list[bytes] = []
        self.features = 0
        self._agent: AgentConnection | None = None
        self._events: list[ConnectionEvent] = []

    @property
    def agent(self) -> AgentConnection:
        assert self._agent is not None
        return self._agent

    @property
    def keys(self) -> SessionKeys:
        assert self.agent.keys is not None
        return self.agent.keys

    async def negotiate(
        self, name: str, password: str, *, takeover: bool = True
    ) -> list[ConnectionEvent]:
        """Carry out the handshake; return what it came to, at least one event."""
        self._agent = AgentConnection.negotiate(
            name,
            password,
            takeover=takeover,
            random_bytes=os.urandom,
            features=self.features,
        )
        return [await self.next_event()]

    async def resume(self, keys: SessionKeys) -> list[ConnectionEvent]:
        self._agent = AgentConnection.resume(keys, random_bytes=os.urandom)
        return [await self.next_event()]

    async def announce(self, **changes: Any) -> None:
        announcement = Announce(
            instance=b"i" * 16,
            boot_id="boot",
            started_us=1,
            version="0",
            mode="run",
            prior_exit_pending=False,
        )
        await self.send(replace(announcement, **changes))
        await self.next_message()

    async def send(self, *messages: AgentMessage) -> None:
        for message in messages:
            self.agent.send(message)
        await self.flush()

    async def flush(self) -> None:
        self.writer.write(self.agent.data_to_send())
        await self.writer.drain()

    async def next_event(self) -> ConnectionEvent:
        """The next thing that the server makes of us."""
        async with asyncio.timeout(WAIT_LIMIT_S):
            while not self._events:
                await self.flush()
                data = await self.reader.read(65_536)
                self.heard.append(data)
                self._events += self.agent.receive_data(data) if data else self.agent.receive_eof()
            await self.flush()
        return self._events.pop(0)

    async def next_message(self) -> Message:
        event = await self.next_event()
        assert isinstance(event, MessageReceived), event
        return event.message

    async def until_closed(self) -> bytes:
        """Read until the server ends the connection; return what still came."""
        rest = b""
        async with asyncio.timeout(WAIT_LIMIT_S):
            try:
                while data := await self.reader.read(65_536):
                    rest += data
            except ConnectionResetError:
                pass
        return rest

    def report(self, sequence: int, body: bytes, type_: int = EVENT_REPORT) -> Report:
        signature = sign_report(self.keys, self.stream, sequence, type_, body)
        return Report(sequence, type_, body, signature)

    def batch(self, first: int, *bodies: bytes) -> ReportBatch:
        return ReportBatch(
            self.stream, tuple(self.report(n, body) for n, body in enumerate(bodies, first))
        )

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


def event_body(code: str = "WAKEUP", **fields: Any) -> bytes:
    """The body of a report of an event."""
    event = make_event(code, time_us=now_us(), random_10_bytes=os.urandom(10), **fields)
    return encode(pack_event(event))


@asynccontextmanager
async def live_server(
    directory: Path, *, store: DatabaseStore | None = None, **settings: Any
) -> AsyncIterator[LiveServer]:
    """Run a server on a port that the system picks, with one client, ``localhost``.

    Args:
        store: instead of one in the directory; it is closed in the end.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "hosts.allow").write_text("")
    chosen = replace(
        ServerSettings(
            hosts_allow_file=str(directory / "hosts.allow"),
            hosts_deny_file=str(directory / "hosts.deny"),
            log_severity=SeverityFilter.parse("*"),
        ),
        **settings,
    )
    store = store or SqliteStore.open(str(directory / "needfire.sqlite"))
    logbook = Logbook.from_settings(chosen, str(directory), is_foreground=False)
    said: list[Event] = []
    journal = _ListeningJournal(logbook, said)
    await store.register(NAME, make_verifier(PASSWORD, os.urandom), now_us=now_us(), user="test")
    runtime = Runtime(
        settings=chosen,
        store=store,
        registry=Registry((), await store.clients()),
        data_files=DataFiles(str(directory)),
        names=NameChecker.for_host(),
        logbook=logbook,
        journal=journal,
        fleet=Fleet(store, journal, await store.load_client_states()),
        keeper=SessionKeeper(SessionTable(), store, SessionSeal(SEAL_KEY, os.urandom)),
        outputs=OutputEngine(CursorStore(store), raise_event=journal.raise_event),
        fake_salt_key=bytes(32),
        audit=await AuditLog.open(store.audit, str(directory)),
        relays=RelayDesk(bytes(range(16)), journal.raise_event),
        on_new_events=lambda: None,
    )
    await runtime.neighbours.restore()
    listener = Listener(runtime)
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    await listener.start([bound])
    try:
        live = LiveServer(runtime, listener, bound.getsockname()[1], directory, said)
        try:
            yield live
        finally:
            for peer in live.peers:
                await peer.close()
    finally:
        await listener.stop()
        logbook.close()
        store.close()


class _ListeningJournal(Journal):
    """Keeps what the server says, as well as logging it."""

    def __init__(self, logbook: Logbook, said: list[Event]) -> None:
        super().__init__(logbook, store_path="the store", on_recorded=lambda: None)
        self._said = said

    def raise_event(self, code: str, severity: Any = None, /, **fields: Any) -> Event | None:
        event = super().raise_event(code, severity, **fields)
        if event is not None:
            self._said.append(event)
        return event
