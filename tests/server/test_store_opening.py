"""Which store a data directory has, where its password comes from, and what is refused."""

import json
import os
import sys
from pathlib import Path

import pytest

from needfire_protocol.errors import ConfigError, StorageError
from needfire_server.admin.offline import OfflineStore
from needfire_server.storage.opening import how_to_open, how_to_open_again
from needfire_server.storage.sqlite import SqliteStore
from needfire_testkit.open_directory import open_directory
from needfire_testkit.rc import server_rc
from needfire_testkit.server_store import event

URL = "postgresql://ann@db.example.org/needfire"


def password_file(directory: Path, content: bytes, mode: int = 0o400) -> str:
    path = directory / "password"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


async def test_without_a_url_it_is_the_file_in_the_directory(tmp_path: Path) -> None:
    store = how_to_open(str(tmp_path), None, None)()
    await store.record(event())
    store.close()
    again = how_to_open_again(str(tmp_path))()
    assert isinstance(again, SqliteStore)
    assert await again.last_rowid() == 1
    again.close()


def test_who_goes_back_to_the_file_is_not_led_to_the_database(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text(json.dumps({"url": URL, "password_file": None}))
    how_to_open(str(tmp_path), None, None)().close()
    assert not (tmp_path / "store.json").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"url": 3}'])
def test_a_damaged_note_is_an_error_and_no_second_store(tmp_path: Path, content: str) -> None:
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(StorageError, match="does not say where the store is"):
        how_to_open_again(str(tmp_path))
    assert not (tmp_path / "needfire.sqlite").exists()


@pytest.mark.parametrize(
    ("content", "mode", "expected"),
    [
        (b"", 0o400, "first line of .* is empty"),
        (b"\nsecond", 0o400, "first line of .* is empty"),
        (b"\xff\xfe", 0o400, "not UTF-8"),
        (b"open sesame", 0o404, "everybody may read the password"),
    ],
)
def test_a_password_that_cannot_be_used_is_refused_and_not_shown(
    tmp_path: Path, content: bytes, mode: int, expected: str
) -> None:
    with pytest.raises(StorageError, match=expected) as caught:
        how_to_open(str(tmp_path), URL, password_file(tmp_path, content, mode))
    assert "sesame" not in str(caught.value)


def test_a_password_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nothere cannot be read: No such file"):
        how_to_open(str(tmp_path), URL, str(tmp_path / "nothere"))


def test_the_credential_of_systemd_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "store-password").write_bytes(b"\xff")
    with pytest.raises(StorageError, match="store-password cannot be read: it is not UTF-8"):
        how_to_open(str(tmp_path), URL, None)


def test_a_driver_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "needfire_server.storage.postgresql", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StorageError, match=r"pip install 'needfire\[postgres\]'"):
        how_to_open(str(tmp_path), URL, None)


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "postgres://ann@[::1]:5432/needfire",
        "postgresql://h1:5432,h2:5433/db?target_session_attrs=read-write",
        "postgresql:///needfire?host=/run/postgresql",
    ],
)
def test_a_url_of_the_store_is_read(url: str) -> None:
    assert server_rc(f"[Misc]\nStoreURL={url}\n").store_url == url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:sesame@db/needfire",
        "postgresql://ann:se@same@db/needfire",
        "postgresql://ann@db/needfire?password=sesame",
        "postgresql://ann@db/needfire?a=b&PASSWORD=sesame",
        "postgresql://ann@db/needfire?sslpassword=sesame",
        "postgresql://ann@db/needfire?p%61ssword=sesame",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        server_rc(f"[Misc]\nStoreURL={url}\n")
    text = " ".join(map(str, caught.value.problems))
    assert "StorePasswordFile" in text
    assert "same" not in text


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///x",
        "db.example.org",
        "postgresql:/ann@db",
        "mysql://h",
        "postgresql://ann:se/same@db",
    ],
)
def test_what_is_no_url_of_postgresql_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected postgresql://USER@HOST/DATABASE") as caught:
        server_rc(f"[Misc]\nStoreURL={url}\n")
    assert "same" not in " ".join(map(str, caught.value.problems))


def test_root_reads_no_file_that_the_owner_of_the_directory_names() -> None:
    """Goal: the note is the server's user's; the password file is opened with that user's rights."""
    if os.geteuid() != 0:
        pytest.skip("needs uid 0")
    with open_directory() as parent:
        secret = password_file(parent, b"only for root")
        directory = parent / "data"
        directory.mkdir()
        note = {"url": "postgresql://ann@/x?host=/nowhere", "password_file": secret}
        (directory / "store.json").write_text(json.dumps(note))
        for path in (directory, directory / "store.json"):
            os.chown(path, 65_534, 65_534)
        groups = os.getgroups()
        try:
            with pytest.raises(StorageError, match="cannot be read: Permission denied"):
                OfflineStore(str(directory))
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)
