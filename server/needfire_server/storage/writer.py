"""How writes reach the disk: one thread, one connection, and one commit for all that wait.

A commit costs a flush of the disk whatever it holds, so what queues up during one flush shares the
next one. A caller learns the result of its write after the commit and never before; where the commit
fails (disk full, server gone), everyone who waited for it gets a StorageError, and the next group
begins with a connection opened afresh.

What is written often (``ingesting.py``) is stored at once for the whole group. Other writes are few:
each runs under its own savepoint, and one that fails takes back only its own changes. Where storing
together fails because of what one caller wanted, each of them gets a transaction of its own.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import sqlalchemy as sa

from needfire_protocol.errors import StorageError, StorageFullError
from needfire_server.storage import audit_statements
from needfire_server.storage.audit_base import AuditWriteError
from needfire_server.storage.engine import Engine, Transaction, is_full
from needfire_server.storage.ingesting import Item, KeptSession, KeptStates, Stored, store_all
from needfire_server.storage.unsummed import Unsummed

__all__ = ["GROUP_JOBS_MAX", "GroupCommitWriter", "Work"]

T = TypeVar("T")
Work: TypeAlias = Callable[[Transaction], T]

GROUP_JOBS_MAX: Final = 256
"""Writes in one transaction: bounds how long the first of them waits for the last."""
_GATHERING_S: Final = 0.005
"""Seconds for which a log-in waits for others, and for what else belongs to it. Many agents log in at
once or none does; and a commit costs more than the rest of what it has to write."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What a caller waits for: some work, or something to be stored with all the others.

    ``loop`` is that of the future; None where a thread waits.
    """

    what: Work[Any] | Item
    future: "Future[Any] | asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop | None

    def begin(self) -> bool:
        """False where the caller has given up by now; then its job is not done.

        A thread cannot give up any more. A coroutine still can, and then its job is done all the same
        and nobody is told: it has to take for possible that what it gave up is durable.
        """
        if isinstance(self.future, Future):
            return self.future.set_running_or_notify_cancel()
        return not self.future.cancelled()


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a caller is told once the group is committed."""

    job: _Job
    result: Any = None
    error: BaseException | None = None

    def tell(self) -> None:
        future = self.job.future
        if future.cancelled():
            return
        if self.error is None:
            future.set_result(self.result)
        else:
            future.set_exception(self.error)


class GroupCommitWriter:
    """The only one in this process who writes to a database."""

    def __init__(self, engine: Engine) -> None:
        """Open the connection and start the thread.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: it cannot be opened.
        """
        self._engine = engine
        self._connection: sa.Connection | None = engine.connect()
        self._unsummed = Unsummed(), Unsummed()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="needfire-store", daemon=True)
        self._thread.start()

    def submit(self, work: Work[T]) -> "Future[T]":
        """Queue work; the future is done after the commit that makes it durable.

        Raises:
            StorageError: the store is closed.
        """
        future: Future[T] = Future()
        self._queue(_Job(work, future, None))
        return future

    async def run(self, work: Work[T]) -> T:
        """Do work; return after the commit that makes it durable.

        Raises:
            StorageError: nothing is promised.
        """
        result: T = await self._wait_for(work)
        return result

    async def store(self, what: Item) -> Stored:
        """Store something together with whatever else waits.

        Raises:
            StorageError: nothing is promised.
        """
        result: Stored = await self._wait_for(what)
        return result

    def close(self) -> None:
        """Finish everything that was queued, then close the engine and the connection."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._jobs.put(None)
        self._thread.join()

    def _wait_for(self, what: Work[Any] | Item) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue(_Job(what, future, loop))
        return future

    def _queue(self, job: _Job) -> None:
        with self._lock:
            if self._is_closed:
                raise StorageError(f"{self._engine.name}: the store is closed")
            self._jobs.put(job)

    # ---- in the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        is_last = False
        while not is_last:
            group, is_last = self._next_group()
            if group:
                self._commit_group(group)
        # SQLite tidies up when its last connection is closed, if that one can write.
        self._engine.close()
        self._drop_connection()

    def _next_group(self) -> tuple[list[_Job], bool]:
        """Wait for a job and take all that wait behind it; True with the last group of all."""
        group: list[_Job] = []
        job = self._jobs.get()
        if job is not None and isinstance(job.what, KeptSession | KeptStates):
            time.sleep(_GATHERING_S)
        while True:
            if job is None:
                return group, True
            if job.begin():
                group.append(job)
            if len(group) >= GROUP_JOBS_MAX:
                return group, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group, False

    def _commit_group(self, group: Sequence[_Job]) -> None:
        try:
            outcomes = self._committed(group)
        # Whatever it is, the thread must outlive it, or every caller would hang.
        except Exception as error:  # noqa: BLE001
            is_record = isinstance(error, _NotRecordedError)
            cause = _cause(error)
            if self._engine.is_of_one_job(cause) and len(group) > 1:
                for job in group:
                    self._commit_group([job])
                return
            self._drop_connection()
            told = self._as_told(cause, is_record=is_record)
            outcomes = [_Outcome(job, error=told) for job in group]
        _tell(outcomes)

    def _committed(self, group: Sequence[_Job]) -> list[_Outcome]:
        connection = self._opened()
        # What is not committed is forgotten: a summary of events that never were could hide others.
        unsummed, self._unsummed = self._unsummed, (Unsummed(), Unsummed())
        with self._engine.begin(connection):
            events, records = unsummed
            transaction = Transaction(
                connection, self._engine, unsummed=events, unsummed_records=records
            )
            outcomes = self._store(transaction, group)
            outcomes += [
                self._run_job(transaction, job, job.what) for job in group if callable(job.what)
            ]
            if transaction.events:
                store_all(transaction, transaction.events)
            _put_on_record(transaction)
        self._unsummed = unsummed
        return outcomes

    def _store(self, transaction: Transaction, group: Sequence[_Job]) -> list[_Outcome]:
        jobs: list[_Job] = []
        items: list[Item] = []
        for job in group:
            if not callable(job.what):
                jobs.append(job)
                items.append(job.what)
        if not items:
            return []
        results = store_all(transaction, items)
        return [_Outcome(job, result) for job, result in zip(jobs, results, strict=True)]

    def _run_job(self, transaction: Transaction, job: _Job, work: Work[Any]) -> _Outcome:
        """Run one job under its own savepoint.

        Raises:
            Exception: the whole transaction is lost.
        """
        recorded, told = len(transaction.drafts), len(transaction.events)
        unsummed = transaction.unsummed.mark()
        transaction.ask("SAVEPOINT job")
        try:
            result = work(transaction)
        except Exception as error:
            cause = _cause(error)
            if not self._engine.is_of_one_job(cause):
                raise
            transaction.ask("ROLLBACK TO SAVEPOINT job")
            transaction.ask("RELEASE SAVEPOINT job")
            del transaction.drafts[recorded:], transaction.events[told:]
            transaction.unsummed.back_to(unsummed)
            return _Outcome(job, error=self._as_told(cause))
        transaction.ask("RELEASE SAVEPOINT job")
        return _Outcome(job, result)

    def _as_told(self, error: BaseException, *, is_record: bool = False) -> BaseException:
        """Return what a caller gets: errors of the database, and of the system, are the store's.

        Args:
            is_record: it was the audit log that could not be written. A full disk is no fault of
                its own.
        """
        failed = AuditWriteError if is_record else StorageError
        if isinstance(error, (*self._engine.errors, OSError, MemoryError, sa.exc.SQLAlchemyError)):
            text = f"{self._engine.name}: {' '.join(str(error).split())}"
            return StorageFullError(text) if is_full(error) else failed(text)
        return failed(str(error)) if is_record else error

    def _opened(self) -> sa.Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _drop_connection(self) -> None:
        """Close the connection, which also takes back what it has not committed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()


class _NotRecordedError(Exception):
    """The audit log could not be written; the cause says why."""


def _put_on_record(transaction: Transaction) -> None:
    try:
        audit_statements.append(transaction)
    except Exception as error:
        raise _NotRecordedError from error


def _tell(outcomes: Sequence[_Outcome]) -> None:
    """Tell every caller.

    Those in a loop at one stroke: told one by one, the first would be back with its next batch, and
    have a commit for itself, before the others know.
    """
    of_loops: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        if outcome.job.loop is None:
            outcome.tell()
        else:
            of_loops.setdefault(outcome.job.loop, []).append(outcome)
    for loop, theirs in of_loops.items():
        # Whose loop has ended waits no more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_tell_here, theirs)


def _tell_here(outcomes: Sequence[_Outcome]) -> None:
    for outcome in outcomes:
        outcome.tell()


def _cause(error: BaseException) -> Any:
    """Return what the driver raised, without SQLAlchemy's wrapping: it repeats whole statements."""
    if isinstance(error, _NotRecordedError) and error.__cause__ is not None:
        error = error.__cause__
    while isinstance(error, sa.exc.DBAPIError) and error.orig is not None:
        error = error.orig
    return error
