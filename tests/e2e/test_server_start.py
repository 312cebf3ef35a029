"""What a server says of itself when it starts."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from needfire_testkit.open_directory import open_directory
from needfire_testkit.processes import Program, ServerHome

_AS_IF_EVERYBODY_COULD_READ_PYTHON = """
import sys
from needfire_server import privileges
from needfire_server.cli import main

# Where the tests run, Python may stand in root's own directory.
privileges._check_program_is_readable = lambda account: None
sys.argv[0] = "needfire-server"
main()
"""


@pytest.fixture
def walkable() -> Iterator[Path]:
    with open_directory() as path:
        yield path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
def test_a_server_that_root_starts_says_whose_rights_it_keeps(walkable: Path) -> None:
    data, rc = walkable / "data", walkable / "serverrc"
    data.mkdir(mode=0o700)
    shutil.chown(data, "nobody")
    rc.write_text("[Misc]\nServerUser=nobody\n[Log]\nPrintSeverity=*\n")
    program = Program(
        [
            *(sys.executable, "-c", _AS_IF_EVERYBODY_COULD_READ_PYTHON, "serve", "--foreground"),
            *("--config", str(rc), "--data-dir", str(data), "--listen", "127.0.0.1:0"),
        ],
        walkable / "output",
    )
    try:
        line = program.wait_for("Privileges dropped")
        assert 'user="nobody" userid="65534"' in line
        program.wait_for("listening on")
        status = Path(f"/proc/{program.process.pid}/status").read_text()
        assert "Uid:\t65534\t65534\t65534\t65534" in status
        program.send_signal(signal.SIGTERM)
        program.wait_for("EXIT")
    finally:
        program.kill()


def test_a_setting_that_hides_failed_name_checks_is_told_at_the_start(
    server_home: ServerHome,
) -> None:
    server_home.write_rc(misc="SeverityLookup=debug")
    rc = server_home.rc.read_text().replace("LogSeverity=*", "LogSeverity=warn")
    server_home.rc.write_text(rc)
    server = server_home.start()
    line = server.wait_for("hides failed name checks")
    assert "SeverityLookup=debug" in line
    codes = [event["code"] for event in server_home.events("--code", "LOOKUP_UNSAFE")]
    assert codes == ["LOOKUP_UNSAFE"]


def test_a_role_for_nobody_is_told_and_a_reload_corrects_it(server_home: ServerHome) -> None:
    server_home.write_rc(misc="RoleAuditors=no-such-user")
    server = server_home.start()
    line = server.wait_for("no-such-user is neither a user nor a group")
    assert 'name="no-such-user"' in line or str(server_home.rc) in line
    server_home.write_rc()
    server.send_signal(signal.SIGHUP)
    server.wait_for("Runtime configuration reloaded")
    assert len(server_home.events("--code", "ROLE_MEMBER_UNKNOWN")) == 1
    assert server_home.admin("status").returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")
def test_root_the_servers_user_and_anybody_judge_a_program_alike(walkable: Path) -> None:
    """Else a reload takes a configuration with which the server does not start again."""
    data, rc = walkable / "data", walkable / "serverrc"
    own = walkable / "own"
    for directory in (data, own):
        directory.mkdir(mode=0o755)
        shutil.chown(directory, "nobody")
    pager = own / "pager.sh"
    pager.write_text("#!/bin/sh\ncat >/dev/null\n")
    pager.chmod(0o755)
    head = "[Misc]\nServerUser=nobody\n[Log]\nPrintSeverity=*\n"
    block = f"[Outputs]\nOpenOutput=pager\nOutputTarget = command {pager}\n"
    command = [sys.executable, "-c", _AS_IF_EVERYBODY_COULD_READ_PYTHON]

    def answers(said: str) -> None:
        """What check-config says as root, as the server's user and as somebody else."""
        started = [
            subprocess.Popen(
                [*_as_user(user, command), "check-config", str(rc)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for user in (None, "nobody", "daemon")
        ]
        for each in started:
            assert said in each.communicate(timeout=60)[0]

    rc.write_text(head)
    serve = [*("serve", "--foreground", "--config", str(rc)), *("--data-dir", str(data))]
    program = Program([*command, *serve, "--listen", "127.0.0.1:0"], walkable / "output")
    try:
        program.wait_for("listening on")
        rc.write_text(head + block)
        answers("no errors")
        program.send_signal(signal.SIGHUP)
        program.wait_for("Runtime configuration reloaded")
        shutil.chown(own, "daemon")
        answers(f"{own} belongs to daemon; expected: to root or nobody")
        program.send_signal(signal.SIGHUP)
        program.wait_for("Configuration not reloaded")
        shutil.chown(own, "nobody")
        program.send_signal(signal.SIGTERM)
        program.wait_for("EXIT")
    finally:
        program.kill()
    program = Program([*command, *serve, "--listen", "127.0.0.1:0"], walkable / "again")
    try:
        program.wait_for("listening on")
    finally:
        program.kill()


def _as_user(user: str | None, command: list[str]) -> list[str]:
    """Become somebody behind the imports: Python may stand where only root can read it."""
    if user is None:
        return command
    account = pwd.getpwnam(user)
    ids = f"os.setgroups([]); os.setgid({account.pw_gid}); os.setuid({account.pw_uid})"
    become = f"import encodings.idna, os; {ids}\n"
    python, flag, code = command
    return [python, flag, code.replace("sys.argv[0]", f"{become}sys.argv[0]")]
