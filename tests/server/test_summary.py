"""What a summary says: it may name a block in vain, and never leaves out one that matters."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_server.storage.event_rows import row_of_event
from needfire_server.storage.summary import (
    Kind,
    directory_key,
    event_summary,
    key,
    may_hold,
    pack,
    path_keys,
    place_keys,
    time_spans,
    unreadable_summary,
)
from needfire_testkit.server_store import NOW_US, event

DAY_US = 86_400 * 1_000_000
keys = st.sets(st.integers(0, 2**32 - 1), max_size=40)
names = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=4)
parts = st.lists(names, min_size=1, max_size=40)


@given(kept=keys, asked=st.integers(0, 2**32 - 1))
def test_every_key_that_was_packed_is_held(kept: set[int], asked: int) -> None:
    assert all(may_hold(pack(kept), [pack([each])]) for each in kept)
    assert may_hold(pack(kept), [pack([asked])]) == (pack([asked]) in pack(kept))


def test_what_cannot_be_summed_up_may_hold_anything() -> None:
    unreadable = unreadable_summary(1, 9)
    assert may_hold(unreadable.keys, [pack([7])])
    assert may_hold(unreadable.paths, [pack([7])])
    assert not may_hold(b"", [pack([7])])


@given(parts=parts, depth=st.integers(0, 40))
def test_a_path_is_found_by_itself_and_by_everything_above(parts: list[str], depth: int) -> None:
    path = "/" + "/".join(parts)
    above, exact = path_keys([{"path": path}])
    for place in (place_keys(path, None), place_keys(None, "/".join(["", *parts][: depth + 1]))):
        assert all(above.intersection(group) for group in place.keys)
        assert exact == pack([place.path or 0]) or place.or_below in above
    assert len(above) <= 16


def test_neighbours_of_a_directory_are_not_below_it() -> None:
    above, exact = path_keys([{"path": "/etc/sshd"}])
    assert directory_key("/etc") in above
    assert not above & {directory_key("/etc/ssh"), directory_key("/et"), directory_key("/etc/sshd")}
    assert exact == pack([key(Kind.PATH, "/etc/sshd")])


@pytest.mark.parametrize("path", [None, 7, True])
def test_what_is_no_text_is_no_path(path: Any) -> None:
    assert path_keys([{"path": path}, {}]) == (set(), b"")


def test_the_same_word_of_another_kind_is_another_key() -> None:
    assert len({key(kind, "web1") for kind in Kind}) == len(Kind)


@pytest.mark.parametrize(
    ("times", "arrived", "expected"),
    [
        ([], set(), (None, None, None, None)),
        ([5], {5}, (5, 5, None, None)),
        ([5, 9], {7, 8}, (5, 9, None, None)),
        # A clock that is a day wrong is still even, one that is more is odd.
        ([0, DAY_US], {DAY_US}, (0, DAY_US, None, None)),
        ([0, DAY_US + 1], {DAY_US + 1}, (DAY_US + 1, DAY_US + 1, 0, 0)),
        ([9, NOW_US, 3], {NOW_US, NOW_US + 2}, (NOW_US, NOW_US + 2, 3, 9)),
    ],
)
def test_odd_clocks_do_not_stretch_the_time_of_a_block(
    times: list[int], arrived: set[int], expected: tuple[int | None, ...]
) -> None:
    assert time_spans(times, arrived) == expected


def test_only_the_servers_own_events_are_part_of_a_request() -> None:
    own, claimed = event(request="r1"), event(request="r2").received("web1", NOW_US)
    rows = [row_of_event(1, own), row_of_event(2, claimed)]
    summary = event_summary(rows, [own.fields, claimed.fields])
    assert may_hold(summary.keys, [pack([key(Kind.REQUEST, "r1")])])
    assert not may_hold(summary.keys, [pack([key(Kind.REQUEST, "r2")])])
    assert (summary.first, summary.last) == (1, 2)
