"""A process that examines what it is told to, until nobody tells it anything any more.

It knows the rules and what there is; what there should be, and what to report, is the parent's
business alone. It is started with exec, not by fork alone: the agent has threads, and a fork of a
process with threads may find any lock of theirs held for ever.

It ends when the parent closes the socket, also in the middle of a large file.
"""

import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from needfire_client.attributes import Examiner, ScanStoppedError
from needfire_client.efforts import effort_of
from needfire_client.memory import limit_own_memory
from needfire_client.pacing import paced
from needfire_client.packing import pack_record
from needfire_client.paths import join
from needfire_client.policy import Decision, Ruleset
from needfire_client.quick import QuickLook
from needfire_client.record import DirectoryRecord
from needfire_client.units import (
    LENGTH_BYTES,
    UNKNOWN_ENTRY,
    Job,
    Unit,
    decode_job,
    decode_unit,
    encode_answer,
)
from needfire_client.walk import Walker
from needfire_protocol.errors import FormatError, StorageError

__all__ = ["DEFER_ABOVE_BYTES", "Laborer", "main", "serve"]

DEFER_ABOVE_BYTES: Final = 8 * 1024 * 1024
"""Larger files are units of their own, so that all processes share in one directory of them."""

EFFORT_MAX: Final = 1_000
"""Effort of one unit, about 15 ms: enough to make the exchange cheap, and a short wait at the end
for the last process."""
_BYTES_PER_EFFORT: Final = 16 * 1024

_ASKS_EVERY_S: Final = 0.02
"""Seconds between two looks whether the parent has gone: one at each directory would take as long
as it takes to look at two objects."""


class Laborer:
    """Does units of one job."""

    def __init__(self, job: Job, connection: socket.socket, opened: ExitStack) -> None:
        ruleset = Ruleset(job, job.selection)
        self._index = {decision: index for index, decision in enumerate(ruleset.decisions)}
        self._told: set[Decision] = set()
        self._connection = connection
        self._examiner = Examiner(
            job.algorithm, self._should_stop, job.looked, drops_cache=job.drops_cache
        )
        self._stop = paced(self._is_abandoned, self._examiner, job.cpu_percent, job.bytes_per_s)
        self._effort = 0
        self._effort_max = 0
        self._before_bytes: int | None = None
        self._asks_from_s = 0.0
        self.walker = Walker(
            ruleset,
            job.severities,
            self._examiner,
            growing_size=lambda _path, _name: self._before_bytes,
            skip_lines=job.skip_checksum,
            stop=self._stop,
            pause=self._is_enough,
            entries_max=job.entries_max,
            quick=_quick_look(job, self._examiner, opened),
        )
        self.walker.avoid(job.avoids)

    def perform(self, unit: Unit) -> bytes:
        """Return the answer to a unit."""
        records = [self._file(unit)] if unit.is_file else self._directories(unit)
        rows = [_row(record) for record in records]
        # A decision without a number: of a rule that stands twice, and counts once.
        news = [decision for decision in self.walker.met - self._told if decision in self._index]
        self._told.update(news)
        met = sorted(self._index[decision] for decision in news)
        return encode_answer(records, rows, self.walker, self._examiner, met)

    def _directories(self, unit: Unit) -> list[DirectoryRecord]:
        self._examiner.defer_above_bytes = DEFER_ABOVE_BYTES
        self._examiner.defers_growing = True
        self._effort, self._effort_max = 0, 1 if unit.is_careful else EFFORT_MAX
        records = []
        for record in self.walker.walk_inside(unit.directory, unit.names):
            records.append(record)
            self._effort += effort_of(record)
        return records

    def _file(self, unit: Unit) -> DirectoryRecord:
        self._examiner.defer_above_bytes = None
        self._examiner.defers_growing = False
        self._before_bytes = unit.before_bytes
        looked = self.walker.look(join(unit.directory, unit.names[0]))
        if looked is None:
            # The way there can no longer be opened: it is not known whether it is gone.
            reason = "the way to it cannot be opened"
            return self.walker.unread(unit.directory, unit.names[0], UNKNOWN_ENTRY, reason)
        return looked[0]

    def _is_enough(self) -> bool:
        return self._effort + self._examiner.bytes_read // _BYTES_PER_EFFORT >= self._effort_max

    def _should_stop(self) -> bool:
        return self._stop()

    def _is_abandoned(self) -> bool:
        """True where the parent has gone. The next unit may lie there too; that is no end."""
        now_s = time.monotonic()
        if now_s < self._asks_from_s:
            return False
        self._asks_from_s = now_s + _ASKS_EVERY_S
        if not select.select((self._connection,), (), (), 0)[0]:
            return False
        return not self._connection.recv(1, socket.MSG_PEEK)


def _quick_look(job: Job, examiner: Examiner, opened: ExitStack) -> QuickLook | None:
    """Return what looks at files of quick rules; None where they have to be read."""
    if job.baseline is None or not job.selection.quick:
        return None
    # SQLite takes as long to load as all the rest, and most passes are not quick.
    from needfire_client.baseline import BaselineReader

    try:
        reader = BaselineReader(Path(os.fsdecode(job.baseline)), is_verified=True)
    except (FormatError, StorageError):
        return None
    # Another one may have taken its place since the parent verified the one that it goes by.
    if reader.meta.content_sha256 != job.baseline_sha256:
        reader.close()
        return None
    return QuickLook(examiner, opened.enter_context(reader))


def _row(record: DirectoryRecord) -> bytes:
    """Return the record's row, and let go of the objects, which take four times the memory."""
    if record.is_as_before:
        # The parent has the same baseline: the row would travel to be found equal to itself.
        return b""
    row = pack_record(record)
    record.fold(row, record.count)
    return row


def _anything(_data_bytes: int) -> None:
    """Stand in for ``limit_memory`` where there is no limit."""


def serve(connection: socket.socket, limit_memory: Callable[[int], None] = _anything) -> None:
    """Take the job and then units, until the parent closes the connection.

    Args:
        limit_memory: called with the bytes of memory that the process may have.
    """
    data = receive(connection)
    if data is None:
        return
    job = decode_job(data)
    limit_memory(job.memory_bytes)
    with ExitStack() as opened:
        laborer = Laborer(job, connection, opened)
        while (data := receive(connection)) is not None:
            answer = laborer.perform(decode_unit(data))
            connection.sendall(len(answer).to_bytes(LENGTH_BYTES, "big"))
            connection.sendall(answer)


def receive(connection: socket.socket) -> bytes | None:
    """Return the next message; None at the end."""
    header = _exactly(connection, LENGTH_BYTES)
    return None if header is None else _exactly(connection, int.from_bytes(header, "big"))


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)


def main() -> None:
    """Serve the parent at the descriptor that the command line names."""
    gc.freeze()
    gc.enable()
    # A terminal's Ctrl-C goes to the whole group, and SIGTERM of a service manager to all
    # processes of the service: the parent decides what it means.
    for number in (
        *(signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGTTOU),
        *(signal.SIGUSR1, signal.SIGUSR2),
    ):
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    with suppress(ScanStoppedError, ConnectionError):
        serve(connection, limit_own_memory)
    # Nothing to tidy up, and nobody waits for it.
    os._exit(0)
