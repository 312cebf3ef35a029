"""One logged-in client on one connection: from its announcement to its goodbye."""

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Final

from needfire_protocol.connection_events import (
    Closed,
    ConnectionEvent,
    Failed,
    MessageReceived,
    SignatureInvalid,
)
from needfire_protocol.errors import RemoteProtocolError, StorageError
from needfire_protocol.event import FieldValue
from needfire_protocol.messages import (
    FEATURE_AUDIT,
    RELAYED_REPORT,
    Announce,
    AuditCheckpoint,
    AuditProof,
    AuditProofRequest,
    Command,
    CommandResult,
    FileKind,
    FileRequest,
    Goodbye,
    GoodbyeAccepted,
    Heartbeat,
    Message,
    ProposalBegin,
    ProposalChunk,
    ProposalEnd,
    ProposalRefused,
    RefusalCode,
    ReportBatch,
    SessionExpired,
    Welcome,
)
from needfire_server.audit.drafts import acknowledgement_draft
from needfire_server.clock import monotonic_s, now_us
from needfire_server.ingest import take_batch
from needfire_server.login import Login
from needfire_server.orders import settle_stops
from needfire_server.runtime import Runtime
from needfire_server.sessions import Session
from needfire_server.states import ClientStatus, is_illegal_restart
from needfire_server.storage.base import Command as QueuedCommand
from needfire_server.transfers import ProposalTransfer, send_file
from needfire_server.vitals import Voice
from needfire_server.wire import Wire

__all__ = ["AgentSession"]

ANNOUNCEMENT_LIMIT_S: Final = 10
"""From the end of the handshake to the announcement. A client that has the secret but never says
which process it is must not be able to collect open connections."""


_UNWANTED_BYTES_MAX: Final = 16 * 1024 * 1024
"""What may still come of a proposal after it was refused: more than is on its way at any time."""


_SMALL: Final = (Heartbeat, CommandResult, AuditProofRequest, ProposalBegin)
"""What costs little, and so is not counted by what it costs."""

_SMALL_PIECE_BYTES: Final = 16 * 1024
"""A smaller piece of a proposal counts as such a message: a GiB in pieces of one byte would keep the
server busy for a day. An agent sends one of them with each proposal, the last."""


class AgentSession:
    """Serves the messages of one client until one side ends the connection."""

    __slots__ = (
        "_is_caught_up",
        "_is_over",
        "_is_relay",
        "_login",
        "_proposal",
        "_runtime",
        "_sending",
        "_session",
        "_shown_size",
        "_transfer",
        "_unwanted_bytes",
        "_voice",
        "_wire",
        "client",
    )

    def __init__(self, wire: Wire, runtime: Runtime, login: Login) -> None:
        self._wire = wire
        self.client = login.client
        """The registered name."""
        self._runtime = runtime
        self._login = login
        self._session: Session | None = None
        self._voice: Voice | None = None
        self._proposal: ProposalTransfer | None = None
        self._unwanted_bytes: int | None = None
        """What has come of a proposal since it was refused; None where none is on its way."""
        self._transfer: asyncio.Task[None] | None = None
        """Sends a file, beside everything else."""
        self._is_over = False
        self._shown_size = 0
        self._is_caught_up = not runtime.store.is_shared
        self._is_relay = False
        self._sending = asyncio.Lock()

    @property
    def wire(self) -> Wire:
        """The connection that it runs on."""
        return self._wire

    def is_same_process(self, other: "AgentSession") -> bool:
        """True where both connections belong to one agent process."""
        ours, theirs = self._session, other._session
        return ours is not None and theirs is not None and ours.instance == theirs.instance

    async def run(self, on_announced: Callable[["AgentSession"], None]) -> None:
        """Serve until the connection ends.

        Args:
            on_announced: called once, when the client has announced itself and may get commands.

        Raises:
            OSError: the connection broke.
        """
        events: list[ConnectionEvent] = list(self._login.rest)
        is_announced = False
        try:
            while not self._has_ended():
                for event in events:
                    await self._handle(event)
                    if self._has_ended():
                        return
                if self._session is not None and not is_announced:
                    is_announced = True
                    on_announced(self)
                # Nearly all of the time is spent here, by thousands of connections: so no more
                # coroutines stand between this one and the socket than needs be.
                try:
                    events = await self._wire.receive(monotonic_s() + self._limit_s())
                except TimeoutError:
                    self._timed_out()
        finally:
            # First what waits for nothing: who ends the session may not wait for the rest.
            if self._voice is not None:
                self._runtime.vitals.closed(self._voice)
            if self._proposal is not None:
                await self._proposal.abandon()
            await self._end_transfer()

    def _has_ended(self) -> bool:
        return self._is_over

    async def send_commands(self) -> bool:
        """Send every command that waits for this client; False where none does.

        Raises:
            OSError: the connection broke.
        """
        async with self._sending:
            commands = await self._runtime.store.pending_commands(self.client)
            for command in commands:
                await self._wire.send(Command(command.id, command.verb))
                await self._runtime.store.mark_command_delivered(command.id, now_us=now_us())
        return bool(commands)

    def _limit_s(self) -> int:
        limit_s = self._runtime.settings.connection_timeout_s
        return limit_s if self._session is not None else min(limit_s, ANNOUNCEMENT_LIMIT_S)

    def _timed_out(self) -> None:
        self._runtime.journal.raise_event(
            "CONNECTION_TIMEOUT", client=self.client, peer=self._wire.peer, limit_s=self._limit_s()
        )
        self._is_over = True

    async def _handle(self, event: ConnectionEvent) -> None:
        match event:
            case MessageReceived(message=message):
                await self._handle_message(message)
            case SignatureInvalid():
                self._raise("MSG_SIGNATURE_MISMATCH")
                await self._runtime.fleet.note(self.client, ClientStatus.FAILED)
                await self._end_after_flush()
            case Failed(error=error):
                self._raise("PROTOCOL_ERROR", reason=str(error))
                await self._end_after_flush()
            case Closed():
                self._raise("CONNECTION_CLOSED", reason="the peer closed it")
                self._is_over = True
            case _:
                raise AssertionError(f"{type(event).__name__} after the handshake")

    async def _handle_message(self, message: Message) -> None:
        if isinstance(message, Announce):
            await self._announced(message)
        elif self._session is None:
            await self._refuse(RefusalCode.PROTOCOL, "announce yourself first")
        elif await self._session_may_speak(self._session):
            assert self._voice is not None
            self._runtime.vitals.heard(self._voice)
            try:
                await self._serve(message, self._session, self._voice)
            except RemoteProtocolError as error:
                self._raise("PROTOCOL_ERROR", reason=str(error))
                await self._refuse(RefusalCode.PROTOCOL, str(error))
            except StorageError as error:
                # No acknowledgement: the client keeps what it sent and comes again.
                self._runtime.journal.store_failed(error)
                await self._refuse(RefusalCode.BUSY, "the server cannot store reports now")

    async def _announced(self, announce: Announce) -> None:
        if self._session is not None:
            await self._refuse(RefusalCode.PROTOCOL, "announced twice")
            return
        # Those who logged in with the secret have been counted when they proved it.
        if self._login.resumed is not None and not self._runtime.throttle.may_resume(self.client):
            await self._refuse(RefusalCode.BUSY, "too many resumptions; try again later")
            return
        self._is_relay = announce.mode == "relay"
        if self._is_relay and not await self._may_relay():
            return
        async with self._runtime.neighbours.changing(self.client):
            try:
                session = await self._welcomed(announce)
            except StorageError as error:
                self._runtime.journal.store_failed(error)
                await self._refuse(RefusalCode.BUSY, "the server cannot store reports now")
                return
        if session is None:
            return
        self._session = session
        lifetime_s = max(1, int(session.expires_s - monotonic_s()))
        async with self._sending:
            await self._wire.send(Welcome(now_us(), lifetime_s))

    async def _welcomed(self, announce: Announce) -> Session | None:
        """Return the session, which is durable by now; None after refusing it.

        Raises:
            StorageError: it is not durable, and does not count.
        """
        vitals = self._runtime.vitals
        if self._login.resumed is None:
            await self._runtime.neighbours.refresh(self.client)
        voice = vitals.announced(self.client, announce, self._wire.address)
        session = await self._admit(announce)
        if session is None:
            return None
        self._voice = voice
        vitals.opened(voice, announce)
        before = self._runtime.fleet.state(self.client)
        try:
            if announce.prior_exit_pending and before.instance != announce.instance:
                await self._settle_stops("it says that it had stopped")
            is_illegal = await self._store_start(announce, session)
        except StorageError:
            if self._login.resumed is None:
                self._runtime.sessions.end(session)
            raise
        if is_illegal:
            self._raise("RESTART_WITHOUT_EXIT")
        elif is_illegal_restart(before, announce.instance, prior_exit_pending=False):
            vitals.exit_claimed(voice, self._wire.peer, before.last_seen_us)
        return session

    async def _store_start(self, announce: Announce, session: Session) -> bool:
        """Store what a new session makes of its client; True where its predecessor said no goodbye.

        Raises:
            StorageError: it is not durable.
        """
        runtime, verifier = self._runtime, self._login.verifier
        about = self.client, announce.instance, self._wire.address
        if verifier is None:
            # It was resumed, and survives the server's process already.
            return await runtime.fleet.started(
                *about, prior_exit_pending=announce.prior_exit_pending
            )
        is_illegal, states = runtime.fleet.begun(
            *about, prior_exit_pending=announce.prior_exit_pending
        )
        keep = runtime.keeper.keep(session, verifier, states)
        if runtime.provisioning.has_seen(self.client, announce.version):
            await keep
        else:
            # Together, so that they share a commit.
            await asyncio.gather(
                keep, runtime.provisioning.agent_seen(self.client, announce.version)
            )
        runtime.fleet.saved(states)
        return is_illegal

    async def _admit(self, announce: Announce) -> Session | None:
        """Return the session that the client may use from now on, or None after refusing it."""
        sessions = self._runtime.sessions
        resumed = self._login.resumed
        if resumed is not None:
            if resumed.instance != announce.instance or not sessions.is_current(resumed):
                self._raise("SIGNATURE_MISMATCH")
                await self._refuse(RefusalCode.SESSION_SUPERSEDED)
                return None
            self._raise("CLIENT_RESUMED")
            return resumed
        if self._runtime.registry.lookup(self.client) != self._login.verifier:
            # Removed, or registered anew, since it logged in: the old password counts no more.
            self._raise("SIGNATURE_MISMATCH")
            await self._refuse(RefusalCode.SESSION_SUPERSEDED)
            return None
        holder = sessions.current(self.client)
        if not self._login.takeover and sessions.is_held_by_another(
            self.client, announce.instance, monotonic_s()
        ):
            # An agent whose key was taken asks politely, and the other one is still there.
            self._raise("SESSION_IN_USE")
            await self._refuse(RefusalCode.SESSION_IN_USE)
            return None
        if holder is None:
            self._raise("NEW_CLIENT")
        session = Session(
            client=self.client,
            keys=self._login.keys,
            instance=announce.instance,
            expires_s=monotonic_s() + self._runtime.settings.session_key_lifetime_s,
        )
        sessions.install(session)
        return session

    async def _session_may_speak(self, session: Session) -> bool:
        """False after refusing a client whose key is superseded (state 7) or too old."""
        if not self._runtime.sessions.is_current(session):
            self._raise("SIGNATURE_MISMATCH")
            await self._refuse(RefusalCode.SESSION_SUPERSEDED)
            return False
        if session.expires_s <= monotonic_s():
            self._raise("FORCE_AUTHENTICATION")
            async with self._sending:
                await self._wire.send(SessionExpired())
            self._is_over = True
            return False
        return True

    async def _serve(self, message: Message, session: Session, voice: Voice) -> None:
        if isinstance(message, _SMALL) or (
            isinstance(message, ProposalChunk) and len(message.data) < _SMALL_PIECE_BYTES
        ):
            await self._runtime.throttle.before_message(
                self.client, lambda: self._is_heard(session)
            )
            if not await self._session_may_speak(session):
                return
        match message:
            case ReportBatch(reports=reports):
                is_relayed = any(report.type == RELAYED_REPORT for report in reports)
                # Asked again at each batch: the configuration may have changed.
                if is_relayed and not await self._may_relay():
                    return
                await self._runtime.throttle.before_reports(
                    self.client, message, lambda: self._is_heard(session)
                )
                if not await self._session_may_speak(session):
                    return
                for acknowledgement in await take_batch(
                    self._runtime, self.client, message, voice, self._wire.peer
                ):
                    await self._send(acknowledgement)
                await self._show_checkpoint()
            case Heartbeat():
                self._runtime.vitals.beat(voice, message, self._runtime.settings.clock_limit_s)
                self._runtime.fleet.heard(self.client)
                await self._show_checkpoint()
            case AuditProofRequest():
                await self._prove(message)
            case FileRequest(kind=kind):
                await self._runtime.throttle.before_file(
                    self.client, lambda: self._is_heard(session)
                )
                if await self._session_may_speak(session):
                    await self._begin_transfer(kind)
            case CommandResult():
                await self._command_done(message)
            case ProposalBegin():
                await self._proposal_begins(message)
            case ProposalChunk(data=data):
                await self._runtime.throttle.before_piece(
                    self.client, len(data), lambda: self._is_heard(session)
                )
                if await self._session_may_speak(session):
                    await self._proposal_goes_on(message)
            case ProposalEnd():
                await self._proposal_ends(message)
            case Goodbye(reason=reason):
                await self._goodbye(reason, session)
            case _:
                raise RemoteProtocolError(f"a client must not send {type(message).__name__}")

    async def _show_checkpoint(self) -> None:
        """Send the latest checkpoint of the audit log, once, to an agent that knows what it is."""
        if not self._login.keys.features & FEATURE_AUDIT or not await self._catch_up():
            return
        shown = self._runtime.audit.shown
        if shown is None:
            return
        if shown.checkpoint.size > self._shown_size:
            self._shown_size = shown.checkpoint.size
            note, key = shown.checkpoint.note.encode(), shown.key.encode()
            handovers = tuple(each.encode() for each in shown.handovers)
            await self._send(AuditCheckpoint(note, key, handovers))

    async def _catch_up(self) -> bool:
        """False while it is not known what other servers may have shown this agent before."""
        if not self._is_caught_up:
            try:
                await self._runtime.audit.catch_up()
            except StorageError:
                return False
            self._is_caught_up = True
        return True

    async def _prove(self, request: AuditProofRequest) -> None:
        if not request.old < request.new <= self._shown_size:
            raise RemoteProtocolError("a proof was asked for that no checkpoint calls for")
        hashes = await self._runtime.audit.consistency(request.old, request.new)
        await self._send(AuditProof(request.old, request.new, hashes))

    async def _may_relay(self) -> bool:
        """False after refusing a client that would speak for others and must not."""
        if self._is_relay and self.client in self._runtime.settings.relay_clients:
            return True
        self._runtime.relays.not_allowed(self.client, self._wire.peer)
        await self._refuse(RefusalCode.ACCESS, "this client is no relay here (RelayClient)")
        return False

    async def _goodbye(self, reason: str, session: Session) -> None:
        status = ClientStatus.EXITED if reason == "exit" else ClientStatus.SUSPENDED
        await self._runtime.fleet.note(self.client, status)
        if status is ClientStatus.EXITED:
            await self._settle_stops("it said goodbye")
        await self._runtime.keeper.end(session)
        # Told before it is answered: an agent in a hurry may be gone by then.
        self._raise("CONNECTION_CLOSED", reason=f"goodbye: {reason}")
        self._is_over = True
        with contextlib.suppress(OSError):
            await self._send(GoodbyeAccepted())

    async def _command_done(self, result: CommandResult) -> None:
        command = await self._runtime.store.acknowledge_command(
            result.command_id,
            result.outcome,
            result.detail,
            client=self.client,
            now_us=now_us(),
            audit=acknowledgement_draft,
        )
        if command is not None:
            self._command_told(command)

    async def _settle_stops(self, detail: str) -> None:
        # The lock: a command that has just been sent is not noted as delivered before it is free.
        async with self._sending:
            settled = await settle_stops(self._runtime.store, self.client, now_us(), detail)
        for command in settled:
            self._command_told(command)

    def _command_told(self, command: QueuedCommand) -> None:
        self._raise_for_client(
            "COMMAND_ACKNOWLEDGED",
            command=command.verb,
            command_id=command.id,
            outcome=command.outcome or "",
            detail=command.detail or "",
            user=command.user,
            request=command.request,
        )

    async def _proposal_begins(self, begin: ProposalBegin) -> None:
        if self._proposal is not None:
            raise RemoteProtocolError("a second proposal began before the first one ended")
        self._unwanted_bytes = None
        wait_s = self._runtime.throttle.proposal_wait_s(self.client)
        if wait_s:
            # Told by the throttle, once: an event for each would be a record that never expires.
            await self._send_refusal(
                f"there were too many proposals; try again in {math.ceil(wait_s)} s"
            )
            return
        try:
            self._proposal = await ProposalTransfer.open(self._runtime, self.client, begin)
        except StorageError as error:
            await self._refuse_proposal(str(error))

    async def _proposal_goes_on(self, chunk: ProposalChunk) -> None:
        if self._unwanted_bytes is not None:
            # Sent before it was known there that nobody wants it.
            self._unwanted_bytes += len(chunk.data)
            if self._unwanted_bytes > _UNWANTED_BYTES_MAX:
                raise RemoteProtocolError("a refused proposal goes on")
            return
        transfer = self._open_proposal()
        try:
            await transfer.take(chunk)
        except StorageError as error:
            self._proposal = None
            await transfer.abandon()
            await self._refuse_proposal(str(error))

    async def _proposal_ends(self, end: ProposalEnd) -> None:
        if self._unwanted_bytes is not None:
            self._unwanted_bytes = None
            return
        transfer = self._open_proposal()
        self._proposal = None
        await self._send(await transfer.finish(end))

    async def _refuse_proposal(self, reason: str) -> None:
        self._raise_for_client("PROPOSAL_REFUSED", reason=reason)
        await self._send_refusal(reason)

    async def _send_refusal(self, reason: str) -> None:
        self._unwanted_bytes = 0
        await self._send(ProposalRefused(reason))

    async def _begin_transfer(self, kind: FileKind) -> None:
        """Send a file beside everything else that the connection carries; one at a time."""
        if self._transfer is not None:
            await asyncio.wait((self._transfer,))
        self._transfer = asyncio.get_running_loop().create_task(self._send_file(kind))
        self._transfer.add_done_callback(self._transfer_ended)

    def _transfer_ended(self, transfer: asyncio.Task[None]) -> None:
        if not transfer.cancelled() and transfer.exception() is not None:
            # A bug. The task that receives wakes up, and tells it.
            self._wire.abort()

    async def _end_transfer(self) -> None:
        """Stop sending a file.

        Raises:
            Exception: what had ended it, if that was a bug.
        """
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            transfer.cancel()
            await asyncio.wait((transfer,))
            if not transfer.cancelled() and (error := transfer.exception()) is not None:
                raise error

    async def _send_file(self, kind: FileKind) -> None:
        try:
            await send_file(self._send, self._runtime, self.client, kind)
        except OSError as error:
            # The task that receives is told, and tells it. One that has ended for a reason of ours
            # has something to say still.
            if not self._is_over:
                self._wire.abort(error)
        except StorageError as error:
            self._runtime.journal.store_failed(error)
            self._wire.abort()

    def _is_heard(self, session: Session) -> bool:
        """False where it makes no difference any more what came on this connection."""
        return not self._wire.is_lost and self._runtime.sessions.is_current(session)

    def _open_proposal(self) -> ProposalTransfer:
        if self._proposal is None:
            raise RemoteProtocolError("a piece of a proposal came, but none had begun")
        return self._proposal

    async def _send(self, message: Message) -> None:
        async with self._sending:
            await self._wire.send(message)

    async def _refuse(self, code: RefusalCode, detail: str = "") -> None:
        self._wire.connection.refuse(code, detail)
        await self._end_after_flush()

    async def _end_after_flush(self) -> None:
        self._is_over = True
        await self._wire.flush()

    def _raise(self, code: str, **fields: str) -> None:
        self._runtime.journal.raise_event(
            code, None, client=self.client, peer=self._wire.peer, **fields
        )

    def _raise_for_client(self, code: str, **fields: FieldValue) -> None:
        self._runtime.journal.raise_event(code, None, client=self.client, **fields)
