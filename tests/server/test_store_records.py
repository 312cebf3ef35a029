"""What the store keeps besides events: clients, their states, sessions, commands, proposals, secrets."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from needfire_protocol.errors import StorageError
from needfire_server.session_seal import SealedSession
from needfire_server.states import ClientState, ClientStatus
from needfire_server.storage import tables
from needfire_server.storage.base import (
    COMMANDS_PENDING_MAX,
    ClientFacts,
    EventQuery,
    Told,
    TooManyCommandsError,
)
from needfire_server.storage.engine import Transaction
from needfire_server.storage.ingesting import KeptSession, KeptStates, store_all
from needfire_server.storage.store import DatabaseStore
from needfire_testkit.server_store import NOW_US, event, verifier
from needfire_testkit.stores import StorePlace


async def test_registering_again_replaces_the_verifier(store: DatabaseStore) -> None:
    assert await store.client_record("web1") is None
    assert await store.register("web1", verifier("a"), now_us=1, user="root") is False
    assert await store.register("web1", verifier("b"), now_us=2, user="ann") is True
    record = await store.client_record("web1")
    assert record is not None
    assert (record.verifier, record.registered_us, record.registered_by) == (
        verifier("b"),
        2,
        "ann",
    )
    assert await store.clients() == [record]


async def test_removing_takes_the_waiting_commands_along(store: DatabaseStore) -> None:
    await store.register("web1", verifier(), now_us=1, user="root")
    await store.queue_command("web1", "stop", "root", NOW_US)
    assert await store.remove("web1") is True
    assert await store.remove("web1") is False
    assert await store.pending_commands("web1") == []


async def test_a_damaged_registration_is_a_storage_error(store: DatabaseStore) -> None:
    await store.register("web1", verifier(), now_us=1, user="root")
    store.write_now(
        lambda t: t.connection.execute(sa.update(tables.clients).values(verifier=b"0")).rowcount
    )
    with pytest.raises(StorageError, match="web1"):
        await store.clients()


async def test_a_state_comes_back_as_it_was(store: DatabaseStore) -> None:
    state = ClientState(
        "web1",
        ClientStatus.FILE_TRANSFER,
        instance=bytes(range(16)),
        last_seen_us=NOW_US,
        address="192.0.2.1",
        is_overdue=True,
        latest={ClientStatus.STARTED: 1, ClientStatus.FILE_TRANSFER: NOW_US},
    )
    await store.save_client_states([ClientState.initial("web1")])
    await store.save_client_states([state, ClientState.initial("web2")])
    await store.save_client_states([])
    assert await store.load_client_states() == {"web1": state, "web2": ClientState.initial("web2")}


def session(client: str, number: int) -> SealedSession:
    return SealedSession(bytes([number]) * 16, client, NOW_US + number, True, b"sealed")


async def test_log_ins_that_share_a_commit_leave_what_they_would_have_left_alone(
    store: DatabaseStore,
) -> None:
    forgotten, old, new, newest = [session("web1", number) for number in range(4)]
    other = session("web2", 9)
    for row in (forgotten, old):
        await store.keep_session(row, (forgotten.session_id,))
    store.write_now(
        lambda transaction: store_all(
            transaction,
            [
                KeptSession(new, (old.session_id, new.session_id)),
                KeptStates([ClientState("web1", ClientStatus.STARTED)]),
                KeptSession(other, ()),
                KeptSession(
                    newest,
                    (old.session_id, new.session_id, newest.session_id),
                    [ClientState("web1", ClientStatus.ILLEGAL)],
                ),
            ],
        )
    )
    superseded = [replace(row, is_current=False) for row in (old, new)]
    assert await store.load_sessions() == [*superseded, newest, other]
    states = await store.load_client_states()
    assert states["web1"].status is ClientStatus.ILLEGAL


async def test_the_facts_of_many_are_those_of_each(store: DatabaseStore) -> None:
    for name in ("web1", "web2"):
        await store.register(name, verifier(name), now_us=1, user="root")
    await store.register("broken", verifier(), now_us=1, user="root")
    store.write_now(
        lambda t: (
            t.connection.execute(
                sa.update(tables.clients)
                .where(tables.clients.c.name == "broken")
                .values(verifier=b"0")
            ).rowcount
        )
    )
    state = ClientState("web2", ClientStatus.STARTED, instance=b"i" * 16, last_seen_us=NOW_US)
    old, new = session("web1", 2), session("web1", 1)
    await store.keep_session(old, ())
    await store.keep_session(new, (old.session_id,))
    await store.save_client_states([state])
    names = ["web1", "broken", "nobody", "web2"]
    found = await asyncio.gather(
        *(store.client_facts(name) for name in names), return_exceptions=True
    )
    web1, broken, nobody, web2 = found
    records = {name: await store.client_record(name) for name in ("web1", "web2")}
    assert None not in records.values()
    assert web1 == ClientFacts(records["web1"], None, (replace(old, is_current=False), new))
    assert isinstance(broken, StorageError)
    assert "broken" in str(broken)
    assert nobody == ClientFacts(None, None, ())
    assert web2 == ClientFacts(records["web2"], state, ())
    owners = [store.client_of_session(row.session_id) for row in (old, session("web3", 3), new)]
    assert await asyncio.gather(*owners) == ["web1", None, "web1"]


async def test_a_damaged_state_is_the_trouble_of_its_client_alone(store: DatabaseStore) -> None:
    names = ("web1", "web2", "odd word", "no object", "a number", "well")
    for name in names:
        await store.register(name, verifier(name), now_us=1, user="root")
    await store.save_client_states([ClientState(name) for name in names])
    damages = {
        "web1": {"status": "Levitating"},
        "web2": {"latest": "{"},
        "odd word": {"latest": '{"Levitating": 1}'},
        "no object": {"latest": "[]"},
        "a number": {"latest": "1"},
    }

    def damage(transaction: Transaction) -> None:
        for name, values in damages.items():
            which = tables.client_states.c.name == name
            transaction.connection.execute(
                sa.update(tables.client_states).where(which).values(values)
            )

    store.write_now(damage)
    found = await asyncio.gather(
        *(store.client_facts(name) for name in names), return_exceptions=True
    )
    for name, facts in zip(names, found, strict=True):
        if name == "well":
            assert isinstance(facts, ClientFacts)
            assert facts.state == ClientState("well")
        else:
            assert isinstance(facts, StorageError)
            assert str(facts).startswith(f"the state of {name} is damaged")
    with pytest.raises(StorageError, match="is damaged"):
        await store.load_client_states()


async def test_a_name_that_no_database_can_hold_is_a_storage_error(store: DatabaseStore) -> None:
    with pytest.raises(StorageError):
        await store.client_facts("web\udc80")


async def test_a_command_is_pending_until_it_is_acknowledged(store: DatabaseStore) -> None:
    first = await store.queue_command("web1", "reload", "root", 1)
    second = await store.queue_command("web1", "scan", "ann", 2)
    await store.queue_command("web2", "stop", "ann", 2)
    assert [each.id for each in await store.pending_commands("web1")] == [first, second]
    await store.mark_command_delivered(first, 3)
    [delivered, _] = await store.pending_commands("web1")
    assert (delivered.delivered_us, delivered.verb, delivered.user) == (3, "reload", "root")
    done = await store.acknowledge_command(first, "done", "", 4)
    assert done is not None
    assert (done.verb, done.outcome, done.acknowledged_us) == ("reload", "done", 4)
    assert [each.id for each in await store.pending_commands("web1")] == [second]


async def test_a_command_is_acknowledged_once_and_only_by_its_client(store: DatabaseStore) -> None:
    number = await store.queue_command("web1", "reload", "root", 1)
    assert await store.acknowledge_command(number, "done", "", 2, client="web2") is None
    assert await store.acknowledge_command(number, "done", "", 2, client="web1") is not None
    assert await store.acknowledge_command(number, "again", "", 3, client="web1") is None
    assert await store.acknowledge_command(number + 1, "done", "", 3) is None
    assert await store.acknowledge_command(2**64 - 1, "done", "", 3) is None


async def test_a_command_expires(store: DatabaseStore) -> None:
    await store.queue_command("web1", "scan", "root", 1, 100)
    assert len(await store.pending_commands("web1", 99)) == 1
    assert await store.pending_commands("web1", 100) == []
    assert await store.pending_commands("web1") == []


async def test_only_so_many_commands_wait_for_a_client(store: DatabaseStore) -> None:
    for _ in range(COMMANDS_PENDING_MAX):
        await store.queue_command("web1", "scan", "root", 1)
    with pytest.raises(TooManyCommandsError):
        await store.queue_command("web1", "scan", "root", 1)
    assert await store.queue_command("web2", "scan", "root", 1)


async def test_the_latest_proposal_of_a_client_counts(store: DatabaseStore, tmp_path: Path) -> None:
    files = [tmp_path / "first", tmp_path / "second", tmp_path / "other"]
    for file in files:
        file.write_bytes(b"x")
    first = await store.add_proposal("web1", str(files[0]), 1, b"a" * 32, 10)
    second = await store.add_proposal("web1", str(files[1]), 1, b"b" * 32, 20)
    other = await store.add_proposal("web2", str(files[2]), 1, b"c" * 32, 30)
    assert [file.exists() for file in files] == [False, True, True]
    assert [each.id for each in await store.proposals()] == [second, other]
    assert [each.id for each in await store.proposals("web1")] == [second]
    assert await store.proposal(first) is None
    assert await store.remove_proposal(second) is True
    assert await store.remove_proposal(second) is False
    assert not files[1].exists()
    # A number that was told to somebody never means another proposal.
    assert await store.add_proposal("web1", str(files[0]), 1, b"a" * 32, 40) > other


async def test_a_secret_is_made_once(place: StorePlace) -> None:
    store = place.open(random_bytes=lambda count: b"\7" * count)
    assert await store.secret("fake-salt-key") == b"\7" * 32
    store.close()
    store = place.open(random_bytes=lambda count: b"\1" * count)
    assert await store.secret("fake-salt-key") == b"\7" * 32
    assert await store.secret("another") == b"\1" * 32
    store.close()


async def test_what_changes_is_told_once_with_what_was_known(store: DatabaseStore) -> None:
    asked: list[str | None] = []

    def tell(before: str | None) -> list[Told]:
        asked.append(before)
        return [] if before is None else [(event("SOFTWARE_CHANGED", version_old=before), None)]

    assert await store.remember("agent web1", "1", tell) == []
    assert await store.remember("agent web1", "1", tell) == []
    together = [store.remember("agent web1", "2", tell) for _ in range(3)]
    told = [each for events in await asyncio.gather(*together) for each in events]
    assert asked == [None, "1"]
    assert [each.fields["version_old"] for each in told] == ["1"]
    stored = await store.query_events(EventQuery(code="SOFTWARE_CHANGED"))
    assert [each.id for _, each in stored] == [each.id for each in told]
    assert await store.remember("agent web2", "2", tell) == []
    await store.remember("agent_web3", "3", tell)
    assert await store.all_known("agent ") == {"web1": "2", "web2": "2"}
    assert await store.all_known("agent_") == {"web3": "3"}, "no character stands for others"


async def test_what_could_not_be_told_is_told_the_next_time(store: DatabaseStore) -> None:
    await store.remember("software", "1", lambda _: [])

    def fails(_: str | None) -> list[Told]:
        raise StorageError("no room")

    with pytest.raises(StorageError):
        await store.remember("software", "2", fails)
    told = await store.remember(
        "software", "2", lambda before: [(event("SOFTWARE_CHANGED", version_old=before), None)]
    )
    assert [each.fields["version_old"] for each in told] == ["1"]
