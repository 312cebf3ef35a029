"""What a connection tells its owner: one class for each thing that can have happened."""

from enum import Enum
from typing import TypeAlias

from needfire_protocol.errors import RemoteProtocolError
from needfire_protocol.keys import SessionKeys
from needfire_protocol.messages import Message, RefusalCode
from needfire_protocol.plain_classes import dataclass

__all__ = [
    "AuthenticationFailed",
    "AuthenticationFailure",
    "Closed",
    "ConnectionEvent",
    "Established",
    "Failed",
    "MessageReceived",
    "NegotiationRequested",
    "ProofReceived",
    "Refused",
    "ResumptionRequested",
    "SignatureInvalid",
]


class AuthenticationFailure(Enum):
    """Why an agent was not accepted. For the server's log only: the agent never learns it."""

    UNKNOWN_NAME = "unknown name"
    WRONG_PASSWORD = "wrong password"  # noqa: S105 -- a reason, not a password
    WRONG_SESSION_KEY = "wrong session key"
    """Of a resumption: someone knows the id of a session, which is no secret, but not its key."""


@dataclass(frozen=True, slots=True)
class NegotiationRequested:
    """Server: an agent asks for a session. Answer with ``challenge``, in a thread.

    Nothing is proved yet: the name is a stranger's claim, in lower case and valid as a name.
    """

    name: str
    takeover: bool
    """The agent asks to replace a session of its name that is in use."""


@dataclass(frozen=True, slots=True)
class ProofReceived:
    """Server: the agent's proof is here. Answer with ``verify_proof``, in a thread."""


@dataclass(frozen=True, slots=True)
class ResumptionRequested:
    """Server: an agent asks to go on with a session. Answer ``resume`` or ``refuse_resumption``."""

    session_id: bytes


@dataclass(frozen=True, slots=True)
class Established:
    """Both: each side has proved itself to the other; messages may be sent."""

    keys: SessionKeys
    resumed: bool


@dataclass(frozen=True, slots=True)
class AuthenticationFailed:
    """Server: the proof was wrong. The refusal is ready to be sent; the connection is closed."""

    reason: AuthenticationFailure


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """Both: an authentic message. The signatures of a batch of reports are verified already."""

    message: Message


@dataclass(frozen=True, slots=True)
class SignatureInvalid:
    """Server: a report's signature does not verify. Its body was not looked at; all is closed."""

    stream: bytes
    sequence: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Agent: the server ends the connection and says why."""

    code: RefusalCode
    detail: str
    """Printable text for people; empty where the refusal is not sealed."""
    authenticated: bool
    """False: anyone on the way can have sent it, so it must not stop an agent for good."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Both: the peer broke the protocol, or somebody tampered with it. The connection is closed."""

    error: RemoteProtocolError


@dataclass(frozen=True, slots=True)
class Closed:
    """Both: the stream ended between two frames. Anyone on the way can cause that."""


ConnectionEvent: TypeAlias = (
    NegotiationRequested
    | ProofReceived
    | ResumptionRequested
    | Established
    | AuthenticationFailed
    | MessageReceived
    | SignatureInvalid
    | Refused
    | Failed
    | Closed
)
