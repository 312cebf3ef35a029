"""What the two ends of a connection have in common: frames, sealing, and how everything ends."""

from collections.abc import Collection
from typing import Final, Generic, TypeVar

from needfire_protocol.connection_events import Closed, ConnectionEvent, Established, Failed
from needfire_protocol.errors import FormatError, LocalProtocolError, RemoteProtocolError
from needfire_protocol.framing import Frame, FrameReader
from needfire_protocol.handshake import Outcome
from needfire_protocol.keys import SessionKeys
from needfire_protocol.message_coding import MessageTables, decode_message, encode_message
from needfire_protocol.messages import Message
from needfire_protocol.seal import Direction, Opener, Sealer, Suite
from needfire_protocol.states import AgentState, Machine, ServerState

__all__ = ["SUITES", "VERSIONS", "Connection", "MalformedMessageError", "check_suites"]

VERSIONS: Final = (1,)
"""The protocol versions that this code speaks."""
SUITES: Final = (int(Suite.CHACHA20_POLY1305), int(Suite.AES_256_GCM))
"""The suites that this code has, best first."""

_KNOWN_SUITES: Final = frozenset(SUITES)
_FROM_SERVER: Final = Direction.SERVER_TO_AGENT

_State = TypeVar("_State", bound=AgentState | ServerState)


class MalformedMessageError(RemoteProtocolError):
    """An authentic record holds what is no message: the peer itself is wrong, not the network."""


class Connection(Generic[_State]):
    """What both sides have in common: frames, sealing, and how everything ends."""

    # A server holds thousands of them.
    __slots__ = (
        "_keys",
        "_machine",
        "_open_state",
        "_opener",
        "_out",
        "_reader",
        "_receivable",
        "_receive_direction",
        "_sealer",
        "_send_direction",
        "_sendable",
        "_untold",
    )

    def __init__(
        self,
        machine: Machine[_State],
        open_state: _State,
        *,
        sends: tuple[Direction, MessageTables],
        receives: tuple[Direction, MessageTables],
    ) -> None:
        self._machine = machine
        self._open_state = open_state
        self._send_direction, self._sendable = sends
        self._receive_direction, self._receivable = receives
        self._reader = FrameReader()
        self._out = bytearray()
        self._keys: SessionKeys | None = None
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        self._untold: list[ConnectionEvent] = []

    @property
    def is_open(self) -> bool:
        """True while messages can be sent."""
        return self._machine.state is self._open_state

    @property
    def is_closed(self) -> bool:
        """True once nothing can come or go any more, but for ``data_to_send``."""
        return self._machine.is_closed

    @property
    def keys(self) -> SessionKeys | None:
        """The session's keys, from ``Established`` on and beyond the end of the connection."""
        return self._keys

    @property
    def records_left(self) -> int:
        """Messages that may still be sent; an owner that comes near 0 connects again."""
        return 0 if self._sealer is None else self._sealer.records_left

    def data_to_send(self) -> bytes:
        """Return the bytes that wait to be sent, and forget them."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def receive_data(self, data: bytes) -> list[ConnectionEvent]:
        """Take bytes of the peer and return what they mean. Never raises on what they hold."""
        events = self.untold()
        reader, machine = self._reader, self._machine
        if machine.is_closed:
            return events
        reader.feed(data)
        try:
            # Whatever closes the connection leaves nothing to be read.
            while frame := reader.next_frame(machine.allowed_frames()):
                events += self._on_frame(frame)
        except RemoteProtocolError as error:
            events.append(self._fail(error))
        return events

    def untold(self) -> list[ConnectionEvent]:
        """Return what went wrong while an answer of ours was made, once; bytes of the peer can wait."""
        events, self._untold = self._untold, []
        return events

    def receive_eof(self) -> list[ConnectionEvent]:
        """Take the end of the stream: ``Closed`` between frames, ``Failed`` inside of one.

        There is always at least one event, so an owner that loops over events comes to an end.
        """
        if events := self.untold():
            return events
        if self._reader.buffered_bytes:
            return [self._fail(RemoteProtocolError("the stream ended inside a frame"))]
        self.close()
        return [Closed()]

    def send(self, message: Message) -> None:
        """Seal a message and append it to ``data_to_send``.

        Raises:
            LocalProtocolError: the connection is not open, the message is not ours to send or
                holds what its fields do not allow, or the traffic key is worn out.
        """
        if self._sealer is None or not self.is_open:
            raise LocalProtocolError("a message can be sent on an open connection only")
        if type(message) not in self._sendable:
            raise LocalProtocolError(f"{type(message).__name__} is not ours to send")
        try:
            encoded = encode_message(message)
        except FormatError as error:
            raise LocalProtocolError(f"{type(message).__name__}: {error}") from error
        self._out += self._sealer.seal(encoded)

    def close(self) -> None:
        """Await nothing any more. What waits to be sent can still be sent."""
        self._machine.close()
        self._reader.clear()
        self._sealer = self._opener = None
        self._forget_handshake()

    def _forget_handshake(self) -> None:
        """Drop passwords, exponents and big numbers as soon as they have served."""
        raise NotImplementedError

    def _on_frame(self, frame: Frame) -> list[ConnectionEvent]:
        raise NotImplementedError

    def _fail(self, error: RemoteProtocolError) -> Failed:
        self.close()
        # Without the frames that it went through, and without what it came of, which has them too: they
        # hold the owner that is told of it, and with it everything that the connection has.
        error.__cause__ = error.__context__ = None
        return Failed(error.with_traceback(None))

    def _establish(self, outcome: Outcome, *, resumed: bool) -> Established:
        keys, traffic = outcome.keys, outcome.traffic
        sent, received = traffic.agent, traffic.server
        if self._send_direction is _FROM_SERVER:
            sent, received = received, sent
        self._sealer = Sealer(keys.suite, sent, self._send_direction)
        self._opener = Opener(keys.suite, received, self._receive_direction)
        self._keys = keys
        self._forget_handshake()
        return Established(keys, resumed)

    def _open(self, frame: Frame) -> Message:
        assert self._opener is not None
        opened = self._opener.open(frame)
        try:
            return decode_message(opened, self._receivable)
        except FormatError as error:
            raise MalformedMessageError(f"a message is malformed: {error}") from error


def check_suites(suites: Collection[int]) -> None:
    """What is offered must be there when the other side chooses it."""
    if not _KNOWN_SUITES.issuperset(suites):
        raise LocalProtocolError(f"only the suites {SUITES} exist")
