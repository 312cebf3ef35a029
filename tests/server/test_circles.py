"""What refers only to itself is found: when many sessions have ended, and most of it never arises."""

import gc
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from needfire_server import circles as circles_module
from needfire_server.agent_session import AgentSession
from needfire_server.circles import Circles
from needfire_server.upkeep import Upkeep
from needfire_server.wire import Wire
from needfire_testkit.live_server import LiveServer, live_server
from needfire_testkit.server import until


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def log_in_and_break(server: LiveServer) -> None:
    peer = await server.log_in()
    await until(server.listener.connected, "the session")
    connected: socket.socket = peer.writer.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.writer.transport.abort()
    await until(lambda: not server.listener.connected(), "the end of the session")


def alive(kind: type) -> int:
    return sum(type(each) is kind for each in gc.get_objects())


async def test_a_connection_that_broke_is_freed_at_once(
    tmp_path: Path, no_collection: None
) -> None:
    async with live_server(tmp_path) as live:
        for _ in range(3):
            await log_in_and_break(live)
        await until(lambda: not live.listener.open_connections(), "the end of the connections")
        await until(lambda: not live.listener._serving, "the end of the tasks")
        assert (alive(Wire), alive(AgentSession)) == (0, 0)


@pytest.mark.parametrize(("ended", "looks"), [(999, 0), (1_000, 1), (1_001, 1)])
def test_there_is_a_look_when_a_thousand_sessions_have_ended(ended: int, looks: int) -> None:
    found: list[int] = []
    circles = Circles(lambda: ended, lambda: found.append(ended))
    for _ in range(3):
        circles.look()
    assert len(found) == looks


async def test_a_round_of_the_upkeep_looks_for_what_sessions_left(
    tmp_path: Path, no_collection: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circles_module, "SESSIONS_MAX", 2)
    looks: list[int] = []

    def note(phase: str, about: dict[str, int]) -> None:
        if phase == "start":
            looks.append(about["generation"])

    async with live_server(tmp_path) as live:
        upkeep = Upkeep(live.runtime, live.listener, str(tmp_path), "here")
        await log_in_and_break(live)
        gc.callbacks.append(note)
        try:
            await upkeep.round()
            assert looks == []
            await log_in_and_break(live)
            await upkeep.round()
            assert looks == [2]
        finally:
            gc.callbacks.remove(note)
