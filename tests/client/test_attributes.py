import errno
import hashlib
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from needfire_client import attributes
from needfire_client.attributes import (
    ATTEMPTS_MAX,
    Examiner,
    ScanStoppedError,
    group_name,
    open_directory,
    owner_name,
)
from needfire_client.inode import Inspector
from needfire_protocol.baseline import FileEntry, State, with_access_time


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def examined(
    directory: int, name: bytes, *, hashes: bool = True, is_regular: bool = False
) -> FileEntry:
    entry = Examiner("sha256").examine(directory, name, hashes=hashes, is_regular=is_regular)
    assert entry is not None
    return entry


@pytest.mark.parametrize("size", [0, 1, 256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, 1_300_000])
@pytest.mark.parametrize("is_regular", [True, False])
def test_a_regular_file_has_its_attributes_and_its_digest(
    tmp_path: Path, directory: int, size: int, is_regular: bool
) -> None:
    contents = os.urandom(size)
    (tmp_path / "f").write_bytes(contents)
    status = (tmp_path / "f").stat()
    entry = examined(directory, b"f", is_regular=is_regular)
    assert entry.digest == hashlib.sha256(contents).digest()
    assert (entry.mode, entry.size, entry.inode) == (status.st_mode, size, status.st_ino)
    assert (entry.mtime_ns, entry.ctime_ns) == (status.st_mtime_ns, status.st_ctime_ns)
    assert (entry.state, entry.reason) == (State.OK, "")


KINDS = st.sampled_from(["file", "directory", "link", "fifo", "absent"])


@given(
    kind=KINDS,
    size=st.integers(0, 9000) | st.sampled_from([256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1]),
    mode=st.integers(0, 0o7777),
    times_ns=st.tuples(st.integers(-(2**33), 2**34), st.integers(0, 10**9 - 1)),
    names=st.integers(1, 3),
    note=st.none() | st.binary(max_size=200),
    drops_cache=st.booleans(),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_found_at_once_is_what_is_found_patiently(
    tmp_path: Path,
    directory: int,
    kind: str,
    size: int,
    mode: int,
    times_ns: tuple[int, int],
    names: int,
    note: bytes | None,
    drops_cache: bool,
) -> None:
    for left in tmp_path.iterdir():
        left.rmdir() if left.is_dir() and not left.is_symlink() else left.unlink()
    path = tmp_path / "f"
    if kind == "file":
        path.write_bytes(os.urandom(size))
        for number in range(1, names):
            os.link(path, tmp_path / f"other{number}")
        if note is not None:
            os.setxattr(path, "user.note", note)
        moment = times_ns[0] * 10**9 // 4 + times_ns[1]
        os.utime(path, ns=(moment, moment // 2))
        path.chmod(mode)
    elif kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("target")
    elif kind == "fifo":
        os.mkfifo(path)
    quick, slow = (Examiner("sha256", drops_cache=drops_cache) for _ in range(2))
    at_once = quick.at_once(directory, b"f")
    patiently = slow.examine(directory, b"f", hashes=True)
    is_usual = kind == "file" and 0 < size <= 256 * 1024 and (os.geteuid() == 0 or mode & 0o400)
    assert (at_once is not None) == bool(is_usual)
    if at_once is not None:
        assert with_access_time(*at_once) == patiently
        assert quick.take_numbers() == slow.take_numbers()


def test_reading_may_move_the_access_time_and_nothing_else(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    os.utime(path, ns=(1_000_000_005, 2_000_000_006))
    monkeypatch.setattr(os, "O_NOATIME", 0)
    before = path.stat()
    found = Examiner("sha256").at_once(directory, b"f")
    after = path.stat()
    assert found is not None
    entry = with_access_time(*found)
    assert (entry.atime_ns, entry.mtime_ns) == (after.st_atime_ns, before.st_mtime_ns)


def test_contents_are_read_only_where_they_are_compared(tmp_path: Path, directory: int) -> None:
    (tmp_path / "f").write_bytes(b"x")
    examiner = Examiner("sha256")
    entry = examiner.examine(directory, b"f", hashes=False)
    assert entry is not None
    assert entry.digest is None
    assert (examiner.hashed, examiner.bytes_read) == (0, 0)


def test_reading_does_not_move_the_access_time(tmp_path: Path, directory: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    os.utime(path, ns=(1, 2))
    entry = examined(directory, b"f", is_regular=True)
    assert entry.atime_ns == path.stat().st_atime_ns == 1


def test_a_link_is_its_target_and_is_not_followed(tmp_path: Path, directory: int) -> None:
    (tmp_path / "real").write_bytes(b"x")
    os.symlink(b"no\xff/where", bytes(tmp_path) + b"/dangling")
    os.symlink("loop", tmp_path / "loop")
    os.symlink("real", tmp_path / "good")
    for name, target in ((b"dangling", b"no\xff/where"), (b"loop", b"loop"), (b"good", b"real")):
        for is_regular in (True, False):
            entry = examined(directory, name, is_regular=is_regular)
            assert stat.S_ISLNK(entry.mode)
            assert (entry.link, entry.digest, entry.state) == (target, None, State.OK)


def test_fifos_and_sockets_are_never_opened_and_never_hang(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        # A path to a socket has at most 107 bytes.
        monkeypatch.chdir(tmp_path)
        listener.bind("sock")
        for name in (b"fifo", b"sock"):
            for is_regular in (True, False):
                entry = examined(directory, name, is_regular=is_regular)
                assert (entry.digest, entry.state) == (None, State.OK)
                assert not stat.S_ISREG(entry.mode)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes device nodes")
def test_device_nodes_are_their_numbers_and_are_never_read(tmp_path: Path, directory: int) -> None:
    # /dev/zero has no end, and opening a tape rewinds it.
    os.mknod(tmp_path / "zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    os.mknod(tmp_path / "loop", stat.S_IFBLK | 0o600, os.makedev(7, 200))
    for name, rdev in ((b"zero", os.makedev(1, 5)), (b"loop", os.makedev(7, 200))):
        for is_regular in (True, False):
            entry = examined(directory, name, is_regular=is_regular)
            assert (entry.rdev, entry.digest, entry.state) == (rdev, None, State.OK)


def test_what_is_gone_is_none(directory: int) -> None:
    examiner = Examiner("sha256")
    assert examiner.examine(directory, b"gone", hashes=True, is_regular=True) is None
    assert examiner.examine(directory, b"gone", hashes=False) is None
    assert examiner.examine(directory, b"f" * 300, hashes=True) is not None


class Meddler:
    """Does something to a file each time that the examiner reads, or opens, or hashes."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, call: str, act: Callable[[], object]
    ) -> None:
        real = getattr(os, call)
        self.calls = 0

        def meddled(*args: object, **others: object) -> object:
            self.calls += 1
            act()
            return real(*args, **others)

        monkeypatch.setattr(os, call, meddled)


def test_a_file_that_always_changes_is_unstable_after_some_attempts(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    clock = iter(range(1, 1000))
    meddler = Meddler(monkeypatch, "readv", lambda: os.utime(path, ns=(1, next(clock))))
    entry = examined(directory, b"f")
    assert (entry.state, entry.digest) == (State.UNSTABLE, None)
    assert stat.S_ISREG(entry.mode)
    assert meddler.calls == ATTEMPTS_MAX


@pytest.mark.parametrize("contents", [b"other", b"y", b""])
def test_a_file_that_changes_once_is_read_again(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch, contents: bytes
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    os.utime(path, ns=(1, 1))
    real, pending = Inspector.of_open, [contents]

    def of_open(self: Inspector, fd: int) -> tuple[Any, ...]:
        """Change the file after it was looked at and before it is read."""
        if pending:
            path.write_bytes(pending.pop())
        return real(self, fd)

    monkeypatch.setattr(Inspector, "of_open", of_open)
    entry = examined(directory, b"f", is_regular=True)
    assert (entry.state, entry.size) == (State.OK, len(contents))
    assert entry.digest == hashlib.sha256(contents).digest()
    assert entry.mtime_ns != 1


def test_a_file_that_grows_without_end_is_bounded(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 10)
    file = path.open("ab", buffering=0)
    Meddler(monkeypatch, "readv", lambda: file.write(b"y" * 1000))
    examiner = Examiner("sha256")
    entry = examiner.examine(directory, b"f", hashes=True)
    file.close()
    assert entry is not None
    assert entry.state == State.UNSTABLE
    assert examiner.bytes_read < 20_000


@pytest.mark.parametrize(
    "become",
    [lambda path: os.symlink("/etc/passwd", path), os.mkfifo, os.mkdir],
    ids=["link", "fifo", "directory"],
)
def test_a_file_that_becomes_something_else_before_it_is_opened_is_that(
    tmp_path: Path,
    directory: int,
    monkeypatch: pytest.MonkeyPatch,
    become: Callable[[Path], None],
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    real = os.open
    pending = [become]

    def swapped(*args: object, **others: object) -> int:
        if pending:
            path.unlink()
            pending.pop()(path)
        return real(*args, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", swapped)
    entry = examined(directory, b"f")
    assert not stat.S_ISREG(entry.mode)
    assert (entry.digest, entry.state) == (None, State.OK)


@pytest.mark.parametrize("size", [2**26 + 1, 2**42])
@pytest.mark.parametrize("is_growing", [False, True])
def test_a_giant_that_takes_the_place_of_a_file_before_it_is_opened_is_not_read(
    tmp_path: Path,
    directory: int,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    is_growing: bool,
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"")
    giant = tmp_path / "giant"
    giant.touch()
    os.truncate(giant, size)
    real = os.open

    def swapped(*args: object, **others: object) -> int:
        if giant.exists():
            giant.rename(path)
        return real(*args, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", swapped)
    examiner = Examiner("sha256")
    if is_growing:
        entry = examiner.examine_growing(directory, b"f", None)[0]
    else:
        entry = examiner.examine(directory, b"f", hashes=True)
    assert entry is not None
    assert (entry.size, entry.state, entry.digest) == (size, State.UNREADABLE, None)
    assert examiner.bytes_read == 0


def test_a_file_that_vanishes_before_it_is_opened_is_gone(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    Meddler(monkeypatch, "open", lambda: path.unlink(missing_ok=True))
    assert Examiner("sha256").examine(directory, b"f", hashes=True) is None


@pytest.mark.parametrize(
    ("call", "code", "reason"),
    [
        ("open", errno.EACCES, "Permission denied"),
        ("readv", errno.EIO, "Input/output error"),
        ("stat", errno.EACCES, "Permission denied"),
    ],
)
def test_what_the_system_refuses_is_unreadable_with_its_reason(
    tmp_path: Path,
    directory: int,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    code: int,
    reason: str,
) -> None:
    (tmp_path / "f").write_bytes(b"x")

    def refuse(*_args: object, **_others: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, refuse)
    entry = examined(directory, b"f", is_regular=call != "stat")
    assert (entry.state, entry.reason, entry.digest) == (State.UNREADABLE, reason, None)
    assert entry.is_known == (call != "stat")


def test_files_of_the_kernel_with_contents_but_no_size_are_not_read_on() -> None:
    fd = os.open("/proc/self", os.O_RDONLY)
    examiner = Examiner("sha256")
    entry = examiner.examine(fd, b"maps", hashes=True, is_regular=True)
    os.close(fd)
    assert entry is not None
    assert entry.state == State.UNREADABLE
    assert entry.reason == "has contents beyond its size of 0 bytes"
    assert examiner.bytes_read == 0


def test_files_of_the_kernel_that_are_shorter_than_their_size_are_hashed() -> None:
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not path.exists():
        pytest.skip("this kernel has no such file")
    fd = os.open(path.parent, os.O_RDONLY)
    entry = examined(fd, b"enabled")
    os.close(fd)
    assert entry.digest == hashlib.sha256(path.read_bytes()).digest()


def test_what_is_shorter_than_its_size_is_not_taken_for_usual() -> None:
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not path.exists():
        pytest.skip("this kernel has no such file")
    fd = os.open(path.parent, os.O_RDONLY)
    entry = examined(fd, b"enabled", is_regular=True)
    os.close(fd)
    assert entry.digest == hashlib.sha256(path.read_bytes()).digest()


def during_first_read(
    examiner: Examiner, monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]
) -> None:
    """Let a file change while it is read for the first time."""
    hash_it, pending = examiner._hash, [change]

    def disturbed(fd: int, size: int, prefix_bytes: int | None) -> tuple[bytes, bytes | None]:
        found = hash_it(fd, size, prefix_bytes)
        while pending:
            pending.pop()()
        return found

    monkeypatch.setattr(examiner, "_hash", disturbed)


def test_a_large_file_whose_times_were_put_back_is_read_again(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, examiner = tmp_path / "f", Examiner("sha256")
    path.write_bytes(b"x" * 300_000)
    before = path.stat()

    def change() -> None:
        path.write_bytes(b"y" * 300_000)
        while path.stat().st_ctime_ns == before.st_ctime_ns:
            path.chmod(0o600)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    during_first_read(examiner, monkeypatch, change)
    entry = examiner.examine(directory, b"f", hashes=True)
    assert entry is not None
    assert entry.digest == hashlib.sha256(b"y" * 300_000).digest()
    assert entry.mtime_ns == before.st_mtime_ns


def test_a_growing_file_that_shrinks_while_it_is_read_is_read_again(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, examiner = tmp_path / "f", Examiner("sha256")
    path.write_bytes(b"x" * 300)
    during_first_read(examiner, monkeypatch, lambda: os.truncate(path, 200))
    entry, prefix = examiner.examine_growing(directory, b"f", 250)
    assert entry is not None
    assert (entry.size, entry.digest) == (200, hashlib.sha256(b"x" * 200).digest())
    assert prefix is None


def test_a_huge_sparse_file_is_not_read(tmp_path: Path, directory: int) -> None:
    (tmp_path / "f").touch()
    os.truncate(tmp_path / "f", 2**42)
    entry = examined(directory, b"f", is_regular=True)
    assert entry.state == State.UNREADABLE
    assert "too many to read" in entry.reason
    os.truncate(tmp_path / "f", 2**35)
    entry = examined(directory, b"f", is_regular=True)
    assert entry.reason.startswith("sparse: ")
    assert entry.size == 2**35


def test_a_large_file_stops_being_read_when_the_caller_says_so(
    tmp_path: Path, directory: int
) -> None:
    (tmp_path / "f").write_bytes(bytes(2_000_000))
    with pytest.raises(ScanStoppedError):
        Examiner("sha256", lambda: True).examine(directory, b"f", hashes=True)


@pytest.mark.parametrize("before", [0, 1, 5, 600_000, 600_001, 700_000])
def test_a_growing_file_is_hashed_to_its_end_and_to_where_it_ended_before(
    tmp_path: Path, directory: int, before: int
) -> None:
    contents = os.urandom(700_000)
    (tmp_path / "f").write_bytes(contents)
    entry, prefix = Examiner("sha256").examine_growing(directory, b"f", before)
    assert entry is not None
    assert entry.digest == hashlib.sha256(contents).digest()
    assert prefix == hashlib.sha256(contents[:before]).digest()


def test_a_growing_file_that_is_shorter_than_before_has_no_prefix(
    tmp_path: Path, directory: int
) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    entry, prefix = Examiner("sha256").examine_growing(directory, b"f", 4)
    assert entry is not None
    assert entry.digest == hashlib.sha256(b"abc").digest()
    assert prefix is None


def test_a_log_that_is_written_all_the_time_is_hashed_to_the_size_seen_first(
    tmp_path: Path, directory: int
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"line\n" * 100_000)
    stop = threading.Event()

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"line\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            entry, prefix = Examiner("sha256").examine_growing(directory, b"f", 500_000)
            assert entry is not None
            assert entry.state == State.OK
            assert entry.digest == hashlib.sha256(b"line\n" * (entry.size // 5)).digest()
            assert prefix == hashlib.sha256(b"line\n" * 100_000).digest()
    finally:
        stop.set()
        writer.join()


def test_a_directory_is_opened_without_following_a_link(tmp_path: Path, directory: int) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    os.close(open_directory(b"d", directory))
    os.close(open_directory(b"link", directory, follow=True))
    with pytest.raises(NotADirectoryError):
        open_directory(b"link", directory)


def test_numbers_without_a_name_are_shown_as_numbers() -> None:
    assert owner_name(0) == "root"
    assert owner_name(4_123_456_789) == "4123456789"
    assert group_name(4_123_456_789) == "4123456789"


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 65])
def test_what_is_asked_for_ahead_is_found_as_it_is(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    names = [b"%03d" % number for number in range(count)]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(name * 9000)
    # Listed as regular files, and something else or nothing by now: nobody may wait for them.
    os.mkfifo(tmp_path / "fifo")
    listing = [*((name, True) for name in names), (b"fifo", True), (b"gone", True), (b"x", False)]
    plain = Examiner("sha256")
    expected = [plain.examine(directory, name, hashes=True) for name, _ in listing]
    monkeypatch.setattr(attributes, "_SLOW_S", -1.0)
    monkeypatch.setattr(attributes, "_OTHER_WAITS", -1)
    examiner = Examiner("sha256", drops_cache=True)
    for _ in range(2):
        items = list(examiner.ahead(directory, listing))
        assert items == listing
    found = [
        examiner.examine(directory, name, hashes=True, is_regular=is_regular)
        for name, is_regular in examiner.ahead(directory, listing)
    ]
    assert found == expected


def test_contents_that_were_asked_for_ahead_are_taken_out_of_memory_again(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100_000)
    # Not in memory when it is asked for, and there when it is read.
    states, dropped = iter([False, True]), list[int]()
    monkeypatch.setattr(attributes, "_is_cached", lambda _fd: next(states))
    monkeypatch.setattr(attributes, "_drop", dropped.append)
    monkeypatch.setattr(attributes, "_SLOW_S", -1.0)
    monkeypatch.setattr(attributes, "_OTHER_WAITS", -1)
    examiner = Examiner("sha256", drops_cache=True)
    assert list(examiner.ahead(directory, [(b"gone", True)])) == [(b"gone", True)]
    for name, _ in examiner.ahead(directory, [(b"f", True)]):
        assert examiner.at_once(directory, name) is not None
    assert len(dropped) == 1


@pytest.mark.parametrize("hashes", [True, False])
def test_a_file_that_takes_the_place_of_what_is_not_read_does_not_pass_for_one_that_was_read(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch, hashes: bool
) -> None:
    """It would stand there without a digest, and its contents would never be compared."""
    (tmp_path / "d").mkdir()
    before = (tmp_path / "d").stat()
    real = attributes._open_quietly

    def too_late(name: bytes, flags: int, dir_fd: int | None) -> int:
        (tmp_path / "d").rename(tmp_path / "aside")
        (tmp_path / "d").write_bytes(b"never read")
        return real(name, flags, dir_fd)

    monkeypatch.setattr(attributes, "_open_quietly", too_late)
    entry = examined(directory, b"d", hashes=hashes)
    assert (entry.mode, entry.inode, entry.digest) == (before.st_mode, before.st_ino, None)
    assert entry.flags is None, "of another object"
    monkeypatch.undo()
    assert examined(directory, b"d").digest == hashlib.sha256(b"never read").digest()
