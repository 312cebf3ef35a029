"""How those who follow events learn at once that there are new ones."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final

from needfire_server.clock import now_us

__all__ = ["Wakeup", "wait_until"]

_LOOK_AGAIN_S: Final = 60.0
"""Who waits for a time looks at the clock this often: it may be set meanwhile."""


class Wakeup:
    """Wakes everyone who waits; who looks away meanwhile misses nothing.

    Take a ``ticket`` first, then look at the store, then await the ticket: what is stored after
    the look has rung the ticket's bell already.
    """

    def __init__(self) -> None:
        self._bell = asyncio.Event()

    def ticket(self) -> asyncio.Event:
        """Return what the next ``notify`` sets."""
        return self._bell

    def notify(self) -> None:
        """Wake everyone who holds a ticket."""
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()


async def wait_until(
    bell: Awaitable[object], until_us: int | None, at_most_s: float | None = None
) -> None:
    """Wait for a bell; at most for so long, and not much longer than to a time by the clock."""
    if until_us is not None:
        left_s = max(0.0, (until_us - now_us()) / 1_000_000)
        at_most_s = min(left_s, _LOOK_AGAIN_S if at_most_s is None else at_most_s)
    with suppress(TimeoutError):
        await asyncio.wait_for(bell, at_most_s)
