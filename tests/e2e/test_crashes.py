"""Nothing that was promised is lost, and nothing is stored twice, whatever is killed, full or cut.

A slice of what scripts/bench/crash does for longer. NEEDFIRE_CRASH_SEED begins elsewhere, and
NEEDFIRE_CRASH_ROUNDS says how many disasters there are in each test.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from needfire_testkit.crash import CrashPlan, run_crashes
from needfire_testkit.mounting import mounted
from needfire_testkit.postgres import postgres_or_skip
from needfire_testkit.rough_proxy import FaultKind

SEED = int(os.environ.get("NEEDFIRE_CRASH_SEED", "1"))
ROUNDS = int(os.environ.get("NEEDFIRE_CRASH_ROUNDS", "5"))

pytestmark = pytest.mark.timeout(60 + 20 * ROUNDS)


def hold_the_law(directory: Path, plan: CrashPlan) -> None:
    sys.stdout.write(f"NEEDFIRE_CRASH_SEED={plan.seed} NEEDFIRE_CRASH_ROUNDS={plan.rounds}\n")
    figures = run_crashes(directory, plan)
    sys.stdout.write(f"{figures.text()}\n")
    assert figures.promised > 0
    if plan.is_rough:
        faults = {f"connections: {kind.value}" for kind in FaultKind if kind is not FaultKind.NONE}
        assert faults & figures.done.keys(), figures.text()
    assert figures.is_lawful, (figures.text(), figures.lost[:5], figures.duplicated[:5])


def test_server_and_agents_are_killed_at_any_moment(tmp_path: Path) -> None:
    hold_the_law(tmp_path, CrashPlan(SEED, ROUNDS))


def test_server_agents_and_database_are_killed_at_any_moment(tmp_path: Path) -> None:
    hold_the_law(tmp_path, CrashPlan(SEED, ROUNDS, postgres=postgres_or_skip()))


def test_the_connection_is_rough_while_things_are_killed(tmp_path: Path) -> None:
    hold_the_law(tmp_path, CrashPlan(SEED, ROUNDS, is_rough=True))


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Two small file systems: the server's and the agents'."""
    server, agents = tmp_path / "server-disk", tmp_path / "agent-disk"
    server.mkdir()
    agents.mkdir()
    with (
        mounted("-t", "tmpfs", "-o", f"size={16 + 4 * ROUNDS}m,mode=700", "none", str(server)),
        mounted("-t", "tmpfs", "-o", "size=32m,mode=700", "none", str(agents)),
    ):
        yield server, agents


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
def test_disks_are_full_while_things_are_killed(tmp_path: Path, disks: tuple[Path, Path]) -> None:
    server, agents = disks
    hold_the_law(tmp_path, CrashPlan(SEED, ROUNDS, server_disk=server, agent_disk=agents))
