"""Who may open a store, what is made of an older one, and what is refused."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from needfire_protocol.errors import StorageError
from needfire_server.storage.migrate import APPLICATION_ID, Step, migrate, steps
from needfire_server.storage.sqlite import SqliteStore
from needfire_testkit.server_store import event, verifier


def path_in(directory: Path) -> str:
    return str(directory / "needfire.sqlite")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def pragma(path: str, name: str) -> int:
    connection = sqlite3.connect(path)
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    connection.close()
    return value


async def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = SqliteStore.open(path_in(tmp_path / "data"))
        await store.record(event())
        assert mode(tmp_path / "data") == 0o700
        present = {each.name: mode(each) for each in (tmp_path / "data").iterdir()}
        assert present.keys() >= {"lock", "needfire.sqlite", "needfire.sqlite-wal"}
        assert set(present.values()) == {0o600}
        store.close()
    finally:
        os.umask(before)


async def test_what_was_stored_is_there_after_opening_again(tmp_path: Path) -> None:
    for _ in range(2):
        store = SqliteStore.open(path_in(tmp_path))
        await store.record(event())
        store.close()
    store = SqliteStore.open(path_in(tmp_path))
    assert await store.last_rowid() == 2
    store.close()


def test_a_second_opener_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    first = SqliteStore.open(path_in(tmp_path))
    with pytest.raises(StorageError, match=rf"in use by another process \(pid {os.getpid()}\)"):
        SqliteStore.open(path_in(tmp_path))
    first.close()
    SqliteStore.open(path_in(tmp_path)).close()


@pytest.mark.parametrize(
    "content", [b"not a database", os.urandom(8192), b"SQLite format 3\0" * 99]
)
def test_a_damaged_file_is_refused_and_the_lock_released(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "needfire.sqlite").write_bytes(content)
    with pytest.raises(StorageError):
        SqliteStore.open(path_in(tmp_path))
    assert (tmp_path / "needfire.sqlite").read_bytes() == content
    (tmp_path / "needfire.sqlite").unlink()
    SqliteStore.open(path_in(tmp_path)).close()


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        SqliteStore.open(path_in(tmp_path / "a" / "b"))


def test_a_link_in_place_of_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / "needfire.sqlite").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        SqliteStore.open(path_in(tmp_path))


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(path_in(tmp_path))
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.commit()
    connection.close()
    before = (tmp_path / "needfire.sqlite").read_bytes()
    with pytest.raises(StorageError, match="another program"):
        SqliteStore.open(path_in(tmp_path))
    assert (tmp_path / "needfire.sqlite").read_bytes() == before


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    SqliteStore.open(path_in(tmp_path)).close()
    newer = len(steps()) + 1
    connection = sqlite3.connect(path_in(tmp_path))
    connection.execute(f"PRAGMA user_version = {newer}")
    connection.close()
    with pytest.raises(StorageError, match=f"schema {newer}, written by a newer version"):
        SqliteStore.open(path_in(tmp_path))


def test_a_new_store_is_marked_and_needs_no_backup(tmp_path: Path) -> None:
    SqliteStore.open(path_in(tmp_path)).close()
    assert pragma(path_in(tmp_path), "application_id") == APPLICATION_ID
    assert pragma(path_in(tmp_path), "user_version") == len(steps())
    assert list(tmp_path.glob("*.backup*")) == []


async def test_an_older_store_is_copied_before_it_is_changed(tmp_path: Path) -> None:
    store = SqliteStore.open(path_in(tmp_path))
    await store.register("web1", verifier(), now_us=1, user="root")
    store.close()
    version = len(steps())
    connection = sqlite3.connect(path_in(tmp_path), isolation_level=None)
    later = (*steps(), Step(version + 1, "ALTER TABLE clients ADD COLUMN note TEXT;\n"))
    migrate(connection, path_in(tmp_path), later)
    assert connection.execute("SELECT note FROM clients").fetchall() == [(None,)]
    connection.close()
    backup = tmp_path / f"needfire.sqlite.v{version}.backup"
    assert mode(backup) == 0o600
    assert pragma(str(backup), "user_version") == version
    copy = sqlite3.connect(backup)
    assert copy.execute("SELECT name FROM clients").fetchall() == [("web1",)]
    copy.close()


def test_a_step_that_fails_leaves_the_database_before_it(tmp_path: Path) -> None:
    SqliteStore.open(path_in(tmp_path)).close()
    version = len(steps())
    connection = sqlite3.connect(path_in(tmp_path), isolation_level=None)
    bad = Step(
        version + 1, "ALTER TABLE clients ADD COLUMN note TEXT;\nSELECT no_such_function();\n"
    )
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, path_in(tmp_path), (*steps(), bad))
    columns = [row[1] for row in connection.execute("PRAGMA table_info(clients)")]
    assert "note" not in columns
    connection.close()
    assert pragma(path_in(tmp_path), "user_version") == version
    SqliteStore.open(path_in(tmp_path)).close()


async def test_readers_cannot_write(tmp_path: Path) -> None:
    store = SqliteStore.open(path_in(tmp_path))
    with pytest.raises(StorageError, match="readonly"):
        await store._read(lambda connection: connection.execute("DELETE FROM events"))
    store.close()


async def test_a_path_with_odd_characters_works(tmp_path: Path) -> None:
    directory = tmp_path / "a ?#%41 ü"
    directory.mkdir()
    store = SqliteStore.open(path_in(directory))
    await store.record(event())
    assert await store.last_rowid() == 1
    store.close()
