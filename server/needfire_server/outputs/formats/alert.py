r"""The traditional alert line, as key managers write it to syslog.

    WARNING: <web1> ALERT: (100) Unmanaged authorized key found, Host: web1, Key ID: 210, Path: …

Title and fields are separated by ``, `` and each field is ``Label: value``. A comma in a value that
would look like the start of the next field is written as ``\x2c``, and so that this can be undone,
a backslash before ``x2c`` or ``x5c`` as ``\x5c``.

Some events are the server's word about a client, and their line names that client where another one
names who reports. A client that reports such an event has ``reported_by`` at the end of its line.
"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from needfire_protocol.catalogue import CATALOGUE, Entry
from needfire_protocol.escape import printable
from needfire_protocol.event import Event, FieldValue
from needfire_protocol.severity import Severity

__all__ = ["alert_line"]

_TEXT_MAX: Final = 80_000
_BACKSLASH: Final = re.compile(r"\\(?=x2c|x5c)")
_COMMA: Final = re.compile(r",(?= [A-Za-z][A-Za-z0-9_ ]{0,60}:(?: |$))")
_WORDS: Final[Mapping[Severity, str]] = MappingProxyType(
    {
        Severity.DEBUG: "DEBUG",
        Severity.INFO: "INFO",
        Severity.NOTICE: "NOTICE",
        Severity.WARN: "WARNING",
        Severity.MARK: "MARK",
        Severity.ERR: "ERROR",
        Severity.CRIT: "CRITICAL",
        Severity.ALERT: "ALERT",
    }
)
_LABELS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "host": "Host",
        "key_id": "Key ID",
        "path": "Path",
        "type": "Type",
        "format": "Format",
        "fingerprint": "Fingerprint OpenSSH",
        "fingerprint_ssh1": "Fingerprint SSH1",
        "message": "Message",
        "old_value": "Old value",
        "new_value": "New value",
        "value": "Value",
    }
)
"""Labels of the traditional lines, in their order; all other fields follow under their names."""


_REPORTED_BY: Final = "reported_by"
_NOT_SHOWN: Final = frozenset({"fingerprint_sha256"})
"""What the documented lines do not have; other forms do."""


def alert_line(event: Event) -> str:
    """Return the event as a traditional alert line, without the header of syslog and its end.

    An event with a number of the documents shows it as they do; any other one shows its code.
    """
    entry = CATALOGUE.get(event.code)
    form = None if entry is None else entry.alert
    number = f"({event.code}) "
    if entry is not None and form is not None:
        # Without a number, a client's words could be taken for one.
        is_shown = form.shows_number or event.msg.lstrip().startswith("(")
        number = f"({entry.number}) " if is_shown else ""
    # Of the server's own events: whom it is about.
    named = event.fields.get("client")
    host = event.client or (named if isinstance(named, str) else "") or "internal"
    # The name of a host cannot hold these; a field of an agent's event can.
    place = printable(host, 255).replace("<", "\\x3c").replace(">", "\\x3e")
    parts = [
        _value(event.msg),
        *(f"{label}: {_value(value)}" for label, value in _pairs(event, entry)),
    ]
    return f"{_WORDS[event.severity]}: <{place}> ALERT: {number}{', '.join(parts)}"


def _pairs(event: Event, entry: Entry | None) -> Iterator[tuple[str, FieldValue]]:
    told = frozenset() if entry is None else entry.msg_fields()
    form = None if entry is None else entry.alert
    labels = _LABELS if form is None else {**_LABELS, **form.labels}
    for name, label in labels.items():
        if name in event.fields and name not in told:
            yield label, event.fields[name]
    is_servers = entry is not None and "client" in entry.fields and event.client is not None
    for name, value in event.fields.items():
        if name not in labels and name not in told and (form is None or name not in _NOT_SHOWN):
            yield (f"{name}_" if is_servers and name == _REPORTED_BY else name), value
    if is_servers:
        yield _REPORTED_BY, event.client


def _value(value: FieldValue) -> str:
    return _COMMA.sub(r"\\x2c", _BACKSLASH.sub(r"\\x5c", _plain(value)))


def _plain(value: FieldValue) -> str:
    if value is None:
        return "None"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(str(value), _TEXT_MAX)
