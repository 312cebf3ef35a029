"""A server and the key of its verifiers: old stores go on, a wrong key is told, a new place is taken."""

import os
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from needfire_protocol.srp import make_verifier
from needfire_server.seal_key import CREDENTIAL
from needfire_server.verifier_seal import SEALED_BYTES
from needfire_testkit.processes import AgentHome, ServerHome

MakeAgent = Callable[..., AgentHome]


def stored(server: ServerHome) -> list[bytes]:
    with closing(sqlite3.connect(server.data / "needfire.sqlite")) as store:
        return [row[0] for row in store.execute("SELECT verifier FROM clients")]


def refused_start(server: ServerHome) -> str:
    with pytest.raises(AssertionError) as caught:
        server.start()
    assert server.running.exit_status() == 8
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


def log_in(agent: AgentHome) -> "subprocess.CompletedProcess[str]":
    return agent.run("init", "--output", str(agent.directory / "baseline"))


def test_a_store_of_before_sealing_is_sealed_at_the_start_and_needs_that_key_from_then_on(
    server_home: ServerHome, make_agent: MakeAgent
) -> None:
    server_home.start()
    agent = make_agent()
    assert server_home.running.stop() == 0
    password = "correct horse battery staple"
    verifier = make_verifier(password, os.urandom)
    with closing(sqlite3.connect(server_home.data / "needfire.sqlite")) as store, store:
        plain = (verifier.salt, verifier.verifier)
        store.execute("UPDATE clients SET salt = ?, verifier = ?", plain)
        store.execute("DELETE FROM seal")
    agent.set_password(password)
    server = server_home.start()
    server.wait_for("Verifiers sealed in the store: 1")
    assert log_in(agent).returncode == 0
    assert server.stop() == 0
    before = stored(server_home)
    assert [len(each) for each in before] == [SEALED_BYTES]
    left = [each.read_bytes() for each in server_home.data.iterdir() if each.is_file()]
    assert verifier.verifier[:32] not in b"".join(left)
    key = server_home.data / "seal.key"
    key.unlink()
    assert "there is no seal.key" in refused_start(server_home)
    assert not key.exists(), "a new one would only make it harder to see what is wrong"
    assert stored(server_home) == before


def test_the_key_moves_from_the_data_directory_to_the_service_manager(
    server_home: ServerHome,
    make_agent: MakeAgent,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server_home.start()
    agent = make_agent()
    server_home.register("web1")
    assert server_home.running.stop() == 0
    with closing(sqlite3.connect(server_home.data / "needfire.sqlite")) as store, store:
        store.execute("UPDATE clients SET name = 'web2' WHERE name = 'web1'")
    before = stored(server_home)
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / CREDENTIAL).write_bytes(os.urandom(32))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    server_home.start().wait_for("Seal key of the store changed")
    assert server_home.running.stop() == 0
    assert stored(server_home) != before
    (server_home.data / "seal.key").unlink()
    server = server_home.start()
    assert 'client="web2"' in server.wait_for("Registration cannot be used")
    assert log_in(agent).returncode == 0, "the others go on"
    assert not (server_home.data / "seal.key").exists()
