"""What was reported already, so that it is reported only once (ReportOnlyOnce).

After a report the new state of the object takes the place of the baseline's, until the agent
starts again; the baseline itself stays as it is. Findings that are no differences (a name with
control characters, a rule that matches nothing) are kept as well, for as long as they hold.

It lives in a scratch file, because an attacker decides how many changes there are to remember. The
file need not survive a crash: it is made anew at each start.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from needfire_protocol.baseline import FileEntry, decode_entries, encode_entries
from needfire_protocol.errors import StorageError

__all__ = ["Overlay"]

_PAGE_NAMES: Final = 1_000

_SCHEMA: Final = (
    """CREATE TABLE reported(directory BLOB, name BLOB, entry BLOB,
       PRIMARY KEY (directory, name)) WITHOUT ROWID""",
    """CREATE TABLE findings(path BLOB, code TEXT, round INTEGER,
       PRIMARY KEY (path, code)) WITHOUT ROWID""",
)


class Overlay:
    """The states that were reported, and the findings. One thread at a time may use it.

    Raises:
        StorageError: from any method, where the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._round = 0
        self.version = 0
        """Moves with every state that is kept or forgotten."""
        with _translated(path):
            path.unlink(missing_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                path.chmod(0o600)
                for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -4096"):
                    self._connection.execute(f"PRAGMA {pragma}")
                for statement in _SCHEMA:
                    self._connection.execute(statement)
                self._connection.execute("BEGIN")
            except BaseException:
                self._connection.close()
                raise

    def put(self, directory: bytes, name: bytes, entry: FileEntry | None) -> None:
        """Keep the reported state of an object (None: it is gone), by the key of its directory."""
        self.version += 1
        packed = None if entry is None else encode_entries([(b"e", entry)])
        with _translated(self._path):
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
                self._connection.execute(
                    "INSERT INTO findings VALUES (?, ?, ?)", (path, code, self._round)
                )
        return not known

    def close(self) -> None:
        """Close the scratch file and remove it."""
        self._connection.close()
        with _translated(self._path):
            self._path.unlink(missing_ok=True)


def _unpacked(rows: list[tuple[bytes, bytes | None]]) -> dict[bytes, FileEntry | None]:
    return {name: None if packed is None else decode_entries(packed)[b"e"] for name, packed in rows}


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise StorageError(f"{path}: {error}") from error
