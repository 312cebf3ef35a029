"""One event, and its JSON form (spec: "One event as JSON").

An event is what both programs log, what a report carries, what the store keeps and what
``needfire-admin events`` prints. Its words come from the catalogue; nothing else makes events.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Any, Final, TypeAlias, TypeVar

from needfire_protocol.catalogue import CATALOGUE, EventClass
from needfire_protocol.errors import FormatError
from needfire_protocol.escape import printable
from needfire_protocol.plain_classes import dataclass, field
from needfire_protocol.severity import Severity

__all__ = [
    "Event",
    "FieldValue",
    "clean_fields",
    "event_data",
    "event_id",
    "event_to_json",
    "format_time",
    "make_event",
    "pack_event",
    "parse_time",
    "unpack_event",
]

FieldValue: TypeAlias = str | int | bool | None

_E = TypeVar("_E", bound=Enum)

FIELD_COUNT_MAX: Final = 96
"""Fields of one event; a change with every attribute, old and new, has about forty."""
FIELD_TEXT_MAX: Final = 20_000
"""Characters of one field: a path of PATH_MAX bytes, each of them escaped as four characters."""
MSG_TEXT_MAX: Final = 1_024

_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)
_FIELD_NAME = re.compile(r"[a-z][A-Za-z0-9_]{0,47}", re.ASCII)
EVENT_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
PARTS: Final = ("id", "time_us", "code", "class", "severity", "msg", "fields")
"""Of the body of a report, in the order in which ours are written."""
_PARTS: Final = frozenset(PARTS)
CLASSES: Final = {member.value: member for member in EventClass}
SEVERITIES: Final = {int(member): member for member in Severity}
_RANGE_64_BIT: Final = range(-(2**63), 2**64)
TIME_US_MAX: Final = 253_402_300_799_999_999
"""The last microsecond of the year 9999: what the JSON form can write."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, in the words of the catalogue.

    Attributes:
        id: UUID (version 7) in its usual text form; the same event keeps it everywhere.
        time_us: when it happened by the clock of the host that says so; microseconds since 1970.
        code: key of the catalogue.
        event_class: which class of events it belongs to.
        severity: how much it matters.
        msg: the catalogue's text with its places filled in.
        fields: values by name; text is printable already (paths: ``escape_bytes``).
        client: the name that the server inferred; None for the server's own, and on an agent.
        received_us: when the server took it; None until then.
    """

    id: str
    time_us: int
    code: str
    event_class: EventClass
    severity: Severity
    msg: str
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    client: str | None = None
    received_us: int | None = None

    def received(self, client: str, received_us: int) -> "Event":
        """Return the event as the server keeps it: whose it is, and when it came."""
        if self.client == client and self.received_us == received_us:
            return self
        # Not dataclasses.replace: each report passes here, and that costs it ten times as much.
        return sealed_event(
            self.id,
            self.time_us,
            self.code,
            self.event_class,
            self.severity,
            self.msg,
            self.fields,
            client,
            received_us,
        )


class _Unsealed:
    """An event before it refuses to be changed.

    A frozen class has to set each value past its own refusal, which takes four times as long, and
    every report of a fleet becomes an event.
    """

    __slots__ = Event.__match_args__

    def __init__(
        self,
        id: str,
        time_us: int,
        code: str,
        event_class: EventClass,
        severity: Severity,
        msg: str,
        fields: Mapping[str, FieldValue],
        client: str | None,
        received_us: int | None,
    ) -> None:
        self.id = id
        self.time_us = time_us
        self.code = code
        self.event_class = event_class
        self.severity = severity
        self.msg = msg
        self.fields = fields
        self.client = client
        self.received_us = received_us


def sealed_event(*values: Any) -> Event:
    """Return the event with these values, all of them and in their order."""
    made: Any = _Unsealed(*values)
    made.__class__ = Event
    event: Event = made
    return event


def event_id(time_us: int, random_10_bytes: bytes) -> str:
    """Return a UUID version 7 (RFC 9562 5.7): sorts by time, unique without coordination."""
    assert len(random_10_bytes) == 10
    raw = bytearray((time_us // 1000).to_bytes(6, "big") + random_10_bytes)
    raw[6] = 0x70 | (raw[6] & 0x0F)
    raw[8] = 0x80 | (raw[8] & 0x3F)
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def make_event(
    code: str,
    severity: Severity | None = None,
    /,
    *,
    time_us: int,
    random_10_bytes: bytes,
    **fields: FieldValue,
) -> Event:
    """Return an event in the catalogue's words.

    Args:
        code: key of the catalogue; an unknown one is a bug of ours (KeyError).
        severity: instead of the catalogue's own, where configuration decides.
        fields: values by name. Those that the text of the entry names are filled in there. The
            server's own events name the client that they are about in the field ``client``.
    """
    entry = CATALOGUE[code]
    shown = fields
    if None in fields.values():
        shown = {name: "" if value is None else value for name, value in fields.items()}
    return sealed_event(
        event_id(time_us, random_10_bytes),
        time_us,
        code,
        entry.event_class,
        entry.severity if severity is None else severity,
        printable(entry.msg.format_map(shown), MSG_TEXT_MAX),
        clean_fields(fields),
        None,
        None,
    )


def clean_fields(fields: Mapping[str, FieldValue]) -> dict[str, FieldValue]:
    """Return the fields as an event has them: all text printable, and not too long."""
    return {
        name: printable(value, FIELD_TEXT_MAX) if isinstance(value, str) else value
        for name, value in fields.items()
    }


def format_time(time_us: int) -> str:
    """Return microseconds since 1970 as ``2026-11-21T19:40:47.123456Z``."""
    seconds, micros = divmod(time_us, 1_000_000)
    return f"{_second_text(seconds)}.{micros:06d}Z"


@lru_cache(maxsize=64)
def _second_text(seconds: int) -> str:
    """Remembered: what happens at once is told at once, and this is ten times the price of the rest."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def parse_time(text: str) -> int:
    """Return microseconds since 1970 of an ISO 8601 time; without a zone it is UTC.

    Raises:
        FormatError: the text is no such time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise FormatError(
            f"{text[:64]!r} is not a time; expected for example 2026-11-21T19:40:47Z"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def event_data(event: Event) -> dict[str, Any]:
    """Return what the JSON form of an event has, in its order."""
    data: dict[str, Any] = {"v": 1, "id": event.id, "time": format_time(event.time_us)}
    if event.received_us is not None:
        data["received"] = format_time(event.received_us)
    data["client"] = event.client
    data["class"] = event.event_class.value
    data["severity"] = event.severity.word
    data["code"] = event.code
    data["msg"] = event.msg
    data["fields"] = dict(event.fields)
    return data


def event_to_json(event: Event) -> str:
    """Return the event as one line of JSON, without the newline."""
    import json

    return json.dumps(event_data(event), ensure_ascii=False, separators=(",", ":"))


def pack_event(event: Event) -> dict[str, Any]:
    """Return the body of a report: what the agent knows of the event, ready for the codec."""
    return {
        "id": event.id,
        "time_us": event.time_us,
        "code": event.code,
        "class": event.event_class.value,
        "severity": int(event.severity),
        "msg": event.msg,
        "fields": dict(event.fields),
    }


def unpack_event(
    data: object, *, client: str | None = None, received_us: int | None = None
) -> Event:
    """Return the event of a report's decoded body, with every part checked.

    The words are the peer's: text is made printable and bounded, the code need not be one that
    this catalogue knows (a newer agent may have more). Client and receipt are the server's to say.

    Raises:
        FormatError: a part is missing, has another type, or is beyond its limit.
    """
    if type(data) is not dict or data.keys() != _PARTS:
        raise FormatError("a report's body is not a map of the seven parts of an event")
    time_us, code, msg = data["time_us"], data["code"], data["msg"]
    # Each part by its own check, but only where it is not what it nearly always is: these lines run
    # once for each report. A code of ours needs no look at its form.
    if type(time_us) is not int or not 0 <= time_us <= TIME_US_MAX:
        _integer(time_us, 0, TIME_US_MAX, "time_us")
    if type(code) is not str or code not in CATALOGUE:
        _matching(code, _CODE, "code")
    if type(msg) is not str or len(msg) > MSG_TEXT_MAX or not msg.isprintable():
        msg = printable(_text(msg, "msg"), MSG_TEXT_MAX)
    return sealed_event(
        _matching(data["id"], EVENT_ID, "id"),
        time_us,
        code,
        _member(data["class"], str, CLASSES, "class"),
        _member(data["severity"], int, SEVERITIES, "severity"),
        msg,
        _fields(data["fields"]),
        client,
        received_us,
    )


def _fields(fields: object) -> dict[str, FieldValue]:
    if type(fields) is not dict or len(fields) > FIELD_COUNT_MAX:
        raise FormatError(f"the fields of an event must be a map of at most {FIELD_COUNT_MAX}")
    check_names(tuple(fields))
    # As a rule there is nothing to do, and one look at all texts together says so.
    texts = [value for value in fields.values() if type(value) is str]
    together = "".join(texts)
    if len(together) > FIELD_TEXT_MAX or not together.isprintable():
        return {name: _field_value(value) for name, value in fields.items()}
    if len(texts) < len(fields):
        for value in fields.values():
            if type(value) is not str:
                _field_value(value)
    # The decoder made it for us alone.
    return fields


@lru_cache(maxsize=256)
def check_names(names: tuple[object, ...]) -> None:
    """Refuse what is no name of a field.

    The same names come again and again, one list for each kind of event. Only right ones are
    remembered: at most 96 names of 48 characters each.
    """
    for name in names:
        _matching(name, _FIELD_NAME, "a field's name")


def _field_value(value: object) -> FieldValue:
    if type(value) is str:
        return printable(value, FIELD_TEXT_MAX)
    if value is None or type(value) is bool:
        return value
    if type(value) is int:
        if value not in _RANGE_64_BIT:
            raise FormatError("a number in a field has more than 64 bits")
        return value
    return _text(value, "a field")


def _text(value: object, what: str) -> str:
    if type(value) is not str:
        raise FormatError(f"{what} of an event must be text, not {type(value).__name__}")
    return value


def _integer(value: object, least: int, most: int, what: str) -> int:
    # bool is a subclass of int, and would pass isinstance.
    if type(value) is not int or not least <= value <= most:
        raise FormatError(f"{what} of an event must be an integer from {least} to {most}")
    return value


def _matching(value: object, pattern: re.Pattern[str], what: str) -> str:
    text = _text(value, what)
    if pattern.fullmatch(text) is None:
        raise FormatError(f"{what} of an event has another form than {pattern.pattern}")
    return text


def _member(value: object, type_: type, members: Mapping[Any, _E], what: str) -> _E:
    # bool is a subclass of int, and True is equal to 1.
    if type(value) is not type_:
        raise FormatError(f"{what} of an event has the wrong type")
    member = members.get(value)
    if member is None:
        raise FormatError(f"{what} of an event is none of the known ones")
    return member
