"""What a walk says of a tree that turns out to be another one than a moment ago."""

import os
from pathlib import Path

import pytest

from needfire_client import directory
from needfire_client.attributes import Examiner
from needfire_client.judging import Severities
from needfire_client.policy import Ruleset
from needfire_client.walk import Rest, Walker
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
