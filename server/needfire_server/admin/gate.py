"""Whether somebody on the admin socket may do what they ask, and what is told of it."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from needfire_protocol.event import format_time
from needfire_server.admin.lockout import LockLimits, Lockout
from needfire_server.admin.requests import AdminRefusedError
from needfire_server.admin.roles import Access, roles_for, target_of
from needfire_server.admin.subject import RecordEvent
from needfire_server.clock import now_us

__all__ = ["Gate", "PeerIdentity"]

_STRANGER_INTERVAL_S: Final = 60.0
"""A user without any role is reported once in this time: refusals must not fill the store."""
_STRANGERS_MAX: Final = 1_024


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


class Gate:
    """Asks for the role of each request; in the event loop only, and without waiting.

    So of requests that come at the same time none can slip between the count of refusals and the
    lock.
    """

    def __init__(self, access: Access, limits: LockLimits, record_event: RecordEvent) -> None:
        self._access = access
        self._lockout = Lockout(limits)
        self._record = record_event
        self._stranger_told_s: dict[int, float] = {}
        self._unlocking: dict[int, asyncio.TimerHandle] = {}

    def configure(self, access: Access, limits: LockLimits) -> None:
        """Let other people in from now on; connections that are open are asked as well."""
        self._access = access
        self._lockout.limits = limits

    def admit(self, peer: PeerIdentity) -> None:
        """Turn a user away who has no role at all.

        Raises:
            AdminRefusedError: they have none.
        """
        if not self._access.roles_of(peer.uid, peer.gids):
            self._lockout.refused(peer.uid, now_us())
            self._tell_of_stranger(peer.uid)
            raise AdminRefusedError(
                f"user {peer.uid} may not steer this server",
                "use the user that the server runs as, or root, or give the user a role "
                "(RoleAdministrators, RoleAgents, RoleAuditors)",
            )

    def authorize(self, peer: PeerIdentity, verb: str) -> str | None:
        """Let a request pass; return what its user is to be told of refusals before it.

        Raises:
            AdminRefusedError: the user lacks the role, or is locked out.
        """
        self._refuse_locked(peer)
        needed = roles_for(verb)
        if needed.isdisjoint(self._access.roles_of(peer.uid, peer.gids)):
            self._refuse(peer, verb, " or ".join(sorted(role.value for role in needed)))
        failures = self._lockout.succeeded(peer.uid)
        if failures is None:
            return None
        return (
            f"{failures.count} requests of {peer.name} were refused since "
            f"{format_time(failures.since_us)}"
        )

    def _refuse_locked(self, peer: PeerIdentity) -> None:
        until_us = self._lockout.locked_until_us(peer.uid, now_us())
        if until_us is not None:
            self._lockout.refused(peer.uid, now_us())
            raise AdminRefusedError(
                f"{peer.name} was refused too often and is locked out until "
                f"{format_time(until_us)}",
                "wait; needfire-admin events --code AUTHZ_FAIL says what was refused",
            )

    def _refuse(self, peer: PeerIdentity, verb: str, needed: str) -> None:
        resource, operation = target_of(verb)
        self._record(
            "AUTHZ_FAIL",
            user=peer.name,
            uid=peer.uid,
            resource=resource,
            operation=operation,
            role=needed,
        )
        if self._lockout.refused(peer.uid, now_us()):
            until_us = self._lockout.locked_until_us(peer.uid, now_us())
            shown = "" if until_us is None else format_time(until_us)
            self._record("ADMIN_LOCKED", user=peer.name, uid=peer.uid, until=shown)
            self._await_unlocking(peer)
        raise AdminRefusedError(
            f"{peer.name} may not do this; it needs the role {needed}",
            "ask somebody who has it; the server's configuration says who "
            "(RoleAdministrators, RoleAgents, RoleAuditors)",
        )

    def _await_unlocking(self, peer: PeerIdentity) -> None:
        """Tell that a lock has ended, once it has; a lock that follows it at once is the same."""
        now = now_us()
        until_us = self._lockout.locked_until_us(peer.uid, now)
        waiting = self._unlocking.pop(peer.uid, None)
        if waiting is not None:
            waiting.cancel()
        if until_us is None:
            self._record("ADMIN_UNLOCKED", user=peer.name, uid=peer.uid)
            return
        # The two clocks may not go alike: it is looked again then.
        self._unlocking[peer.uid] = asyncio.get_running_loop().call_later(
            (until_us - now) / 1_000_000, self._await_unlocking, peer
        )

    def _tell_of_stranger(self, uid: int) -> None:
        now_s = time.monotonic()
        if now_s - self._stranger_told_s.get(uid, -_STRANGER_INTERVAL_S) < _STRANGER_INTERVAL_S:
            return
        if len(self._stranger_told_s) >= _STRANGERS_MAX:
            self._stranger_told_s.clear()
        self._stranger_told_s[uid] = now_s
        self._record("ADMIN_REFUSED", uid=uid)
