"""What policies, options and their limits make of what a check finds."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from needfire_client.baseline import BaselineReader
from needfire_protocol.errors import StorageError
from needfire_protocol.rc.policies import Policy
from needfire_protocol.rc.skip_checksum import SKIP_CHECKSUM
from needfire_protocol.severity import Severity
from needfire_testkit.scanner import (
    ADDED,
    MISSING,
    MODIFIED,
    Make,
    dir_rule,
    file_rule,
    of_files,
    settings_of,
)


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


def test_another_name_of_a_log_is_no_rotation(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root, Policy.GROWING_LOG_FILES), ignore_added=(re.compile(rb".*\.1"),))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    # What is beside it with the same inode and the same contents is the log itself.
    os.link(root / "a", root / "a.1")
    checker.full_check()
    assert scanned.changes() == {(MODIFIED, bytes(root / "a"), "----H-----")}


def test_a_rotation_that_others_may_write_to_is_told(root: Path, make: Make) -> None:
    log = root / "a"
    scanned = make(dir_rule(root, Policy.GROWING_LOG_FILES), ignore_added=(re.compile(rb".*\.1"),))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    log.rename(root / "a.1")
    log.write_bytes(b"n")
    log.chmod(0o666)
    checker.full_check()
    assert scanned.changes() == {(MODIFIED, bytes(log), "C--I-M---S")}


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
    with BaselineReader(scanned.baseline) as reader:
        found = reader.directory(bytes(root))
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
