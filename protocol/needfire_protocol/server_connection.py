"""The server's end of a connection. ``connection.py`` says how to use it."""

from collections.abc import Callable
from typing import Final

from needfire_protocol.connection_base import (
    SUITES,
    VERSIONS,
    Connection,
    MalformedMessageError,
    check_suites,
)
from needfire_protocol.connection_events import (
    AuthenticationFailed,
    AuthenticationFailure,
    ConnectionEvent,
    Failed,
    MessageReceived,
    NegotiationRequested,
    ProofReceived,
    ResumptionRequested,
    SignatureInvalid,
)
from needfire_protocol.errors import LocalProtocolError, RemoteProtocolError
from needfire_protocol.framing import Frame, FrameType
from needfire_protocol.handshake import AUTHENTICATION_REFUSAL, plain_refusal
from needfire_protocol.keys import ReportVerifier, SessionKeys
from needfire_protocol.message_coding import AGENT_MESSAGES, SERVER_MESSAGES
from needfire_protocol.messages import Message, Refusal, RefusalCode, ReportBatch
from needfire_protocol.negotiation import ServerNegotiation
from needfire_protocol.resumption import ServerResumption
from needfire_protocol.seal import Direction
from needfire_protocol.srp import RandomBytes, Verifier, fake_verifier
from needfire_protocol.states import SERVER_TRANSITIONS, Answer, Machine, ServerState

__all__ = ["ServerConnection"]

# Found once: an enumeration takes long to find its own members, and servers make many connections.
_FIRST: Final = ServerState.AWAIT_FIRST_FRAME
_OPEN: Final = ServerState.OPEN
_CLOSED: Final = ServerState.CLOSED
_SENDS: Final = (Direction.SERVER_TO_AGENT, SERVER_MESSAGES)
_RECEIVES: Final = (Direction.AGENT_TO_SERVER, AGENT_MESSAGES)


class ServerConnection(Connection[ServerState]):
    """The server's end."""

    __slots__ = (
        "_fake_salt_key",
        "_features",
        "_negotiation",
        "_random_bytes",
        "_resumption",
        "_suites",
        "_versions",
    )

    def __init__(
        self,
        *,
        random_bytes: RandomBytes,
        fake_salt_key: bytes,
        versions: tuple[int, ...] = VERSIONS,
        suites: tuple[int, ...] = SUITES,
        features: int = 0,
    ) -> None:
        """Wait for an agent.

        Args:
            fake_salt_key: 32 secret bytes that stay the same across restarts: an unknown name
                always gets the same salt, as a known one does.
            suites: best first.
        """
        assert len(fake_salt_key) == 32
        check_suites(suites)
        super().__init__(
            Machine(_FIRST, SERVER_TRANSITIONS, _CLOSED), _OPEN, sends=_SENDS, receives=_RECEIVES
        )
        self._random_bytes = random_bytes
        self._fake_salt_key = fake_salt_key
        self._versions = versions
        self._suites = suites
        self._features = features
        self._negotiation: ServerNegotiation | None = None
        self._resumption: ServerResumption | None = None

    def challenge(self, verifier: Verifier | None, *, name: str | None = None) -> None:
        """Answer ``NegotiationRequested``; about 10 ms, in a thread.

        Args:
            verifier: None for a name that nobody registered; that takes the same steps.
            name: what the owner determined, where it does not believe the agent. It decides which
                salt an unknown name gets.

        Raises:
            LocalProtocolError: nothing was requested.
        """
        negotiation = self._negotiation
        if not self._awaits(ServerState.AWAIT_VERIFIER) or negotiation is None:
            return
        fake = fake_verifier(name or negotiation.name, self._fake_salt_key)
        try:
            frame = negotiation.challenge(verifier, fake=fake, random_bytes=self._random_bytes)
        except RemoteProtocolError as error:
            self._untold.append(self._fail(error))
            return
        if self.is_closed:
            return
        self._machine.advance(Answer.CHALLENGE)
        self._out += frame

    def verify_proof(self) -> list[ConnectionEvent]:
        """Answer ``ProofReceived``; about 16 ms, in a thread.

        Gives ``Established`` or ``AuthenticationFailed``; the latter closes, and the refusal
        waits in ``data_to_send``.

        Raises:
            LocalProtocolError: no proof came.
        """
        negotiation = self._negotiation
        if not self._awaits(ServerState.AWAIT_VERIFICATION) or negotiation is None:
            return []
        try:
            verified = negotiation.verify()
        except RemoteProtocolError as error:
            return [self._fail(error)]
        if self.is_closed:
            return []
        if isinstance(verified, AuthenticationFailure):
            return [self._not_authentic(verified)]
        confirmation, outcome = verified
        self._machine.advance(Answer.CONFIRM)
        self._out += confirmation
        return [self._establish(outcome, resumed=False)]

    def resume(self, keys: SessionKeys) -> None:
        """Answer ``ResumptionRequested`` with the keys of that session.

        ``Established`` follows when the agent has proved that it has them too.

        Raises:
            LocalProtocolError: nothing was requested, or these are the keys of another session.
        """
        if not self._awaits(ServerState.AWAIT_SESSION):
            return
        try:
            assert self._resumption is not None
            frame = self._resumption.answer(keys, random_bytes=self._random_bytes)
        except RemoteProtocolError as error:
            self._untold.append(self._fail(error))
            return
        self._machine.advance(Answer.RESUME)
        self._out += frame

    def refuse_resumption(self, code: RefusalCode, keys: SessionKeys | None) -> None:
        """Answer ``ResumptionRequested`` with a refusal, and close.

        Args:
            code: why.
            keys: of the session, if they are known: the agent can tell then that the refusal is
                the server's own. Without them anybody could have written it.

        Raises:
            LocalProtocolError: nothing was requested, or these are the keys of another session.
        """
        if not self._awaits(ServerState.AWAIT_SESSION):
            return
        assert self._resumption is not None
        self._out += self._resumption.refuse(code, keys)
        self.close()

    def refuse(self, code: RefusalCode, detail: str = "") -> None:
        """End the connection and say why: sealed if it is open, else plain and without detail."""
        if self.is_closed:
            return
        if not self.is_open:
            self._out += plain_refusal(code)
        elif self.records_left:
            super().send(Refusal(code, detail))
        self.close()

    def send(self, message: Message) -> None:
        """Seal a message and append it to ``data_to_send``; a refusal goes by ``refuse``."""
        if isinstance(message, Refusal):
            raise LocalProtocolError("a refusal closes: use refuse")
        super().send(message)

    def _not_authentic(self, reason: AuthenticationFailure) -> AuthenticationFailed:
        self._out += AUTHENTICATION_REFUSAL
        self.close()
        return AuthenticationFailed(reason)

    def _awaits(self, state: ServerState) -> bool:
        """False if the connection ended while its owner was busy."""
        found = self._machine.state
        if found is state:
            return True
        if found is not _CLOSED:
            raise LocalProtocolError(f"{state.value} is not awaited, but {found.value}")
        return False

    def _fail(self, error: RemoteProtocolError) -> Failed:
        # A record that does not open is not answered: whoever sent it has no key to read with.
        if not self.is_open or isinstance(error, MalformedMessageError):
            self.refuse(RefusalCode.PROTOCOL, str(error))
        return super()._fail(error)

    def _forget_handshake(self) -> None:
        self._negotiation = self._resumption = None

    def _on_frame(self, frame: Frame) -> list[ConnectionEvent]:
        return self._HANDLERS[frame.type](self, frame)

    def _on_hello(self, frame: Frame) -> list[ConnectionEvent]:
        self._negotiation = ServerNegotiation(
            frame, versions=self._versions, suites=self._suites, features=self._features
        )
        self._machine.advance(frame.type)
        return [NegotiationRequested(self._negotiation.name, self._negotiation.takeover)]

    def _on_proof(self, frame: Frame) -> list[ConnectionEvent]:
        assert self._negotiation is not None
        self._negotiation.take_proof(frame)
        self._machine.advance(frame.type)
        return [ProofReceived()]

    def _on_resumption_request(self, frame: Frame) -> list[ConnectionEvent]:
        self._resumption = ServerResumption(frame)
        self._machine.advance(frame.type)
        return [ResumptionRequested(self._resumption.session_id)]

    def _on_resumption_proof(self, frame: Frame) -> list[ConnectionEvent]:
        assert self._resumption is not None
        outcome = self._resumption.verify(frame)
        if outcome is None:
            return [self._not_authentic(AuthenticationFailure.WRONG_SESSION_KEY)]
        self._machine.advance(frame.type)
        return [self._establish(outcome, resumed=True)]

    def _on_sealed(self, frame: Frame) -> list[ConnectionEvent]:
        message = self._open(frame)
        self._machine.advance(frame.type)
        if isinstance(message, ReportBatch):
            return [self._verified(message)]
        return [MessageReceived(message)]

    def _verified(self, batch: ReportBatch) -> MessageReceived | SignatureInvalid:
        assert self._keys is not None
        verifier = ReportVerifier(self._keys, batch.stream)
        for report in batch.reports:
            if not verifier.is_signed(report.sequence, report.type, report.body, report.signature):
                self.refuse(RefusalCode.PROTOCOL, "a report's signature does not verify")
                return SignatureInvalid(batch.stream, report.sequence)
        return MessageReceived(batch)

    _HANDLERS: Final[dict[FrameType, "_Handler"]] = {
        FrameType.HELLO: _on_hello,
        FrameType.PROOF: _on_proof,
        FrameType.RESUME: _on_resumption_request,
        FrameType.RESUMPTION_PROOF: _on_resumption_proof,
        FrameType.SEALED: _on_sealed,
    }


_Handler = Callable[[ServerConnection, Frame], list[ConnectionEvent]]
