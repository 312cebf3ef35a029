"""How long a scan pauses, and which looks make what was read ahead stale."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_client.looks import LOOKS_MAX, RecentLooks, touches
from needfire_client.throttle import BURST_S, Throttle

steps = st.lists(
    st.tuples(st.floats(0, 0.5), st.floats(0, 2), st.integers(0, 10**6)), min_size=1, max_size=50
)


@given(steps, st.floats(1, 99), st.sampled_from([0, 1_000, 10**6]))
def test_whoever_pauses_as_told_stays_within_both_limits(
    taken: list[tuple[float, float, int]], percent: float, rate: int
) -> None:
    throttle = Throttle(percent, rate, now_s=100, cpu_s=5, bytes_read=7)
    now_s, cpu_s, read = 100.0, 5.0, 7
    for cpu, waited, count in taken:
        cpu_s, read = cpu_s + cpu, read + count
        now_s += cpu + waited
        now_s += throttle.pause_s(now_s, cpu_s, read)
        elapsed_s = now_s - 100 + BURST_S + 1e-6
        assert cpu_s - 5 <= elapsed_s * percent / 100
        assert not rate or read - 7 <= elapsed_s * rate


def test_time_that_was_not_used_is_not_saved_up() -> None:
    throttle = Throttle(50, 0, now_s=0, cpu_s=0, bytes_read=0)
    assert throttle.pause_s(3_600, 0, 0) == 0
    assert throttle.pause_s(3_601, 1, 0) == pytest.approx(2 - BURST_S)


@pytest.mark.parametrize(
    ("percent", "rate", "wanted"), [(99, 0, False), (100, 0, True), (400, 0, True), (400, 1, False)]
)
def test_one_thread_cannot_use_more_than_a_core(percent: float, rate: int, wanted: bool) -> None:
    throttle = Throttle(percent, rate, now_s=0, cpu_s=0, bytes_read=0)
    assert throttle.is_unlimited is wanted


paths = st.lists(st.sampled_from([b"a", b"b"]), min_size=1, max_size=4).map(
    lambda names: b"/" + b"/".join(names)
)


@given(st.lists(paths, max_size=6), paths, st.integers(0, 6))
def test_a_directory_is_touched_by_the_looks_after_a_moment_and_no_others(
    looked: list[bytes], directory: bytes, since: int
) -> None:
    looks = RecentLooks()
    for path in looked:
        looks.add(path)
    wanted = any(touches(path, directory) for path in looked[since:])
    assert looks.touched(directory, since=since) is wanted
    looks.clear()
    assert not looks.touched(directory, since=0)


def test_with_too_many_looks_everything_before_them_counts_as_touched() -> None:
    looks = RecentLooks()
    for number in range(LOOKS_MAX + 1):
        looks.add(b"/x/%d/y" % number)
    assert looks.touched(b"/elsewhere", since=LOOKS_MAX - 1)
    assert not looks.touched(b"/elsewhere", since=LOOKS_MAX + 1)
