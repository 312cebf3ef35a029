"""What the event that ends a check says of it."""

import errno
import os
from pathlib import Path

import pytest

from needfire_client.baseline import BaselineReader
from needfire_client.check import Checker
from needfire_protocol.catalogue import CATALOGUE
from needfire_testkit.scanner import Make, dir_rule, file_rule, settings_of


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
