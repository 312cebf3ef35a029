"""needfire-server's verbs print what scripts can read, and every one tells its version."""

import json
from pathlib import Path

from click.testing import CliRunner

from needfire_server.cli import cli


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, arguments)
    return result.exit_code, result.stdout


def test_every_verb_tells_its_version() -> None:
    for verb in ("", "serve", "check-config", "explain"):
        status, text = run(*filter(None, (verb, "--version")))
        assert (status, text.split()[0]) == (0, "needfire-server,"), verb


def test_explain_gives_its_data_as_json() -> None:
    status, text = run("explain", "CLONE_DETECTED", "--json")
    [entry] = [json.loads(line) for line in text.splitlines()]
    assert status == 0
    assert (entry["code"], entry["severity"], entry["class"]) == ("CLONE_DETECTED", "crit", "alarm")


def test_check_config_gives_its_notices_as_json(tmp_path: Path) -> None:
    rc = tmp_path / "serverrc"
    rc.write_text("[Misc]\nSetUseSocket=yes\nMetricsListen=9777\n")
    status, text = run("check-config", str(rc), "--json")
    found = json.loads(text)
    assert status == 0
    assert found["path"] == str(rc)
    assert ["SetUseSocket" in notice for notice in found["notices"]] == [True]
