"""Times in the manner of crontab(5)."""

# ruff: noqa: DTZ001 - the clock on the wall has no zone

from contextlib import suppress
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.errors import FormatError
from needfire_protocol.rc.crontab import Crontab, next_time, parse_crontab

SIZES = ((0, 59), (0, 23), (1, 28), (1, 12), (0, 6))


@st.composite
def fields(draw: st.DrawFn, least: int, most: int) -> str:
    first, last = sorted((draw(st.integers(least, most)), draw(st.integers(least, most))))
    step = draw(st.integers(1, 9))
    return draw(st.sampled_from(["*", f"*/{step}", f"{first}", f"{first}-{last}/{step}"]))


crontabs = st.tuples(*(fields(*size) for size in SIZES)).map(" ".join)
moments = st.datetimes(datetime(2024, 1, 1), datetime(2032, 1, 1))


def matches(text: str, moment: datetime) -> bool:
    """Decide slowly: each field by itself, from its text."""
    values = (moment.minute, moment.hour, moment.day, moment.month, moment.isoweekday() % 7)
    for field, value, (least, most) in zip(text.split(), values, SIZES, strict=True):
        span, _, step = field.partition("/")
        first, last = (
            (least, most + 30)
            if span == "*"
            else (int(p) for p in (span + "-" + span).split("-")[:2])
        )
        if not (first <= value <= last and (value - first) % int(step or 1) == 0):
            return False
    return True


@given(crontabs, moments)
def test_the_next_time_matches_all_five_fields_and_is_later(text: str, after: datetime) -> None:
    found = next_time([parse_crontab(text)], after)
    assert found is not None
    assert found > after
    assert found.second == found.microsecond == 0
    assert matches(text, found)


@given(crontabs, moments)
def test_nothing_between_now_and_the_next_time_matches(text: str, after: datetime) -> None:
    found = next_time([parse_crontab(text)], after)
    assert found is not None
    minute = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
    for _ in range(2_000):
        if minute >= found:
            break
        assert not matches(text, minute)
        minute += timedelta(minutes=1)


@given(st.lists(crontabs, min_size=1, max_size=4), moments)
def test_several_lines_are_a_list(texts: list[str], after: datetime) -> None:
    all_of_them = [parse_crontab(text) for text in texts]
    assert next_time(all_of_them, after) == min(
        found for each in all_of_them if (found := next_time([each], after)) is not None
    )


def test_names_ranges_and_both_sundays_are_understood() -> None:
    days = [parse_crontab(f"0 0 * * {day}").weekdays for day in ("Sun", "0", "7", "sunday")]
    assert days == [frozenset({0})] * 4
    assert parse_crontab("0 0 * * Fri-Sun").weekdays == {5, 6, 0}
    assert parse_crontab("0 0 * * 5-7").weekdays == {5, 6, 0}
    assert parse_crontab("0 0 * JAN-Mar Mon-Fri/2").weekdays == {1, 3, 5}
    assert parse_crontab("0 0 * * *").weekdays == set(range(7))
    assert parse_crontab("*/15 2-6/2 * * *") == Crontab(
        frozenset({0, 15, 30, 45}),
        frozenset({2, 4, 6}),
        frozenset(range(1, 32)),
        frozenset(range(1, 13)),
        frozenset(range(7)),
    )


def test_both_kinds_of_days_have_to_match() -> None:
    found = next_time([parse_crontab("0 0 13 * Fri")], datetime(2026, 1, 1))
    assert found == datetime(2026, 2, 13)


def test_the_29th_of_february_is_waited_for() -> None:
    assert next_time([parse_crontab("5 4 29 2 *")], datetime(2026, 1, 1)) == datetime(
        2028, 2, 29, 4, 5
    )
    assert next_time([parse_crontab("0 0 29 2 Mon")], datetime(2024, 3, 1)) == datetime(2044, 2, 29)


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("* * * * * *", "6 fields"),
        ("60 * * * *", "between 0 and 59"),
        ("* 24 * * *", "between 0 and 23"),
        ("* * 0 * *", "between 1 and 31"),
        ("* * * 13 *", "between 1 and 12"),
        ("* * * * 8", "between 0 and 7"),
        ("1,2 * * * *", "several lines instead of a list"),
        ("5-1 * * * *", "ends before it begins"),
        ("*/0 * * * *", "is 0"),
        ("mon * * * *", "no minute"),
        ("* * * xyz *", "no month"),
        ("-1 * * * *", "no minute"),
        ("* * 31 Feb *", "no day of any year"),
        ("\u0661 * * * *", "no minute"),
    ],
)
def test_what_is_no_schedule_is_refused(written: str, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        parse_crontab(written)


def test_the_end_of_the_calendar_is_no_error() -> None:
    assert next_time([parse_crontab("0 0 1 1 *")], datetime(9999, 6, 1)) is None


@given(st.text(max_size=40))
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    with suppress(FormatError):
        parse_crontab(text)
