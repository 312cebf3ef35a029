"""What a walk says of a tree that turns out to be another one than a moment ago."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from needfire_client import directory, walk
from needfire_client.attributes import Examiner
from needfire_client.directory import UNANSWERED, Descent
from needfire_client.judging import Severities
from needfire_client.packing import entries_of
from needfire_client.policy import Place, Ruleset
from needfire_client.record import DirectoryRecord
from needfire_client.walk import Rest, Walker
from needfire_protocol.baseline import FileEntry
from needfire_protocol.severity import Severity
from needfire_testkit.scanner import dir_rule, settings_of

SEVERITIES = Severities(Severity.CRIT, Severity.CRIT, Severity.CRIT)


def walker_of(root: Path, entries_max: int = 100) -> Walker:
    ruleset = Ruleset(settings_of(dir_rule(root)))
    return Walker(ruleset, SEVERITIES, Examiner("sha256"), entries_max=entries_max)


@pytest.mark.parametrize("entries_max", [2, 3])
def test_the_rest_of_a_walk_is_not_known_where_a_directory_cannot_be_listed(
    tmp_path: Path, entries_max: int
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    walker = walker_of(tmp_path, entries_max)
    place = bytes(tmp_path / "a")
    if entries_max == 3:
        assert Rest(bytes(tmp_path), [b"b", b"c"]) in walker.rests_after(place)
        return
    # To go on with what can be listed would leave the rest out without a word.
    with pytest.raises(OSError, match="Permission denied"):
        walker.rests_after(place)


def test_nothing_is_opened_where_a_mount_does_not_answer_nor_on_the_way_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("dead/in", "gone", "other/in"):
        (tmp_path / name).mkdir(parents=True)
    dead, gone, other = (bytes(tmp_path / name) for name in ("dead", "gone", "other"))
    descent_into = directory.descent_into

    def asked(fd: int, name: bytes, place: Place, entry: FileEntry | None) -> Descent | None:
        assert name not in (b"dead", b"gone")
        return descent_into(fd, name, place, entry)

    monkeypatch.setattr(walk, "descent_into", asked)
    walker = walker_of(tmp_path)
    walker.avoid(frozenset((dead,)))
    walker.avoid(frozenset((gone,)))
    assert walker.avoids == {dead, gone}

    def unread(records: Iterable[DirectoryRecord | None]) -> dict[bytes, object]:
        found = [each for record in records if record is not None for each in record.findings]
        assert {each.code for each in found} <= {"FILE_UNREADABLE"}
        return {each.path: each.fields["reason"] for each in found}

    assert unread(walker.walk_inside(dead, [b"in"])) == {dead + b"/in": UNANSWERED}
    assert unread(walker.walk_from(dead + b"/in")) == {dead + b"/in": UNANSWERED}
    assert unread([walker.reread(dead)]) == {dead: UNANSWERED}
    with pytest.raises(OSError, match=UNANSWERED):
        walker.scan(dead + b"/in")
    # Not that it is gone: nobody can know.
    assert walker.look(dead + b"/in") is None
    assert unread(walker.walk_inside(bytes(tmp_path), [b"dead", b"gone", b"other"])) == {
        dead: UNANSWERED,
        gone: UNANSWERED,
    }
    assert unread(walker.walk_inside(other, [b"in"])) == {}
    record = walker.reread(bytes(tmp_path))
    assert record is not None
    reasons = {name: entry.reason for name, entry in entries_of(record).items()}
    assert reasons == {b"dead": UNANSWERED, b"gone": UNANSWERED, b"other": ""}


def test_a_log_that_went_between_listing_and_reading_is_no_rotated_one(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_bytes(b"old")
    inode = os.stat(tmp_path / "log.1").st_ino
    walker = walker_of(tmp_path)
    asked: list[int] = []

    def is_still(number: int) -> bool:
        asked.append(number)
        return asked.count(inode) == 1 and number == inode

    assert walker.rotated_prefix(bytes(tmp_path), inode.__eq__, 3) is not None
    assert walker.rotated_prefix(bytes(tmp_path), is_still, 3) is None


@pytest.mark.parametrize("folded_from", [2, 100])
def test_nobody_has_to_read_the_files_of_a_directory_that_is_too_heavy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folded_from: int
) -> None:
    """Contents that were put off for a process of their own would be read for nothing."""
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 2**20)
    monkeypatch.setattr(directory, "_FOLDED_FROM_NAMES", folded_from)
    deferred = {}
    for bytes_max in (100, 2**20):
        monkeypatch.setattr(directory, "ENTRIES_BYTES_MAX", bytes_max)
        examiner = Examiner("sha256")
        examiner.defer_above_bytes = 0
        ruleset = Ruleset(settings_of(dir_rule(tmp_path)))
        record = Walker(ruleset, SEVERITIES, examiner).scan(bytes(tmp_path))
        assert record is not None
        assert record.is_readable == (bytes_max > 100)
        deferred[bytes_max] = record.deferred
        assert (examiner.hashed, examiner.deferred) == (0, [])
    assert deferred == {100: [], 2**20: [b"a", b"b", b"c", b"d"]}
