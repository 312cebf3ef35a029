"""What one source may make us say, and that nothing is left out in silence."""

from hypothesis import given
from hypothesis import strategies as st

from needfire_server.rate_limit import PUSHED_OUT, RateLimiter, Suppressed


def test_a_burst_is_admitted_and_the_next_one_is_not() -> None:
    limiter = RateLimiter(burst=3, per_s=1)

    assert [limiter.admit("a", 0) for _ in range(4)] == [True, True, True, False]


def test_time_admits_again() -> None:
    limiter = RateLimiter(burst=1, per_s=0.5)

    assert limiter.admit("a", 10)
    assert not limiter.admit("a", 11.9)
    assert limiter.admit("a", 12)


def test_sources_do_not_take_from_each_other() -> None:
    limiter = RateLimiter(burst=1, per_s=1)

    assert limiter.admit("a", 0)
    assert limiter.admit("b", 0)
    assert not limiter.admit("a", 0)


def test_what_was_suppressed_is_told_once() -> None:
    limiter = RateLimiter(burst=1, per_s=1)
    for _ in range(5):
        limiter.admit("a", 0)

    assert limiter.collect(0) == [Suppressed("a", 4)]
    assert limiter.collect(0) == []


def test_quiet_sources_are_forgotten() -> None:
    limiter = RateLimiter(burst=1, per_s=1)
    limiter.admit("a", 0)

    limiter.collect(0.5)
    assert len(limiter._buckets) == 1
    limiter.collect(1)
    assert len(limiter._buckets) == 0


def test_more_sources_than_are_told_apart_are_counted_together() -> None:
    limiter = RateLimiter(burst=1, per_s=1, sources_max=2)
    for source in "aab":
        limiter.admit(source, 0)
    assert len(limiter._buckets) == 2
    limiter.admit("c", 0)

    assert len(limiter._buckets) == 2
    assert limiter.collect(0) == [Suppressed(PUSHED_OUT, 1)]


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 100), st.booleans()), max_size=200)
)
def test_everything_is_admitted_or_told(steps: list[tuple[str, float, bool]]) -> None:
    limiter = RateLimiter(burst=2, per_s=0.1, sources_max=3)
    now, refused, told = 0.0, 0, 0
    for source, pause_s, collects in steps:
        now += pause_s
        refused += not limiter.admit(source, now)
        if collects:
            told += sum(suppressed.count for suppressed in limiter.collect(now))

    assert told + sum(suppressed.count for suppressed in limiter.collect(now)) == refused
