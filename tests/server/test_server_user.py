"""Who the server runs as, and what that user may do: whoever asks."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.errors import ConfigError
from needfire_protocol.rc.conditions import StatedFacts
from needfire_server import server_user
from needfire_server.config import ServerSettings, load_server_settings, read_server_settings
from needfire_server.server_user import Account
from needfire_testkit.open_directory import open_directory

HOLDER, MEMBER, OTHER = 1_001, 1_002, 1_003
GROUP = 2_000
RIGHTS = [os.R_OK, os.W_OK, os.X_OK]

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")


def status(mode: int, kind: int = stat.S_IFREG) -> os.stat_result:
    return os.stat_result((kind | mode, 0, 0, 1, HOLDER, GROUP, 0, 0, 0, 0))


def account(uid: int, *gids: int) -> Account:
    return Account(uid, uid, frozenset({uid, *gids}))


@given(mode=st.integers(0, 0o777), right=st.sampled_from(RIGHTS))
def test_owner_group_and_others_have_what_their_three_bits_say(mode: int, right: int) -> None:
    found = status(mode)
    assert account(HOLDER, GROUP).may(right, found) == bool(mode >> 6 & right)
    assert account(MEMBER, GROUP).may(right, found) == bool(mode >> 3 & right)
    assert account(OTHER).may(right, found) == bool(mode & right)


def test_root_may_do_everything_but_run_what_nobody_may_run() -> None:
    root = account(0)
    assert root.may(os.R_OK, status(0))
    assert root.may(os.W_OK, status(0))
    assert root.may(os.X_OK, status(0, stat.S_IFDIR))
    assert not root.may(os.X_OK, status(0o666))
    assert root.may(os.X_OK, status(0o001))


def test_an_access_list_may_name_anybody_up_to_its_mask() -> None:
    assert account(OTHER).may(os.R_OK, status(0o640), has_access_list=True)
    assert not account(OTHER).may(os.W_OK, status(0o640), has_access_list=True)


def test_a_user_without_a_name_is_shown_by_the_number() -> None:
    assert server_user.user_name(4_000_000_000) == "4000000000"


@pytest.fixture
def directory() -> Iterator[Path]:
    with open_directory() as path:
        yield path


def settings_of(text: str, unnamed: Account | None = None) -> ServerSettings:
    return load_server_settings(text.encode(), "serverrc", StatedFacts(), unnamed)


def told(text: str, unnamed: Account | None = None) -> list[str]:
    try:
        settings_of(text, unnamed)
    except ConfigError as error:
        return [problem.text for problem in error.problems]
    return []


def program(directory: Path, mode: int = 0o755) -> Path:
    path = directory / "page"
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def running(path: Path) -> str:
    return f"[Outputs]\nOpenOutput = x\nOutputTarget = command {path}\n"


def as_user(name: str) -> str:
    # Behind what it decides: the order of the lines means nothing.
    return f"[Misc]\nServerUser = {name}\n"


@only_root
def test_a_program_may_belong_to_root_or_the_servers_user_and_to_nobody_else(
    directory: Path,
) -> None:
    block = running(program(directory))
    assert told(block + as_user("daemon")) == []
    shutil.chown(directory, "daemon")
    assert told(block + as_user("daemon")) == []
    [said] = told(block + as_user("nobody"))
    assert f"{directory} belongs to daemon; expected: to root or nobody" in said
    [said] = told(block + as_user("root"))
    assert f"{directory} belongs to daemon; expected: to root (" in said


@only_root
def test_a_program_of_samhains_directive_is_judged_the_same(directory: Path) -> None:
    block = f"[External]\nOpenCommand={program(directory)}\nSetType=log\n"
    shutil.chown(directory, "daemon")
    assert told(block + as_user("daemon")) == []
    [said] = told(block + as_user("nobody"))
    assert "belongs to daemon" in said


@only_root
def test_without_a_name_the_starter_counts_and_else_whom_root_becomes(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = running(program(directory))
    shutil.chown(directory, "daemon")
    monkeypatch.setattr(server_user, "USERS", ("daemon",))
    assert told(block) == []
    monkeypatch.setattr(server_user, "USERS", ("nobody",))
    assert len(told(block)) == 1
    assert told(block, account(1)) == []
    assert len(told(block, account(OTHER))) == 1


@only_root
def test_a_program_that_the_servers_user_cannot_run_is_refused_though_root_could(
    directory: Path,
) -> None:
    path = program(directory, 0o700)
    [said] = told(running(path) + as_user("daemon"))
    assert f"the server's user (daemon) may not run {path}" in said
    path.chmod(0o755)
    directory.chmod(0o700)
    [said] = told(running(path) + as_user("daemon"))
    assert f"the server's user (daemon) may not enter {directory}" in said
    assert told(running(path) + as_user("root")) == []


@only_root
def test_a_secret_that_the_servers_user_could_not_read_is_refused_though_root_can(
    directory: Path,
) -> None:
    key = directory / "key"
    key.touch(0o600)
    key.write_text("k" * 24)
    block = f"[Outputs]\nOpenOutput = x\nOutputTarget = webhook https://h/\nOutputKeyFile = {key}\n"
    [said] = told(block + as_user("daemon"))
    assert f"{key} belongs to root; expected: to the server's user, daemon" in said
    shutil.chown(key, "daemon")
    assert told(block + as_user("daemon")) == []
    assert told(block + as_user("root")) == []


@only_root
def test_certificates_that_the_servers_user_could_not_read_are_refused(directory: Path) -> None:
    authority = directory / "ca.pem"
    authority.write_text("nothing")
    authority.chmod(0o640)
    block = "[Outputs]\nOpenOutput = x\nOutputTarget = syslog-tls h:1\n"
    block += f"OutputCaFile = {authority}\n"
    [said] = told(block + as_user("daemon"))
    assert f"the server's user (daemon) may not read {authority}" in said


@only_root
def test_an_access_list_can_let_the_servers_user_in(directory: Path) -> None:
    path = program(directory, 0o700)
    acl = b"\2\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, bits, who in (
            (1, 7, 2**32 - 1),
            (2, 5, 1),
            (4, 0, 2**32 - 1),
            (16, 5, 2**32 - 1),
            (32, 0, 2**32 - 1),
        )
    )
    try:
        os.setxattr(path, "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("the file system has no access lists")
    assert told(running(path) + as_user("daemon")) == []


def test_a_user_that_does_not_exist_is_an_error_before_the_server_starts() -> None:
    assert told(as_user("no-such-user")) == [
        "ServerUser: there is no user 'no-such-user' on this host"
    ]


@only_root
def test_the_file_itself_is_judged_for_who_started_the_server(directory: Path) -> None:
    """Its own ServerUser cannot count: that user could write ServerUser=root there."""
    path = directory / "serverrc"
    path.write_text(as_user("daemon"))
    shutil.chown(path, "daemon")
    with pytest.raises(ConfigError, match="belongs to the user 1"):
        read_server_settings(str(path), StatedFacts(), account(0))
    assert read_server_settings(str(path), StatedFacts(), account(1)).server_user == "daemon"
