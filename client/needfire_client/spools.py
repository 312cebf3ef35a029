"""Where reports wait for the server: on disk, or in memory for as long as the disk refuses them.

    append ──► Spool (file) ──────────────────────► server
                 │ refuses                          ▲
                 └─► MemorySpool (bounded) ─────────┘
                        └ tried again with back-off ──► Spool

Whoever can fill a disk must not be able to silence the agent: what is found meanwhile goes to the
server from memory, and to the disk as soon as there is room. Reports that the server may know
keep their numbers, so they stay in memory until it acknowledges them; the others move.

The two take turns only once: the file's reports are acknowledged before memory's are offered, and
memory's before the file's next ones. Numberings that alternate are how the server knows a clone.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from needfire_client.backoff import Backoff
from needfire_client.memory_spool import MemorySpool
from needfire_client.spool import (
    DiskRefusesError,
    LastWords,
    NewReport,
    Spool,
    SpoolBatch,
    SpoolFullError,
    read_last_words,
)
from needfire_protocol.errors import StorageError

__all__ = ["Spools"]

_STREAM_BYTES: Final = 16


class Spools:
    """The spool's file and what stands in for it. All methods may be called from any thread.

    Args:
        open_disk: opens the file.
        path: the file, to look for last words in it where it cannot be opened.
        random_bytes: source of the identifiers of streams.
        backoff: waits between attempts to use the file again.
        on_refused: called with the reason each time the file begins to refuse.
        on_accepted: called once it takes reports again, with how many came to it from memory.
        monotonic: seconds.

    Raises:
        StorageError: the file cannot be used for a reason that time alone does not mend.
    """

    def __init__(
        self,
        open_disk: Callable[[], Spool],
        *,
        path: Path,
        random_bytes: Callable[[int], bytes],
        backoff: Backoff,
        on_refused: Callable[[str], None],
        on_accepted: Callable[[int], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._open_disk = open_disk
        self._random_bytes = random_bytes
        self._backoff = backoff
        self._on_refused = on_refused
        self._on_accepted = on_accepted
        self._monotonic = monotonic
        self._lock = threading.RLock()
        self._memory = MemorySpool(random_bytes(_STREAM_BYTES))
        self._disk: Spool | None = None
        self._owed = (b"", 0)
        """Stream and number up to which the server has what the file still holds."""
        self._mend_at_s: float | None = None
        self._size_max_bytes: int | None = None
        try:
            self._disk = open_disk()
        except DiskRefusesError as error:
            self._refused(error)

    @property
    def is_on_disk(self) -> bool:
        """True while reports are written to the file."""
        return self._mend_at_s is None

    @property
    def waiting(self) -> int:
        """Reports that are not acknowledged, as far as they can be seen."""
        with self._lock:
            return self._waiting_on_disk() + self._memory.waiting

    @property
    def in_memory(self) -> int:
        """Reports that would be lost with the process."""
        return self._memory.waiting

    def set_size_max(self, size_max_bytes: int) -> None:
        """Use another limit for the file."""
        self._size_max_bytes = size_max_bytes
        if self._disk is not None:
            self._disk.set_size_max(size_max_bytes)

    def append(self, reports: Sequence[NewReport]) -> None:
        """Keep reports: durable on return where the file takes them, otherwise in memory.

        Raises:
            SpoolFullError: there is no room for all of them; none was kept.
        """
        with self._lock:
            if self._disk is not None and self.is_on_disk:
                try:
                    self._disk.append(reports)
                except SpoolFullError:
                    raise
                except StorageError as error:
                    self._refused(error)
                else:
                    return
            self._memory.append(reports)

    def next_batch(self, sent: Mapping[bytes, int], count_max: int, bytes_max: int) -> SpoolBatch:
        """Return the oldest reports that were not sent, of one stream and in order.

        Args:
            sent: the newest number that was sent, for each stream.
        """
        with self._lock:
            batch = self._disk_batch(sent, count_max, bytes_max)
            if batch is not None:
                return batch
            after = sent.get(self._memory.stream, 0)
            return self._memory.read_batch(after, count_max, bytes_max)

    def acknowledge(self, stream: bytes, sequence: int) -> int:
        """Forget the reports of a stream up to and with a number; return how many there were."""
        with self._lock:
            if stream == self._memory.stream:
                count = self._memory.acknowledge(sequence)
                self._begin_anew()
                return count
            disk = self._disk
            if disk is None:
                return 0
            try:
                return disk.acknowledge(stream, sequence)
            except StorageError as error:
                if stream != disk.stream or sequence > disk.last_sequence:
                    raise
                self._owed = (stream, sequence)
                self._refused(error)
                return 0

    def oldest_us(self) -> int | None:
        """Return the time of the oldest waiting report, or None where none can be seen."""
        with self._lock:
            if self._disk is not None and self._waiting_on_disk():
                with contextlib.suppress(StorageError):
                    return self._disk.oldest_us()
            return self._memory.oldest_us()

    def last_words(self) -> LastWords:
        """Return what the last process said at its end and the server has not heard."""
        disk = self._disk
        return read_last_words(self.path) if disk is None else disk.last_words()

    def note_welcome(self) -> None:
        """Remember that the server knows of this process, where the file can be written."""
        disk = self._disk
        if disk is not None:
            disk.note_welcome()

    def mend_in_s(self) -> float | None:
        """Return seconds until ``mend`` is worth a call; None while nothing is broken.

        Without the lock: whoever asks may hold one that ``append`` waits for.
        """
        at_s = self._mend_at_s
        return None if at_s is None else max(0.0, at_s - self._monotonic())

    def mend(self) -> bool:
        """Try to use the file again, where it is time to; return whether that came about."""
        wait_s = self.mend_in_s()
        return wait_s == 0 and self._try_again()

    def close(self) -> int:
        """Write to the file what can be; return how many reports are lost with this process."""
        with self._lock:
            if not self.is_on_disk:
                self._try_again()
            if self._disk is not None:
                self._disk.close()
            return self._memory.waiting

    def _disk_batch(
        self, sent: Mapping[bytes, int], count_max: int, bytes_max: int
    ) -> SpoolBatch | None:
        """Return what the file has to offer, perhaps nothing yet; None: it is memory's turn."""
        disk = self._disk
        if disk is None or self._memory.is_offered:
            return None
        owed = self._owed[1] if self._owed[0] == disk.stream else 0
        after = max(sent.get(disk.stream, 0), owed)
        try:
            batch = disk.read_batch(after, count_max, bytes_max)
        except StorageError as error:
            self._refused(error)
            return None
        return batch if batch.reports or self._waiting_on_disk() else None

    def _waiting_on_disk(self) -> int:
        disk = self._disk
        if disk is None:
            return 0
        if self._owed[0] != disk.stream:
            return disk.waiting
        return min(disk.waiting, disk.last_sequence - self._owed[1])

    def _refused(self, error: StorageError) -> None:
        if self.is_on_disk:
            self._backoff.reset()
            self._on_refused(str(error))
        self._mend_at_s = self._monotonic() + self._backoff.next_delay_s()

    def _try_again(self) -> bool:
        with self._lock:
            moving = self._memory.never_offered()
            try:
                self._write(moving)
            except StorageError as error:
                self._refused(error)
                return False
            self._memory.drop_never_offered()
            self._mend_at_s = None
            self._begin_anew()
            self._on_accepted(len(moving))
            return True

    def _write(self, moving: Sequence[NewReport]) -> None:
        if self._disk is None:
            self._disk = self._open_disk()
            if self._size_max_bytes is not None:
                self._disk.set_size_max(self._size_max_bytes)
        stream, sequence = self._owed
        if sequence:
            self._disk.acknowledge(stream, sequence)
            self._owed = (b"", 0)
        self._disk.probe()
        self._disk.append(moving)

    def _begin_anew(self) -> None:
        """Once memory is empty and the file in use, the next trouble gets a stream of its own."""
        if self.is_on_disk and not self._memory.waiting and self._memory.is_offered:
            self._memory = MemorySpool(self._random_bytes(_STREAM_BYTES))
