"""The blocks of [Outputs]: every directive does something, and what is wrong is told with its line."""

from dataclasses import replace
from pathlib import Path

import pytest

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.errors import ConfigError
from needfire_protocol.rc.directives import DIRECTIVES, DirectiveRow
from needfire_protocol.severity import Severity, SeverityFilter
from needfire_server.outputs import blocks
from needfire_server.outputs.settings import OutputSettings, RelaySettings, TargetKind
from needfire_testkit.certificates import Authority, KeyPair
from needfire_testkit.rc import server_rc

ROWS = [row for row in DIRECTIVES.values() if row.sections == ("Outputs",)]
IN_A_BLOCK = [row for row in ROWS if row.name not in ("OpenOutput", "OutputTarget")]
SYSLOG = "OutputTarget = syslog-tls log.example.org:6514\n"
TLS_ROWS = {"OutputCaFile", "OutputCertificateFile", "OutputPrivateKeyFile"}


MAIL_OR_RELAY = blocks._MAIL | {TargetKind.RELAY}


def outputs_of(text: str) -> tuple[OutputSettings, ...]:
    settings = server_rc(f"[Outputs]\n{text}")
    assert settings.notices == ()
    return settings.outputs


def errors_of(text: str) -> list[tuple[int | None, str]]:
    with pytest.raises(ConfigError) as caught:
        server_rc(f"[Outputs]\n{text}")
    return [(problem.line, problem.text) for problem in caught.value.problems]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of mode 0600, by the directive that names such a file."""
    directory = tmp_path_factory.mktemp("secrets")
    authority = Authority(directory)
    pair: KeyPair = authority.issue("server")
    found = {
        "OutputCaFile": authority.path,
        "OutputCertificateFile": pair.certificate,
        "OutputPrivateKeyFile": pair.key,
    }
    for name, text in (("OutputKeyFile", "k" * 24), ("OutputPasswordFile", "secret")):
        found[name] = directory / name
        found[name].touch(0o600)
        found[name].write_text(f"{text}\n")
    return found


def block_for(row: DirectiveRow, secrets: dict[str, Path]) -> str:
    """A complete block of a kind that the directive means something for."""
    if row.name == "OutputKeyFile":
        return "OutputTarget = webhook https://hooks.example.org/x\n"
    if row.name == "OutputTopic":
        return "OutputTarget = nats nats://mq.example.org:4222\n"
    if blocks._MAIL <= blocks._ONLY_FOR.get(row.name.lower(), frozenset()) <= MAIL_OR_RELAY:
        needed = {
            "OutputSender": "needfire@example.com",
            "OutputRecipient": "others@example.com",
            "OutputUser": "someone",
            "OutputPasswordFile": str(secrets["OutputPasswordFile"]),
        }
        lines = [f"{name} = {value}\n" for name, value in needed.items() if name != row.name]
        return "OutputTarget = smtps mail.example.org:465\n" + "".join(lines)
    if row.name == "OutputPrivateKeyFile":
        return SYSLOG + f"OutputCertificateFile = {secrets['OutputCertificateFile']}\n"
    if row.name == "OutputCertificateFile":
        return SYSLOG + f"OutputPrivateKeyFile = {secrets['OutputPrivateKeyFile']}\n"
    return SYSLOG


@pytest.mark.parametrize("row", IN_A_BLOCK, ids=lambda row: row.name)
def test_every_directive_of_a_block_decides_something(
    row: DirectiveRow, secrets: dict[str, Path]
) -> None:
    value = str(secrets.get(row.name, row.example))
    block = f"OpenOutput = out\n{block_for(row, secrets)}"
    [changed] = outputs_of(f"{block}{row.name} = {value}\n")
    if row.default is not None:
        [untouched] = outputs_of(block)
        [default] = outputs_of(f"{block}{row.name} = {row.default}\n")
        assert default == untouched
        assert changed != untouched


def test_a_block_becomes_settings() -> None:
    [found] = outputs_of(
        "OpenOutput = SIEM\n"
        "OutputTarget = syslog-tls [2001:db8::1]:6514\n"
        "OutputFormat = cef\n"
        "OutputSeverity = >=warn !=mark\n"
        "OutputClass = !traffic, !system\n"
        "OutputClassSeverity = alarm alert\n"
        "OutputClassSeverity = provisioning *\n"
        "OutputFacility = local4\n"
        "OutputMessageSize = 2K\n"
    )
    assert (found.name, found.kind, found.format) == ("siem", TargetKind.SYSLOG_TLS, "cef")
    assert found.address == ("2001:db8::1", 6514)
    assert found.selection.severities == SeverityFilter.parse(">=warn !=mark")
    assert found.selection.classes == set(EventClass) - {EventClass.TRAFFIC, EventClass.SYSTEM}
    assert found.selection.by_class[EventClass.ALARM] == SeverityFilter.at_least(Severity.ALERT)
    assert (found.facility, found.message_bytes_max) == (20, 2_048)


def test_outputs_are_independent_and_in_the_order_of_the_file() -> None:
    found = outputs_of(
        "OpenOutput = b\nOutputTarget = file /var/log/b\nOutputFormat = ecs\n"
        "OpenOutput = a\nOutputTarget = file /var/log/a\n"
    )
    assert [(each.name, each.format) for each in found] == [("b", "ecs"), ("a", "json")]


ERRORS = [
    ("OutputFormat = cef\n", 2, "before the first OpenOutput"),
    ("OpenOutput = ../x\n", 2, "cannot name an output"),
    ("OpenOutput = " + "x" * 33 + "\n", 2, "at most 32"),
    ("OpenOutput = x\n", 2, "it has no OutputTarget"),
    (f"OpenOutput = x\n{SYSLOG}OpenOutput = X\n{SYSLOG}", 4, "begins in line 2 already"),
    (f"OpenOutput = x\n{SYSLOG}{SYSLOG}", 4, "stands in line 3 of this output as well"),
    ("OpenOutput = x\nOutputTarget = syslg h:1\n", 3, "is no kind of target; expected file"),
    ("OpenOutput = x\nOutputTarget = file\n", 3, "needs to know where, for example file /var"),
    ("OpenOutput = x\nOutputTarget = file log\n", 3, "no absolute path"),
    ("OpenOutput = x\nOutputTarget = smtp mail\n", 3, "not HOST:PORT"),
    ("OpenOutput = x\nOutputTarget = syslog-udp h:0\n", 3, "not HOST:PORT"),
    ("OpenOutput = x\nOutputTarget = syslog-udp h:65536\n", 3, "not HOST:PORT"),
    ("OpenOutput = x\nOutputTarget = syslog-udp ::1:514\n", 3, "not HOST:PORT"),
    ("OpenOutput = x\nOutputTarget = webhook http://h.example.org/\n", 3, "use https"),
    ("OpenOutput = x\nOutputTarget = webhook https://u:p@h.example.org/\n", 3, "a user"),
    ("OpenOutput = x\nOutputTarget = webhook ftp://h/\n", 3, "no URL like"),
    ("OpenOutput = x\nOutputTarget = webhook https://h/\n", 2, "needs OutputKeyFile"),
    ("OpenOutput = x\nOutputTarget = command date\n", 3, "no absolute path of a program"),
    ("OpenOutput = x\nOutputTarget = command /bin/no-such-thing\n", 3, "No such file"),
    ("OpenOutput = x\nOutputTarget = command /bin/echo 'a\n", 3, "not complete"),
    ("OpenOutput = x\nOutputTarget = command /etc/passwd\n", 3, "no program that can be run"),
    ("OpenOutput = x\nOutputTarget = nats tls://a:1,nats://b:2\n", 3, "all of the addresses"),
    ("OpenOutput = x\nOutputTarget = relay h:1,g\n", 3, "not HOST:PORT"),
    ("OpenOutput = x\nOutputTarget = relay ,\n", 3, "names no address"),
    ("OpenOutput = x\nOutputTarget = relay tls://h:1\n", 3, "is not HOST:PORT"),
    ("OpenOutput = x\nOutputTarget = relay h:1\n", 2, "OutputUser and OutputPasswordFile"),
    ("OpenOutput = x\nOutputTarget = relay h:1\nOutputFormat = cef\n", 4, "means nothing for"),
    ("OpenOutput = x\nOutputTarget = smtp h:25\n", 2, "OutputSender and OutputRecipient"),
    (f"OpenOutput = x\n{SYSLOG}OutputFormat = xml\n", 4, "no format; expected json, ecs"),
    (f"OpenOutput = x\n{SYSLOG}OutputSeverity = wrn\n", 4, "'wrn' is not a severity"),
    (f"OpenOutput = x\n{SYSLOG}OutputClass = filez\n", 4, "no class of events"),
    (f"OpenOutput = x\n{SYSLOG}OutputClassSeverity = alarm\n", 4, "list is empty"),
    (f"OpenOutput = x\n{SYSLOG}OutputSender = a@b.c\n", 4, "means nothing for the target syslog"),
    (f"OpenOutput = x\n{SYSLOG}OutputCaFile = /nonexistent\n", 4, "cannot be used: No such file"),
    (f"OpenOutput = x\n{SYSLOG}OutputPrivateKeyFile = /nonexistent\n", 4, "cannot be read"),
]


@pytest.mark.parametrize(("text", "line", "words"), ERRORS)
def test_what_is_wrong_is_told_once_with_its_line(text: str, line: int, words: str) -> None:
    [(found, said)] = errors_of(text)
    assert found == line
    assert words in said


def test_mail_addresses_cannot_bring_headers_along() -> None:
    for address in ("a@b.c, d@e.f", "a b@c.d", "nobody", "Name <a@b.c>", "a@b.c\tBcc: d@e.f"):
        text = f"OpenOutput = x\nOutputTarget = smtp h:25\nOutputSender = {address}\n"
        assert any("no mail address" in said for _, said in errors_of(text)), address


def test_a_password_never_travels_unencrypted(secrets: dict[str, Path]) -> None:
    text = (
        "OpenOutput = x\nOutputTarget = smtp h:25\nOutputSender = a@b.c\nOutputRecipient = d@e.f\n"
        f"OutputUser = me\nOutputPasswordFile = {secrets['OutputPasswordFile']}\n"
    )
    [(line, said)] = errors_of(text)
    assert (line, "unencrypted" in said) == (7, True)
    [fine] = outputs_of(text.replace("smtp h:25", "smtps h:465"))
    assert fine.mail is not None
    assert fine.mail.password == "secret"
    assert "secret" not in repr(fine)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_secret_that_others_may_read_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("k" * 24)
    path.chmod(mode)
    text = f"OpenOutput = x\nOutputTarget = webhook https://h/\nOutputKeyFile = {path}\n"
    [(line, said)] = errors_of(text)
    assert (line, f"has mode {mode:04o}; expected 0600" in said) == (4, True)
    path.chmod(0o600)
    assert outputs_of(text)[0].key == b"k" * 24


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        (b"k" * 23, "the key has 23 bytes; at least 24"),
        (b"whsec_" + b"A" * 28, "the key has 21 bytes"),
        (b"whsec_!", "not base64"),
        (b"", "has 0 bytes"),
        (b"k" * 4_097, "has 4097 bytes"),
    ],
)
def test_a_key_that_is_no_key_is_refused(secret: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(secret)
    text = f"OpenOutput = x\nOutputTarget = webhook https://h/\nOutputKeyFile = {path}\n"
    [(_, said)] = errors_of(text)
    assert words in said


def test_the_path_of_a_webhook_is_not_shown(secrets: dict[str, Path]) -> None:
    [found] = outputs_of(
        "OpenOutput = x\nOutputTarget = webhook https://hooks.example.org:8443/services/T0KEN\n"
        f"OutputKeyFile = {secrets['OutputKeyFile']}\n"
    )
    assert found.shown_target == "webhook https://hooks.example.org:8443/…"
    assert "kkkk" not in repr(found)


def test_the_arguments_of_a_program_are_not_shown(tmp_path: Path) -> None:
    program = tmp_path / "page"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    [alone] = outputs_of(f"OpenOutput = x\nOutputTarget = command {program}\n")
    assert alone.shown_target == f"command {program}"
    [found] = outputs_of(f"OpenOutput = x\nOutputTarget = command {program} T0KEN -p T0KEN\n")
    assert found.shown_target == f"command {program} …"


@pytest.mark.parametrize(
    "target",
    [
        *("nats nats://nf:T0KEN@h:1", "kafka nf:T0KEN@h:1", "smtp nf:T0KEN@h:25"),
        *(
            "webhook https://nf:T0KEN@h/T0KEN",
            "webhook https://nf:T0KEN@h:x/",
            "nats http://h/T0KEN",
        ),
        *("webhook ftp://nf:T0KEN@h/T0KEN", "syslog-tcp https://h/T0KEN", "relay nf:T0KEN@h:1"),
    ],
)
def test_a_finding_about_an_address_shows_no_password_in_it(target: str) -> None:
    [*found] = errors_of(f"OpenOutput = x\nOutputTarget = {target}\n")
    assert found
    assert not any("T0KEN" in said for _, said in found)


def test_a_program_that_others_can_replace_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "page"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = f"OpenOutput = x\nOutputTarget = command {program} 'a b'\n"
    assert outputs_of(text)[0].argv == (str(program), "a b")
    program.chmod(0o775)
    assert "can be written by others" in errors_of(text)[0][1]
    program.chmod(0o755)
    tmp_path.chmod(0o777)
    assert "can be written by others" in errors_of(text)[0][1]


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError) as caught:
        server_rc("[Outputs]\nOpenOutput = x\nOutputTarget = kafka h:9092\n")
    [problem] = caught.value.problems
    assert "needs the library aiokafka" in problem.text
    assert problem.hint == "pip install 'needfire[kafka]'"


def test_more_outputs_than_may_be_are_refused() -> None:
    block = "OpenOutput = x{}\nOutputTarget = file /x\n"
    most = "".join(block.format(n) for n in range(blocks.OUTPUTS_MAX))
    assert len(outputs_of(most)) == blocks.OUTPUTS_MAX
    assert "more than 32 outputs" in errors_of(most + block.format("y"))[0][1]


def test_settings_that_differ_in_a_secret_are_different() -> None:
    [found] = outputs_of("OpenOutput = x\nOutputTarget = file /x\n")
    assert replace(found, key=b"other") != found


def test_a_relay_has_its_addresses_and_the_name_and_password_of_the_client_that_it_is(
    secrets: dict[str, Path],
) -> None:
    block = "OpenOutput = up\nOutputTarget = relay a.example.org:49777, [2001:db8::1]:49777\n"
    block += f"OutputPasswordFile = {secrets['OutputPasswordFile']}\n"
    [found] = outputs_of(f"{block}OutputUser = Hall\n")
    assert found.addresses == ("a.example.org:49777", "[2001:db8::1]:49777")
    assert found.relay == RelaySettings(name="hall", password="secret")
    assert "secret" not in repr(found)
    [(line, said)] = errors_of(f"{block}OutputUser = ../hall\n")
    assert line == 5
    assert "is not a client name" in said
