"""The files for the service manager say what they must, and name what exists."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from needfire_server.seal_key import CREDENTIAL
from needfire_server.storage import opening

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "etc/systemd").glob("*.service"))

HIDING = frozenset(
    (
        *("PrivateTmp", "PrivateDevices", "ProtectKernelModules", "ProtectKernelLogs"),
        *("ProtectKernelTunables", "ProtectProc", "ProcSubset", "InaccessiblePaths"),
        *("TemporaryFileSystem", "RootDirectory", "RootImage", "BindPaths", "BindReadOnlyPaths"),
    )
)


def _directives(unit: Path) -> dict[str, list[str]]:
    """Return the values of each directive, whatever its section."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_there_is_a_unit_for_each_daemon() -> None:
    assert [unit.stem for unit in UNITS] == ["needfire-agent", "needfire-server"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_program_that_we_install(unit: Path) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    program, verb = _directives(unit)["ExecStart"][0].split()[:2]

    assert Path(program).name == unit.stem
    assert Path(program).name in scripts
    assert verb in ("serve", "run")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_stops_cleanly_and_reloads(unit: Path) -> None:
    directives = _directives(unit)

    assert directives["KillSignal"] == ["SIGTERM"]
    assert directives["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert directives["NoNewPrivileges"] == ["yes"]


def test_the_agent_ends_its_scanning_processes_itself() -> None:
    agent = _directives(ROOT / "etc/systemd/needfire-agent.service")

    assert agent["KillMode"] == ["mixed"]


def test_nothing_hides_a_path_from_the_agent() -> None:
    agent = _directives(ROOT / "etc/systemd/needfire-agent.service")

    assert not HIDING & set(agent)
    assert agent["ProtectHome"] == ["read-only"]


def test_an_agent_whose_session_was_taken_is_not_restarted() -> None:
    """It would take the session back, and the other one would do the same."""
    agent = _directives(ROOT / "etc/systemd/needfire-agent.service")

    assert "7" in agent["RestartPreventExitStatus"][0].split()


def test_the_user_of_the_unit_is_the_one_that_sysusers_makes() -> None:
    user = _directives(ROOT / "etc/systemd/needfire-server.service")["User"][0]

    assert f"u     {user} " in (ROOT / "etc/sysusers.d/needfire.conf").read_text()
    assert f"/var/lib/needfire 0700 {user} " in (ROOT / "etc/tmpfiles.d/needfire.conf").read_text()


@pytest.mark.debian
@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is missing: apt-get install systemd",
)
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_the_unit(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/needfire/bin/" + unit.stem, "/bin/true"))
    result = subprocess.run(
        ["systemd-analyze", "verify", str(copy)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )

    complaints = [line for line in result.stderr.splitlines() if unit.name in line]
    assert not complaints


@pytest.mark.debian
@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is missing: apt-get install systemd",
)
@pytest.mark.parametrize(("stem", "exposure"), [("needfire-server", 2.0), ("needfire-agent", 4.5)])
def test_a_unit_gives_away_no_more_than_it_needs(stem: str, exposure: float) -> None:
    """By systemd's own measure: 10 is a service with all rights of root. The agent has to read all."""
    result = subprocess.run(
        [
            *("systemd-analyze", "security", "--offline=true", "--no-pager"),
            *(f"--threshold={exposure * 10:.0f}", str(ROOT / f"etc/systemd/{stem}.service")),
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert "Overall exposure level" in result.stdout, result.stderr
    assert result.returncode == 0, result.stdout


def test_the_unit_says_how_to_give_each_credential_that_the_server_reads() -> None:
    unit = (ROOT / "etc/systemd/needfire-server.service").read_text()

    for name in (CREDENTIAL, opening._CREDENTIAL):
        assert f"LoadCredentialEncrypted={name}:" in unit
