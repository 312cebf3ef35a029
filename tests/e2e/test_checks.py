"""Full checks of the real agent: stopped and gone on with, by groups, quick."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from needfire_testkit.processes import AgentHome, Program, ServerHome, wait_until

MakeAgent = Callable[..., AgentHome]

UNWATCHED = "[Inotify]\nInotifyActive = no\n"
SLOWLY = "SetIOLimit = 300\nScanWorkers = 1\n"


def receipts(server: ServerHome) -> list[dict[str, Any]]:
    """Return the fields of those of checks; init has given one as well."""
    found = [event["fields"] for event in server.events("--code", "CHECK_COMPLETED")]
    return [fields for fields in found if "watcher" in fields]


def modified(server: ServerHome) -> set[str]:
    return {event["fields"]["path"] for event in server.events("--code", "POLICY_MODIFIED")}


@pytest.fixture
def agent(server_home: ServerHome, make_agent: MakeAgent) -> AgentHome:
    """An agent with a baseline of its own, over what takes six seconds with SLOWLY."""
    server_home.start()
    agent = make_agent()
    for number in range(20):
        (agent.tree / f"d{number:02}").mkdir()
        (agent.tree / f"d{number:02}" / "file").write_bytes(os.urandom(100_000))
    rc = agent.directory / "init.rc"
    rc.write_text(agent.rc_text())
    done = agent.run("init", "--rc", str(rc), "--output", str(agent.directory / "baseline"))
    assert done.returncode == 0, done.stdout
    return agent


def sources(agent: AgentHome, rc_text: str) -> tuple[str, ...]:
    rc = agent.directory / "local.rc"
    rc.write_text(rc_text)
    return ("--rc", str(rc), "--baseline", str(agent.directory / "baseline"))


def change(agent: AgentHome, name: str) -> str:
    file = agent.tree / name / "file"
    file.write_bytes(b"changed")
    return str(file)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_check_that_was_stopped_goes_on_where_it_was(
    agent: AgentHome, server_home: ServerHome, ending: signal.Signals
) -> None:
    given = sources(agent, agent.rc_text(SLOWLY + UNWATCHED))
    position = agent.state / "scan-position"
    early, late = change(agent, "d01"), change(agent, "d18")
    first = agent.start(*given)
    if ending is signal.SIGKILL:
        wait_until(position.exists, "a position on disk")
        first.kill()
    else:
        first.wait_for(f'path="{early}"')
        first.stop()
    assert position.exists()
    unseen = change(agent, "d00")
    agent.start(*given).wait_for("File check completed.")
    wait_until(lambda: receipts(server_home), "the receipt")
    [receipt] = receipts(server_home)
    assert (receipt["parts"], receipt["unreadable"], receipt["files"]) == (2, 0, 42)
    assert receipt["looked_again_until"].startswith(str(agent.tree))
    assert receipt["quick"] > 0
    assert len(receipt["spans"].split("; ")) == 2
    assert receipt["changes"] == 3
    assert not position.exists()
    assert modified(server_home) == {early, late, unseen}


def test_suspending_stops_a_check_and_waking_up_goes_on_with_it(
    agent: AgentHome, server_home: ServerHome
) -> None:
    early = change(agent, "d01")
    daemon = agent.start(*sources(agent, agent.rc_text(SLOWLY)))
    daemon.wait_for(f'path="{early}"')
    daemon.send_signal(signal.SIGUSR2)
    daemon.wait_for("SUSPEND")
    daemon.send_signal(signal.SIGUSR2)
    daemon.wait_for("File check completed.")
    wait_until(lambda: receipts(server_home), "the receipt")
    [receipt] = receipts(server_home)
    # Somebody watched all the time, so nothing has to be looked at again.
    assert (receipt["parts"], receipt["files"], receipt["quick"]) == (2, 42, 0)
    assert "looked_again_until" not in receipt
    assert receipt["changes"] == 1


def test_groups_of_rules_are_checked_at_times_of_their_own(
    agent: AgentHome, server_home: ServerHome
) -> None:
    misc = "GroupInterval = fast 1s\nGroupFullInterval = fast 1h\n" + UNWATCHED
    rules = f"%GROUP fast\ndir=99{agent.tree}/d07\n!%GROUP\n"
    daemon = agent.start(*sources(agent, agent.rc_text(misc) + rules))
    daemon.wait_for("File check completed.")
    others, fast = change(agent, "d03"), change(agent, "d07")
    daemon.wait_for(f'path="{fast}"')
    daemon.wait_for("File check completed.", 4)
    wait_until(lambda: len(receipts(server_home)) >= 4, "the receipts")
    everything, *of_group = receipts(server_home)
    assert "groups" not in everything
    assert {(each["groups"], each["quick_groups"]) for each in of_group} == {("fast", "fast")}
    assert {each["files"] for each in of_group} == {2}
    assert {each["hashed"] + each["quick"] for each in of_group} == {1}
    assert modified(server_home) == {fast}
    daemon.send_signal(signal.SIGTTOU)
    daemon.wait_for(f'path="{others}"')


def test_a_check_by_hand_that_was_interrupted_goes_on_if_it_is_told_to(
    agent: AgentHome, server_home: ServerHome, tmp_path: Path
) -> None:
    early, late = change(agent, "d01"), change(agent, "d18")
    given = sources(agent, agent.rc_text(SLOWLY + UNWATCHED))
    command = agent.start(*given).process.args
    agent.stop_all()
    assert isinstance(command, list)
    words = [word if word != "run" else "check" for word in command]
    check = Program(words, tmp_path / "check.out")
    check.wait_for(f'path="{early}"')
    check.send_signal(signal.SIGINT)
    assert check.exit_status() == -signal.SIGINT
    done = agent.run("check", *given, "--resume", "--json")
    [summary] = [line for line in done.stdout.splitlines() if '"duration_s"' in line]
    result = json.loads(summary)
    assert (done.returncode, result["modified"], result["files"]) == (1, 2, 42)
    assert result["quick"] > 0
    again = agent.run("check", *given[:1], str(agent.directory / "init.rc"), *given[2:], "--quick")
    assert again.returncode == 1
    assert "42 objects" in again.stdout
    assert late in again.stdout
