"""The command line of needfire-agent: what it takes, what it prints, how it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import needfire_client.commands.explain
from needfire_client.address import ServerAddress
from needfire_client.check import CheckResult
from needfire_client.cli import main, parse
from needfire_client.command_line import VERBS
from needfire_client.commands.check import print_summary, status_of
from needfire_client.manual import PAGES
from needfire_client.options import DEFAULT_RC, REQ_FROM_SERVER
from needfire_client.watching import Watching
from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.exit_status import MEANINGS, ExitStatus

RC = (
    "[Misc]\nSetLoopTime=5\n[ReadOnly]\ndir=99/etc\nfile=/etc/shadow\n[IgnoreAll]\ndir=-1/etc/ssl\n"
)


@pytest.fixture
def rc(tmp_path: Path) -> Path:
    path = tmp_path / "agentrc"
    path.write_text(RC)
    return path


def usage_error(*arguments: str) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2


def test_run_is_the_default_verb() -> None:
    assert parse([]).verb == "run"
    assert parse(["--server", "loghost"]).verb == "run"


def test_options_may_stand_anywhere() -> None:
    options = parse(["--server", "a:1", "check", "--server", "[::1]:2", "--name", "n"])
    assert options.verb == "check"
    assert options.servers == (ServerAddress("a", 1), ServerAddress("::1", 2))
    assert options.name == "n"


def test_where_the_configuration_comes_from() -> None:
    assert parse(["run"]).rc_source == DEFAULT_RC
    assert parse(["run", "--server", "a"]).rc_source == REQ_FROM_SERVER
    assert parse(["run", "--server", "a", "--rc", "/x"]).rc_source == "/x"


@pytest.mark.parametrize(
    "arguments",
    [
        ["dance"],
        ["run", "twice"],
        ["check", "--upload"],
        ["run", "--output", "/x"],
        ["init", "--password-file", "-"],
        ["run", "--explain", "/etc"],
        ["run", "--server", "a b"],
        ["run", "--server", "a:0"],
        ["run", "--bind-address", "not.an.address"],
        ["run", "--log-format", "xml2"],
        ["run", "--no-such-option"],
        ["run", "--nam", "x"],
        ["set-password", "the-password-itself"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    usage_error(*arguments)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("needfire-agent: error: ")
    assert "needfire-agent: hint: needfire-agent --help" in printed.err


def test_help_shows_every_verb_and_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    for verb in VERBS:
        assert verb in printed
    for status, meaning in MEANINGS.items():
        assert f"{int(status)}  {meaning}" in printed


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_a_help_of_its_own(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    pages = []
    for arguments in ([verb, "--help"], ["-h", "--state-dir", "/x", verb]):
        with pytest.raises(SystemExit) as caught:
            parse(arguments)
        assert caught.value.code == 0
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1]
    about, statuses = PAGES[verb].about, PAGES[verb].statuses
    assert about.splitlines()[0] in pages[0]
    assert all(option in pages[0] for option in PAGES[verb].options)
    assert all(MEANINGS[status] in pages[0] for status in statuses)
    assert ("--upload" in PAGES[verb].options) == ("  --upload" in pages[0])


@pytest.mark.parametrize("arguments", ["explain state 3", "check --help", "--version"])
@pytest.mark.parametrize(("output", "status"), [("closed pipe", -13), ("/dev/full", 8)])
def test_an_output_that_takes_nothing_is_no_bug(arguments: str, output: str, status: int) -> None:
    if output == "closed pipe":
        reader, handle = os.pipe()
        os.close(reader)
    else:
        handle = os.open(output, os.O_WRONLY)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "needfire_client", *arguments.split()],
            stdout=handle,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(handle)
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == (1 if status == 8 else 0), done.stderr


@pytest.mark.parametrize(
    ("uid", "gid", "mode", "advice"),
    [
        (0, 0, 0o664, None),
        (0, 65534, 0o644, None),
        (65534, 0, 0o644, "chown root"),
        (0, 65534, 0o664, "chmod go-w"),
        (0, 0, 0o646, "chmod go-w"),
    ],
)
def test_a_configuration_that_others_can_change_is_refused(
    rc: Path,
    capsys: pytest.CaptureFixture[str],
    uid: int,
    gid: int,
    mode: int,
    advice: str | None,
) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    os.chown(rc, uid, gid)
    rc.chmod(mode)
    status = main(["check-config", "--rc", str(rc)])
    assert status == (ExitStatus.DONE if advice is None else ExitStatus.CONFIGURATION)
    assert (advice or "") in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("needfire-agent 0.")


def test_explain_finds_codes_states_and_pasted_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["connection_refused"], ["state", "1"], ['msg="Connection refused" server="x"']):
        assert main(["explain", *words]) == ExitStatus.DONE
        assert "CONNECTION_REFUSED: Connection refused" in capsys.readouterr().out


def test_explain_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "state", "3", "--json"]) == ExitStatus.DONE
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {entry["state"] for entry in entries} == {3}
    assert all(entry["remedy"] for entry in entries)


def test_every_event_of_the_catalogue_can_be_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for code in CATALOGUE:
        assert main(["explain", code]) == ExitStatus.DONE
    assert capsys.readouterr().err == ""


def test_explain_of_nothing_known_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == ExitStatus.USAGE
    assert main(["explain", "xyzzy"]) == ExitStatus.USAGE
    assert capsys.readouterr().out == ""


def test_enroll_says_how_a_host_joins_in_this_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enroll"]) == ExitStatus.USAGE
    printed = capsys.readouterr().err
    assert "tokens are not available in this version" in printed
    assert "register NAME" in printed


def set_password(tmp_path: Path, password: str) -> int:
    source = tmp_path / "given"
    source.write_text(password)
    return main(
        ["set-password", "--state-dir", str(tmp_path / "state"), "--password-file", str(source)]
    )


def test_set_password_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set_password(tmp_path, "a password of twenty and more\n") == 0
    path = tmp_path / "state" / "password"
    assert path.read_text() == "a password of twenty and more\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert capsys.readouterr() == ("", "")


def test_a_short_password_is_taken_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set_password(tmp_path, "12345678") == 0
    assert "The password is short: 8 characters" in capsys.readouterr().err


def test_a_password_that_is_too_short_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set_password(tmp_path, "a good long password, this") == 0
    assert set_password(tmp_path, "1234567\n") == ExitStatus.USAGE
    assert (tmp_path / "state" / "password").read_text() == "a good long password, this\n"
    assert "1234567" not in capsys.readouterr().err


def test_set_password_from_standard_input(tmp_path: Path) -> None:
    result = subprocess.run(
        [
            *(sys.executable, "-m", "needfire_client", "set-password"),
            *("--state-dir", str(tmp_path), "--password-file", "-"),
        ],
        input="a password of twenty and more",
        text=True,
        check=True,
        capture_output=True,
    )
    assert (result.stdout, result.stderr) == ("", "")
    assert (tmp_path / "password").exists()


def test_check_config_says_that_nothing_was_fetched_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["check-config", "--server", "127.0.0.1:1", "--state-dir", str(tmp_path)]
    assert main(words) == ExitStatus.CONFIGURATION
    told = capsys.readouterr().err
    assert f"none was fetched yet: {tmp_path}/cache/rc does not exist" in told
    assert "hint: init, check and run fetch it" in told


def test_check_config_of_a_good_file(rc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", str(rc)]) == ExitStatus.DONE
    assert "can be used; 3 rules" in capsys.readouterr().out
    assert main(["check-config", "--rc", str(rc)]) == ExitStatus.DONE


def test_check_config_names_file_line_and_mend(
    rc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rc.write_text("[Misc]\nSetLoopTme=5\n[ReadOnly]\ndir=relative\n")
    assert main(["check-config", str(rc)]) == ExitStatus.CONFIGURATION
    printed = capsys.readouterr().err
    assert f"{rc}:2: " in printed
    assert "SetLoopTime" in printed
    assert f"{rc}:4: " in printed
    assert printed.endswith(f"{rc}: cannot be used; 2 errors\n")
    assert main(["check-config", str(rc), "--json"]) == ExitStatus.CONFIGURATION
    problems = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [problem["line"] for problem in problems] == [2, 4]


def test_check_config_explains_a_path(rc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = {
        "/etc/passwd": "[ReadOnly] by",
        "/etc/ssl/x": "no rule covers it",
        "/srv": "no rule covers it",
    }
    for path, text in expected.items():
        assert main(["check-config", str(rc), "--explain", path]) == 0
        assert text in capsys.readouterr().out, path
    assert main(["check-config", str(rc), "--explain", "/etc/passwd", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["policy"], found["line"], found["severity"]) == ("ReadOnly", 4, "crit")
    assert main(["check-config", str(rc), "--explain", "relative"]) == ExitStatus.USAGE


def test_a_configuration_that_is_not_there_or_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path / "missing", tmp_path, Path("/dev/zero")):
        assert main(["check-config", str(path)]) == ExitStatus.CONFIGURATION
        assert "error:" in capsys.readouterr().err


def test_a_check_without_a_baseline_says_how_to_get_one(
    tmp_path: Path, rc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--rc", str(rc), "--state-dir", str(tmp_path / "state")]) == 8
    printed = capsys.readouterr().err
    assert (
        f"error: there is no baseline: {tmp_path / 'state' / 'baseline'} does not exist" in printed
    )
    assert "hint: record one with needfire-agent init" in printed


def test_of_several_mistakes_none_gets_the_hint_of_another(
    rc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rc.write_text("[Misc]\nSetLoopTme=5\nSetLoopTime=x\n")
    arguments = ["check", "--rc", str(rc), "--state-dir", str(tmp_path / "state")]
    assert main(arguments) == ExitStatus.CONFIGURATION
    printed = capsys.readouterr().err
    assert "the nearest known name is SetLoopTime" in printed
    assert "hint:" not in printed
    rc.write_text("[Misc]\nSetLoopTme=5\n")
    assert main(arguments) == ExitStatus.CONFIGURATION
    assert "hint: replace it with SetLoopTime" in capsys.readouterr().err


def doctor(*arguments: str) -> list[str]:
    return ["doctor", "--name", "web1.example.org", *arguments]


def test_the_doctor_finds_what_is_wrong_and_says_how_to_mend_it(
    tmp_path: Path, rc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    arguments = doctor("--state-dir", str(state), "--rc", str(rc))
    assert main([*arguments, "--baseline", str(tmp_path / "none")]) == ExitStatus.LOCAL
    printed = capsys.readouterr().out
    assert "fail  baseline: " in printed
    assert "fix: needfire-agent init" in printed
    assert "ok    state directory: " in printed
    status = main([*arguments, "--server", "127.0.0.1:1", "--json"])
    found = {each["about"]: each for each in map(json.loads, capsys.readouterr().out.splitlines())}
    assert status == ExitStatus.AUTHENTICATION
    assert found["password"]["verdict"] == "fail"
    assert "set-password" in found["password"]["fix"]
    # Nothing was sent, so no log has a reason.
    assert "log-in" not in found
    assert found["server 127.0.0.1:1"]["text"] == "Connection refused"


def test_an_internal_error_is_70_and_its_details_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_options: object) -> ExitStatus:
        raise ZeroDivisionError("the details")

    monkeypatch.setattr(needfire_client.commands.explain, "run", fail)
    assert main(["explain", "x", "--state-dir", str(tmp_path)]) == ExitStatus.INTERNAL
    printed = capsys.readouterr().err
    assert "internal error: ZeroDivisionError" in printed
    assert "Traceback" not in printed
    assert "please report" in printed
    kept = tmp_path / "internal-errors.log"
    assert "the details" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_an_internal_error_without_a_place_for_it_is_70_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_options: object) -> ExitStatus:
        raise ZeroDivisionError

    monkeypatch.setattr(needfire_client.commands.explain, "run", fail)
    missing = tmp_path / "missing" / "directory"
    assert main(["explain", "x", "--state-dir", str(missing)]) == ExitStatus.INTERNAL
    assert "could not be written" in capsys.readouterr().err


def test_an_internal_error_of_the_daemon_is_logged_as_an_event_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(_self: object) -> None:
        raise ZeroDivisionError("the details")

    monkeypatch.setattr(Watching, "run", fail)
    state, rc = tmp_path / "state", tmp_path / "rc"
    rc.write_text(f"[ReadOnly]\ndir=99{tmp_path}/tree\n")
    (tmp_path / "tree").mkdir()
    common = ["--state-dir", str(state), "--rc", str(rc), "--name", "a.b"]
    assert main(["init", *common]) == 0
    assert main(["run", *common]) == ExitStatus.INTERNAL
    printed = capsys.readouterr().err
    assert 'msg="Internal error: ZeroDivisionError"' in printed
    assert "Traceback" not in printed
    assert "the details" in (state / "internal-errors.log").read_text()


def test_python_without_its_checks_is_refused() -> None:
    result = subprocess.run(
        [sys.executable, "-O", "-m", "needfire_client", "explain", "START"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == ExitStatus.USAGE
    assert "python -O is not supported" in result.stderr


def test_a_state_directory_of_others_is_8(
    tmp_path: Path, rc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o777)
    for verb in ("run", "check", "init"):
        arguments = [verb, "--state-dir", str(tmp_path), "--rc", str(rc), "--name", "a.b"]
        assert main(arguments) == ExitStatus.LOCAL
        assert "expected 700" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("modified", "unreadable", "status"), [(0, 0, 0), (0, 11, 8), (1, 11, 1), (1, 0, 1)]
)
def test_what_could_not_be_read_is_not_without_differences(
    modified: int, unreadable: int, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    result = CheckResult(
        files=20,
        hashed=0,
        bytes_read=0,
        added=0,
        missing=0,
        modified=modified,
        unreadable=unreadable,
        unstable=0,
        findings=unreadable,
        duration_s=1,
        is_complete=True,
    )
    print_summary(result, as_json=False)
    assert status_of(result) == status
    assert ("11 objects could not be read" in capsys.readouterr().err) == bool(unreadable)
