"""How an event stands in the table of events: one row of plain values, and back."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.event import Event, FieldValue
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
        event.event_class._value_,
        int(event.severity),
        event.code,
        event.msg,
        _encoded(event.fields),
    )


def _encoded(fields: Mapping[str, FieldValue]) -> str:
    """Return what the encoder returns: flat maps of texts and numbers, which need no escape."""
    values = tuple(fields.values())
    form = _form(tuple(fields), tuple(map(type, values)))
    if form is not None:
        filled = form[0] % values
        # More quotes than the form has are some to escape, as are these.
        if filled.count('"') == form[1] and "\\" not in filled and filled.isprintable():
            return filled
    return _ENCODER.encode(fields)


@lru_cache(maxsize=256)
def _form(names: tuple[str, ...], kinds: tuple[type, ...]) -> tuple[str, int] | None:
    """Return the text of such a map, with places for its values, and how many quotes it has.

    None where its values are of other kinds.
    """
    if not {str, int}.issuperset(kinds) or not all(map(str.isidentifier, names)):
        return None
    parts = ['"%s"' if kind is str else "%d" for kind in kinds]
    pairs = ",".join([f'"{name}":{part}' for name, part in zip(names, parts, strict=True)])
    form = "{" + pairs + "}"
    return form, form.count('"')


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
