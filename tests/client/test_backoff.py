"""Waits between attempts: they grow, are bounded, and spread."""

import random

import pytest

from needfire_client.backoff import LEAST_S, MOST_S, Backoff


def test_the_upper_bound_doubles_until_its_limit() -> None:
    backoff = Backoff(lambda: 0.999999)
    delays = [round(backoff.next_delay_s()) for _ in range(9)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_delay_is_never_nothing() -> None:
    backoff = Backoff(lambda: 0.0)
    assert {backoff.next_delay_s() for _ in range(20)} == {LEAST_S}


def test_after_a_success_it_begins_anew() -> None:
    backoff = Backoff(lambda: 0.999999)
    for _ in range(10):
        backoff.next_delay_s()
    backoff.reset()
    assert backoff.next_delay_s() <= 1


def test_a_thousand_agents_do_not_come_back_in_one_second() -> None:
    source = random.Random(7)
    backoffs = [Backoff(source.random) for _ in range(1000)]
    for backoff in backoffs:
        for _ in range(8):
            last_s = backoff.next_delay_s()
            assert LEAST_S <= last_s <= MOST_S
    seconds = [int(backoff.next_delay_s()) for backoff in backoffs]
    assert max(map(seconds.count, set(seconds))) < 60


def test_a_polite_backoff_keeps_its_least_wait() -> None:
    backoff = Backoff(lambda: 0.0, first_s=60, most_s=600, least_s=60)
    assert backoff.next_delay_s() == pytest.approx(60)
