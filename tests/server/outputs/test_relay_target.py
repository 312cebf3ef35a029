"""An output to another server: a real worker and a real listener, with all that can go wrong between."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from needfire_protocol.event import Event, FieldValue, make_event
from needfire_server.outputs.engine import OutputEngine
from needfire_server.outputs.relay_origin import RelayOrigin
from needfire_server.outputs.settings import OutputSettings, RelaySettings, TargetKind
from needfire_server.outputs.targets import make_target, relay
from needfire_server.states import ClientState
from needfire_server.storage.output_cursors import OutputCursor
from needfire_testkit.live_server import NAME, PASSWORD, LiveServer, live_server
from needfire_testkit.output_doubles import MemoryStore
from needfire_testkit.server import until

OWN = b"o" * 16


@dataclass
class Secrets:
    """What an origin asks of the store."""

    known: dict[str, bytes] = field(default_factory=dict)
    states: dict[str, ClientState] = field(default_factory=dict)

    async def secret(self, name: str) -> bytes:
        return self.known.setdefault(name, os.urandom(32))

    async def renew_secret(self, name: str) -> bytes:
        self.known[name] = os.urandom(32)
        return self.known[name]

    async def load_client_states(self) -> dict[str, ClientState]:
        return self.states


@dataclass
class States:
    """What this process knows of clients."""

    states: dict[str, ClientState] = field(default_factory=dict)

    def state(self, client: str) -> ClientState:
        return self.states.get(client) or ClientState(client)


@pytest.fixture
async def upper(tmp_path: Path) -> AsyncIterator[LiveServer]:
    async with live_server(tmp_path / "data", relay_clients=(NAME,)) as live:
        yield live


def settings_for(upper: LiveServer, *before: str, password: str = PASSWORD) -> OutputSettings:
    addresses = (*before, f"127.0.0.1:{upper.port}")
    return OutputSettings(
        name="up",
        kind=TargetKind.RELAY,
        where=",".join(addresses),
        addresses=addresses,
        time_limit_s=10,
        relay=RelaySettings(name=NAME, password=password),
    )


@asynccontextmanager
async def relaying(
    store: MemoryStore, settings: OutputSettings, secrets: Secrets | None = None
) -> AsyncIterator[list[Event]]:
    """Run an engine with the output, from the beginning of the store; yield what it raised."""
    raised: list[Event] = []

    def raise_event(code: str, /, **fields: FieldValue) -> None:
        raised.append(make_event(code, time_us=1, random_10_bytes=bytes(10), **fields))

    store.saved.setdefault("up", OutputCursor("up", 0, 0))
    origin = RelayOrigin(OWN, secrets or Secrets(), States(), lambda: ())

    engine = OutputEngine(
        store,
        raise_event=raise_event,
        make_target=lambda each, on_lost: make_target(each, on_lost, origin=origin),
    )
    await engine.begin([settings])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(engine.run())
        try:
            yield raised
        finally:
            await engine.stop()
            task.cancel()


def event(number: int, client: str | None = "web1", **fields: FieldValue) -> Event:
    made = make_event("WAKEUP", time_us=number, random_10_bytes=os.urandom(10), **fields)
    return made if client is None else made.received(client, number)


def filled(count: int) -> MemoryStore:
    store = MemoryStore()
    store.add(*(event(number) for number in range(1, count + 1)))
    return store


async def got(upper: LiveServer) -> list[str]:
    return [each.id for each in await upper.stored(client=f"{NAME}/web1")]


def sent_all(store: MemoryStore) -> bool:
    return store.saved["up"].confirmed == max(store.events)


async def test_what_the_store_has_arrives_once_and_the_end_is_a_goodbye(upper: LiveServer) -> None:
    store, secrets = filled(450), Secrets()
    async with relaying(store, settings_for(upper), secrets):
        await until(lambda: sent_all(store), "all of it")
    store.saved["up"] = OutputCursor("up", 0, 0)
    async with relaying(store, settings_for(upper), secrets) as raised:
        await until(lambda: sent_all(store), "all of it again")
    assert await got(upper) == [each.id for each in store.events.values()]
    assert upper.runtime.fleet.state(NAME).status.value == "Exited"
    assert not raised
    assert "AGENT_RESTORED" not in upper.codes()


async def test_a_relay_without_anything_to_say_is_connected_and_returns_when_it_was_cut_off(
    upper: LiveServer,
) -> None:
    async with relaying(MemoryStore(), settings_for(upper)) as raised:
        await upper.until_connected()
        upper.listener.drop(NAME)
        await until(lambda: "OUTPUT_FAILED" in [each.code for each in raised], "the loss")
        await until(lambda: "OUTPUT_RECOVERED" in [each.code for each in raised], "the return")


async def test_after_the_store_was_set_back_everything_arrives_under_new_numbers(
    upper: LiveServer,
) -> None:
    secrets, first, second = Secrets(), filled(3), filled(5)
    second.events[1] = first.events[1]
    async with relaying(first, settings_for(upper), secrets):
        await until(lambda: sent_all(first), "the first history")
    async with relaying(second, settings_for(upper), secrets) as raised:
        await until(lambda: sent_all(second), "the second history")
    assert set(await got(upper)) == {
        e.id for e in (*first.events.values(), *second.events.values())
    }
    assert (await got(upper)).count(first.events[1].id) == 1
    assert "under the same numbers" in str(raised[0].fields["reason"])


async def test_an_event_that_is_too_large_or_odd_holds_up_nothing(upper: LiveServer) -> None:
    store = MemoryStore()
    store.add(
        event(1, **{f"field{number}": "x" * 20_000 for number in range(5)}),
        replace(event(2), fields={"text": "half a pair: \udc80"}),
        event(3),
    )
    async with relaying(store, settings_for(upper)):
        await until(lambda: sent_all(store), "all three")
    large, odd, last = await upper.stored(client=f"{NAME}/web1")
    assert large.fields["shortened"] is True
    assert odd.fields == {"shortened": True}
    assert [large.id, odd.id, last.id] == [each.id for each in store.events.values()]


async def test_a_wrong_password_is_told_and_nothing_is_lost(upper: LiveServer) -> None:
    store = filled(2)
    async with relaying(store, settings_for(upper, password="another one")) as raised:
        await until(lambda: bool(raised), "the failure")
    assert raised[0].code == "OUTPUT_FAILED"
    assert "name or password is wrong" in str(raised[0].fields["reason"])
    assert store.saved["up"].confirmed == 0


async def test_the_next_address_is_tried_where_one_is_away(upper: LiveServer) -> None:
    store = filled(1)
    async with relaying(store, settings_for(upper, "127.0.0.1:1")) as raised:
        await until(lambda: sent_all(store), "it")
    assert not raised


async def test_the_session_is_renewed_before_its_key_is_too_old(
    upper: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "HEARTBEAT_S", 0.01)
    upper.configure(session_key_lifetime_s=2)

    def key() -> bytes:
        session = upper.runtime.sessions.current(NAME)
        return b"" if session is None else session.keys.session_id

    store = MemoryStore()
    async with relaying(store, settings_for(upper)) as raised:
        await upper.until_connected()
        first = key()
        await until(lambda: key() not in (b"", first), "another key")
    assert not raised
    assert "FORCE_AUTHENTICATION" not in upper.codes()


async def test_a_command_for_a_relay_is_answered_and_not_obeyed(upper: LiveServer) -> None:
    await upper.runtime.store.queue_command(NAME, "stop", "root", 1)
    async with relaying(MemoryStore(), settings_for(upper)):
        await upper.until_connected()
        upper.listener.wake(NAME)
        told = await upper.until_said("COMMAND_ACKNOWLEDGED")
    assert told.fields["outcome"] == "failed"
    assert "takes no commands" in str(told.fields["detail"])


async def test_a_test_of_the_output_logs_in_and_leaves_the_session_alone(upper: LiveServer) -> None:
    store = MemoryStore()
    origin = RelayOrigin(OWN, Secrets(), States(), lambda: ())
    engine = OutputEngine(
        store,
        raise_event=lambda _code, /, **_fields: None,
        make_target=lambda each, on_lost: make_target(each, on_lost, origin=origin),
    )
    await engine.begin([settings_for(upper)])
    result = await engine.send_now("up", event(1))
    assert result is not None
    assert (result.reason, result.is_certain) == ("", False)
    assert upper.runtime.sessions.current(NAME) is None
    await engine.begin([settings_for(upper, password="wrong")])
    result = await engine.send_now("up", event(1))
    assert result is not None
    assert "password" in result.reason


async def test_the_way_of_an_event_is_known_by_the_servers_that_had_it() -> None:
    hall, cellar = b"h" * 16, b"c" * 16
    known = {"hall": ClientState("hall", instance=hall), "web1": ClientState("web1", instance=OWN)}
    states = {"hall/cellar": ClientState("hall/cellar", instance=cellar)}
    origin = RelayOrigin(OWN, Secrets(states=states), States(known), lambda: ("hall",))
    assert await origin.path_of(None) == (OWN,)
    assert await origin.path_of("web1") == (OWN,), "an agent is no relay"
    assert await origin.path_of("hall") == (hall, OWN), "an event of the relay's own"
    assert await origin.path_of("hall/web1") == (hall, OWN)
    assert await origin.path_of("hall/cellar/web1") == (cellar, hall, OWN), "as the store knows"
    assert await origin.path_of("hall/attic/web1") == (bytes(16), hall, OWN), "unknown, yet counted"


async def test_a_stream_stays_the_same_until_its_numbers_are_worth_nothing() -> None:
    origin = RelayOrigin(OWN, Secrets(), States(), lambda: ())
    first = await origin.stream("up")
    assert (await origin.stream("up"), len(first)) == (first, 16)
    assert await origin.stream("other") != first
    await origin.new_stream("up")
    assert await origin.stream("up") != first
