"""How an event stands in the table of events: one row of plain values, and back."""

import json
from collections.abc import Sequence
from typing import Any, Final

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.event import Event
from needfire_protocol.severity import Severity

__all__ = ["EVENT_COLUMNS", "about", "event_of_row", "row_of_event"]

EVENT_COLUMNS: Final = (
    "row_id",
    "id",
    "time_us",
    "received_us",
    "client",
    "about",
    "class",
    "severity",
    "code",
    "msg",
    "fields",
)

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def row_of_event(row_id: int, event: Event) -> tuple[Any, ...]:
    """Return the row, in the order of ``EVENT_COLUMNS``."""
    return (
        row_id,
        event.id,
        event.time_us,
        event.received_us,
        event.client,
        about(event),
        event.event_class.value,
        int(event.severity),
        event.code,
        event.msg,
        _ENCODER.encode(event.fields),
    )


def event_of_row(row: Sequence[Any]) -> tuple[int, Event]:
    """Return what a row in the order of ``EVENT_COLUMNS`` holds: its number and the event."""
    return row[0], Event(
        id=row[1],
        time_us=row[2],
        received_us=row[3],
        client=row[4],
        event_class=EventClass(row[6]),
        severity=Severity(row[7]),
        code=row[8],
        msg=row[9],
        fields=json.loads(row[10]),
    )


def about(event: Event) -> str | None:
    """Return whom the event is about. A report is about its sender, whatever its fields say."""
    if event.client is not None:
        return event.client
    named = event.fields.get("client")
    return named.lower() if isinstance(named, str) and named else None
