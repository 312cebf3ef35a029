"""Kills a process that writes an audit log at each of its steps in turn, and looks at what is left.

    python -m needfire_testkit.audit_killer DIRECTORY [EVERY]

EVERY is 1 unless it is given: each step. With 4 it is each fourth one.

A step is a statement that SQLite is about to carry out, or a file of the log that is about to be
opened, renamed or removed. For each a child begins a log, records, signs and changes its key, and is
killed as by the kernel there. Then the log is opened again: all that the child was told to be done must be
there, nothing may be wrong, and the log must go on. Prints how often a child was killed.
"""

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from needfire_protocol.audit.record import Draft
from needfire_server.admin.audit_check import check_store, read_keys
from needfire_server.audit.log import AuditLog
from needfire_server.storage.sqlite import SqliteStore

__all__: list[str] = []

_STORE = "needfire.sqlite"
_FILES = frozenset({"open", "os.rename", "os.remove"})
_RECORDS = 3


class _Fate:
    """Counts steps, and ends the process at one of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory / "audit")
        self._left: int | None = None
        sys.addaudithook(self._file)
        sa.event.listen(sa.Engine, "connect", self._connected)

    def comes_at(self, step: int) -> None:
        self._left = step

    def _connected(self, connection: sqlite3.Connection, _record: object) -> None:
        connection.set_trace_callback(self._step)

    def _file(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _FILES and str(arguments[0]).startswith(self._directory):
            self._step()

    def _step(self, _statement: str = "") -> None:
        if self._left is not None:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


def _records() -> list[Draft]:
    return [Draft("CLIENT_REGISTERED", subject="root") for _ in range(_RECORDS)]


@asynccontextmanager
async def _opened(directory: Path) -> AsyncIterator[AuditLog]:
    store = SqliteStore.open(str(directory / _STORE))
    try:
        yield await AuditLog.open(store.audit, str(directory))
    finally:
        store.close()


async def _write(directory: Path, told: int) -> None:
    """Do what a server does, and say how many records it was promised."""
    async with _opened(directory) as log:
        for promised in (_RECORDS, 2 * _RECORDS):
            await log.append(*_records())
            os.write(told, bytes([promised]))
            await log.checkpoint()
            await log.rotate("root")


async def _look(directory: Path, promised: int) -> None:
    async with _opened(directory) as log:
        assert log.key_trouble is None, log.key_trouble
        await log.check_all()
        assert log.finding is None, log.finding
        await log.append(*_records())
        made = await log.checkpoint()
        assert made is not None
        assert made.size >= 1 + promised + _RECORDS, (made.size, promised)
        assert log.standing is None, log.standing
        # One that was made and never named may be left; of those before the newest there is none.
        *old, new = (directory / "audit" / f"{key.key_id.hex()}.key" for key in log.public_keys())
        assert new.exists()
        assert not any(path.exists() for path in old)
    # With the rights that there are: who runs the tests owns the directory.
    result = check_store(str(directory), read_keys(None, str(directory)), None)
    assert result.finding is None, result.finding


def _killed(directory: Path, fate: _Fate, step: int) -> tuple[bool, int]:
    """Let a child write; return whether it was killed, and how many records it was promised."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            fate.comes_at(step)
            asyncio.run(_write(directory, writer))
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as told:
        promised = told.read()
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or status == 0, f"step {step}: the child ended with {status}"
    return os.WIFSIGNALED(status), promised[-1] if promised else 0


def main(root: Path, every: int = 1) -> int:
    """Return how often a child was killed."""
    template, directory = root / "template", root / "data"
    template.mkdir(exist_ok=True)
    SqliteStore.open(str(template / _STORE)).close()
    fate = _Fate(directory)
    for kills, step in enumerate(count(1, every)):
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(template, directory)
        is_killed, promised = _killed(directory, fate, step)
        asyncio.run(_look(directory, promised))
        if not is_killed:
            return kills
    raise AssertionError("a child ends at last")


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))  # noqa: T201
