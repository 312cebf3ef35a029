r"""The event as programs write lines into logs of their own: ``journal`` and ``plain``.

    Mar 14 18:23:23 web1 sshd[14546]: Accepted password for test from 192.0.2.7 port 61205 ssh2
    2024-03-14 21:34:32,004: INFO - Version requirement: 6.4.0

The first is that of journalctl and of syslog's files, the second that of installers. Where the words
are those of a program on a host, the line is that program's own. Of our own events what the text does
not hold follows in brackets: ``[code="POLICY_MISSING" path="/etc/x"]``. What in a text could be taken
for such a bracket has it as ``\x5b``, and a backslash that would then be ambiguous is ``\x5c``.

Times are UTC. Another program stands before the server's own events than before those of a
client (``needfire-server``, ``needfire-agent``); ``plain`` has ``reported-by`` in all that clients say.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.escape import printable
from needfire_protocol.event import Event, FieldValue
from needfire_protocol.severity import Severity
from needfire_server.outputs.formats.syslog import host_word, traditional_stamp

__all__ = ["journal_line", "plain_line"]

_TEXT_MAX: Final = 80_000
_BRACKET: Final = re.compile(r'\\(?=x5b|x5c)|\[(?=[a-z][A-Za-z0-9_-]*=")')
_VALUE: Final = str.maketrans({"\\": "\\\\", '"': '\\"'})
_PROCESS: Final = "pid"
_WORDS: Final[Mapping[Severity, str]] = MappingProxyType(
    {
        Severity.DEBUG: "DEBUG",
        Severity.INFO: "INFO",
        Severity.NOTICE: "INFO",
        Severity.WARN: "WARNING",
        Severity.MARK: "INFO",
        Severity.ERR: "ERROR",
        Severity.CRIT: "CRITICAL",
        Severity.ALERT: "CRITICAL",
    }
)
"""The levels that such logs know. The event's own severity is among its details."""


def journal_line(event: Event, *, hostname: str) -> str:
    """Return the event as a line of the journal, without its end.

    Args:
        hostname: names the server in its own events; a client's have the client's name.
    """
    host = host_word(event.client or hostname)
    head = f"{traditional_stamp(event.time_us)} {host} {_program(event)}"
    return f"{head}: {_said(event)}{_bracketed(_details(event))}"


def plain_line(event: Event) -> str:
    """Return the event as a line of an installer's log, without its end."""
    seconds, micros = divmod(event.time_us, 1_000_000)
    stamp = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S},{micros // 1_000:03}"
    reporter = [] if event.client is None else [("reported-by", event.client)]
    details = _bracketed([*reporter, *_details(event)])
    return f"{stamp}: {_WORDS[event.severity]} - {_said(event)}{details}"


def _program(event: Event) -> str:
    entry = CATALOGUE.get(event.code)
    if entry is None or entry.written_by is None:
        return "needfire-server" if event.client is None else "needfire-agent"
    pid = event.fields.get(_PROCESS)
    return f"{entry.written_by}[{pid}]" if type(pid) is int else entry.written_by


def _said(event: Event) -> str:
    text = printable(event.msg, _TEXT_MAX)
    return _BRACKET.sub(lambda found: "\\x5c" if found[0] == "\\" else "\\x5b", text)


def _details(event: Event) -> Iterator[tuple[str, FieldValue]]:
    entry = CATALOGUE.get(event.code)
    told = set() if entry is None else set(entry.msg_fields())
    names: set[str] = set()
    if entry is None or entry.written_by is None:
        yield from (("code", event.code), ("severity", event.severity.word))
        names |= {"code", "severity"}
    for name, value in event.fields.items():
        if name == _PROCESS and f"[{value}]" in _program(event):
            continue
        own = name
        while own in names:
            own += "_"
        names.add(own)
        # A client chooses its words itself, and a long text is cut.
        if name not in told or ("" if value is None else str(value)) not in event.msg:
            yield own, value


def _bracketed(details: Iterable[tuple[str, FieldValue]]) -> str:
    text = " ".join(f'{name}="{_plain(value)}"' for name, value in details)
    return f" [{text}]" if text else ""


def _plain(value: FieldValue) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(str(value), _TEXT_MAX).translate(_VALUE)
