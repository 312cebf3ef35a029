"""Small baselines, good and forged, for tests of whoever has to distrust them."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from needfire_protocol.baseline import (
    APPLICATION_ID,
    SCHEMA,
    BaselineMeta,
    ContentDigest,
    FileEntry,
    encode_entries,
    key_of,
)

__all__ = ["FILE", "write_baseline"]

FILE = FileEntry(0o100644, 0, 0, 6, 1, 2, 3, 4, 5, 1, 0, None, b"\1" * 32, 0, "")
"""An ordinary file."""

_TREE: Mapping[bytes, list[tuple[bytes, FileEntry]]] = {
    b"": [(b"/", FILE._replace(mode=0o40755, digest=None))],
    b"/": [(b"etc", FILE._replace(mode=0o40755, digest=None))],
    b"/etc": [(b"hosts", FILE), (b"passwd", FILE)],
}


def write_baseline(
    path: Path,
    *,
    rows: Mapping[bytes, bytes] | None = None,
    statements: tuple[str, ...] = (),
    **meta: Any,
) -> None:
    """Write a baseline of three directories.

    Args:
        rows: keys and packed entries instead of the usual ones.
        statements: SQL that is run on it at the end.
        meta: values of its table ``meta`` that differ from the true ones.
    """
    packed = (
        {key_of(directory): encode_entries(entries) for directory, entries in _TREE.items()}
        if rows is None
        else dict(rows)
    )
    digest = ContentDigest()
    for key in sorted(packed):
        digest.add(key, packed[key])
    true = BaselineMeta(
        format=1,
        created_us=1_795_000_000_000_000,
        host="web1.example.org",
        version="0.1.0",
        algorithm="sha256",
        configuration_sha256="",
        entries=4,
        content_sha256=digest.hexdigest(),
    )
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in (*SCHEMA, f"PRAGMA application_id = {APPLICATION_ID}"):
        connection.execute(statement)
    connection.executemany("INSERT INTO directories VALUES (?, ?)", packed.items())
    values = {**dict(true.rows()), **meta}
    connection.executemany(
        "INSERT INTO meta VALUES (?, ?)",
        [(name, value) for name, value in values.items() if value is not None],
    )
    for statement in statements:
        connection.execute(statement)
    connection.close()
