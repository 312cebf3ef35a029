"""What a caller may believe once a write returns, and what happens to those that fail."""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.event import Event
from needfire_server.storage import tables
from needfire_server.storage.base import EventQuery, IngestResult
from needfire_server.storage.engine import Transaction
from needfire_server.storage.ingesting import store_all
from needfire_server.storage.sqlite import SqliteEngine, SqliteStore
from needfire_server.storage.store import DatabaseStore
from needfire_server.storage.writer import GROUP_JOBS_MAX, GroupCommitWriter
from needfire_testkit.server_store import NOW_US, STREAM, event, incoming
from needfire_testkit.stores import StorePlace


class Gate:
    """A job that holds the writer's thread until it is opened, so that others queue up behind."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def job(self, _transaction: Transaction) -> None:
        self.entered.set()
        assert self.opened.wait(10)


class WatchedEngine(SqliteEngine):
    """Counts transactions; fails to connect when told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.begun = 0
        self.connect_failures: list[Exception] = []

    def connect(self) -> sa.Connection:
        if self.connect_failures:
            raise self.connect_failures.pop()
        return super().connect()

    def begin(self, connection: sa.Connection) -> AbstractContextManager[object]:
        self.begun += 1
        return super().begin(connection)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[WatchedEngine]:
    """A store's engine, without the store."""
    SqliteStore.open(str(tmp_path / "needfire.sqlite")).close()
    made = WatchedEngine(tmp_path / "needfire.sqlite")
    yield made
    made.close()


@pytest.fixture
def writer(engine: WatchedEngine) -> Iterator[GroupCommitWriter]:
    made = GroupCommitWriter(engine)
    yield made
    made.close()


def insert(transaction: Transaction, number: int) -> int:
    row = {"name": str(number), "value": b"x"}
    transaction.connection.execute(sa.insert(tables.secrets), row)
    return number


def insertion(number: int) -> Any:
    return lambda transaction: insert(transaction, number)


def storing(said: Event) -> Any:
    return lambda transaction: store_all(transaction, [said])


def numbers(engine: SqliteEngine) -> list[int]:
    with engine.readers.connect() as connection:
        return sorted(int(name) for name in connection.scalars(sa.select(tables.secrets.c.name)))


def lose(transaction: Transaction) -> None:
    """What SQLite does by itself on some failures."""
    transaction.connection.exec_driver_sql("ROLLBACK")
    raise OSError(5, "disk I/O error")


def test_jobs_that_wait_share_one_commit(engine: WatchedEngine, writer: GroupCommitWriter) -> None:
    gate = Gate()
    first = writer.submit(gate.job)
    assert gate.entered.wait(10)
    futures = [writer.submit(insertion(n)) for n in range(GROUP_JOBS_MAX + 1)]
    gate.opened.set()
    assert [future.result(10) for future in futures] == list(range(GROUP_JOBS_MAX + 1))
    first.result(10)
    # The gate's own, a full group, and the one that found no room in it.
    assert engine.begun == 3


def test_a_job_that_fails_takes_back_only_its_own_changes(
    engine: WatchedEngine, writer: GroupCommitWriter
) -> None:
    def half(transaction: Transaction) -> None:
        insert(transaction, 50)
        raise FormatError("no")

    def twice(transaction: Transaction) -> None:
        insert(transaction, 60)
        insert(transaction, 1)

    gate = Gate()
    writer.submit(gate.job)
    assert gate.entered.wait(10)
    before = writer.submit(insertion(1))
    raises = writer.submit(half)
    violates = writer.submit(twice)
    after = writer.submit(insertion(2))
    gate.opened.set()
    assert (before.result(10), after.result(10)) == (1, 2)
    with pytest.raises(FormatError):
        raises.result(10)
    with pytest.raises(StorageError, match="UNIQUE"):
        violates.result(10)
    assert numbers(engine) == [1, 2]


def test_nothing_is_told_before_the_commit(
    engine: WatchedEngine, writer: GroupCommitWriter
) -> None:
    assert writer.submit(insertion(1)).result(10) == 1
    # In one group: the insert has run when the gate behind it is entered, but is not committed.
    hold, gate = Gate(), Gate()
    writer.submit(hold.job)
    assert hold.entered.wait(10)
    inserted = writer.submit(insertion(2))
    writer.submit(gate.job)
    hold.opened.set()
    assert gate.entered.wait(10)
    assert not inserted.done()
    assert numbers(engine) == [1]
    gate.opened.set()
    assert inserted.result(10) == 2
    assert numbers(engine) == [1, 2]


def test_when_the_transaction_is_lost_everyone_in_the_group_is_told(
    engine: WatchedEngine, writer: GroupCommitWriter
) -> None:
    gate = Gate()
    writer.submit(gate.job)
    assert gate.entered.wait(10)
    group: list[Future[Any]] = [writer.submit(insertion(1)), writer.submit(lose)]
    group.append(writer.submit(insertion(2)))
    group.append(writer.submit(storing(event())))
    gate.opened.set()
    for future in group:
        with pytest.raises(StorageError, match="disk I/O error"):
            future.result(10)
    assert writer.submit(insertion(3)).result(10) == 3
    assert numbers(engine) == [3]


def test_a_database_that_cannot_be_opened_for_a_while_comes_back(
    engine: WatchedEngine, writer: GroupCommitWriter
) -> None:
    engine.connect_failures.append(sa.exc.OperationalError("", {}, OSError(2, "unable to open")))
    with pytest.raises(StorageError):
        writer.submit(lose).result(10)
    with pytest.raises(StorageError, match="unable to open"):
        writer.submit(insertion(1)).result(10)
    assert writer.submit(insertion(2)).result(10) == 2


def test_closing_finishes_what_was_queued_and_takes_no_more(writer: GroupCommitWriter) -> None:
    futures = [writer.submit(insertion(n)) for n in range(20)]
    writer.close()
    assert [future.result(0) for future in futures] == list(range(20))
    with pytest.raises(StorageError, match="closed"):
        writer.submit(insertion(99))


def grumble(result: IngestResult) -> None:
    """Fail while a record is made of what was stored, where that has one path."""
    if any(each.fields["path"] == "/poison" for each in result.accepted):
        raise FormatError("poison")


async def test_one_poisoned_report_does_not_fail_what_others_sent(store: DatabaseStore) -> None:
    """Goal: what is stored together and fails together is then tried one by one."""
    gate = Gate()
    held = asyncio.get_running_loop().run_in_executor(None, store.write_now, gate.job)
    await asyncio.to_thread(gate.entered.wait, 10)
    said = [event(path="/good1"), event(path="/poison"), event(path="/good2")]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_outcome(store, f"web{n}", each)) for n, each in enumerate(said)]
        while store._writer._jobs.qsize() < 3:
            await asyncio.sleep(0)
        gate.opened.set()
    await held
    assert [task.result() for task in tasks] == ["stored", "FormatError", "stored"]
    stored = await store.query_events(EventQuery())
    assert [(row_id, each.fields["path"]) for row_id, each in stored] == [
        (1, "/good1"),
        (2, "/good2"),
    ]


async def _outcome(store: DatabaseStore, client: str, said: Any) -> str:
    try:
        reports = [incoming(1, said)]
        await store.ingest(client, STREAM, reports, received_us=NOW_US, audit=grumble)
    except FormatError:
        return "FormatError"
    return "stored"


async def test_who_gives_up_before_the_turn_leaves_nothing(store: DatabaseStore) -> None:
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


async def test_a_full_database_refuses_and_recovers_by_itself(tmp_path: Path) -> None:
    store = SqliteStore.open(str(tmp_path / "needfire.sqlite"))

    def limit(more_pages: int) -> None:
        def work(transaction: Transaction) -> None:
            driver = transaction.connection.connection.driver_connection
            assert driver is not None
            pages = driver.execute("PRAGMA page_count").fetchone()[0]
            driver.execute(f"PRAGMA max_page_count = {pages + more_pages}")

        store.write_now(work)

    limit(2)
    big = [incoming(n, event(path="x" * 4_000)) for n in range(1, 40)]
    with pytest.raises(StorageError, match="full"):
        await store.ingest("web1", STREAM, big, received_us=NOW_US)
    assert await store.last_rowid() == 0
    # The limit belonged to the connection, which is opened afresh after a failure.
    result = await store.ingest("web1", STREAM, big, received_us=NOW_US)
    assert (len(result.accepted), result.gap) == (39, None)
    assert [row_id for row_id, _ in await store.query_events(EventQuery())] == list(range(1, 40))
    store.close()


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


async def test_a_write_that_the_system_cuts_off_is_no_acknowledgement(tmp_path: Path) -> None:
    """Goal: the journal itself cannot grow, so the commit fails and not a statement before it."""
    store = SqliteStore.open(str(tmp_path / "needfire.sqlite"))
    await store.ingest("web1", STREAM, [incoming(1)], received_us=NOW_US)
    journal = (tmp_path / "needfire.sqlite-wal").stat().st_size
    with file_size_limit(journal + 1_000):
        for _ in range(3):
            with pytest.raises(StorageError):
                await store.ingest("web1", STREAM, [incoming(2)], received_us=NOW_US)
        assert await store.last_rowid() == 1
    result = await store.ingest("web1", STREAM, [incoming(2), incoming(3)], received_us=NOW_US)
    assert (len(result.accepted), result.gap) == (2, None)
    store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", directory], check=True
    )
    yield directory
    subprocess.run(["umount", directory], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
async def test_a_full_disk_loses_nothing_and_is_over_once_there_is_room(small_disk: Path) -> None:
    """Goal: written until the disk is full; what was acknowledged is there, all of it once."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    store = SqliteStore.open(str(small_disk / "needfire.sqlite"))

    def batch(number: int) -> list[Any]:
        first = number * 20 + 1
        return [incoming(n, event(path=f"/{n}" + "x" * 500)) for n in range(first, first + 20)]

    acknowledged = 0
    with contextlib.suppress(StorageError):
        while True:
            await store.ingest("web1", STREAM, batch(acknowledged), received_us=NOW_US)
            acknowledged += 1
    assert acknowledged > 0
    for _ in range(3):
        with pytest.raises(StorageError):
            await store.ingest("web1", STREAM, batch(acknowledged), received_us=NOW_US)
    assert await store.last_rowid() == acknowledged * 20
    ballast.unlink()
    result = await store.ingest("web1", STREAM, batch(acknowledged), received_us=NOW_US)
    assert (len(result.accepted), result.gap) == (20, None)
    assert await store.last_rowid() == (acknowledged + 1) * 20
    store.close()
    again = SqliteStore.open(str(small_disk / "needfire.sqlite"))
    assert await again.last_rowid() == (acknowledged + 1) * 20
    again.close()


async def test_every_commit_is_flushed(tmp_path: Path) -> None:
    store = SqliteStore.open(str(tmp_path / "needfire.sqlite"))

    def pragma(name: str) -> Any:
        return store.write_now(
            lambda transaction: transaction.connection.exec_driver_sql(f"PRAGMA {name}").scalar()
        )

    assert pragma("synchronous") == 2
    assert pragma("journal_mode") == "wal"
    store.close()


_WRITER_PROCESS = """
import asyncio, sys
from needfire_testkit.server_store import NOW_US, STREAM, event, incoming
from needfire_testkit.stores import open_place

async def main(directory, url, before):
    store = open_place(directory, url)
    print("ready", flush=True)
    async def own(number):
        while True:
            said = event("CLIENT_REMOVED", client=f"c{number}")
            await store.record(said)
            print(said.id, flush=True)
    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(own(number))
        sequence = int(before)
        while True:
            sequence += 1
            await store.ingest("web1", STREAM, [incoming(sequence)], received_us=NOW_US)
            print(sequence, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def run_and_kill(arguments: list[str], lines: int) -> set[str]:
    """Kill a writing process after it said so many lines; return all that it said whole."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER_PROCESS, *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        told = {process.stdout.readline() for _ in range(lines)}
        process.kill()
        told |= set(process.stdout.read().splitlines(keepends=True))
    return {line.strip() for line in told if line.endswith("\n")}


def highest(store: DatabaseStore) -> int:
    key = ("web1", STREAM)
    return store.write_now(lambda t: t.engine.highest_sequences(t.connection, [key]).get(key, 0))


@pytest.mark.parametrize("lines", [1, 60, 300])
async def test_nothing_acknowledged_is_lost_when_the_process_is_killed(
    place: StorePlace, lines: int
) -> None:
    """Goal: SIGKILL between any two instructions; what the process had said is there."""
    told: set[str] = set()
    store = place.open()
    for _ in range(2):
        before = highest(store)
        store.close()
        told |= await asyncio.to_thread(run_and_kill, [*place.arguments, str(before)], lines)
        store = place.open()
    stored: set[str] = set()
    rows: list[int] = []
    while page := await store.query_events(
        EventQuery(after_rowid=rows[-1] if rows else 0, limit=1_000)
    ):
        rows += [row_id for row_id, _ in page]
        for _, each in page:
            stored.add(str(each.fields["path"])[1:] if each.client else each.id)
    assert told <= stored
    # Every number from 1 on, each once: what was stored but not told is a duplicate later.
    sequences = {int(text) for text in stored if text.isdigit()}
    assert sequences == set(range(1, highest(store) + 1))
    assert rows == list(range(1, len(rows) + 1))
    again = [incoming(number) for number in sorted(sequences)]
    result = await store.ingest("web1", STREAM, again, received_us=NOW_US)
    assert result == IngestResult((), None)
    store.close()


async def test_a_closed_store_says_so(place: StorePlace) -> None:
    opened = place.open()
    opened.close()
    with pytest.raises(StorageError, match="closed"):
        await opened.record(event())
    with pytest.raises(StorageError, match="closed"):
        await opened.last_rowid()
