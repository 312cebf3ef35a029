"""Files of the clients in the store: found, replaced, proposed, limited, taken over, removed again."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import pytest

from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.messages import FileKind
from needfire_server import datafiles, stored_files
from needfire_server.datafiles import DataFiles, NotAccessible, OpenedFile
from needfire_server.storage import file_rows
from needfire_server.storage.store import DatabaseStore
from needfire_server.stored_files import StoredFiles, data_files_of
from needfire_testkit.server_store import NOW_US
from needfire_testkit.stores import StorePlace

RC, BASELINE = FileKind.CONFIGURATION, FileKind.BASELINE


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_files, "CHUNK_BYTES", 7)


@pytest.fixture
def files(store: DatabaseStore, tmp_path: Path) -> StoredFiles:
    return files_in(tmp_path / "one", store)


def files_in(directory: Path, store: DatabaseStore) -> StoredFiles:
    directory.mkdir(mode=0o700)
    return StoredFiles(str(directory), store)


def put(files: DataFiles, kind: FileKind, name: str | None, data: bytes) -> str:
    with files.staged(kind, io.BytesIO(data)) as staged:
        return files.commit(kind, name, staged)


def content(found: OpenedFile | NotAccessible) -> bytes:
    assert isinstance(found, OpenedFile), found
    with found:
        return found.file.read()


def counts(store: DatabaseStore) -> list[int]:
    """Contents and pieces in the store."""

    def count(connection: Any, table: str) -> int:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())

    return [store.read_now(count, table) for table in ("file_contents", "file_chunks")]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 700])
async def test_what_is_put_at_one_server_is_found_at_another(
    files: StoredFiles, store: DatabaseStore, tmp_path: Path, size: int
) -> None:
    other = files_in(tmp_path / "two", store)
    data = os.urandom(size)
    assert put(files, BASELINE, "web1", data) == "store:file.web1"
    for each in (files, other, other):
        found = each.find(BASELINE, "web1")
        assert content(found) == data
        assert isinstance(found, OpenedFile)
        assert (found.told_as, found.size_bytes, found.is_catch_all) == (
            "store:file.web1",
            size,
            False,
        )


async def test_a_new_version_counts_at_once_everywhere(
    files: StoredFiles, store: DatabaseStore, tmp_path: Path
) -> None:
    other = files_in(tmp_path / "two", store)
    for data in (b"first", b"second", b"first"):
        put(files, RC, None, data)
        assert content(other.find(RC, "web1")) == data
    put(files, RC, "web1", b"own")
    assert content(other.find(RC, "web1")) == b"own"
    assert content(other.find(RC, "web2")) == b"first"
    assert other.list_files(RC) == [None, "web1"]
    assert other.list_files(BASELINE) == []


async def test_what_is_not_there_is_said_with_all_that_was_looked_for(files: StoredFiles) -> None:
    found = files.find(RC, "web1")
    assert found == NotAccessible(
        "store:rc.web1",
        "No such file in the store",
        ("store:rc.web1", "store:rc"),
        is_missing=True,
    )
    with pytest.raises(FormatError):
        files.find(RC, "../web1")


async def test_files_of_the_data_directory_do_not_count(files: StoredFiles) -> None:
    Path(files.directory, "rc").write_bytes(b"local")
    assert isinstance(files.find(RC, "web1"), NotAccessible)


async def test_the_same_contents_are_kept_once(files: StoredFiles, store: DatabaseStore) -> None:
    for name in (None, "web1", "web2"):
        put(files, BASELINE, name, b"the same")
    assert counts(store) == [1, 1]


async def test_size_limits_hold(files: StoredFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(datafiles._BYTES_MAX, RC, 10)
    put(files, RC, "web1", b"x" * 10)
    with pytest.raises(StorageError, match="limit of 10 bytes"):
        put(files, RC, "web1", b"x" * 11)
    assert content(files.find(RC, "web1")) == b"x" * 10


@pytest.mark.usefixtures("small_chunks")
async def test_damaged_contents_are_not_given_out(files: StoredFiles, store: DatabaseStore) -> None:
    put(files, BASELINE, "web1", b"0123456789")
    store.write_now(
        lambda t: t.connection.exec_driver_sql("DELETE FROM file_chunks WHERE position = 1")
    )
    with pytest.raises(StorageError, match="damaged"):
        files.find(BASELINE, "web1")
    assert os.listdir(Path(files.directory, "cache")) == []


async def test_a_copy_that_a_crash_cut_off_is_fetched_again(files: StoredFiles) -> None:
    put(files, RC, "web1", b"whole")
    found = files.find(RC, "web1")
    assert isinstance(found, OpenedFile)
    found.file.close()
    Path(found.path).write_bytes(b"")
    assert content(files.find(RC, "web1")) == b"whole"


async def test_a_proposal_is_in_the_store_once_it_is_kept(
    files: StoredFiles, store: DatabaseStore, tmp_path: Path
) -> None:
    other = files_in(tmp_path / "two", store)
    proposal = files.new_proposal("web1")
    proposal.write(b"base")
    proposal.write(b"line")
    path = proposal.keep()
    assert os.listdir(Path(files.directory, "proposals")) == []
    digest = hashlib.sha256(b"baseline").digest()
    number = await store.add_proposal("web1", path, 8, digest, NOW_US)
    assert content(other.open_proposal(path)) == b"baseline"
    with_it = other.open_proposal(path)
    assert isinstance(with_it, OpenedFile)
    with with_it, other.staged(BASELINE, with_it.file) as staged:
        other.commit(BASELINE, "web1", staged)
    assert await store.remove_proposal(number)
    while files.drop_unused():
        pass
    assert content(files.find(BASELINE, "web1")) == b"baseline"
    assert counts(store) == [1, 1]


async def test_a_proposal_that_is_superseded_leaves_the_store_soon(
    files: StoredFiles, store: DatabaseStore
) -> None:
    """Goal: an agent that proposes again and again cannot fill the database."""
    for number in range(3):
        proposal = files.new_proposal("web1")
        proposal.write(b"baseline %d" % number)
        await store.add_proposal("web1", proposal.keep(), 10, bytes(32), NOW_US)
    assert counts(store) == [3, 3]
    while files.drop_unused():
        pass
    assert counts(store) == [1, 1]
    [left] = await store.proposals()
    assert content(files.open_proposal(left.path)) == b"baseline 2"


@pytest.mark.parametrize("path", ["store:x", "store:999999", "store:", "/etc/passwd"])
async def test_only_proposals_of_the_store_are_opened(files: StoredFiles, path: str) -> None:
    assert isinstance(files.open_proposal(path), NotAccessible)


@pytest.mark.usefixtures("small_chunks")
async def test_what_nothing_names_is_removed_after_hours_in_bites(
    files: StoredFiles, store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(files, BASELINE, "web1", os.urandom(7 * 200))
    put(files, BASELINE, "web1", b"new")
    unfinished = store.write_now(lambda t: file_rows.begin_content(t.connection, 1))
    store.write_now(lambda t: file_rows.add_chunk(t.connection, unfinished, 0, b"x", 1))
    assert files.drop_unused()
    assert files.drop_unused() is False
    assert counts(store) == [2, 201], "the one that was replaced may still be read"
    monkeypatch.setattr(stored_files, "_UNUSED_US", -1)
    bites = 0
    while files.drop_unused():
        bites += 1
    assert bites == 4
    assert counts(store) == [1, 1]
    assert content(files.find(BASELINE, "web1")) == b"new"


async def test_copies_of_what_the_store_lost_are_removed(
    files: StoredFiles, store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data in (b"old", b"new"):
        put(files, RC, "web1", data)
        content(files.find(RC, "web1"))
    cache = Path(files.directory, "cache")
    (cache / "abc.part").touch()
    assert len(os.listdir(cache)) == 3
    monkeypatch.setattr(stored_files, "_UNUSED_US", -1)
    while files.drop_unused():
        pass
    assert files.prune() == 1
    assert content(files.find(RC, "web1")) == b"new"
    assert (cache / "abc.part").exists(), "somebody may be writing it"
    assert files.sweep([]) == 1


async def test_an_empty_store_takes_over_the_files_of_the_data_directory_once(
    files: StoredFiles,
) -> None:
    for name in ("rc", "rc.web1", "file.web1", "rc.No Name", "log"):
        Path(files.directory, name).write_bytes(name.encode())
    assert files.take_over() == 3
    assert content(files.find(RC, "web1")) == b"rc.web1"
    assert content(files.find(RC, "web2")) == b"rc"
    assert content(files.find(BASELINE, "web1")) == b"file.web1"
    Path(files.directory, "rc.web1").write_bytes(b"changed")
    assert files.take_over() == 0
    assert content(files.find(RC, "web1")) == b"rc.web1"


async def test_only_a_shared_store_keeps_the_files(
    place: StorePlace, store: DatabaseStore, tmp_path: Path
) -> None:
    files = data_files_of(store, str(tmp_path))
    assert isinstance(files, StoredFiles) is not place.is_sqlite
