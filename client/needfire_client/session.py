"""What happens on one open connection: announcing, delivering reports, files, orders, goodbye.

A session reads in one place (``run``) and speaks from several. It ends when the connection does,
when the key gets too old, or when the server says that another agent took its place; ``run`` then
returns why, and whoever still waits for an answer gets the same as an exception.
"""

import asyncio
import errno
import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from needfire_client.downloads import Download, DownloadFile, FileRefusedError
from needfire_client.link import BrokenError, Link, LinkError, LocalTroubleError
from needfire_client.waiting import WaitingReports
from needfire_client.witness import Witness
from needfire_protocol.errors import FormatError, NeedfireError, StorageError
from needfire_protocol.keys import sign_report
from needfire_protocol.limits import (
    CHUNK_BYTES_MAX,
    REPORT_BATCH_BYTES_MAX,
    REPORTS_PER_BATCH_MAX,
)
from needfire_protocol.messages import (
    EVENT_REPORT,
    Acknowledge,
    Announce,
    AuditCheckpoint,
    AuditProof,
    Command,
    CommandResult,
    FileBegin,
    FileChunk,
    FileEnd,
    FileKind,
    FileRefused,
    FileRequest,
    Goodbye,
    GoodbyeAccepted,
    Heartbeat,
    Message,
    ProposalAccepted,
    ProposalBegin,
    ProposalChunk,
    ProposalEnd,
    ProposalRefused,
    Report,
    ReportBatch,
    SessionExpired,
    Welcome,
)
from needfire_protocol.plain_classes import dataclass

__all__ = ["ExpiredError", "FileRefusedError", "Proposal", "ProposalRefusedError", "Session"]

_REPLY_S: Final = 60.0
"""Seconds for a server to answer a request. It may have to hash a large file first."""

_GOODBYE_S: Final = 5.0
_STALLED_S: Final = 300.0
"""Seconds without an acknowledgement, while reports are on their way, after which another
connection (and perhaps another server) is worth a try."""

_WINDOW_BATCHES: Final = 4
"""Batches on their way: the server can commit one while the next ones travel."""

_RENEW_PART: Final = 0.9
"""Part of a key's life after which a new one is negotiated, before the server has to insist."""

_TRANSFER_QUEUE: Final = 8
"""Pieces of a file that wait to be written; beyond that we stop reading, and TCP the server."""

_T = TypeVar("_T")


class ExpiredError(LinkError):
    """The session's key is too old. Negotiate anew; nothing is lost and nobody is to blame."""


class ProposalRefusedError(NeedfireError):
    """The server did not take a proposed baseline."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A baseline that the server has taken for an administrator to look at."""

    number: int
    size_bytes: int
    sha256: str


class Session:
    """An open connection and what the agent does on it.

    Args:
        spool: whose reports are delivered.
        on_order: called for each command of an administrator; must not block.
        on_delivered: called after each acknowledgement.
        clock_us: microseconds since 1970, for heartbeats.
        heartbeat_s: seconds between heartbeats; may be changed while it runs.
        witness: holds the server to the audit log that it showed before.
    """

    def __init__(
        self,
        link: Link,
        spool: WaitingReports,
        *,
        on_order: Callable[["Session", Command], None],
        on_delivered: Callable[[], None],
        clock_us: Callable[[], int],
        heartbeat_s: float,
        witness: Witness | None = None,
    ) -> None:
        self.link = link
        self.heartbeat_s = heartbeat_s
        self.lifetime_s = 0.0
        self._spool = spool
        self._witness = witness
        self._on_order = on_order
        self._on_delivered = on_delivered
        self._clock_us = clock_us
        self._is_open = False
        self._is_farewell_heard = False
        self._ending: asyncio.Future[LinkError] = asyncio.get_running_loop().create_future()
        self._news = asyncio.Event()
        self._progress = asyncio.Event()
        self._progress_s = 0.0
        self._in_flight: deque[tuple[bytes, int]] = deque()
        self._answers: asyncio.Queue[Message] = asyncio.Queue(_TRANSFER_QUEUE)
        self._request = asyncio.Lock()

    @property
    def is_over(self) -> bool:
        return self._ending.done()

    async def announce(self, announcement: Announce) -> Welcome:
        """Say who is speaking; nothing else may be said before.

        Raises:
            LinkError: the server did not welcome us.
        """
        await self.link.send(announcement)
        try:
            async with asyncio.timeout(_REPLY_S):
                message = await self.link.receive()
        except TimeoutError:
            raise self._broken(os.strerror(errno.ETIMEDOUT)) from None
        if isinstance(message, SessionExpired):
            raise ExpiredError(self.link.server, "the session key is too old")
        if not isinstance(message, Welcome):
            raise self._broken(f"expected a welcome, got {type(message).__name__}")
        self.lifetime_s = float(message.session_lifetime_s)
        self._is_open = True
        return message

    async def run(self) -> LinkError:
        """Read and deliver until the session is over; return why. Once, after ``announce``."""
        assert self._is_open, "announce comes first"
        try:
            async with asyncio.TaskGroup() as tasks:
                work = [self._read(), self._deliver(), self._beat(), self._age()]
                running = [tasks.create_task(self._until_end(each)) for each in work]
                try:
                    await asyncio.shield(self._ending)
                finally:
                    # Also when we are cancelled: nobody may wait for what cannot come any more.
                    self._end(self._broken("closed"))
                    for task in running:
                        task.cancel()
        finally:
            await self.link.close()
        return self._ending.result()

    def reports_waiting(self) -> None:
        """The spool has something new. From the event loop's thread."""
        self._news.set()

    async def fetch(self, kind: FileKind, path: Path) -> Download:
        """Fetch the configuration or the baseline, and put it at the path.

        Raises:
            FileRefusedError: there is none, or what came was not what was announced.
            StorageError: it cannot be written.
            LinkError: the connection ended.
        """
        async with self._request:
            await self.link.send(FileRequest(kind))
            begin = await self._answer()
            if isinstance(begin, FileRefused):
                raise FileRefusedError(kind, f"the server has no {kind.value} for this agent")
            if not isinstance(begin, FileBegin) or begin.kind is not kind:
                raise self._end(self._broken(f"expected a file, got {type(begin).__name__}"))
            try:
                return await self._receive(begin, path)
            except FormatError as error:
                # What is left of the file would be taken for the answer to something else.
                self._end(self._broken(str(error)))
                raise FileRefusedError(kind, str(error)) from None

    async def propose(self, path: Path) -> Proposal:
        """Offer a baseline to the server.

        Raises:
            ProposalRefusedError: the server does not take it; the text says why.
            OSError: the file cannot be read.
            LinkError: the connection ended.
        """
        async with self._request:
            size, digest = await asyncio.to_thread(_measure, path)
            await self.link.send(ProposalBegin(size, digest))
            for chunk in _chunks(path, size):
                await self.link.send(ProposalChunk(chunk))
                if not self._answers.empty():
                    break
            else:
                await self.link.send(ProposalEnd())
            answer = await self._answer()
            if isinstance(answer, ProposalAccepted):
                return Proposal(answer.proposal_id, size, digest.hex())
            if isinstance(answer, ProposalRefused):
                raise ProposalRefusedError(answer.reason)
            raise self._end(self._broken(f"unexpected {type(answer).__name__}"))

    async def flush(self) -> None:
        """Wait until every report in the spool is acknowledged.

        Raises:
            LinkError: the connection ended before.
        """
        while self._spool.waiting:
            self._progress.clear()
            self._news.set()
            await self._or_end(self._progress.wait())

    async def goodbye(self, reason: str) -> None:
        """Say that the silence that follows is meant, and wait until the server has noted it.

        Raises:
            LinkError: the connection ended before the server confirmed.
        """
        async with self._request:
            await self.link.send(Goodbye(reason))
            try:
                await self._answer(_GOODBYE_S)
            except LinkError:
                # It confirms and closes in one go, and the end may be seen before the answer.
                if not self._is_farewell_heard:
                    raise

    async def answer_order(self, order: Command, outcome: str, detail: str = "") -> None:
        """Say what became of an administrator's command.

        Raises:
            LinkError: the connection ended; the server gives the command again.
        """
        await self.link.send(CommandResult(order.command_id, outcome, detail))

    def stop(self) -> None:
        """End the session from our side, without a word."""
        self._end(self._broken("closed"))

    async def _read(self) -> None:
        while True:
            message = await self.link.receive()
            if isinstance(message, Acknowledge):
                await self._acknowledged(message)
            elif isinstance(message, Command):
                self._on_order(self, message)
            elif isinstance(message, AuditCheckpoint | AuditProof):
                await self._witnessed(message)
            elif isinstance(message, SessionExpired):
                raise ExpiredError(self.link.server, "the session key is too old")
            elif self._request.locked():
                self._is_farewell_heard |= isinstance(message, GoodbyeAccepted)
                await self._answers.put(message)
            else:
                raise self._broken(f"unexpected {type(message).__name__}")

    async def _witnessed(self, message: AuditCheckpoint | AuditProof) -> None:
        if self._witness is None:
            return
        request = await asyncio.to_thread(self._witness.hear, message)
        if request is not None:
            await self.link.send(request)

    async def _acknowledged(self, message: Acknowledge) -> None:
        await asyncio.to_thread(self._spool.acknowledge, message.stream, message.sequence)
        while self._in_flight and _covers(message, *self._in_flight[0]):
            self._in_flight.popleft()
        self._progress_s = time.monotonic()
        self._progress.set()
        self._news.set()
        self._on_delivered()

    async def _deliver(self) -> None:
        sent: dict[bytes, int] = {}
        while True:
            self._news.clear()
            batch = await asyncio.to_thread(
                self._spool.next_batch,
                sent,
                REPORTS_PER_BATCH_MAX,
                REPORT_BATCH_BYTES_MAX,
            )
            stream = batch.stream
            if stream not in sent:
                # What is on its way of another stream is acknowledged, or never will be.
                sent = {stream: 0}
                self._in_flight.clear()
            if not batch.reports:
                await self._news.wait()
                continue
            if not self._in_flight:
                self._progress_s = time.monotonic()
            reports = (self._signed(stream, r.sequence, r.body) for r in batch.reports)
            sent[stream] = last = batch.reports[-1].sequence
            # Before it is sent: the acknowledgement may come while we wait for the network.
            self._in_flight.append((stream, last))
            await self.link.send(ReportBatch(stream, tuple(reports)))
            await self._window()

    def _signed(self, stream: bytes, sequence: int, body: bytes) -> Report:
        signature = sign_report(self.link.keys, stream, sequence, EVENT_REPORT, body)
        return Report(sequence, EVENT_REPORT, body, signature)

    async def _window(self) -> None:
        while len(self._in_flight) >= _WINDOW_BATCHES:
            self._news.clear()
            await self._news.wait()

    async def _beat(self) -> None:
        while True:
            oldest_us = await asyncio.to_thread(self._spool.oldest_us)
            await self.link.send(Heartbeat(self._clock_us(), self._spool.waiting, oldest_us))
            await asyncio.sleep(self.heartbeat_s)
            if self._in_flight and time.monotonic() - self._progress_s > _STALLED_S:
                raise self._broken("the server acknowledges nothing")

    async def _age(self) -> None:
        await asyncio.sleep(self.lifetime_s * _RENEW_PART)
        raise ExpiredError(self.link.server, "the session key gets too old")

    async def _until_end(self, work: Coroutine[object, object, None]) -> None:
        # The group must never see the end as an error: with one in it, Python 3.11 forgets that
        # somebody wanted to cancel it at the same time.
        try:
            await work
        except LinkError as error:
            self._end(error)
        except StorageError as error:
            self._end(LocalTroubleError(self.link.server, str(error)))

    async def _answer(self, timeout_s: float = _REPLY_S) -> Message:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._or_end(self._answers.get())
        except TimeoutError:
            raise self._end(self._broken(os.strerror(errno.ETIMEDOUT))) from None

    async def _or_end(self, awaitable: Coroutine[object, object, _T]) -> _T:
        """Wait for something that only happens while the session lasts."""
        waiter: asyncio.Future[_T] = asyncio.ensure_future(awaitable)
        either: set[asyncio.Future[Any]] = {waiter, self._ending}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if waiter.done():
                return waiter.result()
            raise self._ending.result()
        finally:
            waiter.cancel()

    async def _receive(self, begin: FileBegin, path: Path) -> Download:
        file = await asyncio.to_thread(DownloadFile, begin, path)
        try:
            refused: StorageError | None = None
            while isinstance(part := await self._answer(), FileChunk):
                if refused is None:
                    refused = await asyncio.to_thread(_storage_error_of, file, part.data)
            if refused is not None:
                # Only now: what was left of the file would be the answer to nothing.
                raise refused
            if not isinstance(part, FileEnd):
                raise self._end(self._broken(f"unexpected {type(part).__name__} inside a file"))
            return await asyncio.to_thread(file.finish)
        finally:
            file.abandon()

    def _broken(self, reason: str) -> BrokenError:
        return BrokenError(self.link.server, reason, in_negotiation=False)

    def _end(self, error: LinkError) -> LinkError:
        """The session is over; the first reason counts, and is returned."""
        if not self._ending.done():
            self._ending.set_result(error)
        return self._ending.result()


def _storage_error_of(file: DownloadFile, data: bytes) -> StorageError | None:
    try:
        file.write(data)
    except StorageError as error:
        return error
    return None


def _covers(message: Acknowledge, stream: bytes, sequence: int) -> bool:
    return message.stream == stream and sequence <= message.sequence


def _measure(path: Path) -> tuple[int, bytes]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        return file.tell(), digest


def _chunks(path: Path, size: int) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while size and (chunk := file.read(min(size, CHUNK_BYTES_MAX))):
            size -= len(chunk)
            yield chunk
