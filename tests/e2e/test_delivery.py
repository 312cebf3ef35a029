"""Reports arrive, each exactly once, whatever happens to the programs and to the connection."""

import json
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from needfire_testkit.processes import AgentHome, Program, ServerHome, wait_until

MakeAgent = Callable[..., AgentHome]


def added_paths(server: ServerHome) -> Counter[str]:
    return Counter(event["fields"]["path"] for event in server.events("--code", "POLICY_ADDED"))


def spooled_codes(agent: AgentHome) -> list[str]:
    """Codes of the reports that are on the agent's disk."""
    with closing(sqlite3.connect(f"file:{agent.state}/spool.sqlite?mode=ro", uri=True)) as spool:
        return [code for (code,) in spool.execute("SELECT code FROM reports")]


def test_a_change_reaches_those_who_follow(
    server_home: ServerHome, make_baselined_agent: MakeAgent, tmp_path: Path
) -> None:
    server_home.start()
    agent = make_baselined_agent()
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    follower = Program(
        [
            str(Path(sys.executable).parent / "needfire-admin"),
            *("--data-dir", str(server_home.data)),
            *("events", "--follow", "--limit", "0", "--json"),
        ],
        tmp_path / "follow.out",
    )
    try:
        follower.wait_for("following new events")
        (agent.tree / "file.txt").write_text("second\n")
        line = follower.wait_for("POLICY_MODIFIED")
        event = json.loads(line)
        assert event["v"] == 1
        assert event["client"] == agent.name
        assert event["class"] == "integrity"
        assert event["severity"] == "crit"
        assert event["fields"]["path"] == str(agent.tree / "file.txt")
        assert (event["fields"]["size_old"], event["fields"]["size_new"]) == (6, 7)
        assert event["msg"].startswith("POLICY [ReadOnly] C")
    finally:
        follower.kill()


def test_a_server_killed_in_the_middle_of_a_stream_gets_every_report_exactly_once(
    server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    server_home.start()
    agent = make_baselined_agent()
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    names = [f"new{number}" for number in range(300)]
    killed_at = (60, 140, 220)
    for number, name in enumerate(names):
        (agent.tree / name).write_text(name)
        if number in killed_at:
            # Kill while reports are under way: some stored, some not acknowledged, some spooled.
            wait_until(lambda: len(added_paths(server_home)) > 0, "the first report")
            server_home.running.kill()
            server_home.start()
    expected = {str(agent.tree / name): 1 for name in names}
    wait_until(lambda: len(added_paths(server_home)) >= len(expected), "all reports", 60)
    assert added_paths(server_home) == expected
    sequences = [event["id"] for event in server_home.events("--client", agent.name)]
    assert len(sequences) == len(set(sequences))
    assert "Reports missing" not in server_home.running.output()
    # The agent was there all the time: that the server was killed does not make it a suspect.
    assert not server_home.events("--code", "RESTART_WITHOUT_EXIT")


def test_an_agent_killed_with_reports_in_its_spool_delivers_them_after_its_restart(
    server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    server_home.start()
    agent = make_baselined_agent()
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    server_home.running.wait_for("File check completed.")
    server_home.running.kill()
    passing = agent.tree / "made and removed while the server is away"
    passing.write_text("x")
    wait_until(lambda: "POLICY_ADDED" in spooled_codes(agent), "the report in the spool")
    daemon.kill()
    # After its restart the agent cannot find it any more: only the spool knows of it.
    passing.unlink()
    server_home.start()
    agent.start().wait_for("File check completed.")
    wait_until(lambda: added_paths(server_home)[str(passing)] == 1, "the report")


def test_session_keys_expire_and_no_report_is_lost(
    server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    server_home.write_rc(misc="SessionKeyLifetime=2")
    server = server_home.start()
    agent = make_baselined_agent()
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    for number in range(3):
        daemon.wait_for('msg="Session key negotiated"', count=2 + number)
        (agent.tree / f"new{number}").write_text("x")
    wait_until(lambda: len(added_paths(server_home)) == 3, "three reports")
    assert set(added_paths(server_home).values()) == {1}
    assert "Restart without prior exit" not in server.output()
    assert "Invalid connection" not in server.output()


def test_a_reload_of_the_server_drops_no_connection(
    server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    server = server_home.start()
    agent = make_baselined_agent()
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    server.send_signal(signal.SIGHUP)
    server.wait_for("Runtime configuration reloaded")
    (agent.tree / "after the reload").write_text("x")
    server.wait_for("after the reload")
    assert daemon.output().count("Session key negotiated") == 1
    assert "Session resumed" not in daemon.output()


def test_a_broken_configuration_does_not_stop_a_running_server(server_home: ServerHome) -> None:
    server = server_home.start()
    server_home.rc.write_text("[Misc]\nSetServerPrt=1\n")
    server.send_signal(signal.SIGHUP)
    line = server.wait_for("Configuration not reloaded")
    assert "serverrc:2" in line
    assert server.process.poll() is None
    assert server.stop() == 0


def test_an_agent_resumes_its_session_after_a_restart_of_the_connection_only(
    server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    """The server closes an idle connection; the agent comes back with the key that it has."""
    server_home.write_rc(misc="SetConnectionTimeout=1")
    server = server_home.start()
    agent = make_baselined_agent(misc="SetLoopTime=600")
    daemon = agent.start()
    daemon.wait_for("Session resumed")
    (agent.tree / "after resuming").write_text("x")
    server.wait_for("after resuming")
    assert daemon.output().count("Session key negotiated") == 1


def test_a_verifier_line_can_be_pasted(server_home: ServerHome, make_agent: MakeAgent) -> None:
    password = server_home.admin("gen-password").stdout.strip()
    assert len(password) >= 22, "128 bits need 22 characters of base 64"
    line = server_home.admin("verifier", "--password-file", "-", standard_input=password).stdout
    assert line.startswith("Client=HOSTNAME@")
    server_home.write_rc(clients=line.strip().replace("HOSTNAME", "localhost"))
    server_home.start()
    agent = make_agent(registered=False)
    agent.set_password(password)
    rc = agent.directory / "rc"
    rc.write_text(agent.rc_text())
    server_home.admin("config", "put", "localhost", str(rc))
    result = agent.run("init", "--output", str(agent.directory / "baseline"))
    assert result.returncode == 0, result.stdout


def test_commands_reach_an_agent_and_are_acknowledged(
    server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    server = server_home.start()
    agent = make_baselined_agent()
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    server_home.admin("send", agent.name, "scan")
    daemon.wait_for("File check completed.", count=2)
    server_home.admin("send", agent.name, "reload")
    daemon.wait_for("Runtime configuration reloaded")
    server_home.admin("send", agent.name, "stop")
    assert daemon.exit_status() == 0
    wait_until(lambda: server.output().count("Command acknowledged") == 3, "three acknowledgements")
    queued = [e["fields"]["command"] for e in server_home.events("--code", "COMMAND_QUEUED")]
    assert queued == ["scan", "reload", "stop"]


def test_a_command_waits_for_an_agent_that_is_away(
    server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    server_home.start()
    agent = make_baselined_agent()
    server_home.admin("send", agent.name, "scan")
    daemon = agent.start()
    daemon.wait_for("Command received: scan")
    daemon.wait_for("File check completed.")
    server_home.running.wait_for("Command acknowledged: scan")


def test_a_silent_client_is_reported_once_and_its_return_too(
    server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    server_home.write_rc(misc="SetClientTimeLimit=2")
    server = server_home.start()
    agent = make_baselined_agent()
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    server.wait_for("File check completed.")
    daemon.kill()
    line = server.wait_for("Time limit exceeded")
    assert f'client="{agent.name}"' in line
    agent.start().wait_for("File check completed.")
    server.wait_for("Client returned")
    assert server.output().count("Time limit exceeded") == 1


def test_a_proposal_replaces_nothing_until_it_is_put_in_place(
    server_home: ServerHome, make_agent: MakeAgent
) -> None:
    server_home.start()
    agent = make_agent()
    result = agent.run("init", "--upload")
    assert result.returncode == 0, result.stdout
    assert "Baseline proposed" in result.stdout
    server_home.running.wait_for("Baseline proposal received")
    assert agent.run("check").returncode == 6, "there must be no baseline yet"
    proposals = json.loads(server_home.admin("baseline", "list", "--json").stdout.splitlines()[0])
    number = str(proposals["id"] if "id" in proposals else proposals["proposal"])
    server_home.admin("baseline", "put", agent.name, "--proposal", number)
    result = agent.run("check")
    assert result.returncode == 0, result.stdout
    (agent.tree / "file.txt").write_text("changed\n")
    assert agent.run("check").returncode == 1


def test_check_and_update_with_local_files_need_no_server(
    server_home: ServerHome, make_agent: MakeAgent
) -> None:
    agent = make_agent(registered=False)
    rc = agent.directory / "rc"
    rc.write_text(agent.rc_text())
    agent_program = str(Path(sys.executable).parent / "needfire-agent")

    def run(verb: str, *arguments: str) -> int:
        return subprocess.run(
            [agent_program, verb, "--state-dir", str(agent.state), "--rc", str(rc), *arguments],
            capture_output=True,
            timeout=60,
            check=False,
        ).returncode

    assert run("init") == 0
    assert run("check") == 0
    (agent.tree / "file.txt").unlink()
    assert run("check") == 1
    assert run("update") == 1
    assert run("check") == 0


def test_garbage_on_the_port_ends_that_connection_with_a_reason(server_home: ServerHome) -> None:
    server = server_home.start()
    with socket.create_connection(("127.0.0.1", server_home.port), timeout=10) as peer:
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
        peer.settimeout(10)
        while peer.recv(4096):
            pass
    server.wait_for("Protocol error")
    assert server.process.poll() is None
