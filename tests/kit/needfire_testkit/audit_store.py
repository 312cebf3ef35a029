"""A server's audit log on a real store, and what can be done to it behind the server's back."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from needfire_protocol.audit.record import Draft
from needfire_server.audit.log import AuditLog
from needfire_server.storage.store import DatabaseStore
from needfire_testkit.stores import StorePlace

__all__ = ["doctor", "doctored", "drafts", "grown", "nothing", "opened", "signed"]


@asynccontextmanager
async def opened(
    where: StorePlace | Path, directory: Path | None = None
) -> AsyncIterator[tuple[DatabaseStore, AuditLog]]:
    """Open a store and its log; on PostgreSQL a second server has a directory of its own."""
    place = StorePlace(where) if isinstance(where, Path) else where
    store = place.open(directory=directory)
    try:
        yield store, await AuditLog.open(store.audit, str(directory or place.directory))
    finally:
        store.close()


def drafts(count: int, word: str = "act") -> list[Draft]:
    return [
        Draft("CLIENT_REGISTERED", subject="root", fields={"what": f"{word} {number}"})
        for number in range(count)
    ]


@asynccontextmanager
async def signed(
    where: StorePlace | Path, count: int
) -> AsyncIterator[tuple[DatabaseStore, AuditLog]]:
    """Open a store and its log, with so many more records and a checkpoint over them."""
    async with opened(where) as (store, log):
        await log.append(*drafts(count))
        await log.checkpoint()
        yield store, log


async def grown(directory: Path, rounds: int, count: int = 20) -> None:
    """Add so many records and a checkpoint over them, as many times."""
    directory.mkdir(exist_ok=True)
    async with opened(directory) as (_store, log):
        for _ in range(rounds):
            await log.append(*drafts(count))
            await log.checkpoint()


def doctor(directory: Path, *statements: str) -> None:
    """Do what somebody with the rights of the server's user can do to its store."""
    connection = sqlite3.connect(directory / "needfire.sqlite", isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def doctored(before: str, after: str, number: int) -> str:
    return (
        "UPDATE audit_records SET record = "
        f"CAST(replace(CAST(record AS TEXT), '{before}', '{after}') AS BLOB) WHERE number = {number}"
    )


async def nothing() -> None:
    """Stand for a step of the log that never came."""
