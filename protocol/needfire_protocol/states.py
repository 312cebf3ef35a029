"""What may come in which state, and which state follows: two tables, one for each side.

All that changes the state of a connection is in this file. A state says what is awaited; a step
is a frame that came (``FrameType``) or an answer that the owner gave (``Answer``). A pair that is
in no table is not allowed. Every state but ``CLOSED`` can be left for ``CLOSED`` at any time.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, Generic, TypeAlias, TypeVar

from needfire_protocol.errors import LocalProtocolError
from needfire_protocol.framing import FrameType

__all__ = [
    "AGENT_TRANSITIONS",
    "SERVER_TRANSITIONS",
    "AgentState",
    "Answer",
    "Machine",
    "ServerState",
    "Step",
]


class AgentState(Enum):
    """What an agent's connection waits for."""

    # One object each; asked for several times a frame, and Enum's own hash is slow.
    __hash__ = object.__hash__

    AWAIT_CHALLENGE = "the server's challenge"
    AWAIT_CONFIRMATION = "the server's confirmation"
    AWAIT_RESUMPTION_ANSWER = "the server's answer to the resumption"
    OPEN = "messages"
    CLOSED = "nothing"


class ServerState(Enum):
    """What a server's connection waits for."""

    __hash__ = object.__hash__

    AWAIT_FIRST_FRAME = "a hello or a resumption"
    AWAIT_VERIFIER = "our owner's verifier"
    AWAIT_PROOF = "the agent's proof"
    AWAIT_VERIFICATION = "our owner to verify the proof"
    AWAIT_SESSION = "our owner's session keys"
    AWAIT_RESUMPTION_PROOF = "the agent's proof for the resumption"
    OPEN = "messages"
    CLOSED = "nothing"


class Answer(Enum):
    """What the owner of a server's connection decided."""

    __hash__ = object.__hash__

    CHALLENGE = "challenge"
    CONFIRM = "verify_proof, and the proof was right"
    RESUME = "resume"


Step: TypeAlias = FrameType | Answer

AGENT_TRANSITIONS: Final[Mapping[tuple[AgentState, Step], AgentState]] = MappingProxyType(
    {
        (AgentState.AWAIT_CHALLENGE, FrameType.CHALLENGE): AgentState.AWAIT_CONFIRMATION,
        (AgentState.AWAIT_CHALLENGE, FrameType.REFUSAL): AgentState.CLOSED,
        (AgentState.AWAIT_CONFIRMATION, FrameType.CONFIRMATION): AgentState.OPEN,
        (AgentState.AWAIT_CONFIRMATION, FrameType.REFUSAL): AgentState.CLOSED,
        (AgentState.AWAIT_RESUMPTION_ANSWER, FrameType.RESUMPTION_ANSWER): AgentState.OPEN,
        (AgentState.AWAIT_RESUMPTION_ANSWER, FrameType.REFUSAL): AgentState.CLOSED,
        (AgentState.OPEN, FrameType.SEALED): AgentState.OPEN,
    }
)

SERVER_TRANSITIONS: Final[Mapping[tuple[ServerState, Step], ServerState]] = MappingProxyType(
    {
        (ServerState.AWAIT_FIRST_FRAME, FrameType.HELLO): ServerState.AWAIT_VERIFIER,
        (ServerState.AWAIT_VERIFIER, Answer.CHALLENGE): ServerState.AWAIT_PROOF,
        (ServerState.AWAIT_PROOF, FrameType.PROOF): ServerState.AWAIT_VERIFICATION,
        (ServerState.AWAIT_VERIFICATION, Answer.CONFIRM): ServerState.OPEN,
        (ServerState.AWAIT_FIRST_FRAME, FrameType.RESUME): ServerState.AWAIT_SESSION,
        (ServerState.AWAIT_SESSION, Answer.RESUME): ServerState.AWAIT_RESUMPTION_PROOF,
        (ServerState.AWAIT_RESUMPTION_PROOF, FrameType.RESUMPTION_PROOF): ServerState.OPEN,
        (ServerState.OPEN, FrameType.SEALED): ServerState.OPEN,
    }
)

_FRAMES: Final = {
    state: frozenset(
        step
        for transitions in (AGENT_TRANSITIONS, SERVER_TRANSITIONS)
        for origin, step in transitions
        if origin is state and isinstance(step, FrameType)
    )
    for state in (*AgentState, *ServerState)
}

_State = TypeVar("_State", bound=AgentState | ServerState)


class Machine(Generic[_State]):
    """The state of one connection."""

    __slots__ = ("_closed", "_state", "_transitions")

    def __init__(
        self,
        initial: _State,
        transitions: Mapping[tuple[_State, Step], _State],
        closed: _State,
    ) -> None:
        self._state = initial
        self._transitions = transitions
        self._closed = closed

    @property
    def state(self) -> _State:
        """What is awaited now."""
        return self._state

    @property
    def is_closed(self) -> bool:
        """True once nothing is awaited any more."""
        return self._state is self._closed

    def allowed_frames(self) -> frozenset[FrameType]:
        """Types of the frames that may come now."""
        return _FRAMES[self._state]

    def advance(self, step: Step) -> None:
        """Go to the state that follows.

        Raises:
            LocalProtocolError: the step is not allowed now. For frames the reader has refused it
                before, so this is always a bug of ours or of the owner.
        """
        following = self._transitions.get((self._state, step))
        if following is None:
            raise LocalProtocolError(
                f"{step.name} is not allowed while {self._state.value} is awaited"
            )
        self._state = following

    def close(self) -> None:
        """Await nothing any more; allowed at any time."""
        self._state = self._closed
