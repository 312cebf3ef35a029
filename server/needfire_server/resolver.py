"""Asking the system for names and addresses without ever stopping the event loop.

Theory of operation: ``getaddrinfo`` blocks, cannot be interrupted, and with a dead name server
takes half a minute. Each question therefore runs in a thread of its own, and the number of threads
is bounded; who finds none free waits in line, and the line is bounded as well. A thread keeps its
place until the system has answered, even if nobody waits for the answer any more, so that a name
server that never answers costs a fixed number of threads and nothing else. The threads are
daemons: a question that hangs does not keep the server from exiting, as a thread pool's would.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import Final, Protocol, TypeVar

from needfire_protocol.errors import FormatError, NeedfireError
from needfire_protocol.escape import printable
from needfire_server.addresses import plain_address

__all__ = [
    "LookupBusyError",
    "LookupFailedError",
    "Resolved",
    "Resolver",
    "SystemResolver",
    "own_host_names",
]

THREADS_MAX: Final = 32
"""Questions put to the system at once."""
WAITING_MAX: Final = 2048
"""Questions in line for a thread; as many as a fleet that comes back at once may need."""
ADDRESSES_MAX: Final = 256
"""Addresses taken of one name: a stranger may own the zone and put thousands there."""
OWN_NAME_LIMIT_S: Final = 3.0

_T = TypeVar("_T")
_Answer = tuple[_T | None, str]
"""What was found, or None and what the system said."""


class LookupFailedError(NeedfireError):
    """There is no answer; the text says what the system said."""


class LookupBusyError(LookupFailedError):
    """The question was not asked: too many are open already. Says nothing about the name."""

    def __init__(self) -> None:
        super().__init__("lookup busy: too many questions to the name servers are open")


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name stands for."""

    canonical_name: str
    """Where aliases lead to; as the resolver spelled it, so hostile."""
    addresses: frozenset[str]
    """Each in its one spelling."""


class Resolver(Protocol):
    """Where names and addresses are looked up. May hang; the caller sets the time limit."""

    async def resolve(self, name: str) -> Resolved:
        """Return what the name stands for; LookupFailedError where it stands for nothing."""

    async def reverse(self, address: str) -> str:
        """Return the name of an address, unchecked; LookupFailedError where it has none."""


class SystemResolver:
    """The resolver of the system: hosts file and DNS, in the order that nsswitch.conf has."""

    def __init__(self, *, threads_max: int = THREADS_MAX, waiting_max: int = WAITING_MAX) -> None:
        self._threads = asyncio.Semaphore(threads_max)
        self._waiting = 0
        self._waiting_max = waiting_max

    async def resolve(self, name: str) -> Resolved:
        """Return canonical name and addresses of a valid client name."""
        # As bytes: Python puts text through its IDNA codec, which fails on names that DNS has.
        raw_name = name.encode("ascii")
        found = await self._ask(
            lambda: socket.getaddrinfo(
                raw_name, None, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME
            )
        )
        addresses = [str(sockaddr[0]) for *_, sockaddr in found[:ADDRESSES_MAX]]
        canonical_name = next((entry[3] for entry in found if entry[3]), name)
        return Resolved(canonical_name, frozenset(_plain_addresses(addresses)))

    async def reverse(self, address: str) -> str:
        """Return the name of an address as the system has it."""
        name, _ = await self._ask(lambda: socket.getnameinfo((address, 0), socket.NI_NAMEREQD))
        return name

    async def _ask(self, question: Callable[[], _T]) -> _T:
        if self._waiting >= self._waiting_max:
            raise LookupBusyError
        self._waiting += 1
        try:
            await self._threads.acquire()
        finally:
            self._waiting -= 1
        result, reason = await self._start(question)
        if result is None:
            raise LookupFailedError(reason)
        return result

    def _start(self, question: Callable[[], _T]) -> "asyncio.Future[_Answer[_T]]":
        """Run the question in a thread that gives its place back when the system has answered."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Answer[_T]] = loop.create_future()

        def deliver(result: _T | None, reason: str) -> None:
            self._threads.release()
            if not answer.done():
                answer.set_result((result, reason))

        def run() -> None:
            result, reason = _answer(question)
            try:
                loop.call_soon_threadsafe(deliver, result, reason)
            except RuntimeError:
                return  # The loop is closed: the server has stopped meanwhile.

        try:
            Thread(target=run, name="lookup", daemon=True).start()
        except RuntimeError:
            self._threads.release()
            raise LookupBusyError from None
        return answer


def own_host_names(time_limit_s: float = OWN_NAME_LIMIT_S) -> frozenset[str]:
    """Return what this host is called: its short name, and its full one if that can be found.

    Blocks, but no longer than the limit: a dead name server must not keep the server from
    starting.
    """
    names = {socket.gethostname()}
    search = Thread(target=lambda: names.add(socket.getfqdn()), name="own name", daemon=True)
    search.start()
    search.join(time_limit_s)
    return frozenset(names)


def _answer(question: Callable[[], _T]) -> _Answer[_T]:
    try:
        return question(), ""
    except OSError as error:
        return None, printable(error.strerror or str(error), 200)
    except UnicodeError:
        return None, "the name servers gave a name that is not text"


def _plain_addresses(texts: list[str]) -> list[str]:
    addresses = []
    for text in texts:
        try:
            addresses.append(plain_address(text))
        except FormatError:
            continue
    return addresses
