"""What a field of a frame or message may hold: one table drives encoder and decoder.

A record is a dataclass; on the wire it is an array of its fields in the order of its table. Each
field kind turns a decoded value into a checked one, or raises. Types are compared exactly: a bool
is an int to ``isinstance``.
"""

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final, Protocol

from needfire_protocol.codec import decode, encode
from needfire_protocol.errors import FormatError
from needfire_protocol.escape import printable
from needfire_protocol.limits import DETAIL_TEXT_MAX, WORD_TEXT_MAX, DecodingLimits
from needfire_protocol.plain_classes import dataclass

__all__ = [
    "TIME_US",
    "UNSIGNED_32",
    "UNSIGNED_64",
    "Binary",
    "Boolean",
    "Choice",
    "Detail",
    "FieldKind",
    "Integer",
    "Numbers",
    "Optional",
    "RecordTable",
    "Several",
    "Word",
    "pack_fields",
    "unpack_fields",
]


class FieldKind(Protocol):
    """How one field is written and read."""

    def pack(self, value: Any) -> object:
        """Return what goes on the wire; ``unpack`` checks it before it leaves."""
        ...

    def unpack(self, value: object) -> Any:
        """Return the field of a decoded value.

        Raises:
            FormatError: the value has another type or is out of bounds.
        """
        ...


RecordTable = Mapping[str, FieldKind]
"""Field kinds by attribute name, in wire order, which is that of the fields of the record's class."""


def pack_fields(record: object, table: RecordTable, limits: DecodingLimits) -> bytes:
    """Return the encoded array of the fields of a record.

    Raises:
        FormatError: a value is not what its table allows.
    """
    values = []
    name = ""
    try:
        for name, kind in table.items():
            packed = kind.pack(getattr(record, name))
            kind.unpack(packed)
            values.append(packed)
    except FormatError as error:
        raise _about_field(name, error) from error
    data = encode(values)
    if len(data) > limits.size_bytes_max:
        raise FormatError(f"{len(data)} encoded bytes exceed the limit of {limits.size_bytes_max}")
    return data


def unpack_fields(data: bytes, table: RecordTable, limits: DecodingLimits) -> list[Any]:
    """Return the checked values of an encoded array, in wire order.

    Raises:
        FormatError: not such an array.
    """
    # Each kind of field looks at the very type of all that it takes, and takes nothing nested deeper
    # than it says: so only what is refused anyway has to be gone through for that.
    values = decode(data, limits=limits, is_only_compared=True)
    if type(values) is not list or len(values) != len(table):
        decode(data, limits=limits)  # What is wrong with all of it is told before that.
        raise FormatError(f"expected an array of {len(table)} fields")
    fields: list[Any] = []
    # In one go, and not by a call for each field: every frame and every message passes here.
    try:
        for kind, value in zip(table.values(), values):  # noqa: B905  # of one length
            fields.append(kind.unpack(value))
    except FormatError as error:
        decode(data, limits=limits)
        raise _about_field(list(table)[len(fields)], error) from error
    return fields


def _about_field(name: str, error: FormatError) -> FormatError:
    return FormatError(f"field {name}: {error}")


class _Plain:
    """A kind whose values look the same in memory and on the wire."""

    __slots__ = ()

    def pack(self, value: Any) -> object:
        return value


@dataclass(frozen=True, slots=True)
class Integer(_Plain):
    """A whole number within bounds, both included."""

    least: int
    most: int

    def unpack(self, value: object) -> int:
        if type(value) is not int or not self.least <= value <= self.most:
            raise FormatError(f"expected an integer from {self.least} to {self.most}")
        return value


@dataclass(frozen=True, slots=True)
class Boolean(_Plain):
    """True or false, and not 0 or 1."""

    def unpack(self, value: object) -> bool:
        if type(value) is not bool:
            raise FormatError("expected a boolean")
        return value


@dataclass(frozen=True, slots=True)
class Binary(_Plain):
    """Bytes of a length within bounds, both included; exactly ``least`` if ``most`` is None."""

    least: int
    most: int | None = None

    def unpack(self, value: object) -> bytes:
        most = self.least if self.most is None else self.most
        if type(value) is not bytes or not self.least <= len(value) <= most:
            raise FormatError(f"expected {self.least} to {most} bytes")
        return value


@dataclass(frozen=True, slots=True)
class Word(_Plain):
    """Printable ASCII for programs, 1 to 64 characters: nothing to escape anywhere."""

    def unpack(self, value: object) -> str:
        if type(value) is not str or _WORD.fullmatch(value) is None:
            raise FormatError(f"expected 1 to {WORD_TEXT_MAX} printable ASCII characters")
        return value


@dataclass(frozen=True, slots=True)
class Detail:
    """Text for people: made printable and cut by the sender, and again by who receives it."""

    def pack(self, value: str) -> str:
        return printable(value, DETAIL_TEXT_MAX)

    def unpack(self, value: object) -> str:
        if type(value) is not str or len(value) > DETAIL_TEXT_MAX:
            raise FormatError(f"expected text of at most {DETAIL_TEXT_MAX} characters")
        return printable(value, DETAIL_TEXT_MAX)


@dataclass(frozen=True, slots=True)
class Choice:
    """One member of an enumeration, or one of some words."""

    allowed: type[Enum] | frozenset[str]

    def pack(self, value: Any) -> object:
        return value.value if isinstance(value, Enum) else value

    def unpack(self, value: object) -> Any:
        if type(value) not in (str, int):
            raise FormatError("expected a text or a number")
        if isinstance(self.allowed, frozenset):
            return self._word(value, self.allowed)
        try:
            return self.allowed(value)
        except ValueError:
            raise FormatError(f"not a known {self.allowed.__name__}") from None

    @staticmethod
    def _word(value: object, allowed: frozenset[str]) -> object:
        if value not in allowed:
            raise FormatError(f"expected one of {', '.join(sorted(allowed))}")
        return value


@dataclass(frozen=True, slots=True)
class Optional:
    """A value of another kind, or nothing."""

    kind: FieldKind

    def pack(self, value: Any) -> object:
        return None if value is None else self.kind.pack(value)

    def unpack(self, value: object) -> Any:
        return None if value is None else self.kind.unpack(value)


@dataclass(frozen=True, slots=True)
class Several:
    """Up to so many values of one kind."""

    kind: FieldKind
    count_max: int

    def pack(self, value: Iterable[Any]) -> list[object]:
        return [self.kind.pack(each) for each in value]

    def unpack(self, value: object) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > self.count_max:
            raise FormatError(f"expected an array of at most {self.count_max}")
        return tuple(self.kind.unpack(each) for each in value)


@dataclass(frozen=True, slots=True)
class Numbers:
    """Some different numbers from 1 to 255, best first: what a side offers."""

    count_max: int

    def pack(self, value: Iterable[int]) -> list[int]:
        return list(value)

    def unpack(self, value: object) -> tuple[int, ...]:
        if type(value) is not list or not 1 <= len(value) <= self.count_max:
            raise FormatError(f"expected an array of 1 to {self.count_max} numbers")
        numbers = tuple(_NUMBER.unpack(item) for item in value)
        if len(set(numbers)) != len(numbers):
            raise FormatError("a number stands twice")
        return numbers


_WORD: Final = re.compile(rf"[ -~]{{1,{WORD_TEXT_MAX}}}")
_NUMBER: Final = Integer(1, 255)

UNSIGNED_32: Final = Integer(0, 2**32 - 1)
UNSIGNED_64: Final = Integer(0, 2**64 - 1)
TIME_US: Final = Integer(0, 253_402_300_799_999_999)
"""Microseconds since 1970, up to the end of the year 9999: what a log can write."""
