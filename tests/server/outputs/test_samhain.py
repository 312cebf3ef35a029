"""Samhain's own directives for mail, syslog and commands: outputs, or a line that says what to write."""

import json
import socket
from pathlib import Path

import pytest

from needfire_protocol.errors import ConfigError
from needfire_protocol.rc.directives import DIRECTIVES, Honoured, Program
from needfire_protocol.severity import Severity, SeverityFilter
from needfire_server.config import ServerSettings
from needfire_server.outputs.samhain import SAMHAIN_KEYS
from needfire_server.outputs.settings import OutputSettings, TargetKind
from needfire_server.outputs.target import RefusedError, TargetError
from needfire_server.outputs.targets import make_target
from needfire_testkit.output_doubles import settings_of
from needfire_testkit.rc import server_rc
from needfire_testkit.server_store import event

MAIL = "[Misc]\nSetMailAddress=root@example.org\nSetMailRelay=mail.example.org\n"
ALERT = SeverityFilter.at_least(Severity.ALERT)


def one(text: str) -> OutputSettings:
    settings = server_rc(text)
    assert settings.notices == ()
    [output] = settings.outputs
    return output


def notices(text: str) -> tuple[ServerSettings, list[str]]:
    settings = server_rc(text)
    return settings, [f"{each.line}: {each.text}" for each in settings.notices]


def test_every_directive_that_makes_an_output_is_known_to_the_reader() -> None:
    rows = {
        key
        for key, row in DIRECTIVES.items()
        if isinstance(treatment := row.treatment(Program.SERVER), Honoured)
        and (treatment.field, row.sections != ("Outputs",)) == ("outputs", True)
    }
    assert rows == SAMHAIN_KEYS


# ---- mail -----------------------------------------------------------------------------


def test_mail_goes_to_its_recipients_as_samhain_sends_it() -> None:
    output = one(MAIL)
    assert (output.name, output.kind) == ("samhain-mail", TargetKind.SMTP)
    assert output.address == ("mail.example.org", 25)
    assert output.selection.severities == ALERT
    assert output.mail is not None
    assert output.mail.recipients == ("root@example.org",)
    assert output.mail.sender == f"needfire@{socket.gethostname()}"
    assert (output.mail.summary_interval_s, output.mail.summary_count) == (86_400, 10)
    assert output.mail.immediate == ALERT


def test_what_the_file_says_of_mail_counts() -> None:
    text = (
        f"{MAIL}SetMailPort=2525\nSetMailSender=fim@example.org\nSetMailTime=60\nSetMailNum=20\n"
        "[Log]\nMailSeverity=>=warn !mark\n"
    )
    output = one(text)
    assert output.address == ("mail.example.org", 2525)
    assert output.selection.severities == SeverityFilter.parse(">=warn !mark")
    assert output.mail is not None
    assert output.mail.sender == "fim@example.org"
    assert (output.mail.summary_interval_s, output.mail.summary_count) == (60, 20)
    single = one(f"{MAIL}MailSingle=yes\n").mail
    assert single is not None
    assert single.summary_count == 1


def test_a_recipient_with_severities_of_its_own_has_an_output_of_its_own() -> None:
    settings = server_rc(
        f"{MAIL}SetMailAddress=ops@example.org\nSetMailAddress=boss@example.org\n"
        "SetAddrSeverity=crit\n[Log]\nMailSeverity=err\n"
    )
    found = {
        each.name: (each.selection.severities, each.mail and each.mail.recipients)
        for each in settings.outputs
    }
    assert found == {
        "samhain-mail": (
            SeverityFilter.parse("err"),
            ("root@example.org", "ops@example.org"),
        ),
        "samhain-mail-2": (SeverityFilter.parse("crit"), ("boss@example.org",)),
    }


def test_mail_without_a_relay_or_a_recipient_is_told() -> None:
    settings, told = notices("[Misc]\nSetMailAddress=root@example.org\n")
    assert settings.outputs == ()
    assert "SetMailAddress has no effect: mail goes through a relay only" in told[0]
    settings, told = notices("[Log]\nMailSeverity=crit\n")
    assert settings.outputs == ()
    assert "without SetMailAddress nobody gets mail" in told[0]


# ---- syslog -----------------------------------------------------------------------------


def test_syslog_is_that_of_the_host() -> None:
    output = one("[Log]\nSyslogSeverity=err\n[Misc]\nSyslogFacility=LOG_LOCAL4\n")
    assert (output.kind, output.where, output.facility) == (TargetKind.SYSLOG_LOCAL, "/dev/log", 20)
    assert output.selection.severities == SeverityFilter.parse("err")
    assert server_rc("[Log]\nSyslogSeverity=none\n").outputs == ()
    assert "without SyslogSeverity" in notices("[Misc]\nSyslogFacility=LOG_USER\n")[1][0]


async def test_the_daemon_of_the_host_gets_messages_as_syslog_sends_them(tmp_path: Path) -> None:
    path = tmp_path / "log"
    settings = settings_of(
        kind=TargetKind.SYSLOG_LOCAL, where=str(path), format="json", facility=10
    )
    target = make_target(settings, lambda: None)
    with pytest.raises(FileNotFoundError):
        await target.open()
    target.abort()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
        daemon.settimeout(10)
        await target.open()
        said = event(path="/a\n<13>forged")
        await target.deliver([said])
        head, _, record = daemon.recv(65_536).decode().partition(": ")
        assert head == "<82>needfire"
        assert json.loads(record)["id"] == said.id
        assert await target.finish()


async def test_a_daemon_that_does_not_read_is_waited_for_and_then_away(tmp_path: Path) -> None:
    path = tmp_path / "log"
    settings = settings_of(kind=TargetKind.SYSLOG_LOCAL, where=str(path), time_limit_s=0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
        target = make_target(settings, lambda: None)
        await target.open()
        with pytest.raises(TargetError, match="does not read") as failed:
            await target.deliver([event() for _ in range(1_000)])
        assert failed.value.delivered >= 0
        assert not isinstance(failed.value, RefusedError)
        target.abort()


# ---- commands ---------------------------------------------------------------------------


def test_a_command_is_run_with_its_arguments_and_without_a_shell(tmp_path: Path) -> None:
    text = (
        "[External]\nOpenCommand=/bin/cat\nSetType=log\nSetCommandline=cat -u $(id)\nCloseCommand=yes\n"
        "[Log]\nExternalSeverity=crit\n"
    )
    output = one(text)
    assert (output.name, output.kind) == ("samhain-command-1", TargetKind.COMMAND)
    assert output.argv == ("/bin/cat", "-u", "$(id)")
    assert output.selection.severities == SeverityFilter.parse("crit")


@pytest.mark.parametrize(
    ("line", "expected", "is_run"),
    [
        ("SetType=srv", "so this one is not run", False),
        ("SetCredentials=nobody", "setpriv --reuid=nobody", False),
        ("SetFilterOr=secret", "the program gets all", True),
        ("SetFilterNot=secret", "the program gets all", True),
        ("SetFilterAnd=secret", "the program gets all", True),
        ("SetDeadtime=60", "started for each record", True),
        ("SetEnviron=A=b", "PATH and LANG", True),
        ("SetChecksum=00", "can write it", True),
    ],
)
def test_what_a_command_cannot_have_here_is_told(line: str, expected: str, is_run: bool) -> None:
    settings, told = notices(
        f"[External]\nOpenCommand=/bin/cat\n{line}\n[Log]\nExternalSeverity=crit\n"
    )
    assert len(settings.outputs) == is_run
    [text] = told
    assert text.startswith("3: ")
    assert expected in text


def test_a_command_that_no_severity_selects_is_told() -> None:
    settings, told = notices("[External]\nOpenCommand=/bin/cat\n")
    assert settings.outputs == ()
    assert "ExternalSeverity is none by default" in told[0]


# ---- what is wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Misc]\nSetMailAddress=nobody\n", "is no mail address"),
        ("[Misc]\nSetAddrSeverity=crit\n", "before the first SetMailAddress"),
        ("[Misc]\nSetMailPort=0\n", "is no number from 1 to 65535"),
        ("[Misc]\nSetMailRelay=a b\n", "is no name or address of a host"),
        ("[Misc]\nMailSingle=perhaps\n", "is neither yes nor no"),
        ("[Misc]\nSyslogFacility=LOG_NONSENSE\n", "is no facility"),
        ("[Log]\nMailSeverity=loud\n", "MailSeverity"),
        ("[External]\nSetCommandline=x\n", "before the first OpenCommand"),
        ("[External]\nOpenCommand=cat\n", "is no absolute path of a program"),
        ("[External]\nOpenCommand=/no/such/program\n", "/no/such/program"),
        ('[External]\nOpenCommand=/bin/cat\nSetCommandline=cat "\n', "not complete"),
    ],
)
def test_a_wrong_value_is_an_error_with_its_line(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        server_rc(text)
    assert caught.value.problems[0].line is not None


def test_an_output_of_the_same_name_counts_instead() -> None:
    settings = server_rc(
        f"{MAIL}[Outputs]\nOpenOutput=samhain-mail\nOutputTarget=file /var/log/x\n"
    )
    assert [each.kind for each in settings.outputs] == [TargetKind.FILE]


@pytest.mark.parametrize(
    ("section", "name", "expected"),
    [
        ("Log", "ExportSeverity", "OutputTarget = relay HOST:PORT"),
        ("Log", "MailClass", "OutputClass"),
        ("Log", "SyslogClass", "OutputTarget = syslog-local /dev/log"),
        ("Log", "ExternalClass", "OutputTarget = command PROGRAM"),
        ("Misc", "SetMailFilterOr", "OutputSeverity"),
        ("Misc", "SetMailAlias", "OutputRecipient"),
    ],
)
def test_what_has_no_effect_says_what_to_write_instead(
    section: str, name: str, expected: str
) -> None:
    [text] = notices(f"[{section}]\n{name}=crit\n")[1]
    assert text.startswith(f"2: {name} has no effect: ")
    assert expected in text


def test_severities_of_an_agents_checks_are_told_on_the_server() -> None:
    [text] = notices("[EventSeverity]\nSeverityReadOnly=crit\n")[1]
    assert "SeverityReadOnly has no effect: " in text
