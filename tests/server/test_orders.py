"""Commands end: answered, settled by a goodbye, cancelled or expired; each end is an event."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from needfire_protocol.errors import StorageError
from needfire_protocol.messages import Command, CommandResult, Goodbye, GoodbyeAccepted
from needfire_server.clock import now_us
from needfire_server.orders import Expiry
from needfire_server.storage.base import Command as QueuedCommand
from needfire_testkit.live_server import NAME, LiveServer, live_server

HOUR_US = 3_600_000_000


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LiveServer]:
    async with live_server(tmp_path / "data") as live:
        yield live


async def queue(server: LiveServer, verb: str, expires_us: int) -> int:
    number = await server.runtime.store.queue_command(
        NAME, verb, "root", now_us(), expires_us, request="a request"
    )
    server.listener.wake(NAME)
    return number


async def test_a_command_that_nobody_answered_expires_and_it_is_told(server: LiveServer) -> None:
    runtime, moment_us = server.runtime, now_us()
    late = await queue(server, "scan", moment_us + HOUR_US)
    later = await queue(server, "reload", moment_us + 2 * HOUR_US)
    expiry = Expiry(runtime.store, runtime.journal)
    expiry.watch(NAME)
    await expiry.sweep(moment_us + HOUR_US - 1)
    assert "COMMAND_EXPIRED" not in server.codes()
    await expiry.sweep(moment_us + HOUR_US)
    event = await server.until_said("COMMAND_EXPIRED")
    assert (event.fields["command_id"], event.fields["user"]) == (late, "root")
    await expiry.sweep(moment_us + 3 * HOUR_US)
    await expiry.sweep(moment_us + 4 * HOUR_US)
    assert server.codes().count("COMMAND_EXPIRED") == 2
    assert (await server.until_said("COMMAND_EXPIRED", 2)).fields["command_id"] == later
    assert event.fields["request"] == "a request"


async def test_after_a_start_only_those_are_looked_at_for_whom_something_waits(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, moment_us = server.runtime, now_us()
    await queue(server, "scan", moment_us)
    asked, ask = [], runtime.store.pending_commands

    async def noted(client: str, now_us: int | None = None) -> list[QueuedCommand]:
        asked.append(client)
        return await ask(client, now_us)

    monkeypatch.setattr(runtime.store, "pending_commands", noted)
    expiry = Expiry(runtime.store, runtime.journal)
    for client in (NAME, *(f"web{number}.example.org" for number in range(100))):
        expiry.watch(client)
    await expiry.sweep(moment_us + 1)
    await expiry.sweep(moment_us + 2)
    await server.until_said("COMMAND_EXPIRED")
    assert asked == [NAME]


async def test_what_could_not_be_looked_at_is_looked_at_the_next_time(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, moment_us = server.runtime, now_us()
    await queue(server, "scan", moment_us)
    expiry = Expiry(runtime.store, runtime.journal)
    expiry.watch(NAME)
    with monkeypatch.context() as broken:
        broken.setattr(runtime.store, "clients_with_commands", failing)
        with pytest.raises(StorageError):
            await expiry.sweep(moment_us + 1)
    await expiry.sweep(moment_us + 1)
    await server.until_said("COMMAND_EXPIRED")


async def failing() -> set[str]:
    raise StorageError("disk I/O error")


async def test_an_answer_is_audited_with_who_asked_and_what_came_of_it(server: LiveServer) -> None:
    number = await queue(server, "reload", now_us() + HOUR_US)
    peer = await server.log_in()
    assert await peer.next_message() == Command(number, "reload")
    await peer.send(CommandResult(number, "failed", "rc:3: no such directive"))
    event = await server.until_said("COMMAND_ACKNOWLEDGED")
    assert event.fields["outcome"] == "failed"
    assert event.fields["detail"] == "rc:3: no such directive"
    assert event.fields["user"] == "root"
    assert event.fields["request"] == "a request"


async def test_a_stop_whose_answer_was_lost_does_not_stop_the_next_process(
    server: LiveServer,
) -> None:
    scan = await queue(server, "scan", now_us() + HOUR_US)
    stop = await queue(server, "stop", now_us() + HOUR_US)
    peer = await server.log_in()
    assert await peer.next_message() == Command(scan, "scan")
    assert await peer.next_message() == Command(stop, "stop")
    await peer.send(Goodbye("exit"))
    while not isinstance(await peer.next_message(), GoodbyeAccepted):
        pass
    assert (await server.until_said("COMMAND_ACKNOWLEDGED")).fields["command_id"] == stop
    waiting = await server.runtime.store.pending_commands(NAME)
    assert [command.id for command in waiting] == [scan], "only the stop is settled"


async def test_a_goodbye_in_the_spool_settles_a_stop_as_well(server: LiveServer) -> None:
    stop = await queue(server, "stop", now_us() + HOUR_US)
    peer = await server.log_in()
    assert await peer.next_message() == Command(stop, "stop")
    await peer.close()
    await server.log_in(instance=b"j" * 16, prior_exit_pending=True)
    told = await server.until_said("COMMAND_ACKNOWLEDGED")
    assert told.fields["detail"] == "it says that it had stopped"
    assert not await server.runtime.store.pending_commands(NAME)


async def test_a_process_that_comes_back_has_not_stopped_whatever_the_one_before_left(
    server: LiveServer,
) -> None:
    """It says of its predecessor the same each time that it connects."""
    await (await server.log_in(instance=b"j" * 16, prior_exit_pending=True)).close()
    stop = await queue(server, "stop", now_us() + HOUR_US)
    for _ in range(2):
        peer = await server.log_in(instance=b"j" * 16, prior_exit_pending=True)
        assert await peer.next_message() == Command(stop, "stop")
        await peer.close()
    assert "COMMAND_ACKNOWLEDGED" not in server.codes()


async def test_a_stop_that_was_never_sent_waits_for_the_next_process(server: LiveServer) -> None:
    peer = await server.log_in()
    # Nobody is woken: as from another server on the same store, a moment before it says so.
    await server.runtime.store.queue_command(NAME, "stop", "root", now_us(), now_us() + HOUR_US)
    await peer.send(Goodbye("exit"))
    assert isinstance(await peer.next_message(), GoodbyeAccepted)
    assert len(await server.runtime.store.pending_commands(NAME)) == 1
