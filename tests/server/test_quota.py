"""In the long run nobody gets more than its rate, and who keeps to it never waits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_server.quota import SWEPT_AT_ONCE, Allowance, HeldBack, Quotas, Wish

TEN_AT_ONCE = Allowance(burst=10, per_s=2)


def wait_s(quotas: Quotas, now_s: float, client: str = "web1") -> float:
    return quotas.wait_s(client, Wish.REPORTS, TEN_AT_ONCE, now_s)


def charge(quotas: Quotas, amount: float, now_s: float, client: str = "web1") -> None:
    quotas.charge(client, Wish.REPORTS, TEN_AT_ONCE, amount, now_s)


@pytest.mark.parametrize(("amount", "seconds"), [(9, 0), (10, 0), (11, 0.5), (30, 10)])
def test_what_runs_over_has_to_run_down_before_the_next(amount: int, seconds: float) -> None:
    quotas = Quotas()
    charge(quotas, amount, 100.0)
    assert wait_s(quotas, 100.0) == seconds
    assert wait_s(quotas, 100.0 + seconds) == 0


def test_one_client_does_not_use_up_what_another_may_have() -> None:
    quotas = Quotas()
    charge(quotas, 1_000, 0.0)
    assert wait_s(quotas, 0.0, "web2") == 0
    assert quotas.wait_s("web1", Wish.FILES, TEN_AT_ONCE, 0.0) == 0


def test_a_higher_rate_counts_from_now_on() -> None:
    quotas = Quotas()
    charge(quotas, 110, 0.0)
    assert quotas.wait_s("web1", Wish.REPORTS, Allowance(10, 100), 0.0) == 1


def test_begin_and_end_of_being_held_back_are_told_once_with_what_it_came_to() -> None:
    quotas = Quotas()
    assert quotas.hold("web1", 5, 2.0, 100.0)
    assert not quotas.hold("web1", 7, 1.0, 103.0)
    assert quotas.held == 1
    assert quotas.sweep(113.9) == []
    assert quotas.sweep(114.0) == [HeldBack("web1", 4.0, 3.0, 12)]
    assert quotas.sweep(200.0) == []
    assert quotas.hold("web1", 1, 1.0, 201.0)


def test_who_has_used_nothing_lately_takes_no_memory() -> None:
    quotas = Quotas()
    charge(quotas, 4, 0.0)
    quotas.sweep(1.9)
    assert quotas._buckets
    quotas.sweep(2.0)
    assert not quotas._buckets


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_sweep_looks_at_a_bounded_number_of_clients_and_in_turn_at_all(more: int) -> None:
    quotas = Quotas()
    count = 2 * SWEPT_AT_ONCE + more
    for number in range(count):
        charge(quotas, 4, 0.0, f"web{number}")
    left = []
    for _ in range(4):
        quotas.sweep(100.0)
        left.append(len(quotas._buckets))
    assert left == [max(0, count - SWEPT_AT_ONCE * sweep) for sweep in range(1, 5)]


def test_what_came_since_a_round_of_sweeps_began_is_forgotten_in_the_next() -> None:
    quotas = Quotas()
    for number in range(SWEPT_AT_ONCE + 1):
        charge(quotas, 4, 0.0, f"web{number}")
    quotas.sweep(100.0)
    charge(quotas, 4, 0.0, "late")
    quotas.sweep(100.0)
    assert list(quotas._buckets) == ["late"]
    assert wait_s(quotas, 100.0, "late") == 0
    quotas.sweep(100.0)
    assert not quotas._buckets


@given(steps=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 20)), max_size=50))
def test_no_pattern_of_wishes_gets_more_than_burst_rate_and_one_wish(
    steps: list[tuple[int, int]],
) -> None:
    quotas = Quotas()
    now_s, got = 0.0, 0
    for amount, pause_s in steps:
        now_s += pause_s + wait_s(quotas, now_s + pause_s)
        assert got <= TEN_AT_ONCE.burst + TEN_AT_ONCE.per_s * now_s + 1e-6
        charge(quotas, amount, now_s)
        got += amount
