"""Which file a client gets, and how files are put in place."""

import errno
import hashlib
import io
import os
import socket
import stat
from pathlib import Path

import pytest

from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.messages import FileKind
from needfire_server import datafiles
from needfire_server.datafiles import DataFiles, NotAccessible, OpenedFile

RC, BASELINE = FileKind.CONFIGURATION, FileKind.BASELINE


def content(found: OpenedFile | NotAccessible) -> bytes:
    assert isinstance(found, OpenedFile)
    with found:
        data = found.file.read()
    assert len(data) == found.size_bytes
    return data


def problem(found: OpenedFile | NotAccessible) -> NotAccessible:
    assert isinstance(found, NotAccessible)
    return found


def put(files: DataFiles, kind: FileKind, name: str | None, data: bytes) -> str:
    with files.staged(kind, io.BytesIO(data)) as staged:
        return files.commit(kind, name, staged)


@pytest.mark.parametrize(("kind", "prefix"), [(RC, "rc"), (BASELINE, "file")])
def test_a_client_gets_its_own_file_or_the_catch_all(
    tmp_path: Path, kind: FileKind, prefix: str
) -> None:
    files = DataFiles(str(tmp_path))
    missing = problem(files.find(kind, "Web1.example.org"))
    assert missing.first_path == str(tmp_path / f"{prefix}.web1.example.org")
    assert missing.paths == (missing.first_path, str(tmp_path / prefix))
    assert missing.reason == os.strerror(errno.ENOENT)
    (tmp_path / prefix).write_bytes(b"all")
    assert content(files.find(kind, "web1.example.org")) == b"all"
    (tmp_path / f"{prefix}.web1.example.org").write_bytes(b"own")
    assert content(files.find(kind, "WEB1.example.org")) == b"own"
    assert content(files.find(kind, "web2")) == b"all"
    assert content(files.find(kind, None)) == b"all"


@pytest.mark.parametrize("name", ["", "../rc", "a/b", ".", "..", ".hidden", "a\0b", "x" * 256, "ü"])
def test_only_a_client_name_becomes_part_of_a_path(tmp_path: Path, name: str) -> None:
    files = DataFiles(str(tmp_path))
    with pytest.raises(FormatError):
        files.find(RC, name)
    with pytest.raises(FormatError):
        files.path_of(RC, name)
    with pytest.raises(FormatError):
        files.new_proposal(name)
    with pytest.raises(FormatError):
        put(files, RC, name, b"x")
    assert [each for each in tmp_path.iterdir() if each.is_file()] == []


def test_a_file_that_cannot_be_used_is_not_passed_over(tmp_path: Path) -> None:
    """Goal: whatever is wrong with rc.web1, the client does not silently get what is for others."""
    files = DataFiles(str(tmp_path))
    (tmp_path / "rc").write_bytes(b"all")
    own = tmp_path / "rc.web1"
    own.mkdir()
    found = problem(files.find(RC, "web1"))
    assert (found.reason, found.paths) == ("not a regular file", (str(own),))
    own.rmdir()
    os.mkfifo(own)
    assert problem(files.find(RC, "web1")).reason == "not a regular file"
    own.unlink()
    (tmp_path / "secret").write_bytes(b"secret")
    own.symlink_to(tmp_path / "secret")
    assert "symbolic link" in problem(files.find(RC, "web1")).reason
    own.unlink()
    own.symlink_to("/dev/zero")
    assert "symbolic link" in problem(files.find(RC, "web1")).reason
    own.unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        directory = os.open(tmp_path, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{directory}/rc.web1")
        os.close(directory)
        assert isinstance(files.find(RC, "web1"), NotAccessible)


@pytest.mark.parametrize(("more", "is_given"), [(-1, True), (0, True), (1, False)])
def test_a_file_is_given_up_to_its_size_limit(tmp_path: Path, more: int, is_given: bool) -> None:
    with open(tmp_path / "rc", "wb") as file:
        file.truncate(datafiles.CONFIGURATION_BYTES_MAX + more)
    with open(tmp_path / "file", "wb") as file:
        file.truncate(datafiles.BASELINE_BYTES_MAX + more)
    for kind in FileKind:
        found = DataFiles(str(tmp_path)).find(kind, None)
        assert isinstance(found, OpenedFile) is is_given
        if isinstance(found, OpenedFile):
            found.file.close()


def test_what_is_put_is_found_and_replaces_what_was_there(tmp_path: Path) -> None:
    files = DataFiles(str(tmp_path))
    path = put(files, RC, "web1", b"one")
    assert path == str(tmp_path / "rc.web1")
    opened = files.find(RC, "web1")
    put(files, RC, "web1", b"two, longer")
    # Who reads the file meanwhile goes on with the one that he opened.
    assert content(opened) == b"one"
    assert content(files.find(RC, "web1")) == b"two, longer"
    assert os.listdir(tmp_path) == ["rc.web1"]


def test_permissions_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    files = DataFiles(str(tmp_path))
    before = os.umask(0o077)
    try:
        rc = put(files, RC, None, b"x")
        baseline = put(files, BASELINE, None, b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(rc).st_mode) == 0o640
    assert stat.S_IMODE(os.stat(baseline).st_mode) == 0o600


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
def test_what_root_puts_belongs_to_whom_the_directory_belongs(tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, 1235)
    files = DataFiles(str(tmp_path))
    status = os.stat(put(files, RC, None, b"x"))
    assert (status.st_uid, status.st_gid) == (1234, 1235)


def test_what_is_staged_and_not_committed_leaves_nothing(tmp_path: Path) -> None:
    files = DataFiles(str(tmp_path))
    with files.staged(RC, io.BytesIO(b"x" * 100)) as staged:
        assert os.path.exists(staged.path)
        assert staged.size_bytes == 100
        assert staged.sha256 == hashlib.sha256(b"x" * 100).digest()
    assert os.listdir(tmp_path) == []


def test_more_than_the_limit_is_refused_while_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(datafiles._BYTES_MAX, RC, 10)
    files = DataFiles(str(tmp_path))
    put(files, RC, None, b"x" * 10)
    with pytest.raises(StorageError, match="more than the limit of 10 bytes"):
        put(files, RC, None, b"y" * 11)
    assert content(files.find(RC, None)) == b"x" * 10
    assert os.listdir(tmp_path) == ["rc"]


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    class Failing(io.RawIOBase):
        def read(self, _size: int = -1) -> bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files = DataFiles(str(tmp_path))
    put(files, RC, None, b"x")
    with pytest.raises(StorageError, match="No space left"), files.staged(RC, Failing()):  # type: ignore[arg-type]
        pass
    assert os.listdir(tmp_path) == ["rc"]


def test_owners_of_files_are_listed(tmp_path: Path) -> None:
    for name in ("file", "file.web2", "file.web1", "file..x", "file.WEB", "files", "rc.web9"):
        (tmp_path / name).write_bytes(b"")
    assert DataFiles(str(tmp_path)).list_files(BASELINE) == [None, "web1", "web2"]
    assert DataFiles(str(tmp_path)).list_files(RC) == ["web9"]


def test_a_proposal_counts_once_it_is_kept(tmp_path: Path) -> None:
    files = DataFiles(str(tmp_path))
    proposal = files.new_proposal("Web1")
    proposal.write(b"one")
    proposal.write(b"two")
    path = proposal.keep()
    assert path.startswith(str(tmp_path / "proposals" / "file.web1."))
    assert content(files.open_proposal(path)) == b"onetwo"
    proposal.discard()
    assert content(files.open_proposal(path)) == b"onetwo"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(tmp_path / "proposals").st_mode) == 0o700


def test_a_proposal_that_is_discarded_leaves_nothing(tmp_path: Path) -> None:
    proposal = DataFiles(str(tmp_path)).new_proposal("web1")
    proposal.write(b"one")
    proposal.discard()
    proposal.discard()
    assert os.listdir(tmp_path / "proposals") == []


def test_only_the_servers_own_proposals_are_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    files = DataFiles(str(tmp_path))
    for path in ("secret", "proposals/../secret", "proposals/missing"):
        assert isinstance(files.open_proposal(str(tmp_path / path)), NotAccessible)


def test_a_sweep_removes_what_a_crash_left_and_nothing_else(tmp_path: Path) -> None:
    files = DataFiles(str(tmp_path))
    known = files.new_proposal("web1").keep()
    unknown = files.new_proposal("web1").keep()
    arriving = files.new_proposal("web2")
    (tmp_path / ".staged-0123").write_bytes(b"")
    put(files, RC, "web1", b"x")
    (tmp_path / "needfire.sqlite").write_bytes(b"")
    assert files.sweep([known]) == 3
    assert not os.path.exists(unknown)
    assert sorted(os.listdir(tmp_path)) == ["needfire.sqlite", "proposals", "rc.web1"]
    assert os.listdir(tmp_path / "proposals") == [os.path.basename(known)]
    arriving.discard()
