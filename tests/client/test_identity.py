"""Name and password of the agent."""

import os
from pathlib import Path

import pytest

from needfire_client.failures import CommandError
from needfire_client.identity import (
    PASSWORD_LENGTH_MIN,
    agent_name,
    boot_id,
    check_password,
    host_name,
    load_password,
    store_password,
)
from needfire_protocol.exit_status import ExitStatus


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    store_password(path, "correct horse battery")
    return path


def test_a_password_comes_back_and_only_its_owner_can_read_it(stored: Path) -> None:
    assert load_password(stored) == "correct horse battery"
    assert stored.stat().st_mode & 0o777 == 0o600


def test_storing_replaces_whole_and_leaves_nothing_behind(stored: Path) -> None:
    store_password(stored, "another one, longer")
    assert load_password(stored) == "another one, longer"
    assert [path.name for path in stored.parent.iterdir()] == ["password"]


def test_a_half_written_one_from_before_is_no_obstacle(stored: Path) -> None:
    (stored.parent / ".password.new").write_text("half")
    store_password(stored, "another one, longer")
    assert load_password(stored) == "another one, longer"


def test_a_password_that_others_can_read_is_not_used(stored: Path) -> None:
    for mode in (0o640, 0o604, 0o620, 0o601):
        stored.chmod(mode)
        with pytest.raises(CommandError) as caught:
            load_password(stored)
        assert caught.value.status is ExitStatus.LOCAL
        assert "chmod 600" in str(caught.value.hint)


def test_no_password_says_how_to_set_one(tmp_path: Path) -> None:
    with pytest.raises(CommandError) as caught:
        load_password(tmp_path / "password")
    assert caught.value.status is ExitStatus.AUTHENTICATION
    assert "set-password" in str(caught.value.hint)


def test_a_link_to_somewhere_else_is_not_a_password(tmp_path: Path, stored: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(stored)
    with pytest.raises(CommandError):
        load_password(link)


def test_lengths_at_the_bounds() -> None:
    assert check_password("x" * PASSWORD_LENGTH_MIN + "\n") == "x" * PASSWORD_LENGTH_MIN
    assert check_password("x" * PASSWORD_LENGTH_MIN + "\r\n") == "x" * PASSWORD_LENGTH_MIN
    assert len(check_password("x" * 1_024)) == 1_024
    for bad in ("", "\n", "x" * (PASSWORD_LENGTH_MIN - 1), "x" * 1_025, "\u00e9" * 513):
        with pytest.raises(CommandError):
            check_password(bad)


@pytest.mark.parametrize(
    "bad", ["two\nlines here", "with\0nul", "half \udce4 a byte", "tab\there.."]
)
def test_what_is_not_one_line_of_text_is_refused(bad: str) -> None:
    with pytest.raises(CommandError):
        check_password(bad)


def test_a_password_is_never_in_an_error(tmp_path: Path) -> None:
    for bad in ("secret1", "secret\nsecret secret", "s\u00e9cret" * 300):
        with pytest.raises(CommandError) as caught:
            check_password(bad)
        assert "cret" not in str(caught.value)


def test_names() -> None:
    assert agent_name("Web1.Example.ORG") == "web1.example.org"
    assert host_name(lambda: "web1.example.org.\n") == "web1.example.org"
    for bad in ("", "a b", "../x", ".hidden", "x" * 256):
        with pytest.raises(CommandError) as caught:
            agent_name(bad)
        assert caught.value.status is ExitStatus.USAGE


def test_the_boot_has_an_identifier_that_fits_the_protocol() -> None:
    assert 1 <= len(boot_id()) <= 64
    assert boot_id() == boot_id()
    assert boot_id().isascii()


def test_random_files_in_its_place_give_an_error_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "password"
    for _ in range(20):
        path.unlink(missing_ok=True)
        path.write_bytes(os.urandom(40))
        path.chmod(0o600)
        try:
            assert len(load_password(path)) >= PASSWORD_LENGTH_MIN
        except CommandError:
            continue
