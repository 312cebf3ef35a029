"""From when to when was nobody watching a host, as far as the server knows? Pure.

What agents say of themselves (START, EXIT, SUSPEND, WAKEUP) and what the server says of their
silence comes in as marks, in any order; which of them open and close a time comes out.

A host may have two agents for a moment: a check by hand says START and EXIT as well. That the
other one goes on shows in its WAKEUP, and in the receipts of its checks, which tell of its watch.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from needfire_protocol.event import parse_time

__all__ = ["MARKS", "Absence", "Host", "Marks", "absent_now", "mark_of"]

MARKS: Final = (
    "CHECK_COMPLETED",
    "CLIENT_RETURNED",
    "EXIT",
    "START",
    "STOPPED_WITHOUT_GOODBYE",
    "SUSPEND",
    "TIME_EXCEEDED",
    "WAKEUP",
)
"""Codes of the events that say something here."""

_OF_SERVER: Final = frozenset({"CLIENT_RETURNED", "STOPPED_WITHOUT_GOODBYE", "TIME_EXCEEDED"})
_SILENT: Final = frozenset({"STOPPED_WITHOUT_GOODBYE", "TIME_EXCEEDED"})
_OPENS: Final = _SILENT | {"EXIT", "SUSPEND"}
_WATCHED: Final = "WATCHED"
"""No code of an event: a CHECK_COMPLETED of an agent that watches. One by hand never does."""
_CLOSES: Final[Mapping[str, frozenset[str]]] = {
    "STOPPED_WITHOUT_GOODBYE": frozenset(
        {"CLIENT_RETURNED", "START", "WAKEUP", "CHECK_COMPLETED", _WATCHED}
    ),
    "EXIT": frozenset({"START", "WAKEUP", _WATCHED}),
    "SUSPEND": frozenset({"WAKEUP", "START"}),
}
_CLOSES_SILENCE: Final = _CLOSES["STOPPED_WITHOUT_GOODBYE"]
_MARKS_MAX: Final = 4_000
"""Marks of one client that are kept, the newest ones."""
_UNHEARD_US: Final = 600_000_000
"""An agent beats once a minute: who is not connected and was not heard for this long is away,
whether an alarm of it was raised or not (``SilenceLimit`` may be 0)."""


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """One event that opens or closes an absence. ``us``: when the server had it; ``from_us``: since
    when it holds."""

    us: int
    code: str
    from_us: int


@dataclass(frozen=True, slots=True)
class Absence:
    """A time in which an agent did not watch, or nobody knows that it did.

    Attributes:
        us: when the server learnt of it.
        until_us: None while it lasts.
    """

    us: int
    code: str
    from_us: int
    until_us: int | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """What the server says of a client at this moment. Times are None where they are not known."""

    registered_us: int | None = None
    seen_us: int | None = None
    status: str = ""
    status_us: int | None = None
    is_connected: bool = False
    is_silent: bool = False
    """Its silence was reported, and holds."""


class Marks:
    """The marks of one client."""

    def __init__(self) -> None:
        self._marks: deque[Mark] = deque(maxlen=_MARKS_MAX)

    def add(self, mark: Mark) -> None:
        """Take a mark."""
        self._marks.append(mark)

    def absences(self) -> Iterator[Absence]:
        """Yield the absences, the oldest first; only the last one may still be open."""
        now: Absence | None = None
        for mark in sorted(set(self._marks)):
            if now is not None and mark.code in _CLOSES.get(now.code, _CLOSES_SILENCE):
                yield replace(now, until_us=max(mark.us, now.from_us))
                now = None
            elif mark.code in _OPENS and now is None:
                now = Absence(mark.us, mark.code, mark.from_us)
            elif mark.code in ("EXIT", "SUSPEND") and now is not None:
                # What it says itself explains the silence, which began no later for that.
                now = replace(now, code=mark.code)
        if now is not None:
            yield now


def mark_of(event: Mapping[str, Any], arrived_us: int) -> tuple[str, Mark] | None:
    """Return the client and the mark of an event, if it is one.

    Only the server's own word says that a client is silent or is back, and only the client's own
    that it stops: neither can be made up by another client.
    """
    code, fields = event["code"], event["fields"]
    is_server = event["client"] is None
    if code not in MARKS or is_server is not (code in _OF_SERVER):
        return None
    name = fields.get("client") if is_server else event["client"]
    if not isinstance(name, str) or not name:
        return None
    last = fields.get("last") if code in _SILENT else event["time"]
    from_us = arrived_us if not isinstance(last, str) else min(parse_time(last), arrived_us)
    is_watch = code == "CHECK_COMPLETED" and fields.get("watcher") not in (None, "off")
    return name, Mark(arrived_us, _WATCHED if is_watch else code, from_us)


def absent_now(host: Host, now_us: int) -> Absence | None:
    """Return the absence that a client's present state means, if it does.

    NEVER_SEEN and NOT_HEARD are no codes of events: nothing was told of it.
    """
    if host.seen_us is None:
        return Absence(now_us, "NEVER_SEEN", host.registered_us or 0)
    since_us = host.status_us or host.seen_us
    if host.status == "Exited":
        return Absence(since_us, "EXIT", since_us)
    if host.status == "Suspended":
        return Absence(since_us, "SUSPEND", since_us)
    if host.is_silent:
        return Absence(now_us, "STOPPED_WITHOUT_GOODBYE", host.seen_us)
    if not host.is_connected and now_us - host.seen_us > _UNHEARD_US:
        return Absence(now_us, "NOT_HEARD", host.seen_us)
    return None


def latest(marks: Iterable[tuple[str, Mark]]) -> Mapping[tuple[str, str], Mark]:
    """Return of each client and code the latest mark: all that matters of a time before."""
    found: dict[tuple[str, str], Mark] = {}
    for name, mark in marks:
        key = name, mark.code
        found[key] = max(found.get(key, mark), mark)
    return found
