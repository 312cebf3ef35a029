"""A real server with outputs: set up in its file, tried, reloaded, killed; nothing is lost."""

import json
import os
from pathlib import Path
from typing import Any

from needfire_testkit.processes import ServerHome, wait_until


def configure(home: ServerHome, outputs: str) -> None:
    home.write_rc(clients="")
    home.rc.write_text(f"{home.rc.read_text()}\n[Outputs]\n{outputs}")


def records(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def statuses(home: ServerHome) -> dict[str, dict[str, Any]]:
    listed = home.admin("output", "list", "--json").stdout.splitlines()
    return {each["name"]: each for each in map(json.loads, listed)}


def codes(path: Path) -> list[str]:
    return [each["code"] for each in records(path)]


def test_an_output_has_what_the_server_stores_from_its_start_to_its_end(
    server_home: ServerHome, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    configure(server_home, f"OpenOutput = archive\nOutputTarget = file {out}\n")
    server_home.start()
    server_home.register("web1")
    wait_until(lambda: "CLIENT_REGISTERED" in codes(out), "the registration")
    assert server_home.running.stop() == 0
    found = codes(out)
    assert found[0] == "START"
    assert found[-1] == "EXIT", "what was stored last is delivered before the end"
    stored = [
        json.loads(line)["id"]
        for line in server_home.admin("events", "--json", "--limit", "1000").stdout.splitlines()
    ]
    assert [each["id"] for each in records(out)] == stored


def test_an_output_is_tried_with_the_admin_tool(server_home: ServerHome, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    configure(
        server_home,
        f"OpenOutput = archive\nOutputTarget = file {out}\nOutputSeverity = !*\n"
        "OpenOutput = broken\nOutputTarget = syslog-tcp 127.0.0.1:1\n",
    )
    server_home.start()
    tried = json.loads(server_home.admin("output", "test", "archive", "--json").stdout)
    assert tried["outcome"] == "delivered"
    [record] = records(out)
    assert (record["id"], record["code"]) == (tried["id"], "OUTPUT_TEST")
    failed = server_home.admin("output", "test", "broken", status=9)
    assert "error: output broken: connection refused" in failed.stderr
    unknown = server_home.admin("output", "test", "nothing", status=9)
    assert "there is no output 'nothing'" in unknown.stderr
    assert "output list" in unknown.stderr
    outcomes = [
        json.loads(line)["fields"]["outcome"]
        for line in server_home.admin(
            "events", "--json", "--code", "OUTPUT_TESTED"
        ).stdout.splitlines()
    ]
    assert outcomes == ["delivered", "failed"]


def test_outputs_are_listed_with_their_counters(server_home: ServerHome, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    configure(
        server_home,
        f"OpenOutput = archive\nOutputTarget = file {out}\n"
        "OpenOutput = broken\nOutputTarget = syslog-tcp 127.0.0.1:1\n",
    )
    server_home.start()
    wait_until(lambda: statuses(server_home)["broken"]["state"] == "away", "the failure")
    wait_until(lambda: "OUTPUT_FAILED" in codes(out), "its announcement at the other output")
    wait_until(lambda: statuses(server_home)["archive"]["waiting"] == 0, "everything sent")
    found = statuses(server_home)
    assert found["archive"]["sent"] == len(records(out))
    assert (found["archive"]["state"], found["archive"]["dropped"]) == ("working", 0)
    assert found["broken"]["sent"] == 0
    assert found["broken"]["waiting"] > 0
    assert found["broken"]["reason"]
    table = server_home.admin("output", "list").stdout
    assert "NAME" in table
    assert "syslog-tcp 127.0.0.1:1" in table


def test_a_reload_begins_and_ends_outputs_and_a_wrong_one_changes_nothing(
    server_home: ServerHome, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    configure(server_home, f"OpenOutput = a\nOutputTarget = file {first}\n")
    program = server_home.start()
    # What is still on its way to the store would come to the new output as well.
    wait_until(lambda: "START" in codes(first), "the start at the first one")
    both = f"OpenOutput = a\nOutputTarget = file {first}\nOpenOutput = b\nOutputTarget = file {second}\n"
    configure(server_home, both)
    reload(server_home)
    wait_until(lambda: set(statuses(server_home)) == {"a", "b"}, "both outputs")
    server_home.register("web1")
    wait_until(lambda: "CLIENT_REGISTERED" in codes(second), "the event at the new one")
    assert "START" not in codes(second), "a new output begins with what comes"
    configure(server_home, "OpenOutput = a\nOutputTarget = fil /x\n")
    reload(server_home)
    program.wait_for("is no kind of target")
    assert set(statuses(server_home)) == {"a", "b"}
    configure(server_home, f"OpenOutput = b\nOutputTarget = file {second}\n")
    reload(server_home)
    wait_until(lambda: set(statuses(server_home)) == {"b"}, "one output")


def reload(home: ServerHome) -> None:
    import signal

    home.running.send_signal(signal.SIGHUP)


def test_a_server_that_is_killed_again_and_again_loses_nothing(
    server_home: ServerHome, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    configure(server_home, f"OpenOutput = archive\nOutputTarget = file {out}\n")
    for number in range(3):
        server_home.start()
        for each in range(4):
            server_home.register(f"web{number}-{each}")
        server_home.running.kill()
    server_home.start()
    stored = [
        json.loads(line)["id"]
        for line in server_home.admin("events", "--json", "--limit", "1000").stdout.splitlines()
    ]
    wait_until(lambda: {each["id"] for each in records(out)} >= set(stored), "every event")
    seen: set[str] = set()
    for record in records(out):
        assert record["id"] not in seen or record["fields"].get("resent") is True
        seen.add(record["id"])


def test_a_secret_stands_in_no_log_and_no_list(server_home: ServerHome, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text("a planted secret of more than 24 bytes\n")
    configure(
        server_home,
        "OpenOutput = hook\nOutputTarget = webhook http://127.0.0.1:1/T0KEN\n"
        f"OutputKeyFile = {key}\n",
    )
    program = server_home.start()
    wait_until(lambda: statuses(server_home)["hook"]["state"] == "away", "the failure")
    told = server_home.admin("output", "list").stdout + program.output()
    told += (server_home.data / "log").read_text()
    assert "planted" not in told
    assert "T0KEN" not in told
    assert os.path.exists(server_home.data / "needfire.sqlite")


def test_what_a_target_refuses_for_good_is_seen_to_with_the_admin_tool(
    server_home: ServerHome, tmp_path: Path
) -> None:
    program = tmp_path / "picky"
    program.write_text("#!/bin/sh\ncase $(cat) in *SERVER_UP*) echo no >&2; exit 65;; esac\n")
    program.chmod(0o755)
    configure(server_home, f"OpenOutput = picky\nOutputTarget = command {program}\n")
    server_home.start()
    wait_until(lambda: statuses(server_home)["picky"]["skipped"] == 1, "the record")
    [found] = server_home.admin("output", "skipped", "--json").stdout.splitlines()
    skipped = json.loads(found)
    assert (skipped["output"], skipped["event"]["code"]) == ("picky", "SERVER_UP")
    assert skipped["reason"] == "it ended with status 65: no"
    refused = server_home.admin("output", "retry", "picky", status=9)
    assert "still refused: 1 record\n" in refused.stderr
    number = str(skipped["number"])
    server_home.admin("output", "discard", "picky", "--number", number)
    nothing = server_home.admin("output", "discard", "picky", "--all", status=9)
    assert "nothing of the kind is set aside" in nothing.stderr
    codes_of = [each["code"] for each in server_home.events("--limit", "100")]
    for code in (
        "OUTPUT_RECORD_SKIPPED",
        "OUTPUT_SKIPPED_RETRIED",
        "OUTPUT_SKIPPED_HANDLED",
        "OUTPUT_SKIPPED_DISCARDED",
    ):
        assert codes_of.count(code) == 1
    wait_until(lambda: statuses(server_home)["picky"]["dropped"] == 1, "the count")
