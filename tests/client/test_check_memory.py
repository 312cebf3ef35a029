"""A check takes no more memory for more files, however many of them have changed."""

import os
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest

from needfire_client import scan_pool
from needfire_client.check import Checker
from needfire_protocol.event import FieldValue
from needfire_protocol.severity import Severity
from needfire_testkit.scan_workers import share_out_everything
from needfire_testkit.scanner import dir_rule, making

FILES_PER_DIRECTORY = 50
FEW, MANY = 2, 52
"""Directories."""
BYTES_PER_FILE_MAX = 40
"""A name and a pointer to it have more, and what a baseline has of a file ten times as much."""


def grow(tree: Path, directories: int) -> None:
    """Make so many directories of empty files."""
    for number in range(directories):
        directory = tree / f"{number:04}"
        directory.mkdir(parents=True)
        for name in range(FILES_PER_DIRECTORY):
            os.close(os.open(directory / f"{name:02}", os.O_CREAT | os.O_WRONLY))


def heard(_code: str, _severity: Severity | None, _fields: Mapping[str, FieldValue]) -> None:
    """Take in an event as an agent does, whose spool keeps it on disk."""


def checked(place: Path, directories: int, *, workers: int, moved: bool) -> tuple[int, int]:
    """Return the most bytes that a full check had at a time, and how many changes it reported."""
    watched = place / "watched"
    grow(watched / "a", directories)
    with making(place, scan_workers=workers) as make:
        scanned = make(dir_rule(watched))
        scanned.init()
        if moved:
            (watched / "a").rename(watched / "b")
        checker = Checker(scanned.settings, scanned.baseline, place / "overlay", heard)
        scanned.checkers.append(checker)
        tracemalloc.start()
        try:
            result = checker.full_check()
            return tracemalloc.get_traced_memory()[1], result.changes
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("workers", "moved"),
    [(1, False), (2, False), (1, True)],
    ids=["unchanged", "shared out", "all gone and new"],
)
def test_a_check_takes_as_much_memory_for_many_files_as_for_few(
    tmp_path: Path, workers: int, moved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_out_everything(monkeypatch)
    # What waits for a slower process has a bound of its own, in bytes.
    monkeypatch.setattr(scan_pool, "_BUFFERED_BYTES_MAX", 32 * 1024)
    # What is loaded with the first check stays for all others.
    checked(tmp_path / "first", 1, workers=workers, moved=moved)
    few_bytes, _ = checked(tmp_path / "few", FEW, workers=workers, moved=moved)
    many_bytes, changes = checked(tmp_path / "many", MANY, workers=workers, moved=moved)
    assert changes >= (2 * MANY * FILES_PER_DIRECTORY if moved else 0)
    assert many_bytes - few_bytes < BYTES_PER_FILE_MAX * FILES_PER_DIRECTORY * (MANY - FEW)
