"""What goes on record: which events of the server, and how a batch, an act or a command is told."""

import hashlib
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Final

from needfire_protocol.audit.record import Draft
from needfire_protocol.catalogue import is_success
from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.event import Event, FieldValue
from needfire_protocol.messages import Report
from needfire_protocol.severity import Severity
from needfire_server.storage.base import Command, IngestResult

__all__ = [
    "acknowledgement_draft",
    "batch_digest",
    "draft_of",
    "draft_of_event",
    "has_record",
    "reports_draft",
]

_RECORDED_ELSEWHERE: Final = frozenset(
    {
        # By the transaction that does what they tell of.
        "COMMAND_ACKNOWLEDGED",
        "BASELINE_PROPOSAL_RECEIVED",
        "VERIFIERS_SEALED",
        "SEAL_KEY_CHANGED",
        "SEAL_KEY_LOST",
        "AUDIT_KEY_HANDED_OVER",
        # What anybody can cause with a port scanner, and what only tells of logs.
        "NEW_CONNECTION",
        "LOG_SUPPRESSED",
    }
)


def has_record(code: str, event_class: EventClass) -> bool:
    """True where events of the server's own with this code are recorded, wanted in the log or not."""
    return code not in _RECORDED_ELSEWHERE and event_class is not EventClass.INTEGRITY


def draft_of_event(event: Event) -> Draft | None:
    """Return the record of one of the server's own events; None where it has none."""
    if event.client is not None or not has_record(event.code, event.event_class):
        return None
    return draft_of(event.code, event.severity, dict(event.fields))


def draft_of(code: str, severity: Severity, fields: dict[str, FieldValue]) -> Draft:
    """Return the record of one of the server's own events, without the event.

    Args:
        fields: the event's, printable; they are taken over.
    """
    client, user = _text(fields.pop("client", None)), _text(fields.pop("user", None))
    request = _text(fields.pop("request", None))
    succeeded = is_success(code, severity, fields.get("outcome"))
    return Draft(code, succeeded, user or client, client or None, request or None, fields)


def reports_draft(
    client: str, stream: bytes, reports: Sequence[Report], result: IngestResult
) -> Draft | None:
    """Return the record of a batch of reports that arrived; None where all of it had come before.

    An agent may send the same again as often as it likes, and honest ones do where a line is bad.
    """
    if not result.accepted and not result.unusable:
        return None
    fields: Mapping[str, FieldValue] = {
        "stream": stream.hex(),
        "first": reports[0].sequence,
        "last": reports[-1].sequence,
        "count": len(reports),
        "accepted": len(result.accepted),
        "sha256": batch_digest(reports),
    }
    return Draft("REPORTS_RECEIVED", True, client, client, None, fields)


def acknowledgement_draft(command: Command | None) -> Draft | None:
    """Return the record of what a client did with a command; None where there was none."""
    if command is None:
        return None
    return Draft(
        "COMMAND_ACKNOWLEDGED",
        subject=command.client,
        client=command.client,
        request=command.request,
        fields={"command": command.verb, "command_id": command.id, "outcome": command.outcome},
    )


def batch_digest(reports: Sequence[Report]) -> str:
    """Return SHA-256, in hex, over each body behind its length in 4 bytes, big-endian."""
    # One at a time: beyond 2,047 bytes Python's lock is given away, and a busy loop has it for 5 ms.
    digest = hashlib.sha256()
    for report in reports:
        body = report.body
        digest.update(_IN_4_BYTES(len(body)) + body)
    return digest.hexdigest()


_IN_4_BYTES: Final = Struct(">I").pack


def _text(value: FieldValue) -> str:
    return value if isinstance(value, str) else ""
