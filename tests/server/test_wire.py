"""A connection: how long it waits, what the kernel does not take at once, and how it ends."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator

import pytest

from needfire_protocol.connection import ServerConnection
from needfire_protocol.connection_events import Closed, Failed
from needfire_protocol.framing import FrameType
from needfire_server import wire as wire_module
from needfire_server.deadlines import STEP_S
from needfire_server.poller import Poller
from needfire_server.wire import RESET_ON_CLOSE, Wire
from needfire_testkit.server import until

SHORT_S = 0.05
ENOUGH_S = 5.0
LONG_S = 600.0
PART_OF_A_FRAME = bytes((FrameType.HELLO,))


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Wire, socket.socket]]:
    """A wire, and the peer's end of it."""
    ours, theirs = socket.socketpair()
    with theirs:
        wire = wire_on(ours)
        yield wire, theirs
        wire.abort()


@pytest.fixture
async def tcp_pair() -> AsyncIterator[tuple[Wire, socket.socket]]:
    """The same over TCP, which knows resets."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        theirs = socket.create_connection(door.getsockname())
        with theirs:
            wire = wire_on(door.accept()[0])
            yield wire, theirs
            wire.abort()


def wire_on(ours: socket.socket) -> Wire:
    ours.setblocking(False)
    connection = ServerConnection(random_bytes=os.urandom, fake_salt_key=bytes(32))
    return Wire(connection, Poller(), ours, "192.0.2.1", 1)


def after(limit_s: float | None) -> float | None:
    return None if limit_s is None else asyncio.get_running_loop().time() + limit_s


async def hear_something(wire: Wire, peer: socket.socket, limit_s: float | None) -> None:
    waiting = asyncio.create_task(wire.receive(after(limit_s)))
    await asyncio.sleep(0)
    peer.send(PART_OF_A_FRAME if not wire.connection._reader.buffered_bytes else b"\0")
    assert await waiting == []


async def until_the_deadline_passed(wire: Wire) -> None:
    await until(lambda: wire._step is None, "the deadline to pass")


async def is_over_after(wire: Wire, limit_s: float) -> bool:
    """True where a wait for nothing ends, and not before its time."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with pytest.raises(TimeoutError):
        await wire.receive(after(limit_s))
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
    await until_the_deadline_passed(wire)
    assert not waiting.done()
    peer.send(b"\0")
    assert await waiting == []


async def test_a_limit_that_passed_while_nobody_waited_ends_nothing(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    await hear_something(wire, peer, SHORT_S)
    await until_the_deadline_passed(wire)
    await hear_something(wire, peer, SHORT_S)
    assert await is_over_after(wire, SHORT_S)


async def test_what_comes_while_nobody_waits_is_held_back_and_not_lost(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    await hear_something(wire, peer, ENOUGH_S)
    peer.send(b"\0")
    await until(lambda: not wire._is_reading, "the connection to be held back")
    peer.send(b"\0")

    for expected_bytes in (2, 3):
        assert await wire.receive(after(ENOUGH_S)) == []
        assert wire.connection._reader.buffered_bytes == expected_bytes


async def test_what_came_for_one_that_was_cancelled_is_not_lost(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    waiting = asyncio.create_task(wire.receive())
    await asyncio.sleep(0)
    peer.send(PART_OF_A_FRAME)
    wire._read()
    waiting.cancel()
    await asyncio.wait((waiting,))
    peer.send(b"\0")
    await until(lambda: not wire._is_reading, "the rest")
    assert await wire.receive(after(ENOUGH_S)) == []
    assert wire.connection._reader.buffered_bytes == 2


async def test_a_connection_that_is_lost_leaves_no_deadline(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    await hear_something(wire, peer, LONG_S)
    assert len(wire._poller.deadlines) == 1
    wire.abort()
    await until(lambda: wire.is_lost, "the connection to be gone")
    assert len(wire._poller.deadlines) == 0


# ---- what the kernel does not take at once


MUCH_BYTES = 4 * 1024 * 1024
"""More than the buffers of both ends of a socket pair hold."""


def much() -> bytes:
    return os.urandom(MUCH_BYTES // 64) * 64


async def send(wire: Wire, data: bytes) -> None:
    wire.connection._out += data
    await wire.flush()


async def taken(peer: socket.socket, size: int) -> bytes:
    peer.setblocking(False)
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < size and (piece := await loop.sock_recv(peer, size - len(data))):
        data += piece
    return data


async def is_waiting(task: asyncio.Task[None]) -> bool:
    for _ in range(5):
        await asyncio.sleep(0)
    return not task.done()


async def test_what_the_kernel_does_not_take_follows_in_order(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    first, second = much(), b"and what was sent while it waited"
    sending = [asyncio.create_task(send(wire, data)) for data in (first, second)]
    assert await is_waiting(sending[0])
    assert await is_waiting(sending[1])
    expected = first + second
    assert await taken(peer, len(expected)) == expected
    await asyncio.wait_for(asyncio.gather(*sending), ENOUGH_S)


async def test_who_sends_little_more_does_not_wait(pair: tuple[Wire, socket.socket]) -> None:
    wire, peer = pair
    connected = wire._socket
    assert connected is not None
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += connected.send(bytes(1024))
    await asyncio.wait_for(send(wire, b"little"), ENOUGH_S)
    assert wire._backlog == b"little"
    assert await taken(peer, filled + 6) == bytes(filled) + b"little"


async def test_a_sender_is_told_that_the_connection_was_lost_while_it_waited(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, _ = pair
    sending = asyncio.create_task(send(wire, much()))
    assert await is_waiting(sending)
    wire.abort(ConnectionAbortedError("for a reason"))
    with pytest.raises(ConnectionAbortedError, match="for a reason"):
        await sending


async def test_one_that_is_cancelled_leaves_the_others_waiting(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    sending = [asyncio.create_task(send(wire, data)) for data in (much(), b"more")]
    assert await is_waiting(sending[1])
    sending[0].cancel()
    assert await is_waiting(sending[1])
    await taken(peer, MUCH_BYTES + 4)
    await asyncio.wait_for(sending[1], ENOUGH_S)


async def test_a_peer_that_takes_nothing_is_given_up(
    pair: tuple[Wire, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "_WRITE_LIMIT_S", SHORT_S)
    with pytest.raises(ConnectionAbortedError, match="takes nothing"):
        await send(pair[0], much())


async def test_a_close_sends_first_what_waits(
    pair: tuple[Wire, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "_LINGER_LIMIT_S", LONG_S)
    wire, peer = pair
    data = much()
    sending = asyncio.create_task(send(wire, data))
    assert await is_waiting(sending)
    closing = asyncio.create_task(wire.close())
    assert await taken(peer, len(data) + 1) == data, "and then the end"
    assert not wire.is_lost, "it lingers"
    peer.shutdown(socket.SHUT_WR)
    await asyncio.wait_for(asyncio.gather(closing, sending), ENOUGH_S)


async def test_a_close_sends_first_what_waits_for_a_peer_that_says_no_more(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    peer.shutdown(socket.SHUT_WR)
    assert [type(event) for event in await wire.receive(after(ENOUGH_S))] == [Closed]
    data = much()
    sending = asyncio.create_task(send(wire, data))
    assert await is_waiting(sending)
    closing = asyncio.create_task(wire.close())
    assert await taken(peer, len(data) + 1) == data
    await asyncio.wait_for(asyncio.gather(closing, sending), ENOUGH_S)


async def test_a_close_does_not_wait_for_ever_for_what_is_not_taken(
    pair: tuple[Wire, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "_WRITE_LIMIT_S", SHORT_S)
    monkeypatch.setattr(wire_module, "_LINGER_LIMIT_S", SHORT_S)
    wire, _ = pair
    with pytest.raises(ConnectionAbortedError):
        await send(wire, much())
    await asyncio.wait_for(wire.close(), ENOUGH_S)
    assert wire.is_lost


# ---- how it ends


async def test_the_end_of_the_peer_is_told_and_it_can_be_answered_still(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    peer.shutdown(socket.SHUT_WR)
    assert [type(event) for event in await wire.receive(after(ENOUGH_S))] == [Closed]
    assert not wire._is_reading, "it is readable without end"
    await send(wire, b"farewell")
    assert peer.recv(100) == b"farewell"


async def test_what_came_before_the_end_is_told_first(pair: tuple[Wire, socket.socket]) -> None:
    wire, peer = pair
    peer.send(PART_OF_A_FRAME)
    peer.shutdown(socket.SHUT_WR)
    assert await wire.receive(after(ENOUGH_S)) == []
    assert [type(event) for event in await wire.receive(after(ENOUGH_S))] == [Failed]


async def test_who_waits_is_told_why_it_was_aborted(pair: tuple[Wire, socket.socket]) -> None:
    wire, _ = pair
    waiting = asyncio.create_task(wire.receive())
    await asyncio.sleep(0)
    wire.abort(ConnectionAbortedError("for a reason"))
    for _ in range(2):
        with pytest.raises(ConnectionAbortedError, match="for a reason"):
            await waiting
        waiting = asyncio.create_task(wire.receive())
    with pytest.raises(ConnectionAbortedError, match="for a reason"):
        await wire.flush()


async def test_a_connection_that_broke_says_how_and_keeps_no_frames(
    tcp_pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = tcp_pair
    waiting = asyncio.create_task(wire.receive())
    await asyncio.sleep(0)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    peer.close()
    with pytest.raises(ConnectionResetError):
        await waiting
    assert wire._lost is not None
    assert wire._lost.__traceback__ is None


async def test_a_send_to_a_peer_that_is_gone_raises(tcp_pair: tuple[Wire, socket.socket]) -> None:
    wire, peer = tcp_pair
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    peer.close()
    with pytest.raises(ConnectionResetError):
        await send(wire, b"too late")
    assert wire.is_lost


async def test_a_reset_is_what_the_peer_sees(tcp_pair: tuple[Wire, socket.socket]) -> None:
    wire, peer = tcp_pair
    wire.reset()
    with pytest.raises(ConnectionResetError):
        peer.recv(1)


@pytest.mark.parametrize("end", ["abort", "reset"])
async def test_the_loop_forgets_a_connection_that_has_ended(
    pair: tuple[Wire, socket.socket], end: str
) -> None:
    """Else it would take whoever gets the same number next for this one."""
    wire, _ = pair
    assert wire._socket is not None
    number, loop = wire._socket.fileno(), asyncio.get_running_loop()
    waiting = asyncio.create_task(wire.receive())
    sending = asyncio.create_task(send(wire, much()))
    assert await is_waiting(sending)
    getattr(wire, end)()
    assert (loop.remove_reader(number), loop.remove_writer(number)) == (False, False)
    with pytest.raises(OSError):
        os.fstat(number)
    await asyncio.wait((waiting, sending))
    assert isinstance(sending.exception(), OSError)
    assert [type(event) for event in waiting.result()] == [Closed]


async def test_after_a_close_only_so_much_is_listened_to(
    pair: tuple[Wire, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "_LINGER_BYTES_MAX", 1_000)
    monkeypatch.setattr(wire_module, "_LINGER_LIMIT_S", LONG_S)
    wire, peer = pair
    closing = asyncio.create_task(wire.close())
    peer.send(bytes(1_000))
    assert await is_waiting(closing)
    peer.send(b"\0")
    await asyncio.wait_for(closing, ENOUGH_S)
    assert wire.is_lost


async def test_a_close_ends_our_direction_and_waits_for_the_other(
    pair: tuple[Wire, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "_LINGER_LIMIT_S", LONG_S)
    wire, peer = pair
    closing = asyncio.create_task(wire.close())
    assert await taken(peer, 1) == b""
    assert await is_waiting(closing)
    peer.shutdown(socket.SHUT_WR)
    await asyncio.wait_for(closing, ENOUGH_S)
    assert wire.is_lost


async def test_a_peer_that_lingers_is_left_after_a_while(
    pair: tuple[Wire, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "_LINGER_LIMIT_S", SHORT_S)
    await asyncio.wait_for(pair[0].close(), ENOUGH_S)
    assert pair[0].is_lost
    assert pair[1].recv(1) == b""


async def test_who_takes_nothing_is_not_listened_to_after_the_farewell(
    pair: tuple[Wire, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could send for a minute, as much as it likes."""
    monkeypatch.setattr(wire_module, "_LINGER_LIMIT_S", SHORT_S)
    wire, _ = pair
    sending = asyncio.create_task(send(wire, much()))
    assert await is_waiting(sending)
    closing = asyncio.create_task(wire.close())
    await until(lambda: wire._is_reading, "it to linger")
    await until(lambda: not wire._is_reading, "it to stop listening")
    assert not wire.is_lost
    wire.abort()
    await asyncio.wait((sending, closing))


async def test_a_reason_from_elsewhere_keeps_no_frames_either(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, _ = pair
    try:
        raise ConnectionAbortedError("for a reason")
    except OSError as error:
        wire.abort(error)
    assert wire._lost is not None
    assert wire._lost.__traceback__ is None


class WithoutMemory:
    """A socket of a machine that has no memory left."""

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected

    def fileno(self) -> int:
        return self._connected.fileno()

    def close(self) -> None:
        self._connected.close()

    def recv(self, size: int) -> bytes:
        raise MemoryError

    def send(self, data: bytes) -> int:
        raise MemoryError


async def test_without_memory_a_connection_ends(pair: tuple[Wire, socket.socket]) -> None:
    wire, peer = pair
    connected = wire._socket
    assert connected is not None
    wire._socket = WithoutMemory(connected)  # type: ignore[assignment]
    waiting = asyncio.create_task(wire.receive())
    await asyncio.sleep(0)
    peer.send(b"\0")
    with pytest.raises(ConnectionAbortedError, match="memory"):
        await waiting


async def test_without_memory_nothing_is_sent_twice(pair: tuple[Wire, socket.socket]) -> None:
    wire, _ = pair
    sending = asyncio.create_task(send(wire, much()))
    assert await is_waiting(sending)
    connected = wire._socket
    assert connected is not None
    wire._socket = WithoutMemory(connected)  # type: ignore[assignment]
    wire._write()
    with pytest.raises(ConnectionAbortedError, match="memory"):
        await sending


# ---- calls in place of a task


async def test_who_asked_is_called_once_when_something_has_come(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    called = list[object]()
    wire.call_back(lambda: called.append(wire.received()), LONG_S + loop_time_s())
    await some_turns()
    assert not called
    peer.send(PART_OF_A_FRAME)
    await until(lambda: bool(called), "the call")
    assert called == [[]]
    assert wire.connection._reader.buffered_bytes == 1
    peer.send(b"\0")
    await until(lambda: not wire._is_reading, "the connection to be held back")
    assert called == [[]]
    assert await wire.receive(after(ENOUGH_S)) == []
    assert wire.connection._reader.buffered_bytes == 2


async def test_who_asks_again_while_it_is_called_is_called_again(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    sizes = list[int]()

    def heard() -> None:
        wire.received()
        sizes.append(wire.connection._reader.buffered_bytes)
        wire.call_back(heard, loop_time_s() + LONG_S)

    wire.call_back(heard, loop_time_s() + LONG_S)
    for count in (1, 2, 3):
        peer.send(PART_OF_A_FRAME if count == 1 else b"\0")
        await until(lambda count=count: len(sizes) == count, "the call")  # type: ignore[misc]
    assert sizes == [1, 2, 3]


@pytest.mark.parametrize("end", ["end of the peer", "abort", "reset"])
async def test_who_asked_is_called_when_nothing_more_can_come(
    pair: tuple[Wire, socket.socket], end: str
) -> None:
    wire, peer = pair
    called = list[object]()
    wire.call_back(lambda: called.append(wire.received()), loop_time_s() + LONG_S)
    if end == "end of the peer":
        peer.close()
    else:
        getattr(wire, end)()
    await until(lambda: bool(called), "the call")
    assert called == [[]]
    assert [type(event) for event in await wire.receive()] == [Closed]


async def test_who_asked_is_called_when_patience_ends_and_not_before(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    called_s = list[float]()
    await hear_something(wire, peer, SHORT_S / 2)
    until_s = loop_time_s() + SHORT_S
    wire.call_back(lambda: called_s.append(loop_time_s()), until_s)
    await until(lambda: bool(called_s), "the call")
    assert called_s[0] >= until_s
    with pytest.raises(TimeoutError):
        await wire.receive(until_s)


async def test_who_asks_where_something_waits_already_is_called_soon(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    await hear_something(wire, peer, ENOUGH_S)
    peer.send(b"\0")
    await until(lambda: not wire._is_reading, "something that waits")
    called = asyncio.Event()
    wire.call_back(called.set, loop_time_s() + LONG_S)
    await asyncio.wait_for(called.wait(), ENOUGH_S)
    wire.abort()
    called.clear()
    wire.call_back(called.set, loop_time_s() + LONG_S)
    await asyncio.wait_for(called.wait(), ENOUGH_S)


async def test_where_nothing_can_be_watched_who_waits_is_told_and_may_try_again(
    pair: tuple[Wire, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    wire, peer = pair

    def fail(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    called = list[object]()
    with monkeypatch.context() as patched:
        patched.setattr(wire._poller, "add", fail)
        with pytest.raises(OSError, match="No space"):
            await wire.receive()
        with pytest.raises(OSError, match="No space"):
            wire.call_back(lambda: called.append(1), loop_time_s() + LONG_S)
    await hear_something(wire, peer, ENOUGH_S)
    wire.abort()
    await some_turns()
    assert not called


async def test_a_wait_across_an_earlier_deadline_ends_at_its_own(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    await hear_something(wire, peer, 0.0)
    assert await is_over_after(wire, 3 * STEP_S)
    assert len(wire._poller.deadlines) == 0


async def test_an_earlier_deadline_takes_the_place_of_a_later_one(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    await hear_something(wire, peer, LONG_S)
    assert await is_over_after(wire, SHORT_S)
    assert len(wire._poller.deadlines) == 0


async def test_a_deadline_that_passed_says_nothing_to_who_has_none(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, peer = pair
    told = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, about: told.append(about))
    await hear_something(wire, peer, SHORT_S)
    waiting = asyncio.create_task(wire.receive())
    await until_the_deadline_passed(wire)
    await some_turns()
    assert not waiting.done()
    assert not told
    wire.abort()
    await waiting


@pytest.mark.parametrize("end", ["abort", "reset"])
async def test_nothing_watches_a_connection_that_has_ended(
    pair: tuple[Wire, socket.socket], end: str
) -> None:
    wire, peer = pair
    await hear_something(wire, peer, LONG_S)
    assert len(wire._poller) == 1
    getattr(wire, end)()
    assert len(wire._poller) == 0


def loop_time_s() -> float:
    return asyncio.get_running_loop().time()


async def some_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
