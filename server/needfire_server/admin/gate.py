"""Whether somebody on the admin socket may do what they ask, and what is told of it."""

import asyncio
import os
import time
from dataclasses import dataclass
from typing import Final

from needfire_protocol.errors import StorageError
from needfire_protocol.event import format_time
from needfire_server.admin.banner import banner_lines
from needfire_server.admin.places import Standing
from needfire_server.admin.requests import AdminRefusedError
from needfire_server.admin.roles import Access, Role, target_of
from needfire_server.admin.subject import RecordEvent
from needfire_server.admin.verbs import roles_for
from needfire_server.clock import now_us
from needfire_server.lockout import Counted, LockLimits, Lockout, RefusalStore, Settled
from needfire_server.rate_limit import RateLimiter

__all__ = ["Gate", "PeerIdentity"]

_STRANGER_INTERVAL_S: Final = 60.0
"""A user without any role is reported, and counted in the store, once in this time: anybody with an
account can knock, and must not fill the store."""
_STRANGERS_MAX: Final = 1_024
_STRANGERS_TOLD: Final = 20
_STRANGERS_TOLD_PER_S: Final = 1 / 60
"""All of them together: one user may have thousands of numbers."""
_NAME_MAX: Final = 256
_TERMINAL: Final = "needfire-admin"


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Who is at the other end of a connection, by the kernel's word.

    Attributes:
        gids: every group that the process was in when it connected.
        name: of the user, for people.
    """

    uid: int
    gids: frozenset[int]
    name: str

    @property
    def user(self) -> str:
        """Whose refusals are counted. A name: servers that share a store share their users."""
        return self.name[:_NAME_MAX]


@dataclass(slots=True)
class _Stranger:
    told_s: float = float("-inf")
    uncounted: int = 0


class Gate:
    """Asks for the role of each request. In the event loop only.

    Refusals are counted in the store, so a restart opens no lock and another server on the same
    store knows of it. While the store fails, this process counts by itself: refused is refused,
    and who may ask still can, to see what is wrong.
    """

    def __init__(
        self, access: Access, limits: LockLimits, record_event: RecordEvent, store: RefusalStore
    ) -> None:
        self._access = access
        self._limits = limits
        self._record = record_event
        self._store = store
        self._meanwhile = Lockout(limits)
        self._strangers: dict[int, _Stranger] = {}
        self._telling = RateLimiter(
            burst=_STRANGERS_TOLD, per_s=_STRANGERS_TOLD_PER_S, sources_max=1
        )
        self._untold = 0
        self._unlocking: dict[str, asyncio.TimerHandle] = {}

    def configure(self, access: Access, limits: LockLimits) -> None:
        """Let other people in from now on; connections that are open are asked as well."""
        self._access = access
        self._limits = self._meanwhile.limits = limits

    def standing(self, peer: PeerIdentity) -> Standing:
        """Return what a user is to the socket, for the places that there are."""
        roles = self._access.roles_of(peer.uid, peer.gids)
        if peer.uid in (0, os.geteuid()) or Role.ADMINISTRATORS in roles:
            return Standing.STEERING
        return Standing.MEMBER if roles else Standing.STRANGER

    async def admit(self, peer: PeerIdentity) -> None:
        """Turn a user away who has no role at all.

        Raises:
            AdminRefusedError: they have none.
        """
        if not self._access.roles_of(peer.uid, peer.gids):
            await self._note_stranger(peer)
            raise AdminRefusedError(
                f"{peer.name} may not steer this server",
                "use the user that the server runs as, or root, or give the user a role "
                "(RoleAdministrators, RoleAgents, RoleAuditors)",
            )

    async def authorize(self, peer: PeerIdentity, verb: str) -> list[str]:
        """Let a request pass; return what its user is to be told of refusals before it.

        Raises:
            AdminRefusedError: the user lacks the role, or is locked out.
        """
        needed = roles_for(verb)
        if needed.isdisjoint(self._access.roles_of(peer.uid, peer.gids)):
            await self._refuse(peer, verb, " or ".join(sorted(role.value for role in needed)))
        settled = await self._settle(peer)
        if settled.locked_us is not None:
            raise _locked(peer, settled.locked_us)
        if settled.failures is None:
            return []
        return banner_lines(settled.failures, peer.name, _TERMINAL)

    async def _refuse(self, peer: PeerIdentity, verb: str, needed: str) -> None:
        counted = await self._count(peer)
        if counted.was_locked_us is not None:
            raise _locked(peer, counted.was_locked_us)
        resource, operation = target_of(verb)
        self._record(
            "AUTHZ_FAIL",
            user=peer.name,
            uid=peer.uid,
            resource=resource,
            operation=operation,
            role=needed,
        )
        if counted.locks_us is not None:
            until = format_time(counted.locks_us)
            self._record("ADMIN_LOCKED", user=peer.name, uid=peer.uid, until=until)
            self._tell_when_unlocked(peer, counted.locks_us)
        raise AdminRefusedError(
            f"{peer.name} may not do this; it needs the role {needed}",
            "ask somebody who has it; the server's configuration says who "
            "(RoleAdministrators, RoleAgents, RoleAuditors)",
        )

    def _tell_when_unlocked(self, peer: PeerIdentity, until_us: int) -> None:
        """Tell that a lock has ended, once it has; one that follows it at once is the same."""
        waiting = self._unlocking.pop(peer.user, None)
        if waiting is not None:
            waiting.cancel()
        now = now_us()
        if now >= until_us:
            self._record("ADMIN_UNLOCKED", user=peer.name, uid=peer.uid)
            return
        # The two clocks may not go alike: it is looked again then.
        self._unlocking[peer.user] = asyncio.get_running_loop().call_later(
            (until_us - now) / 1_000_000, self._tell_when_unlocked, peer, until_us
        )

    async def _count(
        self, peer: PeerIdentity, count: int = 1, *, is_stranger: bool = False
    ) -> Counted:
        try:
            return await self._store.count_refusal(
                peer.user, now_us(), self._limits, count, is_stranger=is_stranger
            )
        except StorageError:
            return self._meanwhile.refused(peer.user, now_us(), is_stranger=is_stranger)

    async def _settle(self, peer: PeerIdentity) -> Settled:
        locked_us = self._meanwhile.locked_until_us(peer.user, now_us())
        if locked_us is not None:
            self._meanwhile.refused(peer.user, now_us())
            return Settled(locked_us)
        try:
            settled = await self._store.settle_refusals(peer.user, now_us(), self._limits)
        except StorageError:
            settled = Settled()
        if settled.locked_us is not None:
            return settled
        more = self._meanwhile.succeeded(peer.user)
        if settled.failures is None:
            return Settled(failures=more)
        return Settled(failures=settled.failures.with_more(more))

    async def _note_stranger(self, peer: PeerIdentity) -> None:
        if len(self._strangers) >= _STRANGERS_MAX and peer.uid not in self._strangers:
            del self._strangers[next(iter(self._strangers))]
        stranger = self._strangers.setdefault(peer.uid, _Stranger())
        stranger.uncounted += 1
        now_s = time.monotonic()
        if now_s - stranger.told_s >= _STRANGER_INTERVAL_S:
            stranger.told_s = now_s
            if not self._telling.admit("", now_s):
                self._untold += 1
                return
            count, stranger.uncounted = stranger.uncounted, 0
            untold, self._untold = self._untold, 0
            self._record("ADMIN_REFUSED", uid=peer.uid, **({"untold": untold} if untold else {}))
            await self._count(peer, count, is_stranger=True)


def _locked(peer: PeerIdentity, until_us: int) -> AdminRefusedError:
    return AdminRefusedError(
        f"{peer.name} was refused too often and is locked out until {format_time(until_us)}",
        # Not what only others may run: of a locked user nothing is looked at.
        "wait until then, or ask an administrator of this server: they can see what was refused",
    )
