"""A store that is changed under a running server is noticed, and what is remembered of it stays small."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from needfire_protocol.audit.record import FIRST_PREVIOUS, Draft, Moment, encode_record, parse_head
from needfire_protocol.audit.verdict import Verdict
from needfire_protocol.errors import StorageError
from needfire_server.audit import scrub
from needfire_server.audit.scrub import Scrubber
from needfire_server.storage.audit_base import StoredCheckpoint, Stray

PART = 8


class Pages:
    """A log in a list."""

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines
        self.fails_at = -1

    def records_now(self, first: int, count: int) -> list[tuple[int, bytes]]:
        if first <= self.fails_at < first + count:
            raise StorageError("the disk is gone")
        return list(enumerate(self.lines[first : first + count], first))

    def checkpoints_now(self, after: int, count: int) -> list[StoredCheckpoint]:
        raise NotImplementedError

    def stray_now(self) -> Stray | None:
        return None


def log(count: int, *, other_from: int | None = None) -> list[bytes]:
    """Records in a chain; from a number on others, which fit as well."""
    lines: list[bytes] = []
    previous = FIRST_PREVIOUS
    for number in range(count):
        is_other = other_from is not None and number >= other_from
        draft = Draft("EXIT" if is_other else "START")
        lines.append(encode_record(number, previous, Moment(number, number), draft))
        head = parse_head(lines[-1])
        assert head is not None
        previous = head.hash
    return lines


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 5 * PART), min_size=1, max_size=5).map(sorted))
def test_a_log_that_only_grows_is_as_it_was(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scrub, "PART_RECORDS", PART)
        lines = log(sizes[-1])
        pages = Pages([])
        scrubber = Scrubber(pages)
        for size in sizes:
            pages.lines = lines[:size]
            assert scrubber.step() is None
            assert scrubber.step() is None


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 4 * PART), grown=st.integers(0, 2 * PART), data=st.data())
def test_a_record_that_is_another_one_is_noticed_also_where_the_chain_fits(
    size: int, grown: int, data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scrub, "PART_RECORDS", PART)
        other_from = data.draw(st.integers(0, size - 1))
        pages = Pages(log(size))
        scrubber = Scrubber(pages)
        assert scrubber.step() is None
        pages.lines = log(size + grown, other_from=other_from)
        # Eight parts are read again at each step, and there are no more.
        found = scrubber.step()
        assert found is not None
        assert found.verdict is Verdict.CHANGED
        assert found.first <= other_from


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 4 * PART), data=st.data())
def test_a_log_that_was_cut_off_is_noticed(size: int, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scrub, "PART_RECORDS", PART)
        pages = Pages(log(size))
        scrubber = Scrubber(pages)
        assert scrubber.step() is None
        pages.lines = pages.lines[: data.draw(st.integers(0, size - 1))]
        assert scrubber.step() is not None


def test_a_store_that_fails_on_the_way_is_read_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "PART_RECORDS", PART)
    pages = Pages(log(5 * PART + 3))
    scrubber = Scrubber(pages)
    for pages.fails_at in (0, 2 * PART + 1, 5 * PART):
        with pytest.raises(StorageError):
            scrubber.step()
    pages.fails_at = -1
    assert scrubber.step() is None
    pages.lines = log(5 * PART + 3, other_from=5 * PART + 2)
    found = scrubber.step()
    assert found is not None
    assert found.first == 5 * PART + 2


def test_one_hash_is_held_for_a_part_and_not_one_for_a_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scrub, "PART_RECORDS", 64)
    lines = log(64 * 200)
    scrubber = Scrubber(Pages(lines))
    tracemalloc.start()
    try:
        assert scrubber.step() is None
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A hash of 32 bytes is an object of 65: of each record they would be 830 kB.
    assert peak_bytes < 300_000
