"""Which connections can be read: all behind one descriptor of the event loop."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from needfire_server import poller as poller_module
from needfire_server.poller import Poller
from needfire_testkit.server import until


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(3)]
        for pair in made:
            for end in pair:
                end.setblocking(False)
                stack.enter_context(end)
        yield made


async def some_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_each_is_called_while_it_can_be_read_and_no_longer(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    poller, called = Poller(), [0, 0, 0]

    def read(number: int) -> None:
        called[number] += 1
        if called[number] == 2:
            pairs[number][0].recv(10)

    for number, (ours, _) in enumerate(pairs):
        poller.add(ours.fileno(), lambda number=number: read(number))  # type: ignore[misc]
    assert len(poller) == 3
    for number in (0, 2):
        pairs[number][1].send(b"x")
    await until(lambda: called == [2, 0, 2], "two calls of two")
    await some_turns()
    assert called == [2, 0, 2]
    poller.close()


async def test_the_end_of_the_other_side_can_be_read(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    poller = Poller()
    ended = asyncio.Event()
    poller.add(pairs[0][0].fileno(), ended.set)
    pairs[0][1].close()
    await asyncio.wait_for(ended.wait(), 5)
    poller.close()


async def test_one_that_another_has_ended_in_the_same_look_is_not_called(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """Else its number, which somebody else may have by now, would be read from."""
    poller, called = Poller(), list[int]()

    def end_all() -> None:
        called.append(len(called))
        for ours, _ in pairs:
            poller.remove(ours.fileno())

    for ours, theirs in pairs:
        poller.add(ours.fileno(), end_all)
        theirs.send(b"x")
    await until(lambda: bool(called), "the first call")
    await some_turns()
    assert called == [0]
    assert len(poller) == 0
    poller.close()


async def test_one_that_fails_takes_no_others_along(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    poller, called, told = Poller(), list[int](), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, about: told.append(about))

    def fail() -> None:
        poller.remove(pairs[0][0].fileno())
        raise ZeroDivisionError

    def read() -> None:
        pairs[1][0].recv(1)
        called.append(1)

    poller.add(pairs[0][0].fileno(), fail)
    poller.add(pairs[1][0].fileno(), read)
    for _, theirs in pairs:
        theirs.send(b"x")
    await until(lambda: bool(called and told), "both")
    assert "ZeroDivisionError" in repr(told)
    poller.close()


async def test_more_than_a_look_takes_are_all_called(
    pairs: list[tuple[socket.socket, socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller_module, "_TOGETHER_MAX", 1)
    poller, called = Poller(), set[int]()
    for number, (ours, theirs) in enumerate(pairs):
        poller.add(ours.fileno(), lambda number=number: called.add(number))  # type: ignore[misc]
        theirs.send(b"x")
    await until(lambda: called == {0, 1, 2}, "all")
    poller.close()


async def test_a_closed_one_takes_nobody_and_forgets_quietly(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    poller, number = Poller(), pairs[0][0].fileno()
    poller.add(number, lambda: None)
    poller.close()
    poller.close()
    assert len(poller) == 0
    poller.remove(number)
    with pytest.raises(ConnectionAbortedError, match="stops"):
        poller.add(number, lambda: None)
