"""How an event stands in the table of events: one row of plain values, and back."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, Final

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.event import Event, FieldValue
from needfire_protocol.event_batch import UsualEvents
from needfire_protocol.severity import Severity

__all__ = [
    "EVENT_COLUMNS",
    "about",
    "event_of_row",
    "fields_texts",
    "row_of_event",
    "rows_of_events",
]

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

_TEXTS: Final = frozenset({str})
_INTEGERS: Final = frozenset({int})
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def rows_of_events(
    first: int, events: Sequence[Event], fields: Sequence[str | None]
) -> list[tuple[Any, ...]]:
    """Return the rows, in the order of ``EVENT_COLUMNS``.

    Args:
        first: number of the first one; they are counted on from there.
        fields: of each event as ``fields_texts`` writes them; None where nobody has done it yet.
    """
    clients = [each.client for each in events]
    return list(
        zip(
            range(first, first + len(events)),
            [each.id for each in events],
            [each.time_us for each in events],
            [each.received_us for each in events],
            clients,
            clients if None not in clients else map(about, events),
            [each.event_class._value_ for each in events],
            [int(each.severity) for each in events],
            [each.code for each in events],
            [each.msg for each in events],
            [
                _encoded(each.fields) if text is None else text
                for each, text in zip(events, fields, strict=True)
            ],
            strict=True,
        )
    )


def row_of_event(row_id: int, event: Event) -> tuple[Any, ...]:
    """Return the row of one event."""
    return rows_of_events(row_id, [event], [None])[0]


def fields_texts(batch: UsualEvents) -> list[str | None]:
    """Return the fields of each event as they stand in its row; None where that takes a closer look."""
    texts: list[str | None] = [None] * len(batch.events)
    if not batch.is_plain:
        return texts
    for each in batch.alike:
        form = ",".join(map(_pair, each.names, each.kinds))
        columns = map(_in_json, each.columns, each.kinds)
        # Without fields there are no columns, and so no rows of values.
        values = zip(*columns, strict=True) if each.names else repeat(())
        for place, value in zip(each.places, values, strict=False):
            texts[place] = "{" + form % value + "}"
    return texts


def _pair(name: str, kinds: frozenset[type]) -> str:
    return f'"{name}":"%s"' if kinds == _TEXTS else f'"{name}":%s'


def _in_json(column: Sequence[FieldValue], kinds: frozenset[type]) -> Sequence[FieldValue]:
    """Return what is filled into the place of ``_pair``."""
    return column if kinds in (_TEXTS, _INTEGERS) else list(map(_ENCODER.encode, column))


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
