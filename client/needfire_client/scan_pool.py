"""A pass shared out to several processes; its records come in the order of a single walk.

The parent begins alone (``beginning.py``). What is left then goes to processes, a little at a time:
each walks on until it has done enough, and gives back what it did not come to. So no list of all
directories is ever made, and all processes are busy to the end, however uneven the tree is.

A process that ends before its time is an event; what it had in hand is done again, and what ends a
process again and again is reported as not readable. So does one that waits for a mount that does
not answer.
"""

import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Final

from needfire_client.attributes import Examiner, ScanStoppedError
from needfire_client.beginning import BESIDE_EFFORT, Beginning
from needfire_client.dead_mounts import Suspects, mount_around, mounts_inside
from needfire_client.directory import UNANSWERED, too_heavy
from needfire_client.left_behind import Process, has_room, leave
from needfire_client.memory import EXIT_NO_MEMORY, share_bytes
from needfire_client.packing import entries_of, pack_record
from needfire_client.paths import join, split
from needfire_client.pieces import NAMES_PER_PIECE
from needfire_client.policy import Ruleset
from needfire_client.record import DirectoryRecord
from needfire_client.scan_order import Order, Piece
from needfire_client.standstill import (
    LOOKS_EVERY_S,
    STANDSTILL_S,
    Standstill,
    processor_ns,
)
from needfire_client.units import (
    FRAME_BYTES_MAX,
    LENGTH_BYTES,
    UNKNOWN_ENTRY,
    Answer,
    Job,
    Unit,
    decode_answer,
    encode_job,
    encode_unit,
)
from needfire_client.walk import Walker
from needfire_protocol.baseline import FileEntry, RowWriter, iterate_entries
from needfire_protocol.errors import FormatError
from needfire_protocol.escape import escape_bytes
from needfire_protocol.plain_classes import replace

if TYPE_CHECKING:
    import socket

__all__ = ["ScanPool", "start_worker"]


_UNDER_WAY_MAX: Final = 2
"""Units that a process has at a time, so that it need not wait for the next."""

_BUFFERED_BYTES_MAX: Final = 4 * 2**20
"""Bytes of rows that wait for one in front of them; beyond, only the front is worked on."""

_RECORD_BYTES: Final = 512
"""Of a record besides its row, with its path and its empty lists."""

_DEATHS_MAX: Final = 16
"""Processes that may end before their time; after that the parent does the rest itself."""

_FAILURES_MAX: Final = 2
"""Processes that one directory or file may end."""

_STANDSTILLS_MAX: Final = 4
"""Processes that may stand still at one directory or file, where after each of them less is to be
asked than before. Who mounts more and more there would keep us for ever."""

_DEADLY: Final = "every process that read it has ended"
_TOO_LARGE: Final = "it needs more memory than ScanMemoryLimit allows"
_WAITED_FOR: Final = "not yet: the system does not answer, and others like it have not ended either"

_PROGRAM: Final = "import gc; gc.disable(); from needfire_client.scan_worker import main; main()"
"""What a process runs. As in ``start.py``, nothing is tidied up while modules are loaded."""

_POLL_S: Final = 0.1
_RECORDS_PER_POLL: Final = 64
_RECEIVE_BYTES: Final = 256 * 1024


def start_worker() -> "tuple[socket.socket, Process]":
    """Start a process; return its socket and itself. It inherits nice level and I/O class.

    Raises:
        OSError: the system does not let us.
    """
    # Here, because most trees are done before a process would be started.
    import socket
    import subprocess

    ours, theirs = socket.socketpair()
    try:
        with theirs:
            # -P: no module may come from the directory that we happen to be in.
            command = [sys.executable, "-P", "-c", _PROGRAM]
            process = subprocess.Popen(  # noqa: S603 -- our own interpreter, no shell
                [*command, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
    except BaseException:
        ours.close()
        raise
    return ours, process


class _Worker:
    """One process, seen from here."""

    def __init__(
        self, connection: "socket.socket", process: Process, avoids: frozenset[bytes]
    ) -> None:
        self.connection = connection
        self.process = process
        self.avoids = avoids
        """Where it asks nothing."""
        self.under_way: deque[Piece] = deque()
        self.status: int | None = None
        """Exit status, once it has ended."""
        self.is_waited_for = False
        """It stands still, and nobody gives it up."""
        self._standstill = Standstill()
        self._buffer = bytearray()

    @property
    def can_take(self) -> bool:
        """True where it should have another unit now; never one behind a large file."""
        return len(self.under_way) < _UNDER_WAY_MAX and not any(
            piece.unit is not None and piece.unit.is_file for piece in self.under_way
        )

    def stands_still(self, now_s: float) -> bool:
        """True where it has been waiting for the system for too long; asked again and again."""
        used_ns = processor_ns(str(self.process.pid))
        return self._standstill.waiting_s(now_s, used_ns) >= STANDSTILL_S

    def send(self, message: bytes) -> None:
        """Send a message, which is short enough not to wait long."""
        self.connection.sendall(len(message).to_bytes(LENGTH_BYTES, "big") + message)

    def receive(self) -> list[bytes]:
        """Return the messages that are complete.

        Raises:
            ConnectionError: the process has ended.
            FormatError: it says what no message can be.
        """
        data = self.connection.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError
        buffer = self._buffer
        buffer += data
        found = []
        while len(buffer) >= LENGTH_BYTES:
            size = int.from_bytes(buffer[:LENGTH_BYTES], "big")
            if size > FRAME_BYTES_MAX:
                raise FormatError(f"a message of {size} bytes; at most {FRAME_BYTES_MAX}")
            if len(buffer) < LENGTH_BYTES + size:
                break
            with memoryview(buffer) as whole:
                found.append(bytes(whole[LENGTH_BYTES : LENGTH_BYTES + size]))
            del buffer[: LENGTH_BYTES + size]
        return found

    def end(self) -> str:
        """End the process; return how it ended, or that it did not."""
        from subprocess import TimeoutExpired

        self.connection.close()
        try:
            status = self.process.wait(0.2)
        except TimeoutExpired:
            self.process.kill()
            try:
                status = self.process.wait(1.0)
            except TimeoutExpired:
                # In the hands of the kernel, for example at a dead network mount.
                leave(self.process)
                return "it does not end"
        self.status = status
        if status < 0:
            with suppress(ValueError):
                return f"killed by {signal.Signals(-status).name}"
        return f"exit status {status}"

    def kill(self) -> None:
        """Begin to end the process."""
        self.process.kill()


class ScanPool:
    """One pass. A context manager: leaving it ends the processes.

    Args:
        walker, examiner: of the parent, for its own part; they keep the numbers of all.
        growing_size: as for ``Walker``.
        clock: says how many changes were told of; every record comes with what it said then.
        on_death: told why a process ended, and at what path it worked.
    """

    def __init__(
        self,
        job: Job,
        count: int,
        ruleset: Ruleset,
        walker: Walker,
        examiner: Examiner,
        *,
        growing_size: Callable[[bytes, bytes], int | None],
        stop: Callable[[], bool],
        clock: Callable[[], int],
        on_death: Callable[[Mapping[str, str]], None],
    ) -> None:
        self._job = job
        self._count = count
        self._ruleset = ruleset
        self._walker = walker
        self._examiner = examiner
        self._growing_size = growing_size
        self._stop = stop
        self._clock = clock
        self._on_death = on_death
        self._workers: list[_Worker] = []
        self._deaths = 0
        self._looks_from_s = 0.0
        self._suspects = Suspects(stop)
        self._order: Order

    def __enter__(self) -> "ScanPool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def begin(self, beginning: Beginning) -> Iterator[tuple[DirectoryRecord, int]]:
        """Let the processes get ready, and yield what the parent finds meanwhile."""
        self._start()
        yield from beginning.records(None, BESIDE_EFFORT if self._workers else None)

    def records(self, beginning: Beginning) -> Iterator[tuple[DirectoryRecord, int]]:
        """Yield what the beginning has left, each record with what the clock said before it."""
        self._order = Order(
            beginning.held, beginning.rests, _BUFFERED_BYTES_MAX, taken_at=beginning.ended_at
        )
        if not (self._order.is_done or self._workers):
            self._start()
        count = 0
        while not self._order.is_done:
            for record, parts, taken_at in self._order.ready():
                yield self._merged(record, parts), taken_at
                count += 1
                if count % _RECORDS_PER_POLL == 0:
                    self._exchange(0)
            if self._workers:
                self._exchange(_POLL_S)
            elif (piece := self._order.front()) is not None:
                yield from self._do_alone(piece)

    # ---- what the parent does itself -------------------------------------------------------------

    def _do_alone(self, piece: Piece) -> Iterator[tuple[DirectoryRecord, int]]:
        assert piece.unit is not None
        unit = piece.unit
        if self._is_dead(unit):
            self._leave_unseen(piece, UNANSWERED)
            return
        if unit.is_file:
            self._order.answer(piece, [self._look(unit)], [])
            return
        taken_at = self._clock()
        for record in self._walker.walk_inside(unit.directory, unit.names):
            yield record, taken_at
            taken_at = self._clock()
        self._order.answer(piece, [], [])

    def _look(self, unit: Unit) -> DirectoryRecord:
        looked = self._walker.look(join(unit.directory, unit.names[0]))
        if looked is not None:
            return looked[0]
        reason = "the way to it cannot be opened"
        return self._walker.unread(unit.directory, unit.names[0], UNKNOWN_ENTRY, reason)

    # ---- what the processes do -------------------------------------------------------------------

    def _start(self) -> None:
        share, avoids = share_bytes(self._job.memory_bytes, self._count), self._walker.avoids
        job = encode_job(replace(self._job, memory_bytes=share, avoids=avoids))
        try:
            while len(self._workers) < self._count:
                worker = _Worker(*start_worker(), avoids)
                self._workers.append(worker)
                worker.send(job)
        except OSError as error:
            # No process, no memory, no descriptor: those that there are do it, or we alone.
            self._on_death({"reason": error.strerror or str(error)})

    def _exchange(self, timeout_s: float) -> None:
        """Hand out units, and take in what has been answered; wait for an answer so long."""
        if self._stop():
            raise ScanStoppedError
        self._renew()
        for most in range(_UNDER_WAY_MAX):
            for worker in list(self._workers):
                # Another one's end may have ended it.
                if (
                    worker in self._workers
                    and len(worker.under_way) == most
                    and worker.can_take
                    and not self._knows_less(worker)
                ):
                    self._hand_out(worker)
        waiting = {worker.connection: worker for worker in self._workers if worker.under_way}
        if not waiting:
            return
        for connection in select.select(list(waiting), (), (), timeout_s)[0]:
            worker = waiting.pop(connection)
            if worker in self._workers:
                self._take_in(worker)
        if (now_s := time.monotonic()) >= self._looks_from_s:
            self._looks_from_s = now_s + LOOKS_EVERY_S
            self._give_up(waiting.values(), now_s)

    def _renew(self) -> None:
        """Let others take the places of processes that would go where nobody answers any more.

        What one has in hand it does to the end: a large file would otherwise be begun anew.
        """
        ready = [each for each in self._workers if self._knows_less(each) and not each.under_way]
        for worker in ready:
            self._workers.remove(worker)
            worker.end()
        if ready:
            self._start()

    def _knows_less(self, worker: _Worker) -> bool:
        return worker.avoids != self._walker.avoids

    def _give_up(self, unheard: Iterable[_Worker], now_s: float) -> None:
        """End processes that wait for an answer of the system which does not come.

        One that has done its work and waits for us is none of them: it can be heard.
        """
        for worker in unheard:
            if worker not in self._workers or not worker.stands_still(now_s):
                continue
            if has_room():
                self._bury(worker, UNANSWERED)
            elif not worker.is_waited_for:
                worker.is_waited_for = True
                self._on_death({"reason": _WAITED_FOR, **_place_of(worker)})

    def _hand_out(self, worker: _Worker) -> None:
        piece = self._order.next_unit(files_too=not worker.under_way)
        while piece is not None and piece.unit is not None and self._is_dead(piece.unit):
            self._leave_unseen(piece, UNANSWERED)
            piece = self._order.next_unit(files_too=not worker.under_way)
        if piece is None:
            return
        assert piece.unit is not None
        piece.taken_at = self._clock()
        worker.under_way.append(piece)
        try:
            worker.send(encode_unit(self._with_size(piece.unit)))
        except OSError:
            self._bury(worker)

    def _with_size(self, unit: Unit) -> Unit:
        if not unit.is_file:
            return unit
        directory, name = unit.directory, unit.names[0]
        decision = self._walker.place_of(directory).child(name)[0]
        if decision is None or not decision.grows:
            return unit
        return unit._replace(before_bytes=self._growing_size(directory, name))

    def _take_in(self, worker: _Worker) -> None:
        try:
            for message in worker.receive():
                self._answer(worker, message)
        except (OSError, FormatError, IndexError) as error:
            self._bury(worker, str(error) if isinstance(error, FormatError) else "")

    def _answer(self, worker: _Worker, message: bytes) -> None:
        answer: Answer = decode_answer(message, self._walker)
        self._walker.met.update(self._ruleset.decisions[index] for index in answer.met)
        self._examiner.add_numbers(*answer.numbers)
        piece = worker.under_way.popleft()
        held_bytes = len(message) + _RECORD_BYTES * len(answer.records)
        self._order.answer(piece, answer.records, answer.rest, held_bytes)

    def _bury(self, worker: _Worker, reason: str = "") -> None:
        """Take back what a process that has ended had in hand, and start another."""
        self._workers.remove(worker)
        ended = worker.end()
        under_way = worker.under_way
        is_too_large = worker.status == EXIT_NO_MEMORY
        why = self._on_memory() if is_too_large else reason or ended
        self._on_death({"reason": why, **_place_of(worker)})
        if is_too_large and self._count > 1:
            self._go_on_with_fewer(worker)
            return
        for piece in list(under_way)[1:]:
            self._order.give_back(piece)
        if under_way:
            deadly = UNANSWERED if reason == UNANSWERED else _DEADLY
            self._retry(under_way[0], _TOO_LARGE if is_too_large else deadly)
        # One that we gave up says nothing about others; and the parent would wait there for ever.
        self._deaths += reason != UNANSWERED
        if self._deaths < _DEATHS_MAX:
            self._start()
        elif self._workers:
            # There is something here that processes do not survive; we go on alone.
            self._dismiss()

    def _on_memory(self) -> str:
        share = share_bytes(self._job.memory_bytes, self._count) >> 20
        return f"it reached its {share} MiB, of the {self._count} processes of ScanMemoryLimit"

    def _go_on_with_fewer(self, worker: _Worker) -> None:
        """Start half as many processes, each with twice the memory."""
        self._workers.append(worker)
        self._dismiss()
        self._count //= 2
        self._start()

    def _dismiss(self) -> None:
        """End all processes, and take back what they had in hand."""
        for worker in self._workers:
            for piece in worker.under_way:
                self._order.give_back(piece)
            worker.kill()
            worker.end()
        self._workers.clear()

    def _retry(self, piece: Piece, reason: str) -> None:
        assert piece.unit is not None
        unit, failures = piece.unit, piece.failures + 1
        is_left = failures < _FAILURES_MAX or len(unit.names) > 1
        if reason == UNANSWERED and failures < _STANDSTILLS_MAX:
            is_left |= self._leave_alone(unit, failures)
        if is_left:
            self._order.fail(piece)
            return
        if reason == UNANSWERED and (mount := mount_around(unit.directory)) is not None:
            self._walker.avoid(frozenset((mount,)))
        self._leave_unseen(piece, reason)

    def _leave_alone(self, unit: Unit, failures: int) -> bool:
        """Leave alone what a process may have stood still at; True where that is something."""
        known = self._walker.avoids
        paths = [join(unit.directory, name) for name in unit.names]
        silent = self._suspects.silent(unit.directory, paths, known)
        if not silent and failures >= _FAILURES_MAX:
            # All have answered that question. Without those in there the directory itself may be
            # seen, and nothing of them would be seen without the directory.
            silent = mounts_inside(paths[0], known)
        self._walker.avoid(silent)
        return bool(silent)

    def _is_dead(self, unit: Unit) -> bool:
        """True where a unit lies inside of a mount that did not answer."""
        avoids, path = self._walker.avoids, unit.directory
        while avoids and path:
            if path in avoids:
                return True
            path = split(path)[0]
        return False

    def _leave_unseen(self, piece: Piece, reason: str) -> None:
        """Say of all that a unit is about that it cannot be read."""
        assert piece.unit is not None
        unit, walker = piece.unit, self._walker
        if unit.is_file:
            records = [walker.unread(unit.directory, unit.names[0], UNKNOWN_ENTRY, reason)]
        else:
            records = [walker.unopened(join(unit.directory, name), reason) for name in unit.names]
        self._order.answer(piece, records, [])

    def _merged(self, record: DirectoryRecord, parts: list[DirectoryRecord]) -> DirectoryRecord:
        """Return the record with what was found of its files one by one."""
        if not parts:
            return record
        found: dict[bytes, FileEntry | None] = {}
        known = {(finding.code, finding.path) for finding in record.findings}
        for part in parts:
            (name,) = part.scope or (b"",)
            found[name] = entries_of(part).get(name)
            record.prefixes.update(part.prefixes)
            record.findings += [
                finding for finding in part.findings if (finding.code, finding.path) not in known
            ]
        size_bytes = _put_in(record, found, self._walker.bytes_max)
        if size_bytes > self._walker.bytes_max:
            # They weighed less before their extended attributes were known.
            return self._walker.unopened(record.path, too_heavy(size_bytes, self._walker.bytes_max))
        record.deferred = []
        return record


def _place_of(worker: _Worker) -> dict[str, str]:
    """Return where it is at work, as a field; nothing where it has nothing in hand."""
    if not worker.under_way or (unit := worker.under_way[0].unit) is None:
        return {}
    return {"path": escape_bytes(join(unit.directory, unit.names[0]))}


def _put_in(
    record: DirectoryRecord, found: Mapping[bytes, FileEntry | None], bytes_max: int
) -> int:
    """Let a record say of some names what was found later; None: nothing any more.

    Returns:
        The bytes of its row; where they are more than there may be, it is left as it was.
    """
    row = pack_record(record)
    writer, is_whole = RowWriter(), True
    entries = iterate_entries(row)
    while part := list(islice(entries, NAMES_PER_PIECE)):
        kept = []
        for name, before in part:
            now = found.get(name, before)
            if now is not None:
                entry = before if now is before else _known(now, before)
                is_whole = is_whole and entry.is_known
                kept.append((name, entry))
        writer.add(kept)
        if writer.size_bytes > bytes_max:
            return writer.size_bytes
    record.fold(writer.row(), writer.count)
    record.is_whole = record.is_readable and is_whole
    return writer.size_bytes


def _known(found: FileEntry, before: FileEntry) -> FileEntry:
    """Return what was found; where that is nothing, the attributes that were seen first."""
    return found if found.is_known else before._replace(state=found.state, reason=found.reason)
