"""Which alarms hold: added by an event, cleared by another one or by a person. Pure.

Events of the class alarm come in, in the order in which they were stored. What the catalogue says
of each (``Entry.clears``, ``Entry.about``) decides which alarms it ends. Memory is bounded by the
number of different alarms, of which only so many are kept: of what one client reports itself a few,
so that it drives out neither what others report nor what the server has noticed.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from needfire_protocol.catalogue import ALARM_CLEARED, CATALOGUE
from needfire_protocol.catalogue_entry import Entry, EventClass
from needfire_protocol.event import Event
from needfire_protocol.severity import Severity

__all__ = ["ALARMS_MAX", "REPORTED_MAX", "Alarm", "OpenAlarms"]

ALARMS_MAX: Final = 10_000
"""Different alarms of the server's own that are kept; as many again of what all clients report.
Those that came again longest ago make room, of the client, or the relay, that has most."""
REPORTED_MAX: Final = 200
"""Of these, what one client reports."""

_Key: TypeAlias = tuple[str, str, str, bool]
"""Code, client (empty: the server), what it is about, and whether the client says so itself: what
an agent that was broken into reports must not end what the server has noticed about it."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that holds.

    Attributes:
        client: whom it is about; empty for the server.
        about: which output, path or user, where there are several; of what a relay says of its own
            clients, which one.
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
        self._own: dict[_Key, None] = {}
        self._reported: dict[str, dict[_Key, None]] = {}
        """Keys of what each client reports, and above those of what the server says; oldest first."""
        self._spoken: Counter[str] = Counter()
        """How many of them each speaker brought."""
        self._reports = 0
        self._left_out: Counter[str] = Counter()

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

    def left_out(self, client: str | None = None) -> dict[str, int]:
        """Return how many alarms had to make room, by client; empty for the server's own words."""
        return {name: count for name, count in self._left_out.items() if client in (None, name)}

    def _added(self, entry: Entry, event: Event, row: int) -> None:
        key = entry.code, _client(event), _about(entry, event), _is_report(event)
        # Out and in again, so that the order is that of the last time.
        before = self._drop(key)
        time_us = event.time_us
        alarm = Alarm(*key[:3], event.severity, event.msg, time_us, time_us, 1, row, row)
        if before is not None:
            alarm = replace(
                alarm,
                since_us=before.since_us,
                count=before.count + 1,
                first_row=before.first_row,
            )
        else:
            self._make_room(key)
        self._alarms[key] = alarm
        if _is_report(event):
            self._reported.setdefault(key[1], {})[key] = None
            self._spoken[_speaker(key[1])] += 1
            self._reports += 1
        else:
            self._own[key] = None

    def _make_room(self, key: _Key) -> None:
        _, client, _, is_report = key
        if not is_report:
            if len(self._own) >= ALARMS_MAX:
                self._leave_out("", next(iter(self._own)))
            return
        mine = self._reported.get(client, {})
        if len(mine) >= REPORTED_MAX:
            self._leave_out(client, next(iter(mine)))
        elif self._reports >= ALARMS_MAX:
            # Of who has most with this one, and with all for whom a relay speaks.
            newest = _speaker(client)
            speaker = max(self._spoken, key=lambda name: self._spoken[name] + (name == newest))
            names = (name for name in self._reported if _speaker(name) == speaker)
            most = max(names, key=lambda name: len(self._reported[name]))
            self._leave_out(most, next(iter(self._reported[most])))

    def _leave_out(self, client: str, key: _Key) -> None:
        self._drop(key)
        self._left_out[client] += 1

    def _drop(self, key: _Key) -> Alarm | None:
        alarm = self._alarms.pop(key, None)
        if alarm is None:
            return None
        _, client, _, is_report = key
        if not is_report:
            del self._own[key]
            return alarm
        self._reports -= 1
        self._spoken[_speaker(client)] -= 1
        if not self._spoken[_speaker(client)]:
            del self._spoken[_speaker(client)]
        del self._reported[client][key]
        if not self._reported[client]:
            del self._reported[client]
        return alarm

    def _cleared(self, entry: Entry, event: Event) -> None:
        about = _about(entry, event)
        for code in entry.clears:
            self._drop((code, _client(event), about, _is_report(event)))

    def _cleared_by_hand(self, event: Event) -> None:
        if _is_report(event):
            return
        code, about = (str(event.fields.get(name) or "") for name in ("alarm", "about"))
        for is_report in (False, True):
            self._drop((code, _client(event), about, is_report))


def _is_report(event: Event) -> bool:
    return event.client is not None


def _client(event: Event) -> str:
    return event.client or str(event.fields.get("client") or "")


def _about(entry: Entry, event: Event) -> str:
    about = "" if entry.about is None else str(event.fields.get(entry.about) or "")
    # What a relay says of one of its own clients: that another one is back must not end it.
    named = event.fields.get("client") if _is_report(event) else None
    return f"{named} {about}".strip() if named else about


def _speaker(client: str) -> str:
    """Return who brings what a client reports: a relay, which makes up names as it likes, or itself."""
    return client.partition("/")[0]
