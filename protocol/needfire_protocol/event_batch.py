"""How the events of a whole batch of reports are read: part by part instead of one by one.

Nearly all reports are as ours write them, and what has to be looked at is the same for all. So the
same part of all of them is looked at together, by what is written in C, in half the time. Where
anything is otherwise, nothing is said of it here: then each report is read by ``unpack_event``, which
has the last word on what an event is, and the words for what is none.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any, Final, NamedTuple

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.codec import decode_flat_all
from needfire_protocol.errors import FormatError
from needfire_protocol.escape import count_odd
from needfire_protocol.event import (
    CLASSES,
    EVENT_ID,
    FIELD_COUNT_MAX,
    FIELD_TEXT_MAX,
    MSG_TEXT_MAX,
    PARTS,
    SEVERITIES,
    TIME_US_MAX,
    Event,
    FieldValue,
    check_names,
    sealed_event,
)
from needfire_protocol.limits import EVENT_DECODING, DecodingLimits

__all__ = ["Alike", "UsualEvents", "unpack_usual_events"]

_DECODING: Final = DecodingLimits(
    size_bytes_max=EVENT_DECODING.size_bytes_max,
    text_bytes_max=MSG_TEXT_MAX,
    binary_bytes_max=0,
    array_items_max=0,
    map_items_max=FIELD_COUNT_MAX,
    depth_max=EVENT_DECODING.depth_max,
)
"""No text in it is too long for any part of an event, so that nobody needs to measure each."""

assert MSG_TEXT_MAX <= FIELD_TEXT_MAX

_IDS: Final = re.compile(f"(?:{EVENT_ID.pattern})*+", re.ASCII)
_ID_TEXT: Final = 36
_ORDER: Final = frozenset({PARTS})
_MAPS: Final = frozenset({dict})
_TEXTS: Final = frozenset({str})
_INTEGERS: Final = frozenset({int})
_PLAIN: Final = frozenset({str, int, bool, type(None)})
_MARKS: Final = '"\\&<>'


class Alike(NamedTuple):
    """Those events of a batch that have the same code and the same names of fields.

    Attributes:
        places: where they stand in the batch.
        columns: the values of each name, one for each of the events.
        kinds: the types in each column.
    """

    code: str
    names: tuple[str, ...]
    places: Sequence[int]
    columns: Sequence[tuple[FieldValue, ...]]
    kinds: Sequence[frozenset[type]]


class UsualEvents(NamedTuple):
    """The events of a batch, and again by what they have in common.

    Attributes:
        client, received_us: of each of them.
        is_plain: no text in them has anything that JSON or XML would have to escape.
    """

    events: Sequence[Event]
    client: str
    received_us: int
    alike: Sequence[Alike]
    is_plain: bool


def unpack_usual_events(
    bodies: Sequence[bytes], *, client: str, received_us: int
) -> UsualEvents | None:
    """Return what ``decode_flat`` and ``unpack_event`` make of each body.

    None where they refuse one of them, or may have to change a part of it.
    """
    data = decode_flat_all(bodies, limits=_DECODING)
    if not data or not _MAPS.issuperset(map(type, data)) or set(map(tuple, data)) != _ORDER:
        return None
    ids, times, codes, classes, severities, msgs, fields = zip(*map(dict.values, data), strict=True)
    if not (
        _TEXTS.issuperset(map(type, chain(ids, codes, classes, msgs)))
        and _INTEGERS.issuperset(map(type, chain(times, severities)))
        and _MAPS.issuperset(map(type, fields))
        and {_ID_TEXT}.issuperset(map(len, ids))
        and _IDS.fullmatch("".join(ids))
        and min(times) >= 0
        and max(times) <= TIME_US_MAX
        and CATALOGUE.keys() >= set(codes)
        and CLASSES.keys() >= set(classes)
        and SEVERITIES.keys() >= set(severities)
    ):
        return None
    alike = list(_alike(codes, fields))
    texts = "".join([*msgs, *_texts(alike)])
    is_plain = not count_odd(texts, _MARKS)
    if not (_are_fields(alike) and (is_plain or not count_odd(texts))):
        return None
    members = map(CLASSES.get, classes), map(SEVERITIES.get, severities)
    receipt = repeat(client), repeat(received_us)
    events = map(sealed_event, ids, times, codes, *members, msgs, fields, *receipt)
    return UsualEvents(list(events), client, received_us, alike, is_plain)


def _alike(codes: Sequence[str], fields: Sequence[dict[Any, Any]]) -> Iterator[Alike]:
    places: dict[Any, list[int]] = {}
    for place, key in enumerate(zip(codes, map(tuple, fields), strict=True)):
        places.setdefault(key, []).append(place)
    for (code, names), theirs in places.items():
        columns = list(zip(*[fields[place].values() for place in theirs], strict=True))
        kinds = [frozenset(map(type, column)) for column in columns]
        yield Alike(code, names, theirs, columns, kinds)


def _are_fields(alike: Sequence[Alike]) -> bool:
    try:
        for each in alike:
            check_names(each.names)
    except FormatError:
        return False
    return all(_PLAIN.issuperset(kinds) for each in alike for kinds in each.kinds)


def _texts(alike: Sequence[Alike]) -> Iterator[str]:
    for each in alike:
        for column, kinds in zip(each.columns, each.kinds, strict=True):
            texts: Iterable[Any] = column
            yield from texts if kinds == _TEXTS else [text for text in texts if type(text) is str]
