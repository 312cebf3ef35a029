"""A small but real server for tests of the agent: true handshakes, true seals, scripted manners.

It keeps what it was told in plain lists, and does what its attributes say. Real sockets on
loopback; the arithmetic of a log-in runs in the event loop, 30 ms at a time.
"""

import asyncio
import hashlib
import os
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from needfire_client.address import ServerAddress
from needfire_protocol.codec import decode
from needfire_protocol.connection import ServerConnection
from needfire_protocol.connection_events import (
    AuthenticationFailed,
    ConnectionEvent,
    Established,
    MessageReceived,
    NegotiationRequested,
    ProofReceived,
    ResumptionRequested,
    SignatureInvalid,
)
from needfire_protocol.event import Event, unpack_event
from needfire_protocol.keys import SessionKeys
from needfire_protocol.limits import EVENT_DECODING
from needfire_protocol.messages import (
    Acknowledge,
    Announce,
    Command,
    CommandResult,
    FileBegin,
    FileChunk,
    FileEnd,
    FileKind,
    FileRefused,
    FileRequest,
    Goodbye,
    GoodbyeAccepted,
    Heartbeat,
    Message,
    ProposalAccepted,
    ProposalBegin,
    ProposalChunk,
    ProposalEnd,
    ProposalRefused,
    RefusalCode,
    ReportBatch,
    SessionExpired,
    Welcome,
)
from needfire_testkit.pairs import FAKE_SALT_KEY, NAME, verifier_of

__all__ = ["Peer", "ScriptedServer", "running_server", "until"]


async def until(condition: Callable[[], object], what: str, limit_s: float = 15) -> None:
    """Wait until a condition holds; it is looked at each time the loop comes round."""
    try:
        async with asyncio.timeout(limit_s):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"waited {limit_s} s in vain for {what}") from None


@dataclass
class ScriptedServer:
    """What the server does, and what it was told."""

    # ---- manners
    verifiers: dict[str, str] = field(
        default_factory=lambda: {NAME: "correct horse battery staple"}
    )
    """Password by name."""
    files: dict[FileKind, bytes] = field(default_factory=dict)
    lifetime_s: int = 7200
    acknowledges: bool = True
    resets_at_once: bool = False
    is_mute: bool = False
    """Takes connections and never says a word."""
    is_held_by_another: bool = False
    """Another agent has the session: no takeover, no session."""
    refuses_with: RefusalCode | None = None
    forges: RefusalCode | None = None
    """Somebody on the way answers every first frame with this refusal."""
    proposal_refusal: str | None = None
    corrupts_files: bool = False
    is_slow_with_files: bool = False
    """It never answers a request for one."""

    # ---- what came
    connections: int = 0
    negotiations: list[bool] = field(default_factory=list)
    """The takeover flag of each."""
    resumptions: int = 0
    failed_logins: int = 0
    announcements: list[Announce] = field(default_factory=list)
    reports: dict[tuple[bytes, int], bytes] = field(default_factory=dict)
    copies: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    heartbeats: list[Heartbeat] = field(default_factory=list)
    goodbyes: list[str] = field(default_factory=list)
    results: list[CommandResult] = field(default_factory=list)
    proposals: list[bytes] = field(default_factory=list)
    bad_signatures: int = 0
    file_requests: list[FileKind] = field(default_factory=list)

    port: int = 0
    sessions: dict[bytes, SessionKeys] = field(default_factory=dict)
    superseded: set[bytes] = field(default_factory=set)
    peers: list["Peer"] = field(default_factory=list)
    _decoded: dict[tuple[bytes, int], Event] = field(default_factory=dict)
    _server: asyncio.Server | None = None

    @property
    def address(self) -> ServerAddress:
        return ServerAddress("127.0.0.1", self.port)

    @property
    def events(self) -> list[Event]:
        """Every report as an event, in the order of the numbers."""
        for key, body in list(self.reports.items())[len(self._decoded) :]:
            self._decoded[key] = unpack_event(decode(body, limits=EVENT_DECODING))
        return [self._decoded[key] for key in sorted(self._decoded, key=lambda key: key[1])]

    def codes(self) -> list[str]:
        return [event.code for event in self.events]

    async def start(self) -> None:
        """Listen; at the port of before where there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more and drop everybody."""
        if self._server is not None:
            self._server.close()
            self.drop()
            await self._server.wait_closed()
            self._server = None
            await until(lambda: not self.peers, "the connections to end")

    def drop(self, *, reset: bool = False) -> None:
        """Cut every connection without a word."""
        for peer in self.peers:
            peer.cut(reset=reset)

    def forget_sessions(self) -> None:
        """As after a restart."""
        self.sessions.clear()
        self.superseded.clear()

    async def supersede(self) -> None:
        """Another agent of the same name logs in."""
        self.is_held_by_another = True
        self.superseded |= self.sessions.keys()
        for peer in list(self.peers):
            await peer.refuse(RefusalCode.SESSION_SUPERSEDED)

    async def say(self, *messages: Message) -> None:
        """Send messages on every open connection, in one piece."""
        for peer in self.peers:
            if peer.is_welcomed:
                await peer.send(*messages)

    async def order(self, command_id: int, verb: str) -> None:
        await self.say(Command(command_id, verb))

    async def expire(self) -> None:
        await self.say(SessionExpired())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        peer = Peer(self, reader, writer)
        self.peers.append(peer)
        try:
            with suppress(OSError):
                await peer.run()
        finally:
            self.peers.remove(peer)
            writer.close()


class Peer:
    """One connection."""

    def __init__(
        self, server: ScriptedServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._connection = ServerConnection(random_bytes=os.urandom, fake_salt_key=FAKE_SALT_KEY)
        self._keys: SessionKeys | None = None
        self._takeover = True
        self._proposal = bytearray()
        self.is_welcomed = False

    async def run(self) -> None:
        if self._server.resets_at_once:
            self.cut(reset=True)
            return
        while not self._connection.is_closed and (data := await self._reader.read(65_536)):
            if self._server.is_mute:
                continue
            if self._server.forges is not None:
                await self.refuse(self._server.forges)
                return
            for event in self._connection.receive_data(data):
                await self._on_event(event)
            await self._flush()

    def cut(self, *, reset: bool = False) -> None:
        if reset:
            linger = struct.pack("ii", 1, 0)
            self._writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
        self._writer.transport.abort() if reset else self._writer.close()

    async def send(self, *messages: Message) -> None:
        for each in messages:
            self._connection.send(each)
        await self._flush()

    async def refuse(self, code: RefusalCode, detail: str = "") -> None:
        self._connection.refuse(code, detail)
        await self._flush()
        self._writer.close()

    async def _flush(self) -> None:
        with suppress(ConnectionError):
            self._writer.write(self._connection.data_to_send())
            await self._writer.drain()

    async def _on_event(self, event: ConnectionEvent) -> None:
        if isinstance(event, NegotiationRequested):
            self._takeover = event.takeover
            self._server.negotiations.append(event.takeover)
            password = self._server.verifiers.get(event.name)
            self._connection.challenge(None if password is None else verifier_of(password))
        elif isinstance(event, ProofReceived):
            for told in self._connection.verify_proof():
                await self._on_event(told)
        elif isinstance(event, ResumptionRequested):
            self._resume(event.session_id)
        elif isinstance(event, Established):
            self._keys = event.keys
            self._server.sessions[event.keys.session_id] = event.keys
        elif isinstance(event, AuthenticationFailed):
            self._server.failed_logins += 1
        elif isinstance(event, SignatureInvalid):
            self._server.bad_signatures += 1
        elif isinstance(event, MessageReceived):
            await self._on_message(event.message)

    def _resume(self, session_id: bytes) -> None:
        keys = self._server.sessions.get(session_id)
        if keys is None:
            self._connection.refuse_resumption(RefusalCode.SESSION_UNKNOWN, None)
        elif session_id in self._server.superseded:
            self._connection.refuse_resumption(RefusalCode.SESSION_SUPERSEDED, keys)
        else:
            self._server.resumptions += 1
            self._connection.resume(keys)

    async def _on_message(self, message: Message) -> None:
        if isinstance(message, Announce):
            await self._on_announce(message)
        elif isinstance(message, ReportBatch):
            await self._on_reports(message)
        elif isinstance(message, Heartbeat):
            self._server.heartbeats.append(message)
        elif isinstance(message, FileRequest):
            await self._on_file_request(message.kind)
        elif isinstance(message, Goodbye):
            self._server.goodbyes.append(message.reason)
            await self.send(GoodbyeAccepted())
        elif isinstance(message, CommandResult):
            self._server.results.append(message)
        elif isinstance(message, ProposalBegin):
            self._proposal.clear()
        elif isinstance(message, ProposalChunk):
            self._proposal += message.data
        elif isinstance(message, ProposalEnd):
            await self._on_proposal()

    async def _on_announce(self, message: Announce) -> None:
        if self._server.refuses_with is not None:
            await self.refuse(self._server.refuses_with, "as the test wants it")
        elif self._server.is_held_by_another and not self._takeover:
            await self.refuse(RefusalCode.SESSION_IN_USE)
        else:
            self._server.is_held_by_another = False
            self._server.announcements.append(message)
            await self.send(Welcome(1_700_000_000_000_000, self._server.lifetime_s))
            self.is_welcomed = True

    async def _on_reports(self, batch: ReportBatch) -> None:
        for report in batch.reports:
            self._server.reports.setdefault((batch.stream, report.sequence), report.body)
            self._server.copies[batch.stream, report.sequence] += 1
        if self._server.acknowledges:
            await self.send(Acknowledge(batch.stream, batch.reports[-1].sequence))

    async def _on_file_request(self, kind: FileKind) -> None:
        self._server.file_requests.append(kind)
        if self._server.is_slow_with_files:
            return
        data = self._server.files.get(kind)
        if data is None:
            await self.send(FileRefused(kind))
            return
        digest = hashlib.sha256(data).digest()
        await self.send(FileBegin(kind, len(data), digest))
        sent = bytes(len(data)) if self._server.corrupts_files else data
        for at in range(0, len(sent), 65_536):
            await self.send(FileChunk(sent[at : at + 65_536]))
        await self.send(FileEnd())

    async def _on_proposal(self) -> None:
        if self._server.proposal_refusal is not None:
            await self.send(ProposalRefused(self._server.proposal_refusal))
            return
        self._server.proposals.append(bytes(self._proposal))
        await self.send(ProposalAccepted(len(self._server.proposals)))


@asynccontextmanager
async def running_server(**manners: object) -> AsyncIterator[ScriptedServer]:
    """A server that listens on a free port of loopback."""
    server = ScriptedServer()
    for name, value in manners.items():
        assert hasattr(server, name)
        setattr(server, name, value)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
