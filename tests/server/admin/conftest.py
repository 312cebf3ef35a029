"""A data directory, and the admin side of a server on it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from needfire_testkit.admin_server import AdminServer


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir(mode=0o700)
    return tmp_path / "data"


@pytest.fixture
async def server(directory: Path) -> AsyncIterator[AdminServer]:
    async with AdminServer.running(directory) as running:
        yield running
