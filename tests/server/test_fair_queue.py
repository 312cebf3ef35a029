"""However much one wants, the others come to their turn."""

from hypothesis import given
from hypothesis import strategies as st

from needfire_server.fair_queue import FairQueue

WISHES = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 50)), max_size=60)


def drained(queue: FairQueue[tuple[str, int]]) -> list[tuple[str, int]]:
    items = []
    while (item := queue.pop()) is not None:
        items.append(item)
    return items


def test_who_waits_alone_is_served_at_once_whatever_it_costs() -> None:
    queue: FairQueue[str] = FairQueue(10)
    queue.push("a", "large", 1_000_000)
    assert queue.pop() == "large"
    assert queue.pop() is None


def test_a_small_wish_overtakes_all_that_a_flood_has_waiting() -> None:
    queue: FairQueue[str] = FairQueue(10)
    for number in range(100):
        queue.push("flood", f"flood {number}", 100)
    queue.push("quiet", "quiet", 5)
    assert queue.pop() == "quiet"
    assert queue.pop() == "flood 0"


def test_nobody_saves_up_turns_while_it_wants_nothing() -> None:
    queue: FairQueue[str] = FairQueue(10)
    for _ in range(50):
        queue.push("a", "small", 1)
        assert queue.pop() == "small"
    queue.push("a", "large", 100)
    queue.push("b", "first", 10)
    assert queue.pop() == "first"


@given(wishes=WISHES)
def test_everything_comes_out_once_and_in_the_order_of_its_source(
    wishes: list[tuple[str, int]],
) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue(7)
    for number, (source, cost) in enumerate(wishes):
        queue.push(source, (source, number), cost)
    assert len(queue) == len(wishes)
    found = drained(queue)
    assert len(queue) == 0
    assert sorted(number for _, number in found) == list(range(len(wishes)))
    for source in "abcd":
        numbers = [number for each, number in found if each == source]
        assert numbers == sorted(numbers)


@given(
    costs=st.lists(st.integers(1, 50), min_size=1, max_size=30),
    others=st.lists(st.integers(1, 50), min_size=30, max_size=60),
    portion=st.integers(1, 60),
)
def test_while_two_wait_neither_gets_more_than_a_portion_and_an_item_ahead(
    costs: list[int], others: list[int], portion: int
) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue(portion)
    for cost in costs:
        queue.push("a", ("a", cost), cost)
    for cost in others:
        queue.push("b", ("b", cost), cost)
    spent = {"a": 0, "b": 0}
    left = {"a": len(costs), "b": len(others)}
    while all(left.values()):
        item = queue.pop()
        assert item is not None
        spent[item[0]] += item[1]
        left[item[0]] -= 1
        assert abs(spent["a"] - spent["b"]) <= 2 * portion + 50
