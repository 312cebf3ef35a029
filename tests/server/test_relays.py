"""What a server takes from a relay: only below its name, once, from no circle; and from nobody else."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from needfire_protocol.connection_events import Refused
from needfire_protocol.event import Event, make_event
from needfire_protocol.limits import RELAYS_MAX
from needfire_protocol.messages import RELAYED_REPORT, Acknowledge, RefusalCode, ReportBatch
from needfire_protocol.relayed import Relayed, encode_relayed
from needfire_server import fleet
from needfire_server.states import ClientState, ClientStatus, told_by_relay
from needfire_testkit.live_server import NAME, LiveServer, Peer, event_body, live_server

HALL = b"h" * 16
CELLAR = b"c" * 16
OURS = bytes(range(16))
"""The identity of the server in the tests."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LiveServer]:
    async with live_server(tmp_path / "data", relay_clients=(NAME,)) as live:
        yield live


async def relay(server: LiveServer) -> Peer:
    return await server.log_in(mode="relay", instance=HALL)


def event(number: int = 0, code: str = "WAKEUP", **fields: Any) -> Event:
    random = number.to_bytes(10, "big")
    return make_event(code, time_us=1_700_000_000_000_000, random_10_bytes=random, **fields)


def body(*names: str, path: tuple[bytes, ...] = (HALL,), of: Event | None = None) -> bytes:
    return encode_relayed(Relayed(names, path, of or event()))


def batch(peer: Peer, reports: dict[int, bytes]) -> ReportBatch:
    return ReportBatch(
        peer.stream,
        tuple(peer.report(number, each, RELAYED_REPORT) for number, each in reports.items()),
    )


async def test_a_relayed_report_is_stored_as_it_was_below_the_relays_name(
    server: LiveServer,
) -> None:
    peer = await relay(server)
    sent = event(1, "POLICY_ADDED", path="/etc/x")
    await peer.send(batch(peer, {900: body("web1", of=sent)}))
    assert await peer.next_message() == Acknowledge(peer.stream, 900)
    [stored] = await server.stored(client=f"{NAME}/web1")
    assert (stored.id, stored.time_us, stored.fields) == (sent.id, sent.time_us, sent.fields)
    assert stored.client == f"{NAME}/web1"
    state = server.runtime.fleet.state(f"{NAME}/web1")
    assert state.status is ClientStatus.POLICY
    assert server.runtime.fleet.state("web1").status is ClientStatus.INACTIVE


async def test_numbers_that_a_relay_leaves_out_are_no_loss_and_none_counts_twice(
    server: LiveServer,
) -> None:
    peer = await relay(server)
    for number in (5, 9, 9, 5):
        await peer.send(batch(peer, {number: body("web1", of=event(number))}))
        assert await peer.next_message() == Acknowledge(peer.stream, number)
    assert len(await server.stored(client=f"{NAME}/web1")) == 2
    assert await server.runtime.store.missing_reports() == 0
    assert "SEQUENCE_GAP" not in server.codes()


async def test_other_events_under_the_same_numbers_are_told_and_not_taken_for_copies(
    server: LiveServer,
) -> None:
    peer = await relay(server)
    await peer.send(batch(peer, {5: body("web1", of=event(5)), 6: body("web1", of=event(6))}))
    await peer.next_message()
    await peer.send(batch(peer, {5: body("web1", of=event(5)), 6: body("web2", of=event(66))}))
    assert [await peer.next_message(), await peer.next_message()] == [
        Acknowledge(peer.stream, 5),
        Acknowledge(peer.stream, 2**63 - 1),
    ]
    await server.until_said("AGENT_RESTORED")


@pytest.mark.parametrize(
    ("mode", "allowed"), [("run", (NAME,)), ("relay", ()), ("run", ()), ("relay", ("another",))]
)
async def test_who_is_no_relay_cannot_speak_for_others(
    server: LiveServer, mode: str, allowed: tuple[str, ...]
) -> None:
    """Goal: neither an agent's password nor the mode alone is enough."""
    peer = await relay(server) if mode == "relay" else await server.log_in(mode="run")
    server.configure(relay_clients=allowed)
    await peer.send(batch(peer, {1: body("web1")}))
    refused = await peer.next_event()
    assert isinstance(refused, Refused)
    assert refused.code is RefusalCode.ACCESS
    assert (await server.until_said("RELAY_REFUSED")).fields["client"] == NAME
    assert not await server.stored(client=f"{NAME}/web1")
    assert not await server.stored(client="web1")


async def test_who_is_no_relay_is_refused_as_soon_as_it_says_that_it_is_one(
    server: LiveServer,
) -> None:
    server.configure(relay_clients=())
    with pytest.raises(AssertionError, match="no relay here"):
        await relay(server)
    with pytest.raises(AssertionError, match="no relay here"):
        await relay(server)
    assert server.codes().count("RELAY_REFUSED") == 1, "once an hour"


async def test_reports_that_were_here_before_are_acknowledged_and_not_stored(
    server: LiveServer,
) -> None:
    peer = await relay(server)
    round_trip = (OURS, HALL)
    for number in (3, 4):
        await peer.send(batch(peer, {number: body("us", "web1", path=(CELLAR, *round_trip))}))
        assert await peer.next_message() == Acknowledge(peer.stream, number)
    told = await server.until_said("RELAYED_REPORTS_REFUSED")
    assert "been here before" in str(told.fields["reason"])
    assert server.codes().count("RELAYED_REPORTS_REFUSED") == 1
    assert not await server.stored(client=f"{NAME}/us/web1")


@pytest.mark.parametrize("passed", [RELAYS_MAX - 1, RELAYS_MAX, RELAYS_MAX + 1])
async def test_a_report_may_pass_so_many_relays_and_no_more(
    server: LiveServer, passed: int
) -> None:
    peer = await relay(server)
    path = (*(bytes([number]) * 16 for number in range(1, passed)), HALL)
    names = tuple(f"n{number}" for number in range(passed))
    await peer.send(batch(peer, {1: body(*names, path=path)}))
    assert await peer.next_message() == Acknowledge(peer.stream, 1)
    stored = await server.stored(client="/".join((NAME, *names)))
    assert len(stored) == (passed <= RELAYS_MAX)
    if not stored:
        assert "more than" in str((await server.until_said("RELAYED_REPORTS_REFUSED")).fields)


async def test_a_relay_that_lies_about_itself_or_its_form_is_kept_raw(server: LiveServer) -> None:
    peer = await relay(server)
    await peer.send(batch(peer, {1: body("web1", path=(CELLAR,)), 2: b"\xc1", 3: body("web1")}))
    assert await peer.next_message() == Acknowledge(peer.stream, 3)
    assert (await server.until_said("REPORT_UNUSABLE")).fields["count"] == 2
    assert len(await server.stored(client=f"{NAME}/web1")) == 1


async def test_the_servers_on_the_way_are_known_after_a_crash(server: LiveServer) -> None:
    """Goal: a circle is found by their identities also after a restart in the middle."""
    peer = await relay(server)
    await peer.send(batch(peer, {1: body("cellar", "web1", path=(CELLAR, HALL))}))
    await peer.next_message()
    states = await server.runtime.store.load_client_states()
    assert states[f"{NAME}/cellar"].instance == CELLAR
    assert states[NAME].instance == HALL


async def test_what_a_relay_says_of_its_clients_is_their_state_here(server: LiveServer) -> None:
    peer = await relay(server)
    silent = event(1, "TIME_EXCEEDED", client="web1", limit_s=1, last=None)
    await peer.send(batch(peer, {1: body("web1"), 2: body(of=silent)}))
    await peer.next_message()
    state = server.runtime.fleet.state(f"{NAME}/web1")
    assert (state.status, state.is_overdue) == (ClientStatus.TIMEOUT_EXCEEDED, True)
    back = event(2, "CLIENT_RETURNED", client="web1")
    await peer.send(batch(peer, {3: body(of=back)}))
    await peer.next_message()
    assert not server.runtime.fleet.state(f"{NAME}/web1").is_overdue
    assert "CLIENT_RETURNED" not in server.codes(), "the relay said it already"


async def test_a_client_behind_a_relay_cannot_speak_of_others(server: LiveServer) -> None:
    peer = await relay(server)
    lie = event(1, "TIME_EXCEEDED", client="web2", limit_s=1, last=None)
    await peer.send(batch(peer, {1: body("web1", of=lie)}))
    await peer.next_message()
    assert set(server.runtime.fleet.states()) == {NAME, f"{NAME}/web1"}


async def test_the_silence_of_those_behind_a_relay_is_the_relays_to_tell(
    server: LiveServer,
) -> None:
    peer = await relay(server)
    await peer.send(batch(peer, {1: body("web1")}))
    await peer.next_message()
    runtime = server.runtime
    await runtime.fleet.sweep(runtime.registry.names(), limit_s=-1)
    told = [each.fields["client"] for each in server.said if each.code == "TIME_EXCEEDED"]
    assert told == [NAME]


@pytest.mark.parametrize("beyond", [0, 1])
async def test_the_states_of_a_relays_clients_are_bounded_and_their_reports_are_not(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, beyond: int
) -> None:
    monkeypatch.setattr(fleet, "BEHIND_RELAY_MAX", 3)
    peer = await relay(server)
    count = 3 + beyond
    await peer.send(batch(peer, {n: body(f"w{n}", of=event(n)) for n in range(1, count + 1)}))
    await peer.next_message()
    behind = server.runtime.fleet.behind_relays([NAME])
    assert behind == [f"{NAME}/w{number}" for number in (1, 2, 3)]
    assert len([e for e in await server.stored(code="WAKEUP") if e.client != NAME]) == count
    assert server.codes().count("RELAYED_CLIENTS_TOO_MANY") == beyond


async def test_relayed_reports_stand_in_the_relays_own_log_file(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    async with live_server(directory, relay_clients=(NAME,), use_separate_logs=True) as server:
        peer = await relay(server)
        await peer.send(batch(peer, {1: body("web1.example.org"), 2: body("..x") or b""}))
        await peer.next_message()
        assert f"{NAME}/web1" in (directory / f"log.{NAME}").read_text()
    names = sorted(path.name for path in directory.rglob("log*"))
    assert names == ["log", f"log.{NAME}"]


async def test_a_relay_may_report_for_itself_as_any_client(server: LiveServer) -> None:
    peer = await relay(server)
    await peer.send(peer.batch(1, event_body("START", program="x")))
    assert await peer.next_message() == Acknowledge(peer.stream, 1)
    assert [each.client for each in await server.stored(code="START")] == [NAME]


def test_what_says_nothing_about_a_client_changes_nothing() -> None:
    state = ClientState("hall/web1")
    assert told_by_relay(state, "WAKEUP", 1) is state
