"""An agent whose disk is full starts, checks, watches and reports; it says so, and mends itself."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from needfire_testkit.processes import AgentHome, ServerHome, wait_until
from needfire_testkit.small_disk import SmallDisk

MakeAgent = Callable[..., AgentHome]

UNWANTED = {"REPORTS_LOST", "CLONE_DETECTED", "SEQUENCE_GAP", "RESTART_WITHOUT_EXIT"}

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system"),
]


@pytest.fixture
def server(server_home: ServerHome) -> ServerHome:
    server_home.start()
    return server_home


@pytest.fixture
def agent(server: ServerHome, make_baselined_agent: MakeAgent) -> AgentHome:
    """An agent that ran once, and ended cleanly."""
    agent = make_baselined_agent()
    first = agent.start()
    first.wait_for("File check completed.")
    assert first.stop() == 0
    return agent


@pytest.fixture
def disk(agent: AgentHome, tmp_path: Path) -> Iterator[SmallDisk]:
    """A small file system of the agent's state directory."""
    place = tmp_path / "small"
    place.mkdir()
    with SmallDisk.mounted(place, "4m") as disk:
        state = agent.state
        agent.state = place / "state"
        subprocess.run(["cp", "-a", str(state), str(agent.state)], check=True)
        yield disk
        agent.stop_all()


def codes(server: ServerHome) -> list[str]:
    return [event["code"] for event in server.events()]


def stored(server: ServerHome, path: Path) -> int:
    events = server.events("--code", "POLICY_ADDED")
    return sum(event["fields"]["path"] == str(path) for event in events)


def test_it_starts_reports_from_memory_and_goes_back_to_the_disk(
    server: ServerHome, agent: AgentHome, disk: SmallDisk
) -> None:
    disk.fill()
    daemon = agent.start()
    line = daemon.wait_for("Reports are kept in memory only")
    assert "No space left on device" in line
    daemon.wait_for("File check completed.")
    first = agent.tree / "from memory"
    first.write_text("x")
    wait_until(lambda: stored(server, first) == 1, "the report from memory")
    assert "SPOOL_UNWRITABLE" in codes(server)
    disk.empty()
    daemon.wait_for("Reports are kept on disk again")
    second = agent.tree / "from disk"
    second.write_text("x")
    wait_until(lambda: stored(server, second) == 1, "the report from disk")
    assert daemon.stop() == 0
    told = codes(server)
    assert "SPOOL_WRITABLE" in told
    assert told.count("START") == told.count("EXIT") + 1, "the server's own, and each has its end"
    assert not UNWANTED & set(told)
    assert stored(server, first) == 1


def test_a_disk_that_fills_while_it_runs_holds_no_report_back(
    server: ServerHome, agent: AgentHome, disk: SmallDisk
) -> None:
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    disk.fill()
    paths = [agent.tree / f"found {number}" for number in range(30)]
    for path in paths:
        path.write_text("x")

    def found() -> list[str]:
        added = [event["fields"]["path"] for event in server.events("--code", "POLICY_ADDED")]
        return sorted(set(added) & set(map(str, paths)))

    wait_until(lambda: found() == sorted(map(str, paths)), "all reports")
    daemon.wait_for("kept in memory only")
    disk.empty()
    daemon.wait_for("Reports are kept on disk again")
    assert daemon.stop() == 0
    told = codes(server)
    assert {"SPOOL_UNWRITABLE", "SPOOL_WRITABLE"} <= set(told)
    assert not UNWANTED & set(told)
    assert len(server.events("--code", "POLICY_ADDED")) == len(paths), "each came once"


def test_without_server_disk_and_spool_it_starts_and_what_it_cannot_keep_is_counted(
    server: ServerHome, agent: AgentHome, disk: SmallDisk
) -> None:
    server.stop_all()
    (agent.state / "spool.sqlite").write_bytes(b"rubbish" * 1_000)
    disk.fill()
    daemon = agent.start()
    daemon.wait_for("Spool damaged: file is not a database")
    daemon.wait_for("Reports are kept in memory only")
    daemon.wait_for("File check completed.")
    assert daemon.stop() == 0
    assert 'msg="Reports lost: ' in daemon.output()
    assert list(agent.state.glob("spool.sqlite.damaged-*"))
