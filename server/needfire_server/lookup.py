"""Who is the client? The name that it claims, cross-checked with the address that it has.

The registered name and its secret decide whether a client is let in. What stands here finds out
whether the name also fits the place that it comes from, which a stolen password alone does not.
Everything that a name server says may come from the attacker: names are checked before they are
used, and the time and the number of questions are bounded, in all and for each peer.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from needfire_protocol.escape import printable
from needfire_protocol.names import is_client_name, parse_client_name
from needfire_server.addresses import is_address, is_loopback, neighbourhood, plain_address
from needfire_server.resolver import (
    LookupBusyError,
    LookupFailedError,
    Resolved,
    Resolver,
    SystemResolver,
    own_host_names,
)

__all__ = ["Finding", "Identity", "NameChecker", "PeerName"]

TIME_LIMIT_S: Final = 5.0
"""Seconds for all questions about one connection together."""
CACHE_S: Final = 300.0
"""Seconds for which an answer is kept."""
FAILURE_CACHE_S_MAX: Final = 30.0
"""Seconds for which a failure is kept at most: somebody may be mending it right now."""
CACHE_ENTRIES_MAX: Final = 8192
PEER_TURNS: Final = 4
"""Checks at once for one peer; far below the resolver's threads, so that one cannot take all."""

assert FAILURE_CACHE_S_MAX < CACHE_S


@dataclass(frozen=True, slots=True)
class Finding:
    """A step of the cross-check that failed: a code of the catalogue, and its fields."""

    code: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Identity:
    """The name under which a client is looked up in the register, and what speaks against it."""

    name: str
    findings: tuple[Finding, ...] = ()
    """To be logged at SeverityLookup; a client may have findings and still be confirmed."""
    is_confirmed: bool = True
    """False where nothing ties the name to the address: what RequireLookup refuses."""


@dataclass(frozen=True, slots=True)
class PeerName:
    """What the address of a peer is called."""

    name: str | None
    """None where it has no name, or one that cannot be one."""
    is_paranoid: bool = False
    """True where the name does not lead back to the address (hosts_access(5), PARANOID)."""


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str


@dataclass(slots=True)
class _Gate:
    """The turns of one peer, kept while somebody holds one or waits for one."""

    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PEER_TURNS))
    users: int = 0


_Outcome: TypeAlias = Resolved | str | _Failure


class NameChecker:
    """Both methods of finding a client's name, with a cache."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        time_limit_s: float = TIME_LIMIT_S,
        cache_s: float = CACHE_S,
        own_names: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        own_names: what this server's host is called; a client on the same host comes from a
            loopback address and may claim any of them.
        """
        self._resolver = resolver
        self._time_limit_s = time_limit_s
        self._cache_s = cache_s
        self._own_names = frozenset(map(_folded, own_names)) | {"localhost"}
        self._clock = clock
        self._cache: OrderedDict[tuple[str, str], tuple[float, _Outcome]] = OrderedDict()
        self._gates: dict[str, _Gate] = {}

    @classmethod
    def for_host(cls, time_limit_s: float = TIME_LIMIT_S) -> "NameChecker":
        """Return a checker that asks the system, and knows what this host is called."""
        return cls(SystemResolver(), time_limit_s=time_limit_s, own_names=own_host_names())

    def clear(self) -> None:
        """Forget every answer: the server reloads because somebody mended the name service."""
        self._cache.clear()

    async def check(self, claimed_name: str, peer_address: str) -> Identity:
        """Return who the client is by the first method: the name that it claims.

        The steps are Samhain's: the claimed name must resolve, the peer's address must have a
        name, that name must lead back to the address, and the claim must be one of the peer's
        names. A claim that is the peer's own numeric address has no name to check. A claim that
        resolves to the peer's address is one of its names, whatever the reverse entries say.

        A claim that cannot name a client is never looked up; nobody is registered under it.

        Raises:
            FormatError: the address is none.
        """
        peer = plain_address(peer_address)
        if not is_client_name(claimed_name):
            return _unresolved(printable(claimed_name, 255), peer, "this is not a host name")
        claim = parse_client_name(claimed_name)
        if is_address(claim) and plain_address(claim) == peer:
            return Identity(claim)
        try:
            async with self._turn(peer) as deadline, asyncio.TaskGroup() as group:
                forward_task = group.create_task(self._forward(claim, deadline))
                peer_task = group.create_task(self._peer(peer, deadline))
        except LookupBusyError as busy:
            return _unresolved(claim, peer, str(busy))
        return self._judge(claim, peer, forward_task.result(), *peer_task.result())

    async def name_from_address(self, peer_address: str) -> str:
        """Return who the client is by the second method (SetClientFromAccept): its address.

        The name of the address where forward and reverse lookup agree, else the address itself;
        nothing is reported either way.

        Raises:
            FormatError: the address is none.
        """
        found = await self.peer_name(peer_address)
        if found.name is None or found.is_paranoid:
            return plain_address(peer_address)
        return found.name

    async def peer_name(self, peer_address: str) -> PeerName:
        """Return what the access lists may compare with their patterns.

        Raises:
            FormatError: the address is none.
        """
        peer = plain_address(peer_address)
        try:
            async with self._turn(peer) as deadline:
                name, leads_back = await self._peer(peer, deadline)
        except LookupBusyError:
            return PeerName(None)
        return PeerName(None) if isinstance(name, _Failure) else PeerName(name, not leads_back)

    def _judge(
        self,
        claim: str,
        peer: str,
        forward: Resolved | _Failure,
        peer_name: str | _Failure,
        leads_back: bool,
    ) -> Identity:
        findings = []
        about = {"client": claim, "peer": peer}
        if isinstance(forward, _Failure):
            reason = {"reason": forward.reason}
            findings.append(Finding("CANNOT_RESOLVE_CLIENT_NAME", about | reason))
        is_confirmed = self._is_match(claim, peer, forward, peer_name if leads_back else None)
        if is_loopback(peer) and isinstance(peer_name, _Failure):
            peer_name, leads_back = "localhost", True
        if isinstance(peer_name, _Failure):
            reason = {"reason": peer_name.reason}
            findings.append(Finding("CANNOT_RESOLVE_PEER", about | reason))
        elif not leads_back:
            findings.append(Finding("REVERSE_LOOKUP_FAILED", about | {"obj": peer_name}))
        elif not is_confirmed:
            findings.append(Finding("NO_PEER_ALIAS", about | {"obj": peer_name}))
        return Identity(claim, tuple(findings), is_confirmed)

    def _is_match(
        self, claim: str, peer: str, forward: Resolved | _Failure, peer_name: str | _Failure | None
    ) -> bool:
        """True where the claim is a name of the peer: by reverse, by forward, or by alias."""
        names = set(self._own_names) if is_loopback(peer) else set()
        if isinstance(peer_name, str):
            names.add(peer_name)
        if _folded(claim) in names:
            return True
        if isinstance(forward, _Failure):
            return False
        if peer in forward.addresses or _folded(forward.canonical_name) in names:
            return True
        # Debian gives a host's own name the address 127.0.1.1, and it connects from 127.0.0.1.
        return is_loopback(peer) and any(map(is_loopback, forward.addresses))

    async def _peer(self, peer: str, deadline: float) -> tuple[str | _Failure, bool]:
        """Return the name of the peer, and whether it leads back to the peer's address."""
        name = await self._cached(("reverse", peer), lambda: self._reverse(peer), deadline)
        if not isinstance(name, str):
            assert isinstance(name, _Failure)
            return name, False
        back = await self._forward(name, deadline)
        return name, isinstance(back, Resolved) and peer in back.addresses

    async def _reverse(self, peer: str) -> str:
        name = _folded(await self._resolver.reverse(peer))
        if not is_client_name(name) or _looks_numeric(name):
            # A reverse entry is whatever the owner of the address wants it to be.
            raise LookupFailedError("the name of the address is not a host name")
        return name

    async def _forward(self, name: str, deadline: float) -> Resolved | _Failure:
        if is_address(name):
            return Resolved(name, frozenset((plain_address(name),)))
        outcome = await self._cached(
            ("forward", _folded(name)), lambda: self._resolver.resolve(name), deadline
        )
        assert not isinstance(outcome, str)
        return outcome

    async def _cached(
        self, key: tuple[str, str], ask: Callable[[], Awaitable[Resolved | str]], deadline: float
    ) -> _Outcome:
        kept_until, kept = self._cache.get(key, (0.0, None))
        if kept is not None and self._clock() < kept_until:
            self._cache.move_to_end(key)
            return kept
        try:
            async with asyncio.timeout_at(deadline):
                outcome: _Outcome = await ask()
        except LookupBusyError as error:
            return _Failure(str(error))  # Not kept: it says nothing about the name.
        except LookupFailedError as error:
            outcome = _Failure(str(error))
        except TimeoutError:
            outcome = _Failure(f"no answer within {self._time_limit_s:g} s")
        self._keep(key, outcome)
        return outcome

    def _keep(self, key: tuple[str, str], outcome: _Outcome) -> None:
        failed = isinstance(outcome, _Failure)
        kept_s = min(self._cache_s, FAILURE_CACHE_S_MAX) if failed else self._cache_s
        self._cache[key] = (self._clock() + kept_s, outcome)
        self._cache.move_to_end(key)
        while len(self._cache) > CACHE_ENTRIES_MAX:
            self._cache.popitem(last=False)

    @asynccontextmanager
    async def _turn(self, peer: str) -> AsyncIterator[float]:
        """Wait for one of the peer's turns, and give the deadline of this check.

        Without it, one stranger who claims names of a zone that never answers would occupy every
        thread of the resolver, and honest clients would look like impostors meanwhile.
        """
        deadline = asyncio.get_running_loop().time() + self._time_limit_s
        key = neighbourhood(peer)
        gate = self._gates.setdefault(key, _Gate())
        gate.users += 1
        try:
            await _acquire(gate.turns, deadline)
            try:
                yield deadline
            finally:
                gate.turns.release()
        finally:
            gate.users -= 1
            if not gate.users:
                del self._gates[key]


def _unresolved(claim: str, peer: str, reason: str) -> Identity:
    fields = {"client": claim, "peer": peer, "reason": reason}
    return Identity(claim, (Finding("CANNOT_RESOLVE_CLIENT_NAME", fields),), is_confirmed=False)


async def _acquire(turns: asyncio.Semaphore, deadline: float) -> None:
    try:
        async with asyncio.timeout_at(deadline):
            await turns.acquire()
    except TimeoutError:
        raise LookupBusyError from None


def _folded(name: str) -> str:
    """The form in which names are compared: DNS ignores case and the dot of the root."""
    return name.lower().removesuffix(".")


def _looks_numeric(name: str) -> bool:
    """True where a name server's "name" is a number that the system takes for an address."""
    last_label = name.rpartition(".")[2]
    return is_address(name) or last_label.isdecimal() or last_label.startswith("0x")
