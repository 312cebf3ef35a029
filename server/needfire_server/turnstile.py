"""Whose arithmetic is done next: of those that are known first, of strangers those that came far.

    Rank.FAMILIAR   from an address from which a client logged in lately
    Rank.PROOF      strangers that have sent their proof: half of their arithmetic is done
    Rank.HELLO      strangers that have said hello

Each fourth turn begins with the last rank, so that nobody waits for ever.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from enum import IntEnum
from typing import Final, TypeVar

__all__ = ["Rank", "Turnstile"]

_STRANGERS_TURN: Final = 4

_T = TypeVar("_T")


class Rank(IntEnum):
    """Lower ones come first."""

    FAMILIAR = 0
    PROOF = 1
    HELLO = 2


_FIRST_TO_LAST: Final = tuple(sorted(Rank))
_LAST_TO_FIRST: Final = _FIRST_TO_LAST[::-1]


class Turnstile:
    """Hands work to threads, a bounded number at a time; what waits can still be overtaken.

    Args:
        at_once: twice the number of threads keeps them busy while the event loop is.
    """

    def __init__(self, threads: Executor, at_once: int) -> None:
        self._threads = threads
        self._free = at_once
        self._waiting: dict[Rank, deque[asyncio.Future[None]]] = {rank: deque() for rank in Rank}
        self._turns = 0

    async def run(self, work: Callable[[], _T], rank: Rank) -> _T:
        """Do work in a thread when its turn comes, and return what it returns."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(rank)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._pass_on()

    async def _wait(self, rank: Rank) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[rank].append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # It was ours already.
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        self._turns += 1
        for rank in _FIRST_TO_LAST if self._turns % _STRANGERS_TURN else _LAST_TO_FIRST:
            waiting = self._waiting[rank]
            while waiting:
                turn = waiting.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1
