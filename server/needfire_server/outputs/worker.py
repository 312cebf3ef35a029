"""One output at work: it reads the store behind its cursor, and moves the cursor when all is safe.

    read a page ─▶ select ─▶ hold (mail) ─▶ save "attempted" ─▶ deliver ─▶ settle ─▶ save "confirmed"

The store is the buffer: nothing is copied, nothing is dropped, and reports are taken as fast as
ever while a target is slow or away. A crash between two of the steps means that something is sent
again, and then it is marked, because ``attempted`` was on disk before the first byte went out.

A record that the target refuses for good is set aside at once, in the same commit as the cursor
behind it, and gets its other chances beside those that follow. The back-off is for a target that is
away; an agent whose records are refused holds up nobody else's.
"""

import asyncio
import random
import ssl
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import takewhile
from typing import Any, Final, Protocol

from needfire_protocol.errors import StorageError
from needfire_protocol.escape import printable
from needfire_protocol.event import Event, FieldValue
from needfire_server.clock import monotonic_s, now_us
from needfire_server.outputs.backoff import Backoff
from needfire_server.outputs.gathering import delivery_size, due_in_s, leading
from needfire_server.outputs.records import marked
from needfire_server.outputs.second_chances import SecondChances
from needfire_server.outputs.settings import OutputSettings
from needfire_server.outputs.suspects import Suspects, source_of
from needfire_server.outputs.target import (
    MakeTarget,
    NumberedTarget,
    RefusedError,
    Target,
    TargetError,
)
from needfire_server.storage.output_cursors import (
    OUTPUT_PAGE,
    OutputCursor,
    OutputStore,
    Skipped,
    StoredEvent,
)

__all__ = ["RaiseEvent", "Worker", "WorkerState", "reason_of"]

REASON_TEXT_MAX: Final = 300
NEARLY_FULL: Final = 0.8
DRAINED: Final = 0.5
UNSELECTED_MAX: Final = 5_000
"""Events that were not selected and that a crash makes us look at again."""
STORE_PAUSE_S: Final = 1.0
SKIPPED_MAX: Final = 1_000
"""Records of one client that an output may have set aside. What comes beyond is given up, and told:
an output that waited there would wait for all clients."""
PASSED_OVER_MAX: Final = 255
"""Records of one client that are given up at a time without being tried."""
GATHER_S: Final = 0.1
"""Events that come within this time are read, sent and confirmed together: one by one, each would
cost the store two commits more."""


class RaiseEvent(Protocol):
    """Raises one of the server's own events."""

    def __call__(self, code: str, /, **fields: FieldValue) -> object: ...


class WorkerState(Enum):
    """How an output is, for people."""

    WORKING = "working"
    AWAY = "away"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class _Unsettled:
    """What was handed over and still may be lost with the connection."""

    position: int
    count: int
    mark: int
    due_s: float


class _Level(Enum):
    """How full the buffer is, as far as it was announced."""

    FINE = 0
    NEARLY_FULL = 1
    FULL = 2


class Worker:
    """Delivers to one output, until it is told to stop. In the event loop's thread."""

    def __init__(
        self,
        settings: OutputSettings,
        cursor: OutputCursor,
        store: OutputStore,
        *,
        make_target: MakeTarget,
        raise_event: RaiseEvent,
        backoff: Backoff | None = None,
        clock_s: Callable[[], float] = monotonic_s,
        clock_us: Callable[[], int] = now_us,
    ) -> None:
        self.settings = settings
        self.cursor = cursor
        """As far as it is known to this process; the one on disk may be behind."""
        self.state = WorkerState.WORKING
        self.reason = ""
        """Why the target did not take the last delivery, or what it said of it; empty if nothing."""
        self._store = store
        self._make_target = make_target
        self._raise_event = raise_event
        self._backoff = backoff or Backoff()
        self._clock_s = clock_s
        self._clock_us = clock_us
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._target: Target | None = None
        self._unsettled: deque[_Unsettled] = deque()
        self._saved = cursor
        self._level = _Level.FINE
        self._away_since_s = 0.0
        self._suspects = Suspects()
        self._second_chances = SecondChances()
        self._given_up: Counter[str | None] = Counter()
        self._in_a_row: Counter[str | None] = Counter()
        """Tries by source that ended in giving a record up, since the target took one of that source."""
        self._set_aside_of: dict[str | None, int] = {}
        """By source, as far as it was asked for; too many at most: others may see to some."""
        self._gaps: dict[int, int] = {}
        """What the store no longer has behind the cursor, and that was told: how many, by the last."""

    def notify(self) -> None:
        """Say that the store has new events."""
        self._wake.set()

    def stop(self) -> None:
        """Ask it to deliver what it can without waiting, and to end."""
        self._is_stopping = True
        self._wake.set()

    async def keep_position(self) -> None:
        """Write down how far it is, also where it has only passed over what it does not want.

        Raises:
            StorageError: the position on disk is an older one.
        """
        await self._save(force=True)

    async def waiting(self) -> int:
        """Return how many events of the store are not known to be delivered; selected or not."""
        return max(await self._store.last() - self.cursor.confirmed, 0)

    async def run(self) -> None:
        """Work until stopped. No failure of a target, of the store or of our own ends it."""
        try:
            while not self._is_stopping:
                try:
                    await self._pump()
                    await self._finish()
                except (TargetError, OSError, ssl.SSLError) as error:
                    await self._failed(reason_of(error))
                except StorageError:
                    # Announced by those who write to it; no fault of the target.
                    await self._pause(STORE_PAUSE_S)
                except Exception as error:  # noqa: BLE001 - one output's bug must not stop the rest
                    await self._failed(f"internal error: {type(error).__name__}: {error}")
                finally:
                    self._let_go()
        finally:
            self.state = WorkerState.STOPPED

    # ---- reading ---------------------------------------------------------------------------------

    async def _pump(self) -> None:
        """Deliver what comes; return when it is to stop and nothing more can go at once."""
        position = self.cursor.confirmed
        held: list[StoredEvent] = []
        while True:
            self._wake.clear()
            self._notice_loss()
            await self._stay_connected()
            page = await self._store.after(position)
            await self._note_removed(position, page)
            held += [each for each in page if each[1] in self.settings.selection]
            position = page[-1][0] if page else position
            held = await self._send_due(held, position)
            self._settle()
            if len(page) == OUTPUT_PAGE or self._level is not _Level.FINE:
                await self._watch_buffer()
            if len(page) == OUTPUT_PAGE:
                continue
            await self._save()
            if self._is_stopping:
                return
            if not await self._retry_one():
                await self._idle(held)

    async def _note_removed(self, position: int, page: Sequence[StoredEvent]) -> None:
        """Say once what the store no longer has. It is counted with what is confirmed behind it."""
        # Numbers have no gaps but what was removed.
        confirmed = self.cursor.confirmed
        self._gaps = {last: count for last, count in self._gaps.items() if last > confirmed}
        before, new = position, 0
        for number, _ in page:
            if number > before + 1:
                new += self._widened(before, number - 1)
            before = number
        if page and position == confirmed:
            # In front of all: if this waited for a delivery, each attempt would meet it again.
            self.cursor = self._passed(page[0][0] - 1)
            await self._save()
        if new:
            self._raise_event("OUTPUT_EVENTS_LOST", output=self.settings.name, count=new)

    def _widened(self, before: int, end: int) -> int:
        """Note a gap; return how many of it are new. It holds all of what was missing in it before."""
        known = [last for last in self._gaps if before < last <= end]
        count = end - before
        new = count - sum(self._gaps.pop(last) for last in known)
        self._gaps[end] = count
        return new

    async def _send_due(self, held: list[StoredEvent], position: int) -> list[StoredEvent]:
        """Deliver what is due of the held events; return the rest."""
        while held and due_in_s(self.settings.mail, held, self._clock_us()) <= 0:
            most = self._suspects.delivery_size(
                self.cursor.confirmed, delivery_size(self.settings.mail)
            )
            count = leading(held, most)
            batch, rest = held[:count], held[count:]
            try:
                await self._send(batch, batch[-1][0] if rest else position)
                held = rest
            except RefusedError as error:
                held = await self._past_refusal(error, batch, rest)
        if not held and not self._unsettled:
            self.cursor = self._passed(position)
        return held

    async def _past_refusal(
        self, error: RefusedError, batch: Sequence[StoredEvent], rest: list[StoredEvent]
    ) -> list[StoredEvent]:
        """Find the record that is refused for good, and set it aside; return what is left to send.

        Args:
            rest: what follows the batch.

        At once and without reading again: whoever sends records that are refused must not be able
        to make this slow for the others.

        Raises:
            TargetError: the target may be to blame, or something before it may be lost.
            StorageError: it could not be set aside.
        """
        left = list(batch[error.delivered :])
        suspects = left[:1] if error.is_next else left
        if self._unsettled or not suspects:
            raise error
        self._let_go()
        if not self._suspects.narrowed(suspects):
            return left + rest
        number, event = left[0]
        if not self._suspects.is_certain:
            raise error
        if not await self._set_aside(number, event, reason_of(error)):
            raise error
        return await self._passed_over(left[1:] + rest, source_of(event))

    async def _passed_over(self, held: list[StoredEvent], source: str | None) -> list[StoredEvent]:
        """Give up more and more of a source of which one record after the other had to be given up.

        Each try costs the others' records time, and an agent may send faster than a target refuses.
        Only of what comes next, and of that source: no other's, and nothing that is not stored yet.
        """
        most = min(2 ** max(self._in_a_row[source] - 1, 0) - 1, PASSED_OVER_MAX)
        alike = takewhile(lambda each: source_of(each[1]) == source, held[:most])
        if count := sum(1 for _ in alike):
            await self._give_up(held[count - 1][0], source, count)
        return held[count:]

    # ---- sending ---------------------------------------------------------------------------------

    async def _send(self, batch: Sequence[StoredEvent], position: int) -> None:
        target = await self._opened()
        seen = self.cursor.attempted
        last = batch[-1][0]
        if last > seen:
            self.cursor = replace(self.cursor, attempted=last)
            await self._save(force=True)
        again = sum(number <= seen for number, _ in batch)
        self.cursor = replace(self.cursor, retried=self.cursor.retried + again)
        try:
            if isinstance(target, NumberedTarget):
                await target.deliver_numbered(batch)
            else:
                await _deliver(target, [marked(event, is_resent=n <= seen) for n, event in batch])
        except TargetError as error:
            if error.delivered:
                self._confirm(batch[error.delivered - 1][0], error.delivered)
                self._suspects.taken()
                self._was_taken(batch[: error.delivered])
            raise
        self._works(target.remark)
        self._was_taken(batch)
        if target.settle_s == 0:
            self._confirm(position, len(batch))
            return
        due_s = self._clock_s() + target.settle_s
        self._unsettled.append(_Unsettled(position, len(batch), target.handed_over(), due_s))

    def _was_taken(self, events: Sequence[StoredEvent]) -> None:
        for _, event in events if self._in_a_row else ():
            self._in_a_row.pop(source_of(event), None)

    async def _opened(self) -> Target:
        if self._target is None:
            target = self._make_target(self.settings, self._wake.set)
            self._target = target
            await target.open()
            if isinstance(target, NumberedTarget):
                await target.join()
            return target
        return self._target

    def _notice_loss(self) -> None:
        """A connection that ends while all is settled is opened again when there is need.

        Raises:
            TargetError: something may be lost with it.
        """
        if self._target is None or not self._target.is_lost:
            return
        if isinstance(self._target, NumberedTarget) or self._unsettled:
            raise TargetError(self._target.loss)
        self._let_go()

    async def _stay_connected(self) -> None:
        """Connect before there is something to send, where silence would be taken for a failure."""
        if self.settings.relay is not None and not self._is_stopping:
            target = await self._opened()
            self._works(target.remark)

    def _settle(self) -> None:
        """Take for delivered what the other host has acknowledged and had time to read."""
        if self._target is None or self._target.is_lost:
            return
        now_s, acknowledged = self._clock_s(), self._target.acknowledged()
        while self._unsettled:
            oldest = self._unsettled[0]
            if oldest.due_s > now_s or oldest.mark > acknowledged:
                return
            self._confirm(oldest.position, oldest.count)
            self._unsettled.popleft()

    def _confirm(self, position: int, count: int) -> None:
        self.cursor = replace(self._passed(position), sent=self.cursor.sent + count)

    def _passed(self, number: int) -> OutputCursor:
        """Return the cursor behind a number, with what is missing up to there counted as dropped."""
        known, cursor = self.cursor.confirmed, self.cursor.passed(number)
        lost = sum(count for last, count in self._gaps.items() if known < last <= number)
        return replace(cursor, dropped=cursor.dropped + lost)

    async def _finish(self) -> None:
        """End the connection in peace, and know then whether everything arrived."""
        if self._target is None:
            return
        is_certain = await self._target.finish()
        if is_certain:
            for each in self._unsettled:
                self._confirm(each.position, each.count)
            self._unsettled.clear()
            await self._save()

    def _let_go(self) -> None:
        target, self._target = self._target, None
        self._unsettled.clear()
        if target is not None:
            target.abort()

    async def _save(self, *, force: bool = False) -> None:
        """Write the cursor down; what was merely passed over can wait."""
        if self.cursor == self._saved:
            return
        moved = self.cursor.confirmed - self._saved.confirmed
        is_urgent = force or self._is_stopping or moved >= UNSELECTED_MAX
        if is_urgent or _counters(self.cursor) != _counters(self._saved):
            cursor = self.cursor
            await self._store.save(cursor)
            self._saved = cursor

    # ---- waiting ---------------------------------------------------------------------------------

    async def _idle(self, held: Sequence[StoredEvent]) -> None:
        waits = []
        if held:
            waits.append(due_in_s(self.settings.mail, held, self._clock_us()))
        if self._unsettled:
            # What is due and not acknowledged yet is asked about again soon.
            waits.append(max(self._unsettled[0].due_s - self._clock_s(), 0.2))
        if (retry_s := self._second_chances.wait_s(self._clock_s())) is not None:
            waits.append(max(retry_s, 0.2))
        await self._sleep(min(waits) if waits else None)
        if not self._is_stopping:
            await asyncio.sleep(GATHER_S)

    async def _pause(self, wait_s: float) -> None:
        """Wait after a failure; new events do not shorten it, the order to stop does."""
        end_s = self._clock_s() + wait_s
        while not self._is_stopping and (left_s := end_s - self._clock_s()) > 0:
            self._wake.clear()
            await self._sleep(left_s)

    async def _sleep(self, limit_s: float | None) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await self._wake.wait()
        except TimeoutError:
            return

    # ---- what is announced -----------------------------------------------------------------------

    async def _failed(self, reason: str) -> None:
        self._let_go()
        self.reason = printable(reason, REASON_TEXT_MAX)
        if self.state is not WorkerState.AWAY:
            self.state = WorkerState.AWAY
            self._away_since_s = self._clock_s()
            self._raise_event(
                "OUTPUT_FAILED",
                output=self.settings.name,
                target=self.settings.shown_target,
                reason=self.reason,
            )
        try:
            await self._save()
            await self._watch_buffer()
        except StorageError:
            pass  # Tried again with the next delivery.
        wait_s = self._backoff.failed(self._clock_s(), random.random())  # noqa: S311 - no secret
        await self._pause(wait_s)

    async def _set_aside(self, number: int, event: Event, reason: str) -> bool:
        """Keep a record for a person to see to, and go on behind it; False where there is no room."""
        name, source = self.settings.name, source_of(event)
        if await self._room_of(source) <= 0:
            if self._suspects.is_target_to_blame:
                return False
            self._in_a_row[source] += 1
            await self._give_up(number, source, 1)
            return True
        is_first = not any(self._set_aside_of.values()) and not (
            (await self._store.skipped_counts()).get(name, 0)
        )
        cursor = self._passed(number)
        skipped = Skipped(name, number, event, printable(reason, REASON_TEXT_MAX), self._clock_us())
        await self._store.skip(cursor, skipped)
        self.cursor = self._saved = cursor
        self._set_aside_of[source] += 1
        self._second_chances.add(number, self._clock_s())
        if is_first:
            self._raise_event("OUTPUT_RECORD_SKIPPED", output=name, reason=skipped.reason)
        return True

    async def _room_of(self, source: str | None) -> int:
        """Return how many more records of a client may be set aside."""
        # Counted by the store only where need be: with each record it would be slow for all others.
        if self._set_aside_of.get(source, SKIPPED_MAX) >= SKIPPED_MAX:
            found = await self._store.skipped_of(self.settings.name, source)
            self._set_aside_of[source] = found
        return SKIPPED_MAX - self._set_aside_of[source]

    async def _give_up(self, number: int, source: str | None, count: int) -> None:
        """Pass over records of a source for which there is no room, up to a number."""
        before = self._given_up[source]
        self._given_up[source] = after = before + count
        if not before or len(str(before)) < len(str(after)):
            # The first, the tenth, the hundredth: a flood must not become one of our own.
            self._raise_event(
                "OUTPUT_RECORDS_GIVEN_UP",
                output=self.settings.name,
                about=source or "the server itself",
                count=after,
            )
        cursor = self._passed(number)
        self.cursor = replace(cursor, dropped=cursor.dropped + count)
        await self._save(force=True)

    async def _retry_one(self) -> bool:
        """Send one of the records that are set aside once more, where one is due; False: none is.

        Only when nothing else is to be sent. A target that keeps the highest number has passed it.

        Raises:
            TargetError, OSError, ssl.SSLError: the target is away.
            StorageError: what was sent may come again.
        """
        if self._unsettled or self._second_chances.wait_s(self._clock_s()) != 0.0:
            return False
        target = await self._opened()
        # Forgotten before it is sent: one that makes the target fail has its number of tries as well.
        if (due := self._second_chances.take(self._clock_s())) is None:
            return False
        number, tries = due
        name = self.settings.name
        found = [
            each for each in await self._store.skipped(name, number - 1, 1) if each.number == number
        ]
        if not found or isinstance(target, NumberedTarget) or target.settle_s > 0:
            return True
        try:
            await _deliver(target, [marked(found[0].event, is_resent=True)])
        except RefusedError:
            self._second_chances.add(number, self._clock_s(), tries=tries)
            self._let_go()
            return True
        self._works(target.remark)
        if await self._store.forget_skipped(name, [number]):
            self.count(sent=1)
            if not (await self._store.skipped_counts()).get(name):
                self._raise_event("OUTPUT_SKIPPED_HANDLED", output=name)
        return True

    def count(self, *, sent: int = 0, dropped: int = 0) -> None:
        """Count what became of records that were set aside."""
        self._set_aside_of.clear()
        cursor = self.cursor
        self.cursor = replace(cursor, sent=cursor.sent + sent, dropped=cursor.dropped + dropped)

    def _works(self, remark: str) -> None:
        if remark and remark != self.reason:
            self._raise_event("OUTPUT_REMARK", output=self.settings.name, reason=remark)
        self.reason = remark
        self._suspects.taken()
        if self.state is WorkerState.AWAY:
            self.state = WorkerState.WORKING
            self._raise_event(
                "OUTPUT_RECOVERED",
                output=self.settings.name,
                target=self.settings.shown_target,
                away_s=int(self._clock_s() - self._away_since_s),
            )

    async def _watch_buffer(self) -> None:
        """Say when the buffer is nearly full, full, and well again; each once."""
        limit = self.settings.buffer_limit
        waiting = await self.waiting()
        told: dict[str, Any] = {"output": self.settings.name, "waiting": waiting, "limit": limit}
        if waiting >= limit and self._level is not _Level.FULL:
            self._level = _Level.FULL
            self._raise_event("OUTPUT_BUFFER_FULL", **told)
        elif waiting >= limit * NEARLY_FULL and self._level is _Level.FINE:
            self._level = _Level.NEARLY_FULL
            self._raise_event("OUTPUT_BUFFER_NEARLY_FULL", **told)
        elif waiting < limit * DRAINED and self._level is not _Level.FINE:
            self._level = _Level.FINE
            self._raise_event("OUTPUT_BUFFER_DRAINED", **told)


async def _deliver(target: Target, events: Sequence[Event]) -> None:
    """Deliver; a record that breaks our own code is refused, or it would block the output for ever."""
    try:
        await target.deliver(events)
    except (TargetError, OSError, ssl.SSLError, StorageError):
        raise
    except Exception as error:
        raise RefusedError(f"internal error: {type(error).__name__}: {error}") from error


def _counters(cursor: OutputCursor) -> tuple[int, int, int]:
    return cursor.sent, cursor.retried, cursor.dropped


def reason_of(error: Exception) -> str:
    """Return what a failure says to a person."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return str(error) or "it did not answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error)
