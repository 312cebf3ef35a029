"""The key that seals: made once, for the server's eyes only, and never guessed at."""

import os
import stat
from pathlib import Path

import pytest

from needfire_protocol.errors import StorageError
from needfire_server.seal_key import CREDENTIAL, load_seal_key, read_credential


def test_a_key_is_made_once_and_found_again(tmp_path: Path) -> None:
    key = load_seal_key(str(tmp_path), os.urandom)
    assert len(key) == 32
    assert load_seal_key(str(tmp_path), os.urandom) == key
    assert stat.S_IMODE((tmp_path / "seal.key").stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["seal.key"]


def test_what_a_crash_left_of_a_key_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "seal.key.part").write_bytes(b"half")
    assert load_seal_key(str(tmp_path), lambda count: b"k" * count) == b"k" * 32


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_is_refused_with_both_numbers(size: int, tmp_path: Path) -> None:
    path = tmp_path / "seal.key"
    path.write_bytes(b"k" * size)
    path.chmod(0o600)
    with pytest.raises(StorageError, match=r"bytes; expected exactly 32") as caught:
        load_seal_key(str(tmp_path), os.urandom)
    assert str(min(size, 32)) in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    load_seal_key(str(tmp_path), os.urandom)
    (tmp_path / "seal.key").chmod(mode)
    with pytest.raises(StorageError, match="read by others"):
        load_seal_key(str(tmp_path), os.urandom)


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(bytes(32))
    (tmp_path / "seal.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        load_seal_key(str(tmp_path), os.urandom)


def test_the_service_manager_s_key_is_taken_where_it_gives_one(tmp_path: Path) -> None:
    assert read_credential({}) is None
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_credential(environment) is None
    (tmp_path / CREDENTIAL).write_bytes(b"c" * 32)
    assert read_credential(environment) == b"c" * 32
    (tmp_path / CREDENTIAL).write_bytes(b"c" * 31)
    with pytest.raises(StorageError, match="expected exactly 32"):
        read_credential(environment)
