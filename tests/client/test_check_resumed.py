"""A check that is stopped, and goes on where it was."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_client import scan_pool, walk
from needfire_client.attributes import open_directory
from needfire_client.check import Checker, CheckResult
from needfire_client.policy import EVERYTHING, Place, Selection
from needfire_client.position import MAX_AGE_US, PARTS_MAX, Part, Position, PositionStore
from needfire_client.record import DirectoryRecord
from needfire_protocol.baseline import key_of
from needfire_protocol.rc.policies import Policy
from needfire_testkit.scan_workers import share_out_everything
from needfire_testkit.scanner import MODIFIED, Make, Scanned, codes, dir_rule, file_rule, making

HOUR_US = 3_600_000_000


@pytest.fixture(params=[1, 3])
def make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Make]:
    share_out_everything(monkeypatch)
    monkeypatch.setattr(scan_pool, "_RECORDS_PER_POLL", 1)
    with making(tmp_path, scan_workers=request.param, sha256="c" * 64) as make:
        yield make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for number in range(10):
        inner = root / f"d{number}" / "inner"
        inner.mkdir(parents=True)
        (inner / "file").write_bytes(b"%d" % number)
        (inner.parent / "file").write_bytes(b"%d" % number)
    return root


class Clock:
    """The time of the day, which moves on with every look at it."""

    def __init__(self) -> None:
        self.now_us = HOUR_US

    def __call__(self) -> int:
        self.now_us += 1_000_000
        return self.now_us


@pytest.fixture
def store(tmp_path: Path) -> PositionStore:
    return PositionStore(tmp_path / "position", clock_us=Clock())


def stopped_at(
    checker: Checker,
    store: PositionStore,
    directory: bytes,
    *,
    watch: str = "w",
    selection: Selection = EVERYTHING,
) -> CheckResult:
    """Check up to a directory, with it."""
    compare = checker._compare_directory
    seen = []

    def watched(scan: Any, record: Any, *rest: Any) -> None:
        compare(scan, record, *rest)
        seen.append(record.path)

    checker._compare_directory = watched  # type: ignore[assignment, method-assign]
    try:
        return checker.full_check(
            lambda: directory in seen, selection, positions=store, watch=watch
        )
    finally:
        del checker._compare_directory


def changed(scanned: Scanned, root: Path) -> set[str]:
    return {
        os.fsdecode(path).removeprefix(f"{root}/")
        for code, path, _ in scanned.changes()
        if code.startswith("POLICY")
    }


def test_a_check_that_goes_on_covers_both_parts_and_reads_nothing_twice(
    root: Path, make: Make, store: PositionStore
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    (root / "d1" / "file").write_bytes(b"before")
    (root / "d8" / "file").write_bytes(b"behind")
    scanned.take()
    first = stopped_at(checker, store, bytes(root / "d5"))
    assert not first.is_complete
    assert changed(scanned, root) == {"d1/file"}
    second = checker.full_check(positions=store, watch="w")
    [started] = [event for event in scanned.raised if event.code == "CHECK_STARTED"]
    assert started.fields["resumed_after"] == f"{root}/d5"
    fields = scanned.receipt().fields
    assert changed(scanned, root) == {"d8/file"}
    assert second.is_complete
    assert (second.files, second.changes) == (41, 2)
    # Processes may have read a little more than was compared.
    assert 0 <= second.hashed - 20 <= (0 if scanned.settings.scan_workers == 1 else 9)
    assert fields["parts"] == 2
    spans = [span.split() for span in str(fields["spans"]).split("; ")]
    assert [span[2:] for span in spans] == [["until", f"{root}/d5"], ["the", "rest"]]
    times = [time for span in spans for time in span[:2]]
    assert times == sorted(times)
    assert "looked_again_until" not in fields
    assert checker.full_check(positions=store, watch="w").changes == 0
    assert "parts" not in scanned.receipt().fields


def test_a_second_look_takes_in_the_position_itself(
    root: Path, make: Make, store: PositionStore
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    stopped_at(scanned.checker(), store, bytes(root / "d5"))
    (root / "d5" / "file").write_bytes(b"unseen")
    scanned.take()
    scanned.checker().full_check(positions=store, watch="another")
    found = {(event.code, event.path) for event in scanned.take()}
    assert found == {(MODIFIED, bytes(root / "d5" / "file"))}


def test_what_changed_unseen_before_the_position_is_found_by_a_second_look(
    root: Path, make: Make, store: PositionStore
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    stopped_at(scanned.checker(), store, bytes(root / "d5"))
    (root / "d1" / "file").write_bytes(b"unseen")
    (root / "d2" / "inner" / "file").unlink()
    (root / "d5" / "inner" / "file").write_bytes(b"behind")
    scanned.take()
    result = scanned.checker().full_check(positions=store, watch="another")
    fields = scanned.receipt().fields
    assert fields["looked_again_until"] == f"{root}/d5"
    expected = {"d1/file", "d2/inner", "d2/inner/file", "d5/inner/file"}
    assert changed(scanned, root) == expected
    # 20 files, one is gone. Of the eleven before the position one was read again.
    assert (result.files, result.changes) == (40, 4)
    # The second look reads one directory beyond its end; processes may read a little more.
    ahead = 1 if scanned.settings.scan_workers == 1 else 9
    assert 0 <= result.hashed - 21 <= ahead
    assert 0 <= result.quick - 9 <= ahead


@pytest.mark.parametrize("watch", ["", "another"])
def test_a_change_that_the_first_part_reported_is_counted_once(
    root: Path, make: Make, store: PositionStore, watch: str
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    (root / "d1" / "file").write_bytes(b"before")
    assert stopped_at(scanned.checker(), store, bytes(root / "d5"), watch=watch).changes == 1
    scanned.take()
    assert scanned.checker().full_check(positions=store, watch="").changes == 1
    assert changed(scanned, root) == {"d1/file"}


def test_it_can_be_stopped_many_times(root: Path, make: Make, store: PositionStore) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    for number in (2, 4, 7):
        result = stopped_at(
            scanned.checker(), store, bytes(root / f"d{number}"), watch=f"w{number}"
        )
        assert not result.is_complete
    (root / "d3" / "file").write_bytes(b"unseen")
    scanned.take()
    result = scanned.checker().full_check(positions=store, watch="last")
    assert scanned.receipt().fields["parts"] == 4
    assert changed(scanned, root) == {"d3/file"}
    assert result.files == 41


def test_a_second_look_that_is_stopped_is_made_again(
    root: Path, make: Make, store: PositionStore
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    stopped_at(scanned.checker(), store, bytes(root / "d5"), watch="one")
    (root / "d1" / "file").write_bytes(b"unseen")
    checker = scanned.checker()
    # The rest is compared first, and then what came before.
    assert not stopped_at(checker, store, bytes(root / "d0"), watch="two").is_complete
    scanned.take()
    assert checker.full_check(positions=store, watch="two").is_complete
    assert changed(scanned, root) == {"d1/file"}


@pytest.mark.parametrize(
    "difference",
    [
        {"sha256": "d" * 64},
        {"selection": Selection(quick=frozenset({""}))},
        {"selection": Selection(frozenset({""}))},
        {"baseline": True},
        {"age_us": MAX_AGE_US + 1},
        {"age_us": -HOUR_US},
    ],
)
def test_a_position_holds_for_its_own_check_only(
    root: Path, make: Make, store: PositionStore, difference: dict[str, Any]
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    stopped_at(scanned.checker(), store, bytes(root / "d5"))
    if difference.get("baseline"):
        (root / "d1" / "file").write_bytes(b"new")
        scanned.init()
    store.clock_us.now_us += difference.get("age_us", 0)  # type: ignore[attr-defined]
    scanned.settings = replace(scanned.settings, sha256=difference.get("sha256", "c" * 64))
    selection = difference.get("selection", EVERYTHING)
    scanned.checker().full_check(selection=selection, positions=store, watch="w")
    assert "parts" not in scanned.receipt().fields
    assert scanned.receipt().fields["files"] == 41


def test_a_rule_that_the_first_part_met_does_not_match_nothing(
    root: Path, make: Make, store: PositionStore
) -> None:
    scanned = make(dir_rule(root), file_rule(root / "d0" / "file"), file_rule(root / "none"))
    scanned.init()
    checker = scanned.checker()
    stopped_at(checker, store, bytes(root / "d5"))
    scanned.take()
    checker.full_check(positions=store, watch="w")
    assert [(e.code, e.path) for e in scanned.take()] == [
        ("RULE_MATCHES_NOTHING", bytes(root / "none"))
    ]


def test_findings_of_the_first_part_are_counted_and_not_told_again(
    root: Path, make: Make, store: PositionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "d1" / "sparse").touch()
    os.truncate(root / "d1" / "sparse", 2**41)
    (root / "d1" / "b\n").touch()
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    stopped_at(checker, store, bytes(root / "d5"))
    assert {event.code for event in scanned.take()} == {"FILE_UNREADABLE", "WEIRD_FILENAME"}
    for _ in range(2):
        result = checker.full_check(positions=store, watch="w")
        assert result.unreadable == 1
        said = str(scanned.receipt().fields["skipped_why"])
        # Of another part only the class of its reason is known.
        assert re.sub("[0-9]+", "N", said) == "N bytes are too many to read (limit N): N"
    assert scanned.take() == []


def test_a_check_that_is_stopped_below_what_cannot_be_read_comes_back_to_all_of_it(
    root: Path, make: Make, store: PositionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it counts as compared, nor what a rule names in there: it may be readable then."""
    real = open_directory

    def refusing(name: bytes, dir_fd: int | None, **others: bool) -> int:
        if name == b"d5" and others.get("lists", True):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(name, dir_fd, **others)

    scanned = make(dir_rule(root), scan_workers=1)
    scanned.init()
    checker = scanned.checker()
    (root / "d5" / "file").write_bytes(b"changed")
    (root / "d5" / "inner" / "file").unlink()
    scanned.take()
    with monkeypatch.context() as patched:
        patched.setattr(walk, "open_directory", refusing)
        assert not stopped_at(checker, store, bytes(root / "d5")).is_complete
    assert codes(scanned.take()) == ["FILE_UNREADABLE"]
    assert checker.full_check(positions=store, watch="w").is_complete
    [started] = [event for event in scanned.raised if event.code == "CHECK_STARTED"]
    assert started.fields["resumed_after"] == f"{root}/d4/inner"
    assert changed(scanned, root) == {"d5/file", "d5/inner", "d5/inner/file"}


def test_what_is_seen_inside_of_the_unreadable_is_no_position(
    root: Path, make: Make, store: PositionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that a rule names behind one that cannot be listed, and one that cannot either."""
    scanned = make(dir_rule(root), scan_workers=1)
    scanned.init()
    checker = scanned.checker()
    passed: list[bytes] = []
    names = ["a", "a/b", "a/b/c", "a/d", "a/d/e", "f"]
    records = [
        DirectoryRecord(
            b"/" + name.encode(), Place((), None, -1), is_readable=name not in ("a", "a/b")
        )
        for name in names
    ]
    scan = checker._scan(lambda: False)
    checker._compare_stream(scan, iter(records), key_of(b"/z"), passed=passed.append)
    assert passed == [b"/f"]


def test_directories_that_are_gone_or_new_at_the_position_confuse_nothing(
    root: Path, make: Make, store: PositionStore
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    stopped_at(checker, store, bytes(root / "d4" / "inner"))
    scanned.take()
    # The position itself, with what it is in, and something new on both of its sides.
    for name in ("d4/inner/file", "d4/file"):
        (root / name).unlink()
    (root / "d4" / "inner").rmdir()
    (root / "d4").rmdir()
    for name in ("d4x", "d40", "d3x"):
        (root / name / "sub").mkdir(parents=True)
    checker.full_check(positions=store, watch="w")
    assert changed(scanned, root) == {"d4x/sub", "d40/sub"}
    checker.full_check(positions=store, watch="w")
    before = {"d4", "d4/file", "d4/inner", "d4/inner/file", "d4x", "d40", "d3x", "d3x/sub"}
    assert changed(scanned, root) == before | {os.fsdecode(root)}


def test_it_goes_on_through_a_symbolic_link_on_the_way(
    root: Path, make: Make, store: PositionStore
) -> None:
    (root / "link").symlink_to("d3")
    scanned = make(dir_rule(root / "link" / "inner"), dir_rule(root / "d9", Policy.ATTRIBUTES))
    scanned.init()
    checker = scanned.checker()
    stopped_at(checker, store, bytes(root / "link"))
    (root / "d3" / "file").write_bytes(b"not covered")
    (root / "d3" / "inner" / "file").write_bytes(b"covered")
    scanned.take()
    assert checker.full_check(positions=store, watch="w").is_complete
    assert changed(scanned, root) == {"link/inner/file"}


def test_its_place_is_kept_while_it_runs(root: Path, make: Make, tmp_path: Path) -> None:
    now_s = [0.0]
    store = PositionStore(tmp_path / "position", clock_us=Clock(), clock_s=lambda: now_s[0])
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    compare = checker._compare_directory

    def killed(scan: Any, record: Any, *rest: Any) -> None:
        compare(scan, record, *rest)
        if record.path == bytes(root / "d3"):
            now_s[0] += 5
        if record.path == bytes(root / "d5"):
            raise KeyboardInterrupt

    checker._compare_directory = killed  # type: ignore[assignment, method-assign]
    with suppress(KeyboardInterrupt):
        checker.full_check(positions=store, watch="w")
    scanned.checker().full_check(positions=store, watch="v")
    assert scanned.receipt().fields["looked_again_until"] == f"{root}/d3"


# ---- the file ------------------------------------------------------------------------------------

_NAMES = st.frozensets(st.text(max_size=8), max_size=3)
_POSITIONS = st.builds(
    Position,
    configuration_sha256=st.just("c"),
    baseline_sha256=st.just("b"),
    selection=st.builds(Selection, st.none() | _NAMES, _NAMES),
    watch=st.text(max_size=20),
    parts=st.lists(
        st.builds(
            Part,
            st.just(HOUR_US),
            st.integers(0, 2**62),
            st.binary(max_size=9).map(lambda name: b"/" + name),
        ),
        min_size=1,
        max_size=PARTS_MAX - 1,
    ).map(tuple),
    again_until=st.none() | st.binary(max_size=9),
    met=st.lists(st.integers(0, 2**20), max_size=5).map(tuple),
    numbers=st.dictionaries(st.text(max_size=9), st.integers(0, 2**62), max_size=5),
)


@given(_POSITIONS)
def test_a_position_comes_back_as_it_was(tmp_path_factory: Any, position: Position) -> None:
    store = PositionStore(tmp_path_factory.mktemp("p") / "position", clock_us=Clock())
    store.save(position)
    kind = {"configuration_sha256": "c", "baseline_sha256": "b"}
    assert store.load(**kind, selection=position.selection) == position
    store.clear()
    assert store.load(**kind, selection=position.selection) is None


@given(st.binary(max_size=200))
def test_a_file_that_is_no_position_lets_the_check_begin_anew(
    tmp_path_factory: Any, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("p") / "position"
    path.write_bytes(data)
    store = PositionStore(path, clock_us=Clock())
    assert store.load(configuration_sha256="", baseline_sha256="", selection=EVERYTHING) is None


@pytest.mark.parametrize(("count", "is_resumed"), [(PARTS_MAX - 1, True), (PARTS_MAX, False)])
def test_a_check_of_too_many_parts_begins_anew(
    store: PositionStore, count: int, is_resumed: bool
) -> None:
    part = Part(HOUR_US, HOUR_US, b"/a")
    position = Position(
        configuration_sha256="c",
        baseline_sha256="b",
        selection=EVERYTHING,
        watch="",
        parts=(part,) * count,
        again_until=None,
        met=(),
        numbers={},
    )
    store.save(position)
    found = store.load(configuration_sha256="c", baseline_sha256="b", selection=EVERYTHING)
    assert (found is not None) == is_resumed


def test_a_position_that_cannot_be_removed_is_not_believed(
    store: PositionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError

    test_a_check_of_too_many_parts_begins_anew(store, 1, True)
    monkeypatch.setattr(Path, "unlink", refuse)
    store.clear()
    found = store.load(configuration_sha256="c", baseline_sha256="b", selection=EVERYTHING)
    assert found is None
