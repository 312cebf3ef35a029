"""What a relay tells of this server: which store it is, and which way its events have come."""

from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol

from needfire_protocol.relayed import RELAY_IDENTITY_BYTES
from needfire_server.states import ClientState

__all__ = ["RelayOrigin"]

_UNKNOWN: Final = bytes(RELAY_IDENTITY_BYTES)
_STREAM_BYTES: Final = 16


class _Store(Protocol):
    async def secret(self, name: str) -> bytes: ...

    async def renew_secret(self, name: str) -> bytes: ...

    async def load_client_states(self) -> dict[str, ClientState]: ...


class _Fleet(Protocol):
    def state(self, client: str) -> ClientState: ...


class RelayOrigin:
    """This server, as far as the one above has to know it. Several at one store are one."""

    def __init__(
        self,
        identity: bytes,
        store: _Store,
        fleet: _Fleet,
        relay_clients: Callable[[], Collection[str]],
    ) -> None:
        self.identity = identity
        self._store = store
        self._fleet = fleet
        self._relay_clients = relay_clients

    async def stream(self, output: str) -> bytes:
        """Return by what the numbers of an output are told from all others; stays the same.

        Raises:
            StorageError: the store cannot be read.
        """
        return (await self._store.secret(_stream_name(output)))[:_STREAM_BYTES]

    async def new_stream(self, output: str) -> None:
        """The numbers of an output were given before, for something else.

        Raises:
            StorageError: the store cannot be written.
        """
        await self._store.renew_secret(_stream_name(output))

    async def path_of(self, client: str | None) -> tuple[bytes, ...]:
        """Return the identities of the stores that had a client's events, ours at the end.

        Raises:
            StorageError: the store cannot be read.
        """
        if client is None:
            return (self.identity,)
        parts = client.split("/")
        relays = ["/".join(parts[:count]) for count in range(1, len(parts))]
        known: Mapping[str, ClientState] = {}
        if any(self._fleet.state(name).instance is None for name in relays):
            # Another server at the store has heard them.
            known = await self._store.load_client_states()
        path = [self._identity_of(name, known) or _UNKNOWN for name in relays]
        if relays or client in self._relay_clients():
            # It may be a server itself, and the event its own.
            itself = self._identity_of(client, known)
            path += [] if itself is None else [itself]
        return (*reversed(path), self.identity)

    def _identity_of(self, name: str, known: Mapping[str, ClientState]) -> bytes | None:
        state = known.get(name) or self._fleet.state(name)
        return state.instance


def _stream_name(output: str) -> str:
    return f"relay-stream {output}"
