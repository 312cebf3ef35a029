"""How the agent gets to an open session: which server, with which key, in which words.

It has one session key at a time. The first negotiation of a process takes the client's session
over; later ones only ask for it, and are told to wait while another agent holds it. That is what
keeps two agents of one host from stealing the key from each other for ever (documented state 7).
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from needfire_client.address import ServerAddress
from needfire_client.failures import CommandError
from needfire_client.link import (
    Link,
    LinkError,
    LinkRefusedError,
    LinkTimes,
    LocalTroubleError,
)
from needfire_client.troubles import is_taken_over
from needfire_protocol.connection import AgentConnection
from needfire_protocol.keys import SessionKeys
from needfire_protocol.messages import FEATURE_AUDIT, RefusalCode

__all__ = ["Dialer"]


_AVOIDED_S: Final = 60.0
"""Seconds for which a server that failed is asked after the others. One that takes connections and
then serves nobody, or a host that swallows packets, must not hold up each attempt."""


class Dialer:
    """Opens links to the first server that can be had.

    Args:
        servers: in the order in which they are asked. A session that was opened at one is resumed
            at the next where these share a store; else a new one is negotiated. Each renewal of
            the key begins with the first one again, so that agents come back to it.
        load_password: asked at each negotiation, so that a corrected password is used at once.
        random_bytes: for keys; ``os.urandom``.
        takes_over: the first negotiation replaces a session that another agent holds.
        now_s: monotonic seconds.
    """

    def __init__(
        self,
        servers: Sequence[ServerAddress],
        *,
        name: str,
        load_password: Callable[[], str],
        random_bytes: Callable[[int], bytes],
        bind_address: str | None = None,
        times: LinkTimes | None = None,
        takes_over: bool = True,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        assert servers
        self.servers = tuple(servers)
        self.bind_address = bind_address
        self._name = name
        self.load_password = load_password
        self._random_bytes = random_bytes
        self._times = LinkTimes() if times is None else times
        self._now_s = now_s
        self._keys: SessionKeys | None = None
        self._keys_until_s = 0.0
        self._takes_over = takes_over
        self._avoided_until_s: dict[ServerAddress, float] = {}

    async def dial(self, on_failure: Callable[[LinkError], None]) -> Link:
        """Open a link: resume the session where there is one, else negotiate.

        Args:
            on_failure: told what was wrong with each server that was tried.

        Raises:
            LinkError: no server could be had; that of the last one.
        """
        last: LinkError | None = None
        now_s = self._now_s()
        for server in sorted(self.servers, key=lambda each: self._is_avoided(each, now_s)):
            try:
                return await self._open(server)
            except LinkError as error:
                on_failure(error)
                last = error
                if is_taken_over(error):
                    break
                self.avoid(server)
        assert last is not None
        raise last

    def avoid(self, server: ServerAddress) -> None:
        """A server could not be had, or did not keep a session: ask the others before it."""
        self._avoided_until_s = {
            each: until_s for each, until_s in self._avoided_until_s.items() if each in self.servers
        }
        self._avoided_until_s[server] = self._now_s() + _AVOIDED_S

    def welcomed(self, lifetime_s: float) -> None:
        """The server accepted the announcement: this process has its session."""
        self._keys_until_s = self._now_s() + lifetime_s
        self._takes_over = False

    def forget_keys(self) -> None:
        """Negotiate the next time: the key is too old, or not ours any more."""
        self._keys = None

    def take_over_again(self) -> None:
        """The next negotiation is a new beginning (after a suspension)."""
        self._keys = None
        self._takes_over = True

    def _is_avoided(self, server: ServerAddress, now_s: float) -> bool:
        return self._avoided_until_s.get(server, now_s) > now_s

    async def _open(self, server: ServerAddress) -> Link:
        if self._keys is not None and self._now_s() < self._keys_until_s:
            try:
                return await self._resume(server, self._keys)
            except LinkRefusedError as error:
                if error.code is not RefusalCode.SESSION_UNKNOWN:
                    if is_taken_over(error):
                        self._keys = None
                    raise
                # Anyone on the way can say so; it costs a negotiation, which they cannot pass.
        return await self._negotiate(server)

    async def _resume(self, server: ServerAddress, keys: SessionKeys) -> Link:
        connection = AgentConnection.resume(keys, random_bytes=self._random_bytes)
        return await Link.open(
            server, connection, bind_address=self.bind_address, times=self._times
        )

    async def _negotiate(self, server: ServerAddress) -> Link:
        try:
            password = self.load_password()
        except CommandError as error:
            raise LocalTroubleError(server, str(error)) from None
        connection = AgentConnection.negotiate(
            self._name,
            password,
            takeover=self._takes_over,
            random_bytes=self._random_bytes,
            features=FEATURE_AUDIT,
        )
        link = await Link.open(
            server, connection, bind_address=self.bind_address, times=self._times
        )
        self._keys = link.keys
        # Until the server says how long: enough to resume after a drop in between.
        self._keys_until_s = self._now_s() + 60
        return link
