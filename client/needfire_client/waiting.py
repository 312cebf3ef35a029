"""What a session asks of the reports that wait for the server."""

from collections.abc import Mapping
from typing import Protocol

from needfire_client.spool import SpoolBatch

__all__ = ["WaitingReports"]


class WaitingReports(Protocol):
    """``Spool`` alone, or ``Spools``."""

    @property
    def waiting(self) -> int: ...

    def next_batch(
        self, sent: Mapping[bytes, int], count_max: int, bytes_max: int
    ) -> SpoolBatch: ...

    def acknowledge(self, stream: bytes, sequence: int) -> int: ...

    def oldest_us(self) -> int | None: ...

    def note_welcome(self) -> None: ...
