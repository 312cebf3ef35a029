"""A store on either engine, for tests of what both must do."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from needfire_server.storage import migrations
from needfire_server.storage.migrations import KNOWN, Steps
from needfire_server.storage.postgresql import PostgresStore
from needfire_server.storage.sqlite import SqliteStore
from needfire_server.storage.store import DatabaseStore
from needfire_testkit.postgres import PostgresServer

__all__ = ["ADD_NOTE", "ENGINES", "StorePlace", "open_place", "steps_with"]

ENGINES = ("sqlite", "postgresql")

ADD_NOTE = "op.execute('ALTER TABLE clients ADD COLUMN note TEXT')"
"""What a later step may do."""


@dataclass
class StorePlace:
    """Where a store is kept; it can be opened, closed and opened again."""

    directory: Path
    postgres: PostgresServer | None = None
    url: str = ""

    @property
    def is_sqlite(self) -> bool:
        return self.postgres is None

    @property
    def path(self) -> Path:
        """The file of SQLite."""
        return self.directory / "needfire.sqlite"

    @property
    def arguments(self) -> list[str]:
        """What ``open_place`` in another process makes the same store of."""
        return [str(self.directory), self.url]

    def open(
        self,
        *,
        directory: Path | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> DatabaseStore:
        """Open it; on PostgreSQL a second server needs a directory of its own."""
        return open_place(str(directory or self.directory), self.url, random_bytes=random_bytes)

    def run(self, sql: str) -> None:
        """Tell PostgreSQL something that has no answer."""
        with psycopg.connect(self.url, autocommit=True) as server:
            server.execute(sql.encode())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database itself."""
        if self.postgres is not None:
            # On a table of a few rows PostgreSQL would rather read them all and sort.
            always = "-c enable_seqscan=off -c enable_sort=off"
            with psycopg.connect(self.url, autocommit=True, options=always) as server:
                return server.execute(sql.encode()).fetchall()
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()


def open_place(directory: str, url: str, **options: Any) -> DatabaseStore:
    """Open a store; an empty URL means SQLite."""
    if url:
        return PostgresStore.open(url, directory, **options)
    return SqliteStore.open(os.path.join(directory, "needfire.sqlite"), **options)


def steps_with(directory: Path, upgrade: str) -> Steps:
    """The known steps and one more, which a later version might have."""
    folder = directory / "migrations"
    shutil.copytree(Path(migrations.__file__).parent, folder)
    number = KNOWN.latest + 1
    (folder / "versions" / f"{number:04}_later.py").write_text(
        f"from alembic import op\nrevision = '{number:04}'\n"
        f"down_revision = '{KNOWN.latest:04}'\ndef upgrade():\n    {upgrade}\n"
    )
    return Steps(folder)
