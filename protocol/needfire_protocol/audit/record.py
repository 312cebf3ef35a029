"""One record of the audit log: what it says, and the only bytes that say it.

A record is one line of ASCII: JSON without blanks, its parts in a fixed order. It holds its number
and the hash of the record before it, so that each one vouches for all that came before. The bytes
of the line, without the newline, are the leaf of the Merkle tree.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from needfire_protocol.audit.merkle import leaf_hash
from needfire_protocol.errors import FormatError
from needfire_protocol.escape import printable
from needfire_protocol.event import FieldValue, format_time, parse_time

__all__ = [
    "FIRST_PREVIOUS",
    "KEY_HANDED_OVER",
    "KEY_MADE",
    "RECORD_BYTES_MAX",
    "Draft",
    "Head",
    "Moment",
    "Record",
    "encode_record",
    "parse_head",
    "parse_record",
    "recorded",
]

FIRST_PREVIOUS: Final = bytes(32)
"""What the first record has in the place of its predecessor's hash."""

KEY_MADE: Final = "AUDIT_KEY_MADE"
KEY_HANDED_OVER: Final = "AUDIT_KEY_HANDED_OVER"
"""Codes of the two records that a verifier reads itself: they say who signs from there on."""

RECORD_BYTES_MAX: Final = 256 * 1024
"""Bytes of a line. What a peer can put into one is bounded far below."""

_TEXT_MAX: Final = 4_096
_FIELDS_MAX: Final = 64
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,47}")
_HEAD: Final = re.compile(
    rb'\{"n":(0|[1-9][0-9]{0,17}),"prev":"([0-9a-f]{64})","code":"([A-Z][A-Z0-9_]{0,63})",'
)
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_KINDS: Final = frozenset({str, int, bool, type(None)})
_INTEGERS: Final = range(-(2**63), 2**64)
_OUTCOMES: Final[Mapping[bool | None, str]] = {True: "success", False: "failure", None: "asked"}
_SUCCESS: Final = {word: is_success for is_success, word in _OUTCOMES.items()}
_PARTS: Final = (
    "n",
    "prev",
    "code",
    "time",
    "mono_us",
    "outcome",
    "subject",
    "client",
    "request",
    "fields",
)


@dataclass(frozen=True, slots=True)
class Moment:
    """When: by the wall clock, which may jump, and by one that does not.

    Attributes:
        time_us: microseconds since 1970, UTC.
        mono_us: microseconds of a clock of this process's machine that only goes forward.
    """

    time_us: int
    mono_us: int


class Draft(NamedTuple):
    """What is to be recorded; its number, predecessor and time come when it is appended.

    A tuple, because every batch of reports makes one.

    Attributes:
        code: key of the catalogue of events, or of one of the two records about keys.
        is_success: whether what was tried was done; None: it was only asked for.
        subject: who did it: a user of the admin tool, a client; empty for the server itself.
        client: whom it is about; None for none.
        request: runs through all records of one request; None for none.
        fields: values by name; text is made printable.
    """

    code: str
    is_success: bool | None = True
    subject: str = ""
    client: str | None = None
    request: str | None = None
    fields: Mapping[str, FieldValue] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was read."""

    number: int
    previous: bytes
    moment: Moment
    draft: Draft


class Head(NamedTuple):
    """What a verifier needs of a line; the hash covers the rest. A tuple, for millions of them."""

    number: int
    previous: bytes
    code: str
    hash: bytes


def encode_record(number: int, previous: bytes, moment: Moment, draft: Draft) -> bytes:
    """Return the line of a record, without the newline.

    Raises:
        FormatError: it would exceed ``RECORD_BYTES_MAX``, or a value cannot be written.
    """
    line = _usual_line(number, previous, moment, draft)
    return _any_line(number, previous, moment, draft) if line is None else line


def _any_line(number: int, previous: bytes, moment: Moment, draft: Draft) -> bytes:
    values = {name: _clean(value) for name, value in draft.fields.items()}
    _check(draft, values)
    data = {
        "n": number,
        "prev": previous.hex(),
        "code": draft.code,
        "time": format_time(moment.time_us),
        "mono_us": moment.mono_us,
        "outcome": _OUTCOMES[draft.is_success],
        "subject": _clean(draft.subject),
        "client": _clean(draft.client),
        "request": _clean(draft.request),
        "fields": values,
    }
    line = _line(data)
    if len(line) > RECORD_BYTES_MAX:
        raise FormatError(f"a record of {len(line)} bytes exceeds {RECORD_BYTES_MAX}")
    return line


def parse_head(line: bytes) -> Head | None:
    """Return number, predecessor, code and hash of a line; None where it does not begin as one.

    Fast, and not a whole check: what else stands in the line is covered by its hash alone.
    """
    found = _HEAD.match(line)
    if found is None or len(line) > RECORD_BYTES_MAX:
        return None
    number, previous, code = found.groups()
    return Head(int(number), bytes.fromhex(previous.decode()), code.decode(), leaf_hash(line))


def parse_record(line: bytes) -> Record:
    """Return what a line says.

    Raises:
        FormatError: it is not exactly what ``encode_record`` writes.
    """
    if len(line) > RECORD_BYTES_MAX:
        raise FormatError(f"a line of {len(line)} bytes exceeds {RECORD_BYTES_MAX}")
    try:
        data = json.loads(line)
        record = _record(data)
        again = encode_record(record.number, record.previous, record.moment, record.draft)
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError, OverflowError):
        raise FormatError("the line is no record") from None
    if again != line:
        raise FormatError("the record is not written in the one way that it has")
    return record


def recorded(text: str) -> str:
    """Return a text as the line of a record has it."""
    return printable(text, _TEXT_MAX)


class _Form(NamedTuple):
    """The line of records of one kind, with places for what differs between them.

    Attributes:
        quotes: how many quotes the text has, all of them its own.
        integers: where, of the subject, the client, the request and the fields, the numbers are.
    """

    text: str
    quotes: int
    integers: tuple[int, ...]


def _usual_line(number: int, previous: bytes, moment: Moment, draft: Draft) -> bytes | None:
    """Return what ``_any_line`` returns, at a tenth of the price; None where that takes a closer look.

    Nearly all records are some hundred bytes of a few kinds: numbers, and texts of which JSON escapes
    nothing. Every batch of reports leaves one, and writing it is most of what that costs.
    """
    fields = draft.fields
    values = (draft.subject, draft.client, draft.request, *fields.values())
    form = _form(draft.code, draft.is_success, tuple(fields), tuple(map(type, values)))
    if form is None:
        return None
    for place in form.integers:
        if values[place] not in _INTEGERS:
            return None
    time = format_time(moment.time_us)
    text = form.text % (number, previous.hex(), time, moment.mono_us, *values)
    # No text in a line of this length is too long. More quotes than the form has are some to escape.
    if len(text) > _TEXT_MAX or not text.isascii():
        return None
    line = text.encode()
    odd = len(line) - len(line.translate(None, _ODD))
    return line if odd == form.quotes else None


@lru_cache(256)
def _form(
    code: str, is_success: bool | None, names: tuple[str, ...], kinds: tuple[type, ...]
) -> _Form | None:
    """Return the form of such records; None where there is none, or some of it may be wrong.

    Args:
        kinds: of the subject, the client and the request, and then of the fields.
    """
    _check_words(code, names)
    if not (_PLACES.keys() >= set(kinds) and _TEXT_OR_NOTHING.issuperset(kinds[:3])):
        return None
    subject, client, request, *rest = [_PLACES[kind] for kind in kinds]
    pairs = ",".join([f'"{name}":{place}' for name, place in zip(names, rest, strict=True)])
    text = (
        f'{{"n":%d,"prev":"%s","code":"{code}","time":"%s","mono_us":%d,'
        f'"outcome":"{_OUTCOMES[is_success]}","subject":{subject},"client":{client},'
        f'"request":{request},"fields":{{{pairs}}}}}'
    )
    integers = [place for place, kind in enumerate(kinds) if kind is int]
    return _Form(text, text.count('"'), tuple(integers))


_PLACES: Final[Mapping[type, str]] = {str: '"%s"', int: "%d", type(None): "null%.0s"}
_TEXT_OR_NOTHING: Final = frozenset({str, type(None)})
_ODD: Final = bytes([*range(0x20), 0x7F]) + b'"\\'
"""All that is ASCII and that JSON escapes, or that is not printable."""


def _record(data: Any) -> Record:
    if type(data) is not dict or tuple(data) != _PARTS:
        raise FormatError("the line is no record")
    draft = Draft(
        data["code"],
        _SUCCESS[data["outcome"]],
        data["subject"],
        data["client"],
        data["request"],
        data["fields"],
    )
    moment = Moment(parse_time(data["time"]), data["mono_us"])
    if type(data["n"]) is not int or type(moment.mono_us) is not int:
        raise FormatError("the line is no record")
    return Record(data["n"], bytes.fromhex(data["prev"]), moment, draft)


def _line(data: Mapping[str, Any]) -> bytes:
    return _ENCODER.encode(data).encode("ascii")


def _clean(value: FieldValue) -> FieldValue:
    return recorded(value) if isinstance(value, str) else value


def _check(draft: Draft, values: Mapping[str, object]) -> None:
    _check_words(draft.code, tuple(values))
    for value in values.values():
        kind = type(value)
        if kind not in _KINDS or (kind is int and value not in _INTEGERS):
            raise FormatError("a field is text, a number of 64 bits, true, false or nothing")


@lru_cache(256)
def _check_words(code: str, names: tuple[str, ...]) -> None:
    """Refuse what is no code, or no names of fields.

    The same few kinds of records are written again and again. Only right ones are remembered.
    """
    if _CODE.fullmatch(code) is None:
        raise FormatError(f"{code[:64]!r} is no code of a record")
    if len(names) > _FIELDS_MAX or not all(_NAME.fullmatch(name) for name in names):
        raise FormatError(f"a record has at most {_FIELDS_MAX} fields, with names of letters")
