"""What somebody changes is told with what it was before: files, settings, programs, the catalogue."""

import contextlib
import json
import signal
import sqlite3
from collections.abc import Callable
from typing import Any

from needfire_protocol import __version__
from needfire_protocol.catalogue import CATALOGUE
from needfire_testkit.processes import AgentHome, ServerHome, wait_until


def told(server: ServerHome, code: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait for so many events of this code; return their fields."""

    def found() -> list[dict[str, Any]]:
        rows = stored(server, "SELECT fields FROM events WHERE code = ? ORDER BY row_id", code)
        return [json.loads(fields) for (fields,) in rows] if len(rows) >= count else []

    fields: list[dict[str, Any]] = wait_until(found, f"{code} ({count} times)")
    assert len(fields) == count
    return fields


def stored(server: ServerHome, statement: str, *values: str) -> list[tuple[Any, ...]]:
    """Ask the store itself: a process for each look would take most of the time."""
    with contextlib.closing(sqlite3.connect(server.data / "needfire.sqlite")) as store:
        return store.execute(statement, values).fetchall()


def recorded(server: ServerHome, code: str) -> list[dict[str, Any]]:
    shown = server.admin("audit", "show", "--json").stdout.splitlines()
    return [record for line in shown if (record := json.loads(line))["code"] == code]


def known(server: ServerHome, change: Callable[[str, str], str]) -> None:
    """Change what the store of a server that does not run says of before."""
    rows = stored(server, "SELECT name, value FROM known")
    with contextlib.closing(sqlite3.connect(server.data / "needfire.sqlite")) as store, store:
        for name, value in rows:
            store.execute("UPDATE known SET value = ? WHERE name = ?", (change(name, value), name))


def test_changed_settings_are_told_at_a_reload_and_at_the_next_start(
    server_home: ServerHome,
) -> None:
    server_home.write_rc("ConnectionLimit=100", clients="# nobody")
    server = server_home.start()
    server_home.write_rc("ConnectionLimit=200\nSilenceLimit=90")
    server.send_signal(signal.SIGHUP)
    [first] = told(server_home, "SETTINGS_CHANGED")
    assert json.loads(first["changes"]) == {
        "ConnectionLimit": ["100", "200"],
        "SilenceLimit": [None, "90"],
    }
    assert (first["changed"], first["changes_left_out"]) == (2, 0)
    assert server.stop() == 0
    server_home.write_rc("ConnectionLimit=200")
    server_home.start()
    _, second = told(server_home, "SETTINGS_CHANGED", 2)
    assert json.loads(second["changes"]) == {"SilenceLimit": ["90", None]}
    assert second["hash_old"] == first["hash"] != second["hash"]
    [_, record] = recorded(server_home, "SETTINGS_CHANGED")
    assert record["fields"]["changes"] == second["changes"]
    # What did not change is not told once more, nor is anything at the first start.
    assert server_home.running.stop() == 0
    server_home.start()
    assert server_home.running.stop() == 0
    events = server_home.events("--class", "provisioning")
    assert [each["code"] for each in events] == ["SETTINGS_CHANGED"] * 2


def test_another_version_and_another_catalogue_are_told_at_the_start(
    server_home: ServerHome,
) -> None:
    server_home.start().stop()
    code, *_ = CATALOGUE

    def older(name: str, value: str) -> str:
        if name.startswith("software"):
            return "0.0.1"
        if name.startswith("catalogue"):
            entries = json.loads(value)
            del entries[code]
            return json.dumps({**entries, "START": "0", "GONE": "0"})
        return value

    known(server_home, older)
    server = server_home.start()
    [software] = told(server_home, "SOFTWARE_CHANGED")
    assert software == {
        "program": "needfire-server",
        "version": __version__,
        "version_old": "0.0.1",
    }
    [catalogue] = told(server_home, "CATALOGUE_CHANGED")
    assert (catalogue["added"], catalogue["removed"], catalogue["modified"]) == (1, 1, 1)
    assert set(catalogue["diff"].split(r"\x0a")) == {f"A {code}", "D GONE", "M START"}
    server.wait_for(f"Software changed: needfire-server 0.0.1 is now {__version__}")
    assert len(recorded(server_home, "SOFTWARE_CHANGED")) == 1
    # What somebody wrote into the store is no reason to fail; everything is new then.
    assert server.stop() == 0
    known(server_home, lambda name, value: "[" if name.startswith(("s", "c")) else value)
    server_home.start()
    told(server_home, "SETTINGS_CHANGED")
    told(server_home, "CATALOGUE_CHANGED", 2)


def test_what_an_agent_is_given_and_takes_is_told_on_both_sides(
    make_agent: Callable[..., AgentHome], server_home: ServerHome
) -> None:
    server = server_home.start()
    agent = make_agent("127.0.0.1", configured=False)
    rc = agent.directory / "for-all"
    rc.write_text(agent.rc_text())
    server_home.admin("config", "put", "--default", str(rc))
    first, second = (str(agent.directory / name) for name in ("first", "second"))
    assert agent.run("init", "--output", first).returncode == 0
    (agent.tree / "one more").write_text("new\n")
    assert agent.run("init", "--output", second).returncode == 0
    server_home.admin("baseline", "put", agent.name, first)
    running = agent.start()
    running.wait_for("File check completed")
    server_home.admin("baseline", "put", agent.name, second)
    rc.write_text(agent.rc_text("SetNiceLevel=5"))
    server_home.admin("config", "put", agent.name, str(rc))
    server_home.admin("send", agent.name, "reload")
    [_, given] = told(server_home, "CONFIGURATION_PUT", 2)
    [taken] = told(server_home, "CONFIGURATION_TAKEN")
    assert (taken["hash"], taken["hash_old"]) == (given["hash"], given["hash_old"])
    assert json.loads(taken["changes"])["SetNiceLevel"] == [None, "5"]
    assert given["path_old"].endswith("/rc")
    [_, baseline] = told(server_home, "BASELINE_PUT", 2)
    assert (baseline["added"], baseline["removed"]) == (1, 0)
    assert f"A {agent.tree}/one more" in baseline["diff"].split(r"\x0a")
    [taken] = told(server_home, "BASELINE_TAKEN")
    assert (taken["hash"], taken["hash_old"]) == (baseline["hash"], baseline["hash_old"])
    # The agent comes back with another version than the store knows.
    running.kill()
    assert server.stop() == 0
    known(server_home, lambda name, value: "0.0.2" if name.startswith("agent ") else value)
    server_home.start()
    agent.start()
    [software] = told(server_home, "SOFTWARE_CHANGED")
    assert software["client"] == agent.name
    assert (software["version_old"], software["version"]) == ("0.0.2", __version__)
