"""How a message is written: one byte of kind, one of the kind's version, the array of its fields.

The tables are the whole of it: encoder and decoder read the same ones.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from needfire_protocol.errors import FormatError
from needfire_protocol.fields import (
    TIME_US,
    UNSIGNED_32,
    UNSIGNED_64,
    Binary,
    Boolean,
    Choice,
    Detail,
    Integer,
    Optional,
    RecordTable,
    Several,
    Word,
    pack_fields,
    unpack_fields,
)
from needfire_protocol.limits import (
    AUDIT_HANDOVERS_MAX,
    AUDIT_KEY_BYTES_MAX,
    AUDIT_NOTE_BYTES_MAX,
    AUDIT_PROOF_HASHES_MAX,
    CHUNK_BYTES_MAX,
    MESSAGE_DECODING,
    REPORT_BATCH_BYTES_MAX,
    REPORT_BODY_BYTES_MAX,
    REPORT_OVERHEAD_BYTES_MAX,
    REPORTS_PER_BATCH_MAX,
    TRANSFER_BYTES_MAX,
)
from needfire_protocol.messages import (
    EVENT_REPORT,
    Acknowledge,
    Announce,
    AuditCheckpoint,
    AuditProof,
    AuditProofRequest,
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
    Refusal,
    RefusalCode,
    Report,
    ReportBatch,
    SessionExpired,
    Welcome,
    received_report,
)
from needfire_protocol.plain_classes import dataclass

__all__ = [
    "AGENT_MESSAGES",
    "MESSAGE_KINDS",
    "SERVER_MESSAGES",
    "MessageTables",
    "decode_message",
    "encode_message",
]

MessageTables: TypeAlias = Mapping[type[Any], RecordTable]
"""Which messages there are, and the fields of each, in wire order."""

_ID_16: Final = Binary(16)
_DIGEST: Final = Binary(32)
_SEQUENCE: Final = Integer(1, 2**63 - 1)
_ROW_ID: Final = Integer(1, 2**63 - 1)
_SIZE: Final = Integer(0, TRANSFER_BYTES_MAX)
_CHUNK: Final = Binary(1, CHUNK_BYTES_MAX)
_TREE_SIZE: Final = Integer(1, 2**63 - 1)
_NOTE: Final = Binary(1, AUDIT_NOTE_BYTES_MAX)
_FILE_KIND: Final = Choice(FileKind)

_REPORT_PARTS: Final = 4
_REPORT_TYPE: Final = Integer(1, 255)
_REPORT_BODY: Final = Binary(1, REPORT_BODY_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class _Reports:
    """One to 500 reports in ascending sequence that fit a frame together."""

    def pack(self, value: tuple[Report, ...]) -> list[list[object]]:
        return [[r.sequence, r.type, r.body, r.signature] for r in value]

    def unpack(self, value: object) -> tuple[Report, ...]:
        if type(value) is not list or not 1 <= len(value) <= REPORTS_PER_BATCH_MAX:
            raise FormatError(f"expected an array of 1 to {REPORTS_PER_BATCH_MAX} reports")
        reports = []
        before = size = 0
        for item in value:
            if type(item) is not list or len(item) != _REPORT_PARTS:
                raise FormatError(f"a report is not an array of {_REPORT_PARTS}")
            sequence, type_, body, signature = item
            # Each field by its own kind, but only where it is not what it nearly always is: these
            # lines run once for each report.
            if type(sequence) is not int or not 1 <= sequence <= _SEQUENCE.most:
                _SEQUENCE.unpack(sequence)
            if type_ is not EVENT_REPORT:
                _REPORT_TYPE.unpack(type_)
            if type(body) is not bytes or not 1 <= len(body) <= REPORT_BODY_BYTES_MAX:
                _REPORT_BODY.unpack(body)
            if type(signature) is not bytes or len(signature) != _DIGEST.least:
                _DIGEST.unpack(signature)
            if sequence <= before:
                raise FormatError("reports are not in ascending sequence")
            before = sequence
            size += len(body) + REPORT_OVERHEAD_BYTES_MAX
            reports.append(received_report(sequence, type_, body, signature))
        if size > REPORT_BATCH_BYTES_MAX:
            raise FormatError(
                f"reports of {size} bytes exceed the limit of {REPORT_BATCH_BYTES_MAX}"
            )
        return tuple(reports)


AGENT_MESSAGES: Final[MessageTables] = {
    Announce: {
        "instance": _ID_16,
        "boot_id": Word(),
        "started_us": TIME_US,
        "version": Word(),
        "mode": Choice(frozenset({"run", "init", "check", "update", "relay"})),
        "prior_exit_pending": Boolean(),
    },
    ReportBatch: {"stream": _ID_16, "reports": _Reports()},
    Heartbeat: {
        "time_us": TIME_US,
        "spool_reports": UNSIGNED_64,
        "spool_oldest_us": Optional(TIME_US),
    },
    Goodbye: {"reason": Choice(frozenset({"exit", "suspend"}))},
    FileRequest: {"kind": _FILE_KIND},
    CommandResult: {"command_id": _ROW_ID, "outcome": Word(), "detail": Detail()},
    ProposalBegin: {"size_bytes": _SIZE, "sha256": _DIGEST},
    ProposalChunk: {"data": _CHUNK},
    ProposalEnd: {},
    AuditProofRequest: {"old": _TREE_SIZE, "new": _TREE_SIZE},
}
"""What an agent may say: the fields of each message, in wire order."""

SERVER_MESSAGES: Final[MessageTables] = {
    Welcome: {"server_time_us": TIME_US, "session_lifetime_s": UNSIGNED_32},
    Acknowledge: {"stream": _ID_16, "sequence": UNSIGNED_64},
    FileBegin: {"kind": _FILE_KIND, "size_bytes": _SIZE, "sha256": _DIGEST},
    FileChunk: {"data": _CHUNK},
    FileEnd: {},
    FileRefused: {"kind": _FILE_KIND},
    Command: {"command_id": _ROW_ID, "verb": Choice(frozenset({"reload", "scan", "stop"}))},
    GoodbyeAccepted: {},
    ProposalAccepted: {"proposal_id": _ROW_ID},
    ProposalRefused: {"reason": Detail()},
    SessionExpired: {},
    Refusal: {"code": Choice(RefusalCode), "detail": Detail()},
    AuditCheckpoint: {
        "note": _NOTE,
        "key": Binary(1, AUDIT_KEY_BYTES_MAX),
        "handovers": Several(_NOTE, AUDIT_HANDOVERS_MAX),
    },
    AuditProof: {
        "old": _TREE_SIZE,
        "new": _TREE_SIZE,
        "hashes": Several(_DIGEST, AUDIT_PROOF_HASHES_MAX),
    },
}
"""What a server may say: the fields of each message, in wire order."""

_VERSION: Final = 1

MESSAGE_KINDS: Final[dict[type[Any], int]] = {
    **{message: number for number, message in enumerate(AGENT_MESSAGES, 0x01)},
    **{message: number for number, message in enumerate(SERVER_MESSAGES, 0x41)},
}
"""First byte of each message: the agent's from 0x01, the server's from 0x41."""

_BY_KIND: Final = {number: message for message, number in MESSAGE_KINDS.items()}
_TABLES: Final = {**AGENT_MESSAGES, **SERVER_MESSAGES}


def encode_message(message: Message) -> bytes:
    """Return the bytes of a message, ready to be sealed.

    Raises:
        FormatError: a field holds what its table does not allow.
    """
    kind = type(message)
    body = pack_fields(message, _TABLES[kind], MESSAGE_DECODING)
    return bytes((MESSAGE_KINDS[kind], _VERSION)) + body


def decode_message(data: bytes, allowed: MessageTables) -> Message:
    """Return the message of opened bytes, if it is one of those that the sender may send.

    Raises:
        FormatError: it is none of them, or not well formed.
    """
    if len(data) < 2:
        raise FormatError("a message has less than two bytes")
    kind = _BY_KIND.get(data[0])
    if kind is None or kind not in allowed:
        raise FormatError(f"message kind {data[0]:#04x} is not allowed here")
    if data[1] != _VERSION:
        raise FormatError(f"{kind.__name__} has version {data[1]}, expected {_VERSION}")
    fields = unpack_fields(data[2:], allowed[kind], MESSAGE_DECODING)
    message: Message = kind(*fields)
    return message
