"""What a server says of itself when it starts."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

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
def open_directory() -> Iterator[Path]:
    """A directory whose path every user can walk; pytest's own belongs to root alone."""
    path = Path(tempfile.mkdtemp(prefix="needfire-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
def test_a_server_that_root_starts_says_whose_rights_it_keeps(open_directory: Path) -> None:
    data, rc = open_directory / "data", open_directory / "serverrc"
    data.mkdir(mode=0o700)
    shutil.chown(data, "nobody")
    rc.write_text("[Misc]\nServerUser=nobody\n[Log]\nPrintSeverity=*\n")
    program = Program(
        [
            *(sys.executable, "-c", _AS_IF_EVERYBODY_COULD_READ_PYTHON, "serve", "--foreground"),
            *("--config", str(rc), "--data-dir", str(data), "--listen", "127.0.0.1:0"),
        ],
        open_directory / "output",
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
