"""Secrets are planted, real processes are led through failures, and everything they left is searched."""

import asyncio
import base64
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from needfire_protocol.connection_events import Established
from needfire_protocol.keys import SessionKeys
from needfire_protocol.srp import make_verifier
from needfire_testkit.live_server import Peer, event_body
from needfire_testkit.postgres import PostgresServer, postgres_or_skip, running_postgres
from needfire_testkit.processes import AgentHome, ServerHome, wait_until

pytestmark = pytest.mark.timeout(180)

MakeAgent = Callable[..., AgentHome]

STORE_PASSWORD = "planted-store-password-5f2c"
HOOK_KEY = "planted-key-of-a-web-hook-0a91e7"
HOOK_TOKEN = "planted-token-in-an-address-77b3"
WRONG_PASSWORD = "planted-wrong-password-c04d"
LISTED_PASSWORD = "planted-password-of-a-line-61aa"
NAME = "localhost"


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with running_postgres(postgres_or_skip()) as server:
        yield server


def forms_of(secret: bytes) -> dict[str, bytes]:
    """How a secret may look in a text that somebody did not think about."""
    return {
        "as it is": secret,
        "hexadecimal": secret.hex().encode(),
        "base 64": base64.b64encode(secret).rstrip(b"="),
        "base 64 for addresses": base64.urlsafe_b64encode(secret).rstrip(b"="),
        "Python's": repr(secret).encode()[2:-1],
        "first half": secret.hex()[: len(secret)].encode(),
    }


def process_image(pid: int) -> bytes:
    """What everybody on the host, or its user, can see of a process. A core it will not leave."""
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    (core,) = (line.split()[-3:-1] for line in limits if line.startswith("Max core file size"))
    assert core in (["0", "0"], ["1", "1"])
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


def dumped(url: str) -> tuple[bytes, bytes]:
    """Return all that the database has, and the salt of the client."""
    with psycopg.connect(url, password=STORE_PASSWORD) as database:
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        names = [name for (name,) in database.execute(tables.encode()).fetchall()]
        rows = [
            row
            for name in names
            for row in database.execute(f"SELECT t::text FROM {name} t".encode())
        ]
        (salt,) = database.execute("SELECT salt FROM clients").fetchone() or (b"",)
        return "\n".join(row for (row,) in rows).encode(), salt


async def a_session(server: ServerHome, password: str) -> SessionKeys:
    """Log in and report as an agent does, and tell the keys, which an agent would not."""
    peer = Peer(*await asyncio.open_connection("127.0.0.1", server.port))
    (outcome,) = await peer.negotiate(NAME, password)
    assert isinstance(outcome, Established), outcome
    await peer.announce()
    await peer.send(peer.batch(1, event_body(), b"\xc1 this is no event"))
    await peer.next_message()
    forged = peer.report(9, event_body())
    peer.agent.send(type(peer.batch(9))(peer.stream, (forged,)))
    await peer.flush()
    keys = peer.keys
    await peer.close()
    return keys


def test_no_secret_is_in_any_log_event_argument_or_environment(
    server_home: ServerHome, make_agent: MakeAgent, postgres: PostgresServer, tmp_path: Path
) -> None:
    store_password, hook_key = tmp_path / "store-password", tmp_path / "hook-key"
    for path, content in ((store_password, STORE_PASSWORD), (hook_key, HOOK_KEY)):
        path.touch(0o600)
        path.write_text(f"{content}\n")
    listed = make_verifier(LISTED_PASSWORD, os.urandom)
    url = postgres.database_of_scram_user(STORE_PASSWORD)
    server_home.write_rc(
        misc=f"StoreURL={url}\nStorePasswordFile={store_password}\n",
        clients=listed.to_line("listed"),
    )
    with server_home.rc.open("a") as file:
        file.write(
            "[Outputs]\nOpenOutput = hook\n"
            f"OutputTarget = webhook http://127.0.0.1:1/{HOOK_TOKEN}\nOutputKeyFile = {hook_key}\n"
        )
    images: list[bytes] = []
    said: list[str] = []

    # A server that works, agents that log in, and one that does not.
    server_home.start()
    agent = make_agent(configured=False)
    password = (agent.state / "password").read_text().strip()
    rc = agent.directory / "rc"
    rc.write_text(agent.rc_text())
    server_home.admin("config", "put", NAME, str(rc))
    said.append(agent.run("init", "--upload").stdout)
    server_home.admin("baseline", "put", NAME, "--proposal", "1")
    keys = asyncio.run(a_session(server_home, password))
    agent.set_password(WRONG_PASSWORD)
    said.append(agent.run("check").stdout)
    agent.set_password(password)
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    images += [process_image(each.process.pid) for each in (server_home.running, daemon)]

    # What fails: the database, the server, the configuration, the rights of a file.
    postgres.kill()
    (agent.tree / "new").write_text("x")
    server_home.running.wait_for("Storage failed")
    whole = server_home.rc.read_text()
    server_home.rc.write_text(whole.replace("@", "@@"))
    server_home.running.send_signal(signal.SIGHUP)
    server_home.running.wait_for("Configuration not reloaded")
    server_home.rc.write_text(whole)
    postgres.start()
    server_home.running.kill()
    daemon.wait_for("refused")
    store_password.write_text(f"{WRONG_PASSWORD}\n")
    with pytest.raises(AssertionError) as refused:
        server_home.start()
    assert "in vain" not in str(refused.value), "it says what is wrong, and ends"
    said.append(str(refused.value))
    store_password.write_text(f"{STORE_PASSWORD}\n")
    server_home.start()
    server_home.running.send_signal(signal.SIGHUP)
    server_home.running.wait_for("Runtime configuration reloaded")
    wait_until(lambda: "hook" in server_home.admin("output", "list").stdout, "the output")
    verbs = (("output", "list"), ("clients", "list"), ("status",))
    said += [server_home.admin(*arguments).stdout for arguments in verbs]
    said += [str(each) for each in server_home.events()]
    assert daemon.stop() == 0
    assert server_home.running.stop() == 0
    in_store, salt = dumped(url)

    secrets = {
        "the client's password": password.encode(),
        "a wrong password": WRONG_PASSWORD.encode(),
        "the password of the store": STORE_PASSWORD.encode(),
        "the key of an output": HOOK_KEY.encode(),
        "the token in an output's address": HOOK_TOKEN.encode(),
        "the key for resuming": keys.resumption_key,
        "the key for signing": keys.signing_key,
        "the key of seals": (server_home.data / "seal.key").read_bytes(),
        "a verifier of the configuration": listed.verifier,
        "the client's verifier": make_verifier(password, lambda _: salt).verifier,
    }
    kept = {server_home.data / "seal.key", agent.state / "password", store_password, hook_key}
    kept |= {server_home.rc}
    places = {
        str(path): path.read_bytes()
        for top in (server_home.directory, agent.directory)
        for path in top.rglob("*")
        if path.is_file() and path not in kept
    }
    places["the store"] = in_store
    places["what was said"] = "\n".join(said).encode()
    places["arguments and environments"] = b"\0".join(images)
    assert any(b"Session key mismatch" in content for content in places.values())
    assert any(b"Storage failed" in content for content in places.values())
    found = [
        (what, form, place)
        for what, secret in secrets.items()
        for form, written in forms_of(secret).items()
        for place, content in places.items()
        if written in content
    ]
    assert not found
