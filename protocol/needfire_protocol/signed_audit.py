r"""The bracket form of Dogtag's signed audit log: one event, one line, attributes in their own order.

    [AuditEvent=AUTHZ_SUCCESS][SubjectID=kraadmin][Outcome=Success][aclResource=…][Op=read] authorization success

A value may hold brackets. A closing one that could be taken for the end of its attribute (before an
opening one, before a blank, or as the last character) is written as ``\x5d``, and a backslash that
would then be ambiguous as ``\x5c``; so each line can be read back exactly, and no value can forge an
attribute.

The documented kinds of events are the server's own. What a client reports is about that client,
whatever its fields say, and has the attribute ``ReportedBy``: no field's name begins with a capital.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from needfire_protocol.catalogue import is_success
from needfire_protocol.escape import printable
from needfire_protocol.event import Event, FieldValue

__all__ = ["signed_audit_line"]

_VALUE_TEXT_MAX: Final = 20_000
_AMBIGUOUS: Final = re.compile(r"\\(?=x5[cd])|\](?=\[| |$)")
_RESENT: Final = "resent"
_UNIDENTIFIED: Final = "$Unidentified$"


@dataclass(frozen=True, slots=True)
class _Shape:
    """How one kind of event is written.

    Attributes:
        name: the attribute AuditEvent.
        text: what stands behind the brackets.
        before: attributes before SubjectID, and the fields that they are taken from.
        after: attributes behind Outcome; left out where the event has no such field.
        is_success: what Outcome says of a code of the document itself.
    """

    name: str
    text: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    is_success: bool = True


_ADDRESSES: Final = {"ClientIP": "client_ip", "ServerIP": "server_ip"}
_ACCESS: Final = {"aclResource": "resource", "Op": "operation", "Info": "info"}
_NO_ATTRIBUTES: Final[Mapping[str, str]] = {}


def _shape(
    name: str,
    text: str,
    *after: str,
    before: Mapping[str, str] = _NO_ATTRIBUTES,
    is_success: bool = True,
) -> _Shape:
    """Return a shape whose attributes behind Outcome are fields of the same, lower-cased name."""
    return _Shape(name, text, before, {each: _field(each) for each in after}, is_success)


def _field(attribute: str) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", attribute)
    return words.lower()


_ESTABLISHED: Final = _shape(
    "ACCESS_SESSION_ESTABLISH_SUCCESS", "access session establish success", before=_ADDRESSES
)
_NOT_ESTABLISHED: Final = _shape(
    "ACCESS_SESSION_ESTABLISH_FAILURE",
    "access session establish failure",
    "Info",
    before=_ADDRESSES,
    is_success=False,
)
_TERMINATED: Final = _shape(
    "ACCESS_SESSION_TERMINATED", "access session terminated", "Info", before=_ADDRESSES
)
_AUTH_FAIL: Final = _shape(
    "AUTH_FAIL", "authentication failure", "AuthMgr", "AttemptedCred", is_success=False
)
_AUTHZ_FAIL: Final = _Shape("AUTHZ_FAIL", "authorization failure", {}, _ACCESS, is_success=False)

_SHAPES: Final[tuple[_Shape, ...]] = (
    _ESTABLISHED,
    _NOT_ESTABLISHED,
    _TERMINATED,
    _shape("AUTH_SUCCESS", "authentication success", "AuthMgr"),
    _AUTH_FAIL,
    _Shape("AUTHZ_SUCCESS", "authorization success", {}, _ACCESS),
    _AUTHZ_FAIL,
    _shape("ROLE_ASSUME", "assume privileged role", "Role"),
    _shape(
        "PROFILE_CERT_REQUEST",
        "certificate request made with certificate profiles",
        *("ReqID", "ProfileID", "CertSubject"),
    ),
    _shape(
        "CERT_REQUEST_PROCESSED",
        "certificate request processed",
        *("ReqID", "InfoName", "InfoValue"),
    ),
    _shape(
        "INTER_BOUNDARY",
        "inter-CIMC_Boundary communication (data exchange)",
        *("ProtectionMethod", "ReqType", "ReqID"),
    ),
    _shape(
        "SECURITY_DATA_ARCHIVAL_REQUEST",
        "security data archival request made",
        *("ArchivalRequestID", "RequestId", "ClientKeyID"),
    ),
    _shape(
        "SECURITY_DATA_ARCHIVAL_REQUEST_PROCESSED",
        "security data archival request processed",
        *("ArchivalRequestID", "RequestId", "ClientKeyID", "KeyID", "FailureReason", "PubKey"),
    ),
    _shape(
        "SECURITY_DATA_RECOVERY_REQUEST",
        "security data recovery request made",
        *("RecoveryID", "DataID", "PubKey"),
    ),
    _shape(
        "SECURITY_DATA_RECOVERY_REQUEST_STATE_CHANGE",
        "security data recovery request state change",
        *("RecoveryID", "Operation"),
    ),
    _shape(
        "SECURITY_DATA_RECOVERY_REQUEST_PROCESSED",
        "security data recovery request processed",
        *("RecoveryID", "KeyID", "FailureReason", "RecoveryAgents"),
    ),
    _shape(
        "SECURITY_DATA_EXPORT_KEY",
        "security data retrieval request",
        *("RecoveryID", "KeyID", "Info", "PubKey"),
    ),
)
_BY_CODE: Final[Mapping[str, _Shape]] = {
    **{shape.name: shape for shape in _SHAPES},
    # What the server itself says of sessions.
    "NEW_CLIENT": _ESTABLISHED,
    "CLIENT_RESUMED": _ESTABLISHED,
    "REFUSED_CONNECTION": _NOT_ESTABLISHED,
    "TOO_MANY_CONNECTIONS": _NOT_ESTABLISHED,
    "SIGNATURE_MISMATCH": _NOT_ESTABLISHED,
    "SESSION_IN_USE": _NOT_ESTABLISHED,
    "LOOKUP_REQUIRED": _NOT_ESTABLISHED,
    "CONNECTION_CLOSED": _TERMINATED,
    "CONNECTION_TIMEOUT": _TERMINATED,
    "FORCE_AUTHENTICATION": _TERMINATED,
    "SESSION_KEY_MISMATCH": _AUTH_FAIL,
    "NOT_IN_CLIENT_LIST": _AUTH_FAIL,
    "ADMIN_REFUSED": _AUTHZ_FAIL,
}
_OURS: Final[Mapping[str, tuple[str, ...]]] = {
    # Which fields of ours say what theirs say.
    "client_ip": ("client_ip", "peer"),
    "info": ("info", "reason", "rule"),
}
_SUBJECTS: Final = ("subject", "user", "client", "uid")
_NOT_THEIRS: Final = frozenset({*_SUBJECTS, *_ACCESS})
"""Names that a client's report cannot use for fields of its own."""


def signed_audit_line(event: Event) -> str:
    """Return the event in the bracket form, one line without the newline."""
    shape = _BY_CODE.get(event.code) if event.client is None else None
    attributes = _general(event) if shape is None else _shaped(event, shape)
    brackets = "".join(f"[{name}={_escaped(value)}]" for name, value in attributes)
    text = event.msg if shape is None else shape.text
    return f"{brackets} {printable(text)}"


def _shaped(event: Event, shape: _Shape) -> Iterator[tuple[str, FieldValue]]:
    yield "AuditEvent", shape.name
    for attribute, name in shape.before.items():
        yield attribute, _found(event, name)[1]
    yield "SubjectID", _subject(event)
    yield "Outcome", _outcome(event, documented=shape.is_success)
    for attribute, name in shape.after.items():
        is_there, value = _found(event, name)
        if is_there:
            yield attribute, value
    if _RESENT in event.fields:
        # No attribute of the documented form: who counts lines has to know of those sent twice.
        yield _RESENT, event.fields[_RESENT]


def _general(event: Event) -> Iterator[tuple[str, FieldValue]]:
    yield "AuditEvent", event.code
    yield "SubjectID", _subject(event)
    yield "Outcome", _outcome(event)
    if event.client is not None:
        yield "ReportedBy", event.client
    for name, value in event.fields.items():
        if name == "outcome" or (name in _SUBJECTS and event.client is None):
            continue
        yield (f"{name}_" if name in _NOT_THEIRS and event.client is not None else name), value


def _found(event: Event, name: str) -> tuple[bool, FieldValue]:
    for ours in _OURS.get(name, (name,)):
        if ours in event.fields:
            return True, event.fields[ours]
    return False, None


def _subject(event: Event) -> FieldValue:
    if event.client is not None:
        return event.client
    named = (event.fields[name] for name in _SUBJECTS if event.fields.get(name) is not None)
    return next(named, _UNIDENTIFIED)


def _outcome(event: Event, *, documented: bool | None = None) -> str:
    told = event.fields.get("outcome")
    went_well = is_success(event.code, event.severity, told, documented=documented)
    return "Success" if went_well else "Failure"


def _escaped(value: FieldValue) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = printable(str(value), _VALUE_TEXT_MAX)
    return _AMBIGUOUS.sub(lambda found: "\\x5c" if found[0] == "\\" else "\\x5d", text)
