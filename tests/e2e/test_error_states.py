"""The eight documented error states: real processes, the exact words on both sides.

Each test provokes one state as an administrator would meet it and reads both logs. What both sides
must say is contract: people and scripts search for these words.
"""

import re
import signal
import socket
from collections.abc import Callable

import pytest

from needfire_testkit.processes import AgentHome, ServerHome, wait_until

MakeAgent = Callable[..., AgentHome]


def line_with(log: str, text: str) -> str:
    """Return the one kind of line that has the text; fail with the whole log otherwise."""
    lines = [line for line in log.splitlines() if text in line]
    assert lines, f"no line with {text!r} in:\n{log}"
    return lines[-1]


def test_state_1_server_down_is_connection_refused(
    server_home: ServerHome, make_agent: MakeAgent
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server_home.port = unused.getsockname()[1]
        agent = make_agent()
        result = agent.run("check")
    assert 'msg="Connection refused"' in result.stdout
    assert result.returncode == 4


def test_state_2_denied_by_access_lists(server_home: ServerHome, make_agent: MakeAgent) -> None:
    server_home.hosts_deny.write_text("needfire: ALL\n")
    server = server_home.start()
    agent = make_agent()
    result = agent.run("check")
    output = result.stdout
    first = output.index('msg="Connection error: Connection reset by peer"')
    assert output.index('msg="Session key negotiation failed"') > first
    assert result.returncode == 5
    refused = server.wait_for("Refused connection from")
    assert 'msg="Refused connection from 127.0.0.1"' in refused
    assert 'subroutine="libwrap"' in refused


def test_state_2_is_mended_by_editing_the_lists_alone(
    server_home: ServerHome, make_agent: MakeAgent
) -> None:
    server_home.hosts_deny.write_text("yule: ALL\n")
    server_home.start()
    agent = make_agent()
    assert agent.run("check").returncode == 5
    server_home.hosts_allow.write_text("yule: 127.0.0.1\n")
    result = agent.run("init", "--output", str(agent.directory / "baseline"))
    assert result.returncode == 0, result.stdout


def test_state_3_wrong_password(server_home: ServerHome, make_agent: MakeAgent) -> None:
    server = server_home.start()
    agent = make_agent()
    agent.set_password("this is not the password of it")
    result = agent.run("check")
    assert 'msg="Session key negotiation failed"' in result.stdout
    assert result.returncode == 5
    line = server.wait_for("Invalid connection attempt")
    assert 'msg="Invalid connection attempt: Session key mismatch"' in line
    assert f'client="{agent.name}"' in line


def test_state_3_two_entries_of_one_client_are_named_when_they_are_read(
    server_home: ServerHome,
) -> None:
    verifier = server_home.admin("verifier", "--password-file", "-", standard_input="x" * 30).stdout
    line = verifier.strip().replace("HOSTNAME", "web1.example.org")
    server_home.write_rc(clients=f"{line}\n{line}")
    server = server_home.start()
    warning = server.wait_for("Client listed twice")
    assert 'sev="WARN"' in warning
    assert 'client="web1.example.org"' in warning


def test_state_4_unregistered_name(server_home: ServerHome, make_agent: MakeAgent) -> None:
    server = server_home.start()
    agent = make_agent(registered=False)
    agent.set_password("whatever it may be, it is unknown")
    result = agent.run("check")
    assert 'msg="Session key negotiation failed"' in result.stdout
    assert result.returncode == 5
    line = server.wait_for("Invalid connection attempt")
    assert 'msg="Invalid connection attempt: Not in client list"' in line
    assert 'client="localhost"' in line


def test_states_3_and_4_look_the_same_to_the_agent(
    server_home: ServerHome, make_agent: MakeAgent
) -> None:
    server_home.start()
    registered, stranger = make_agent(), make_agent("ip6-localhost", registered=False)
    for agent in (registered, stranger):
        agent.set_password("wrong for the one, unknown for the other")
    seen = []
    for agent in (registered, stranger):
        output = agent.run("check").stdout
        assert "negotiation failed" in output
        output = re.sub(r'tstamp="[^"]*"', "", output).replace(str(agent.directory), "")
        seen.append(output.replace(agent.name, "NAME"))
    assert seen[0] == seen[1]


def test_state_5_lookup_failure_is_logged_and_the_connection_goes_on(
    server_home: ServerHome, make_agent: MakeAgent
) -> None:
    server = server_home.start()
    agent = make_agent("web1.no-such-domain.invalid")
    result = agent.run("init", "--output", str(agent.directory / "baseline"))
    assert result.returncode == 0, result.stdout
    line = server.wait_for("Cannot resolve client name")
    assert 'sev="CRIT"' in line
    assert 'client="web1.no-such-domain.invalid"' in line
    assert 'peer="127.0.0.1"' in line


def test_state_5_severity_lookup_decides_and_is_called_unsafe(
    server_home: ServerHome, make_agent: MakeAgent
) -> None:
    server_home.write_rc(misc="SeverityLookup=debug\n[Log]\nLogSeverity=warn\nPrintSeverity=warn")
    text = server_home.rc.read_text().replace("PrintSeverity=*\nLogSeverity=*\n", "")
    server_home.rc.write_text(text)
    server = server_home.start()
    assert "SeverityLookup=debug" in server.wait_for("stolen password")
    agent = make_agent("web1.no-such-domain.invalid")
    result = agent.run("init", "--output", str(agent.directory / "baseline"))
    assert result.returncode == 0, result.stdout
    assert "Cannot resolve" not in server.output()


def test_state_5_require_lookup_refuses_as_state_4(
    server_home: ServerHome, make_agent: MakeAgent
) -> None:
    server_home.write_rc(misc="RequireLookup=yes")
    server = server_home.start()
    agent = make_agent("web1.no-such-domain.invalid")
    result = agent.run("check")
    assert 'msg="Session key negotiation failed"' in result.stdout
    assert result.returncode == 5
    server.wait_for("Invalid connection attempt: Reverse lookup failed")


def test_state_5_name_from_the_address(server_home: ServerHome, make_agent: MakeAgent) -> None:
    server_home.write_rc(misc="SetClientFromAccept=true")
    server = server_home.start()
    inferred = socket.gethostbyaddr("127.0.0.1")[0]
    agent = make_agent("web1.no-such-domain.invalid", registered=False)
    agent.set_password(server_home.register(inferred))
    rc = agent.directory / "rc"
    rc.write_text(agent.rc_text())
    server_home.admin("config", "put", inferred, str(rc))
    result = agent.run("init", "--output", str(agent.directory / "baseline"))
    assert result.returncode == 0, result.stdout
    assert "Cannot resolve" not in server.output()
    assert f'client="{inferred}"' in server.wait_for("NEW CLIENT")


@pytest.mark.parametrize("kind", ["configuration", "baseline"])
def test_state_6_file_missing(kind: str, server_home: ServerHome, make_agent: MakeAgent) -> None:
    server = server_home.start()
    agent = make_agent(configured=kind == "baseline")
    result = agent.run("check")
    assert 'msg="File download failed"' in result.stdout
    assert result.returncode == 6
    line = server.wait_for("File not accessible")
    first = "rc" if kind == "configuration" else "file"
    assert f'path="{server_home.data}/{first}.localhost"' in line
    assert 'client="localhost"' in line


def test_state_6_catch_all_files_serve_every_client(
    server_home: ServerHome, make_agent: MakeAgent
) -> None:
    server_home.start()
    agent = make_agent(configured=False)
    rc = agent.directory / "rc"
    rc.write_text(agent.rc_text())
    server_home.admin("config", "put", "--default", str(rc))
    baseline = agent.directory / "baseline"
    assert agent.run("init", "--output", str(baseline)).returncode == 0
    server_home.admin("baseline", "put", "--default", str(baseline))
    result = agent.run("check")
    assert result.returncode == 0, result.stdout


def test_state_7_second_agent_takes_the_session_and_the_first_does_not_steal_it_back(
    server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    server = server_home.start()
    first = make_baselined_agent()
    one = first.start()
    one.wait_for("File check completed.")
    second = AgentHome(first.directory / "second", first.name, server_home)
    (second.state / "password").write_bytes((first.state / "password").read_bytes())
    (second.state / "password").chmod(0o600)
    two = second.start()
    try:
        two.wait_for("Session key negotiated")
        (first.tree / "file.txt").write_text("changed\n")
        one.wait_for('msg="Invalid connection state"')
        line = server.wait_for("Signature mismatch")
        assert 'msg="Invalid connection attempt: Signature mismatch"' in line
        assert f'client="{first.name}"' in line
        # The second one keeps its session: it hears of two more heartbeats and no state 7.
        server.wait_for("Restart without prior exit")
        (first.tree / "another.txt").write_text("new\n")
        one.wait_for("another.txt")
        two.wait_for("another.txt")
        assert one.process.poll() is None, "the first agent must go on watching"
        assert "Invalid connection state" not in two.output()
        assert two.output().count("Session key negotiated") == 1
    finally:
        two.kill()


def test_state_7_is_avoided_by_suspending_the_first_agent(
    server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    server = server_home.start()
    agent = make_baselined_agent()
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    daemon.send_signal(signal.SIGUSR2)
    server.wait_for('msg="SUSPEND"')
    server.wait_for("goodbye: suspend")
    result = agent.run("check")
    assert result.returncode == 0, result.stdout
    daemon.send_signal(signal.SIGUSR2)
    daemon.wait_for('msg="Session key negotiated"', count=2)
    (agent.tree / "file.txt").write_text("changed after waking up\n")
    server.wait_for("POLICY [ReadOnly]")
    assert "Signature mismatch" not in server.output()
    assert "Restart without prior exit" not in server.output()
    assert "Invalid connection state" not in daemon.output()


def test_state_8_restart_without_prior_exit(
    server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    server = server_home.start()
    agent = make_baselined_agent()
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    server.wait_for("File check completed.")
    daemon.kill()
    again = agent.start()
    line = server.wait_for("Restart without prior exit")
    assert 'sev="WARN"' in line
    assert f'client="{agent.name}"' in line
    again.wait_for("File check completed.")
    status = server_home.admin("status", agent.name).stdout
    assert "ILLEGAL" in status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_clean_stop_is_not_state_8(
    number: signal.Signals, server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    server = server_home.start()
    agent = make_baselined_agent()
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    daemon.send_signal(number)
    assert daemon.exit_status() == 0
    server.wait_for("goodbye: exit")
    agent.start().wait_for("File check completed.")
    wait_until(lambda: server.output().count('msg="START" program="needfire-agent"') >= 2, "START")
    assert "Restart without prior exit" not in server.output()


def test_a_clean_stop_while_the_server_is_away_is_the_agents_word_until_its_report_comes(
    server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    server = server_home.start()
    agent = make_baselined_agent()
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    server.wait_for("File check completed.")
    server.send_signal(signal.SIGTERM)
    assert server.exit_status() == 0
    daemon.send_signal(signal.SIGTERM)
    assert daemon.exit_status() == 0
    server = server_home.start()
    agent.start().wait_for("File check completed.")
    server.wait_for("Agent says that the one before it stopped, and could not tell")
    server.wait_for('msg="EXIT"')
    server.wait_for("File check completed.")
    assert "has no report of that" not in server.output()
    assert "Restart without prior exit" not in server.output()


def test_every_state_is_explained_with_its_fix(server_home: ServerHome) -> None:
    for number in range(1, 9):
        text = server_home.admin("explain", "state", str(number)).stdout
        assert "How to resolve:" in text
        assert f"documented state {number}" in text
