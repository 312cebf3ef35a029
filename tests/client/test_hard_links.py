"""A large file of many names is read once in a pass, as long as it stays what it was."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from needfire_client.attributes import Examiner
from needfire_client.hard_links import FROM_BYTES, LINKS_MAX, HardLinks
from needfire_protocol.baseline import FileEntry
from needfire_protocol.rc.policies import Policy
from needfire_testkit.scanner import MODIFIED, Make, dir_rule

SIZE = FROM_BYTES + 1
"""A file that one read call does not take in."""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "a").write_bytes(b"x" * SIZE)
    os.link(tmp_path / "a", tmp_path / "b")
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def examined(examiner: Examiner, directory: int, name: bytes) -> FileEntry:
    entry = examiner.examine(directory, name, hashes=True, is_regular=True)
    assert entry is not None
    return entry


def test_another_name_has_the_same_entry_and_is_not_read(directory: int) -> None:
    examiner = Examiner("sha256")
    first = examined(examiner, directory, b"a")
    assert first.digest == hashlib.sha256(b"x" * SIZE).digest()
    assert examined(examiner, directory, b"b") == first
    assert (examiner.hashed, examiner.bytes_read) == (2, SIZE)


def test_another_pass_reads_it_again(directory: int) -> None:
    passes = [Examiner("sha256"), Examiner("sha256")]
    for examiner in passes:
        examined(examiner, directory, b"a")
    assert [each.bytes_read for each in passes] == [SIZE, SIZE]


def test_a_file_that_changed_between_two_names_is_read_again(
    tmp_path: Path, directory: int
) -> None:
    examiner = Examiner("sha256")
    examined(examiner, directory, b"a")
    status = os.stat(tmp_path / "a")
    with (tmp_path / "a").open("r+b") as file:
        file.write(b"y")
    while os.stat(tmp_path / "a").st_ctime_ns == status.st_ctime_ns:
        os.utime(tmp_path / "a", ns=(0, 0))
    # What anybody can set is as it was.
    os.utime(tmp_path / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    found = examined(examiner, directory, b"b")
    assert found.mtime_ns == status.st_mtime_ns
    assert found.digest == hashlib.sha256(b"y" + b"x" * (SIZE - 1)).digest()


def test_a_file_that_may_grow_is_read_under_each_name(directory: int) -> None:
    examiner = Examiner("sha256")
    examined(examiner, directory, b"a")
    _, prefix = examiner.examine_growing(directory, b"b", 3)
    assert prefix == hashlib.sha256(b"xxx").digest()
    examined(examiner, directory, b"a")
    assert examiner.bytes_read == 2 * SIZE


def test_a_file_that_never_stays_the_same_is_not_remembered(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    examiner = Examiner("sha256")
    hash_it = examiner._hash

    def unstable(fd: int, size: int, prefix_bytes: int | None) -> tuple[bytes, bytes | None]:
        (tmp_path / "a").chmod(0o600 + examiner.hashed)
        before = os.stat(tmp_path / "a").st_ctime_ns
        while os.stat(tmp_path / "a").st_ctime_ns == before:
            os.utime(tmp_path / "a")
        return hash_it(fd, size, prefix_bytes)

    monkeypatch.setattr(examiner, "_hash", unstable)
    assert examined(examiner, directory, b"a").digest is None
    monkeypatch.undo()
    read_before = examiner.bytes_read
    assert examined(examiner, directory, b"b").digest is not None
    assert examiner.bytes_read == read_before + SIZE


def status_of(inode: int, *, size: int = SIZE, names: int = 2, ctime_ns: int = 5) -> os.stat_result:
    times = {"st_mtime_ns": 3, "st_ctime_ns": ctime_ns}
    return os.stat_result((0o100644, inode, 1, names, 0, 0, size, 0, 0, 0), times)


@pytest.mark.parametrize(
    ("size", "names", "is_kept"),
    [(FROM_BYTES - 1, 2, False), (FROM_BYTES, 2, True), (FROM_BYTES, 1, False)],
)
def test_only_large_files_of_several_names_are_remembered(
    size: int, names: int, is_kept: bool
) -> None:
    links = HardLinks()
    links.add(status_of(1, size=size, names=names), b"digest")
    assert links.digest(status_of(1, size=size, names=2)) == (b"digest" if is_kept else None)


def test_an_inode_with_another_ctime_is_not_known() -> None:
    links = HardLinks()
    links.add(status_of(1), b"digest")
    assert links.digest(status_of(1, ctime_ns=6)) is None
    assert links.digest(status_of(2)) is None


@pytest.mark.parametrize(("count", "kept"), [(LINKS_MAX, LINKS_MAX), (LINKS_MAX + 1, 2049)])
def test_of_too_many_the_larger_ones_are_remembered(count: int, kept: int) -> None:
    links = HardLinks()
    for inode in range(count):
        # The largest first: what came last is no reason to keep it.
        links.add(status_of(inode, size=SIZE + count - inode), b"%d" % inode)
    known = [links.digest(status_of(i, size=SIZE + count - i)) == b"%d" % i for i in range(count)]
    assert known == [True] * kept + [False] * (count - kept)


def test_a_check_reads_each_inode_once_a_process_and_reports_each_name(
    make: Make, tmp_path: Path
) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "00").write_bytes(b"x" * SIZE)
    for number in range(1, 20):
        os.link(root / "00", root / f"{number:02}")
    scanned = make(dir_rule(root, Policy.READ_ONLY))
    made = scanned.init()
    processes = scanned.settings.scan_workers + 1
    assert made.hashed == 20
    assert SIZE <= made.bytes_read <= processes * SIZE
    checker = scanned.checker()
    assert checker.full_check().changes == 0
    scanned.take()
    with (root / "07").open("r+b") as file:
        file.write(b"y")
    result = checker.full_check()
    assert SIZE <= result.bytes_read <= processes * SIZE
    found = {path: letters for code, path, letters in scanned.changes() if code == MODIFIED}
    assert {path for path in found if path != bytes(root)} == {
        bytes(root / f"{number:02}") for number in range(20)
    }
    assert all("C" in letters for path, letters in found.items() if path != bytes(root))
