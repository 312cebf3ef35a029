"""When the next full check is due."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_client.schedule import JITTER, CheckSchedule


def test_the_first_check_is_due_at_once() -> None:
    assert CheckSchedule(600, now_s=100, random=lambda: 0.5).wait_s(100) == 0


@given(st.floats(1, 1e6), st.floats(0, 0.999))
def test_the_next_one_comes_within_the_interval_and_not_much_earlier(
    interval_s: float, drawn: float
) -> None:
    schedule = CheckSchedule(interval_s, now_s=0, random=lambda: drawn)
    schedule.started(0)
    assert interval_s * (1 - JITTER) <= schedule.wait_s(0) <= interval_s


def test_a_request_brings_it_forward_and_never_back() -> None:
    schedule = CheckSchedule(600, now_s=0, random=lambda: 0.0)
    schedule.started(0)
    schedule.request(10, within_s=5)
    assert schedule.wait_s(10) == 5
    schedule.request(11, within_s=100)
    assert schedule.wait_s(11) == 4


def test_a_check_that_starts_answers_every_request() -> None:
    schedule = CheckSchedule(600, now_s=0, random=lambda: 0.0)
    schedule.request(0)
    schedule.started(1)
    assert schedule.wait_s(1) == 600


def test_a_check_that_took_longer_than_the_interval_is_followed_by_the_next() -> None:
    schedule = CheckSchedule(60, now_s=0, random=lambda: 0.0)
    schedule.started(0)
    assert schedule.wait_s(500) == 0


def test_another_interval_counts_from_the_last_start() -> None:
    schedule = CheckSchedule(600, now_s=0, random=lambda: 0.0)
    schedule.started(100)
    schedule.set_interval(50)
    assert schedule.wait_s(120) == pytest.approx(30)
    schedule.set_interval(50)
    assert schedule.wait_s(120) == pytest.approx(30)
