"""All outputs of a server: one worker each, begun and ended as the configuration says."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from needfire_protocol.errors import StorageError
from needfire_protocol.event import Event
from needfire_server.clock import monotonic_s
from needfire_server.outputs.records import marked
from needfire_server.outputs.settings import OutputSettings, TargetKind
from needfire_server.outputs.target import MakeTarget, RefusedError
from needfire_server.outputs.targets import make_target
from needfire_server.outputs.worker import (
    STORE_PAUSE_S,
    RaiseEvent,
    Worker,
    WorkerState,
    reason_of,
)
from needfire_server.storage.output_cursors import OutputCursor, OutputStore, Skipped

__all__ = ["OutputEngine", "OutputStatus", "Retried", "SentNow"]

STOP_LIMIT_S: Final = 5.0
TEST_EXTRA_S: Final = 5.0
CHOICE_INTERVAL_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class OutputStatus:
    """How an output is."""

    name: str
    target: str
    format: str
    state: WorkerState
    reason: str
    sent: int
    retried: int
    dropped: int
    waiting: int
    """Events of the store that it has not passed yet, selected or not."""
    held: int
    """Those of them that are older than their class is kept."""
    skipped: int
    """Events that the target refused for good, and that are set aside."""


@dataclass(frozen=True, slots=True)
class SentNow:
    """What came of one record that was sent beside those that wait."""

    reason: str
    """Why it was not taken; empty when it was."""
    is_certain: bool
    """Whether it is known that it arrived."""
    duration_ms: int
    is_refused: bool = False
    """Whether it will never be taken."""


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of events that had been set aside.

    Attributes:
        reason: why it ended before all were tried; empty otherwise.
    """

    sent: int
    refused: int
    reason: str


@dataclass(slots=True)
class _Running:
    worker: Worker
    task: "asyncio.Task[None]"


class OutputEngine:
    """Runs outputs. In the event loop's thread."""

    def __init__(
        self,
        store: OutputStore,
        *,
        raise_event: RaiseEvent,
        make_target: MakeTarget = make_target,
    ) -> None:
        self._store = store
        self._raise_event = raise_event
        self._make_target = make_target
        self._wanted: tuple[OutputSettings, ...] = ()
        self._running: dict[str, _Running] = {}
        self._changed = asyncio.Event()
        self._is_stopping = False
        self.held: Mapping[str, int] = {}
        """Events that the store keeps beyond their time for each output, when last looked."""

    async def begin(self, outputs: Sequence[OutputSettings]) -> None:
        """Say which outputs there are, and from where on new ones send: from now.

        Raises:
            StorageError: their cursors cannot be read or made.
        """
        self.configure(outputs)
        await self._cursors()

    def configure(self, outputs: Sequence[OutputSettings]) -> None:
        """Say which outputs there are from now on; those that are unchanged go on undisturbed."""
        self._wanted = tuple(outputs)
        self._changed.set()

    def notify(self) -> None:
        """Say that the store has new events."""
        for running in self._running.values():
            running.worker.notify()

    async def run(self) -> None:
        """Run the outputs, for ever; cancelled at the end, after ``stop``."""
        while True:
            await self._until_chosen()
            await self._while_chosen()

    async def stop(self, limit_s: float = STOP_LIMIT_S) -> None:
        """Let every output deliver what it can at once, and end all of them."""
        self._is_stopping = True
        await _end(list(self._running.values()), limit_s)

    async def positions(self) -> dict[str, int]:
        """Return up to which event each output of the configuration needs nothing more.

        These positions are on disk: after a crash no output begins before its own.

        Raises:
            StorageError: they cannot be read.
        """
        for running in list(self._running.values()):
            # One that cannot be saved now is an older one, which is as safe.
            with contextlib.suppress(StorageError):
                await running.worker.keep_position()
        kept = {each.name: each.confirmed for each in await self._store.cursors()}
        return {each.name: kept[each.name] for each in self._wanted if each.name in kept}

    # ---- what was set aside ------------------------------------------------------------------------

    async def skipped(self, name: str, after: int, limit: int) -> Sequence[Skipped]:
        """Return what was set aside for an output, also one that is no longer configured.

        Raises:
            StorageError: it cannot be read.
        """
        return await self._store.skipped(name, after, limit)

    async def skipped_counts(self) -> Mapping[str, int]:
        """Return how many events are set aside, by output."""
        return await self._store.skipped_counts()

    async def retry_skipped(self, name: str, number: int | None) -> Retried | None:
        """Send what was set aside once more, each by itself, in order; forget what is taken.

        Args:
            number: of one event; None for all.

        None where there is no such output. It ends at the first failure that says nothing of the
        record.

        Raises:
            StorageError: what was sent may come again.
        """
        sent = refused = 0
        position = 0 if number is None else number - 1
        while page := await self._store.skipped(name, position, 1):
            [each] = page
            if number is not None and each.number != number:
                break
            position = each.number
            result = await self.send_now(name, marked(each.event, is_resent=True))
            if result is None:
                return None
            if result.reason and not result.is_refused:
                return Retried(sent, refused, result.reason)
            if result.reason:
                refused += 1
            else:
                sent += await self._forget(name, [each.number], sent=1)
        return Retried(sent, refused, "")

    async def discard_skipped(self, name: str, number: int | None) -> int:
        """Forget what was set aside, without sending it; return how many events that were.

        Raises:
            StorageError: some may be forgotten.
        """
        count, position = 0, 0 if number is None else number - 1
        while page := await self._store.skipped(name, position):
            numbers = [each.number for each in page if number in (None, each.number)]
            count += await self._forget(name, numbers, dropped=len(numbers))
            if number is not None:
                break
            position = page[-1].number
        return count

    async def _forget(self, name: str, numbers: Sequence[int], **counted: int) -> int:
        count = await self._store.forget_skipped(name, numbers)
        running = self._running.get(name)
        if running is not None and count:
            running.worker.count(**counted)
            running.worker.notify()
        if count and not (await self._store.skipped_counts()).get(name):
            self._raise_event("OUTPUT_SKIPPED_HANDLED", output=name)
        return count

    async def status(self) -> list[OutputStatus]:
        """Return how each output is, in the order of the configuration."""
        skipped = await self._store.skipped_counts()
        return [
            await self._status(self._running[each.name].worker, skipped.get(each.name, 0))
            for each in self._wanted
            if each.name in self._running
        ]

    def channels_for(self, event: Event) -> list[str]:
        """Return the outputs that an event can be sent to without the store, as they select it.

        Relays are none: what they pass on has a number, which only the store gives.
        """
        return [
            each.name
            for each in self._wanted
            if event in each.selection and each.kind is not TargetKind.RELAY
        ]

    async def send_now(self, name: str, event: Event) -> SentNow | None:
        """Send one record to an output's target now, on a connection of its own.

        None where there is no such output. What waits is not touched, and the store not asked.
        """
        settings = next((each for each in self._wanted if each.name == name), None)
        if settings is None:
            return None
        began_s = monotonic_s()
        reason, is_certain, is_refused = "", False, False
        target = self._make_target(settings, lambda: None)
        try:
            async with asyncio.timeout(settings.time_limit_s + TEST_EXTRA_S):
                await target.open()
                await target.deliver([event])
                is_certain = await target.finish()
        except Exception as error:  # noqa: BLE001 - whatever it is, the person who tests is told
            reason = reason_of(error) or type(error).__name__
            is_refused = isinstance(error, RefusedError)
        finally:
            target.abort()
        duration_ms = round((monotonic_s() - began_s) * 1_000)
        return SentNow(reason, is_certain, duration_ms, is_refused)

    # ---- workers -----------------------------------------------------------------------------------

    async def _until_chosen(self) -> None:
        """Wait until this server sends: of several at one store only one does."""
        while True:
            try:
                if await self._store.may_send():
                    return
            except StorageError:
                pass  # Announced by those who write to it.
            await asyncio.sleep(CHOICE_INTERVAL_S)

    async def _while_chosen(self) -> None:
        """Run the outputs until another server may do so; then none of ours is left running."""
        async with asyncio.TaskGroup() as group:
            self._changed.set()
            while await self._is_still_chosen():
                if not self._changed.is_set():
                    continue
                self._changed.clear()
                try:
                    await self._reconcile(group)
                except StorageError:
                    # Announced by those who write to it; until it works nothing can be sent.
                    self._changed.set()
                    await asyncio.sleep(STORE_PAUSE_S)
            # What they had begun the other server sends again, and marks.
            await _end(list(self._running.values()), 0)
            self._running.clear()

    async def _is_still_chosen(self) -> bool:
        """Wait for a change of the configuration, but not for long; False where our turn is over.

        A store that cannot be asked has let go of our lock as well.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHOICE_INTERVAL_S):
                await self._changed.wait()
        try:
            return await self._store.may_send()
        except StorageError:
            return False

    async def _reconcile(self, group: asyncio.TaskGroup) -> None:
        wanted = {each.name: each for each in self._wanted}
        ended = [
            running
            for name, running in self._running.items()
            if wanted.get(name) != running.worker.settings
        ]
        await _end(ended, STOP_LIMIT_S)
        for running in ended:
            del self._running[running.worker.settings.name]
        cursors = await self._cursors()
        for name, settings in wanted.items():
            if name not in self._running and not self._is_stopping:
                worker = Worker(
                    settings,
                    cursors[name],
                    self._store,
                    make_target=self._make_target,
                    raise_event=self._raise_event,
                )
                task = group.create_task(worker.run(), name=f"output {name}")
                self._running[name] = _Running(worker, task)

    async def _cursors(self) -> dict[str, OutputCursor]:
        """Return a cursor for each output that is wanted; a new one begins at what comes next."""
        cursors = {each.name: each for each in await self._store.cursors()}
        last = await self._store.last()
        for name in (each.name for each in self._wanted if each.name not in cursors):
            cursors[name] = OutputCursor(name, last, last)
            await self._store.save(cursors[name])
        return cursors

    async def _status(self, worker: Worker, skipped: int) -> OutputStatus:
        settings, cursor = worker.settings, worker.cursor
        return OutputStatus(
            name=settings.name,
            target=settings.shown_target,
            format=settings.format,
            state=worker.state,
            reason=worker.reason,
            sent=cursor.sent,
            retried=cursor.retried,
            dropped=cursor.dropped,
            waiting=await worker.waiting(),
            held=self.held.get(settings.name, 0),
            skipped=skipped,
        )


async def _end(running: Sequence[_Running], limit_s: float) -> None:
    for each in running:
        each.worker.stop()
    tasks = [each.task for each in running]
    if not tasks:
        return
    await asyncio.wait(tasks, timeout=limit_s)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait(tasks)
