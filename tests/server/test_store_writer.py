"""What a caller may believe once a write returns, and what happens to those that fail."""

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from needfire_protocol.errors import FormatError, StorageError
from needfire_server.storage.base import EventQuery
from needfire_server.storage.sqlite import SqliteStore
from needfire_server.storage.writer import GROUP_JOBS_MAX, GroupCommitWriter
from needfire_testkit.server_store import NOW_US, STREAM, event, incoming


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(str(tmp_path / "needfire.sqlite"))
    yield opened
    opened.close()


class Gate:
    """A job that holds the writer's thread until it is opened, so that others queue up behind."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def job(self, _connection: sqlite3.Connection) -> None:
        self.entered.set()
        assert self.opened.wait(10)


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY)")
    return connection


def insert(connection: sqlite3.Connection, number: int) -> int:
    connection.execute("INSERT INTO t VALUES (?)", (number,))
    return number


def numbers(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    found = [row[0] for row in connection.execute("SELECT n FROM t ORDER BY n")]
    connection.close()
    return found


def test_jobs_that_wait_share_one_commit(tmp_path: Path) -> None:
    statements: list[str] = []

    def traced() -> sqlite3.Connection:
        connection = connect(tmp_path / "db")
        connection.set_trace_callback(statements.append)
        return connection

    writer = GroupCommitWriter(traced, "db")
    gate = Gate()
    first = writer.submit(gate.job)
    assert gate.entered.wait(10)
    futures = [writer.submit(lambda c, n=n: insert(c, n)) for n in range(GROUP_JOBS_MAX + 1)]  # type: ignore[misc]
    gate.opened.set()
    assert [future.result(10) for future in futures] == list(range(GROUP_JOBS_MAX + 1))
    first.result(10)
    writer.close()
    # The gate's own, a full group, and the one that found no room in it.
    assert sum(statement.startswith("COMMIT") for statement in statements) == 3


def test_a_job_that_fails_takes_back_only_its_own_changes(tmp_path: Path) -> None:
    writer = GroupCommitWriter(lambda: connect(tmp_path / "db"), "db")

    def half(connection: sqlite3.Connection) -> None:
        insert(connection, 50)
        raise FormatError("no")

    def twice(connection: sqlite3.Connection) -> None:
        insert(connection, 60)
        insert(connection, 1)

    gate = Gate()
    writer.submit(gate.job)
    assert gate.entered.wait(10)
    before = writer.submit(lambda c: insert(c, 1))
    raises = writer.submit(half)
    violates = writer.submit(twice)
    after = writer.submit(lambda c: insert(c, 2))
    gate.opened.set()
    assert (before.result(10), after.result(10)) == (1, 2)
    with pytest.raises(FormatError):
        raises.result(10)
    with pytest.raises(StorageError, match="UNIQUE"):
        violates.result(10)
    writer.close()
    assert numbers(tmp_path / "db") == [1, 2]


def test_nothing_is_told_before_the_commit(tmp_path: Path) -> None:
    writer = GroupCommitWriter(lambda: connect(tmp_path / "db"), "db")
    gate = Gate()
    early = writer.submit(lambda c: insert(c, 1))
    early.result(10)
    # In one group: the insert has run when the gate behind it is entered, but is not committed.
    hold = Gate()
    writer.submit(hold.job)
    assert hold.entered.wait(10)
    inserted = writer.submit(lambda c: insert(c, 2))
    writer.submit(gate.job)
    hold.opened.set()
    assert gate.entered.wait(10)
    assert not inserted.done()
    assert numbers(tmp_path / "db") == [1]
    gate.opened.set()
    assert inserted.result(10) == 2
    assert numbers(tmp_path / "db") == [1, 2]
    writer.close()


def test_when_the_transaction_is_lost_everyone_in_the_group_is_told(tmp_path: Path) -> None:
    writer = GroupCommitWriter(lambda: connect(tmp_path / "db"), "db")

    def lose(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")  # What SQLite does by itself on some failures.
        raise sqlite3.OperationalError("disk I/O error")

    gate = Gate()
    writer.submit(gate.job)
    assert gate.entered.wait(10)
    group: list[Future[Any]] = [writer.submit(lambda c: insert(c, 1)), writer.submit(lose)]
    group.append(writer.submit(lambda c: insert(c, 2)))
    gate.opened.set()
    for future in group:
        with pytest.raises(StorageError, match="disk I/O error"):
            future.result(10)
    assert writer.submit(lambda c: insert(c, 3)).result(10) == 3
    writer.close()
    assert numbers(tmp_path / "db") == [3]


def test_a_database_that_cannot_be_opened_for_a_while_comes_back(tmp_path: Path) -> None:
    failures = [sqlite3.OperationalError("unable to open database file")]

    def sometimes() -> sqlite3.Connection:
        if len(opened) == 1 and failures:
            raise failures.pop()
        opened.append(None)
        return connect(tmp_path / "db")

    opened: list[None] = []
    writer = GroupCommitWriter(sometimes, "db")

    def lose(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(StorageError):
        writer.submit(lose).result(10)
    with pytest.raises(StorageError):
        writer.submit(lambda c: insert(c, 1)).result(10)
    assert writer.submit(lambda c: insert(c, 2)).result(10) == 2
    writer.close()


def test_closing_finishes_what_was_queued_and_takes_no_more(tmp_path: Path) -> None:
    writer = GroupCommitWriter(lambda: connect(tmp_path / "db"), "db")
    futures = [writer.submit(lambda c, n=n: insert(c, n)) for n in range(20)]  # type: ignore[misc]
    writer.close()
    assert [future.result(0) for future in futures] == list(range(20))
    with pytest.raises(StorageError, match="closed"):
        writer.submit(lambda c: insert(c, 99))


async def test_who_gives_up_before_the_turn_leaves_nothing(store: SqliteStore) -> None:
    gate = Gate()
    held = asyncio.get_running_loop().run_in_executor(None, store.write_now, gate.job)
    await asyncio.to_thread(gate.entered.wait, 10)
    async with asyncio.TaskGroup() as group:
        given_up = group.create_task(store.record(event()))
        await asyncio.sleep(0)
        given_up.cancel()
    gate.opened.set()
    await held
    await store.record(event())
    assert await store.last_rowid() == 1


async def test_a_full_database_refuses_and_recovers_by_itself(store: SqliteStore) -> None:
    def limit(connection: sqlite3.Connection, more_pages: int) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + more_pages}")

    store.write_now(limit, 2)
    big = [incoming(n, event(path="x" * 4_000)) for n in range(1, 40)]
    with pytest.raises(StorageError, match="full"):
        await store.ingest("web1", STREAM, big, received_us=NOW_US)
    assert await store.last_rowid() == 0
    store.write_now(limit, 10_000)
    result = await store.ingest("web1", STREAM, big, received_us=NOW_US)
    assert (len(result.accepted), result.gap) == (39, None)


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """No file of this process can grow beyond a size: what a full disk does to it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


async def test_a_write_that_the_system_cuts_off_is_no_acknowledgement(
    store: SqliteStore, tmp_path: Path
) -> None:
    """Goal: the journal itself cannot grow, so the commit fails and not a statement before it."""
    await store.ingest("web1", STREAM, [incoming(1)], received_us=NOW_US)
    journal = (tmp_path / "needfire.sqlite-wal").stat().st_size
    with file_size_limit(journal + 1_000):
        for _ in range(3):
            with pytest.raises(StorageError):
                await store.ingest("web1", STREAM, [incoming(2)], received_us=NOW_US)
        assert await store.last_rowid() == 1
    result = await store.ingest("web1", STREAM, [incoming(2), incoming(3)], received_us=NOW_US)
    assert (len(result.accepted), result.duplicates, result.gap) == (2, 0, None)


_WRITER_PROCESS = """
import asyncio, sys
from needfire_testkit.server_store import NOW_US, STREAM, event, incoming
from needfire_server.storage.sqlite import SqliteStore

async def main(path, client):
    store = SqliteStore.open(path)
    before = (await store.ingest(client, STREAM, [], received_us=NOW_US)).sequence_before
    print("ready", before, flush=True)
    async def one(sequence):
        await store.ingest(client, STREAM, [incoming(sequence)], received_us=NOW_US)
        print(sequence, flush=True)
    async def own(number):
        while True:
            said = event("CLIENT_REMOVED", client=f"c{number}")
            await store.record(said)
            print(said.id, flush=True)
    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(own(number))
        sequence = before
        while True:
            sequence += 1
            await one(sequence)

asyncio.run(main(*sys.argv[1:]))
"""


def run_and_kill(path: Path, lines: int) -> set[str]:
    """Kill a writing process after it said so many lines; return all that it said whole."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER_PROCESS, str(path), "web1"],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        told = {process.stdout.readline() for _ in range(lines)}
        process.kill()
        told |= set(process.stdout.read().splitlines(keepends=True))
    return {line.strip() for line in told if line.endswith("\n")}


@pytest.mark.parametrize("lines", [1, 60, 300])
async def test_nothing_acknowledged_is_lost_when_the_process_is_killed(
    tmp_path: Path, lines: int
) -> None:
    """Goal: SIGKILL between any two instructions; what the process had said is there."""
    path = tmp_path / "needfire.sqlite"
    told: set[str] = set()
    for _ in range(2):
        told |= await asyncio.to_thread(run_and_kill, path, lines)
    store = SqliteStore.open(str(path))
    stored: set[str] = set()
    after = 0
    while page := await store.query_events(EventQuery(after_rowid=after, limit=1_000)):
        after = page[-1][0]
        for _, each in page:
            stored.add(str(each.fields["path"])[1:] if each.client else each.id)
    highest = (await store.ingest("web1", STREAM, [], received_us=NOW_US)).sequence_before
    store.close()
    assert told <= stored
    # Every number from 1 on, each once: what was stored but not told is a duplicate later.
    sequences = {int(text) for text in stored if text.isdigit()}
    assert sequences == set(range(1, highest + 1))


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    opened = SqliteStore.open(str(tmp_path / "needfire.sqlite"))
    opened.close()
    with pytest.raises(StorageError, match="closed"):
        await opened.record(event())
    with pytest.raises(StorageError, match="closed"):
        await opened.last_rowid()
