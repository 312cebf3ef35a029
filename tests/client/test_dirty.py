"""Paths that wait to be looked at: coalesced, in order, bounded."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from needfire_client.dirty import DirtyPaths, trees_of
from needfire_client.mounts import is_below


class Calls:
    def __init__(self) -> None:
        self.first = 0
        self.overflows = 0

    def on_first(self) -> None:
        self.first += 1

    def on_overflow(self, trees: frozenset[bytes]) -> None:
        assert trees == {b"/"}
        self.overflows += 1


def make(count_max: int = 100) -> tuple[DirtyPaths, Calls]:
    calls = Calls()
    dirty = DirtyPaths(on_first=calls.on_first, on_overflow=calls.on_overflow, count_max=count_max)
    return dirty, calls


def test_a_path_that_changes_often_is_one_path() -> None:
    dirty, calls = make()
    for _ in range(1000):
        dirty.add(b"/var/log/messages")
    assert list(dirty.take()) == [b"/var/log/messages"]
    assert calls.first == 1


def test_they_come_in_the_order_in_which_they_were_named_first() -> None:
    dirty, _ = make()
    for path in (b"/c", b"/a", b"/c", b"/b"):
        dirty.add(path)
    assert list(dirty.take()) == [b"/c", b"/a", b"/b"]
    assert list(dirty.take()) == []
    assert not dirty


def test_what_is_meant_with_everything_below_it_stays_so() -> None:
    dirty, _ = make()
    for path, below in ((b"/a", True), (b"/a", False), (b"/b", False), (b"/c", False)):
        dirty.add(path, below=below)
    dirty.add(b"/c", below=True)
    assert dirty.take() == {b"/a": True, b"/b": False, b"/c": True}
    dirty.add(b"/a")
    assert dirty.take() == {b"/a": False}


def test_after_they_were_taken_the_next_one_is_a_first_one() -> None:
    dirty, calls = make()
    dirty.add(b"/a")
    dirty.take()
    dirty.add(b"/a")
    assert calls.first == 2


def test_the_bound_holds_at_one_less_at_it_and_at_one_more() -> None:
    for count, overflows in ((9, 0), (10, 0), (11, 1)):
        dirty, calls = make(count_max=10)
        for number in range(count):
            dirty.add(b"/%d" % number)
        assert calls.overflows == overflows
        assert len(dirty.take()) == (0 if overflows else count)


def test_a_known_path_does_not_overflow_a_full_set() -> None:
    dirty, calls = make(count_max=2)
    for path in (b"/a", b"/b", b"/a", b"/b"):
        dirty.add(path)
    assert calls.overflows == 0


def test_no_path_is_lost_between_threads() -> None:
    dirty, _ = make(count_max=100_000)
    seen: set[bytes] = set()
    names = [[b"/%d/%d" % (thread, n) for n in range(2_000)] for thread in range(4)]

    def fill(mine: list[bytes]) -> None:
        for path in mine:
            dirty.add(path)

    threads = [threading.Thread(target=fill, args=(mine,)) for mine in names]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen.update(dirty.take())
    for thread in threads:
        thread.join()
    seen.update(dirty.take())
    assert seen == {path for mine in names for path in mine}


@given(
    st.sets(
        st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=5).map(
            lambda names: b"/" + b"/".join(names)
        ),
        min_size=1,
    ),
    st.integers(1, 5),
)
def test_too_many_paths_become_a_few_trees_that_hold_all_of_them(
    paths: set[bytes], count_max: int
) -> None:
    trees = trees_of(paths, count_max)
    assert 1 <= len(trees) <= count_max
    for path in paths:
        # In exactly one, for none is in another; and not as the tree itself, whose own entry
        # stands in the directory around it.
        assert [is_below(path, tree) and path != tree for tree in trees].count(True) == 1


def test_trees_are_as_deep_as_their_number_allows() -> None:
    paths = [b"/srv/a/1", b"/srv/a/2", b"/srv/b/3", b"/etc/x"]
    assert trees_of(paths, 3) == {b"/srv/a", b"/srv/b", b"/etc"}
    assert trees_of(paths, 2) == {b"/srv", b"/etc"}
    assert trees_of(paths, 1) == {b"/"}
    assert trees_of([b"/"]) == {b"/"}
    assert trees_of([b"/a/b/c", b"/a/x"]) == {b"/a"}
