"""Which client is connected to which server, of all that share a store.

Each server tells the store what has changed at it, a few seconds later, and that it is alive. What a
server told that has not been heard for a while counts no more: it was killed, or has no database.
"""

import os
from collections.abc import Callable, Mapping
from typing import Final

from needfire_protocol.errors import StorageError
from needfire_server.clock import monotonic_s, now_us
from needfire_server.storage.base import ClientConnection, ServerSign, Store

__all__ = ["PRESENT_LIMIT_S", "Presence"]

PRESENT_LIMIT_S: Final = 30
"""How long a server that does not speak is believed to have its clients."""
_BEAT_S: Final = 9.0
_INSTANCE_BYTES: Final = 16
_US_PER_S: Final = 1_000_000


class Presence:
    """Tells of this server's connections, and knows those of all.

    Args:
        name: of this server, for people.
        connected: address by name of the clients that are connected here.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        connected: Callable[[], Mapping[str, str]],
        *,
        clock_us: Callable[[], int] = now_us,
        steady_s: Callable[[], float] = monotonic_s,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._store = store
        self._name = name
        self._connected = connected
        self._clock_us = clock_us
        self._steady_s = steady_s
        # Not the name: of two servers with one name, neither may speak for the other.
        self._instance = random_bytes(_INSTANCE_BYTES).hex()
        self._told: Mapping[str, str] = {}
        self._told_s = float("-inf")

    async def tell(self) -> None:
        """Tell the others what has changed here, if anything has or it is time to.

        Raises:
            StorageError: the next call tells it.
        """
        now = dict(self._connected())
        is_due = self._steady_s() - self._told_s >= _BEAT_S
        if not self._store.is_shared or (now == self._told and not is_due):
            return
        if not await self._tell(now, self._told):
            # We were silent for so long that others removed what we had told.
            await self._tell(now, {})
        self._told, self._told_s = now, self._steady_s()

    async def everywhere(self) -> dict[str, ClientConnection]:
        """Return the connections at all servers by client; only ours where the store fails."""
        ours = {
            client: ClientConnection(self._name, address)
            for client, address in self._connected().items()
        }
        if not self._store.is_shared:
            return ours
        try:
            theirs = await self._store.connections_elsewhere(self._instance, self._limit_us())
        except StorageError:
            return ours
        return {**theirs, **ours}

    async def leave(self) -> None:
        """Take back what was told.

        Raises:
            StorageError: it counts no more after a while anyway.
        """
        if self._store.is_shared:
            await self._store.forget_server(self._instance)

    async def _tell(self, now: Mapping[str, str], told: Mapping[str, str]) -> bool:
        sign = ServerSign(self._instance, self._name, self._clock_us())
        opened = {client: now[client] for client in now if told.get(client) != now[client]}
        closed = told.keys() - now.keys()
        return await self._store.tell_connections(sign, opened, closed, self._limit_us())

    def _limit_us(self) -> int:
        return self._clock_us() - PRESENT_LIMIT_S * _US_PER_S
