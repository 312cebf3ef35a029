"""How a baseline gets onto the disk and back: one SQLite file, written whole, read with distrust.

A baseline may come from the server, and the server has it from whoever made it. So the reader
takes it for hostile: it bounds sizes, lets no trigger, view or virtual table run, reads every row
once to verify the digest before it believes any, and turns all damage into FormatError.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final
from urllib.parse import quote_from_bytes

from needfire_client.durable import put_in_place, sync
from needfire_protocol import __version__
from needfire_protocol.baseline import (
    APPLICATION_ID,
    BASELINE_FORMAT,
    DEFENSIVE_PRAGMAS,
    ENTRIES_BYTES_MAX,
    SCHEMA,
    BaselineMeta,
    ContentDigest,
    FileEntry,
    check_key,
    check_schema,
    decode_entries,
    encode_entries,
    key_of,
    parse_meta,
)
from needfire_protocol.errors import FormatError, StorageError

__all__ = ["BASELINE_BYTES_MAX", "BaselineReader", "BaselineWriter", "remove_abandoned"]

BASELINE_BYTES_MAX: Final = 16 * 1024**3
"""Bytes of the file: a hundred million objects."""

_TEMPORARY: Final = ".tmp"

_END: Final = b"\x7f"
"""Greater than every key: those are empty or begin with NUL."""


_VERIFY_LIMIT_S: Final = 120.0
"""Seconds to verify a baseline when it is opened: a million objects need one or two."""
_STEPS_BETWEEN_LOOKS: Final = 10_000

_STEPS_BEFORE_SEARCH: Final = 4


class BaselineReader:
    """A baseline that is open for reading. May be used from any thread, by one at a time.

    Args:
        is_verified: somebody else has read all of it and found its digest to be right.

    Raises:
        StorageError: there is no such file, or it cannot be read.
        FormatError: it is no baseline, or it is damaged. Any method may still raise it later.
    """

    def __init__(self, path: Path, *, is_verified: bool = False) -> None:
        self._path = path
        self.meta: BaselineMeta
        _check_size(path)
        with _translated(path):
            self._connection = _connect_readonly(path)
        # Pages of a forged file can contain each other, and so hold more rows than anybody can
        # read, already in the schema.
        deadline_s = time.monotonic() + _VERIFY_LIMIT_S
        self._connection.set_progress_handler(
            lambda: int(time.monotonic() > deadline_s), _STEPS_BETWEEN_LOOKS
        )
        try:
            with _translated(path):
                self._prepare()
                if not is_verified:
                    self._verify()
            self._connection.set_progress_handler(None, 0)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        run = self._connection.execute
        # Text as bytes: text that is not UTF-8 would raise inside of the library.
        self._connection.text_factory = bytes
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, ENTRIES_BYTES_MAX)
        for pragma in DEFENSIVE_PRAGMAS:
            run(pragma)
        if run("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise FormatError("the file is an SQLite database, but not a baseline")
        check_schema(run("SELECT type, name, sql FROM sqlite_schema LIMIT 3"))
        self.meta = parse_meta(run("SELECT name, value FROM meta LIMIT 20"))

    def _verify(self) -> None:
        # Text as a key sorts before every blob, where no range of keys would ever meet it.
        others = self._connection.execute(
            "SELECT 1 FROM directories WHERE typeof(key) <> 'blob' OR typeof(entries) <> 'blob'"
        )
        if others.fetchone() is not None:
            raise FormatError("a row of the baseline does not hold byte strings")
        digest, last = ContentDigest(), None
        for key, entries in self.iterate():
            if last is not None and key <= last:
                raise FormatError("the rows of the baseline are not in order")
            digest.add(key, entries)
            last = key
        if digest.hexdigest() != self.meta.content_sha256:
            raise FormatError("the contents of the baseline do not match their digest")

    def directory(self, path: bytes) -> dict[bytes, FileEntry]:
        """Return the entries of one directory by name; nothing for one that it does not have."""
        packed = self.row(path)
        return {} if packed is None else decode_entries(packed)

    def row(self, path: bytes) -> bytes | None:
        """Return the packed entries of one directory; None for one that it does not have."""
        with _translated(self._path):
            found = self._connection.execute(
                "SELECT entries FROM directories WHERE key = ?", (key_of(path),)
            ).fetchone()
        packed: bytes | None = None if found is None else found[0]
        return packed

    def iterate(self, first: bytes = b"", end: bytes = _END) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and packed entries of each directory from key ``first`` to before ``end``."""
        for key, entries in self.unchecked(first, end):
            yield check_key(key), entries

    def unchecked(self, first: bytes = b"", end: bytes = _END) -> Iterator[tuple[bytes, bytes]]:
        """Yield what ``iterate`` does, for whoever only looks for keys that he has."""
        with _translated(self._path):
            # Not "yield from": it would close the cursor, perhaps after the connection.
            for row in self._connection.execute(  # noqa: UP028
                "SELECT key, entries FROM directories WHERE key >= ? AND key < ? ORDER BY key",
                (first, end),
            ):
                yield row

    def keys(self, first: bytes = b"", end: bytes = _END) -> Iterator[bytes]:
        """Yield the keys that ``iterate`` would, for whoever only looks for keys that he has."""
        with _translated(self._path):
            for (key,) in self._connection.execute(
                "SELECT key FROM directories WHERE key >= ? AND key < ? ORDER BY key",
                (first, end),
            ):
                if type(key) is not bytes:
                    raise FormatError("a key of the baseline is not a byte string")
                yield key

    def in_order(self) -> "RowsInOrder":
        """Return what finds the rows of directories that come in the order of a walk."""
        return RowsInOrder(self)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> "BaselineReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class RowsInOrder:
    """Finds the rows of directories, soonest where they are asked for in the order of a walk.

    A search for each of them would take as long as it takes to look at ten objects.
    """

    def __init__(self, reader: BaselineReader) -> None:
        self._reader = reader
        self._rows: Iterator[tuple[bytes, bytes]] = iter(())
        self._head: tuple[bytes, bytes] | None = None
        """The first row that is not before the key that was asked for."""
        self._asked = _END

    def find(self, path: bytes) -> bytes | None:
        """Return what ``BaselineReader.row`` does.

        Raises:
            FormatError: the baseline is damaged.
        """
        key = key_of(path)
        head = self._head
        # Some directories are passed by; past many a search is faster.
        steps = _STEPS_BEFORE_SEARCH if key >= self._asked else 0
        while steps and head is not None and head[0] < key:
            head = next(self._rows, None)
            steps -= 1
        if not steps:
            self._rows = self._reader.unchecked(key)
            head = next(self._rows, None)
        self._head, self._asked = head, key
        return head[1] if head is not None and head[0] == key else None


class BaselineWriter:
    """A baseline in the making. It stands beside its place until ``finish`` puts it there.

    Use it as a context manager: leaving it without ``finish`` removes what was written.

    Raises:
        StorageError: from any method, where the disk refuses.
    """

    def __init__(self, path: Path, *, algorithm: str, host: str, configuration_sha256: str) -> None:
        self._path = path
        self._algorithm = algorithm
        self._host = host
        self._configuration_sha256 = configuration_sha256
        self._digest = ContentDigest()
        self._last_key: bytes | None = None
        self.entries = 0
        """Objects so far."""
        self._temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}{_TEMPORARY}")
        with _translated(path):
            # Made by us with its mode, before SQLite sees it: nobody else can ever read it.
            os.close(os.open(self._temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            try:
                self._connection = _connect_new(self._temporary)
            except BaseException:
                self._temporary.unlink(missing_ok=True)
                raise

    def add(self, path: bytes, entries: Sequence[tuple[bytes, FileEntry]]) -> None:
        """Write the entries of a directory, sorted by name. Directories come in key order."""
        self.add_packed(key_of(path), encode_entries(entries), len(entries))

    def add_packed(self, key: bytes, packed: bytes, count: int) -> None:
        """Write a directory that is packed already and has ``count`` entries."""
        assert self._last_key is None or key > self._last_key, "directories come in key order"
        if len(packed) > ENTRIES_BYTES_MAX:
            raise StorageError(f"{len(packed)} bytes of one directory are too many for a baseline")
        with _translated(self._path):
            self._connection.execute("INSERT INTO directories VALUES (?, ?)", (key, packed))
        self._digest.add(key, packed)
        self._last_key = key
        self.entries += count

    def finish(self, *, created_us: int) -> BaselineMeta:
        """Put the baseline in its place, all of it on the disk, and return what it says."""
        meta = BaselineMeta(
            format=BASELINE_FORMAT,
            created_us=created_us,
            host=self._host,
            version=__version__,
            algorithm=self._algorithm,
            configuration_sha256=self._configuration_sha256,
            entries=self.entries,
            content_sha256=self._digest.hexdigest(),
        )
        with _translated(self._path):
            self._connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.rows())
            self._connection.execute("COMMIT")
            self._connection.close()
            sync(self._temporary)
            put_in_place(self._temporary, self._path)
        return meta

    def __enter__(self) -> "BaselineWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        with suppress(OSError):
            # Nothing is there any more after finish.
            self._temporary.unlink(missing_ok=True)


def remove_abandoned(path: Path) -> None:
    """Remove what killed writers left beside this place. No writer for it may be at work."""
    start = f".{path.name}."
    # What cannot be listed or removed is in nobody's way.
    with suppress(OSError), os.scandir(path.parent) as found:
        for left in found:
            if left.name.startswith(start) and left.name.endswith(_TEMPORARY):
                with suppress(OSError):
                    os.unlink(left.path)


def _check_size(path: Path) -> None:
    with _translated(path):
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f"{path} is not a regular file, so no baseline")
    size = status.st_size
    if size > BASELINE_BYTES_MAX:
        raise FormatError(f"{path} has {size} bytes; a baseline has at most {BASELINE_BYTES_MAX}")


def _connect_readonly(path: Path) -> sqlite3.Connection:
    # immutable: no locks, no journal of somebody else's making is rolled into it.
    uri = f"file:{quote_from_bytes(os.fsencode(path.absolute()))}?mode=ro&immutable=1"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def _connect_new(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        # No journal: until the rename nobody knows the file, and a crash leaves only rubbish.
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "PRAGMA page_size = 16384",
            f"PRAGMA application_id = {APPLICATION_ID}",
            "BEGIN",
            *SCHEMA,
        ):
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn the errors of the system and of SQLite into ours."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
    except sqlite3.OperationalError as error:
        # Disk full, I/O error, cannot be opened; damage mostly comes as DatabaseError.
        raise StorageError(f"{path}: {error}") from error
    except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
        # The last one: of a damaged schema the library quotes bytes that are not UTF-8.
        raise FormatError(f"{path} is no baseline or is damaged: {error}") from error
