"""The reports that the server has not confirmed yet, on disk.

A report leaves this file only when the server has acknowledged it, and the server acknowledges
only what it has stored for good. What is in the file survives a kill, a crash and power loss:
every transaction is synced before ``append`` returns.

Reports are numbered without gaps in a *stream*, whose random identifier is made with the file.
(stream, sequence) names a report for ever, so the server can drop a second copy and can tell when
somebody removed some. A file that cannot be trusted is never mended: it is set aside and a new
one with a new stream takes its place.
"""

import contextlib
import errno
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote_from_bytes

from needfire_protocol.errors import StorageError
from needfire_protocol.plain_classes import dataclass

__all__ = ["REPORT_OVERHEAD_BYTES", "VITAL_RESERVE_BYTES", "NewReport", "Spool", "SpoolFullError"]
__all__ += ["DiskRefusesError", "LastWords", "SpoolBatch", "SpooledReport", "read_last_words"]

REPORT_OVERHEAD_BYTES: Final = 64
"""Bytes that a report is counted with beyond its body: the row, its key, its share of the page."""

VITAL_RESERVE_BYTES: Final = 1_048_576
"""Bytes beyond the limit that only vital reports may use: room for a thousand starts and stops.
Without it the server would take a clean stop behind a full spool for a crash."""

_TURNS: Final = ("START", "WAKEUP", "EXIT", "SUSPEND")
"""Codes of the reports between which an agent watches, or does not."""

_FORMAT: Final = 1
_STREAM_BYTES: Final = 16
_SCHEMA: Final = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE reports(
    sequence INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, code TEXT NOT NULL, body BLOB NOT NULL
);
"""
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PASSING: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
)
_PASSING_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})

_T = TypeVar("_T")


class DiskRefusesError(StorageError):
    """The disk refuses now, for a reason that may pass by itself: it is full, for example."""


class SpoolFullError(StorageError):
    """There is no room: the limit is reached. Nothing was written."""

    def __init__(self, bytes_used: int, size_max_bytes: int) -> None:
        super().__init__(f"the spool holds {bytes_used} of at most {size_max_bytes} bytes")
        self.bytes_used = bytes_used
        self.size_max_bytes = size_max_bytes


class _DamagedError(Exception):
    """The file is not a spool that can be trusted."""


@dataclass(frozen=True, slots=True)
class NewReport:
    """A report that has no number yet."""

    code: str
    """Code of the event, to see without decoding whether a clean exit still waits."""
    time_us: int
    body: bytes
    is_vital: bool = False
    """May use the reserved room: starts, stops and the news that the spool is full."""


@dataclass(frozen=True, slots=True)
class SpooledReport:
    """A report as it waits."""

    sequence: int
    body: bytes


@dataclass(frozen=True, slots=True)
class SpoolBatch:
    """Reports that can be sent together, in order; empty where none waits."""

    stream: bytes
    reports: tuple[SpooledReport, ...]


@dataclass(frozen=True, slots=True)
class LastWords:
    """What a spool knows of the end of the last process that used it."""

    code: str | None
    """Newest waiting report that says whether the agent watches; None where none waits."""
    time_us: int
    """When that was, in microseconds since 1970."""
    welcomed_us: int
    """When the server took in a process last; 0 where it never did."""


class Spool:
    """The spool file of one agent. All methods may be called from any thread.

    Args:
        path: the file; made with mode 0600 where it does not exist.
        size_max_bytes: limit for bodies and overhead together.
        random_bytes: source of the stream's identifier.
        now_us: microseconds since 1970, for the name of a file that is set aside.
        on_set_aside: told the new name of a damaged file and what was wrong; from any thread.

    Raises:
        DiskRefusesError: the file cannot be opened, made or written now.
        StorageError: nor will it be later: it is of a newer version, say, or no regular file.
    """

    def __init__(
        self,
        path: Path,
        *,
        size_max_bytes: int,
        random_bytes: Callable[[int], bytes],
        now_us: Callable[[], int],
        on_set_aside: Callable[[Path, str], None],
    ) -> None:
        self._path = path
        self._size_max_bytes = size_max_bytes
        self._random_bytes = random_bytes
        self._now_us = now_us
        self._on_set_aside = on_set_aside
        self._lock = threading.RLock()
        self._database: sqlite3.Connection
        self._stream = b""
        self._last_sequence = 0
        self._waiting = 0
        self._bytes_used = 0
        self._is_usable = False
        """False: the file was damaged, and none could take its place."""
        self._damage = ""
        """What is wrong with a file that could not even be set aside."""
        self._use()

    @property
    def path(self) -> Path:
        return self._path

    @property
    def stream(self) -> bytes:
        """Identifier of the stream, 16 bytes."""
        return self._stream

    @property
    def last_sequence(self) -> int:
        """Number of the newest report that was ever appended to this stream; 0 where none was."""
        return self._last_sequence

    @property
    def waiting(self) -> int:
        """Reports that are not acknowledged."""
        return self._waiting

    @property
    def bytes_used(self) -> int:
        """Bytes that count against the limit."""
        return self._bytes_used

    @property
    def size_max_bytes(self) -> int:
        return self._size_max_bytes

    def set_size_max(self, size_max_bytes: int) -> None:
        """Use another limit. What is already there stays, even beyond it."""
        self._size_max_bytes = size_max_bytes

    def append(self, reports: Sequence[NewReport]) -> None:
        """Number the reports and write them in one transaction, durable on return.

        Raises:
            SpoolFullError: there is no room for all of them; none was written.
            StorageError: the file cannot be written; DiskRefusesError: now.
        """
        if not reports:
            return
        size = sum(_size(len(report.body)) for report in reports)
        reserve = VITAL_RESERVE_BYTES if all(r.is_vital for r in reports) else 0
        with self._lock:
            if self._bytes_used + size > self._size_max_bytes + reserve:
                raise SpoolFullError(self._bytes_used, self._size_max_bytes)
            self._guarded(lambda: self._insert(reports))
            self._last_sequence += len(reports)
            self._waiting += len(reports)
            self._bytes_used += size

    def next_batch(self, sent: Mapping[bytes, int], count_max: int, bytes_max: int) -> SpoolBatch:
        """Return what ``read_batch`` does after the newest number sent of the stream."""
        with self._lock:
            return self.read_batch(sent.get(self._stream, 0), count_max, bytes_max)

    def read_batch(self, after: int, count_max: int, bytes_max: int) -> SpoolBatch:
        """Return the oldest reports with a number above ``after``, in order.

        At most ``count_max`` of them, and no more than ``bytes_max`` of bodies and overhead; but
        at least one where there is one, so that no report can stop all others.
        """
        with self._lock:
            reports = self._guarded(lambda: self._select(after, count_max, bytes_max))
            return SpoolBatch(self._stream, tuple(reports))

    def acknowledge(self, stream: bytes, sequence: int) -> int:
        """Delete the reports up to and with a number; return how many there were.

        An acknowledgement for another stream deletes nothing. One for a number that was never
        given means that this file is older than what the server has (it came from a backup or a
        snapshot of the machine): the numbers that come next would be taken for copies and lost,
        so what waits goes into a new stream.
        """
        with self._lock:
            if stream != self._stream:
                return 0
            if sequence > self._last_sequence:
                self._guarded(self._renew_stream)
                return 0
            removed, size = self._guarded(lambda: self._delete(sequence))
            self._waiting -= removed
            self._bytes_used -= size
            return removed

    def oldest_us(self) -> int | None:
        """Return the time of the oldest waiting report, or None where none waits."""
        with self._lock:
            row = self._guarded(
                lambda: self._database.execute(
                    "SELECT time_us FROM reports ORDER BY sequence LIMIT 1"
                ).fetchone()
            )
            return None if row is None else int(row[0])

    def last_words(self) -> LastWords:
        """Return what the last process said at its end and the server has not heard."""
        with self._lock:
            return self._guarded(lambda: _last_words(self._database))

    def note_welcome(self) -> None:
        """Remember that the server knows of this process: older last words say nothing of it."""
        with self._lock:
            self._guarded(lambda: self._set_meta("welcomed_us", self._now_us()))

    def probe(self) -> None:
        """Write something, to see whether the disk takes it.

        Raises:
            StorageError: it does not.
        """
        with self._lock:
            self._guarded(lambda: self._set_meta("probed_us", self._now_us()))

    def mend_in_s(self) -> float | None:
        """Nothing stands in for a spool alone, so nothing is to be mended."""
        return None

    def mend(self) -> bool:
        return False

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _use(self) -> None:
        with _as_storage_error(self._path):
            if self._damage:
                # Its journal may be aside already: what can be read is older than what was sent.
                self._replace(self._damage)
                return
            try:
                self._open()
            except _DamagedError as error:
                self._replace(str(error))

    def _open(self) -> None:
        _make_private_file(self._path)
        self._database = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=5
        )
        try:
            self._prepare()
            self._load()
        except (sqlite3.Error, StorageError, _DamagedError) as error:
            self._database.close()
            if isinstance(error, sqlite3.Error) and _primary_code(error) in _DAMAGED:
                raise _DamagedError(str(error)) from None
            raise
        self._is_usable = True

    def _prepare(self) -> None:
        run = self._database.execute
        run("PRAGMA trusted_schema=OFF")
        run("PRAGMA cell_size_check=ON")
        version = int(run("PRAGMA user_version").fetchone()[0])
        if version > _FORMAT:
            raise StorageError(
                f"{self._path} was written by a newer version (format {version}, known: {_FORMAT})"
            )
        if version == 0:
            if run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise _DamagedError("the file is a database, but not a spool")
            # Has to come before the first table; lets the file shrink again after an outage.
            run("PRAGMA auto_vacuum=INCREMENTAL")
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")
        run("PRAGMA journal_size_limit=4194304")
        if version == 0:
            self._create()

    def _create(self) -> None:
        stream = self._random_bytes(_STREAM_BYTES)
        with self._transaction():
            for statement in _SCHEMA.split(";"):
                self._database.execute(statement)
            self._set_meta("stream", stream)
            self._set_meta("last_sequence", 0)
            self._database.execute(f"PRAGMA user_version={_FORMAT}")

    def _load(self) -> None:
        run = self._database.execute
        verdict = str(run("PRAGMA quick_check(1)").fetchone()[0])
        if verdict != "ok":
            raise _DamagedError(verdict)
        meta = dict(run("SELECT name, value FROM meta").fetchall())
        stream, last_sequence = meta.get("stream"), meta.get("last_sequence")
        count, newest, oldest, size = run(
            "SELECT count(*), coalesce(max(sequence), 0), coalesce(min(sequence), 0),"
            " coalesce(sum(length(body)), 0) FROM reports"
        ).fetchone()
        if type(stream) is not bytes or len(stream) != _STREAM_BYTES:
            raise _DamagedError("the stream has no identifier")
        if type(last_sequence) is not int or (count and newest != last_sequence):
            raise _DamagedError("the numbering does not fit the reports")
        if count and newest - oldest + 1 != count:
            raise _DamagedError("reports are missing")
        self._stream, self._last_sequence = stream, last_sequence
        self._waiting, self._bytes_used = count, size + count * REPORT_OVERHEAD_BYTES

    def _insert(self, reports: Sequence[NewReport]) -> None:
        first = self._last_sequence + 1
        with self._transaction():
            self._database.executemany(
                "INSERT INTO reports(sequence, time_us, code, body) VALUES (?, ?, ?, ?)",
                [(n, r.time_us, r.code, r.body) for n, r in enumerate(reports, first)],
            )
            self._set_meta("last_sequence", self._last_sequence + len(reports))

    def _select(self, after: int, count_max: int, bytes_max: int) -> list[SpooledReport]:
        rows = self._database.execute(
            "SELECT sequence, body FROM reports WHERE sequence > ? ORDER BY sequence LIMIT ?",
            (after, count_max),
        )
        batch: list[SpooledReport] = []
        size = 0
        for sequence, body in rows:
            size += _size(len(body))
            if batch and size > bytes_max:
                break
            batch.append(SpooledReport(sequence, body))
        return batch

    def _delete(self, sequence: int) -> tuple[int, int]:
        with self._transaction():
            count, size = self._database.execute(
                "SELECT count(*), coalesce(sum(length(body)), 0) FROM reports WHERE sequence <= ?",
                (sequence,),
            ).fetchone()
            self._database.execute("DELETE FROM reports WHERE sequence <= ?", (sequence,))
        if count and count == self._waiting:
            # One page a step, and ``execute`` takes a single step: this steps to the end.
            self._database.executescript("PRAGMA incremental_vacuum")
        return count, size + count * REPORT_OVERHEAD_BYTES

    def _renew_stream(self) -> None:
        stream = self._random_bytes(_STREAM_BYTES)
        offset = self._last_sequence - self._waiting
        with self._transaction():
            # Upwards in order, each number is free by the time it is given again.
            if offset:
                rows = self._database.execute("SELECT sequence FROM reports ORDER BY sequence")
                for (sequence,) in rows.fetchall():
                    self._database.execute(
                        "UPDATE reports SET sequence = ? WHERE sequence = ?",
                        (sequence - offset, sequence),
                    )
            self._set_meta("stream", stream)
            self._set_meta("last_sequence", self._waiting)
        self._stream, self._last_sequence = stream, self._waiting

    def _set_meta(self, name: str, value: bytes | int) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO meta(name, value) VALUES (?, ?)", (name, value)
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise

    def _guarded(self, step: Callable[[], _T]) -> _T:
        """Run one step; where the file turns out to be damaged, go on with a new one."""
        if not self._is_usable:
            # What the disk refused before it may take now.
            self._use()
        try:
            return step()
        except sqlite3.Error as error:
            code = _primary_code(error)
            if code not in _DAMAGED:
                raise _storage_error(self._path, error) from error
            with _as_storage_error(self._path):
                self._is_usable, self._damage = False, str(error)
                self._waiting = self._bytes_used = 0
                self._database.close()
                self._replace(self._damage)
                return step()

    def _replace(self, reason: str) -> None:
        aside = self._path.with_name(f"{self._path.name}.damaged-{self._now_us()}")
        # The journal belongs to the damaged file: a new one must not replay it.
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{self._path}{suffix}", f"{aside}{suffix}")
        self._damage = ""
        # First: where the disk has no room for a new one, nobody else would tell of the old one.
        self._on_set_aside(aside, reason)
        try:
            self._open()
        except _DamagedError as error:
            raise StorageError(f"{self._path}: a new spool is damaged at once: {error}") from None


def read_last_words(path: Path) -> LastWords:
    """Return the last words in the spool of another process, which may be using it now.

    Nothing is written and nothing waited for. A file that is missing, busy, damaged or no spool
    says nothing.
    """
    try:
        return _read_last_words(path, "mode=ro")
    except (sqlite3.Error, OverflowError):
        pass
    # On a full disk SQLite has no room for the index of a journal that is not there: all that
    # was written lies in the file itself, as after each clean end.
    try:
        if os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal"):
            return LastWords(None, 0, 0)
        return _read_last_words(path, "mode=ro&immutable=1")
    except (sqlite3.Error, OSError, OverflowError):
        return LastWords(None, 0, 0)


def _read_last_words(path: Path, how: str) -> LastWords:
    uri = f"file:{quote_from_bytes(os.fsencode(path.absolute()))}?{how}"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0)) as database:
        database.execute("PRAGMA trusted_schema=OFF")
        return _last_words(database)


def _last_words(database: sqlite3.Connection) -> LastWords:
    marks = ", ".join("?" * len(_TURNS))
    code, time_us = database.execute(
        f"SELECT code, time_us FROM reports WHERE code IN ({marks})"  # noqa: S608 -- only marks
        " ORDER BY sequence DESC LIMIT 1",
        _TURNS,
    ).fetchone() or (None, 0)
    (welcomed_us,) = database.execute(
        "SELECT value FROM meta WHERE name = 'welcomed_us'"
    ).fetchone() or (0,)
    if type(time_us) is not int or type(welcomed_us) is not int:
        return LastWords(None, 0, 0)
    return LastWords(None if code is None else str(code), time_us, welcomed_us)


def _size(body_length: int) -> int:
    return body_length + REPORT_OVERHEAD_BYTES


def _primary_code(error: sqlite3.Error) -> int:
    # The module's own errors (a closed database) carry no code of the library.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _make_private_file(path: Path) -> None:
    # Before SQLite opens it: its own files would have the mode that the umask leaves.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            raise StorageError(f"{path} is not a regular file")
        if info.st_mode & 0o077:
            os.fchmod(handle, 0o600)
    finally:
        os.close(handle)


def _storage_error(path: Path, error: OSError | sqlite3.Error) -> StorageError:
    if isinstance(error, sqlite3.Error):
        is_passing = _primary_code(error) in _PASSING
    else:
        is_passing = error.errno in _PASSING_ERRNOS
    # SQLite calls a full disk an I/O error where its index has no room.
    said = os.strerror(errno.ENOSPC) if is_passing and _is_full(path) else error
    return (DiskRefusesError if is_passing else StorageError)(f"{path}: {said}")


def _is_full(path: Path) -> bool:
    try:
        state = os.statvfs(path.parent)
    except OSError:
        return False
    # Without a table of inodes (btrfs) both of their numbers are 0.
    return not state.f_bavail or (not state.f_favail and bool(state.f_files))


@contextlib.contextmanager
def _as_storage_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise _storage_error(path, error) from error
