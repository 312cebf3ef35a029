"""Whether a file is a baseline, and what it says about itself.

The file came from a host that may be broken into, and SQLite files can hold more than data. So it
is opened read-only and immutable (no journal beside it is looked at), with schemas untrusted and
sizes limited; its tables must be exactly those of a baseline before a row of them is read; and
every row is decoded once, because agents will rely on it later.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from needfire_protocol.baseline import (
    APPLICATION_ID,
    DEFENSIVE_PRAGMAS,
    ENTRIES_BYTES_MAX,
    BaselineMeta,
    ContentDigest,
    check_key,
    check_schema,
    decode_entries,
    parse_meta,
)
from needfire_protocol.errors import FormatError

__all__ = ["baseline_rows", "read_baseline_meta", "validate_baseline"]

_SCHEMA_ROWS_MAX: Final = 3
"""One more than a baseline has."""
_META_ROWS_MAX: Final = 32
_ROW_BYTES_MAX: Final = ENTRIES_BYTES_MAX + 2 * 1024 * 1024
"""Of one row: its entries and its key."""
_HEADER: Final = b"SQLite format 3\0"


def read_baseline_meta(path: str) -> BaselineMeta:
    """Return what a baseline says about itself, without looking at its rows.

    Raises:
        FormatError: it is no baseline.
    """
    with _opened(path) as connection:
        return _meta(connection)


_CHECK_LIMIT_S: Final = 120.0
"""A file may claim a tree whose pages contain each other: some kilobytes then hold more rows than
anybody can read, already in the schema, before a query can limit them."""
_STEPS_BETWEEN_LOOKS: Final = 10_000
"""Steps of SQLite's machine; a few milliseconds."""


def validate_baseline(path: str) -> BaselineMeta:
    """Read a whole baseline and return what it says about itself. Takes seconds for a large one.

    Raises:
        FormatError: it is no baseline, it is damaged, or an entry is not what it must be.
    """
    with _opened(path) as connection:
        meta = _meta(connection)
        digest, entries = _read_rows(connection)
    if entries != meta.entries:
        raise FormatError(
            f"the baseline has {entries} entries, but says that it has {meta.entries}"
        )
    if digest != meta.content_sha256:
        raise FormatError("the baseline is damaged: its digest does not belong to its contents")
    return meta


@contextmanager
def baseline_rows(path: str) -> Iterator[Iterator[tuple[bytes, bytes]]]:
    """Open a baseline; yield its rows as (key, entries) in the order of their keys, not decoded.

    Raises:
        FormatError: it is no baseline, or (while the rows are read as well) it is damaged.
    """
    patience = _Patience()
    with _opened(path, patience) as connection:
        _meta(connection)
        yield _unhurried(_rows(connection), patience)


class _Patience:
    """How long SQLite may take for one file."""

    __slots__ = ("_since_s", "_used_s")

    def __init__(self) -> None:
        self._used_s = 0.0
        self._since_s = time.monotonic()

    @property
    def is_over(self) -> bool:
        return self._used_s + time.monotonic() - self._since_s > _CHECK_LIMIT_S

    def rest(self) -> None:
        self._used_s += time.monotonic() - self._since_s

    def resume(self) -> None:
        self._since_s = time.monotonic()


def _unhurried(
    rows: Iterator[tuple[bytes, bytes]], patience: _Patience
) -> Iterator[tuple[bytes, bytes]]:
    """Yield rows to somebody who may take any time for each, a person at a terminal say.

    They come in rising order, so a file that goes round ends all the same.
    """
    for row in rows:
        patience.rest()
        yield row
        patience.resume()


@contextmanager
def _opened(path: str, patience: _Patience | None = None) -> Iterator[sqlite3.Connection]:
    """Open a baseline; what SQLite finds wrong with it while it is used becomes a FormatError."""
    _check_header(path)
    connection = sqlite3.connect(
        f"{Path(os.path.abspath(path)).as_uri()}?mode=ro&immutable=1", uri=True
    )
    limit = patience or _Patience()
    connection.set_progress_handler(lambda: int(limit.is_over), _STEPS_BETWEEN_LOOKS)
    try:
        # Text of a file that lies about its encoding must not become an error of Python's.
        connection.text_factory = bytes
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _ROW_BYTES_MAX)
        for pragma in DEFENSIVE_PRAGMAS:
            connection.execute(pragma)
        yield connection
    except sqlite3.Error as error:
        raise FormatError(f"the baseline is damaged: {error}") from error
    except UnicodeDecodeError as error:
        # SQLite quotes names of the file in its messages, and Python takes those for UTF-8.
        raise FormatError("the baseline is damaged: its schema is not readable") from error
    finally:
        connection.close()


def _check_header(path: str) -> None:
    try:
        with open(path, "rb") as file:
            header = file.read(len(_HEADER))
    except OSError as error:
        raise FormatError(f"the baseline cannot be read: {error.strerror}") from error
    if header != _HEADER:
        raise FormatError("the file is not a baseline; needfire-agent init makes one")


def _meta(connection: sqlite3.Connection) -> BaselineMeta:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise FormatError("the file is an SQLite database, but not a baseline")
    check_schema(
        connection.execute("SELECT type, name, sql FROM sqlite_schema LIMIT ?", (_SCHEMA_ROWS_MAX,))
    )
    return parse_meta(connection.execute("SELECT name, value FROM meta LIMIT ?", (_META_ROWS_MAX,)))


def _read_rows(connection: sqlite3.Connection) -> tuple[str, int]:
    """Decode every row; return the digest over all and the number of entries."""
    digest = ContentDigest()
    entries = 0
    for key, row in _rows(connection):
        entries += len(decode_entries(row))
        digest.add(key, row)
    return digest.hexdigest(), entries


def _rows(connection: sqlite3.Connection) -> Iterator[tuple[bytes, bytes]]:
    last: bytes | None = None
    for raw_key, row in connection.execute("SELECT key, entries FROM directories ORDER BY key"):
        key = check_key(raw_key)
        # SQLite believes the order of the file's own tree; one that is forged may even go round.
        if last is not None and key <= last:
            raise FormatError("the baseline is damaged: its rows are not in order")
        if type(row) is not bytes:
            raise FormatError("the entries of a directory are not a byte string")
        yield key, row
        last = key
