"""Agents report to a server that passes on to another one: real processes, killed in between."""

import json
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from needfire_testkit.processes import AgentHome, ServerHome, stopping, wait_until

pytestmark = pytest.mark.timeout(180)  # two servers and an agent, each started several times

RELAY = "127.0.0.1"
"""Resolves to itself, so that the upper server has nothing to say about the relay's name."""


@pytest.fixture
def upper(tmp_path: Path) -> Iterator[ServerHome]:
    home = ServerHome(tmp_path / "upper")
    yield home
    home.stop_all()


def relays_to(home: ServerHome, upper: ServerHome, password: str, more: str = "") -> None:
    """Let a server pass everything on to another one."""
    secret = home.directory / "upper.password"
    secret.touch(0o600)
    secret.write_text(f"{password}\n")
    home.rc.write_text(
        f"{home.rc.read_text()}{more}\n[Outputs]\nOpenOutput = upper\n"
        f"OutputTarget = relay {upper.address}\nOutputUser = {RELAY}\n"
        f"OutputPasswordFile = {secret}\nOutputTimeLimit = 5\n"
    )


def stored(home: ServerHome) -> list[dict[str, Any]]:
    """Every event in a server's store, in order; read there, since asking a program takes longer."""
    columns = ("client", "id", "time_us", "class", "severity", "code", "msg", "fields")
    with closing(sqlite3.connect(f"file:{home.data}/needfire.sqlite?mode=ro", uri=True)) as store:
        rows = store.execute(f"SELECT {', '.join(columns)} FROM events ORDER BY row_id").fetchall()
    return [dict(zip(columns, row, strict=True)) for row in rows]


def reports(home: ServerHome, client: str) -> list[dict[str, Any]]:
    return [each for each in stored(home) if each["client"] == client]


def own(home: ServerHome, code: str) -> list[dict[str, Any]]:
    """What the server itself said; with the fields as they are."""
    return [
        each | {"fields": json.loads(each["fields"])}
        for each in stored(home)
        if each["client"] is None and each["code"] == code
    ]


def state(home: ServerHome, client: str) -> dict[str, Any]:
    listed = home.admin("status", "--json").stdout.splitlines()
    return next((each for each in map(json.loads, listed) if each["name"] == client), {})


def added(home: ServerHome, client: str) -> int:
    return sum(each["code"] == "POLICY_ADDED" for each in reports(home, client))


def at_the_relay(home: ServerHome, client: str, count: int) -> None:
    wait_until(lambda: len(reports(home, client)) >= count, f"{count} reports at the relay")


def same(event: dict[str, Any]) -> dict[str, Any]:
    """What must not change on the way."""
    return {key: value for key, value in event.items() if key != "client"}


def test_reports_come_through_a_relay_once_each_whoever_is_killed(
    server_home: ServerHome,
    upper: ServerHome,
    make_baselined_agent: Callable[..., AgentHome],
) -> None:
    upper.write_rc(clients=f"RelayClient = {RELAY}")
    upper.start()
    relays_to(server_home, upper, upper.register(RELAY))
    server_home.start()
    agent = make_baselined_agent()
    running = agent.start()
    running.wait_for("File check completed.")
    through = f"{RELAY}/{agent.name}"
    wait_until(lambda: reports(upper, through), "the first reports")
    for number, victims in enumerate([(server_home,), (upper,), (server_home, upper)]):
        before = len(reports(server_home, agent.name))
        for each in range(20):
            (agent.tree / f"new{number}-{each}").write_text("x")
        at_the_relay(server_home, agent.name, before + 1)
        for victim in victims:
            victim.running.kill()
        for victim in victims:
            victim.start()
    wait_until(lambda: added(server_home, agent.name) == 60, "all reports at the relay")
    assert running.stop() == 0

    def is_whole() -> bool:
        sent = reports(server_home, agent.name)
        return (
            bool(sent) and sent[-1]["code"] == "EXIT" and len(reports(upper, through)) == len(sent)
        )

    wait_until(is_whole, "every report at the upper server")
    sent, got = reports(server_home, agent.name), reports(upper, through)
    assert [same(each) for each in got] == [same(each) for each in sent], "in order, unchanged"
    assert added(upper, through) == 60
    assert max(Counter(each["id"] for each in stored(upper)).values()) == 1
    assert state(upper, through)["status"] == "Exited"
    assert not own(upper, "SEQUENCE_GAP")
    [asked] = {each["client"] for each in upper.events("--client", through)}
    assert asked == through


def test_reports_come_through_two_relays_with_the_whole_way_in_their_names(
    server_home: ServerHome,
    upper: ServerHome,
    tmp_path: Path,
    make_baselined_agent: Callable[..., AgentHome],
) -> None:
    """A chain of three real servers; the middle one is killed, and the top one relays back down."""
    middle = ServerHome(tmp_path / "middle", clients=f"RelayClient = {RELAY}")
    with stopping(middle):
        server_home.write_rc(clients=f"RelayClient = {RELAY}")
        upper.write_rc(clients=f"RelayClient = {RELAY}")
        upper.start()
        middle_password = upper.register(RELAY)
        relays_to(middle, upper, middle_password)
        middle.start()
        relays_to(server_home, middle, middle.register(RELAY))
        server_home.start()
        agent = make_baselined_agent()
        running = agent.start()
        running.wait_for("File check completed.")
        through = f"{RELAY}/{RELAY}/{agent.name}"
        wait_until(lambda: reports(upper, through), "the first reports")
        for number in range(20):
            (agent.tree / f"new{number}").write_text("x")
        middle.running.kill()
        at_the_relay(server_home, agent.name, 20)
        middle.start()
        wait_until(lambda: added(upper, through) == 20, "all reports at the top")
        assert running.stop() == 0
        wait_until(lambda: reports(upper, through)[-1]["code"] == "EXIT", "the last one")
        sent, got = reports(server_home, agent.name), reports(upper, through)
        assert [same(each) for each in got] == [same(each) for each in sent], "in order, unchanged"
        assert max(Counter(each["id"] for each in stored(upper)).values()) == 1
        # The lowest server's own events bear its name; it is no host behind itself.
        assert "START" in [each["code"] for each in reports(upper, f"{RELAY}/{RELAY}")]
        assert state(upper, through)["status"] == "Exited"
        # Now a circle of three: what has been here comes back, and goes no further.
        relays_to(upper, server_home, server_home.register(RELAY))
        upper.running.send_signal(signal.SIGHUP)
        upper.register("another")
        servers = (server_home, middle, upper)
        wait_until(
            lambda: any(own(home, "RELAYED_REPORTS_REFUSED") for home in servers), "the circle"
        )
        for home in servers:
            assert max(Counter(each["id"] for each in stored(home)).values()) == 1
            assert not [each for each in stored(home) if (each["client"] or "").count("/") > 2]


def test_a_relay_is_a_client_whose_own_events_and_end_are_known_above(
    server_home: ServerHome, upper: ServerHome
) -> None:
    upper.write_rc(clients=f"RelayClient = {RELAY}")
    upper.start()
    relays_to(server_home, upper, upper.register(RELAY))
    server_home.start()
    wait_until(
        lambda: "START" in [each["code"] for each in reports(upper, RELAY)], "the relay's start"
    )
    tried = json.loads(server_home.admin("output", "test", "upper", "--json").stdout)
    assert tried["outcome"] != "failed"
    server_home.running.stop()
    wait_until(lambda: state(upper, RELAY)["status"] == "Exited", "the goodbye")
    server_home.start()
    wait_until(lambda: state(upper, RELAY)["status"] != "Exited", "its return")
    assert not own(upper, "RESTART_WITHOUT_EXIT")
    assert not own(upper, "CLONE_DETECTED")


def test_a_server_that_is_no_relay_there_is_refused_and_keeps_its_reports(
    server_home: ServerHome, upper: ServerHome
) -> None:
    program = upper.start()
    relays_to(server_home, upper, upper.register(RELAY))
    server_home.start()
    program.wait_for("Client tried to speak for others")
    [listed] = map(json.loads, server_home.admin("output", "list", "--json").stdout.splitlines())
    wait_until(lambda: own(server_home, "OUTPUT_FAILED"), "the failure")
    [failed] = own(server_home, "OUTPUT_FAILED")
    assert "no relay here" in failed["fields"]["reason"]
    assert listed["sent"] == 0
    upper.write_rc(clients=f"RelayClient = {RELAY}")
    upper.running.send_signal(signal.SIGHUP)
    kept = {each["id"] for each in stored(server_home)}
    wait_until(
        lambda: kept <= {each["id"] for each in stored(upper)}, "everything once it is allowed"
    )


def test_two_relays_in_a_circle_are_noticed_and_store_each_event_once(
    server_home: ServerHome,
    upper: ServerHome,
    make_baselined_agent: Callable[..., AgentHome],
) -> None:
    allowed = f"RelayClient = {RELAY}"
    upper.write_rc(clients=allowed)
    server_home.write_rc(clients=allowed)
    upper.start()
    server_home.start()
    relays_to(server_home, upper, upper.register(RELAY))
    relays_to(upper, server_home, server_home.register(RELAY))
    for home in (server_home, upper):
        home.running.send_signal(signal.SIGHUP)
    agent = make_baselined_agent()
    assert agent.run("check").returncode in (0, 2)
    through = f"{RELAY}/{agent.name}"
    wait_until(lambda: reports(upper, through), "the agent's reports above")
    upper.register("another")  # an event of the upper server's own, which comes back to it
    for home in (server_home, upper):
        wait_until(partial(own, home, "RELAYED_REPORTS_REFUSED"), "the circle")
    wait_until(lambda: is_quiet(server_home) and is_quiet(upper), "an end of it")
    for home in (server_home, upper):
        assert max(Counter(each["id"] for each in stored(home)).values()) == 1
        assert not [each for each in stored(home) if (each["client"] or "").count("/") > 1]
        told = own(home, "RELAYED_REPORTS_REFUSED")
        assert len(told) == 1, "told once, although events about it go round as well"
        assert "been here before" in told[0]["fields"]["reason"]
    assert len(reports(upper, through)) == len(reports(server_home, agent.name))


def is_quiet(home: ServerHome) -> bool:
    [listed] = map(json.loads, home.admin("output", "list", "--json").stdout.splitlines())
    return bool(listed["waiting"] == 0)


def test_the_password_of_a_relay_stands_in_no_log_and_its_file_must_be_private(
    server_home: ServerHome, upper: ServerHome
) -> None:
    upper.start()
    password = upper.register(RELAY)
    relays_to(server_home, upper, password)
    os.chmod(server_home.directory / "upper.password", 0o640)
    refused = server_home.check_config()
    assert refused.returncode != 0
    assert "expected 0600" in refused.stdout
    os.chmod(server_home.directory / "upper.password", 0o600)
    program = server_home.start()
    wait_until(lambda: own(server_home, "OUTPUT_FAILED"), "the refusal")
    told = program.output() + server_home.admin("output", "list").stdout
    told += (server_home.data / "log").read_text() + upper.running.output()
    assert password not in told
