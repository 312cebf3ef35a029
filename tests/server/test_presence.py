"""Who is connected where: what servers on one store tell each other, and when that counts no more."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from needfire_server.presence import PRESENT_LIMIT_S, Presence
from needfire_server.storage.base import ClientConnection
from needfire_server.storage.store import DatabaseStore
from needfire_testkit.postgres import PostgresServer
from needfire_testkit.stores import StorePlace

LIMIT_US = PRESENT_LIMIT_S * 1_000_000


@dataclass
class Server:
    """One of the servers; its clock is the test's."""

    store: DatabaseStore
    name: str
    clock: list[int]
    connected: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.presence = Presence(
            self.store,
            self.name,
            lambda: self.connected,
            clock_us=lambda: self.clock[0],
            steady_s=lambda: self.clock[0] / 1_000_000,
        )


@pytest.fixture
async def servers(tmp_path: Path, postgres: PostgresServer) -> AsyncIterator[list[Server]]:
    url, clock = postgres.emptied_database(), [LIMIT_US * 100]
    for name in ("log1", "log2"):
        (tmp_path / name).mkdir(mode=0o700)
    place = StorePlace(tmp_path, postgres, url)
    found = [Server(place.open(directory=tmp_path / n), n, clock) for n in ("log1", "log2")]
    yield found
    for each in found:
        each.store.close()


async def test_each_server_knows_who_is_connected_to_the_others(servers: list[Server]) -> None:
    first, second = servers
    first.connected, second.connected = {"web1": "10.0.0.1"}, {"web2": "10.0.0.2"}
    for each in servers:
        await each.presence.tell()
    both = {
        "web1": ClientConnection("log1", "10.0.0.1"),
        "web2": ClientConnection("log2", "10.0.0.2"),
    }
    assert [await each.presence.everywhere() for each in servers] == [both, both]
    second.connected = {"web3": "10.0.0.3"}
    await second.presence.tell()
    assert (await first.presence.everywhere()).keys() == {"web1", "web3"}


async def test_a_client_that_comes_here_is_here_whatever_its_last_server_told(
    servers: list[Server],
) -> None:
    first, second = servers
    first.connected = {"web1": "10.0.0.1"}
    await first.presence.tell()
    second.connected = {"web1": "10.0.0.9"}
    assert (await second.presence.everywhere())["web1"] == ClientConnection("log2", "10.0.0.9")


@pytest.mark.parametrize(("silent_us", "is_there"), [(LIMIT_US, True), (LIMIT_US + 1, False)])
async def test_the_clients_of_a_killed_server_do_not_stay_for_ever(
    servers: list[Server], silent_us: int, is_there: bool
) -> None:
    first, second = servers
    first.connected = {"web1": "10.0.0.1"}
    await first.presence.tell()
    first.clock[0] += silent_us
    assert ("web1" in await second.presence.everywhere()) is is_there
    # What no longer counts is removed; a server that was only suspended tells all again.
    await second.presence.tell()
    await first.presence.tell()
    assert "web1" in await second.presence.everywhere()


async def test_a_server_that_ends_takes_its_clients_along(servers: list[Server]) -> None:
    first, second = servers
    first.connected = {"web1": "10.0.0.1"}
    await first.presence.tell()
    await first.presence.leave()
    assert await second.presence.everywhere() == {}
