"""Several servers on one database: whom one lets in or sends away, the others do as well."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from needfire_protocol.connection_events import ConnectionEvent, Established, Refused
from needfire_protocol.errors import StorageError
from needfire_protocol.keys import SessionKeys
from needfire_protocol.messages import Acknowledge, Goodbye, RefusalCode
from needfire_protocol.srp import make_verifier
from needfire_server import neighbours as neighbours_module
from needfire_server.clock import now_us
from needfire_server.silence import Watchman
from needfire_server.storage.postgresql import PostgresStore
from needfire_testkit import live_server as live_server_module
from needfire_testkit.live_server import NAME, PASSWORD, LiveServer, event_body, live_server
from needfire_testkit.postgres import PostgresServer
from needfire_testkit.server import until

OTHER_PASSWORD = "another battery, another horse"

Two = tuple[LiveServer, LiveServer]


@pytest.fixture(autouse=True)
def same_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the test's servers registers its client; here that is to be the same client."""
    fixed = make_verifier(PASSWORD, os.urandom)
    monkeypatch.setattr(live_server_module, "make_verifier", lambda *_: fixed)


@asynccontextmanager
async def joined(url: str, directory: Path) -> AsyncIterator[LiveServer]:
    """A server that hears what others on the database do."""
    store = PostgresStore.open(url, str(directory))
    async with live_server(directory, store=store) as live:
        neighbours = live.runtime.neighbours
        task = asyncio.create_task(neighbours.follow())
        listening = asyncio.Event()

        def on_client(client: str | None) -> None:
            neighbours.heard(client)
            listening.set()

        watch = store.watch(
            on_events=lambda: None, on_commands=live.listener.wake, on_client=on_client
        )
        try:
            with watch:
                await listening.wait()
                yield live
        finally:
            task.cancel()


@pytest.fixture
async def two(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[Two]:
    url = postgres.emptied_database()
    async with AsyncExitStack() as stack:
        yield (
            await stack.enter_async_context(joined(url, tmp_path / "first")),
            await stack.enter_async_context(joined(url, tmp_path / "second")),
        )


async def resumed(server: LiveServer, keys: SessionKeys) -> ConnectionEvent:
    peer = await server.connect()
    return (await peer.resume(keys))[0]


def refusal(code: RefusalCode, *, is_proved: bool) -> Refused:
    return Refused(code, "", authenticated=is_proved)


async def test_a_session_goes_on_at_another_server(two: Two) -> None:
    first, second = two
    here = await first.log_in()
    await here.close()
    there = await second.connect()
    [event] = await there.resume(here.keys)
    assert isinstance(event, Established)
    await there.announce()
    await there.send(there.batch(1, event_body()))
    answer = await there.next_message()
    assert isinstance(answer, Acknowledge)
    assert "CLIENT_RESUMED" in second.codes()
    assert "RESTART_WITHOUT_EXIT" not in second.codes()


async def test_what_came_to_one_server_is_not_stored_again_by_the_other(two: Two) -> None:
    first, second = two
    here = await first.log_in()
    body = event_body()
    await here.send(here.batch(1, body))
    await here.next_message()
    there = await second.connect()
    await there.resume(here.keys)
    await there.announce()
    there.stream = here.stream
    await there.send(there.batch(1, body, event_body()))
    answer = await there.next_message()
    assert isinstance(answer, Acknowledge)
    assert answer.sequence == 2
    assert len(await second.stored(code="WAKEUP")) == 2


async def test_who_takes_over_at_one_server_ends_the_session_at_the_other(two: Two) -> None:
    first, second = two
    older = await first.log_in(instance=b"a" * 16)
    newer = await second.log_in(instance=b"b" * 16)
    await until(
        lambda: not first.runtime.sessions.is_held_by_another(NAME, b"b" * 16, 0), "the news"
    )
    await older.send(older.batch(1, event_body()))
    assert await older.next_event() == refusal(RefusalCode.SESSION_SUPERSEDED, is_proved=True)
    for server in two:
        answer = await resumed(server, older.keys)
        assert answer == refusal(RefusalCode.SESSION_SUPERSEDED, is_proved=True)
        assert isinstance(await resumed(server, newer.keys), Established)


async def test_who_asks_politely_is_told_that_another_server_has_the_other_one(two: Two) -> None:
    first, second = two
    await first.log_in(instance=b"a" * 16)
    peer = await second.connect()
    await peer.negotiate(NAME, PASSWORD, takeover=False)
    with pytest.raises(AssertionError, match="SESSION_IN_USE"):
        await peer.announce(instance=b"b" * 16)


async def test_a_session_that_ended_at_one_server_is_not_resumed_at_the_other(two: Two) -> None:
    first, second = two
    here = await first.log_in()
    # The other one knows it, so that it could be fooled by what it remembers.
    there = await second.connect()
    await there.resume(here.keys)
    await there.close()
    await here.send(Goodbye("exit"))
    await here.next_message()
    answer = await resumed(second, here.keys)
    assert answer == refusal(RefusalCode.SESSION_UNKNOWN, is_proved=False)


async def test_a_client_that_is_removed_at_one_server_is_cut_off_at_the_other(two: Two) -> None:
    first, second = two
    peer = await second.log_in()
    await second.until_connected()
    await first.runtime.store.remove(NAME)
    await peer.until_closed()
    for server in two:
        answer = await resumed(server, peer.keys)
        assert answer == refusal(RefusalCode.SESSION_UNKNOWN, is_proved=False)
    await until(lambda: first.runtime.registry.names() == (), "its own registry as well")


async def test_a_removal_counts_before_its_notice_arrives(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """Goal: the notice makes it fast, but nothing that is decided rests on it."""
    url = postgres.emptied_database()
    deaf = PostgresStore.open(url, str(tmp_path / "deaf"))
    async with live_server(tmp_path / "deaf", store=deaf) as server:
        peer = await server.log_in()
        other = PostgresStore.open(url, str(tmp_path / "other"))
        new = make_verifier(OTHER_PASSWORD, os.urandom)
        await other.register(NAME, new, now_us=now_us(), user="t")
        answer = await resumed(server, peer.keys)
        assert answer == refusal(RefusalCode.SESSION_UNKNOWN, is_proved=False)
        await other.remove(NAME)
        late = await server.connect()
        await late.negotiate(NAME, OTHER_PASSWORD)
        with pytest.raises(AssertionError, match="SESSION_SUPERSEDED"):
            await late.announce()
        other.close()


async def test_a_client_that_is_registered_at_one_server_may_log_in_at_the_other(two: Two) -> None:
    first, second = two
    verifier = make_verifier(OTHER_PASSWORD, os.urandom)
    await first.runtime.store.register("127.0.0.1", verifier, now_us=now_us(), user="test")
    await until(lambda: second.runtime.registry.lookup("127.0.0.1"), "the registration")
    await second.log_in(name="127.0.0.1", password=OTHER_PASSWORD)


async def test_a_new_password_ends_what_the_old_one_opened_everywhere(two: Two) -> None:
    first, second = two
    peer = await second.log_in()
    await second.until_connected()
    verifier = make_verifier(OTHER_PASSWORD, os.urandom)
    await first.runtime.store.register(NAME, verifier, now_us=now_us(), user="test")
    await peer.until_closed()
    answer = await resumed(first, peer.keys)
    assert answer == refusal(RefusalCode.SESSION_UNKNOWN, is_proved=False)
    await second.log_in(password=OTHER_PASSWORD)


async def test_servers_with_different_seal_keys_say_so_and_take_passwords(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.emptied_database()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(joined(url, tmp_path / "first"))
        peer = await first.log_in()
        monkeypatch.setattr(live_server_module, "SEAL_KEY", bytes(32))
        second = await stack.enter_async_context(joined(url, tmp_path / "second"))
        assert second.codes().count("SEAL_KEY_DIFFERS") == 1
        for _ in range(2):
            answer = await resumed(second, peer.keys)
            assert answer == refusal(RefusalCode.SESSION_UNKNOWN, is_proved=False)
        await second.log_in()
        # What it cannot read is not its own session any more.
        await first.until_said("SEAL_KEY_DIFFERS")
        await peer.send(peer.batch(1, event_body()))
        assert isinstance(await peer.next_event(), Refused)
        assert second.codes().count("SEAL_KEY_DIFFERS") == 1


async def test_a_clean_restart_at_another_server_is_not_called_an_illegal_one(two: Two) -> None:
    first, second = two
    here = await first.log_in(instance=b"a" * 16)
    await here.close()
    there = await second.log_in(instance=b"a" * 16)
    await there.send(Goodbye("exit"))
    await there.next_message()
    again = await second.log_in(instance=b"b" * 16)
    await again.close()
    back = await first.connect()
    await back.resume(again.keys)
    await back.announce(instance=b"b" * 16)
    assert "RESTART_WITHOUT_EXIT" not in first.codes() + second.codes()


async def test_silence_is_told_once_by_one_server_and_so_is_its_end(two: Two) -> None:
    first, second = two
    for server in two:
        server.configure(silence_limit_s=1, client_time_limit_s=100_000)
    guards = [Watchman(server.runtime) for server in two]
    peer = await second.log_in()
    await second.until_connected()
    await peer.close()
    await until(lambda: not second.listener.connected(), "its end")
    await second.runtime.fleet.save()
    for guard in guards:
        guard._refreshed_s -= 60
        await guard.round()
    set_back(first, second, seconds=60)

    def told(code: str) -> list[int]:
        return [server.codes().count(code) for server in two]

    for guard in [*guards, *guards]:
        await guard.round()
    assert told("STOPPED_WITHOUT_GOODBYE") == [1, 0]
    await store_said(first)
    # The one that told it dies; the other one takes the job over, and knows.
    await asyncio.wrap_future(first.runtime.store._singletons.submit(drop_locks, first))  # type: ignore[attr-defined]
    # The database notices that end in its own time.
    async with asyncio.timeout(15):
        while not await second.runtime.store.holds("silence"):
            await asyncio.sleep(0.01)
    for _ in range(2):
        await guards[1].round()
        await guards[0].round()
    assert await second.runtime.store.holds("silence")
    assert told("STOPPED_WITHOUT_GOODBYE") == [1, 0]
    back = await first.connect()
    await back.resume(peer.keys)
    await back.announce()
    await guards[0].round()
    guards[1]._refreshed_s -= 60
    for guard in [guards[1], *guards]:
        await guard.round()
    assert told("CLIENT_RETURNED") == [0, 1]


def set_back(*servers: LiveServer, seconds: float) -> None:
    """Let what was heard have been heard longer ago."""
    for server in servers:
        for pulse in server.runtime.vitals.pulses().values():
            pulse.heard_s -= seconds


async def store_said(server: LiveServer) -> None:
    """Do what the task of the journal does."""
    for event in list(server.said):
        await server.runtime.store.record(event)


def drop_locks(server: LiveServer) -> None:
    """Do what the end of a process does to its locks."""
    server.runtime.store._engine._drop_singletons()  # type: ignore[attr-defined]


async def test_what_was_missed_while_nobody_listened_is_made_up_for(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    url = postgres.emptied_database()
    deaf = PostgresStore.open(url, str(tmp_path / "deaf"))
    async with live_server(tmp_path / "deaf", store=deaf) as server:
        peer = await server.log_in()
        await server.until_connected()
        other = PostgresStore.open(url, str(tmp_path / "other"))
        verifier = make_verifier(OTHER_PASSWORD, os.urandom)
        await other.register("web9", verifier, now_us=now_us(), user="t")
        await other.remove(NAME)
        other.close()
        task = asyncio.create_task(server.runtime.neighbours.follow())
        server.runtime.neighbours.heard(None)
        await peer.until_closed()
        assert server.runtime.registry.names() == ("web9",)
        task.cancel()


async def test_what_was_missed_of_many_is_looked_at_together_and_again_where_that_fails(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresStore.open(postgres.emptied_database(), str(tmp_path))
    async with live_server(tmp_path, store=store) as server:
        neighbours = server.runtime.neighbours
        damaged, is_gone = {"web1"}, False
        at_once, most, looked = 0, 0, list[str]()

        async def look(client: str) -> None:
            nonlocal at_once, most
            looked.append(client)
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.001)
            at_once -= 1
            if is_gone or client in damaged:
                raise StorageError(f"{client} cannot be read")

        clients = tuple(f"web{number}" for number in range(5))
        monkeypatch.setattr(neighbours_module, "_TOGETHER", 2)
        monkeypatch.setattr(neighbours_module, "_RETRY_S", 0.001)
        monkeypatch.setattr(neighbours, "_look_at_session", look)
        monkeypatch.setattr(server.runtime.keeper.table, "clients", lambda: clients)
        # One that is damaged keeps nobody from being looked at, and is the only one to come again;
        # also where it is the last portion by itself.
        damaged.add("web4")
        await neighbours._look_at_all()
        assert (most, looked) == (2, list(clients))
        assert [neighbours._heard.get_nowait() for _ in range(2)] == ["web1", "web4"]
        assert neighbours._heard.empty()
        neighbours._waiting.clear()
        damaged.clear()
        # Where there is no answer at all, nobody else is asked about.
        is_gone = True
        with pytest.raises(StorageError, match="web0"):
            await neighbours._look_at_all()
        assert looked[5:] == ["web0", "web1"]
        task = asyncio.create_task(neighbours.follow())
        neighbours.heard(None)
        await until(lambda: looked[7:11] == ["web0", "web1"] * 2, "another attempt")
        is_gone = False
        await until(lambda: looked[-5:] == list(clients), "an attempt that succeeds")
        task.cancel()
