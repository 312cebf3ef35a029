r"""The form ``gordium``: audit events as SafeNet ProtectV Manager sends them to a syslog server.

    Oct 12 07:28:15 192.0.2.1 gordium 2017-10-12 07:28:13 category=<Audit> status=<success> msg=<…> subject=<…> client-name=<none>

The document's samples have blanks between the parts; its table of the form has commas as well, which
``with_commas`` writes. Values are in angle brackets; one of those within a value is ``\x3c`` or
``\x3e``, as in the classic text form. Times are UTC.

The documented words are for the server's own events. What a client reports has its own words, and at
the end ``reported-by``, which no record of the server has.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from needfire_protocol.catalogue import is_success
from needfire_protocol.escape import printable
from needfire_protocol.event import Event

__all__ = ["gordium_line"]

_VALUE_TEXT_MAX: Final = 1_024
_MONTHS: Final = [
    "Jan",
    "Feb",
    "Mar",
    "Apr",
    "May",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
]
"""Not by strftime, which asks the locale."""


class _Words(NamedTuple):
    """What the document calls an event, and whether one of its own codes tells that it went well."""

    msg: str
    subject: str
    is_success: bool = True


_WORDS: Final[Mapping[str, _Words]] = {
    # Its own two tables; a gateway is a relay, a client an agent, a key a configuration or baseline.
    "AGENT_CREATED": _Words("Agent create success", "Agent"),
    "AGENT_CREATE_FAILED": _Words("Agent create error", "Agent", is_success=False),
    "AGENT_DELETED": _Words("Agent delete success", "Agent"),
    "AGENT_DELETE_FAILED": _Words("Agent delete error", "Agent", is_success=False),
    "CLIENT_CREATED": _Words("Client create success", "Client"),
    "CLIENT_ENROL_FAILED": _Words("Client enroll error", "Client", is_success=False),
    "CLIENT_INSTANCE_ACCESS_DENIED": _Words(
        "Alert Client instance access denied", "Instance", is_success=False
    ),
    "CLIENT_INSTANCE_UPDATED": _Words("Client instance update success", "Instance"),
    "CLIENT_INSTANCE_UPDATE_FAILED": _Words(
        "Client instance update error", "Instance", is_success=False
    ),
    "CLIENT_UPDATED": _Words("Client update", "Client"),
    "CLIENT_UPDATE_FAILED": _Words("Client update error", "Client", is_success=False),
    "GATEWAY_TOKEN_CREATED": _Words("Gateway token create", "AgentEnrollmentToken"),
    "GATEWAY_TOKEN_CREATE_FAILED": _Words(
        "Gateway token create error", "AgentEnrollmentToken", is_success=False
    ),
    "GATEWAY_TOKEN_DELETED": _Words("Gateway token delete", "AgentEnrollmentToken"),
    "IMAGE_TOKEN_CREATED": _Words("Image enrollment token create", "ImageEnrollmentToken"),
    "IMAGE_TOKEN_DELETED": _Words("Image enrollment token delete", "ImageEnrollmentToken"),
    "KEY_ACL_CREATED": _Words("Key ACL create", "ACL"),
    "KEY_ACL_CREATE_FAILED": _Words("Error creating ACL", "ACL", is_success=False),
    "KEY_ACL_UPDATED": _Words("Key ACL update", "ACL"),
    "KEY_CREATE_FAILED": _Words("Key create error", "Key", is_success=False),
    "KEY_STORE_CREATE_FAILED": _Words("KeySecure key create error", "Key", is_success=False),
    "KEY_UPDATE_FAILED": _Words("Key update error", "Key", is_success=False),
    # What the server says of the same.
    "CLIENT_REGISTERED": _Words("Client create success", "Client"),
    "CLIENT_REMOVED": _Words("Client delete", "Client"),
    "NEW_CLIENT": _Words("Client update", "Client"),
    "NOT_IN_CLIENT_LIST": _Words("Client enroll error", "Client"),
    "SIGNATURE_MISMATCH": _Words("Alert Client instance access denied", "Instance"),
    "CONFIGURATION_PUT": _Words("Key update", "Key"),
    "BASELINE_PUT": _Words("Key update", "Key"),
    "BASELINE_PROPOSAL_RECEIVED": _Words("Key created successfully", "Key"),
    "PROPOSAL_REFUSED": _Words("Key create error", "Key"),
    "FILE_TRANSFER_COMPLETED": _Words("Key accessed", "Key"),
    "FILE_NOT_ACCESSIBLE": _Words("Key not found", "Key"),
}


def gordium_line(event: Event, *, host: str, sent_us: int, with_commas: bool = False) -> str:
    """Return the event in this form, one line without the newline.

    Args:
        host: address of the machine that says so.
        sent_us: when the line is handed on, in microseconds since 1970; the first of the two times.
    """
    words = _WORDS.get(event.code) if event.client is None else None
    documented = None
    if words is None:
        words = _Words(event.msg, event.event_class.value.capitalize())
    else:
        documented = words.is_success
    told = event.fields.get("outcome")
    went_well = is_success(event.code, event.severity, told, documented=documented)
    client = event.fields.get("client") if event.client is None else event.client
    pairs = {
        "category": "Audit",
        "status": "success" if went_well else "failure",
        "msg": words.msg,
        "subject": words.subject,
        "client-name": str(client or "none"),
    }
    if "resent" in event.fields:
        # No part of the documented form: who counts lines has to know of those sent twice.
        pairs["resent"] = "yes"
    if event.client is not None:
        pairs["reported-by"] = event.client
    parts = (f"{name}=<{_escaped(value)}>" for name, value in pairs.items())
    made = datetime.fromtimestamp(event.time_us // 1_000_000, UTC)
    head = f"{_syslog_time(sent_us)} {printable(host)} gordium {made:%Y-%m-%d %H:%M:%S}"
    return f"{head} {(', ' if with_commas else ' ').join(parts)}"


def _syslog_time(time_us: int) -> str:
    """The time of RFC 3164: the day is padded with a blank."""
    moment = datetime.fromtimestamp(time_us // 1_000_000, UTC)
    return f"{_MONTHS[moment.month - 1]} {moment.day:2} {moment:%H:%M:%S}"


def _escaped(value: str) -> str:
    return printable(value, _VALUE_TEXT_MAX).replace("<", "\\x3c").replace(">", "\\x3e")
