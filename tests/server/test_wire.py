"""How long a connection waits: each time for as long as was asked, whatever was asked before."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from needfire_protocol.connection import ServerConnection
from needfire_protocol.framing import FrameType
from needfire_server.wire import Wire
from needfire_testkit.server import until

SHORT_S = 0.05
ENOUGH_S = 5.0
LONG_S = 600.0
PART_OF_A_FRAME = bytes((FrameType.HELLO,))


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Wire, socket.socket]]:
    """A wire, and the peer's end of it."""
    ours, theirs = socket.socketpair()
    wire = Wire(ServerConnection(random_bytes=os.urandom, fake_salt_key=bytes(32)))
    await asyncio.get_running_loop().connect_accepted_socket(lambda: wire, ours)
    with theirs:
        yield wire, theirs
    wire.abort()
    await until(lambda: wire.is_lost, "the connection to be gone")


async def hear_something(wire: Wire, peer: socket.socket, limit_s: float | None) -> None:
    waiting = asyncio.create_task(wire.receive(limit_s))
    await asyncio.sleep(0)
    peer.send(PART_OF_A_FRAME if not wire.connection._reader.buffered_bytes else b"\0")
    assert await waiting == []


async def until_the_timer_went_off(wire: Wire) -> None:
    await until(lambda: wire._timer is None, "the timer to go off")


async def is_over_after(wire: Wire, limit_s: float) -> bool:
    """True where a wait for nothing ends, and not before its time."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with pytest.raises(TimeoutError):
        await wire.receive(limit_s)
    return loop.time() - began_s >= limit_s


async def test_a_wait_for_nothing_ends_at_its_limit(pair: tuple[Wire, socket.socket]) -> None:
    assert await is_over_after(pair[0], SHORT_S)


async def test_a_short_wait_is_not_made_longer_by_a_long_one_before(
    pair: tuple[Wire, socket.socket],
) -> None:
    await hear_something(*pair, LONG_S)
    assert await is_over_after(pair[0], SHORT_S)


async def test_a_wait_is_not_made_shorter_by_a_short_one_before(
    pair: tuple[Wire, socket.socket],
) -> None:
    await hear_something(*pair, SHORT_S)
    assert await is_over_after(pair[0], 3 * SHORT_S)


async def test_a_wait_without_a_limit_outlasts_one_with_a_limit(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    await hear_something(wire, peer, SHORT_S)
    waiting = asyncio.create_task(wire.receive())
    await until_the_timer_went_off(wire)
    assert not waiting.done()
    peer.send(b"\0")
    assert await waiting == []


async def test_a_limit_that_passed_while_nobody_waited_ends_nothing(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    await hear_something(wire, peer, SHORT_S)
    await until_the_timer_went_off(wire)
    await hear_something(wire, peer, SHORT_S)
    assert await is_over_after(wire, SHORT_S)


async def test_what_comes_while_nobody_waits_is_held_back_and_not_lost(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    transport = wire._transport
    assert transport is not None
    peer.send(PART_OF_A_FRAME)
    await until(lambda: not transport.is_reading(), "the connection to be held back")
    peer.send(b"\0")

    for expected_bytes in (1, 2):
        assert await wire.receive(ENOUGH_S) == []
        assert wire.connection._reader.buffered_bytes == expected_bytes


async def test_a_connection_that_is_lost_leaves_no_timer(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    await hear_something(wire, peer, LONG_S)
    timer = wire._timer
    assert timer is not None
    wire.abort()
    await until(lambda: wire.is_lost, "the connection to be gone")
    assert timer.cancelled()
