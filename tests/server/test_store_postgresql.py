"""What only a store that several servers share has to do, and one behind a server that can go away."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from needfire_protocol.connection_events import ConnectionEvent, MessageReceived, Refused
from needfire_protocol.errors import StorageError
from needfire_protocol.messages import Acknowledge, Announce, RefusalCode
from needfire_server.storage.base import EventQuery, IngestResult
from needfire_server.storage.migrate_postgresql import migrate
from needfire_server.storage.migrations import VERSION_TABLE
from needfire_server.storage.opening import how_to_open, how_to_open_again
from needfire_server.storage.postgresql import PostgresStore
from needfire_server.storage.store import DatabaseStore
from needfire_testkit.live_server import NAME, PASSWORD, LiveServer, Peer, event_body, live_server
from needfire_testkit.postgres import PostgresServer, postgres_or_skip, running_postgres
from needfire_testkit.server_store import NOW_US, STREAM, event, incoming
from needfire_testkit.stores import ADD_NOTE, StorePlace, steps_with

WAIT_LIMIT_S = 20


@pytest.fixture
def place(postgres: PostgresServer, tmp_path: Path) -> StorePlace:
    return StorePlace(tmp_path, postgres, postgres.emptied_database())


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgresServer]:
    """A server that tests may kill."""
    with running_postgres(postgres_or_skip()) as server:
        yield server


@pytest.fixture
async def two(place: StorePlace) -> AsyncIterator[tuple[DatabaseStore, DatabaseStore]]:
    """Two servers on one database."""
    first = place.open(directory=place.directory / "first")
    second = place.open(directory=place.directory / "second")
    yield first, second
    first.close()
    second.close()


Two = tuple[DatabaseStore, DatabaseStore]


async def test_without_an_answer_nothing_is_acknowledged_and_it_recovers_by_itself(
    mortal: PostgresServer, tmp_path: Path
) -> None:
    store = PostgresStore.open(mortal.new_database(), str(tmp_path))
    await store.ingest("web1", STREAM, [incoming(1)], received_us=NOW_US)
    mortal.kill()
    try:
        for _ in range(3):
            with pytest.raises(StorageError, match="needfire@"):
                await store.ingest("web1", STREAM, [incoming(2)], received_us=NOW_US)
            with pytest.raises(StorageError):
                await store.last_rowid()
            with pytest.raises(StorageError):
                await store.holds("retention")
    finally:
        mortal.start()
    result = await store.ingest("web1", STREAM, [incoming(1), incoming(2)], received_us=NOW_US)
    assert [each.fields["path"] for each in result.accepted] == ["/2"]
    assert await store.last_rowid() == 2
    assert await store.holds("retention")
    store.close()


async def test_what_was_acknowledged_survives_the_death_of_the_database(
    mortal: PostgresServer, tmp_path: Path
) -> None:
    """Goal: killed at any moment of a stream of reports; acknowledged and lost = 0, twice = 0."""
    store = PostgresStore.open(mortal.new_database(), str(tmp_path))
    acknowledged: set[int] = set()

    async def send(from_sequence: int) -> None:
        for sequence in count(from_sequence):
            try:
                await store.ingest("web1", STREAM, [incoming(sequence)], received_us=NOW_US)
            except StorageError:
                return
            acknowledged.add(sequence)

    for round_ in range(1, 4):
        sending = asyncio.ensure_future(send(max(acknowledged, default=0) + 1))
        while len(acknowledged) < 15 * round_:
            await asyncio.sleep(0)
        mortal.kill()
        await sending
        await asyncio.to_thread(mortal.start)
    again = [incoming(number) for number in range(1, max(acknowledged) + 1)]
    assert await store.ingest("web1", STREAM, again, received_us=NOW_US) == IngestResult((), None)
    stored = await store.query_events(EventQuery(limit=1_000))
    paths = [str(each.fields["path"]) for _, each in stored]
    assert len(paths) == len(set(paths))
    assert {f"/{number}" for number in acknowledged} <= set(paths)
    store.close()


async def test_an_agent_that_resends_to_another_server_is_stored_once(two: Two) -> None:
    first, second = two
    batch = [incoming(n) for n in range(1, 60)]
    results = await asyncio.gather(
        first.ingest("web1", STREAM, batch, received_us=NOW_US),
        second.ingest("web1", STREAM, batch, received_us=NOW_US),
    )
    assert sorted(len(result.accepted) for result in results) == [0, 59]
    assert await second.last_rowid() == 59


async def test_events_become_visible_in_the_order_of_their_numbers(two: Two) -> None:
    """Goal: who asks for what is newer than the last number that it saw misses nothing."""
    done = False

    async def write(store: DatabaseStore, client: str) -> None:
        for number in range(1, 40):
            await store.ingest(client, STREAM, [incoming(number)], received_us=NOW_US)

    async def follow(store: DatabaseStore) -> list[int]:
        seen: list[int] = []
        while True:
            is_last = done
            query = EventQuery(after_rowid=seen[-1] if seen else 0, limit=1_000)
            seen += [row_id for row_id, _ in await store.query_events(query)]
            if is_last:
                return seen

    following = [asyncio.ensure_future(follow(store)) for store in two]
    await asyncio.gather(*(write(store, f"web{n}") for n, store in enumerate([*two, *two])))
    done = True
    for task in following:
        assert await task == list(range(1, 4 * 39 + 1))


async def test_each_server_hears_what_the_others_store_and_command(two: Two) -> None:
    first, second = two
    async with heard_by(second) as heard, heard_by(first) as own:
        await first.queue_command("web1", "scan", "ann", 1)
        await first.record(event())
        assert [await next_of(heard), await next_of(heard)] == ["web1", "events"]
        # What a server does itself it knows; it hears of the next thing that another one does.
        await second.queue_command("web2", "scan", "ann", 1)
        assert await next_of(own) == "web2"


async def test_who_could_not_listen_for_a_while_looks_at_everything(
    mortal: PostgresServer, tmp_path: Path
) -> None:
    store = PostgresStore.open(mortal.new_database(), str(tmp_path))
    async with heard_by(store) as heard:
        mortal.kill()
        await asyncio.to_thread(mortal.start)
        assert [await next_of(heard) for _ in range(3)] == ["events", "any", "any client"]
    store.close()


@asynccontextmanager
async def heard_by(store: DatabaseStore) -> AsyncIterator["asyncio.Queue[str]"]:
    """What a store hears from the moment on that it listens."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    with store.watch(
        on_events=lambda: heard.put_nowait("events"),
        on_commands=lambda client: heard.put_nowait(client or "any"),
        on_client=lambda client: heard.put_nowait(f"{client or 'any'} client"),
    ):
        assert [await next_of(heard) for _ in range(3)] == ["events", "any", "any client"]
        yield heard


async def next_of(heard: "asyncio.Queue[str]") -> str:
    async with asyncio.timeout(WAIT_LIMIT_S):
        return await heard.get()


async def test_a_singleton_job_has_one_server_until_that_one_goes(place: StorePlace) -> None:
    first = place.open(directory=place.directory / "first")
    second = place.open(directory=place.directory / "second")
    assert [await first.holds("retention"), await first.holds("retention")] == [True, True]
    assert await second.holds("retention") is False
    assert await second.holds("something else") is True
    first.close()
    async with asyncio.timeout(WAIT_LIMIT_S):
        while not await second.holds("retention"):
            await asyncio.sleep(0)
    second.close()


async def test_servers_that_start_at_once_make_the_tables_once(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    url = postgres.new_database()
    stores = await asyncio.gather(
        *(asyncio.to_thread(PostgresStore.open, url, str(tmp_path / str(n))) for n in range(4))
    )
    for store in stores:
        await store.record(event())
    assert await stores[0].last_rowid() == 4
    for store in stores:
        store.close()


def test_a_newer_schema_is_refused(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database()
    PostgresStore.open(url, str(tmp_path)).close()
    with psycopg.connect(url) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'".encode())
    with pytest.raises(StorageError, match="written by a newer version"):
        PostgresStore.open(url, str(tmp_path))


def test_a_step_that_fails_leaves_the_database_before_it(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    url = postgres.new_database()
    PostgresStore.open(url, str(tmp_path)).close()
    bad = f"{ADD_NOTE}; op.execute('SELECT no_such_function()')"
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    with engine.connect() as connection, pytest.raises(sa.exc.ProgrammingError, match="no_such"):
        migrate(connection, url, steps_with(tmp_path, bad))
    engine.dispose()
    with psycopg.connect(url) as server:
        names = {
            column.name for column in server.execute("SELECT * FROM clients").description or ()
        }
    assert "name" in names
    assert "note" not in names
    PostgresStore.open(url, str(tmp_path)).close()


def test_tables_of_another_program_are_left_alone(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE events (name TEXT)")
    with pytest.raises(StorageError, match=r"another program \(events\)"):
        PostgresStore.open(url, str(tmp_path))
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone()
    assert tables == (1,)


def test_a_database_that_cannot_hold_every_text_is_refused(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    url = postgres.new_database("ENCODING latin1", "LOCALE 'C'", "TEMPLATE template0")
    with pytest.raises(StorageError, match=r"LATIN1.*expected UTF8"):
        PostgresStore.open(url, str(tmp_path))


def test_an_unreachable_database_is_named_without_its_options(tmp_path: Path) -> None:
    url = f"postgresql://ann@/needfire?host={tmp_path}&connect_timeout=3"
    with pytest.raises(StorageError) as caught:
        PostgresStore.open(url, str(tmp_path / "data"), password="open sesame")
    assert str(caught.value).startswith("postgresql://ann@/needfire: ")
    assert "sesame" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_the_password_comes_from_a_file(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.database_of_scram_user("open sesame")
    secret = tmp_path / "password"
    secret.touch(0o600)
    directory = str(tmp_path / "data")
    secret.write_text("wrong\n")
    with pytest.raises(StorageError, match="password authentication failed"):
        how_to_open(directory, url, str(secret))()
    secret.write_text("open sesame\nsecond line\n")
    store = how_to_open(directory, url, str(secret))()
    await store.record(event())
    store.close()
    # The admin tool finds the same store without being told; the secret is nowhere else.
    again = how_to_open_again(directory)()
    assert await again.last_rowid() == 1
    again.close()
    written = b"".join(each.read_bytes() for each in Path(directory).iterdir())
    assert b"sesame" not in written
    assert os.stat(Path(directory) / "store.json").st_mode & 0o777 == 0o600


async def test_a_commit_is_flushed_even_where_the_database_was_told_otherwise(
    place: StorePlace,
) -> None:
    name = place.rows("SELECT current_database()")[0][0]
    place.run(f"ALTER DATABASE {name} SET synchronous_commit = off")
    store = place.open()
    try:
        shown = store.write_now(
            lambda t: t.connection.exec_driver_sql("SHOW synchronous_commit").scalar()
        )
        assert shown == "on"
    finally:
        store.close()
        place.run(f"ALTER DATABASE {name} RESET synchronous_commit")


async def test_the_server_says_once_that_the_database_is_away_and_then_goes_on(
    mortal: PostgresServer, tmp_path: Path
) -> None:
    """Goal: agents are told to come again, nothing is acknowledged, and nobody has to do anything."""
    store = PostgresStore.open(mortal.new_database(), str(tmp_path))
    async with live_server(tmp_path, store=store) as server:
        mortal.kill()
        try:
            for _ in range(2):
                _, refused = await announced(server)
                assert isinstance(refused, Refused)
                assert refused.code is RefusalCode.BUSY
        finally:
            await asyncio.to_thread(mortal.start)
        peer, answer = await announced(server)
        if isinstance(answer, Refused):
            # The connection that writes was tried by nobody since the database is back.
            peer, answer = await announced(server)
        assert isinstance(answer, MessageReceived)
        await peer.send(peer.batch(1, event_body()))
        acknowledgement = await peer.next_message()
        assert isinstance(acknowledgement, Acknowledge)
        assert acknowledgement.sequence == 1
        assert [code for code in server.codes() if code.startswith("STORE_")] == [
            "STORE_FAILED",
            "STORE_RECOVERED",
        ]


async def announced(server: LiveServer) -> tuple[Peer, ConnectionEvent]:
    """Log in; return the peer and what the server makes of its announcement."""
    peer = await server.connect()
    await peer.negotiate(NAME, PASSWORD)
    await peer.send(Announce(b"i" * 16, "boot", 1, "0", "run", False))
    return peer, await peer.next_event()
