"""The states of clients between memory and store: what a crash or a full disk leaves of them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from needfire_protocol.errors import StorageError
from needfire_server.states import ClientState, ClientStatus
from needfire_server.storage import audit_statements
from needfire_server.storage.engine import Transaction
from needfire_server.storage.store import DatabaseStore
from needfire_testkit.live_server import event_body, live_server
from needfire_testkit.server_store import NOW_US, STREAM, event, incoming


async def stored_status(store: DatabaseStore, client: str = "web1") -> ClientStatus | None:
    state = (await store.load_client_states()).get(client)
    return None if state is None else state.status


@pytest.mark.parametrize(
    ("codes", "status"),
    [
        (["EXIT"], ClientStatus.EXITED),
        (["START"], ClientStatus.STARTED),
        (["SUSPEND"], ClientStatus.SUSPENDED),
        (["EXIT", "POLICY_MODIFIED"], ClientStatus.POLICY),
        (["POLICY_MODIFIED"], None),
        ([], None),
    ],
)
async def test_a_decisive_state_is_part_of_the_commit_of_its_report(
    store: DatabaseStore, codes: list[str], status: ClientStatus | None
) -> None:
    reports = [incoming(n, event(code)) for n, code in enumerate(codes, 1)]
    state = ClientState("web1", ClientStatus.MESSAGE, instance=b"i" * 16)
    result = await store.ingest("web1", STREAM, reports, received_us=NOW_US, state=state)
    assert await stored_status(store) is status
    assert (None if result.saved is None else result.saved.status) is status


async def test_what_came_before_decides_nothing_when_it_comes_again(store: DatabaseStore) -> None:
    exit_report = [incoming(1, event("EXIT"))]
    await store.ingest("web1", STREAM, exit_report, received_us=NOW_US)
    state = ClientState("web1", ClientStatus.STARTED, instance=b"i" * 16)
    result = await store.ingest("web1", STREAM, exit_report, received_us=NOW_US, state=state)
    assert result.saved is None
    assert await stored_status(store) is None


def no_space(_transaction: Transaction) -> None:
    """What the last write of a transaction meets, after everything else is written."""
    raise OSError(28, "No space left on device")


async def test_neither_the_report_nor_the_state_is_kept_where_the_commit_fails(
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = ClientState("web1", ClientStatus.STARTED, instance=b"i" * 16)
    reports = [incoming(1, event("EXIT"))]
    with monkeypatch.context() as full:
        full.setattr(audit_statements, "append", no_space)
        with pytest.raises(StorageError, match="No space left"):
            await store.ingest("web1", STREAM, reports, received_us=NOW_US, state=state)
    assert (await store.last_rowid(), await stored_status(store)) == (0, None)
    result = await store.ingest("web1", STREAM, reports, received_us=NOW_US, state=state)
    assert len(result.accepted) == 1
    assert await stored_status(store) is ClientStatus.EXITED


async def test_an_exit_that_was_acknowledged_is_known_after_a_crash(tmp_path: Path) -> None:
    async with live_server(tmp_path) as server:
        peer = await server.log_in()
        await peer.send(peer.batch(1, event_body("EXIT", program="needfire-agent", status="0")))
        await peer.next_message()
        # What the store has at this moment is what a crash would leave.
        states = await server.runtime.store.load_client_states()
        assert states["localhost"].status is ClientStatus.EXITED
        assert states["localhost"] == server.runtime.fleet.state("localhost")


async def test_a_state_that_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    async with live_server(tmp_path) as server:
        fleet, store = server.runtime.fleet, server.runtime.store
        await fleet.note("web1", ClientStatus.FAILED)
        save = store.save_client_states

        async def fails(_states: object) -> None:
            raise StorageError("disk full")

        store.save_client_states = fails  # type: ignore[method-assign, assignment]
        with pytest.raises(StorageError):
            await fleet.save()
        with pytest.raises(StorageError):
            await fleet.started("web1", b"i" * 16, "192.0.2.1", prior_exit_pending=False)
        store.save_client_states = save  # type: ignore[method-assign]
        await fleet.save()
        assert (await store.load_client_states())["web1"] == fleet.state("web1")
        assert fleet.state("web1").status is ClientStatus.STARTED


async def test_a_state_that_changes_while_it_is_written_is_written_again(tmp_path: Path) -> None:
    async with live_server(tmp_path) as server:
        fleet, store = server.runtime.fleet, server.runtime.store
        fleet.heard("web1", [event("CHECK_COMPLETED")])
        saving = asyncio.ensure_future(fleet.save())
        await asyncio.sleep(0)
        fleet.heard("web1", [event("POLICY_MODIFIED")])
        await saving
        await fleet.save()
        assert (await store.load_client_states())["web1"].status is ClientStatus.POLICY


async def test_what_is_saved_is_not_written_again_and_gives_way_to_another_servers_word(
    tmp_path: Path,
) -> None:
    async with live_server(tmp_path) as server:
        fleet, store = server.runtime.fleet, server.runtime.store
        fleet.heard("web1", [event("CHECK_COMPLETED")])
        elsewhere = fleet.state("web1").with_status(ClientStatus.SUSPENDED, NOW_US)
        fleet.take(elsewhere)
        assert fleet.state("web1") != elsewhere
        await fleet.save()
        written: list[ClientState] = []

        async def counts(states: Sequence[ClientState]) -> None:
            written.extend(states)

        store.save_client_states = counts  # type: ignore[method-assign]
        await fleet.save()
        assert written == []
        fleet.take(elsewhere)
        assert fleet.state("web1") == elsewhere
