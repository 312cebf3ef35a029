"""The key that seals: made once, for the server's eyes only, and never guessed at."""

import os
import stat
from pathlib import Path

import pytest

from needfire_protocol.errors import StorageError
from needfire_server.seal_key import (
    CREDENTIAL,
    FILE,
    NEXT_FILE,
    OLD_FILE,
    find_seal_key,
    make_seal_key,
    promote_next_key,
    read_credential,
    read_seal_key,
)


def test_a_key_is_made_for_us_only_and_found_again(tmp_path: Path) -> None:
    assert find_seal_key(str(tmp_path)) is None
    key = make_seal_key(str(tmp_path), os.urandom)
    assert len(key) == 32
    assert find_seal_key(str(tmp_path)) == read_seal_key(str(tmp_path / FILE)) == key
    assert stat.S_IMODE((tmp_path / "seal.key").stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["seal.key"]


def test_what_a_crash_left_of_a_key_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "seal.key.part").write_bytes(b"half")
    assert find_seal_key(str(tmp_path)) is None
    assert make_seal_key(str(tmp_path), lambda count: b"k" * count) == b"k" * 32


def test_the_next_key_takes_the_place_of_the_one_before_which_is_kept(tmp_path: Path) -> None:
    key = make_seal_key(str(tmp_path), os.urandom)
    make_seal_key(str(tmp_path), os.urandom, NEXT_FILE)
    following = make_seal_key(str(tmp_path), os.urandom, NEXT_FILE)
    promote_next_key(str(tmp_path))
    assert find_seal_key(str(tmp_path)) == following
    assert find_seal_key(str(tmp_path), OLD_FILE) == key
    with pytest.raises(StorageError, match=r"seal\.key"):
        promote_next_key(str(tmp_path))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_is_refused_with_both_numbers(size: int, tmp_path: Path) -> None:
    path = tmp_path / "seal.key"
    path.write_bytes(b"k" * size)
    path.chmod(0o600)
    with pytest.raises(StorageError, match=r"bytes; expected exactly 32") as caught:
        find_seal_key(str(tmp_path))
    assert str(min(size, 32)) in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    make_seal_key(str(tmp_path), os.urandom)
    (tmp_path / "seal.key").chmod(mode)
    with pytest.raises(StorageError, match="read by others"):
        find_seal_key(str(tmp_path))


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(bytes(32))
    (tmp_path / "seal.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        find_seal_key(str(tmp_path))


def test_the_service_manager_s_key_is_taken_where_it_gives_one(tmp_path: Path) -> None:
    assert read_credential({}) is None
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_credential(environment) is None
    (tmp_path / CREDENTIAL).write_bytes(b"c" * 32)
    assert read_credential(environment) == b"c" * 32
    (tmp_path / CREDENTIAL).write_bytes(b"c" * 31)
    with pytest.raises(StorageError, match="expected exactly 32"):
        read_credential(environment)
