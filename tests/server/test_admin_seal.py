"""The key of a store in the hands of an administrator, while no server runs."""

import io
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from needfire_server.admin.cli import main
from needfire_server.seal_key import CREDENTIAL
from needfire_server.storage.sqlite import SqliteStore


class Ended(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


Admin = Callable[..., Ended]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir(mode=0o700)
    return tmp_path / "data"


@pytest.fixture
def admin(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Admin:
    """Runs needfire-admin in this process."""

    def run(*arguments: str) -> Ended:
        argv = ["needfire-admin", "--data-dir", str(data), *arguments]
        monkeypatch.setattr("sys.argv", argv)
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *capsys.readouterr())

    return run


def opens(look: Ended) -> dict[str, bool]:
    return {key["place"]: key["opens"] for key in look.data["keys"]}


def test_who_registers_before_the_first_server_makes_the_key(data: Path, admin: Admin) -> None:
    assert admin("register", "web1").status == 0
    assert (data / "seal.key").stat().st_mode & 0o777 == 0o600
    look = admin("seal", "check", "--json")
    assert (look.status, opens(look)) == (0, {"seal.key": True})


def test_a_copy_of_the_key_can_be_compared_with_the_store(
    data: Path, admin: Admin, tmp_path: Path
) -> None:
    admin("register", "web1")
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_bytes((data / "seal.key").read_bytes())
    wrong.write_bytes(os.urandom(32))
    look = admin("seal", "check", str(right))
    assert look.status == 0
    assert look.out.splitlines()[-1].endswith("yes")
    look = admin("seal", "check", str(wrong))
    assert look.status == 1
    assert look.out.splitlines()[-1].endswith("no")
    assert admin("seal", "check", str(tmp_path / "missing")).status == 8


def test_without_the_key_what_can_be_read_is_read_and_nobody_is_registered_in_vain(
    data: Path, admin: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin("register", "web1")
    key = (data / "seal.key").read_bytes()
    (data / "seal.key").unlink()
    assert "web1" in admin("clients", "list").out
    refused = admin("register", "web2")
    assert refused.status == 8
    assert "the store is sealed with the key" in refused.err
    assert not (data / "seal.key").exists()
    assert admin("seal", "check").status == 1
    # A credential that the tool is given, as the server is, is as good.
    (tmp_path / CREDENTIAL).write_bytes(key)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert admin("register", "web2").status == 0


def test_the_key_is_exchanged_and_the_one_before_kept_aside(data: Path, admin: Admin) -> None:
    admin("register", "web1")
    before = (data / "seal.key").read_bytes()
    done = admin("seal", "rotate", "--json")
    assert done.data["verifiers"] == 1
    assert "seal.key.old opens backups" in done.err
    assert (data / "seal.key").read_bytes() != before == (data / "seal.key.old").read_bytes()
    look = admin("seal", "check", "--json")
    assert opens(look) == {"seal.key": True, "seal.key.old": False}
    assert look.data["store"] == done.data["key"] != done.data["before"]
    (event,) = [json.loads(line) for line in admin("events", "--json").out.splitlines()[-1:]]
    assert event["code"] == "SEAL_KEY_CHANGED"
    assert event["fields"]["user"]


def test_a_key_is_not_exchanged_under_a_server_that_uses_it(data: Path, admin: Admin) -> None:
    admin("register", "web1")
    store = SqliteStore.open(str(data / "needfire.sqlite"))
    try:
        for verb in (("rotate",), ("reset", "--yes")):
            refused = admin("seal", *verb)
            assert refused.status == 8
            assert "in use by another process" in refused.err
        assert admin("seal", "check").status == 0
    finally:
        store.close()


def test_a_key_is_given_up_only_where_it_is_lost(
    data: Path, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin("register", "web1")
    admin("register", "web2")
    refused = admin("seal", "reset", "--yes")
    assert refused.status == 8
    assert "nothing is lost" in refused.err
    (data / "seal.key").unlink()
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert admin("seal", "reset").status == 2, "it asks first"
    assert not (data / "seal.key").exists()
    done = admin("seal", "reset", "--yes")
    assert done.out.splitlines() == ["web1", "web2"]
    assert "web1" in admin("clients", "list").out
    assert admin("register", "web1").status == 0
    assert admin("seal", "check").status == 0
    codes = [json.loads(line)["code"] for line in admin("events", "--json").out.splitlines()]
    assert codes.count("SEAL_KEY_LOST") == 1


def test_one_row_that_somebody_has_changed_is_no_matter_of_the_others(
    data: Path, admin: Admin
) -> None:
    admin("register", "web1")
    admin("register", "web2")
    with closing(sqlite3.connect(data / "needfire.sqlite")) as store, store:
        store.execute("UPDATE clients SET name = 'web3' WHERE name = 'web1'")
    assert admin("seal", "rotate", "--json").data["verifiers"] == 1
    assert "web3" in admin("clients", "list").out
