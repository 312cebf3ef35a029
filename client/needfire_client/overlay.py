"""What was reported already, so that it is reported only once (ReportOnlyOnce).

After a report the new state of the object takes the place of the baseline's, until the agent
starts again; the baseline itself stays as it is. Findings that are no differences (a name with
control characters, a rule that matches nothing) are kept as well, for as long as they hold.

It lives in a scratch file, because an attacker decides how many changes there are to remember. The
file need not survive a crash: it is made anew at each start. Where the disk has no room for it, a
bounded piece of memory does; what finds no room there is reported again by the next check.
"""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from needfire_protocol.baseline import FileEntry, decode_entries, encode_entries
from needfire_protocol.errors import StorageError

__all__ = ["Overlay", "ScratchError"]

_PAGE_NAMES: Final = 1_000

_MEMORY_PAGES_MAX: Final = 4_096
"""Pages of 4 KiB: 16 MiB, some fifty thousand objects."""

_NO_ROOM: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
_NO_ROOM_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})

_SCHEMA: Final = (
    """CREATE TABLE reported(directory BLOB, name BLOB, entry BLOB,
       PRIMARY KEY (directory, name)) WITHOUT ROWID""",
    """CREATE TABLE findings(path BLOB, code TEXT, round INTEGER,
       PRIMARY KEY (path, code)) WITHOUT ROWID""",
)


class ScratchError(StorageError):
    """The scratch file cannot be used, or no longer."""


class Overlay:
    """The states that were reported, and the findings. One thread at a time may use it.

    Raises:
        ScratchError: from any method, where the disk refuses. It cannot be used any more then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._round = 0
        self.version = 0
        """Moves with every state that is kept or forgotten."""
        self.trouble: str | None = None
        """Why it is in memory; None where it is in its file."""
        with _translated(path):
            try:
                self._connection = _scratch_file(path)
            except (OSError, sqlite3.Error) as error:
                if not _is_no_room(error):
                    raise
                self.trouble = f"{path}: {error}"
                self._connection = _scratch_memory()

    def put(self, directory: bytes, name: bytes, entry: FileEntry | None) -> None:
        """Keep the reported state of an object (None: it is gone), by the key of its directory."""
        self.version += 1
        packed = None if entry is None else encode_entries([(b"e", entry)])
        with _translated(self._path), self._memory_may_be_full():
            self._connection.execute(
                "INSERT OR REPLACE INTO reported VALUES (?, ?, ?)", (directory, name, packed)
            )

    def forget(self, directory: bytes, name: bytes) -> None:
        """Let the baseline speak of an object again."""
        self.version += 1
        with _translated(self._path):
            self._connection.execute(
                "DELETE FROM reported WHERE directory = ? AND name = ?", (directory, name)
            )

    def directory(self, key: bytes) -> dict[bytes, FileEntry | None]:
        """Return what was reported of the objects in one directory, by name."""
        with _translated(self._path):
            rows = self._connection.execute(
                "SELECT name, entry FROM reported WHERE directory = ?", (key,)
            ).fetchall()
        return _unpacked(rows)

    def iterate(self, key: bytes) -> Iterator[tuple[bytes, FileEntry | None]]:
        """Yield what ``directory`` returns, sorted by name and a page at a time.

        States of names that have been passed may be kept and forgotten meanwhile.
        """
        last = b""
        while True:
            with _translated(self._path):
                rows = self._connection.execute(
                    "SELECT name, entry FROM reported WHERE directory = ? AND name > ? "
                    "ORDER BY name LIMIT ?",
                    (key, last, _PAGE_NAMES),
                ).fetchall()
            yield from _unpacked(rows).items()
            if len(rows) < _PAGE_NAMES:
                return
            last = rows[-1][0]

    def object(self, key: bytes, name: bytes) -> dict[bytes, FileEntry | None]:
        """Return what was reported of one object in a directory; empty for nothing."""
        with _translated(self._path):
            rows = self._connection.execute(
                "SELECT name, entry FROM reported WHERE directory = ? AND name = ?", (key, name)
            ).fetchall()
        return _unpacked(rows)

    def next_directory(self, first: bytes, end: bytes) -> bytes | None:
        """Return the least key of a directory in [first, end) of which something was reported."""
        with _translated(self._path):
            row = self._connection.execute(
                "SELECT min(directory) FROM reported WHERE directory >= ? AND directory < ?",
                (first, end),
            ).fetchone()
        found: bytes | None = row[0]
        return found

    def begin_round(self) -> None:
        """Begin a full check: findings that are not met again in it are forgotten at its end."""
        self._round += 1

    def end_round(self, saw: Callable[[bytes], bool]) -> None:
        """End a full check.

        Args:
            saw: whether it was to look at a path; findings of others are kept.
        """
        with _translated(self._path):
            self._connection.create_function("saw", 1, saw)
            self._connection.execute(
                "DELETE FROM findings WHERE round < ? AND saw(path)", (self._round,)
            )

    def is_new(self, code: str, path: bytes) -> bool:
        """Note a finding; return whether it was not known before."""
        with _translated(self._path):
            known = self._connection.execute(
                "UPDATE findings SET round = ? WHERE path = ? AND code = ?",
                (self._round, path, code),
            ).rowcount
            if not known:
                with self._memory_may_be_full():
                    self._connection.execute(
                        "INSERT INTO findings VALUES (?, ?, ?)", (path, code, self._round)
                    )
        return not known

    def close(self) -> None:
        """Close the scratch file and remove it."""
        self._connection.close()
        with _translated(self._path):
            self._path.unlink(missing_ok=True)

    @contextmanager
    def _memory_may_be_full(self) -> Iterator[None]:
        """Let something go unremembered where memory has no room: it is reported once more."""
        try:
            yield
        except sqlite3.Error as error:
            if self.trouble is None or error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise


def _scratch_file(path: Path) -> sqlite3.Connection:
    path.unlink(missing_ok=True)
    # By us: SQLite would not say why it cannot, and would leave its mode to the umask.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -4096"):
            connection.execute(f"PRAGMA {pragma}")
        for statement in (*_SCHEMA, "BEGIN"):
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def _scratch_memory() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA page_size = 4096")
    connection.execute(f"PRAGMA max_page_count = {_MEMORY_PAGES_MAX}")
    for statement in _SCHEMA:
        connection.execute(statement)
    return connection


def _is_no_room(error: OSError | sqlite3.Error) -> bool:
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM_ERRNOS
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF in _NO_ROOM


def _unpacked(rows: list[tuple[bytes, bytes | None]]) -> dict[bytes, FileEntry | None]:
    return {name: None if packed is None else decode_entries(packed)[b"e"] for name, packed in rows}


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ScratchError(f"{path}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise ScratchError(f"{path}: {error}") from error
