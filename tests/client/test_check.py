import errno
import os
import re
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from needfire_client import check as check_module
from needfire_client import memory, walk
from needfire_client.attributes import ScanStoppedError, open_directory, owner_name
from needfire_client.baseline import BaselineReader
from needfire_client.check import Checker
from needfire_client.inode import Inspector, Times
from needfire_client.packing import entries_of, pack_record
from needfire_client.policy import Place, Selection
from needfire_protocol.baseline import ContentDigest, FileEntry, clamped, decode_entries
from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.codec import encode
from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.rc.policies import DEFAULT_MASKS, Check, Policy
from needfire_protocol.rc.skip_checksum import SKIP_CHECKSUM
from needfire_protocol.severity import Severity
from needfire_testkit.scan_workers import share_out_everything
from needfire_testkit.scanner import Raised, Scanned, dir_rule, file_rule, settings_of

ADDED, MISSING, MODIFIED = "POLICY_ADDED", "POLICY_MISSING", "POLICY_MODIFIED"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "a").write_bytes(b"aaa")
    (root / "b").write_bytes(b"b")
    (root / "sub" / "c").write_bytes(b"c")
    (root / "sub" / "deep" / "d").write_bytes(b"d")
    return root


@pytest.fixture(params=[1, 2], ids=["alone", "shared"])
def make(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Scanned]]:
    share_out_everything(monkeypatch)
    made: list[Scanned] = []

    def make(*rules: Any, **others: Any) -> Scanned:
        others.setdefault("scan_workers", request.param)
        made.append(Scanned(settings_of(*rules, **others), tmp_path))
        return made[-1]

    yield make
    for scanned in made:
        scanned.close()


Make = Callable[..., Scanned]


def codes(raised: list[Raised]) -> list[str]:
    return [event.code for event in raised]


def of_files(found: set[tuple[str, bytes, str]], root: Path) -> dict[str, tuple[str, str]]:
    """Return what was reported of objects that are not directories whose times moved."""
    return {
        os.fsdecode(path.removeprefix(bytes(root) + b"/")): (code, letters)
        for code, path, letters in found
        if letters != "--------T-"
    }


def test_an_unchanged_tree_gives_no_report_under_any_policy(root: Path, make: Make) -> None:
    for policy in Policy:
        scanned = make(dir_rule(root, policy))
        result = scanned.init()
        assert (result.files, result.changes) == (7, 0)
        scanned.take()
        checker = scanned.checker()
        assert checker.full_check().changes == 0
        for path in (root, root / "a", root / "sub", root / "sub" / "deep" / "d"):
            assert checker.check_path(bytes(path)) == 0
        assert scanned.take() == []


def test_added_missing_and_modified_are_reported_with_their_values(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "a").write_bytes(b"other")
    (root / "a").chmod(0o600)
    (root / "b").unlink()
    (root / "new").write_bytes(b"1234")
    result = checker.full_check()
    assert (result.added, result.missing, result.modified) == (1, 1, 2)
    events = {event.path: event for event in scanned.take()}
    assert events[bytes(root)].change == "--------T-"
    modified = events[bytes(root / "a")]
    assert modified.change == "C----M--TS"
    assert (modified.fields["size_old"], modified.fields["size_new"]) == (3, 5)
    assert str(modified.fields["chksum_old"]).startswith("sha256:")
    assert events[bytes(root / "new")].fields["size_new"] == 4
    assert events[bytes(root / "b")].fields["size_old"] == 1
    assert codes([events[bytes(root / "new")], events[bytes(root / "b")]]) == [ADDED, MISSING]


def test_a_check_begins_and_ends_with_an_event(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    assert codes(scanned.raised) == ["CHECK_STARTED", "BASELINE_WRITTEN", "CHECK_COMPLETED"]
    assert scanned.raised[1].fields["files"] == 7
    scanned.raised.clear()
    scanned.checker().full_check()
    assert codes(scanned.raised) == ["CHECK_STARTED", "CHECK_COMPLETED"]
    assert scanned.raised[0].fields == {"mode": "check"}
    fields = scanned.raised[1].fields
    assert (fields["files"], fields["hashed"], fields["bytes"], fields["changes"]) == (7, 4, 6, 0)


def test_a_change_is_reported_once_and_again_when_it_goes_on(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root, Policy.IGNORE_NONE))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "a").write_bytes(b"one")
    checker.full_check()
    assert (MODIFIED, bytes(root / "a"), "C-------T-") in scanned.changes()
    checker.full_check()
    checker.check_path(bytes(root / "a"))
    assert scanned.changes() == set()
    (root / "a").write_bytes(b"three")
    checker.check_path(bytes(root / "a"))
    (event,) = scanned.take()
    assert (event.fields["size_old"], event.fields["size_new"]) == (3, 5)
    again = scanned.checker()
    again.full_check()
    assert (MODIFIED, bytes(root / "a"), "C-------TS") in scanned.changes()


def test_a_file_that_returns_to_its_baseline_is_reported_as_a_change(
    root: Path, make: Make
) -> None:
    mask = {**DEFAULT_MASKS, Policy.READ_ONLY: Check.MOD}
    scanned = make(dir_rule(root), masks=mask)
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    before = (root / "a").stat().st_mode
    (root / "a").chmod(0o600)
    checker.full_check()
    (first,) = scanned.take()
    (root / "a").chmod(before)
    checker.full_check()
    (second,) = scanned.take()
    assert first.fields["imode_old"] == second.fields["imode_new"] == before
    assert first.fields["imode_new"] == second.fields["imode_old"] == 0o100600
    checker.full_check()
    assert scanned.take() == []


def test_what_was_reported_missing_is_added_when_it_returns(root: Path, make: Make) -> None:
    scanned = make(file_rule(root / "a"))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "a").rename(root / "aside")
    for _ in range(2):
        checker.full_check()
    (root / "aside").rename(root / "a")
    for _ in range(2):
        checker.full_check()
    (root / "a").unlink()
    checker.check_path(bytes(root / "a"))
    assert codes(scanned.take()) == [MISSING, ADDED, MISSING]


def test_without_report_only_once_everything_is_reported_each_time(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root), report_only_once=False)
    os.symlink("x", bytes(root) + b"/\x01")
    scanned.init()
    checker = scanned.checker()
    (root / "a").write_bytes(b"one")
    for _ in range(2):
        scanned.take()
        checker.full_check()
        assert sorted(codes(scanned.take())) == [MODIFIED, "WEIRD_FILENAME"]


def test_a_directory_that_comes_or_goes_is_reported_with_all_that_is_in_it(
    root: Path, make: Make
) -> None:
    scanned = make(dir_rule(root, Policy.ATTRIBUTES))
    scanned.init()
    whole, single = scanned.checker(), scanned.checker()
    scanned.take()
    gone = {
        (MISSING, bytes(root / name), "") for name in ("sub", "sub/c", "sub/deep", "sub/deep/d")
    }
    come = {(ADDED, path.replace(b"/sub", b"/moved", 1), "") for _, path, _ in gone}
    (root / "sub").rename(root / "moved")
    whole.full_check()
    assert scanned.changes() == gone | come
    single.check_path(bytes(root / "moved"))
    single.check_path(bytes(root / "sub"))
    assert scanned.changes() == gone | come
    (root / "moved").rename(root / "sub")
    single.check_path(bytes(root))
    back = {(ADDED, path, "") for _, path, _ in gone} | {(MISSING, path, "") for _, path, _ in come}
    assert scanned.changes() == back
    single.full_check()
    assert scanned.changes() == set()


def test_a_directory_that_was_away_is_compared_to_its_bottom_where_that_is_asked_for(
    root: Path, make: Make
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "sub").rename(root.parent / "away")
    (root.parent / "away/deep/d").write_bytes(b"changed where nobody listens")
    (root.parent / "away").rename(root / "sub")
    checker.check_path(bytes(root / "sub"), below=True)
    assert bytes(root / "sub/deep/d") in {path for _, path, _ in scanned.changes()}


def test_a_directory_that_another_one_replaced_is_compared_to_its_bottom(
    root: Path, make: Make
) -> None:
    scanned = make(dir_rule(root, Policy.ATTRIBUTES))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "sub").rename(root.parent / "aside")
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "sub" / "deep" / "x").write_bytes(b"")
    checker.check_path(bytes(root / "sub"))
    assert of_files(scanned.changes(), root) == {
        "sub/c": (MISSING, ""),
        "sub/deep/d": (MISSING, ""),
        "sub/deep/x": (ADDED, ""),
    }


def test_a_check_of_a_part_reports_what_a_full_check_would_in_it(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    by_part, by_full_check = scanned.checker(), scanned.checker()
    scanned.take()
    (root / "a").write_bytes(b"elsewhere")
    (root / "sub" / "c").unlink()
    (root / "sub" / "deep" / "d").write_bytes(b"deep, and its directory looks as before")
    (root / "sub" / "deep" / "new").touch()
    by_full_check.full_check()
    whole = scanned.changes()
    result = by_part.check_below(bytes(root / "sub"))
    assert result.is_complete
    part = scanned.changes()
    assert part == {event for event in whole if event[1].startswith(bytes(root / "sub"))}
    assert result.changes == len(part) >= 4
    # It has been told, also by the full check that follows.
    by_part.full_check()
    assert scanned.changes() == whole - part


def test_a_check_of_a_part_can_be_stopped_and_knows_what_is_covered(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root / "sub"), file_rule(root / "a"))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "a").write_bytes(b"changed")
    (root / "b").write_bytes(b"changed, and no rule covers it")
    (root / "sub" / "c").write_bytes(b"changed")
    assert not checker.check_below(bytes(root), lambda: True).is_complete
    assert checker.check_below(b"/no/such/place").changes == 0
    scanned.take()
    # Above the rules it is what they name in there.
    checker.check_below(bytes(root))
    found = {path for _, path, _ in scanned.changes()}
    assert found >= {bytes(root / "sub" / "c")}
    assert bytes(root / "b") not in found


def test_paths_outside_of_the_rules_are_ignored(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root / "sub", Policy.READ_ONLY, 0))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "a").unlink()
    (root / "sub" / "deep" / "d").unlink()
    for path in (root / "a", root, Path("/nowhere/at/all"), root / "sub" / "deep" / "d"):
        checker.check_path(bytes(path))
    assert of_files(scanned.changes(), root) == {}


def test_the_root_directory_itself_can_be_covered(make: Make, root: Path) -> None:
    scanned = make(file_rule(b"/"), dir_rule(root))
    scanned.init()
    with BaselineReader(scanned.baseline) as reader:
        assert stat.S_ISDIR(reader.directory(b"")[b"/"].mode)
    checker = scanned.checker()
    scanned.take()
    checker.check_path(b"/")
    checker.full_check()
    assert not of_files(scanned.changes(), root)


# ---- findings ------------------------------------------------------------------------------------


def test_odd_files_stop_nothing(root: Path, make: Make) -> None:
    raw = bytes(root)
    os.mkfifo(raw + b"/fifo")
    os.symlink(b"nowhere", raw + b"/dangling")
    os.symlink(b".", raw + b"/loop")
    os.symlink(b"..", raw + b"/sub/up")
    os.mkdir(raw + b"/\xff\xfe")
    for name in (
        b"\xff\xfe/x",
        b"new\nline",
        b"\x1b[31m",
        b"-rf",
        b" ",
        b"back\\slash",
        b"\xc3\xa9",
    ):
        with open(raw + b"/" + name, "wb"):
            pass
    with socket.socket(socket.AF_UNIX) as listener:
        fd = os.open(root, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{fd}/socket")
        os.close(fd)
    scanned = make(dir_rule(root, Policy.IGNORE_NONE), severity_names=Severity.ALERT)
    result = scanned.init()
    assert result.files == 7 + 5 + 1 + 7
    weird = [event for event in scanned.take() if event.code == "WEIRD_FILENAME"]
    assert {event.path.removeprefix(raw + b"/") for event in weird} == {
        b"\xff\xfe",
        b"new\nline",
        b"\x1b[31m",
    }
    assert {event.severity for event in weird} == {Severity.ALERT}
    checker = scanned.checker()
    checker.full_check()
    assert {event.code for event in scanned.take()} == {"WEIRD_FILENAME"}
    checker.full_check()
    assert scanned.take() == []


def test_weird_names_are_not_told_under_ignore_all(root: Path, make: Make) -> None:
    (root / "\x01").touch()
    scanned = make(dir_rule(root), file_rule(bytes(root) + b"/\x01", Policy.IGNORE_ALL))
    scanned.init()
    assert scanned.take() == []


def test_a_rule_that_names_nothing_is_a_finding(root: Path, make: Make) -> None:
    scanned = make(
        dir_rule(root),
        file_rule(root / "nowhere"),
        dir_rule(root / "nowhere" / "else"),
        file_rule(bytes(root) + b"/*.none"),
        file_rule(bytes(root) + b"/?"),
    )
    scanned.init()
    found = scanned.take()
    assert codes(found) == ["RULE_MATCHES_NOTHING"] * 3
    assert {event.path for event in found} == {
        bytes(root / "nowhere"),
        bytes(root / "nowhere" / "else"),
        bytes(root) + b"/*.none",
    }
    assert found[0].fields["rule"] == "agentrc:7"


def test_a_named_file_that_is_gone_is_missing_and_its_rule_is_not_told(
    root: Path, make: Make
) -> None:
    scanned = make(file_rule(root / "a"), file_rule(bytes(root) + b"/b*"))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "a").unlink()
    (root / "b").unlink()
    for _ in range(2):
        checker.full_check()
    assert codes(scanned.take()) == [MISSING, MISSING]


def test_no_rules_at_all_is_a_finding(make: Make) -> None:
    scanned = make()
    scanned.init()
    assert codes(scanned.take()) == ["NOTHING_TO_CHECK"]
    scanned.init(settings_of(dir_rule(scanned.directory)))
    scanned.take()
    scanned.checker().full_check()
    assert codes(scanned.take()) == ["NOTHING_TO_CHECK"]


def test_a_dir_rule_for_a_link_says_where_it_leads_and_checks_the_link_itself(
    root: Path, make: Make
) -> None:
    (root / "link").symlink_to("sub")
    scanned = make(dir_rule(root / "link"), dir_rule(root / "a"))
    scanned.init()
    first, second = sorted(scanned.take(), key=lambda event: event.path)
    assert first.code == second.code == "POLICY_NODIRECTORY"
    assert (second.path, second.fields["link"]) == (bytes(root / "link"), "sub")
    assert "link" not in first.fields
    checker = scanned.checker()
    checker.full_check()
    scanned.take()
    (root / "sub" / "c").write_bytes(b"not followed")
    (root / "link").unlink()
    (root / "link").symlink_to("elsewhere")
    checker.full_check()
    (event,) = scanned.take()
    assert (event.path, event.fields["link_old"], event.fields["link_new"]) == (
        bytes(root / "link"),
        "sub",
        "elsewhere",
    )


def test_a_link_on_the_way_to_a_named_file_is_passed(root: Path, make: Make) -> None:
    (root / "link").symlink_to("sub")
    scanned = make(dir_rule(root, Policy.ATTRIBUTES), file_rule(root / "link" / "c"))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "sub" / "c").write_bytes(b"changed")
    checker.full_check()
    assert of_files(scanned.changes(), root) == {"link/c": (MODIFIED, "C-------TS")}
    (root / "sub" / "c").unlink()
    (root / "sub" / "e").touch()
    checker.check_path(bytes(root / "link" / "c"))
    checker.check_path(bytes(root / "link" / "e"))
    assert of_files(scanned.changes(), root) == {"link/c": (MISSING, "")}


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    """Names of directories that cannot be opened."""
    names: set[bytes] = set()
    real = open_directory

    def refusing(name: bytes, dir_fd: int | None, **others: bool) -> int:
        if name in names:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(name, dir_fd, **others)

    monkeypatch.setattr(walk, "open_directory", refusing)
    return names


def test_an_unreadable_directory_is_told_and_its_contents_are_not_missing(
    root: Path, make: Make, refused: set[bytes]
) -> None:
    inner = file_rule(root / "sub" / "c")
    scanned = make(dir_rule(root), inner, severity_dirs=Severity.WARN)
    scanned.init()
    checker = scanned.checker()
    checker.full_check()
    assert scanned.take() == []
    refused.add(b"sub")
    result = checker.full_check()
    assert (result.unreadable, result.changes) == (1, 0)
    (event,) = scanned.take()
    assert (event.code, event.path) == ("FILE_UNREADABLE", bytes(root / "sub"))
    assert event.fields["reason"] == "Permission denied"
    assert event.severity is Severity.WARN
    for path in (root / "sub", root / "sub" / "c", root / "sub" / "deep"):
        assert checker.check_path(bytes(path)) == 0
    checker.full_check()
    assert scanned.take() == []
    refused.clear()
    (root / "sub" / "c").write_bytes(b"changed meanwhile")
    checker.full_check()
    assert (MODIFIED, bytes(root / "sub" / "c"), "C-------TS") in {
        (event.code, event.path, event.change) for event in scanned.take()
    }
    refused.add(b"sub")
    checker.full_check()
    assert codes(scanned.take()) == ["FILE_UNREADABLE"]


@pytest.mark.parametrize(
    ("depth", "policy", "levels", "excluded", "told"),
    [
        (99, Policy.READ_ONLY, 99, (), 0),
        (99, Policy.READ_ONLY, 100, (), 1),
        (99, Policy.READ_ONLY, 101, ("out",), 1),
        (98, Policy.READ_ONLY, 101, (), 0),
        (99, Policy.IGNORE_ALL, 101, (), 0),
    ],
)
def test_directories_deeper_than_any_rule_can_say_are_told(
    tmp_path: Path,
    make: Make,
    depth: int,
    policy: Policy,
    levels: int,
    excluded: tuple[str, ...],
    told: int,
) -> None:
    root = tmp_path / "tree"
    deepest, cut = (Path(root, *["d"] * count) for count in (levels, 100))
    deepest.mkdir(parents=True)
    (deepest / "hidden").touch()
    # An exclusion is the administrator's word, wherever it stands.
    for name in excluded:
        (cut.parent / name).mkdir()
    rules = [dir_rule(cut.parent / name, Policy.IGNORE_ALL, -1) for name in excluded]
    scanned = make(dir_rule(root, policy, depth), *rules)
    assert scanned.init().unreadable == told
    for quick in (frozenset[str](), frozenset({""})):
        scanned.take()
        result = scanned.checker().full_check(selection=Selection(quick=quick))
        receipt = scanned.receipt()
        found = [event.path for event in scanned.take() if event.code == "FILE_UNREADABLE"]
        assert found == [bytes(cut)] * told
        assert (result.unreadable, receipt.fields["skipped"]) == (told, told)
        said = f"deeper than the 99 levels that a rule can enter: {told}"
        assert receipt.fields.get("skipped_why") == (said if told else None)


def test_an_update_keeps_what_the_old_baseline_says_of_the_unreadable(
    root: Path, make: Make, refused: set[bytes]
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    refused.add(b"sub")
    (root / "a").write_bytes(b"changed")
    result = checker.update(scanned.baseline, host="h", configuration_sha256="", created_us=2)
    assert result.modified == 1
    assert result.baseline_sha256 is not None
    refused.clear()
    scanned.take()
    scanned.checker().full_check()
    assert scanned.take() == []


def test_a_directory_that_cannot_be_listed_to_its_end_is_unreadable(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    for module in (memory, walk):
        monkeypatch.setattr(module, "ENTRIES_PER_DIRECTORY_MAX", 2)
    checker.full_check()
    (event,) = scanned.take()
    assert (event.path, event.fields["reason"]) == (bytes(root), "more than 2 entries")
    for module in (memory, walk):
        monkeypatch.setattr(module, "ENTRIES_PER_DIRECTORY_MAX", 3)
    checker.full_check()
    assert scanned.take() == []


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A tree of our own, seen by a user without any rights; files are made before it is used."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        os.chmod(place, 0o777)
        yield Path(place)


def test_without_rights_everything_unreadable_is_told_and_nothing_else(nobody: Path) -> None:
    root = nobody / "tree"
    (root / "closed" / "inner").mkdir(parents=True)
    (root / "listed" / "inner").mkdir(parents=True)
    (root / "named" / "inner").mkdir(parents=True)
    for name in [
        "secret",
        "open",
        "closed/x",
        "listed/x",
        "listed/inner/y",
        "named/x",
        "named/inner/y",
    ]:
        (root / name).write_bytes(b"x")
    uid = os.geteuid()
    # One in which no rule names anything, and one in which a rule does.
    named = file_rule(root / "named" / "x")
    scanned = Scanned(settings_of(dir_rule(root, Policy.IGNORE_NONE), named), nobody)
    scanned.init()
    (nobody / "baseline").chmod(0o644)
    (root / "secret").chmod(0)
    (root / "closed").chmod(0)
    (root / "listed").chmod(0o444)
    (root / "named").chmod(0o444)
    os.seteuid(65534 if uid == 0 else uid)
    try:
        checker = scanned.checker()
        scanned.take()
        checker.full_check()
        found = scanned.take()
        scanned.close()
    finally:
        os.seteuid(uid)
        for name in ("closed", "listed", "named"):
            (root / name).chmod(0o755)
    unreadable = {
        os.fsdecode(event.path.removeprefix(bytes(root) + b"/"))
        for event in found
        if event.code == "FILE_UNREADABLE"
    }
    assert unreadable == {
        "secret",
        "closed",
        "listed/x",
        "listed/inner",
        "named/x",
        "named/inner",
    }
    assert not {ADDED, MISSING}.intersection(codes(found))


def test_a_directory_that_becomes_a_link_during_the_walk_is_not_followed(
    root: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"")
    real = open_directory

    def swapped(name: bytes, dir_fd: int | None, **others: bool) -> int:
        if name == b"sub" and not (root / "sub").is_symlink():
            (root / "sub").rename(root / "aside")
            (root / "sub").symlink_to(outside)
        return real(name, dir_fd, **others)

    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    monkeypatch.setattr(walk, "open_directory", swapped)
    checker.full_check()
    assert not any(b"secret" in path for _, path, _ in scanned.changes())
    checker.full_check()
    found = of_files(scanned.changes(), root)
    assert found["sub"][1].startswith("-L")
    assert found["sub/c"] == (MISSING, "")
    assert not any("secret" in path for path in found)


def test_a_file_that_keeps_changing_is_told_and_its_attributes_are_compared(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned = make(file_rule(root / "a"))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    real, clock = os.readv, iter(range(1, 100))

    def readv(fd: int, buffers: Any) -> int:
        os.utime(root / "a", ns=(1, next(clock)))
        return real(fd, buffers)

    monkeypatch.setattr(os, "readv", readv)
    result = checker.full_check()
    assert (result.unstable, result.modified) == (1, 1)
    assert set(codes(scanned.take())) == {"FILE_UNSTABLE", MODIFIED}


# ---- policies and options ------------------------------------------------------------------------


def test_growing_logs_may_grow_and_nothing_else(root: Path, make: Make) -> None:
    log = root / "a"
    scanned = make(dir_rule(root, Policy.GROWING_LOG_FILES))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    for check in (checker.full_check, lambda: checker.check_path(bytes(log))):
        with log.open("ab") as file:
            file.write(b"more")
        check()
        assert scanned.take() == []
    contents = bytearray(log.read_bytes())
    contents[1:2] = b"X"
    log.write_bytes(contents + b"and more")
    checker.check_path(bytes(log))
    assert scanned.changes() == {(MODIFIED, bytes(log), "C---------")}
    with log.open("ab") as file:
        file.write(b"from here on")
    checker.full_check()
    assert scanned.changes() == set()
    os.truncate(log, 2)
    checker.full_check()
    assert scanned.changes() == {(MODIFIED, bytes(log), "C--------S")}


def test_a_log_that_was_rotated_is_no_change_if_the_old_one_is_unharmed(
    root: Path, make: Make
) -> None:
    log, old = root / "a", root / "a.1"
    scanned = make(dir_rule(root, Policy.GROWING_LOG_FILES), ignore_added=(re.compile(rb".*\.1"),))
    scanned.init()
    whole, single = scanned.checker(), scanned.checker()
    scanned.take()
    log.rename(old)
    log.write_bytes(b"n")
    whole.full_check()
    single.check_path(bytes(log))
    assert scanned.take() == []
    # From now on the new file counts.
    log.write_bytes(b"X")
    whole.full_check()
    assert scanned.changes() == {(MODIFIED, bytes(log), "C---------")}
    # And a log that was tampered with before it was rotated is a change.
    old.write_bytes(b"XXX")
    late = scanned.checker()
    late.full_check()
    assert scanned.changes() == {(MODIFIED, bytes(log), "C--I-----S")}


def test_ignored_files_are_looked_for_and_not_looked_into(root: Path, make: Make) -> None:
    severities = {**dict.fromkeys(Policy, Severity.CRIT), Policy.IGNORE_ALL: Severity.INFO}
    scanned = make(
        dir_rule(root),
        dir_rule(root / "sub", Policy.IGNORE_ALL, 0),
        policy_severities=severities,
    )
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "sub" / "c").write_bytes(b"changed")
    (root / "sub" / "deep" / "d").unlink()
    (root / "sub" / "c2").touch()
    checker.full_check()
    (event,) = scanned.take()
    assert (event.code, event.severity) == (ADDED, Severity.INFO)
    (root / "sub" / "c").unlink()
    checker.full_check()
    (event,) = scanned.take()
    assert (event.code, event.severity) == (MISSING, Severity.INFO)


def test_an_excluded_directory_is_there_and_nothing_in_it_counts(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root), dir_rule(root / "sub", Policy.IGNORE_ALL, -1))
    assert scanned.init().files == 4
    checker = scanned.checker()
    scanned.take()
    (root / "sub" / "c").unlink()
    (root / "sub" / "deep" / "d").unlink()
    checker.full_check()
    assert scanned.take() == []


def test_a_file_rule_over_a_directory_decides_over_its_own_attributes(
    root: Path, make: Make
) -> None:
    scanned = make(dir_rule(root), file_rule(root, Policy.ATTRIBUTES))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "new").touch()
    checker.full_check()
    assert scanned.changes() == {(ADDED, bytes(root / "new"), "")}


def test_a_new_file_has_the_severity_of_its_directory_and_a_missing_one_severity_files(
    root: Path, make: Make
) -> None:
    severities = {**dict.fromkeys(Policy, Severity.CRIT), Policy.ATTRIBUTES: Severity.NOTICE}
    scanned = make(
        dir_rule(root, Policy.ATTRIBUTES),
        policy_severities=severities,
        severity_files=Severity.ERR,
    )
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "new").touch()
    (root / "a").unlink()
    checker.full_check()
    assert {(event.code, event.severity) for event in scanned.take()} == {
        (ADDED, Severity.NOTICE),
        (MISSING, Severity.ERR),
    }


def test_ignored_changes_are_neither_reported_nor_remembered(root: Path, make: Make) -> None:
    scanned = make(
        dir_rule(root, Policy.ATTRIBUTES),
        ignore_added=(re.compile(rb".*/new.*"),),
        ignore_missing=(re.compile(rb".*/b"),),
    )
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "new").touch()
    (root / "b").unlink()
    for _ in range(2):
        assert checker.full_check().changes == 0
    (root / "b").touch()
    (root / "b").chmod(0o600)
    checker.full_check()
    assert of_files(scanned.changes(), root) == {"b": (MODIFIED, "-----M----")}


def test_objects_that_the_rules_no_longer_cover_are_not_missing(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    scanned.take()
    (root / "sub" / "c").unlink()
    scanned.settings = settings_of(file_rule(root / "a"))
    scanned.checker().full_check()
    assert scanned.take() == []


def test_digests_that_the_baseline_lacks_are_told(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root))
    scanned.init(settings_of(dir_rule(root, Policy.ATTRIBUTES)))
    checker = scanned.checker()
    scanned.take()
    checker.full_check()
    (event,) = scanned.take()
    assert (event.code, event.fields["files"]) == ("BASELINE_INCOMPLETE", 4)
    checker.full_check()
    assert scanned.take() == []


def test_a_check_uses_the_digest_of_the_baseline(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root))
    scanned.init(settings_of(dir_rule(root), digest_algorithm="blake2b"))
    checker = scanned.checker()
    scanned.take()
    (root / "a").write_bytes(b"x")
    checker.full_check()
    (event,) = scanned.take()
    assert str(event.fields["chksum_old"]).startswith("blake2b:")


# ---- baselines -----------------------------------------------------------------------------------


def test_an_update_reports_and_then_knows_the_new_state(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "a").write_bytes(b"changed")
    (root / "sub" / "deep" / "d").unlink()
    (root / "sub" / "deep" / "new").touch()
    result = checker.update(scanned.baseline, host="other", configuration_sha256="", created_us=9)
    assert (result.added, result.missing, result.modified) == (1, 1, 2)
    after = scanned.checker()
    assert (after.meta.host, after.meta.created_us, after.meta.entries) == ("other", 9, 7)
    scanned.take()
    after.full_check()
    assert scanned.take() == []


@pytest.mark.parametrize("after", [0, 1, 3])
def test_what_is_stopped_says_so_and_writes_nothing(root: Path, make: Make, after: int) -> None:
    scanned = make(dir_rule(root))
    left = iter([False] * after)

    def stop() -> bool:
        return next(left, True)

    result = check_module.init_baseline(
        scanned.settings,
        scanned.baseline,
        scanned.on_event,
        host="h",
        configuration_sha256="",
        created_us=1,
        stop=stop,
    )
    assert not result.is_complete
    assert not scanned.baseline.exists()
    scanned.init()
    checker = scanned.checker()
    before = scanned.baseline.read_bytes()
    scanned.raised.clear()
    assert not checker.full_check(lambda: True).is_complete
    assert codes(scanned.raised) == ["CHECK_STARTED"]
    result = checker.update(
        scanned.baseline, host="h", configuration_sha256="", created_us=2, stop=lambda: True
    )
    assert not result.is_complete
    assert scanned.baseline.read_bytes() == before


def test_a_baseline_of_rubbish_is_a_format_error(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root))
    scanned.baseline.write_bytes(b"rubbish" * 1000)
    with pytest.raises(FormatError):
        scanned.checker()


def test_no_baseline_is_a_storage_error(root: Path, make: Make) -> None:
    with pytest.raises(StorageError):
        make(dir_rule(root)).checker()


def test_a_reporter_that_fails_leaves_the_change_to_be_reported_again(
    root: Path, make: Make
) -> None:
    scanned = make(file_rule(root / "a"))
    scanned.init()
    checker = scanned.checker()
    (root / "a").unlink()
    keep = scanned.on_event

    def fail(*_args: object) -> None:
        raise ScanStoppedError

    checker._on_event = fail
    with pytest.raises(ScanStoppedError):
        checker.check_path(bytes(root / "a"))
    checker._on_event = keep
    scanned.take()
    checker.check_path(bytes(root / "a"))
    assert codes(scanned.take()) == [MISSING]


def test_times_beyond_64_bits_are_compared_as_they_are_stored() -> None:
    entry = FileEntry(0o100644, 0, 0, 1, 10**25, -(10**25), 3, 4, 5, 1, 0, None, None, 0, "")
    record = walk.DirectoryRecord(b"/", Place((), None, -1))
    record.add(b"a", entry)
    assert decode_entries(pack_record(record)) == entries_of(record) == {b"a": clamped(entry)}


def test_progress_names_each_directory(root: Path, make: Make) -> None:
    seen: list[tuple[int, int, bytes]] = []
    scanned = make(dir_rule(root))
    check_module.init_baseline(
        scanned.settings,
        scanned.baseline,
        scanned.on_event,
        host="h",
        configuration_sha256="",
        created_us=1,
        progress=lambda *numbers: seen.append(numbers),
    )
    assert seen[-1] == (7, 6, bytes(root / "sub" / "deep"))
    assert [files for files, _, _ in seen] == sorted(files for files, _, _ in seen)


def test_no_descriptor_is_left_open(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root), file_rule(root / "sub" / "none" / "x"))
    scanned.init()
    checker = scanned.checker()
    before = set(os.listdir("/proc/self/fd"))
    checker.full_check()
    checker.full_check(iter([False, False, False, True]).__next__)
    for path in (root, root / "sub", root / "a", root / "a" / "x", Path("/"), root / "gone" / "x"):
        checker.check_path(bytes(path))
    assert set(os.listdir("/proc/self/fd")) == before


# ---- contents that are left alone ----------------------------------------------------------------


def skip(*values: bytes) -> dict[str, Any]:
    return {"skip_checksum": tuple(SKIP_CHECKSUM.parse(value) for value in values)}


@pytest.mark.parametrize("policy", [Policy.READ_ONLY, Policy.GROWING_LOG_FILES])
def test_contents_that_are_to_be_skipped_are_not_read_and_the_rest_is_compared(
    root: Path, make: Make, policy: Policy
) -> None:
    (root / "large.iso").write_bytes(b"x" * 600_000)
    (root / "small.iso").write_bytes(b"y" * 10)
    lines = skip(
        b"match_regex(\\.iso$), size_exceeds(500000)", b"match_prefix(%s/sub/)" % bytes(root)
    )
    # With a rule by name as well, so that both ways through a directory are gone.
    scanned = make(dir_rule(root, policy), file_rule(root / "sub" / "deep", policy), **lines)
    result = scanned.init()
    assert (result.skipped, result.hashed, result.bytes_read) == (3, 3, 14)
    found = BaselineReader(scanned.baseline).directory(bytes(root))
    assert found[b"large.iso"].digest is None
    assert found[b"small.iso"].digest is not None
    checker = scanned.checker()
    scanned.take()
    times = (root / "large.iso").stat()
    for name in ("large.iso", "small.iso", "sub/c"):
        path = root / name
        path.write_bytes(path.read_bytes().replace(path.read_bytes()[:1], b"z"))
        path.chmod(0o600)
    os.utime(root / "large.iso", ns=(times.st_atime_ns, times.st_mtime_ns))
    checker.full_check()
    changed = {
        path: code[1].replace("T", "-") for path, code in of_files(scanned.changes(), root).items()
    }
    assert changed == {
        "large.iso": "-----M----",
        "small.iso": "C----M----",
        "sub/c": "-----M----",
    }


def test_a_file_that_grows_beyond_the_limit_is_told_by_its_size(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root), **skip(b"size_exceeds(3)"))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "a").write_bytes(b"aaaa")
    checker.check_path(bytes(root / "a"))
    assert ("--------TS") in {event.change for event in scanned.take()}
    (root / "a").write_bytes(b"bbb")
    checker.full_check()
    assert {event.code for event in scanned.take()} == {MODIFIED, "BASELINE_INCOMPLETE"}


# ---- what else an inode says ----------------------------------------------------------------------

ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, 0), (2, 6, 65534), (4, 4, 0), (16, 4, 0), (32, 4, 0))
)
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


@pytest.fixture
def with_xattrs(root: Path) -> Path:
    try:
        os.setxattr(root / "a", "user.probe", b"")
    except OSError:
        pytest.skip("the file system of the tests has no extended attributes")
    os.removexattr(root / "a", "user.probe")
    return root


def test_acls_and_extended_attributes_are_told_and_only_once(with_xattrs: Path, make: Make) -> None:
    root = with_xattrs
    os.setxattr(root / "b", "user.same", b"1")
    scanned = make(dir_rule(root, Policy.ATTRIBUTES))
    scanned.init()
    checker = scanned.checker()
    checker.full_check()
    assert scanned.take() == []
    os.setxattr(root / "a", "system.posix_acl_access", ACL)
    os.setxattr(root / "b", "user.note", b"new")
    os.setxattr(root / "sub", "system.posix_acl_default", ACL)
    checker.full_check()
    found = {event.path: event for event in scanned.take()}
    assert {event.change for event in found.values()} == {"-----M----"}
    assert found.keys() == {bytes(root / name) for name in ("a", "b", "sub")}
    name = owner_name(65534)
    shown = f"user::rw-,user:{name}:rw-,group::r--,mask::r--,other::r--"
    assert found[bytes(root / "a")].fields["acl_new"] == shown
    assert found[bytes(root / "sub")].fields["acl_default_new"] == shown
    assert found[bytes(root / "b")].fields["xattr_new"] == 'user.note="new"'
    checker.full_check()
    assert scanned.take() == []
    os.removexattr(root / "b", "user.note")
    checker.check_path(bytes(root / "b"))
    (event,) = scanned.take()
    assert (event.fields["xattr_old"], event.fields["xattr_new"]) == ('user.note="new"', None)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="gives capabilities and flags")
def test_capabilities_and_flags_are_told(with_xattrs: Path, make: Make) -> None:
    root = with_xattrs
    scanned = make(dir_rule(root, Policy.ATTRIBUTES))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    os.setxattr(root / "a", "security.capability", CAPABILITY)
    switched = subprocess.run(["chattr", "+ia", root / "b"], check=False, capture_output=True)
    try:
        checker.full_check()
    finally:
        subprocess.run(["chattr", "-ia", root / "b"], check=False, capture_output=True)
    found = {event.path: event for event in scanned.take()}
    assert found[bytes(root / "a")].change == "-----M----"
    assert found[bytes(root / "a")].fields["caps_new"] == "cap_net_raw=ep"
    if switched.returncode == 0:
        flags = found[bytes(root / "b")].fields
        assert (flags["attr_old"], flags["attr_new"]) == ("------------", "---ia-------")
        assert (flags["iattr_old"], flags["iattr_new"]) == (0, 0x30)


@pytest.mark.parametrize(
    ("switch", "silent"), [("acl_check", "a"), ("xattr_check", "b"), ("selinux_check", "")]
)
def test_what_is_switched_off_is_not_told(
    with_xattrs: Path, make: Make, switch: str, silent: str
) -> None:
    root = with_xattrs
    scanned = make(dir_rule(root, Policy.ATTRIBUTES), **{switch: False})
    scanned.init(settings_of(dir_rule(root, Policy.ATTRIBUTES)))
    scanned.take()
    os.setxattr(root / "a", "system.posix_acl_access", ACL)
    os.setxattr(root / "b", "user.note", b"new")
    scanned.checker().full_check()
    assert {event.path for event in scanned.take()} == {
        bytes(root / name) for name in "ab" if name != silent
    }


def test_a_baseline_that_knows_less_is_used_and_said_to_know_less(
    with_xattrs: Path, make: Make
) -> None:
    root = with_xattrs
    os.setxattr(root / "a", "user.note", b"was there")
    scanned = make(dir_rule(root, Policy.ATTRIBUTES))
    scanned.init(settings_of(dir_rule(root, Policy.ATTRIBUTES), xattr_check=False))
    scanned.take()
    checker = scanned.checker()
    for told in (["BASELINE_LACKS_ATTRIBUTES"], []):
        checker.full_check()
        assert codes(scanned.take()) == told


@pytest.mark.parametrize(("format", "fields"), [(1, 15), (2, 20)])
def test_a_baseline_of_an_old_format_is_compared_in_what_it_has(
    root: Path, make: Make, format: int, fields: int
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    scanned.take()
    with sqlite3.connect(scanned.baseline) as connection:
        digest = ContentDigest()
        rows = connection.execute("SELECT key, entries FROM directories ORDER BY key").fetchall()
        for key, entries in rows:
            found = decode_entries(entries)
            old = encode([[name, entry[:fields]] for name, entry in found.items()])
            digest.add(key, old)
            connection.execute("UPDATE directories SET entries = ? WHERE key = ?", (old, key))
        connection.execute("UPDATE meta SET value = ? WHERE name = 'format'", (format,))
        connection.execute(
            "UPDATE meta SET value = ? WHERE name = 'content_sha256'", (digest.hexdigest(),)
        )
    connection.close()
    checker = scanned.checker()
    checker.full_check()
    assert codes(scanned.take()) == (["BASELINE_LACKS_ATTRIBUTES"] if format == 1 else [])
    (root / "a").chmod(0o600)
    checker.full_check()
    assert of_files(scanned.changes(), root) == {"a": (MODIFIED, "-----M--T-")}
    checker.update(scanned.baseline, host="h", configuration_sha256="", created_us=2)
    with BaselineReader(scanned.baseline) as reader:
        assert reader.meta.format == 3
        assert reader.directory(bytes(root))[b"a"].looked


def test_another_inode_under_the_same_number_is_another_inode(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned = make(dir_rule(root, Policy.LOG_FILES))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    real = Inspector.times

    def times(self: Inspector, fd: int, device: int) -> Times:
        return real(self, fd, device)._replace(birth_ns=1)

    monkeypatch.setattr(Inspector, "times", times)
    checker.check_path(bytes(root / "b"))
    if any(event.path == bytes(root / "b") for event in scanned.raised):
        assert ("POLICY_MODIFIED", bytes(root / "b"), "---I------") in scanned.changes()


# ---- the receipt ----------------------------------------------------------------------------------


def test_the_receipt_says_what_was_seen_with_what_and_against_what(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root), file_rule(root / "a"), sha256="c" * 64)
    scanned.init()
    with BaselineReader(scanned.baseline) as reader:
        contents = f"sha256:{reader.meta.content_sha256}"
    assert scanned.receipt().fields["baseline"] == contents
    scanned.checker().full_check()
    receipt = scanned.receipt()
    assert receipt.code == "CHECK_COMPLETED"
    expected = {
        "mode": "check",
        "files": 7,
        "hashed": 4,
        "bytes": 6,
        "changes": 0,
        "skipped": 0,
        "attributes_unread": 0,
        "rules": 2,
        "configuration": "sha256:" + "c" * 64,
        "baseline": contents,
    }
    assert {name: receipt.fields[name] for name in expected} == expected
    assert receipt.fields.keys() <= CATALOGUE["CHECK_COMPLETED"].fields.keys() | {"duration_ms"}


def test_the_receipt_of_an_update_names_both_baselines(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    (root / "a").write_bytes(b"other")
    checker = scanned.checker()
    checker.update(scanned.directory / "new", host="h", configuration_sha256="", created_us=2)
    fields = scanned.receipt().fields
    with BaselineReader(scanned.directory / "new") as reader:
        assert fields["baseline_new"] == f"sha256:{reader.meta.content_sha256}"
    assert fields["baseline"] == f"sha256:{checker.meta.content_sha256}" != fields["baseline_new"]


def test_the_receipt_names_what_was_skipped_each_time(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse = root / "sub" / "big file"
    with sparse.open("wb") as file:
        file.truncate(2**31)
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    for _ in range(2):
        checker.full_check()
        fields = scanned.receipt().fields
        assert fields["skipped"] == 1
        assert fields["skipped_why"] == "sparse: 0 bytes on disk claim to be 2147483648: 1"
        assert str(fields["skipped_paths"]).endswith("/sub/big\\x20file")


def test_the_receipt_counts_attributes_that_could_not_be_read(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()

    def listxattr(*_args: object, **_others: object) -> list[str]:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "listxattr", listxattr)
    scanned.checker().full_check()
    fields = scanned.receipt().fields
    assert (fields["attributes_unread"], fields["changes"]) == (7, 0)


def test_the_receipt_says_how_the_watch_was(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    checker = Checker(
        scanned.settings,
        scanned.baseline,
        scanned.directory / "scratch",
        scanned.on_event,
        health=lambda: {"watcher": "inotify", "watched": 3, "watcher_gaps": 1},
    )
    checker.full_check()
    checker.close()
    assert scanned.receipt().fields["watched"] == 3


def test_a_check_without_files_is_no_success_and_replaces_no_baseline(
    root: Path, make: Make
) -> None:
    scanned = make(dir_rule(root / "gone"))
    scanned.init(settings_of(dir_rule(root)))
    good = scanned.baseline.read_bytes()
    assert scanned.init().baseline_sha256 is None
    assert scanned.receipt().code == "CHECK_SAW_NOTHING"
    assert scanned.baseline.read_bytes() == good
    checker = scanned.checker()
    result = checker.update(scanned.baseline, host="h", configuration_sha256="", created_us=2)
    assert (result.files, result.baseline_sha256) == (0, None)
    assert scanned.receipt().code == "CHECK_SAW_NOTHING"
    assert scanned.baseline.read_bytes() == good


def test_a_digest_that_is_not_in_hashlib_is_used_where_its_package_is(
    root: Path, make: Make
) -> None:
    blake3 = pytest.importorskip("blake3")
    scanned = make(dir_rule(root), digest_algorithm="blake3")
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "a").write_bytes(b"abc")
    checker.full_check()
    (event,) = scanned.take()
    assert event.fields["chksum_new"] == f"blake3:{blake3.blake3(b'abc').hexdigest()}"


def test_a_baseline_with_digests_that_this_host_cannot_make_is_refused_in_words(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("blake3")
    scanned = make(dir_rule(root), digest_algorithm="blake3")
    scanned.init()
    checker = scanned.checker()
    monkeypatch.setitem(sys.modules, "blake3", None)
    with pytest.raises(StorageError, match=r"install needfire\[blake3\]"):
        checker.full_check()
