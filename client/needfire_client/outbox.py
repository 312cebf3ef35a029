"""How events get into the spool: a thread that commits what has gathered, many at a time.

A sync of the disk takes milliseconds, and a first check after an upgrade finds thousands of
changes; one transaction for all that came meanwhile keeps both the scan and the event loop from
waiting for the disk. When the spool has no room, the scan is held up (nothing is thrown away), and
the news of starts and stops still gets in. What a caller that cannot wait had to be refused is
counted, and told.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from itertools import islice
from typing import Final, Protocol

from needfire_client.spool import NewReport, SpoolFullError
from needfire_protocol.codec import encode
from needfire_protocol.errors import StorageError
from needfire_protocol.event import FIELD_TEXT_MAX, Event, pack_event
from needfire_protocol.limits import REPORT_BODY_BYTES_MAX, REPORTS_PER_BATCH_MAX
from needfire_protocol.plain_classes import replace

__all__ = ["QUEUE_MAX", "SpoolOutbox", "report_body"]

QUEUE_MAX: Final = 1_000
"""Events that may wait for the disk before whoever finds more of them is held up."""

_QUEUE_HARD_MAX: Final = 4 * QUEUE_MAX
"""Events at which even a caller that must not wait loses those that are not vital. The local
log has them, and how many there were is told; only a server that is away for hours together with
a disk that refuses and a busy event loop gets here."""

_RETRY_S: Final = 5.0
"""Seconds between attempts while the disk refuses: it may have been freed without our seeing."""


class _Accepted(Enum):
    """What the spool may be offered now."""

    ALL = auto()
    VITAL = auto()
    """It had no room; the reserved room may do for starts and stops."""
    NONE = auto()
    """It refused even those. Room is made by an acknowledgement, or looked for after a while."""


class Store(Protocol):
    """What keeps reports: the spool's file, or what can stand in for it."""

    def append(self, reports: Sequence[NewReport]) -> None: ...

    def mend_in_s(self) -> float | None:
        """Return seconds until ``mend`` is worth a call; None while nothing is broken."""

    def mend(self) -> bool:
        """Look whether there is room again where there was none; return whether there is."""


class SpoolOutbox:
    """Queue and thread in front of a spool.

    Args:
        on_new: called after each commit, from the thread of the outbox.
        on_full: called once each time the spool begins to have no room (bytes, limit).
        on_room: called once there is room again.
        on_failing: called once each time writing begins to fail, with the reason.
        on_lost: called with the number of events that were refused, once there is room again.
    """

    def __init__(
        self,
        spool: Store,
        *,
        on_new: Callable[[], None],
        on_full: Callable[[int, int], None],
        on_room: Callable[[], None],
        on_failing: Callable[[str], None],
        on_lost: Callable[[int], None],
    ) -> None:
        self._spool = spool
        self._on_new = on_new
        self._on_full = on_full
        self._on_room = on_room
        self._on_failing = on_failing
        self._on_lost = on_lost
        self._changed = threading.Condition()
        self._queue: deque[NewReport] = deque()
        self._committing = 0
        self._lost = 0
        self._accepted = _Accepted.ALL
        self._is_told = False
        self._is_full = False
        """Since it was told that it is, and by the outbox's own thread only."""
        self._is_leaving = False
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def put(self, event: Event, *, is_vital: bool, may_wait: bool) -> None:
        """Take an event; it is on disk a few milliseconds later.

        Args:
            may_wait: hold the caller up while too many wait. Whoever says no is never held up.
        """
        report = NewReport(event.code, event.time_us, report_body(event), is_vital)
        with self._changed:
            while may_wait and len(self._queue) >= QUEUE_MAX and not self._is_leaving:
                self._changed.wait()
            if len(self._queue) >= _QUEUE_HARD_MAX and not is_vital:
                self._lost += 1
                return
            self._queue.append(report)
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything that was put is on disk; False where time ran out first."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._queue and not self._committing, timeout_s
            )

    def room_made(self) -> None:
        """Reports left the spool, so there may be room again."""
        with self._changed:
            self._accepted = _Accepted.ALL
            self._changed.notify_all()

    def let_go(self) -> None:
        """Hold nobody up any longer: the agent stops, and the next start finds what is lost."""
        with self._changed:
            self._is_leaving = True
            self._changed.notify_all()

    def close(self, timeout_s: float) -> int:
        """Write what can be written within the time, and end; return how many events are lost."""
        with self._changed:
            self._is_closing = self._is_leaving = True
            self._accepted = _Accepted.ALL
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            return self._lost + len(self._queue)

    def _run(self) -> None:
        while (batch := self._wait_for_batch()) is not None:
            if batch:
                self._write(batch)
            if self._spool.mend():
                self.room_made()
                self._on_new()

    def _write(self, batch: list[NewReport]) -> None:
        try:
            self._spool.append(batch)
        except SpoolFullError as error:
            self._refused(batch)
            self._tell(partial(self._tell_full, error))
        except StorageError as error:
            self._refused(batch)
            self._tell(partial(self._on_failing, str(error)))
        else:
            self._written(batch)
            self._on_new()
            self._tell_room()

    def _wait_for_batch(self) -> list[NewReport] | None:
        """Return the reports to write next; none where only the spool wants to be mended.

        None at all when there is nothing more to do for good.
        """
        with self._changed:
            while not (batch := self._next()):
                if self._is_closing:
                    return None
                mend_in_s = self._spool.mend_in_s()
                if mend_in_s == 0:
                    break
                retry_s = None if self._accepted is _Accepted.ALL else _RETRY_S
                waits = [each for each in (mend_in_s, retry_s) if each is not None]
                if not self._changed.wait(min(waits, default=None)):
                    self._accepted = _Accepted.ALL
            self._committing = len(batch)
            return batch

    def _next(self) -> list[NewReport]:
        if self._accepted is _Accepted.NONE:
            return []
        if self._accepted is _Accepted.VITAL:
            return [report for report in self._queue if report.is_vital]
        return list(islice(self._queue, REPORTS_PER_BATCH_MAX))

    def _refused(self, batch: list[NewReport]) -> None:
        is_all_vital = all(report.is_vital for report in batch)
        with self._changed:
            self._committing = 0
            self._accepted = _Accepted.NONE if is_all_vital else _Accepted.VITAL
            self._changed.notify_all()

    def _written(self, batch: list[NewReport]) -> None:
        done = set(map(id, batch))
        with self._changed:
            self._queue = deque(report for report in self._queue if id(report) not in done)
            self._committing = 0
            self._is_told &= self._accepted is not _Accepted.ALL
            self._changed.notify_all()

    def _tell_full(self, error: SpoolFullError) -> None:
        self._is_full = True
        self._on_full(error.bytes_used, error.size_max_bytes)

    def _tell_room(self) -> None:
        # What goes into the reserved room says nothing of room for the rest.
        if self._is_told:
            return
        if self._is_full:
            self._is_full = False
            self._on_room()
        with self._changed:
            lost, self._lost = self._lost, 0
        if lost:
            self._on_lost(lost)

    def _tell(self, say: Callable[[], None]) -> None:
        if not self._is_told:
            self._is_told = True
            say()


def report_body(event: Event) -> bytes:
    """Return the body of the report of an event, its texts cut where names are monstrous."""
    body = encode(pack_event(event))
    length_max = FIELD_TEXT_MAX
    while len(body) > REPORT_BODY_BYTES_MAX:
        length_max //= 2
        body = encode(pack_event(_shortened(event, length_max)))
    return body


def _shortened(event: Event, length_max: int) -> Event:
    fields = {
        name: value[:length_max] if isinstance(value, str) else value
        for name, value in event.fields.items()
    }
    return replace(event, fields=fields)
