"""Which numbers of a stream have come: against a plain set of numbers."""

from hypothesis import given
from hypothesis import strategies as st

from needfire_server.storage.ledger import Ledger

NUMBERS = st.integers(1, 40)


def gaps_of(come: set[int]) -> dict[int, int]:
    """What is missing below the highest, as first -> last."""
    gaps: dict[int, int] = {}
    for number in range(1, max(come, default=0)):
        if number not in come:
            first = next(n for n in range(number, 0, -1) if n == 1 or n - 1 in come)
            gaps[first] = number
    return gaps


@given(st.sets(NUMBERS), st.lists(NUMBERS))
def test_each_number_is_new_once_and_the_gaps_are_what_is_missing(
    before: set[int], wanted: list[int]
) -> None:
    """Goal: what it says to change turns the store's gaps into the true ones."""
    stored = gaps_of(before)
    ledger = Ledger(max(before, default=0), stored.items())
    come = set(before)
    for number in wanted:
        assert ledger.take(number) is (number not in come)
        come.add(number)
    for first in ledger.closed():
        del stored[first]
    for first, last in ledger.opened():
        assert first not in stored
        stored[first] = last
    assert stored == gaps_of(come)
    assert ledger.highest == max(come, default=0)


@given(st.sets(NUMBERS, min_size=1), st.sets(NUMBERS))
def test_the_gaps_that_hold_a_wanted_number_are_enough(before: set[int], wanted: set[int]) -> None:
    everything = gaps_of(before)
    needed = {
        first: last
        for first, last in everything.items()
        if any(first <= number <= last for number in wanted)
    }
    whole = Ledger(max(before), everything.items())
    part = Ledger(max(before), needed.items())
    for number in sorted(wanted):
        assert whole.take(number) == part.take(number)
    assert sorted(whole.opened()) == sorted(part.opened())
    assert sorted(whole.closed()) == sorted(part.closed())


@given(st.sets(NUMBERS), st.lists(NUMBERS))
def test_in_a_stream_that_leaves_numbers_out_only_higher_ones_are_new(
    before: set[int], wanted: list[int]
) -> None:
    highest = max(before, default=0)
    ledger = Ledger(highest)
    for number in wanted:
        assert ledger.rise(number) is (number > highest)
        highest = max(highest, number)
    assert ledger.highest == highest
    assert not ledger.opened()
