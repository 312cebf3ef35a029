"""Which alarms hold: added by an event, cleared by another one or by a person. Pure.

Events of the class alarm come in, in the order in which they were stored. What the catalogue says
of each (``Entry.clears``, ``Entry.about``) decides which alarms it ends. Memory is bounded by the
number of different alarms, of which only so many are kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from needfire_protocol.catalogue import ALARM_CLEARED, CATALOGUE
from needfire_protocol.catalogue_entry import Entry, EventClass
from needfire_protocol.event import Event
from needfire_protocol.severity import Severity

__all__ = ["ALARMS_MAX", "Alarm", "OpenAlarms"]

ALARMS_MAX: Final = 10_000
"""Different alarms that are kept; those that came again longest ago make room."""

_Key: TypeAlias = tuple[str, str, str, bool]
"""Code, client (empty: the server), what it is about, and whether the client says so itself: what
an agent that was broken into reports must not end what the server has noticed about it."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that holds.

    Attributes:
        client: whom it is about; empty for the server.
        about: which output, path or user, where there are several.
        since_us, last_us: when it came first and last, by the clock of whoever raised it.
        count: events that it came in, as far as they are still kept.
        first_row, last_row: the events behind ``since_us`` and ``last_us``, by their numbers.
    """

    code: str
    client: str
    about: str
    severity: Severity
    msg: str
    since_us: int
    last_us: int
    count: int = 1
    first_row: int = 0
    last_row: int = 0


class OpenAlarms:
    """The alarms that hold after the events that were taken."""

    def __init__(self) -> None:
        self._alarms: dict[_Key, Alarm] = {}

    def take(self, event: Event, row: int = 0) -> None:
        """Take the next event; one of another class, or unknown here, changes nothing.

        Args:
            row: its number in the store.
        """
        entry = CATALOGUE.get(event.code)
        if entry is None or entry.event_class is not EventClass.ALARM:
            return
        if event.code == ALARM_CLEARED:
            self._cleared_by_hand(event)
        elif entry.clears:
            self._cleared(entry, event)
        else:
            self._added(entry, event, row)

    def alarms(self, client: str | None = None) -> list[Alarm]:
        """Return those that hold, the oldest first; of one client where it is named."""
        found = (each for each in self._alarms.values() if client in (None, each.client))
        return sorted(found, key=lambda each: (each.since_us, each.code, each.client, each.about))

    def _added(self, entry: Entry, event: Event, row: int) -> None:
        key = entry.code, _client(event), _about(entry, event.fields), _is_report(event)
        # Out and in again, so that the order is that of the last time.
        before = self._alarms.pop(key, None)
        time_us = event.time_us
        alarm = Alarm(*key[:3], event.severity, event.msg, time_us, time_us, 1, row, row)
        if before is not None:
            alarm = replace(
                alarm,
                since_us=before.since_us,
                count=before.count + 1,
                first_row=before.first_row,
            )
        elif len(self._alarms) >= ALARMS_MAX:
            del self._alarms[next(iter(self._alarms))]
        self._alarms[key] = alarm

    def _cleared(self, entry: Entry, event: Event) -> None:
        about = _about(entry, event.fields)
        for code in entry.clears:
            self._alarms.pop((code, _client(event), about, _is_report(event)), None)

    def _cleared_by_hand(self, event: Event) -> None:
        if _is_report(event):
            return
        code, about = (str(event.fields.get(name) or "") for name in ("alarm", "about"))
        for is_report in (False, True):
            self._alarms.pop((code, _client(event), about, is_report), None)


def _is_report(event: Event) -> bool:
    return event.client is not None


def _client(event: Event) -> str:
    return event.client or str(event.fields.get("client") or "")


def _about(entry: Entry, fields: Mapping[str, object]) -> str:
    return "" if entry.about is None else str(fields.get(entry.about) or "")
