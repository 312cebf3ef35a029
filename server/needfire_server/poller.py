"""Which connections can be read? Asked for all of them together.

The event loop could be asked for each. It makes a key, a handle and two entries of each connection
then, and runs each in a context of its own: a twentieth of what it costs to let an agent in, and half
a KiB for as long as it stays. So it watches one descriptor instead, behind which they all are.
"""

import asyncio
import select
from collections.abc import Callable
from typing import Final

from needfire_server.deadlines import Deadlines

__all__ = ["Poller"]

_TOGETHER_MAX: Final = 256
"""Connections that are read before the loop does something else."""


class Poller:
    """Calls back where something can be read. In the thread of the event loop that made it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], object]] = {}
        self.deadlines = Deadlines()
        """Of the same connections: whoever waits to read does so until one."""
        self._loop.add_reader(self._epoll.fileno(), self._look)

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, descriptor: int, call: Callable[[], object]) -> None:
        """Have something called, again and again, while a descriptor can be read or has ended.

        Raises:
            OSError: there is no memory, or no watch left (``fs.epoll.max_user_watches``), or it is closed.
        """
        if self._epoll.closed:
            raise ConnectionAbortedError("the server stops")
        self._epoll.register(descriptor, select.EPOLLIN)
        self._calls[descriptor] = call

    def remove(self, descriptor: int) -> None:
        """Forget a descriptor; before it is closed."""
        if self._calls.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Watch nothing any more."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._calls.clear()
            self.deadlines.close()

    def _look(self) -> None:
        calls = self._calls
        for descriptor, _ in self._epoll.poll(0, _TOGETHER_MAX):
            # One that was called before it may have ended it.
            call = calls.get(descriptor)
            if call is None:
                continue
            try:
                call()
            except Exception as error:  # noqa: BLE001  # one must not take the others along
                self._loop.call_exception_handler(
                    {"message": "reading from a connection failed", "exception": error}
                )
