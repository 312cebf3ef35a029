"""An agent that was set back to an earlier state loses nothing, and it is told."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from needfire_protocol.messages import Acknowledge
from needfire_testkit.live_server import NAME, LiveServer, event_body, live_server

NEVER_GIVEN = 2**63 - 1


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LiveServer]:
    async with live_server(tmp_path / "data") as live:
        yield live


async def test_new_reports_under_old_numbers_are_sent_to_a_new_stream(server: LiveServer) -> None:
    peer = await server.log_in(boot_id="boot-7")
    first, second = event_body(), event_body()
    await peer.send(peer.batch(1, first, second, event_body()))
    assert await peer.next_message() == Acknowledge(peer.stream, 3)
    # Set back to after number 1: number 2 comes as it was, number 3 is another report.
    await peer.send(peer.batch(2, second, event_body("SUSPEND", program="x")))
    assert await peer.next_message() == Acknowledge(peer.stream, 2)
    assert await peer.next_message() == Acknowledge(peer.stream, NEVER_GIVEN)
    event = await server.until_said("AGENT_RESTORED")
    assert (event.fields["sequence"], event.fields["boot_id"]) == (3, "boot-7")
    assert len(await server.stored(client=NAME)) >= 3


async def test_a_restore_is_told_once_for_all_batches_on_their_way(server: LiveServer) -> None:
    peer = await server.log_in()
    await peer.send(peer.batch(1, event_body(), event_body()))
    await peer.next_message()
    for number in (1, 2, 1):
        await peer.send(peer.batch(number, event_body()))
        assert await peer.next_message() == Acknowledge(peer.stream, NEVER_GIVEN)
    assert server.codes().count("AGENT_RESTORED") == 1
    assert "CLONE_DETECTED" not in server.codes()


async def test_reports_that_come_again_as_they_were_are_copies(server: LiveServer) -> None:
    peer = await server.log_in()
    bodies = [event_body() for _ in range(5)]
    await peer.send(peer.batch(1, *bodies))
    await peer.next_message()
    await peer.send(peer.batch(3, *bodies[2:], event_body()))
    assert await peer.next_message() == Acknowledge(peer.stream, 6)
    assert "AGENT_RESTORED" not in server.codes()
    assert await server.runtime.store.missing_reports() == 0


async def test_what_is_missing_is_counted_until_it_comes(server: LiveServer) -> None:
    peer = await server.log_in()
    await peer.send(peer.batch(1, event_body()), peer.batch(5, event_body()))
    await peer.next_message()
    await peer.next_message()
    assert await server.runtime.store.missing_reports() == 3
    await peer.send(peer.batch(3, event_body()))
    await peer.next_message()
    assert await server.runtime.store.missing_reports() == 2


async def test_gaps_of_a_hostile_client_can_still_be_counted(server: LiveServer) -> None:
    for _ in range(2):
        peer = await server.log_in()
        await peer.send(peer.batch(2**63 - 1, event_body()))
        await peer.next_message()
    assert await server.runtime.store.missing_reports() > 2**63
