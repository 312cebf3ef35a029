"""Reading events and the audit log of a server that works: by path, by request, and as they come."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from needfire_protocol.escape import escape_bytes
from needfire_testkit.processes import AgentHome, Program, ServerHome


def records(server_home: ServerHome, *options: str) -> list[dict[str, Any]]:
    shown = server_home.admin("audit", "show", *options).stdout
    return [json.loads(line) for line in shown.splitlines()]


def test_a_hostile_name_and_a_request_are_found_from_end_to_end(
    server_home: ServerHome, make_baselined_agent: Callable[..., AgentHome], tmp_path: Path
) -> None:
    server_home.start()
    agent = make_baselined_agent()
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    program = str(Path(sys.executable).parent / "needfire-admin")
    follow = ("audit", "show", "--follow", "--limit", "0", "--code", "REPORTS_RECEIVED")
    follower = Program(
        [program, "--data-dir", str(server_home.data), *follow], tmp_path / "follow.out"
    )
    try:
        follower.wait_for("following new records")
        hostile = os.fsencode(agent.tree) + b"/\x1b[2J\n\\x41\xff"
        with open(hostile, "wb"):
            daemon.wait_for("POLICY ADDED")
        received = json.loads(follower.wait_for('"code":"REPORTS_RECEIVED"'))
        assert (received["client"], received["outcome"]) == (agent.name, "success")
    finally:
        follower.kill()
    shown = escape_bytes(hostile)
    found = server_home.events("--path", shown)
    assert {each["fields"]["path"] for each in found} == {shown}
    [added] = [each for each in found if each["code"] == "POLICY_ADDED"]
    assert added in server_home.events("--below", str(agent.tree))
    before = server_home.events("--path", shown, "--before", str(found[-1]["cursor"]))
    assert before == found[:-1]
    [put] = server_home.events("--code", "BASELINE_PUT")
    [same] = server_home.events("--request", put["fields"]["request"])
    assert same == put
    by_request = records(server_home, "--request", put["fields"]["request"])
    assert [each["code"] for each in by_request] == ["ADMIN_REQUEST", "BASELINE_PUT"]
