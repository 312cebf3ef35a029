"""What agent and server say to each other once a session is open.

``message_coding.py`` says how each is written. All of it travels sealed (``seal.py``), so who reads
a message knows who wrote it.
"""

from enum import IntEnum
from typing import Any, Final, TypeAlias

from needfire_protocol.file_kind import FileKind
from needfire_protocol.plain_classes import dataclass

__all__ = [
    "EVENT_REPORT",
    "FEATURE_AUDIT",
    "RELAYED_REPORT",
    "Acknowledge",
    "AgentMessage",
    "Announce",
    "AuditCheckpoint",
    "AuditProof",
    "AuditProofRequest",
    "Command",
    "CommandResult",
    "FileBegin",
    "FileChunk",
    "FileEnd",
    "FileKind",
    "FileRefused",
    "FileRequest",
    "Goodbye",
    "GoodbyeAccepted",
    "Heartbeat",
    "Message",
    "ProposalAccepted",
    "ProposalBegin",
    "ProposalChunk",
    "ProposalEnd",
    "ProposalRefused",
    "Refusal",
    "RefusalCode",
    "Report",
    "ReportBatch",
    "ServerMessage",
    "SessionExpired",
    "Welcome",
    "received_report",
]

EVENT_REPORT: Final = 1
"""Type of a report whose body is an encoded event."""
RELAYED_REPORT: Final = 2
"""Type of a report that a server passes on for others (``relayed.py``); only who announced itself
in mode ``relay``, and may, sends it. Its numbers rise, but need not follow on each other."""


FEATURE_AUDIT: Final = 1
"""Bit of the features: both sides know the three messages about the server's audit log."""


class RefusalCode(IntEnum):
    """Why the server ends a connection; the numbers go on the wire."""

    AUTHENTICATION_FAILED = 1
    """Wrong name or wrong password: always the same bytes, so that nobody learns which."""
    SESSION_UNKNOWN = 2
    """The session to resume is not known (any more): negotiate a new one."""
    SESSION_SUPERSEDED = 3
    """A newer session of the same client replaced this one (documented state 7)."""
    SESSION_IN_USE = 4
    """Another agent of the same client is connected, and takeover was not asked for."""
    PROTOCOL = 5
    """What was received is not allowed here, or there is no common version or suite."""
    BUSY = 6
    ACCESS = 7
    INTERNAL = 8


# ---- agent to server ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Announce:
    """First message of an agent on each connection: who is speaking, since when."""

    instance: bytes
    """16 random bytes, drawn when the process starts."""
    boot_id: str
    started_us: int
    version: str
    mode: str
    """``run``, ``init``, ``check`` or ``update``; ``relay`` for a server that passes reports on."""
    prior_exit_pending: bool
    """The process before this one said goodbye, but the server has not confirmed that it heard."""


@dataclass(frozen=True, slots=True)
class Report:
    """One thing to keep, signed on its own (``keys.sign_report``)."""

    sequence: int
    """From 1, without gaps within its stream."""
    type: int
    body: bytes
    signature: bytes


class _UnsealedReport:
    """A report before it refuses to be changed, which is most of the work of making it."""

    __slots__ = Report.__match_args__

    def __init__(self, sequence: int, type: int, body: bytes, signature: bytes) -> None:
        self.sequence = sequence
        self.type = type
        self.body = body
        self.signature = signature


def received_report(sequence: int, type: int, body: bytes, signature: bytes) -> Report:
    """Return a report, for those who make thousands of them in a second."""
    made: Any = _UnsealedReport(sequence, type, body, signature)
    made.__class__ = Report
    report: Report = made
    return report


@dataclass(frozen=True, slots=True)
class ReportBatch:
    """Reports of one stream, in ascending sequence; the server makes all of them durable or none."""

    stream: bytes
    """16 random bytes, drawn when the spool is made: a new spool counts from 1 again."""
    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The agent lives; how much it still has to deliver."""

    time_us: int
    spool_reports: int
    spool_oldest_us: int | None


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The agent is going to stop (``exit``) or to pause (``suspend``): its silence is meant."""

    reason: str


@dataclass(frozen=True, slots=True)
class FileRequest:
    """Asks for the file of a kind that belongs to this client."""

    kind: FileKind


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What became of a command."""

    command_id: int
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class ProposalBegin:
    """A baseline follows, as a proposal; it replaces nothing by itself."""

    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class ProposalChunk:
    """The next bytes of the proposal."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ProposalEnd:
    """All bytes of the proposal were sent."""


@dataclass(frozen=True, slots=True)
class AuditProofRequest:
    """Asks for the proof that the audit log of ``old`` records is the beginning of that of ``new``."""

    old: int
    new: int


# ---- server to agent ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """Answer to ``Announce``."""

    server_time_us: int
    session_lifetime_s: int
    """Seconds from now after which this session's keys are not accepted any more."""


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Every report of the stream up to this sequence is durable; the agent may forget it."""

    stream: bytes
    sequence: int


@dataclass(frozen=True, slots=True)
class FileBegin:
    """The file that was asked for follows."""

    kind: FileKind
    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class FileChunk:
    """The next bytes of the file."""

    data: bytes


@dataclass(frozen=True, slots=True)
class FileEnd:
    """All bytes of the file were sent."""


@dataclass(frozen=True, slots=True)
class FileRefused:
    """There is no such file for this client, or it cannot be read."""

    kind: FileKind


@dataclass(frozen=True, slots=True)
class Command:
    """What an administrator wants the agent to do; delivered until it is answered."""

    command_id: int
    verb: str


@dataclass(frozen=True, slots=True)
class GoodbyeAccepted:
    """The server has noted the goodbye: the next start is not documented state 8."""


@dataclass(frozen=True, slots=True)
class ProposalAccepted:
    """The proposal is stored and waits for an administrator."""

    proposal_id: int


@dataclass(frozen=True, slots=True)
class ProposalRefused:
    """The proposal was not stored."""

    reason: str


@dataclass(frozen=True, slots=True)
class SessionExpired:
    """This session's keys are too old: negotiate new ones. Nothing is lost."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The server ends the connection after this; the agent's owner gets ``Refused``."""

    code: RefusalCode
    detail: str


@dataclass(frozen=True, slots=True)
class AuditCheckpoint:
    """The latest checkpoint of the server's audit log, for the agent to keep (docs/audit.md)."""

    note: bytes
    key: bytes
    """The public key that signed it, as text."""
    handovers: tuple[bytes, ...]
    """The notes by which each earlier key named its successor, the latest last."""


@dataclass(frozen=True, slots=True)
class AuditProof:
    """The answer to ``AuditProofRequest``; without hashes where the server cannot prove it."""

    old: int
    new: int
    hashes: tuple[bytes, ...]


AgentMessage: TypeAlias = (
    Announce
    | ReportBatch
    | Heartbeat
    | Goodbye
    | FileRequest
    | CommandResult
    | ProposalBegin
    | ProposalChunk
    | ProposalEnd
    | AuditProofRequest
)
ServerMessage: TypeAlias = (
    Welcome
    | Acknowledge
    | FileBegin
    | FileChunk
    | FileEnd
    | FileRefused
    | Command
    | GoodbyeAccepted
    | ProposalAccepted
    | ProposalRefused
    | SessionExpired
    | Refusal
    | AuditCheckpoint
    | AuditProof
)
Message: TypeAlias = AgentMessage | ServerMessage
