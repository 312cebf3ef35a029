"""How those who follow events learn at once that there are new ones."""

import asyncio

__all__ = ["Wakeup"]


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
