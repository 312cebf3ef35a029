"""How writes reach the disk: one thread, one connection, and one commit for all that wait.

A commit costs a flush of the disk whatever it holds, so the jobs that queue up during one flush
share the next one. Each job runs under its own savepoint: one that fails takes back only its own
changes. A caller learns the result of its job after the commit and never before; where the commit
fails (disk full, input/output error), everyone who waited for it gets a StorageError, and the next
group begins with a connection opened afresh.
"""

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from needfire_protocol.errors import StorageError

__all__ = ["GROUP_JOBS_MAX", "GroupCommitWriter", "Work"]

T = TypeVar("T")
Work: TypeAlias = Callable[[sqlite3.Connection], T]

GROUP_JOBS_MAX: Final = 256
"""Jobs in one transaction: bounds how long the first of them waits for the last."""

_GROUP_FAILURES: Final = (sqlite3.Error, OSError, StorageError, MemoryError)
"""What ends a whole group. The thread must outlive each of them, or every caller would hang."""


@dataclass(frozen=True, slots=True)
class _Job:
    work: Work[Any]
    future: Future[Any]

    def fail(self, error: BaseException) -> None:
        self.future.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Done:
    """A job that ran, and what its caller is told once the group is committed."""

    job: _Job
    result: Any


class GroupCommitWriter:
    """The only one who writes to a database."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], path: str) -> None:
        """Open the connection and start the thread.

        Args:
            connect: opens a connection for writing, in autocommit mode.
            path: what errors call the database.

        Raises:
            sqlite3.Error: it cannot be opened.
        """
        self._connect = connect
        self._path = path
        self._connection: sqlite3.Connection | None = connect()
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
        with self._lock:
            if self._is_closed:
                raise StorageError(f"{self._path}: the store is closed")
            self._jobs.put(_Job(work, future))
        return future

    def close(self) -> None:
        """Finish every job that was queued, then close the connection."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._jobs.put(None)
        self._thread.join()

    # ---- in the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        is_last = False
        while not is_last:
            group, is_last = self._next_group()
            if group:
                self._commit_group(group)
        self._drop_connection()

    def _next_group(self) -> tuple[list[_Job], bool]:
        """Wait for a job and take all that wait behind it; True with the last group of all."""
        group: list[_Job] = []
        job = self._jobs.get()
        while True:
            if job is None:
                return group, True
            # After this a caller that gives up can no longer cancel: its job counts.
            if job.future.set_running_or_notify_cancel():
                group.append(job)
            if len(group) >= GROUP_JOBS_MAX:
                return group, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group, False

    def _commit_group(self, group: list[_Job]) -> None:
        done: list[_Done] = []
        try:
            connection = self._opened()
            connection.execute("BEGIN IMMEDIATE")
            for job in group:
                finished = self._run_job(connection, job)
                if finished is not None:
                    done.append(finished)
            connection.execute("COMMIT")
        except _GROUP_FAILURES as error:
            self._drop_connection()
            failure = StorageError(f"{self._path}: {error}")
            for job in group:
                if not job.future.done():
                    job.fail(failure)
            return
        for finished in done:
            finished.job.future.set_result(finished.result)

    def _run_job(self, connection: sqlite3.Connection, job: _Job) -> _Done | None:
        """Run one job; None where it failed by itself and its caller knows.

        Raises:
            sqlite3.Error: the whole transaction is lost.
        """
        connection.execute("SAVEPOINT job")
        try:
            result = job.work(connection)
        except Exception as error:
            # Whatever it is, it belongs to the caller and must not end this thread.
            if not connection.in_transaction:
                # SQLite gave up the transaction, and with it the jobs before this one.
                raise sqlite3.OperationalError(str(error)) from error
            connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
            is_ours = not isinstance(error, sqlite3.Error)
            job.fail(error if is_ours else StorageError(f"{self._path}: {error}"))
            return None
        connection.execute("RELEASE job")
        return _Done(job, result)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _drop_connection(self) -> None:
        """Close the connection, which also takes back what it has not committed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
