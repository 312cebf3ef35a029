"""An address is worth a few connections that come first, and only after a log-in from it."""

import pytest

from needfire_server import familiar as familiar_module
from needfire_server.familiar import CREDITS, LATELY_S, REFILL_S, SOURCES_OF_ONE_MAX, Familiar

HERE = "192.0.2.1"


def spent(familiar: Familiar, now_s: float, source: str = HERE) -> int:
    """How many connections come first now, one after the other."""
    count = 0
    while familiar.spend(source, now_s):
        count += 1
    return count


def test_nobody_is_familiar_who_has_not_logged_in() -> None:
    familiar = Familiar()
    assert not familiar.spend(HERE, 0.0)
    familiar.logged_in(HERE, "web1", 0.0)
    assert not familiar.spend("192.0.2.2", 0.0)
    assert familiar.spend(HERE, 0.0)


def test_credits_are_used_up_come_back_slowly_and_all_at_once_with_a_log_in() -> None:
    familiar = Familiar()
    familiar.logged_in(HERE, "web1", 100.0)
    assert spent(familiar, 100.0) == CREDITS
    assert spent(familiar, 100.0 + 0.99 * REFILL_S) == 0
    assert spent(familiar, 100.0 + 2 * REFILL_S) == 2
    assert spent(familiar, 100.0 + 1_000 * REFILL_S) == CREDITS, "no more than there were"
    familiar.logged_in(HERE, "web1", 100.0 + 1_000 * REFILL_S)
    assert spent(familiar, 100.0 + 1_000 * REFILL_S) == CREDITS


@pytest.mark.parametrize(("after_s", "known"), [(LATELY_S - 1, 1), (LATELY_S, 0)])
def test_what_was_long_ago_is_forgotten(after_s: float, known: int) -> None:
    familiar = Familiar()
    familiar.logged_in(HERE, "web1", 5.0)
    assert familiar.spend(HERE, 5.0 + after_s) is bool(known)
    assert len(familiar) == known


@pytest.mark.parametrize("count", [2, 3, 4])
def test_beyond_the_bound_the_one_that_logged_in_longest_ago_goes(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(familiar_module, "SOURCES_MAX", 3)
    familiar = Familiar()
    familiar.logged_in("first", "web1", 0.0)
    familiar.logged_in("second", "web1", 1.0)
    familiar.logged_in("first", "web1", 2.0)
    for number in range(count - 2):
        familiar.logged_in(f"other {number}", f"host {number}", 3.0)
    assert len(familiar) == min(count, 3)
    assert familiar.spend("first", 4.0)
    assert familiar.spend("second", 4.0) is (count < 4)


@pytest.mark.parametrize("count", [SOURCES_OF_ONE_MAX - 1, SOURCES_OF_ONE_MAX, 50])
def test_one_client_makes_few_addresses_familiar_and_those_it_came_from_first(count: int) -> None:
    """Somebody who has its secret and a network would have the credits of all its addresses."""
    familiar = Familiar()
    familiar.logged_in(HERE, "web1", 0.0)
    for number in range(1, count):
        familiar.logged_in(f"2001:db8:{number:x}::", "web1", float(number))
    assert len(familiar) == min(count, SOURCES_OF_ONE_MAX)
    assert familiar.spend(HERE, 60.0), "the agent's own address is not driven out"
    familiar.logged_in("2001:db8:1::", "web2", 60.0)
    assert familiar.spend("2001:db8:1::", 60.0)


def test_an_address_that_is_familiar_no_more_makes_room_for_another_of_its_client() -> None:
    familiar = Familiar()
    for number in range(SOURCES_OF_ONE_MAX):
        familiar.logged_in(f"192.0.2.{number}", "web1", float(number))
    familiar.logged_in("198.51.100.1", "web1", LATELY_S - 1)
    assert not familiar.spend("198.51.100.1", LATELY_S - 1)
    familiar.logged_in("198.51.100.1", "web1", LATELY_S)
    assert familiar.spend("198.51.100.1", LATELY_S)


def test_a_client_that_is_registered_anew_begins_anew() -> None:
    familiar = Familiar()
    for number in range(SOURCES_OF_ONE_MAX):
        familiar.logged_in(f"192.0.2.{number}", "web1", 0.0)
    familiar.forget("web1")
    familiar.logged_in(HERE, "web1", 1.0)
    assert familiar.spend(HERE, 1.0)
