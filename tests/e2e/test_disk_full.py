"""What happens when there is no room for events: nothing is lost, and everybody is told."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from needfire_testkit.processes import AgentHome, Program, ServerHome, wait_until
from needfire_testkit.small_disk import SmallDisk

MakeAgent = Callable[..., AgentHome]

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system"),
]


@pytest.fixture
def disk(server_home: ServerHome) -> Iterator[SmallDisk]:
    with SmallDisk.mounted(server_home.data, "16m") as disk:
        yield disk
        server_home.stop_all()


def follow(server_home: ServerHome, output: Path) -> Program:
    return Program(
        [
            str(Path(sys.executable).parent / "needfire-admin"),
            *("--data-dir", str(server_home.data)),
            *("events", "--follow", "--limit", "0"),
        ],
        output,
    )


def stored(server_home: ServerHome, path: Path) -> int:
    events = server_home.events("--code", "POLICY_ADDED")
    return sum(event["fields"]["path"] == str(path) for event in events)


def alarms(server_home: ServerHome) -> set[str]:
    return {event["code"] for event in server_home.events("--class", "alarm")}


def test_a_full_disk_is_told_to_everybody_until_there_is_room_again(
    disk: SmallDisk, server_home: ServerHome, make_baselined_agent: MakeAgent, tmp_path: Path
) -> None:
    server = server_home.start()
    agent = make_baselined_agent()
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    follower = follow(server_home, tmp_path / "follower.out")
    try:
        follower.wait_for("following new events")
        disk.fill()
        added = agent.tree / "while there was no room"
        added.write_text("x")
        server.wait_for("Storage failed")
        follower.wait_for("warning: events cannot be recorded")
        result = server_home.admin("status")
        assert "needfire-admin: warning: events cannot be recorded: " in result.stderr
        disk.empty()
        server.wait_for("Storage works again")
        follower.wait_for("events are recorded again")
        wait_until(lambda: stored(server_home, added) == 1, "the report")
        assert "cannot be recorded" not in server_home.admin("status").stderr
        assert server.process.poll() is None
    finally:
        follower.kill()


def test_classes_that_can_be_switched_off_are_suspended_and_resumed(
    disk: SmallDisk, server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    server_home.write_rc(misc="DiskFullAction=suspend-class\nPersistTraffic=yes")
    server = server_home.start()
    agent = make_baselined_agent()
    agent.start().wait_for("File check completed.")
    assert server_home.events("--class", "traffic"), "traffic was to be kept"
    disk.fill()
    (agent.tree / "new").write_text("x")
    line = server.wait_for("are only logged")
    assert 'msg="No room: events of traffic, administration, system are only logged"' in line
    disk.empty()
    server.wait_for("Events of traffic, administration, system are stored again")
    wait_until(lambda: stored(server_home, agent.tree / "new") == 1, "the report")
    wanted = {"CLASSES_SUSPENDED", "CLASSES_RESUMED"}
    wait_until(lambda: wanted <= alarms(server_home), "both alarms in the store")


def test_a_server_that_is_to_halt_ends_and_nothing_is_lost(
    disk: SmallDisk, server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    server_home.write_rc(misc="DiskFullAction=halt")
    server = server_home.start()
    agent = make_baselined_agent()
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    disk.fill()
    (agent.tree / "new").write_text("x")
    server.wait_for("Storage failed")
    assert server.process.wait(30) == 10
    assert "no room for events (DiskFullAction=halt)" in server.output()
    disk.empty()
    server_home.start()
    wait_until(lambda: stored(server_home, agent.tree / "new") == 1, "the report")
    assert daemon.process.poll() is None


def test_a_class_that_is_switched_off_is_neither_logged_nor_kept(server_home: ServerHome) -> None:
    server_home.write_rc(misc="EnableSystem=no\nPersistAdministration=no")
    server = server_home.start()
    server_home.register("web1")
    server.wait_for("Client registered")
    assert server.stop() == 0
    assert "START" not in server.output()
    assert "EXIT" not in server.output()
    assert server_home.events("--class", "system") == []
    assert server_home.events("--class", "administration") == []
