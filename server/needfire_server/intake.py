"""How batches of reports get to the store: each agent in its turn, and many in one commit.

A batch waits, as it came from the wire, until it is its agent's turn (``fair_queue.py``). Then it is
decoded. While the store commits one group the next one is prepared, and takes in whoever comes
meanwhile: so a group is as large as the commit before it was slow, and where hardly anybody speaks
nobody waits. Nothing is dropped here: who waits is not read from, and TCP holds its agent back.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Final

from needfire_protocol.codec import decode_flat
from needfire_protocol.errors import FormatError
from needfire_protocol.event import unpack_event
from needfire_protocol.event_batch import UsualEvents, unpack_usual_events
from needfire_protocol.limits import EVENT_DECODING
from needfire_protocol.messages import EVENT_REPORT, Report, ReportBatch
from needfire_server.audit.drafts import reports_draft
from needfire_server.clock import now_us
from needfire_server.fair_queue import FairQueue
from needfire_server.states import ClientState
from needfire_server.storage.base import IncomingReport, IngestResult, Store
from needfire_server.storage.event_rows import fields_texts

__all__ = ["Intake", "Taken", "read_report"]

_ROW_BYTES: Final = 256
"""What a report costs beside its body."""
_PORTION_BYTES: Final = 8_192
"""Some ten reports at each turn: less than an agent hands over that has anything to say."""
_GROUP_BYTES_MAX: Final = 2 * 1024 * 1024
"""What is committed together: some 3,000 reports, and 50 ms of decoding. A quiet agent waits for two
groups at most, the one that is being committed and the one that is being prepared."""
_GROUP_BATCHES_MAX: Final = 256
_BATCH_COST: Final = 1_024
"""What a batch costs in a turn, beside its reports."""
_TURN_BYTES: Final = 64 * 1024
"""What is decoded in one turn of the event loop: some 100 reports, and 2 ms. Not one batch at each
turn: who fills the turns would say how fast reports come in, and a flood of strangers does."""
_TOLD_IN_A_TURN: Final = 32
"""Who learns in one turn that its batch is on disk. Each wakes a session that logs, acknowledges and
verifies what comes next: some 0.2 ms. With a whole group at once nobody else was served for 50 ms."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A batch that is on disk.

    Attributes:
        lines: of the log, one for each of its events; None where they are still to be made.
    """

    reports: Sequence[IncomingReport]
    result: IngestResult
    lines: Sequence[str] | None = None


@dataclass(slots=True)
class _Waiting:
    """A batch, and who waits for it."""

    client: str
    batch: ReportBatch
    cost: int
    future: "asyncio.Future[Taken]"
    received_us: int = 0
    reports: Sequence[IncomingReport] | None = None
    """What it says; None until it is read."""
    lines: Sequence[str] | None = None


class Intake:
    """The way of all reports of one server. In the event loop's thread only."""

    def __init__(
        self,
        store: Store,
        state_of: Callable[[str], ClientState],
        lines_of: Callable[[UsualEvents], Sequence[str]],
    ) -> None:
        """Args:
        state_of: what is known of a client at the moment when its reports are committed.
        lines_of: what the log is to say of reports, once they are committed. It is made at once with
            what goes into the store, while all that they hold is at hand: that takes half the time.
        """
        self._store = store
        self._state_of = state_of
        self._lines_of = lines_of
        self._queue: FairQueue[_Waiting] = FairQueue(_PORTION_BYTES)
        self._work: asyncio.Task[None] | None = None
        """Exists while anything waits."""
        self._untold: deque[tuple[_Waiting, IngestResult | BaseException]] = deque()
        """What the store has done with, in its order."""
        self._is_telling = False
        self._is_next_ready = False
        """A group is decoded, and waits for the store."""
        self._is_handing_over = False
        """It goes there before anybody is told of the last one: else the store had nothing to do
        while they are served."""

    @property
    def waiting(self) -> int:
        """Batches whose turn has not come."""
        return len(self._queue)

    async def take(
        self, client: str, batch: ReportBatch, reports: Sequence[IncomingReport] | None = None
    ) -> Taken:
        """Store a batch when it is its client's turn; return when it is on disk.

        Args:
            reports: what the batch says, where somebody has read it already.

        Raises:
            StorageError: nothing of it is promised.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(client, batch, _cost(batch.reports), loop.create_future())
        waiting.reports = reports
        self._queue.push(client, waiting, waiting.cost)
        if self._work is None:
            self._work = loop.create_task(self._run())
        return await waiting.future

    async def _run(self) -> None:
        try:
            await self._take_turns()
        finally:
            # Whatever ended it: who comes next begins anew, instead of waiting for ever.
            self._work = None
            self._go_on_telling()

    async def _take_turns(self) -> None:
        committing: asyncio.Task[None] | None = None
        while True:
            group = await self._next_group(committing)
            self._is_next_ready = bool(group)
            if committing is not None:
                await committing
                committing = None
            if not group:
                if not len(self._queue):
                    break
                continue
            committing = asyncio.get_running_loop().create_task(self._commit(group))
            self._is_next_ready = False

    async def _next_group(self, committing: "asyncio.Task[None] | None") -> list[_Waiting]:
        """Decode what is next, until that is enough or the commit before it has ended."""
        group: list[_Waiting] = []
        cost = decoded = 0
        while cost < _GROUP_BYTES_MAX and len(group) < _GROUP_BATCHES_MAX:
            waiting = self._queue.pop()
            if waiting is not None:
                if _is_prepared(waiting, self._lines_of):
                    group.append(waiting)
                    cost += waiting.cost
                decoded += _BATCH_COST + waiting.cost
                if decoded < _TURN_BYTES:
                    continue
            if decoded:
                # The others of this loop have to live, and may have something for this group.
                decoded = 0
                if committing is None or committing.done():
                    self._go_on_telling()
                await asyncio.sleep(0)
            elif committing is None or committing.done():
                break
            else:
                self._is_next_ready = bool(group)
                await committing
        return group

    async def _commit(self, group: Sequence[_Waiting]) -> None:
        # All of them reach the writer before it looks, and so share a commit.
        ingesting = asyncio.gather(*map(self._ingest, group), return_exceptions=True)
        await asyncio.sleep(0)
        self._go_on_telling()
        results = await ingesting
        self._untold.extend(zip(group, results, strict=True))
        self._is_handing_over = self._is_next_ready
        if not self._is_telling:
            self._tell_next()

    def _go_on_telling(self) -> None:
        self._is_handing_over = False
        if not self._is_telling:
            self._tell_next()

    def _tell_next(self) -> None:
        """Wake some of those whose batches the store is done with, and the others in the next turns."""
        if self._is_handing_over:
            self._is_telling = False
            return
        portion = [self._untold.popleft() for _ in range(min(_TOLD_IN_A_TURN, len(self._untold)))]
        self._is_telling = bool(self._untold)
        if self._is_telling:
            # First, so that nothing that goes wrong with one keeps the others waiting for ever.
            asyncio.get_running_loop().call_soon(self._tell_next)
        for waiting, result in portion:
            _tell(waiting, result)

    async def _ingest(self, waiting: _Waiting) -> IngestResult:
        # Its state goes into the same commit: an agent that was told that its EXIT arrived must
        # not be called killed after a crash of the server, and it will not send it twice.
        assert waiting.reports is not None
        return await self._store.ingest(
            waiting.client,
            waiting.batch.stream,
            waiting.reports,
            received_us=waiting.received_us,
            state=self._state_of(waiting.client),
            audit=partial(
                reports_draft, waiting.client, waiting.batch.stream, waiting.batch.reports
            ),
        )


def _tell(waiting: _Waiting, result: IngestResult | BaseException) -> None:
    if waiting.future.done():
        return
    if isinstance(result, BaseException):
        waiting.future.set_exception(result)
        return
    assert waiting.reports is not None
    lines = waiting.lines
    if lines is not None and len(lines) != len(result.accepted):
        # Some of it had come before.
        lines = None
    waiting.future.set_result(Taken(waiting.reports, result, lines))


def _cost(reports: Sequence[Report]) -> int:
    return sum([len(report.body) for report in reports]) + _ROW_BYTES * len(reports)


def _is_prepared(waiting: _Waiting, lines_of: Callable[[UsualEvents], Sequence[str]]) -> bool:
    """Decode a batch; False where nobody waits for it any more, or where that fails.

    A bug that one agent's bytes bring out ends that agent's connection, which says so, and not the
    way of everybody.
    """
    if waiting.future.done():
        return False
    try:
        _prepare(waiting, lines_of)
    except Exception as error:  # noqa: BLE001 - told to who waits
        waiting.future.set_exception(error)
        return False
    return True


def _prepare(waiting: _Waiting, lines_of: Callable[[UsualEvents], Sequence[str]]) -> None:
    received_us = waiting.received_us = now_us()
    if waiting.reports is not None:
        return
    reports, client = waiting.batch.reports, waiting.client
    usual = _read_together(reports, client, received_us)
    if usual is None:
        waiting.reports = [read_report(report, client, received_us) for report in reports]
    else:
        waiting.reports = _incoming(reports, usual)
        waiting.lines = lines_of(usual)


def _read_together(reports: Sequence[Report], client: str, received_us: int) -> UsualEvents | None:
    if not {EVENT_REPORT}.issuperset([report.type for report in reports]):
        return None
    bodies = [report.body for report in reports]
    return unpack_usual_events(bodies, client=client, received_us=received_us)


def _incoming(reports: Sequence[Report], usual: UsualEvents) -> list[IncomingReport]:
    values = zip(
        [report.sequence for report in reports],
        usual.events,
        [report.body for report in reports],
        repeat(None, len(reports)),
        repeat(False, len(reports)),
        fields_texts(usual),
        strict=True,
    )
    return list(map(IncomingReport._make, values))


def read_report(report: Report, client: str, received_us: int) -> IncomingReport:
    """Return what is to be stored of a report: its event, or the raw body."""
    if report.type != EVENT_REPORT:
        problem = f"type {report.type} is not known; expected {EVENT_REPORT}"
        return IncomingReport(report.sequence, None, report.body, problem)
    try:
        # An event looks at each of its parts itself.
        data = decode_flat(report.body, limits=EVENT_DECODING)
        event = unpack_event(data, client=client, received_us=received_us)
        return IncomingReport(report.sequence, event, report.body, None)
    except FormatError as error:
        return IncomingReport(report.sequence, None, report.body, str(error))
