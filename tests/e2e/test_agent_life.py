"""The life of agents and of the server, seen by operators: real processes, killed, set back, stopped."""

import json
import shutil
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from needfire_testkit.processes import AgentHome, Program, ServerHome, wait_until

MakeAgent = Callable[..., AgentHome]


def metrics(server: Program) -> dict[str, float]:
    _, body = page(server, "/metrics")
    samples = (line.rpartition(" ") for line in body.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def page(server: Program, path: str) -> tuple[int, str]:
    address = server.wait_for("monitoring on").split()[-1]
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def starts(server: ServerHome, agent: AgentHome) -> list[object]:
    return [e for e in server.events("--code", "START") if e["client"] == agent.name]


def test_a_killed_agent_is_missed_within_the_limit_and_its_return_is_told(
    server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    html = server_home.directory / "status.html"
    server_home.write_rc(misc=f"SilenceLimit=2\nMetricsListen=0\nHtmlStatusFile={html}")
    server = server_home.start()
    agent = make_baselined_agent()
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    wait_until(lambda: metrics(server)["needfire_sessions"] == 1, "the session")
    daemon.kill()
    line = server.wait_for("Stopped without goodbye")
    assert f'client="{agent.name}"' in line
    assert metrics(server)["needfire_clients_silent"] == 1
    [status] = [json.loads(x) for x in server_home.admin("status", "--json").stdout.splitlines()]
    assert (status["status"], status["silent"]) == ("TIMEOUT_EXCEEDED", True)
    assert server_home.admin("status").stdout.splitlines()[1].split()[1] == "TIMEOUT_EXCEEDED"
    wait_until(lambda: "TIMEOUT_EXCEEDED" in html.read_text(), "the page")
    report = server_home.admin("report").stdout
    assert (
        f"  Stopped without goodbye\n      where /, from {status['last_seen']}, to now, still"
        in report
    )
    agent.start().wait_for("File check completed.")
    server.wait_for("Client returned")
    assert metrics(server)["needfire_reports_lost"] == 0
    [status] = [json.loads(x) for x in server_home.admin("status", "--json").stdout.splitlines()]
    assert (status["silent"], status["status"] != "TIMEOUT_EXCEEDED") == (False, True)
    assert "now, still" not in server_home.admin("report").stdout
    assert abs(status["clock_difference_s"]) < 30
    assert len(status["boot_id"]) == 36


def test_an_agent_that_stopped_with_a_goodbye_is_not_missed(
    server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    server_home.write_rc(misc="SilenceLimit=1\nSetClientTimeLimit=4")
    server = server_home.start()
    clean, killed = make_baselined_agent(), make_baselined_agent("127.0.0.1")
    daemons = [clean.start(), killed.start()]
    for daemon in daemons:
        daemon.wait_for("File check completed.")
    assert daemons[0].stop() == 0
    daemons[1].kill()
    server.wait_for("Time limit exceeded")
    missed = server_home.events("--code", "STOPPED_WITHOUT_GOODBYE")
    assert [event["fields"]["client"] for event in missed] == [killed.name]


def test_an_agent_that_is_set_back_to_a_snapshot_loses_no_report(
    server_home: ServerHome, make_baselined_agent: MakeAgent, tmp_path: Path
) -> None:
    server_home.write_rc(misc="MetricsListen=0")
    server = server_home.start()
    agent = make_baselined_agent()
    first = agent.start()
    first.wait_for("File check completed.")
    assert first.stop() == 0
    snapshot = tmp_path / "snapshot"
    shutil.copytree(agent.state, snapshot)
    second = agent.start()
    second.wait_for("File check completed.")
    for number in range(5):
        (agent.tree / f"before{number}").write_text("x")
    server.wait_for("before4")
    second.kill()
    shutil.rmtree(agent.state)
    shutil.copytree(snapshot, agent.state)
    third = agent.start()
    third.wait_for("File check completed.")
    (agent.tree / "after").write_text("x")
    server.wait_for('path="' + str(agent.tree / "after"))
    server.wait_for("Agent restored from an earlier state")
    # init and three runs: what the third one numbered like the second is there as well.
    wait_until(lambda: len(starts(server_home, agent)) == 4, "the START of each process")
    reports = [e for e in server_home.events() if e["client"] == agent.name]
    assert len({event["id"] for event in reports}) == len(reports), "each of them once"
    added = [e["fields"]["path"] for e in reports if e["code"] == "POLICY_ADDED"]
    assert added.count(str(agent.tree / "after")) == 1
    # A new process tells all that differs: both of them did.
    assert [added.count(str(agent.tree / f"before{number}")) for number in range(5)] == [2] * 5
    assert metrics(server)["needfire_reports_lost"] == 0
    assert not server_home.events("--code", "CLONE_DETECTED")
    # Once more with what it has now: the new numbering goes on.
    assert third.stop() == 0
    assert len(server_home.events("--code", "AGENT_RESTORED")) == 1


def test_health_tells_a_server_that_works_from_one_that_hangs_or_is_away(
    server_home: ServerHome,
) -> None:
    server_home.admin("health", status=4)
    server_home.write_rc(misc="MetricsListen=0")
    server = server_home.start()
    wait_until(lambda: page(server, "/readyz")[0] == 200, "readiness")
    found = json.loads(server_home.admin("health", "--json").stdout)
    assert found == {"ready": True, "store": "ok", "background": "ok", "service": "ok"}
    assert page(server, "/healthz") == (200, "ok\n")
    server.send_signal(signal.SIGSTOP)
    try:
        hung = server_home.admin("health", "--timeout", "0.3", status=4)
        assert "does not answer in time" in hung.stderr
    finally:
        server.send_signal(signal.SIGCONT)
    server_home.admin("health")


def test_the_status_page_is_there_while_the_server_runs(
    server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    html = server_home.directory / "status.html"
    (server_home.data / "foot.html").write_text("<!-- our own foot -->")
    server_home.write_rc(misc=f"HtmlStatusFile={html}")
    server = server_home.start()
    agent = make_baselined_agent()
    agent.start().wait_for("File check completed.")
    wait_until(lambda: f"[STATUS:] {agent.name} Filecheck" in html.read_text(), "the page")
    assert html.read_text().endswith("<!-- our own foot -->")
    assert server.stop() == 0
    assert html.read_text() == ""


def test_commands_can_be_seen_cancelled_and_expire(
    server_home: ServerHome, make_agent: MakeAgent
) -> None:
    server = server_home.start()
    agent = make_agent()
    server_home.admin("send", agent.name, "scan")
    server_home.admin("send", agent.name, "stop")
    server_home.admin("send", agent.name, "reload", "--expires", "1s")
    server.wait_for("Command expired: reload")
    listed = [
        json.loads(line)
        for line in server_home.admin("commands", agent.name, "--json").stdout.splitlines()
    ]
    assert [command["verb"] for command in listed] == ["scan", "stop"]
    server_home.admin("cancel", agent.name, str(listed[1]["command_id"]))
    server.wait_for("Command cancelled: stop")
    server_home.admin("cancel", agent.name, str(listed[1]["command_id"]), status=9)
    # The queue is on the disk.
    server.kill()
    server_home.start()
    assert len(server_home.admin("commands", "--json").stdout.splitlines()) == 1
