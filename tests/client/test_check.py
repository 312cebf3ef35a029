"""What a check reports, of all or of a part, and what it leaves for the next one."""

import os
import stat
from pathlib import Path

import pytest

from needfire_client.attributes import ScanStoppedError
from needfire_client.baseline import BaselineReader
from needfire_client.new_baseline import init_baseline
from needfire_client.packing import entries_of, pack_record
from needfire_client.policy import Place
from needfire_client.record import DirectoryRecord
from needfire_client.walk import Walker
from needfire_protocol.baseline import FileEntry, clamped, decode_entries
from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.rc.policies import DEFAULT_MASKS, Check, Policy
from needfire_testkit.scanner import (
    ADDED,
    MISSING,
    MODIFIED,
    Make,
    codes,
    dir_rule,
    file_rule,
    of_files,
)


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


@pytest.mark.parametrize("becomes", ["nothing", "file", "link"])
@pytest.mark.parametrize("names", ["tree", "file"])
def test_of_a_directory_that_is_none_any_more_one_path_tells_all_that_was_in_it(
    root: Path, make: Make, becomes: str, names: str
) -> None:
    """Real time may name a file in it alone: that of the directory itself was lost."""
    scanned = make(dir_rule(root) if names == "tree" else file_rule(root / "sub" / "c"))
    scanned.init()
    whole, single = scanned.checker(), scanned.checker()
    scanned.take()
    (root / "sub").rename(root.parent / "aside")
    if becomes == "file":
        (root / "sub").touch()
    elif becomes == "link":
        (root / "sub").symlink_to("/nowhere")
    single.check_path(bytes(root / "sub" / "c"))
    told = scanned.changes()
    gone = {"sub/c"} if names == "file" else {"sub/c", "sub/deep", "sub/deep/d"}
    assert {bytes(root / name) for name in gone} == {
        path for code, path, _ in told if code == MISSING and path != bytes(root / "sub")
    }
    # The directory above moved too, and real time names it by itself.
    single.check_path(bytes(root))
    told |= scanned.changes()
    whole.full_check()
    assert scanned.changes() == told


def test_a_directory_that_goes_between_two_looks_at_it_is_gone_with_all_that_was_in_it(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    real = Walker.scan

    def too_late(walker: Walker, path: bytes) -> DirectoryRecord | None:
        (root / "sub").rename(root.parent / "aside")
        return real(walker, path)

    monkeypatch.setattr(Walker, "scan", too_late)
    checker.check_path(bytes(root / "sub"))
    assert scanned.changes() == {
        (MISSING, bytes(root / name), "") for name in ("sub/c", "sub/deep", "sub/deep/d")
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

    result = init_baseline(
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
    record = DirectoryRecord(b"/", Place((), None, -1))
    record.add(b"a", entry)
    assert decode_entries(pack_record(record)) == entries_of(record) == {b"a": clamped(entry)}


def test_progress_names_each_directory(root: Path, make: Make) -> None:
    seen: list[tuple[int, int, bytes]] = []
    scanned = make(dir_rule(root))
    init_baseline(
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
