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


def test_explain_of_nothing_known_says_what_to_try() -> None:
    result = CliRunner().invoke(cli, ["explain", "xyzzy"])
    assert result.exit_code == 2
    assert "paste the text between the quotes" in result.stderr


def test_check_config_tells_what_this_host_does_not_have(tmp_path: Path) -> None:
    """An output that cannot be written, and roles of nobody, would be noticed too late."""
    rc = tmp_path / "serverrc"
    rc.write_text(
        "[Misc]\nRoleAuditors=no-such-user\nRoleAgents=@no-such-group\n[Outputs]\n"
        f"OpenOutput=here\nOutputTarget=file {tmp_path}/x\n"
        f"OpenOutput=away\nOutputTarget=file {tmp_path}/missing/x\n"
    )
    result = CliRunner().invoke(cli, ["check-config", str(rc)])
    assert result.exit_code == 0
    assert "no errors, 3 notices" in result.stdout
    for words in ("the group @no-such-group", "the user no-such-user", f"{tmp_path}/missing;"):
        assert words in result.stderr
    assert "output here" not in result.stderr


def test_check_config_tells_what_would_keep_the_server_from_its_store(tmp_path: Path) -> None:
    rc = tmp_path / "serverrc"
    rc.write_text(
        "[Misc]\nStoreURL=postgresql://needfire@db/needfire\n"
        f"StorePasswordFile={tmp_path}/missing\n"
    )
    result = CliRunner().invoke(cli, ["check-config", str(rc)])
    assert (result.exit_code, "no errors, 1 notice\n" in result.stdout) == (0, True)
    assert f"the server would not start here: the password in {tmp_path}/missing" in result.stderr


def test_a_configuration_that_is_not_there_is_to_be_named_as_each_verb_takes_it(
    tmp_path: Path,
) -> None:
    result = CliRunner().invoke(cli, ["check-config", str(tmp_path / "none")])
    assert result.exit_code == 3
    assert "serve --config FILE, or check-config FILE" in result.stderr


def test_check_config_ends_with_its_verdict_on_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    rc = tmp_path / "serverrc"
    rc.write_text("[Misc]\nFoo=2\n[Log]\nPrintSeverity=loud\n")
    result = CliRunner().invoke(cli, ["check-config", str(rc)])
    assert result.exit_code == 3
    assert f"{rc}:2: unknown directive 'Foo'" in result.stderr
    assert f"{rc}:4: " in result.stderr
    assert result.stderr.endswith(f"{rc}: cannot be used; 2 errors\n")
    told = CliRunner().invoke(cli, ["check-config", str(rc), "--json"])
    assert told.exit_code == 3
    found = json.loads(told.stdout)
    assert [error.partition(": ")[0] for error in found["errors"]] == [f"{rc}:2", f"{rc}:4"]


def test_check_config_gives_its_notices_as_json(tmp_path: Path) -> None:
    rc = tmp_path / "serverrc"
    rc.write_text("[Misc]\nSetUseSocket=yes\nMetricsListen=9777\n")
    status, text = run("check-config", str(rc), "--json")
    found = json.loads(text)
    assert status == 0
    assert found["path"] == str(rc)
    assert ["SetUseSocket" in notice for notice in found["notices"]] == [True]
