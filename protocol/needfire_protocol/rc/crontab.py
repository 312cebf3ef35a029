"""Times in the manner of crontab(5), as Samhain takes them; and which of them comes next. Pure.

Five fields (minute, hour, day of the month, month, weekday), each ``*``, a value, or a range, with
a step behind ``/``; months and weekdays have names as well; Sunday is 0 and 7. No lists: several
lines are a list. All five fields have to match, as in Samhain; cron lets one of the two days do.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from needfire_protocol.errors import FormatError
from needfire_protocol.escape import printable
from needfire_protocol.plain_classes import dataclass

__all__ = ["Crontab", "next_time", "parse_crontab"]

_MONTHS: Final = (
    "jan",
    "feb",
    "mar",
    "apr",
    "may",
    "jun",
    "jul",
    "aug",
    "sep",
    "oct",
    "nov",
    "dec",
)
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final[tuple[tuple[str, int, int, tuple[str, ...]], ...]] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _WEEKDAYS),
)
_FIELD: Final = re.compile(
    r"(?:\*|(?P<first>[0-9]{1,2}|[a-z]{3,9})(?:-(?P<last>[0-9]{1,2}|[a-z]{3,9}))?)"
    r"(?:/(?P<step>[0-9]{1,2}))?",
    re.ASCII,
)

_DAYS_MAX: Final = 40 * 366
"""Days that are looked through: the 29th of February falls on a given weekday at least once in 40
years."""


@dataclass(frozen=True, slots=True)
class Crontab:
    """The values that each field takes."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """Sunday is 0."""

    def has_day(self, moment: datetime) -> bool:
        """True where the day of the moment is one of its days."""
        return (
            moment.month in self.months
            and moment.day in self.days
            and moment.isoweekday() % 7 in self.weekdays
        )


def parse_crontab(text: str) -> Crontab:
    """Return the times that five fields name.

    Raises:
        FormatError: they are not five, or one is not understood, or no day has them all.
    """
    written = text.split()
    if len(written) != len(_FIELDS):
        raise FormatError(
            f"{len(written)} fields; expected 5: minute hour day month weekday, such as 0 3 * * Sun"
        )
    minutes, hours, days, months, weekdays = (
        _values(field.lower(), *form) for field, form in zip(written, _FIELDS, strict=True)
    )
    found = Crontab(minutes, hours, days, months, frozenset(day % 7 for day in weekdays))
    if next_time([found], datetime(2000, 1, 1)) is None:  # noqa: DTZ001 -- any calendar will do
        raise FormatError("no day of any year has these fields")
    return found


def _values(
    written: str, what: str, least: int, most: int, names: tuple[str, ...]
) -> frozenset[int]:
    match = _FIELD.fullmatch(written)
    shown = f"'{printable(written, 40)}'"
    if match is None:
        hint = "; write several lines instead of a list" if "," in written else ""
        raise FormatError(f"{shown} is no {what}{hint}")
    step = int(match["step"] or 1)
    if not step:
        raise FormatError(f"the step of {shown} is 0")
    if match["first"] is None:
        first, last = least, most - (names is _WEEKDAYS)
    else:
        first = _value(match["first"], what, least, most, names)
        last = first if match["last"] is None else _value(match["last"], what, least, most, names)
        if names is _WEEKDAYS and match["last"] is not None and last == 0 < first:
            last = 7
    if last < first:
        raise FormatError(f"the {what} {shown} ends before it begins")
    return frozenset(range(first, last + 1, step))


def _value(word: str, what: str, least: int, most: int, names: tuple[str, ...]) -> int:
    if word.isdigit():
        if not least <= int(word) <= most:
            raise FormatError(f"the {what} {word} must be between {least} and {most}")
        return int(word)
    for number, name in enumerate(names, start=least):
        if word[:3] == name:
            return number
    raise FormatError(f"'{word}' is no {what}")


def next_time(crontabs: Sequence[Crontab], after: datetime) -> datetime | None:
    """Return the first time that one of them names after a local time; None for never.

    Args:
        after: without a zone, as the clock on the wall shows it.
    """
    return min(
        (found for each in crontabs if (found := _next(each, after)) is not None), default=None
    )


def _next(crontab: Crontab, after: datetime) -> datetime | None:
    day = after.replace(hour=0, minute=0, second=0, microsecond=0)
    for _ in range(_DAYS_MAX):
        if crontab.has_day(day):
            found = _first_of(crontab, day, after)
            if found is not None:
                return found
        try:
            day += timedelta(days=1)
        except OverflowError:
            return None
    return None


def _first_of(crontab: Crontab, day: datetime, after: datetime) -> datetime | None:
    """Return the first time on a day that is after another time; at most 1,440 are tried."""
    moments = (
        day.replace(hour=hour, minute=minute)
        for hour in sorted(crontab.hours)
        for minute in sorted(crontab.minutes)
    )
    return next((moment for moment in moments if moment > after), None)
