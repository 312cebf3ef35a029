"""The store's writes for callers without an event loop: the command line when no server runs."""

from collections.abc import Sequence

from needfire_protocol.event import Event
from needfire_protocol.srp import Verifier
from needfire_server.states import ClientState
from needfire_server.storage import statements
from needfire_server.storage.base import IncomingReport, IngestResult
from needfire_server.storage.sqlite import SqliteStore

__all__ = ["SyncStore"]


class SyncStore:
    """The same operations as those of ``Store``; each returns after its commit.

    Every method raises StorageError where nothing is promised.
    """

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def ingest(
        self, client: str, stream: bytes, reports: Sequence[IncomingReport], *, received_us: int
    ) -> IngestResult:
        return self._store.write_now(statements.ingest, client, stream, tuple(reports), received_us)

    def record(self, event: Event) -> None:
        self._store.write_now(statements.record, event)

    def register(self, name: str, verifier: Verifier, *, now_us: int, user: str) -> bool:
        return self._store.write_now(statements.register, name, verifier, now_us, user)

    def remove(self, name: str) -> bool:
        return self._store.write_now(statements.remove, name)

    def save_client_state(self, state: ClientState) -> None:
        self._store.write_now(statements.save_client_state, state)

    def queue_command(
        self, client: str, verb: str, user: str, now_us: int, expires_us: int | None = None
    ) -> int:
        return self._store.write_now(
            statements.queue_command, client, verb, user, now_us, expires_us
        )

    def secret(self, name: str) -> bytes:
        return self._store.write_now(statements.secret, name, self._store.random_bytes)
