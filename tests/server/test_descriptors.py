"""Open files: as many as the system gives, and connections never use up all of them."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from needfire_server.descriptors import (
    DESCRIPTORS_SPARE,
    connections_possible,
    raise_descriptor_limit,
)
from needfire_testkit.live_server import live_server


@pytest.fixture
def restored_limit() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised_to_the_hard_one(restored_limit: tuple[int, int]) -> None:
    _, hard = restored_limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
    assert raise_descriptor_limit() == hard
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


@pytest.mark.parametrize(
    ("limit", "connections"),
    [
        (0, 1),
        (DESCRIPTORS_SPARE, 1),
        (DESCRIPTORS_SPARE + 1, 1),
        (DESCRIPTORS_SPARE + 2, 2),
        (65_536, 65_536 - DESCRIPTORS_SPARE),
        (-1, 2**31),
    ],
)
def test_some_descriptors_are_kept_for_all_else(limit: int, connections: int) -> None:
    assert connections_possible(limit) == connections


@pytest.mark.parametrize(("possible", "wanted"), [(1, 2), (2, 1), (1, 1)])
async def test_the_lower_of_both_limits_counts(possible: int, wanted: int, tmp_path: Path) -> None:
    async with live_server(tmp_path / "data", connection_limit=wanted) as server:
        server.runtime.connections_possible = possible
        kept = await server.connect()
        await server.until_said("NEW_CONNECTION")
        # The reset may come before the connection is there on our side.
        with contextlib.suppress(ConnectionResetError):
            await (await server.connect()).until_closed()
        event = await server.until_said("TOO_MANY_CONNECTIONS")
        assert event.fields["limit"] == 1
        await kept.close()
