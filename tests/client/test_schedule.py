"""When the next full check is due."""

# ruff: noqa: DTZ001 - the clock on the wall has no zone

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_client.schedule import JITTER, JITTER_MAX_S, RECHECK_S, CheckSchedule
from needfire_protocol.rc.crontab import parse_crontab


def test_the_first_check_is_due_at_once() -> None:
    assert CheckSchedule(600, now_s=100, random=lambda: 0.5).wait_s(100) == 0


@given(st.floats(1, 1e6), st.floats(0, 0.999))
def test_the_next_one_comes_within_the_interval_and_not_much_earlier(
    interval_s: float, drawn: float
) -> None:
    schedule = CheckSchedule(interval_s, now_s=0, random=lambda: drawn)
    schedule.started(0)
    assert interval_s * (1 - JITTER) <= schedule.wait_s(0) <= interval_s


def test_a_check_that_took_longer_than_the_interval_is_followed_by_the_next() -> None:
    schedule = CheckSchedule(60, now_s=0, random=lambda: 0.0)
    schedule.started(0)
    assert schedule.wait_s(500) == 0


# ---- by the clock on the wall --------------------------------------------------------------------

HOURLY = (parse_crontab("0 * * * *"),)


class Clock:
    """A clock that stands until it is set."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def by_the_clock(clock: Clock, drawn: float = 0.0) -> CheckSchedule:
    schedule = CheckSchedule(600, HOURLY, now_s=0, random=lambda: drawn, wall=clock)
    schedule.started(0)
    return schedule


def test_times_take_the_place_of_the_interval() -> None:
    clock = Clock(datetime(2026, 3, 4, 5, 59, 30))
    schedule = by_the_clock(clock)
    assert schedule.wait_s(100_000) == 30
    clock.now += timedelta(seconds=29)
    assert schedule.wait_s(100_029) == 1
    clock.now += timedelta(seconds=1)
    assert schedule.wait_s(100_030) == 0
    schedule.started(100_030)
    assert schedule.wait_s(100_030) == RECHECK_S


def test_the_first_check_is_due_at_once_whatever_the_times_say() -> None:
    clock = Clock(datetime(2026, 1, 1))
    assert CheckSchedule(600, HOURLY, now_s=7, random=lambda: 0.0, wall=clock).wait_s(7) == 0


@given(st.floats(0, 0.999))
def test_a_check_comes_a_little_later_than_its_time_and_never_earlier(drawn: float) -> None:
    clock = Clock(datetime(2026, 3, 4, 5, 59, 59))
    schedule = by_the_clock(clock, drawn)
    late_s = schedule.wait_s(0) - 1
    assert late_s == pytest.approx(min(JITTER_MAX_S * drawn, RECHECK_S - 1), abs=1e-5)
    clock.now += timedelta(seconds=1 + JITTER_MAX_S)
    assert schedule.wait_s(0) == 0


def test_a_clock_that_is_put_back_does_not_put_off_the_next_check() -> None:
    clock = Clock(datetime(2026, 3, 4, 5, 30))
    schedule = by_the_clock(clock)
    clock.now = datetime(2026, 3, 1, 4, 59, 50)
    assert schedule.wait_s(0) == 10
    clock.now = datetime(2026, 3, 1, 5, 0, 0)
    assert schedule.wait_s(0) == 0


def test_a_clock_that_jumps_over_a_time_makes_it_due() -> None:
    clock = Clock(datetime(2026, 3, 4, 5, 30))
    schedule = by_the_clock(clock)
    clock.now = datetime(2026, 3, 4, 6, 30)
    assert schedule.wait_s(0) == 0
