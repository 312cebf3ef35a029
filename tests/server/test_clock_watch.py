"""A clock that jumps is told from a heartbeat that comes late."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_server.clock_watch import ClockWatch, whole_seconds

S = 1_000_000
LIMIT = 60 * S
BEAT = 60 * S


def beats(watch: ClockWatch, offsets_s: list[int]) -> list[int | None]:
    """One heartbeat a minute, each from a clock that far from the steady one."""
    return [
        watch.moved_us(number * BEAT + offset * S, number * BEAT, LIMIT)
        for number, offset in enumerate(offsets_s)
    ]


@pytest.mark.parametrize(
    ("jump_s", "is_told"), [(60, False), (61, True), (-60, False), (-61, True)]
)
def test_a_jump_beyond_the_limit_is_told_when_the_next_heartbeat_agrees(
    jump_s: int, is_told: bool
) -> None:
    told = beats(ClockWatch(), [0, 0, jump_s, jump_s, jump_s])
    assert told == [None, None, None, jump_s * S if is_told else None, None]


@given(st.lists(st.integers(0, 600), min_size=1, max_size=20))
def test_late_heartbeats_alone_are_no_jump_unless_two_are_late_alike(delays_s: list[int]) -> None:
    alternating = [each for delay in delays_s for each in (-delay if delay > 90 else 0, 0)]
    assert not any(beats(ClockWatch(), [0, *alternating]))


def test_heartbeats_that_were_held_up_together_are_no_jump() -> None:
    assert not any(beats(ClockWatch(), [0, -240, -180, -120, -60, 0, 0]))


def test_a_clock_that_drifts_does_not_jump() -> None:
    assert not any(beats(ClockWatch(), list(range(0, 3_000, 50))))


def test_a_jump_back_and_forth_is_told_twice() -> None:
    assert [each for each in beats(ClockWatch(), [0, -3600, -3600, 0, 0]) if each] == [
        -3600 * S,
        3600 * S,
    ]


def test_a_clock_that_differs_is_told_once_until_it_agrees_again() -> None:
    watch = ClockWatch()
    told = [watch.differs_us(far * S, 0, LIMIT) for far in (61, 61, 61, 60, 0, 0, -61, -61)]
    assert told == [None, 61 * S, None, None, None, None, None, -61 * S]
    assert watch.difference_us == -61 * S


def test_seconds_are_rounded() -> None:
    assert (whole_seconds(-1_499_999), whole_seconds(1_600_000)) == (-1, 2)
