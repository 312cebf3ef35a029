import errno
import fcntl
import hashlib
import os
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from needfire_client import inode as inode_module
from needfire_client.attributes import Examiner
from needfire_client.inode import STABLE_FLAGS, Inspector
from needfire_protocol.baseline import (
    INLINE_BYTES_MAX,
    XATTRS_MAX,
    FileEntry,
    Looked,
    decode_entries,
    encode_entries,
)

IMMUTABLE, APPEND, NODUMP = 0x10, 0x20, 0x40
OURS = Looked.ACL | Looked.LABEL | Looked.OTHER
NO = 2**32 - 1
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, NO), (2, 4, 65534), (4, 4, NO), (16, 4, NO), (32, 0, NO))
)
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_bytes(b"contents")
    try:
        os.setxattr(path, "user.probe", b"")
    except OSError:
        pytest.skip("the file system of the tests has no extended attributes")
    os.removexattr(path, "user.probe")
    return path


def examined(
    directory: int, name: bytes = b"f", *, hashes: bool = True, groups: Looked = OURS
) -> FileEntry:
    """Return an entry that all ways of examining agree on, and that a baseline can hold."""
    ways = [
        Examiner("sha256", groups=groups).examine(
            directory, name, hashes=hashes, is_regular=is_regular
        )
        for is_regular in (True, False)
    ]
    entry, other = ways
    assert entry is not None
    assert other is not None
    # Reading a link moves its access time.
    assert other._replace(atime_ns=0) == entry._replace(atime_ns=0)
    assert decode_entries(encode_entries([(b"e", entry)])) == {b"e": entry}
    return entry


@pytest.mark.parametrize("hashes", [True, False])
def test_extended_attributes_are_their_values_sorted_by_name(
    file: Path, directory: int, hashes: bool
) -> None:
    os.setxattr(file, "user.b", b"two")
    os.setxattr(file, "user.a", b"")
    entry = examined(directory, hashes=hashes)
    assert entry.xattrs == ((b"user.a", 0, b""), (b"user.b", 3, b"two"))
    assert entry.looked == OURS


def test_a_name_may_hold_anything(file: Path, directory: int) -> None:
    names = [b"user.comma, =x", b"user.line\nbreak", b"user.no\xffutf8", b"user." + b"n" * 250]
    for name in names:
        os.setxattr(bytes(file), name, b"v")
    assert [name for name, _, _ in examined(directory).xattrs] == sorted(names)


@pytest.mark.parametrize(
    "size", [INLINE_BYTES_MAX - 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 3000]
)
def test_a_large_value_is_kept_as_its_digest(file: Path, directory: int, size: int) -> None:
    value = b"v" * size
    os.setxattr(file, "user.a", value)
    kept = value if size <= INLINE_BYTES_MAX else hashlib.sha256(value).digest()
    assert examined(directory).xattrs == ((b"user.a", size, kept),)


def test_what_does_not_fit_is_one_digest_that_every_change_moves(
    file: Path, directory: int
) -> None:
    for number in range(XATTRS_MAX + 20):
        os.setxattr(file, f"user.{number:03}", b"v")
    first = examined(directory).xattrs
    assert len(first) <= XATTRS_MAX
    assert sum(count for name, count, _ in first if not name) + len(first) - 1 == XATTRS_MAX + 20
    os.setxattr(file, f"user.{XATTRS_MAX + 19:03}", b"w")
    second = examined(directory).xattrs
    assert [pair for pair in first if pair not in second] == [first[0]]
    os.removexattr(file, f"user.{XATTRS_MAX + 10:03}")
    assert examined(directory).xattrs[0] not in (first[0], second[0])


def test_directories_and_their_default_acls_are_looked_at(tmp_path: Path, directory: int) -> None:
    (tmp_path / "d").mkdir()
    os.setxattr(tmp_path / "d", "system.posix_acl_default", ACL)
    entry = examined(directory, b"d")
    assert entry.xattrs == ((b"system.posix_acl_default", len(ACL), ACL),)
    assert entry.flags is not None


def test_what_is_not_opened_has_an_acl_too(tmp_path: Path, directory: int) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.setxattr(tmp_path / "fifo", "system.posix_acl_access", ACL)
    entry = examined(directory, b"fifo")
    assert [name for name, _, _ in entry.xattrs] == [b"system.posix_acl_access"]
    assert (entry.flags, entry.project) == (None, None)


@pytest.mark.root
@as_root
def test_a_link_has_attributes_of_its_own(file: Path, directory: int) -> None:
    link = file.parent / "link"
    link.symlink_to("f")
    os.setxattr(file, "trusted.file", b"f")
    os.setxattr(link, "trusted.link", b"l", follow_symlinks=False)
    entry = examined(directory, b"link", groups=Looked.EVERYTHING)
    assert entry.xattrs == ((b"trusted.link", 1, b"l"),)
    assert entry.link == b"f"


@pytest.mark.root
@as_root
def test_capabilities_are_kept_as_they_are(file: Path, directory: int) -> None:
    os.setxattr(file, "security.capability", CAPABILITY)
    assert (b"security.capability", 20, CAPABILITY) in examined(directory).xattrs


@pytest.mark.root
@as_root
def test_what_file_systems_keep_for_themselves_is_ignored(file: Path, directory: int) -> None:
    os.setxattr(file, "trusted.overlay.origin", b"x")
    os.setxattr(file, "trusted.mine", b"y")
    assert examined(directory, groups=Looked.EVERYTHING).xattrs == ((b"trusted.mine", 1, b"y"),)


@pytest.mark.root
@as_root
def test_who_cannot_see_trusted_attributes_says_so(
    file: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert examined(directory, groups=Looked.EVERYTHING).looked == Looked.EVERYTHING
    monkeypatch.setattr(inode_module, "_sees_trusted", lambda: False)
    os.setxattr(file, "trusted.mine", b"y")
    entry = examined(directory, groups=Looked.EVERYTHING)
    assert (entry.looked, entry.xattrs) == (OURS, ())


@pytest.mark.parametrize(
    ("groups", "kept"),
    [
        (Looked.ACL, {b"system.posix_acl_access"}),
        (Looked.OTHER, {b"user.a"}),
        (Looked.LABEL, set()),
        (Looked.NOTHING, set()),
    ],
)
def test_only_what_is_wanted_is_looked_at(
    file: Path, directory: int, groups: Looked, kept: set[bytes]
) -> None:
    os.setxattr(file, "user.a", b"v")
    os.setxattr(file, "system.posix_acl_access", ACL)
    entry = examined(directory, groups=groups)
    assert {name for name, _, _ in entry.xattrs} == kept
    assert entry.looked == groups


def test_without_a_wish_nothing_is_asked(
    file: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: object, **others: object) -> object:
        raise AssertionError(args)

    monkeypatch.setattr(os, "listxattr", forbidden)
    os.mkfifo(file.parent / "fifo")
    for name in (b"f", b"fifo"):
        assert examined(directory, name, groups=Looked.NOTHING).looked == 0


# ---- file systems and files that do not play along ------------------------------------------------


def failing(number: int, calls: list[object] | None = None) -> Callable[..., list[str]]:
    def call(*args: object, **_others: object) -> list[str]:
        if calls is not None:
            calls.append(args)
        raise OSError(number, os.strerror(number))

    return call


def test_a_file_system_without_extended_attributes_has_none(
    file: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "listxattr", failing(errno.ENOTSUP))
    entry = examined(directory)
    assert (entry.looked, entry.xattrs) == (OURS, ())


@pytest.mark.parametrize("call", ["listxattr", "getxattr"])
@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EIO, errno.ENOSYS])
def test_what_cannot_be_read_is_not_known_and_counted(
    file: Path, directory: int, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    os.setxattr(file, "user.a", b"v")
    monkeypatch.setattr(os, call, failing(number))
    examiner = Examiner("sha256", groups=OURS)
    entry = examiner.examine(directory, b"f", hashes=True, is_regular=True)
    assert entry is not None
    assert (entry.looked, entry.xattrs, entry.state) == (0, (), 0)
    assert entry.digest is not None
    assert examiner.unread == 1


def test_an_attribute_that_disappears_meanwhile_is_not_there(
    file: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.setxattr(file, "user.a", b"v")
    monkeypatch.setattr(os, "getxattr", failing(errno.ENODATA))
    entry = examined(directory)
    assert (entry.looked, entry.xattrs) == (OURS, ())


def test_an_attribute_that_changes_while_the_file_is_read_makes_it_be_read_again(
    file: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.setxattr(file, "user.a", b"old")
    os.utime(file, ns=(1, 1))
    time.sleep(0.02)  # times of inodes move with the kernel's clock tick
    real, reads = os.readv, 0

    def readv(fd: int, buffers: Any) -> int:
        nonlocal reads
        reads += 1
        if reads == 1:
            os.setxattr(file, "user.a", b"new")
        return real(fd, buffers)

    monkeypatch.setattr(os, "readv", readv)
    entry = Examiner("sha256", groups=OURS).examine(directory, b"f", hashes=True, is_regular=True)
    assert entry is not None
    assert entry.xattrs == ((b"user.a", 3, b"new"),)


@pytest.mark.parametrize("number", [errno.E2BIG, errno.ERANGE])
def test_nobody_hides_an_acl_behind_a_list_that_is_too_long(
    file: Path, directory: int, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    os.setxattr(file, "system.posix_acl_access", ACL)
    before = examined(directory)
    monkeypatch.setattr(os, "listxattr", failing(number))
    entry = examined(directory)
    assert before.xattrs[0] in entry.xattrs
    assert [name for name, _, _ in entry.xattrs] == [b"", b"system.posix_acl_access"]
    assert entry.looked == OURS


def hostile(monkeypatch: pytest.MonkeyPatch, names: Sequence[str], size: int) -> list[object]:
    """Let every file have these names with large values; return the reads."""
    reads: list[object] = []

    def getxattr(_place: object, name: str, **_others: object) -> bytes:
        reads.append(name)
        if name.startswith("system."):
            return ACL
        return bytes(size)

    monkeypatch.setattr(os, "listxattr", lambda *_args, **_others: list(names))
    monkeypatch.setattr(os, "getxattr", getxattr)
    return reads


@pytest.mark.parametrize(("count", "size"), [(4000, 65536), (4000, 0), (4000, 200)])
def test_reading_and_keeping_are_bounded_and_rights_come_first(
    file: Path, directory: int, monkeypatch: pytest.MonkeyPatch, count: int, size: int
) -> None:
    names = [f"user.{number:05}" for number in range(count)] + ["system.posix_acl_access"]
    reads = hostile(monkeypatch, names, size)
    entry = Examiner("sha256", groups=OURS).examine(directory, b"f", hashes=True, is_regular=True)
    assert entry is not None
    assert len(reads) <= 256
    assert (b"system.posix_acl_access", len(ACL), ACL) in entry.xattrs
    assert len(encode_entries([(b"e", entry)])) < 2200
    monkeypatch.setattr(os, "listxattr", lambda *_args, **_others: names[:-2] + names[-1:])
    other = Examiner("sha256", groups=OURS).examine(directory, b"f", hashes=True, is_regular=True)
    assert other is not None
    assert other.xattrs != entry.xattrs


def test_flags_that_cannot_be_had_are_not_known(
    file: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", failing(errno.ENOTTY))
    entry = examined(directory)
    assert (entry.flags, entry.project) == (None, None)
    assert entry.looked == OURS


def test_a_directory_that_would_be_mounted_is_not_opened(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()
    monkeypatch.setattr(Inspector, "is_automount", lambda *_args: True)
    entry = examined(directory, b"d")
    assert (entry.flags, entry.looked) == (None, OURS)
    assert stat.S_ISDIR(entry.mode)


# ---- flags, project, birth -----------------------------------------------------------------------


@pytest.mark.root
@as_root
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_flags_are_those_that_chattr_sets(tmp_path: Path, directory: int, kind: str) -> None:
    path = tmp_path / "f"
    path.mkdir() if kind == "directory" else path.write_bytes(b"x")
    if examined(directory).flags is None:
        pytest.skip("the file system of the tests has no flags")
    assert examined(directory).flags == 0
    for switch, flag in (("i", IMMUTABLE), ("a", APPEND), ("d", NODUMP)):
        subprocess.run(["chattr", f"+{switch}", path], check=True)
        try:
            assert examined(directory).flags == flag
        finally:
            subprocess.run(["chattr", f"-{switch}", path], check=True)


def test_flags_that_move_by_themselves_do_not_count() -> None:
    index, extents, inline = 0x1000, 0x80000, 0x10000000
    assert STABLE_FLAGS & (index | extents | inline | 0x400) == 0
    assert STABLE_FLAGS & IMMUTABLE


def test_the_time_of_birth_is_when_the_inode_was_made(file: Path, directory: int) -> None:
    entry = examined(directory)
    if entry.birth_ns is None:
        pytest.skip("the file system of the tests has no time of birth")
    os.utime(file, ns=(1, 1))
    file.chmod(0o600)
    shown = subprocess.run(["stat", "-c", "%W", file], check=True, capture_output=True).stdout
    assert entry.birth_ns // 10**9 == int(shown)
    assert examined(directory, hashes=False).birth_ns == entry.birth_ns
    link = file.parent / "link"
    link.symlink_to("f")
    assert (examined(directory, b"link").birth_ns or 0) >= entry.birth_ns


def test_without_statx_the_rest_is_the_same(
    file: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = examined(directory)
    real = Inspector.__init__

    def without(self: Inspector, groups: Looked = OURS) -> None:
        real(self, groups)
        self.statx = inode_module._no_statx

    monkeypatch.setattr(Inspector, "__init__", without)
    assert examined(directory) == whole._replace(birth_ns=None)


def test_overlay_file_systems_have_no_time_of_birth(
    file: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Inspector, "_keeps_birth", lambda *_args: False)
    assert examined(directory).birth_ns is None
