"""The server's configuration file, as settings."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.errors import ConfigError, Problem
from needfire_protocol.rc.conditions import StatedFacts
from needfire_protocol.severity import Severity
from needfire_protocol.srp import Verifier, make_verifier
from needfire_server.config import ServerSettings, load_server_settings, read_server_settings
from needfire_server.facts import HostFacts
from needfire_testkit.rc import server_rc


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    return make_verifier("secret", os.urandom)


def errors_of(text: str) -> list[tuple[int | None, str]]:
    with pytest.raises(ConfigError) as caught:
        server_rc(text)
    return [(problem.line, problem.text) for problem in caught.value.problems]


def test_an_empty_file_gives_the_defaults() -> None:
    settings = server_rc("")
    assert settings == ServerSettings(source="serverrc", sha256=settings.sha256)
    assert settings.severity_lookup is Severity.CRIT
    assert settings.client_time_limit_s == 86_400


def test_a_yule_configuration_is_understood() -> None:
    settings = server_rc(
        """
        [Log]
        PrintSeverity=none
        LogSeverity = warn
        [Misc]
        Daemon=yes
        SetLoopTime = 600
        SetClientFromAccept = True
        [Server]
        SeverityLookup = debug
        SetSocketAllowUid = 0
        SetSocketAllowUid = 1000
        SetServerInterface = 192.0.2.1
        UseSeparateLogs = yes
        [ReadOnly]
        dir = 99/etc
        """
    )
    assert settings.set_client_from_accept is True
    assert settings.severity_lookup is Severity.DEBUG
    assert settings.socket_allow_uids == (0, 1_000)
    assert settings.listen_interface == "192.0.2.1"
    assert settings.use_separate_logs is True
    assert Severity.ALERT not in settings.print_severity
    assert [notice.line for notice in settings.notices] == [6, 7, 16]


def test_clients_are_read_with_name_verifier_and_line(verifier: Verifier) -> None:
    settings = server_rc(f"[Clients]\n\n{verifier.to_line('Web1.Example.org')}\n")
    assert settings.clients == (("web1.example.org", verifier, 3),)
    [(name, _, line)] = settings.clients
    assert (name, line) == ("web1.example.org", 3)


def test_a_client_listed_twice_is_a_notice_and_the_last_line_comes_last(
    verifier: Verifier,
) -> None:
    other = make_verifier("other", os.urandom)
    text = f"[Clients]\n{verifier.to_line('web1')}\n{other.to_line('WEB1')}\n"
    settings = server_rc(text)
    assert [client.verifier for client in settings.clients] == [verifier, other]
    [notice] = settings.notices
    assert str(notice) == ("serverrc:3: Client web1 stands in line 2 as well; this line counts")


@pytest.mark.parametrize(
    "value",
    [
        "web1@8F81BA58956F8F42@" + "8932D08C49CA76BD" * 16,
        "web1@00000000@C39F0EEFBC64E4A8BBF72349637CC07577F714B420B62882",
    ],
)
def test_a_verifier_of_samhain_is_a_notice_that_says_what_to_do(value: str) -> None:
    settings = server_rc(f"[Clients]\nClient={value}\n")
    assert settings.clients == ()
    [notice] = settings.notices
    assert notice.line == 2
    assert "needfire-admin register" in notice.text
    assert value[10:] not in notice.text


@pytest.mark.parametrize(
    "value",
    [
        "",
        "web1",
        "web1@00@11",
        "../x@{salt}@{verifier}",
        ".x@{salt}@{verifier}",
        "@{salt}@{verifier}",
    ],
)
def test_a_broken_client_line_is_an_error_that_shows_no_secret(
    value: str, verifier: Verifier
) -> None:
    written = value.format(salt=verifier.salt.hex(), verifier=verifier.verifier.hex())
    [(line, text)] = errors_of(f"[Clients]\nClient = {written}\n")
    assert line == 2
    assert verifier.verifier.hex()[:32] not in text


def test_a_placeholder_left_in_a_client_line_is_a_notice(verifier: Verifier) -> None:
    [notice] = server_rc(f"[Clients]\n{verifier.to_line('HOSTNAME')}\n").notices
    assert "HOSTNAME" in notice.text


def test_relays_are_clients_by_their_names_in_lower_case() -> None:
    assert server_rc("[Clients]\nRelayClient = Hall\nRelayClient = b\n").relay_clients == (
        "hall",
        "b",
    )
    with pytest.raises(ConfigError, match="is not a client name"):
        server_rc("[Clients]\nRelayClient = hall/web1\n")


def test_paths_keep_bytes_that_are_no_text(tmp_path: Path) -> None:
    data = b"[Misc]\nDataDirectory = /srv/\xff\n"
    settings = load_server_settings(data, "serverrc", StatedFacts())
    assert os.fsencode(settings.data_directory) == b"/srv/\xff"


def test_a_misspelt_directive_is_an_error_with_line_and_suggestion() -> None:
    assert errors_of("[Misc]\nRequireLokup=yes\n") == [
        (2, "unknown directive 'RequireLokup'; the nearest known name is RequireLookup")
    ]


def test_the_form_of_log_lines_can_be_given_elsewhere() -> None:
    assert server_rc("").with_log_format("json").log_format == "json"


def test_a_file_is_read_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "serverrc"
    path.write_text("[Misc]\nSetServerPort=5000\n", encoding="utf-8")
    settings = read_server_settings(str(path), HostFacts())
    assert (settings.listen_port, settings.source) == (5_000, str(path))


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664])
def test_a_file_of_our_own_is_taken(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "serverrc"
    path.write_bytes(b"")
    path.chmod(mode)
    assert read_server_settings(str(path), HostFacts()).source == str(path)


def test_a_file_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "serverrc"
    path.write_bytes(b"")
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="can be written by everybody") as caught:
        read_server_settings(str(path), HostFacts())
    assert "chmod" in str(caught.value.problems[0].hint)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
@pytest.mark.parametrize(
    ("uid", "gid", "mode", "found"),
    [
        (65534, 0, 0o644, "belongs to the user 65534"),
        (0, 65534, 0o664, "can be written by the group 65534"),
        (0, 65534, 0o644, None),
    ],
)
def test_a_file_that_others_own_is_refused(
    tmp_path: Path, uid: int, gid: int, mode: int, found: str | None
) -> None:
    path = tmp_path / "serverrc"
    path.write_bytes(b"")
    os.chown(path, uid, gid)
    path.chmod(mode)
    if found is None:
        read_server_settings(str(path), HostFacts())
    else:
        with pytest.raises(ConfigError, match=found):
            read_server_settings(str(path), HostFacts())


def test_nothing_is_a_file_of_nobody() -> None:
    assert read_server_settings("/dev/null", HostFacts()).source == "/dev/null"


def test_a_missing_file_is_a_configuration_error_that_names_it(tmp_path: Path) -> None:
    path = str(tmp_path / "nothing")
    with pytest.raises(ConfigError) as caught:
        read_server_settings(path, HostFacts())
    assert str(caught.value) == f"{path}: cannot be read: No such file or directory"


@given(text=st.text(max_size=200))
def test_any_text_gives_settings_or_a_configuration_error(text: str) -> None:
    data = f"[Clients]\nClient={text}".encode()
    problems: tuple[Problem, ...] = ()
    try:
        load_server_settings(data, "serverrc", StatedFacts())
    except ConfigError as error:
        problems = error.problems
    assert all(problem.text.isprintable() for problem in problems)
