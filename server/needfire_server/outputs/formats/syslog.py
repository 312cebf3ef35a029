"""What stands around a record for syslog: the header of RFC 5424, or the traditional one (RFC 3164).

    <82>1 2026-11-21T19:40:47.123456Z web1.example.org needfire - POLICY_MISSING [needfire@32473 …] MSG
    <82>Nov 21 19:40:47 web1.example.org needfire: MSG

Over TCP and TLS each message is preceded by its length in octets (RFC 6587 3.4.1, RFC 5425 4.3.1):
an end of line would not tell messages apart if one ever stood inside.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from needfire_protocol.escape import printable
from needfire_protocol.event import Event, FieldValue, format_time
from needfire_protocol.severity import Severity

__all__ = [
    "FACILITIES",
    "host_word",
    "local_message",
    "octet_counted",
    "rfc5424_message",
    "syslog_severity",
    "traditional_message",
    "traditional_stamp",
]

FACILITIES: Final[Mapping[str, int]] = MappingProxyType(
    {
        **{name: number for number, name in enumerate(["kern", "user", "mail", "daemon", "auth"])},
        "authpriv": 10,
        **{f"local{number}": 16 + number for number in range(8)},
    }
)

ENTERPRISE: Final = 32_473
"""The number that RFC 5612 sets aside for documents: the product has registered none of its own."""

_SEVERITY: Final[Mapping[Severity, int]] = MappingProxyType(
    {
        Severity.DEBUG: 7,
        Severity.INFO: 6,
        Severity.NOTICE: 5,
        Severity.WARN: 4,
        Severity.MARK: 3,
        Severity.ERR: 3,
        Severity.CRIT: 2,
        Severity.ALERT: 1,
    }
)
_HOST_MAX: Final = 255
_MSGID_MAX: Final = 32
_SD_NAME_MAX: Final = 32
_NOT_IN_HEADER: Final = re.compile(r"[^!-~]")
_VALUE: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "]": "\\]"})
_TEXT_MAX: Final = 80_000
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


def syslog_severity(severity: Severity) -> int:
    """Return the severity of RFC 5424 6.2.1; ``mark`` is an error there, as Samhain has it."""
    return _SEVERITY[severity]


def rfc5424_message(event: Event, text: str, *, facility: int, hostname: str) -> bytes:
    """Return a whole message of RFC 5424.

    Args:
        text: the record; one line.
        facility: a value of ``FACILITIES``.
        hostname: names the server in its own events; a client's have the client's name.

    The record has no byte order mark: receivers that do not know it would keep it as text.
    """
    priority = facility * 8 + syslog_severity(event.severity)
    host = host_word(event.client or hostname)
    head = f"<{priority}>1 {format_time(event.time_us)} {host} needfire - "
    return (
        head + f"{_word(event.code, _MSGID_MAX)} {_structured_data(event)} {_one_line(text)}"
    ).encode("utf-8", "backslashreplace")


def local_message(event: Event, text: str, *, facility: int) -> bytes:
    """Return a message for the socket of the host's daemon: without a host, which is known there.

    It has no time either: daemons take that of its arrival, and one in UTC would be read as theirs.
    """
    priority = facility * 8 + syslog_severity(event.severity)
    return f"<{priority}>needfire: {_one_line(text)}".encode("utf-8", "backslashreplace")


def traditional_message(event: Event, text: str, *, facility: int, hostname: str) -> bytes:
    """Return a whole message in the form of RFC 3164; its time is UTC and names no year."""
    priority = facility * 8 + syslog_severity(event.severity)
    stamp, host = traditional_stamp(event.time_us), host_word(event.client or hostname)
    return f"<{priority}>{stamp} {host} needfire: {_one_line(text)}".encode(
        "utf-8", "backslashreplace"
    )


def traditional_stamp(time_us: int) -> str:
    """Return the time of RFC 3164: UTC, the day padded with a blank."""
    moment = datetime.fromtimestamp(time_us // 1_000_000, UTC)
    return f"{_MONTHS[moment.month - 1]} {moment.day:>2} {moment:%H:%M:%S}"


def host_word(name: str) -> str:
    """Return whose event it is. A receiver may make the name of a file of it, so it has no slash."""
    return _word(name.replace("/", "!"), _HOST_MAX)


def octet_counted(message: bytes) -> bytes:
    """Return a message as it goes over a stream."""
    return b"%d %b" % (len(message), message)


def _word(text: str, length_max: int) -> str:
    """Printable ASCII without blanks, at least one character: what a part of the header may be."""
    return _NOT_IN_HEADER.sub("?", text)[:length_max] or "-"


def _structured_data(event: Event) -> str:
    own = "".join(f' {name}="{_value(value)}"' for name, value in _own(event))
    fields = "".join(
        # A name of ours is shorter; one that an agent made longer still stands in the record.
        f' {name}="{_value(value)}"'
        for name, value in event.fields.items()
        if len(name) <= _SD_NAME_MAX
    )
    element = f"[needfire@{ENTERPRISE}{own}]"
    return element + (f"[fields@{ENTERPRISE}{fields}]" if fields else "")


def _own(event: Event) -> Iterator[tuple[str, FieldValue]]:
    yield "id", event.id
    yield "class", event.event_class.value
    yield "severity", event.severity.word
    yield "code", event.code
    if event.client is not None:
        yield "client", event.client


def _value(value: FieldValue) -> str:
    if value is None:
        return ""
    text = ("yes" if value else "no") if isinstance(value, bool) else str(value)
    return printable(text, _TEXT_MAX).translate(_VALUE)


def _one_line(text: str) -> str:
    return text if text.isprintable() else printable(text, 4 * _TEXT_MAX)
