"""The store on each engine, and the PostgreSQL server that one of them needs."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from needfire_server.storage.store import DatabaseStore
from needfire_testkit.postgres import PostgresServer, postgres_or_skip, running_postgres
from needfire_testkit.stores import ENGINES, StorePlace


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Started once; each test makes databases of its own in it."""
    with running_postgres(postgres_or_skip()) as server:
        yield server


@pytest.fixture(params=ENGINES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> StorePlace:
    """Where a store is empty or not made yet, on each engine in turn."""
    if request.param == "sqlite":
        return StorePlace(tmp_path)
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return StorePlace(tmp_path, postgres, postgres.emptied_database())


@pytest.fixture
async def store(place: StorePlace) -> AsyncIterator[DatabaseStore]:
    """An open store, on each engine in turn."""
    opened = place.open()
    yield opened
    opened.close()
