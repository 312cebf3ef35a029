"""Who may open a store, what is made of an older one, and what is refused."""

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from needfire_protocol.errors import StorageError
from needfire_server.states import ClientStatus
from needfire_server.storage import tables
from needfire_server.storage.base import EventQuery
from needfire_server.storage.engine import Transaction
from needfire_server.storage.event_rows import row_of_event
from needfire_server.storage.migrate_sqlite import APPLICATION_ID, migrate
from needfire_server.storage.migrations import KNOWN, VERSION_TABLE, Steps
from needfire_server.storage.sqlite import SqliteEngine, SqliteStore
from needfire_testkit.server_store import NOW_US, STREAM, event, incoming, verifier
from needfire_testkit.stores import ADD_NOTE, StorePlace, steps_with


def path_in(directory: Path) -> str:
    return str(directory / "needfire.sqlite")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def rows(path: str, sql: str) -> list[Any]:
    connection = sqlite3.connect(path)
    found = connection.execute(sql).fetchall()
    connection.close()
    return found


def pragma(path: str, name: str) -> int:
    return int(rows(path, f"PRAGMA {name}")[0][0])


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


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    SqliteStore.open(path_in(tmp_path)).close()
    newer = KNOWN.latest + 1
    connection = sqlite3.connect(path_in(tmp_path))
    connection.execute(f"PRAGMA user_version = {newer}")
    connection.close()
    with pytest.raises(StorageError, match=f"schema {newer}, written by a newer version"):
        SqliteStore.open(path_in(tmp_path))


def test_a_new_store_is_marked_and_needs_no_backup(tmp_path: Path) -> None:
    SqliteStore.open(path_in(tmp_path)).close()
    assert pragma(path_in(tmp_path), "application_id") == APPLICATION_ID
    assert pragma(path_in(tmp_path), "user_version") == KNOWN.latest
    assert list(tmp_path.glob("*.backup*")) == []


def migrate_to(path: str, steps: Steps) -> None:
    with closing(SqliteEngine(path)) as engine, engine.connect() as connection:
        migrate(connection, path, steps)


async def test_an_older_store_is_copied_before_it_is_changed(tmp_path: Path) -> None:
    store = SqliteStore.open(path_in(tmp_path))
    await store.register("web1", verifier(), now_us=1, user="root")
    store.close()
    migrate_to(path_in(tmp_path), steps_with(tmp_path, ADD_NOTE))
    assert rows(path_in(tmp_path), "SELECT note FROM clients") == [(None,)]
    backup = tmp_path / f"needfire.sqlite.v{KNOWN.latest}.backup"
    assert mode(backup) == 0o600
    assert pragma(str(backup), "user_version") == KNOWN.latest
    assert rows(str(backup), "SELECT name FROM clients") == [("web1",)]
    with pytest.raises(StorageError, match="written by a newer version"):
        SqliteStore.open(path_in(tmp_path))


def test_a_step_that_fails_leaves_the_database_before_it(tmp_path: Path) -> None:
    SqliteStore.open(path_in(tmp_path)).close()
    bad = f"{ADD_NOTE}; op.execute('SELECT no_such_function()')"
    with pytest.raises(sa.exc.OperationalError):
        migrate_to(path_in(tmp_path), steps_with(tmp_path, bad))
    columns = [row[1] for row in rows(path_in(tmp_path), "PRAGMA table_info(clients)")]
    assert "note" not in columns
    assert pragma(path_in(tmp_path), "user_version") == KNOWN.latest
    SqliteStore.open(path_in(tmp_path)).close()


def make_store_of_before_alembic(path: str) -> None:
    """What the first version wrote, with its own SQL, and some rows in it."""
    script = Path(__file__).with_name("data").joinpath("store_v1.sql").read_text()
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.executescript(
        f"""
        PRAGMA application_id = {APPLICATION_ID};
        PRAGMA user_version = 1;
        INSERT INTO secrets VALUES ('fake-salt-key', x'{"07" * 32}');
        INSERT INTO client_states VALUES ('web1', 'Exited', x'01', 5, '192.0.2.1', 0, '{{}}');
        INSERT INTO commands (client, verb, user, queued_us) VALUES ('web1', 'scan', 'ann', 1);
        INSERT INTO streams VALUES ('web1', x'{STREAM.hex()}', 3);
        INSERT INTO stream_gaps VALUES ('web1', x'{STREAM.hex()}', 2, 2);
        """
    )
    for number in (1, 3, 4):
        said = event(path=f"/{number}").received("web1", NOW_US)
        connection.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row_of_event(number, said),
        )
    connection.execute("DELETE FROM events WHERE row_id = 4")
    connection.commit()
    connection.close()


async def test_a_store_of_before_alembic_is_carried_over(tmp_path: Path) -> None:
    make_store_of_before_alembic(path_in(tmp_path))
    store = SqliteStore.open(path_in(tmp_path))
    assert await store.secret("fake-salt-key") == b"\7" * 32
    assert (await store.load_client_states())["web1"].status is ClientStatus.EXITED
    [command] = await store.pending_commands("web1")
    late = await store.ingest(
        "web1", STREAM, [incoming(n) for n in (1, 2, 3, 4)], received_us=NOW_US
    )
    assert [each.fields["path"] for each in late.accepted] == ["/2", "/4"]
    # Number 4 was told to somebody, although its event is gone: it is not used again.
    stored = await store.query_events(EventQuery())
    assert [(row_id, each.fields["path"]) for row_id, each in stored] == [
        (1, "/1"),
        (3, "/3"),
        (5, "/2"),
        (6, "/4"),
    ]
    assert await store.queue_command("web1", "scan", "ann", 1) > command.id
    store.close()
    assert pragma(str(tmp_path / "needfire.sqlite.v1.backup"), "user_version") == 1


def test_a_store_that_was_carried_over_is_like_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    make_store_of_before_alembic(path_in(tmp_path))
    SqliteStore.open(path_in(tmp_path)).close()
    SqliteStore.open(path_in(tmp_path / "new")).close()
    assert schema(path_in(tmp_path)) == schema(path_in(tmp_path / "new"))


def schema(path: str) -> list[Any]:
    """Columns (name, type, whether it may be NULL, key) and indexes of all tables."""
    found: list[Any] = []
    for name, sql in rows(path, "SELECT name, sql FROM sqlite_schema ORDER BY name"):
        columns = rows(
            path, f"SELECT name, type, \"notnull\" OR pk, pk FROM pragma_table_info('{name}')"
        )
        words = [
            word for word in ("STRICT", "WITHOUT ROWID", "AUTOINCREMENT") if word in (sql or "")
        ]
        is_index = bool(sql) and sql.startswith("CREATE INDEX")
        found.append(
            (
                name,
                columns,
                words,
                sql.replace('"', "") if is_index and "events" not in name else is_index,
            )
        )
    return found


@pytest.mark.parametrize("sql", ["CREATE TABLE bookmarks (url TEXT)", "CREATE VIEW v AS SELECT 1"])
def test_whatever_another_program_made_is_left_alone(tmp_path: Path, sql: str) -> None:
    connection = sqlite3.connect(path_in(tmp_path))
    connection.execute(sql)
    connection.close()
    with pytest.raises(StorageError, match="another program"):
        SqliteStore.open(path_in(tmp_path))
    assert len(rows(path_in(tmp_path), "SELECT * FROM sqlite_schema")) == 1


def test_the_tables_are_what_the_migrations_make(place: StorePlace) -> None:
    """Goal: what statements are made of is what stands in the database, on both engines."""
    store = place.open()

    def columns(transaction: Transaction) -> dict[str, dict[str, bool]]:
        inspected = sa.inspect(transaction.connection)
        return {
            table: {each["name"]: each["nullable"] for each in inspected.get_columns(table)}
            for table in inspected.get_table_names()
            if table != VERSION_TABLE
        }

    expected = {
        table.name: {column.name: bool(column.nullable) for column in table.columns}
        for table in tables.metadata.tables.values()
    }
    assert store.write_now(columns) == expected
    store.close()


async def test_readers_cannot_write(place: StorePlace) -> None:
    store = place.open()
    with pytest.raises(StorageError, match=r"read-?only"):
        await store._read(lambda connection: connection.execute(sa.delete(tables.events)))
    store.close()


async def test_a_path_with_odd_characters_works(tmp_path: Path) -> None:
    directory = tmp_path / "a ?#%41 ü"
    directory.mkdir()
    store = SqliteStore.open(path_in(directory))
    await store.record(event())
    assert await store.last_rowid() == 1
    store.close()
