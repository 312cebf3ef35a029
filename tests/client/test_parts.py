"""Parts that are to be checked early: once each, later than at once, and never too many."""

from hypothesis import given
from hypothesis import strategies as st

from needfire_client.mounts import is_below
from needfire_client.parts import PARTS_MAX, Parts

paths = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=4).map(
    lambda names: b"/" + b"/".join(names)
)


def test_a_part_waits_until_it_is_due_and_is_taken_once() -> None:
    parts = Parts()
    assert parts.add(b"/a", 10.0)
    assert parts.take(9.9) is None
    assert parts.wait_s(4.0, 100.0) == 6.0
    assert parts.take(10.0) == b"/a"
    assert parts.take(10.0) is None
    assert parts.wait_s(10.0, 100.0) == 100.0


def test_naming_it_again_does_not_put_it_off_again() -> None:
    parts = Parts()
    parts.add(b"/a", 10.0)
    parts.add(b"/a", 20.0)
    assert parts.take(10.0) == b"/a"
    assert parts.take(30.0) is None


@given(st.lists(paths, max_size=12))
def test_every_part_that_was_added_is_in_one_that_is_taken_and_none_in_two(
    added: list[bytes],
) -> None:
    parts = Parts()
    for number, part in enumerate(added):
        assert parts.add(part, float(number))
    taken = []
    while (part := parts.take(1000.0)) is not None:  # type: ignore[assignment]
        taken.append(part)
    for part in added:
        assert [is_below(part, each) for each in taken].count(True) == 1


def test_everything_is_a_full_check() -> None:
    parts = Parts()
    parts.add(b"/a", 0.0)
    assert not parts.add(b"/", 0.0)
    assert parts.take(1.0) is None


def test_the_bound_holds_at_it_and_at_one_more() -> None:
    parts = Parts()
    for number in range(PARTS_MAX):
        assert parts.add(b"/%d" % number, 0.0)
    assert not parts.add(b"/one-more", 0.0)
    assert parts.take(1.0) is None


def test_beside_a_directory_that_is_at_hand_only_what_does_not_touch_it_is_taken() -> None:
    parts = Parts()
    parts.add(b"/a/b", 0.0)
    assert parts.take(1.0, beside=b"/a/b/c") is None
    assert parts.take(1.0, beside=b"/a") is None
    assert parts.take(1.0, beside=b"/x") == b"/a/b"


def test_cleared_is_empty() -> None:
    parts = Parts()
    parts.add(b"/a", 0.0)
    parts.clear()
    assert parts.take(1.0) is None
