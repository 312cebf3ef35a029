"""Who is known does not wait behind strangers, and no stranger waits for ever."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from needfire_server.turnstile import Rank, Turnstile


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


class Queue:
    """A turnstile whose only place is taken until ``begin``."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.turnstile = Turnstile(threads, 1)
        self.done: list[str] = []
        self._gate = threading.Event()
        first = self.turnstile.run(self._gate.wait, Rank.HELLO)
        self._tasks: list[asyncio.Task[object]] = [asyncio.create_task(first)]

    async def add(self, name: str, rank: Rank) -> "asyncio.Task[object]":
        work = self.turnstile.run(lambda: self.done.append(name), rank)
        task: asyncio.Task[object] = asyncio.create_task(work)
        self._tasks.append(task)
        await asyncio.sleep(0)
        return task

    async def begin(self) -> list[str]:
        self._gate.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return self.done


async def test_the_familiar_come_first_and_then_those_with_a_proof(
    threads: ThreadPoolExecutor,
) -> None:
    queue = Queue(threads)
    await asyncio.sleep(0)
    await queue.add("hello", Rank.HELLO)
    await queue.add("proof", Rank.PROOF)
    await queue.add("familiar", Rank.FAMILIAR)
    assert await queue.begin() == ["familiar", "proof", "hello"]


async def test_each_fourth_turn_is_one_of_the_last(threads: ThreadPoolExecutor) -> None:
    queue = Queue(threads)
    await asyncio.sleep(0)
    for number in range(6):
        await queue.add(f"familiar {number}", Rank.FAMILIAR)
    await queue.add("hello", Rank.HELLO)
    assert (await queue.begin()).index("hello") == 3


async def test_who_gave_up_keeps_nobody_waiting(threads: ThreadPoolExecutor) -> None:
    queue = Queue(threads)
    await asyncio.sleep(0)
    gone = await queue.add("gone", Rank.FAMILIAR)
    await queue.add("here", Rank.HELLO)
    gone.cancel()
    assert await queue.begin() == ["here"]
    assert await queue.turnstile.run(lambda: "free again", Rank.HELLO) == "free again"


async def test_a_turn_that_comes_to_one_who_gives_up_goes_to_the_next(
    threads: ThreadPoolExecutor,
) -> None:
    turnstile = Turnstile(threads, 1)
    gate = threading.Event()
    first = asyncio.create_task(turnstile.run(gate.wait, Rank.HELLO))
    await asyncio.sleep(0)
    second = asyncio.create_task(turnstile.run(lambda: "second", Rank.FAMILIAR))
    third = asyncio.create_task(turnstile.run(lambda: "third", Rank.HELLO))
    await asyncio.sleep(0)
    first.add_done_callback(lambda _done: second.cancel())
    gate.set()
    assert await third == "third"
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await turnstile.run(lambda: "free again", Rank.HELLO) == "free again"
