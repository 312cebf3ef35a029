"""Sessions after a restart: resumed without a password, by the right agent, for as long as before."""

import os
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from needfire_protocol.connection_events import Established, Refused
from needfire_protocol.errors import StorageError
from needfire_protocol.keys import SessionKeys
from needfire_protocol.messages import Goodbye, RefusalCode
from needfire_protocol.srp import make_verifier
from needfire_server.clock import now_us
from needfire_server.session_keeper import SessionKeeper
from needfire_server.session_seal import SessionSeal
from needfire_server.sessions import SessionTable
from needfire_server.states import ClientStatus
from needfire_testkit import live_server as live_server_module
from needfire_testkit.live_server import NAME, SEAL_KEY, LiveServer, live_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LiveServer]:
    async with live_server(tmp_path / "data") as live:
        yield live


def rows(directory: Path) -> list[tuple[bytes, bool]]:
    connection = sqlite3.connect(directory / "needfire.sqlite")
    try:
        found = connection.execute(
            "SELECT session_id, is_current FROM sessions ORDER BY expires_us"
        )
        return [(row[0], bool(row[1])) for row in found]
    finally:
        connection.close()


@pytest.fixture(autouse=True)
def same_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's server registers its client at each start; here it is to stay the same one."""
    fixed = make_verifier(live_server_module.PASSWORD, os.urandom)
    monkeypatch.setattr(live_server_module, "make_verifier", lambda *_: fixed)


async def outcome_after_restart(directory: Path, keys: SessionKeys, **settings: Any) -> object:
    async with live_server(directory, **settings) as live:
        peer = await live.connect()
        return (await peer.resume(keys))[0]


async def test_a_session_is_resumed_after_a_restart_and_goes_on(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    async with live_server(directory) as live:
        keys = (await live.log_in(instance=b"a" * 16)).keys
    async with live_server(directory) as live:
        peer = await live.connect()
        (event,) = await peer.resume(keys)
        assert isinstance(event, Established)
        assert event.resumed
        await peer.announce(instance=b"a" * 16)
        await live.until_said("CLIENT_RESUMED")
        assert "RESTART_WITHOUT_EXIT" not in live.codes()


async def test_it_lives_no_longer_than_it_would_have(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    async with live_server(directory, session_key_lifetime_s=1_000) as live:
        await live.log_in()
        session = live.runtime.sessions.current(NAME)
        assert session is not None
    async with live_server(directory, session_key_lifetime_s=100_000) as live:
        restored = live.runtime.sessions.current(NAME)
        assert restored is not None
        assert restored.keys == session.keys
        assert abs(restored.expires_s - session.expires_s) < 5
    async with live_server(directory, session_key_lifetime_s=10) as live:
        shortened = live.runtime.sessions.current(NAME)
        assert shortened is not None
        assert shortened.expires_s <= session.expires_s - 900


async def test_a_superseded_session_is_told_so_with_proof_after_a_restart(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    async with live_server(directory) as live:
        older = (await live.log_in(instance=b"a" * 16)).keys
        newer = (await live.log_in(instance=b"b" * 16)).keys
    assert dict(rows(directory)) == {older.session_id: False, newer.session_id: True}
    refused = await outcome_after_restart(directory, older)
    assert refused == Refused(RefusalCode.SESSION_SUPERSEDED, "", authenticated=True)
    assert isinstance(await outcome_after_restart(directory, newer), Established)


async def test_a_new_password_ends_what_was_negotiated_with_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "data"
    async with live_server(directory) as live:
        keys = (await live.log_in()).keys
    other = make_verifier(live_server_module.PASSWORD, os.urandom)
    monkeypatch.setattr(live_server_module, "make_verifier", lambda *_: other)
    refused = await outcome_after_restart(directory, keys)
    assert refused == Refused(RefusalCode.SESSION_UNKNOWN, "", authenticated=False)


async def test_the_store_without_its_key_resumes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "data"
    async with live_server(directory) as live:
        keys = (await live.log_in()).keys
    database = (directory / "needfire.sqlite").read_bytes()
    assert keys.resumption_key not in database
    assert keys.signing_key not in database
    monkeypatch.setattr(live_server_module, "SEAL_KEY", bytes(32))
    refused = await outcome_after_restart(directory, keys)
    assert refused == Refused(RefusalCode.SESSION_UNKNOWN, "", authenticated=False)


async def test_a_goodbye_ends_it_for_good(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    async with live_server(directory) as live:
        peer = await live.log_in()
        await peer.send(Goodbye("exit"))
        await peer.next_message()
    assert rows(directory) == []


async def test_of_one_client_a_bounded_number_is_kept(server: LiveServer) -> None:
    for number in range(7):
        await server.log_in(instance=bytes([number]) * 16)
    assert len(rows(server.directory)) == 5
    assert [is_current for _, is_current in rows(server.directory)].count(True) == 1


async def test_a_session_that_cannot_be_kept_is_not_welcomed(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_arguments: object) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr(server.runtime.store, "keep_session", full)
    peer = await server.connect()
    await peer.negotiate(NAME, live_server_module.PASSWORD)
    with pytest.raises(AssertionError, match="BUSY"):
        await peer.announce()
    assert server.runtime.sessions.current(NAME) is None


async def test_the_state_of_a_client_is_stored_with_its_session(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_arguments: object) -> None:
        raise StorageError("a log-in must not need a write of its own for that")

    monkeypatch.setattr(server.runtime.store, "save_client_states", refuse)
    await server.log_in()
    states = await server.runtime.store.load_client_states()
    assert states[NAME].status is ClientStatus.STARTED
    assert states[NAME] == server.runtime.fleet.state(NAME)
    # Nothing of it is left to be saved.
    await server.runtime.fleet.save()


async def test_what_has_expired_is_swept_here_and_in_the_store(server: LiveServer) -> None:
    await server.log_in()
    session = server.runtime.sessions.current(NAME)
    assert session is not None
    keeper = server.runtime.keeper
    await keeper.sweep()
    assert len(rows(server.directory)) == 1
    server.runtime.sessions.end(session)
    expired = replace(session, expires_s=session.expires_s - 100_000)
    server.runtime.sessions.install(expired)
    verifier = server.runtime.registry.lookup(NAME)
    assert verifier is not None
    await keeper.keep(expired, verifier)
    await keeper.sweep()
    assert rows(server.directory) == []
    assert server.runtime.sessions.current(NAME) is None
    assert server.runtime.sessions.find(session.keys.session_id) is None


async def test_an_expired_row_is_not_taken_at_the_start(server: LiveServer) -> None:
    await server.log_in()
    row = (await server.runtime.store.load_sessions())[0]  # type: ignore[attr-defined]
    table = SessionTable()
    seal = SessionSeal(SEAL_KEY, os.urandom)
    stored = seal.open(row)
    assert stored is not None
    old = seal.seal(replace(stored, expires_us=now_us() - 1))
    await server.runtime.store.keep_session(old, ())  # type: ignore[attr-defined]
    keeper = SessionKeeper(table, server.runtime.store, seal)  # type: ignore[arg-type]
    assert await keeper.restore(server.runtime.registry, 7_200) == 0
    assert table.current(NAME) is None


async def test_after_a_restart_a_fleet_with_its_old_versions_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "data"
    async with live_server(directory) as live:
        keys = (await live.log_in()).keys
        await live.until_connected()

    async with live_server(directory) as live:
        await live.runtime.provisioning.started(live.runtime.settings)

        async def refuse(*_arguments: object) -> None:
            raise StorageError("a resumption must not need the disk")

        monkeypatch.setattr(live.runtime.store, "remember", refuse)
        peer = await live.connect()
        await peer.resume(keys)
        await peer.announce()
        await live.until_said("CLIENT_RESUMED")
        assert "STORE_FAILED" not in live.codes()


async def test_a_fleet_that_comes_back_writes_nothing(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await server.log_in()
    await server.until_connected()

    async def refuse(*_arguments: object) -> None:
        raise StorageError("a resumption must not need the disk")

    for name in ("keep_session", "save_client_states", "pending_commands"):
        monkeypatch.setattr(server.runtime.store, name, refuse)
    peer = await server.connect()
    await peer.resume(first.keys)
    await peer.announce()
    await server.until_said("CLIENT_RESUMED")
    assert "STORE_FAILED" not in server.codes()
