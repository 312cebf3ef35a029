"""The audit log of a store that somebody else has open, or nobody: for a check that trusts no server."""

from types import TracebackType

from needfire_server.storage import audit_statements
from needfire_server.storage.audit_base import AuditHead, StoredCheckpoint, StoredKey, Stray
from needfire_server.storage.engine import Engine
from needfire_server.storage.reading import read_now

__all__ = ["AuditReader"]


class AuditReader:
    """Implements ``AuditPages``, and tells the rest that a check needs; only reads, takes no lock.

    What it returns of one log may be a little newer from call to call: ask for the head first, and
    for nothing beyond it.
    """

    def __init__(self, engine: Engine) -> None:
        """Args:
        engine: closed at the end of the context.
        """
        self._engine = engine

    def __enter__(self) -> "AuditReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._engine.close()

    @property
    def name(self) -> str:
        """What the store is, for people."""
        return self._engine.name

    def head(self) -> AuditHead:
        """Return how far the log is."""
        return read_now(self._engine, audit_statements.head)

    def public_keys(self) -> list[StoredKey]:
        """Return all keys, oldest first."""
        return read_now(self._engine, audit_statements.keys)

    def last_checkpoint(self) -> StoredCheckpoint | None:
        """Return the latest checkpoint."""
        return read_now(self._engine, audit_statements.last_checkpoint)

    def records_now(self, first: int, count: int) -> list[tuple[int, bytes]]:
        return read_now(self._engine, audit_statements.records, first, count)

    def checkpoints_now(self, after: int, count: int) -> list[StoredCheckpoint]:
        return read_now(self._engine, audit_statements.checkpoints, after, count)

    def stray_now(self) -> Stray | None:
        return read_now(self._engine, audit_statements.stray)
