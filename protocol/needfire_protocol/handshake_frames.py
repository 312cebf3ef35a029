"""What the plain frames of a handshake hold, and how each is written.

A body is one byte of the layout's version and the encoded array of the frame's fields. A hello
keeps this layout in every later version of the protocol: it is where versions are offered.
"""

from typing import Any, Final, TypeAlias, TypeVar

from needfire_protocol.errors import FormatError, RemoteProtocolError
from needfire_protocol.fields import (
    UNSIGNED_32,
    Binary,
    Boolean,
    Choice,
    FieldKind,
    Integer,
    Numbers,
    RecordTable,
    pack_fields,
    unpack_fields,
)
from needfire_protocol.framing import Frame, FrameType, frame_bytes
from needfire_protocol.limits import HANDSHAKE_DECODING, OFFERS_MAX, RANDOM_BYTES
from needfire_protocol.messages import RefusalCode
from needfire_protocol.names import parse_client_name
from needfire_protocol.plain_classes import dataclass
from needfire_protocol.srp import PROOF_BYTES, PUBLIC_BYTES, SALT_BYTES

__all__ = [
    "FRAME_TABLES",
    "MAC_BYTES",
    "Challenge",
    "Confirmation",
    "HandshakeFrame",
    "Hello",
    "PlainRefusal",
    "Proof",
    "ResumptionAnswer",
    "ResumptionProof",
    "ResumptionRequest",
    "decode_frame",
    "encode_frame",
]

MAC_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Hello:
    """Agent: opens a negotiation."""

    versions: tuple[int, ...]
    suites: tuple[int, ...]
    features: int
    """Bits of optional behaviour that the agent can do; version 1 defines none."""
    takeover: bool
    name: str
    random: bytes
    public: bytes
    """SRP's A."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """Server: what was chosen of the offers, and SRP's salt and B."""

    version: int
    suite: int
    features: int
    random: bytes
    salt: bytes
    public: bytes


@dataclass(frozen=True, slots=True)
class Proof:
    """Agent: SRP's M, and the finished value over all frames so far."""

    proof: bytes
    finished: bytes


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Server: SRP's H_AMK, and the finished value over all frames so far."""

    proof: bytes
    finished: bytes


@dataclass(frozen=True, slots=True)
class ResumptionRequest:
    """Agent: wants to go on with a session, under the version and suite that it has."""

    version: int
    suite: int
    features: int
    session_id: bytes
    random: bytes


@dataclass(frozen=True, slots=True)
class ResumptionAnswer:
    """Server: proves that it has the session's resumption key."""

    random: bytes
    finished: bytes


@dataclass(frozen=True, slots=True)
class ResumptionProof:
    """Agent: proves that it has the session's resumption key."""

    finished: bytes


@dataclass(frozen=True, slots=True)
class PlainRefusal:
    """Server: ends the connection before it was open."""

    code: RefusalCode
    mac: bytes
    """32 bytes where a session that was to be resumed is known; empty otherwise."""


HandshakeFrame: TypeAlias = (
    Hello
    | Challenge
    | Proof
    | Confirmation
    | ResumptionRequest
    | ResumptionAnswer
    | ResumptionProof
    | PlainRefusal
)


@dataclass(frozen=True, slots=True)
class _ClientName:
    """A valid name of a client, compared in lower case."""

    def pack(self, value: str) -> str:
        return value

    def unpack(self, value: object) -> str:
        if type(value) is not str:
            raise FormatError("expected text")
        return parse_client_name(value)


@dataclass(frozen=True, slots=True)
class _Mac:
    """A MAC, or none."""

    def pack(self, value: bytes) -> bytes:
        return value

    def unpack(self, value: object) -> bytes:
        if type(value) is not bytes or len(value) not in (0, MAC_BYTES):
            raise FormatError(f"expected 0 or {MAC_BYTES} bytes")
        return value


_NUMBER: Final = Integer(1, 255)
_RANDOM: Final = Binary(RANDOM_BYTES)
_PUBLIC: Final = Binary(PUBLIC_BYTES)
_PROOF: Final = Binary(PROOF_BYTES)
_FINISHED: Final = Binary(MAC_BYTES)
_CHOSEN: Final[dict[str, FieldKind]] = {
    "version": _NUMBER,
    "suite": _NUMBER,
    "features": UNSIGNED_32,
}

FRAME_TABLES: Final[dict[type[Any], tuple[FrameType, RecordTable]]] = {
    Hello: (
        FrameType.HELLO,
        {
            "versions": Numbers(OFFERS_MAX),
            "suites": Numbers(OFFERS_MAX),
            "features": UNSIGNED_32,
            "takeover": Boolean(),
            "name": _ClientName(),
            "random": _RANDOM,
            "public": _PUBLIC,
        },
    ),
    Challenge: (
        FrameType.CHALLENGE,
        {**_CHOSEN, "random": _RANDOM, "salt": Binary(SALT_BYTES), "public": _PUBLIC},
    ),
    Proof: (FrameType.PROOF, {"proof": _PROOF, "finished": _FINISHED}),
    Confirmation: (FrameType.CONFIRMATION, {"proof": _PROOF, "finished": _FINISHED}),
    ResumptionRequest: (
        FrameType.RESUME,
        {**_CHOSEN, "session_id": Binary(16), "random": _RANDOM},
    ),
    ResumptionAnswer: (
        FrameType.RESUMPTION_ANSWER,
        {"random": _RANDOM, "finished": _FINISHED},
    ),
    ResumptionProof: (FrameType.RESUMPTION_PROOF, {"finished": _FINISHED}),
    PlainRefusal: (FrameType.REFUSAL, {"code": Choice(RefusalCode), "mac": _Mac()}),
}
"""Type and fields of each frame, in wire order."""

_LAYOUT_VERSION: Final = 1
_LAYOUT: Final = bytes((_LAYOUT_VERSION,))
_Frame = TypeVar("_Frame", bound=HandshakeFrame)


def encode_frame(content: HandshakeFrame) -> bytes:
    """Return the whole frame.

    Raises:
        FormatError: a field holds what its table does not allow.
    """
    frame_type, table = FRAME_TABLES[type(content)]
    fields = pack_fields(content, table, HANDSHAKE_DECODING)
    return frame_bytes(frame_type, _LAYOUT + fields)


def decode_frame(frame: Frame, expected: type[_Frame]) -> _Frame:
    """Return what a plain frame holds.

    Raises:
        RemoteProtocolError: it is not well formed.
    """
    frame_type, table = FRAME_TABLES[expected]
    assert frame.type is frame_type
    if not frame.body.startswith(_LAYOUT):
        raise RemoteProtocolError(
            f"a {frame_type.name} frame has another layout than version {_LAYOUT_VERSION}"
        )
    try:
        fields = unpack_fields(frame.body[1:], table, HANDSHAKE_DECODING)
    except FormatError as error:
        raise RemoteProtocolError(f"a {frame_type.name} frame is malformed: {error}") from error
    return expected(*fields)
