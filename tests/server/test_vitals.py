"""Silence without a goodbye, clocks, clones: what the server says of its agents, with a clock of the test."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from needfire_protocol.messages import Announce, Heartbeat
from needfire_server.states import ClientStatus
from needfire_server.vitals import Vitals, Voice
from needfire_testkit.live_server import NAME, LiveServer, live_server

S = 1_000_000
EPOCH_US = 1_800_000_000 * S


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.wall_ahead_s = 0

    def steady_s(self) -> float:
        return self.now_s

    def us(self) -> int:
        return EPOCH_US + int((self.now_s + self.wall_ahead_s) * S)


class World:
    """A server's knowledge of one client, and the time."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self.clock = Clock()
        self.fleet = server.runtime.fleet
        self.vitals = self.restarted()

    def restarted(self) -> Vitals:
        self.vitals = Vitals(
            self.server.runtime.journal,
            self.fleet,
            clock_us=self.clock.us,
            steady_s=self.clock.steady_s,
        )
        return self.vitals

    async def connect(self, instance: bytes = b"i" * 16, boot: str = "boot") -> Voice:
        announce = Announce(instance, boot, 1, "0", "run", False)
        voice = self.vitals.announced(NAME, announce, "192.0.2.1")
        self.vitals.opened(voice, announce)
        await self.fleet.started(NAME, instance, "192.0.2.1", prior_exit_pending=False)
        return voice

    def beat(self, voice: Voice, offset_s: int = 0) -> None:
        self.vitals.heard(voice)
        self.vitals.beat(voice, Heartbeat(self.clock.us() + offset_s * S, 0, None), 60)

    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds
        self.vitals.look_at_own_clock(60)
        self.vitals.sweep([NAME], 180)

    def said(self, code: str) -> int:
        return self.server.codes().count(code)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with live_server(tmp_path / "data") as server:
        yield World(server)


@pytest.mark.parametrize(("seconds", "count"), [(179, 0), (180, 0), (181, 1)])
async def test_an_agent_that_is_gone_without_a_goodbye_is_reported_after_the_limit(
    world: World, seconds: int, count: int
) -> None:
    voice = await world.connect()
    world.vitals.closed(voice)
    world.wait(seconds)
    assert world.said("STOPPED_WITHOUT_GOODBYE") == count


async def test_it_is_reported_once_and_its_return_too(world: World) -> None:
    world.vitals.closed(await world.connect())
    world.wait(200)
    world.wait(200)
    await world.connect()
    assert world.said("STOPPED_WITHOUT_GOODBYE") == 1
    assert world.said("CLIENT_RETURNED") == 1


@pytest.mark.parametrize("status", [ClientStatus.EXITED, ClientStatus.SUSPENDED])
async def test_who_said_goodbye_may_be_silent(world: World, status: ClientStatus) -> None:
    voice = await world.connect()
    await world.fleet.note(NAME, status)
    world.vitals.closed(voice)
    world.wait(10_000)
    assert not world.said("STOPPED_WITHOUT_GOODBYE")


async def test_an_open_connection_without_heartbeats_is_silence_too(world: World) -> None:
    voice = await world.connect()
    for _ in range(3):
        world.beat(voice)
        world.wait(60)
    world.wait(121)
    assert world.said("STOPPED_WITHOUT_GOODBYE") == 1
    assert world.server.said[-1].fields["connection"] == "open"


async def test_an_agent_with_rare_heartbeats_has_time_for_three_of_them(world: World) -> None:
    voice = await world.connect()
    for _ in range(3):
        world.beat(voice)
        world.wait(600)
    world.wait(1_200)
    assert not world.said("STOPPED_WITHOUT_GOODBYE")
    world.wait(1)
    assert world.said("STOPPED_WITHOUT_GOODBYE") == 1


async def test_silence_is_measured_from_the_start_of_the_server(world: World) -> None:
    world.vitals.closed(await world.connect())
    world.clock.now_s += 10_000
    world.restarted()
    world.wait(180)
    assert not world.said("STOPPED_WITHOUT_GOODBYE")
    world.wait(1)
    assert world.said("STOPPED_WITHOUT_GOODBYE") == 1


@pytest.mark.parametrize("status", [ClientStatus.MESSAGE, ClientStatus.EXITED])
async def test_an_agent_that_moved_to_another_server_is_not_missed_here(
    world: World, status: ClientStatus
) -> None:
    world.vitals.closed(await world.connect())
    world.clock.now_s += 200
    assert world.vitals.silent([NAME], 180) == [NAME]
    elsewhere = replace(
        world.fleet.state(NAME), status=status, last_seen_us=world.clock.us() - 10 * S
    )
    world.vitals.heard_elsewhere(world.fleet.adopt([elsewhere]))
    world.wait(0)
    assert not world.said("STOPPED_WITHOUT_GOODBYE")
    world.wait(171)
    assert world.said("STOPPED_WITHOUT_GOODBYE") == (status is ClientStatus.MESSAGE)


async def test_a_limit_of_zero_reports_no_silence(world: World) -> None:
    world.vitals.closed(await world.connect())
    world.clock.now_s += 10_000
    world.vitals.sweep([NAME], 0)
    assert not world.said("STOPPED_WITHOUT_GOODBYE")


async def test_a_clock_that_was_moved_is_reported(world: World) -> None:
    voice = await world.connect()
    for offset_s in (0, 0, -3600, -3600, -3600):
        world.beat(voice, offset_s)
        world.wait(60)
    moved = next(event for event in world.server.said if event.code == "CLOCK_MOVED")
    assert moved.fields["seconds"] == -3600
    assert world.said("CLOCK_MOVED") == 1
    assert world.said("CLOCK_DIFFERS") == 1
    assert not world.said("CLOCK_AGREES")
    for _ in range(3):
        world.beat(voice, 0)
        world.wait(60)
    assert world.said("CLOCK_AGREES") == 1
    assert not world.said("SERVER_CLOCK_MOVED")


async def test_a_move_of_the_servers_own_clock_is_not_blamed_on_its_agents(world: World) -> None:
    voice = await world.connect()
    for ahead_s in (0, 0, 86_400, 86_400, 86_400):
        world.clock.wall_ahead_s = ahead_s
        # The host's clock goes on as before.
        world.beat(voice, -ahead_s)
        world.wait(60)
    moved = next(event for event in world.server.said if event.code == "SERVER_CLOCK_MOVED")
    assert moved.fields["seconds"] == 86_400
    assert world.said("SERVER_CLOCK_MOVED") == 1
    assert not world.said("CLOCK_MOVED")


async def test_a_clone_is_reported_with_both_boots_and_addresses(world: World) -> None:
    await world.connect(b"a" * 16, "boot-1")
    world.wait(60)
    held = await world.connect(b"b" * 16, "boot-2")
    world.wait(60)
    world.vitals.announced(NAME, Announce(b"a" * 16, "boot-1", 1, "0", "run", False), "192.0.2.9")
    world.wait(60)
    world.beat(held)
    clone = next(event for event in world.server.said if event.code == "CLONE_DETECTED")
    assert clone.severity.word == "crit"
    assert {clone.fields["boot_id"], clone.fields["other_boot_id"]} == {"boot-1", "boot-2"}
    assert {clone.fields["address"], clone.fields["other_address"]} == {"192.0.2.1", "192.0.2.9"}


async def test_a_heartbeat_ends_what_was_told_of_a_dead_client(world: World) -> None:
    await world.connect()
    await world.fleet.sweep([NAME], -1)
    assert world.fleet.state(NAME).status is ClientStatus.TIMEOUT_EXCEEDED
    world.fleet.heard(NAME)
    assert world.fleet.state(NAME).status is ClientStatus.MESSAGE
    assert world.said("CLIENT_RETURNED") == 1


async def test_a_clock_that_moves_all_the_time_is_told_of_a_few_times_and_then_summed_up(
    world: World,
) -> None:
    """Each pair of heartbeats with another time is a move: an agent can say so as fast as it likes."""
    voice = await world.connect()
    for number in range(200):
        for _ in range(2):
            world.beat(voice, number * 1_000_000)
    told = world.said("CLOCK_MOVED") + world.said("CLOCK_DIFFERS")
    assert told == 10
    world.clock.now_s += 600
    world.vitals.tell_unsteady_clocks()
    assert world.said("CLOCK_UNSTEADY") == 1
    last = world.server.said[-1]
    assert isinstance(last.fields["count"], int)
    assert last.fields["count"] >= 189
    world.vitals.tell_unsteady_clocks()
    assert world.said("CLOCK_UNSTEADY") == 1


async def test_a_difference_that_was_held_back_is_told_once_it_may_be(world: World) -> None:
    voice = await world.connect()
    for number in range(40):
        for _ in range(2):
            world.beat(voice, (number % 2) * 1_000_000)
    assert world.said("CLOCK_AGREES") == world.said("CLOCK_DIFFERS")
    before = world.said("CLOCK_DIFFERS")
    for _ in range(3):
        world.beat(voice, 1_000_000)
    assert world.said("CLOCK_DIFFERS") == before
    world.clock.now_s += 3_600
    world.beat(voice, 1_000_000)
    assert world.said("CLOCK_DIFFERS") == before + 1
    world.beat(voice)
    assert world.said("CLOCK_AGREES") == before + 1


async def test_what_an_agent_has_shown_to_another_server_is_not_missed_here(world: World) -> None:
    voice = await world.connect()
    world.vitals.exit_claimed(voice, "192.0.2.1:1", None)
    world.vitals.closed(voice)
    state = world.fleet.state(NAME)
    world.vitals.heard_elsewhere([state.heard_from("192.0.2.1", world.clock.us())])
    world.beat(await world.connect())
    assert world.said("PRIOR_EXIT_NOT_SHOWN") == 0
    # Of a claim that came after it nothing is known.
    world.vitals.exit_claimed(voice, "192.0.2.1:1", None)
    world.beat(voice)
    assert world.said("PRIOR_EXIT_NOT_SHOWN") == 1
