"""Checks of some rules only, and quick ones."""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from needfire_client.attributes import Examiner
from needfire_client.check import Checker
from needfire_client.policy import EVERYTHING, Selection
from needfire_client.quick import QuickLook, QuickRow
from needfire_client.record import DirectoryRecord
from needfire_client.scan import Scan
from needfire_protocol.baseline import encode_entries, key_of
from needfire_protocol.rc.policies import Policy
from needfire_testkit.mounting import mounted
from needfire_testkit.scan_workers import share_out_everything
from needfire_testkit.scanner import Make, Scanned, dir_rule, file_rule, making

OTHERS, WEB = Selection(frozenset({""})), Selection(frozenset({"web"}))


@pytest.fixture(params=[1, 3])
def make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Make]:
    share_out_everything(monkeypatch)
    with making(tmp_path, scan_workers=request.param) as make:
        yield make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in ("a", "www/x", "www/skip", "z/deep"):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_bytes(name.encode())
    return root


def rules(root: Path) -> list[Any]:
    return [
        dir_rule(root),
        dir_rule(root / "www", group="web"),
        dir_rule(root / "www" / "skip"),
        file_rule(root / "z" / "deep" / "file", group="web"),
    ]


def changed(scanned: Scanned, root: Path) -> set[str]:
    return {
        os.fsdecode(path).removeprefix(f"{root}/")
        for code, path, _ in scanned.changes()
        if code.startswith("POLICY")
    }


def test_a_check_of_a_group_is_blind_for_everything_else_and_for_nothing_of_its_own(
    root: Path, make: Make
) -> None:
    scanned = make(*rules(root))
    scanned.init()
    checker = scanned.checker()
    for name in ("a", "www/x", "www/skip", "z/deep"):
        (root / name / "file").write_bytes(b"changed")
        (root / name / "new").touch()
    (root / "www" / "skip" / "file").unlink()
    scanned.take()
    web = checker.full_check(selection=WEB)
    assert changed(scanned, root) == {"www/x", "www/x/file", "www/x/new", "z/deep/file"}
    checker.full_check(selection=OTHERS)
    others = {"a", "a/file", "a/new", "www/skip", "www/skip/file", "www/skip/new"}
    assert changed(scanned, root) == others | {"z/deep", "z/deep/new"}
    assert checker.full_check().changes == 0
    assert (web.files, web.hashed) == (5, 3)


def test_a_group_that_vanishes_is_missed_by_its_own_check_alone(root: Path, make: Make) -> None:
    scanned = make(*rules(root))
    scanned.init()
    checker = scanned.checker()
    (root / "www" / "x" / "file").unlink()
    (root / "www" / "x").rmdir()
    scanned.take()
    checker.full_check(selection=OTHERS)
    assert changed(scanned, root) == set()
    checker.full_check(selection=WEB)
    assert changed(scanned, root) == {"www", "www/x", "www/x/file"}


def test_the_receipt_says_which_rules_it_was_for(root: Path, make: Make) -> None:
    scanned = make(*rules(root))
    scanned.init()
    scanned.checker().full_check(selection=Selection(frozenset({"", "web"}), frozenset({"web"})))
    fields = scanned.receipt().fields
    assert (fields["groups"], fields["quick_groups"], fields["rules"]) == ("- web", "web", 4)
    scanned.checker().full_check()
    assert "groups" not in scanned.receipt().fields


def test_findings_of_other_groups_are_kept(root: Path, make: Make) -> None:
    scanned = make(*rules(root))
    (root / "a" / "b\n").touch()
    scanned.init()
    checker = scanned.checker()
    found = []
    for selection in (EVERYTHING, WEB, WEB, OTHERS, EVERYTHING):
        scanned.take()
        checker.full_check(selection=selection)
        found.append(sum(event.code == "WEIRD_FILENAME" for event in scanned.raised))
    assert found == [1, 0, 0, 0, 0]


def test_a_rule_that_matches_nothing_is_told_of_by_its_own_check(root: Path, make: Make) -> None:
    scanned = make(*rules(root), file_rule(root / "none", group="web"))
    scanned.init()
    checker = scanned.checker()
    found = []
    for selection in (OTHERS, WEB):
        scanned.take()
        checker.full_check(selection=selection)
        found.append([event.code for event in scanned.take()])
    assert found == [[], ["RULE_MATCHES_NOTHING"]]


# ---- quick ---------------------------------------------------------------------------------------

QUICK = Selection(quick=frozenset({"", "web"}))


def test_a_quick_check_reads_only_what_has_changed(root: Path, make: Make) -> None:
    scanned = make(*rules(root))
    scanned.init()
    checker = scanned.checker()
    (root / "a" / "file").write_bytes(b"A")
    (root / "a" / "new").write_bytes(b"n")
    scanned.take()
    result = checker.full_check(selection=QUICK)
    fields = scanned.receipt().fields
    assert (fields["hashed"], fields["quick"], fields["changes"]) == (2, 3, 3)
    assert (result.hashed, result.quick, result.bytes_read) == (2, 3, 2)
    assert changed(scanned, root) == {"a", "a/file", "a/new"}
    assert checker.full_check(selection=QUICK).changes == 0


def test_a_file_with_the_same_size_and_times_is_read_because_of_its_ctime(
    root: Path, make: Make
) -> None:
    scanned = make(*rules(root))
    scanned.init()
    checker = scanned.checker()
    file = root / "a" / "file"
    before = file.stat()
    file.write_bytes(b"!")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    scanned.take()
    assert checker.full_check(selection=QUICK).hashed == 1
    assert [event.change[0] for event in scanned.take()] == ["C"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
def test_in_memory_a_file_is_read_for_writing_through_a_mapping_moves_no_time(
    root: Path, make: Make
) -> None:
    with mounted("-t", "tmpfs", "needfire-test", str(root / "a")):
        path = root / "a" / "file"
        path.write_bytes(b"contents")
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            scanned = make(*rules(root))
            scanned.init()
            before = path.stat()
            mapped[:4] = b"evil"
            assert path.stat() == before
            checker = scanned.checker()
            scanned.take()
            checker.full_check(selection=QUICK)
            assert changed(scanned, root) == {"a/file"}


def test_growing_and_large_files_are_quick_as_well(root: Path, make: Make) -> None:
    log = root / "log"
    log.mkdir()
    for name in ("one", "two"):
        (log / name).write_bytes(bytes(1_000_000))
    scanned = make(dir_rule(log, Policy.GROWING_LOG_FILES), dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    with (log / "two").open("ab") as file:
        file.write(b"more")
    scanned.take()
    result = checker.full_check(selection=QUICK)
    assert (result.hashed, result.quick, result.bytes_read) == (1, 5, 1_000_004)
    assert changed(scanned, root) == set()


def test_rules_that_are_not_quick_read_everything(root: Path, make: Make) -> None:
    scanned = make(*rules(root))
    scanned.init()
    result = scanned.checker().full_check(selection=Selection(quick=frozenset({"web"})))
    assert (result.hashed, result.quick) == (2, 2)
    assert result.changes == 0


def test_a_file_without_a_digest_in_the_baseline_is_read(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root, Policy.ATTRIBUTES))
    scanned.init()
    other = make(dir_rule(root))
    result = other.checker().full_check(selection=QUICK)
    assert (result.hashed, result.quick) == (4, 0)


def test_workers_read_everything_where_another_baseline_took_the_place_of_theirs(
    root: Path, make: Make
) -> None:
    scanned = make(*rules(root))
    scanned.init()
    checker = scanned.checker()
    (root / "a" / "file").write_bytes(b"A")
    scanned.init()
    scanned.take()
    result = checker.full_check(selection=QUICK)
    assert changed(scanned, root) == {"a/file"}
    # One process has the old file open; those that open it anew must not believe it.
    assert result.hashed == (1 if scanned.settings.scan_workers == 1 else 4)


class OneRow:
    """Stands in for a baseline that has the same row for every directory."""

    def __init__(self, row: bytes) -> None:
        self.row = row

    def in_order(self) -> "OneRow":
        return self

    def find(self, _path: bytes) -> bytes:
        return self.row


DIFFERENCES: list[tuple[str, Any]] = [
    *((name, 1) for name in ("uid", "gid", "size", "mtime_ns", "ctime_ns")),
    *((name, 1) for name in ("mode", "inode", "device", "nlink", "state")),
    *(("looked", -1), ("digest", None)),
]


@pytest.mark.parametrize(("name", "by"), [("atime_ns", 1), *DIFFERENCES])
def test_a_quick_look_sees_each_difference_but_that_of_the_access_time(
    root: Path, name: str, by: int | None
) -> None:
    examiner = Examiner("sha256")
    fd = os.open(root / "a", os.O_RDONLY)
    try:
        entry = examiner.examine(fd, b"file", hashes=True)
        assert entry is not None
        row = encode_entries([(b"file", entry)])
        before: Any = {name: None if by is None else getattr(entry, name) + by}
        other = encode_entries([(b"file", entry._replace(**before))])
        looks = [QuickLook(examiner, cast(Any, OneRow(each))) for each in (row, other)]
        same, found = (look.row(fd, b"/a", hashes=True) for look in looks)
    finally:
        os.close(fd)
    assert same == QuickRow(row, 1, [])
    assert (found is None) == (name != "atime_ns")


# ---- looks at single paths while a check runs ----------------------------------------------------


@pytest.mark.parametrize("selection", [EVERYTHING, QUICK, OTHERS])
def test_a_directory_that_appears_and_is_looked_at_during_a_check_is_not_missing_afterwards(
    root: Path, make: Make, tmp_path: Path, selection: Selection
) -> None:
    """The check had listed its parent before; only what was reported meanwhile knows of it."""
    scanned = make(*rules(root))
    scanned.init()
    new = root / "new"

    def look(_files: int, _bytes: int, directory: bytes) -> None:
        if directory == bytes(root / "a") and not new.exists():
            (new / "inner").mkdir(parents=True)
            (new / "inner" / "file").touch()
            checker.check_path(bytes(new))

    checker = Checker(
        scanned.settings, scanned.baseline, tmp_path / "overlay", scanned.on_event, look
    )
    scanned.checkers.append(checker)
    scanned.take()
    checker.full_check(selection=selection)
    found = {(code, path) for code, path, _ in scanned.changes()}
    added = {bytes(each) for each in (new, new / "inner", new / "inner" / "file")}
    assert found == {("POLICY_ADDED", path) for path in added} | {("POLICY_MODIFIED", bytes(root))}
    assert checker.full_check().changes == 0


def test_a_quick_look_that_finds_the_baseline_again_still_sees_what_was_reported(
    root: Path, make: Make
) -> None:
    """Something came back exactly as it was: a mount, or an inode that a restored disk has."""
    scanned = make(*rules(root))
    scanned.init()
    checker = scanned.checker()
    directory = root / "a"
    before = checker._reference.object(bytes(directory), b"file").baseline[b"file"]
    checker._overlay.put(key_of(bytes(directory)), b"file", before._replace(uid=before.uid + 1))
    checker._overlay.put(key_of(bytes(directory)), b"gone", before)
    scanned.take()
    checker.full_check(selection=QUICK)
    found = {(code, path) for code, path, _ in scanned.changes()}
    assert found == {
        ("POLICY_MODIFIED", bytes(directory / "file")),
        ("POLICY_MISSING", bytes(directory / "gone")),
    }
    assert checker.full_check(selection=QUICK).changes == 0


def test_rows_that_are_as_before_do_not_travel(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned = make(*rules(root))
    scanned.init()
    checker = scanned.checker()
    (root / "a" / "file").write_bytes(b"other")
    rows: list[bytes | None] = []
    take = Scan.take

    def noted(scan: Scan, record: DirectoryRecord) -> None:
        if record.is_as_before and scanned.settings.scan_workers > 1:
            rows.append(record.packed)
        take(scan, record)

    monkeypatch.setattr(Scan, "take", noted)
    result = checker.full_check(selection=QUICK)
    assert (result.files, result.changes) == (11, 1)
    assert set(rows) <= {b""}
    assert bool(rows) == (scanned.settings.scan_workers > 1)
