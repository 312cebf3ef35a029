"""Two server processes on one PostgreSQL: one is killed, and nothing is lost; what one does, both do."""

import asyncio
import json
import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from needfire_client.address import ServerAddress
from needfire_protocol.srp import make_verifier
from needfire_server.seal_key import read_seal_key
from needfire_server.storage.postgresql import PostgresStore
from needfire_server.verifier_seal import VerifierSeal
from needfire_testkit.baselines import write_baseline
from needfire_testkit.postgres import PostgresServer, postgres_or_skip, running_postgres
from needfire_testkit.processes import ServerHome, stopping, wait_until
from needfire_testkit.reporting_agents import ReportingAgent, reporting_agents

# PostgreSQL and two servers have to start for each test.
pytestmark = pytest.mark.timeout(180)

PASSWORD = "correct horse battery staple"
AGENTS = int(os.environ.get("NEEDFIRE_AGENTS", "8"))
ROUNDS = int(os.environ.get("NEEDFIRE_ROUNDS", "30"))
PER_ROUND = 25


@dataclass
class Pair:
    """Two servers that share a database and the key that seals verifiers and sessions."""

    first: ServerHome
    second: ServerHome
    postgres: PostgresServer
    url: str

    @property
    def homes(self) -> tuple[ServerHome, ServerHome]:
        return self.first, self.second

    @property
    def addresses(self) -> list[ServerAddress]:
        return [ServerAddress("127.0.0.1", home.port) for home in self.homes]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(sql.encode()).fetchall()

    def audited(self, code: str) -> list[dict[str, Any]]:
        """Return the fields of the records of one kind."""
        records = [
            json.loads(record) for (record,) in self.rows("SELECT record FROM audit_records")
        ]
        return [record["fields"] for record in records if record["code"] == code]

    async def register(self, directory: Path, names: list[str]) -> None:
        """Register clients as a third server would."""
        verifier = make_verifier(PASSWORD, os.urandom)
        store = await asyncio.to_thread(PostgresStore.open, self.url, str(directory))
        store.use_verifier_seal(VerifierSeal(read_seal_key(str(self.first.data / "seal.key"))))
        for name in names:
            await store.register(name, verifier, now_us=1, user="test")
        store.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with running_postgres(postgres_or_skip()) as postgres:
        url = postgres.new_database()
        misc = f"StoreURL={url}\nAuditCheckpointInterval=1h\n"
        homes = [ServerHome(tmp_path / name, misc) for name in ("first", "second")]
        with stopping(*homes):
            homes[0].start()
            shutil.copy(homes[0].data / "seal.key", homes[1].data / "seal.key")
            shutil.copytree(homes[0].data / "audit", homes[1].data / "audit")
            homes[1].start()
            yield Pair(homes[0], homes[1], postgres, url)


def names_of(count: int) -> list[str]:
    return [f"127.0.{1 + number // 200}.{1 + number % 200}" for number in range(count)]


async def until(condition: Any, what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what, 120)


async def report(agents: list[ReportingAgent], rounds: int) -> None:
    """Report from all agents, round by round, as fast as their spools take it."""
    for _ in range(rounds):
        for agent in agents:
            await asyncio.to_thread(agent.report, PER_ROUND)
        for agent in agents:
            agent.uplink.reports_waiting()


async def test_when_a_server_is_killed_under_load_its_agents_go_on_at_the_other(
    pair: Pair, tmp_path: Path
) -> None:
    """Goal: resumed sessions, no report lost, none stored twice; and all of it once more back."""
    names = names_of(AGENTS)
    await pair.register(tmp_path / "third", names)
    async with reporting_agents(tmp_path / "agents", names, PASSWORD, pair.addresses) as agents:
        await until(lambda: all(agent.uplink.session for agent in agents), "all sessions")
        for home in (pair.first, pair.second):
            await report(agents, ROUNDS)
            await asyncio.to_thread(home.running.kill)
            await report(agents, ROUNDS)
            await until(lambda: not any(agent.spool.waiting for agent in agents), "empty spools")
            if home is pair.first:
                await asyncio.to_thread(home.start)
        negotiated = sum(agent.count("SESSION_KEY_NEGOTIATED") for agent in agents)
        resumed = sum(agent.count("SESSION_RESUMED") for agent in agents)
    stored = Counter(pair.rows("SELECT client, id FROM events WHERE client IS NOT NULL"))
    written = {(agent.name, number) for agent in agents for number in agent.written}
    assert written == stored.keys(), "lost, or never written"
    assert set(stored.values()) == {1}, "stored twice"
    assert pair.rows("SELECT count(*) FROM stream_gaps") == [(0,)]
    assert negotiated == len(agents), "a password was needed at the start only"
    assert resumed >= 2 * len(agents)
    codes = {code for (code,) in pair.rows("SELECT DISTINCT code FROM events")}
    assert not codes & {"RESTART_WITHOUT_EXIT", "SIGNATURE_MISMATCH", "CLONE_DETECTED"}
    print(f"{len(stored)} reports, {negotiated} negotiated, {resumed} resumed")  # noqa: T201


async def test_both_servers_write_and_sign_one_audit_log_and_agents_believe_either_of_them(
    pair: Pair, tmp_path: Path
) -> None:
    """Signed on request only: so each server is behind whenever agents come from the other one."""
    names = names_of(AGENTS)
    await pair.register(tmp_path / "third", names)
    half, addresses = AGENTS // 2, pair.addresses
    async with (
        reporting_agents(tmp_path / "a", names[:half], PASSWORD, addresses) as ours,
        reporting_agents(tmp_path / "b", names[half:], PASSWORD, addresses[::-1]) as theirs,
    ):
        agents = [*ours, *theirs]
        # After the first one was killed, all are at the second one.
        for signer, other, seers in (
            (pair.first, pair.second, ours),
            (pair.second, pair.first, agents),
        ):
            await report(agents, 2)
            signed = await asyncio.to_thread(sign, signer, tmp_path / "audit.log")
            await show(seers, signed)
            exporting = asyncio.create_task(asyncio.to_thread(sign, other, tmp_path / "other.log"))
            await report(agents, 4)
            await asyncio.to_thread(signer.running.kill)
            await report(agents, 2)
            await until(lambda: not any(agent.spool.waiting for agent in agents), "empty spools")
            await exporting
            signed = await asyncio.to_thread(sign, other, tmp_path / "audit.log")
            await show(agents, signed)
            await asyncio.to_thread(signer.start)
        assert [agent.count("AUDIT_LOG_INCONSISTENT") for agent in agents] == [0] * AGENTS
        seen = [str(agent.directory / "audit-checkpoint") for agent in agents]
    for home, checkpoint in zip(pair.homes, seen, strict=False):
        verified = home.admin("audit", "verify", "--store", "--checkpoint", checkpoint)
        assert verified.stdout.startswith("intact: ")
        assert "Audit log" not in home.running.output()
    batches = pair.audited("REPORTS_RECEIVED")
    written = sum(len(agent.written) for agent in agents)
    assert sum(batch["accepted"] for batch in batches) == written


def sign(home: ServerHome, path: Path) -> int:
    """Let a server sign its log now, and return how many records that covers."""
    home.admin("audit", "export", str(path))
    return int(json.loads(path.read_text().splitlines()[0])["checkpoint"].splitlines()[1])


async def show(agents: list[ReportingAgent], records: int) -> None:
    """Let each agent report something: with its acknowledgement the latest checkpoint comes."""
    for agent in agents:
        await asyncio.to_thread(agent.report, 1)
        agent.uplink.reports_waiting()
    await until(
        lambda: all(agent.records_seen() >= records for agent in agents),
        f"{records} records in the checkpoints at the agents",
    )


async def test_a_command_reaches_an_agent_at_the_other_server(pair: Pair, tmp_path: Path) -> None:
    names = names_of(1)
    await pair.register(tmp_path / "third", names)
    second = pair.addresses[1:]
    async with reporting_agents(tmp_path / "agents", names, PASSWORD, second) as [agent]:
        await until(lambda: agent.uplink.session, "the session")
        await until(lambda: pair.rows("SELECT 1 FROM connections"), "what the second one tells")
        shown = await asyncio.to_thread(pair.first.admin, "status", "--json")
        server = json.loads(shown.stdout)["server"]
        assert server == f"{socket.gethostname()}:{pair.second.port}"
        await asyncio.to_thread(pair.first.admin, "send", names[0], "scan")
        line = await asyncio.to_thread(pair.second.running.wait_for, "Command acknowledged: scan")
        assert names[0] in line
    events = [code for (code,) in pair.rows("SELECT code FROM events WHERE code LIKE 'COMMAND%'")]
    assert sorted(events) == ["COMMAND_ACKNOWLEDGED", "COMMAND_QUEUED"]
    [(request,)] = pair.rows("SELECT request FROM commands")
    for verb in (("events", "--json"), ("audit", "show", "--json")):
        shown = await asyncio.to_thread(pair.second.admin, *verb, "--request", request)
        codes = [json.loads(each)["code"] for each in shown.stdout.splitlines()]
        assert sorted(set(codes) - {"ADMIN_REQUEST"}) == sorted(events)


async def test_who_is_registered_and_removed_at_one_server_is_so_at_the_other(
    pair: Pair, tmp_path: Path
) -> None:
    [name] = names_of(1)
    password = await asyncio.to_thread(pair.first.register, name)
    second = pair.addresses[1:]
    async with reporting_agents(tmp_path / "agents", [name], password, second) as [agent]:
        await until(lambda: agent.uplink.session, "the session")
        shown = await asyncio.to_thread(pair.first.admin, "status", "--json")
        assert [json.loads(line)["name"] for line in shown.stdout.splitlines()] == [name]
        await asyncio.to_thread(pair.first.admin, "clients", "remove", name)
        await until(lambda: not agent.uplink.session, "its end")
        await asyncio.to_thread(pair.second.running.wait_for, "Not in client list")
        assert not agent.uplink.session


def test_files_are_put_in_place_at_one_server_for_both_and_come_out_whole(
    pair: Pair, tmp_path: Path
) -> None:
    rc, baseline, source = tmp_path / "some.rc", tmp_path / "some.baseline", tmp_path / "source"
    rc.write_text("[ReadOnly]\ndir=/etc\n")
    write_baseline(baseline)
    pair.first.admin("config", "put", "--default", str(rc))
    assert pair.second.admin("config", "get", "--default").stdout == rc.read_text()
    # What the second server replaces is what was put in place at the first one.
    rc.write_text("[ReadOnly]\ndir=/etc\nfile=/opt/a\n")
    pair.second.admin("config", "put", "--default", str(rc))
    first, last = (each["fields"] for each in pair.first.events("--code", "CONFIGURATION_PUT"))
    assert last["hash_old"] == first["hash"]
    assert (last["added"], last["removed"]) == (1, 0)
    assert last["diff"].endswith(r"\x0a+file=/opt/a")
    source.mkdir()
    (source / "rc.web1").write_text("[ReadOnly]\ndir=/usr\n")
    (source / "rc.web2").write_text("[NoSuchSection\n")
    shutil.copy(baseline, source / "file.web1")
    refused = pair.second.admin("files", "import", str(source), status=9)
    assert "rc.web2" in refused.stderr
    assert "2 files put in place" in refused.stderr
    pair.first.admin("files", "export", str(tmp_path / "out"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        "rc": rc.read_bytes(),
        "rc.web1": (source / "rc.web1").read_bytes(),
        "file.web1": baseline.read_bytes(),
    }
    listed = pair.first.admin("files", "list", "--json").stdout.splitlines()
    assert [json.loads(line)["path"] for line in listed] == [
        "store:rc",
        "store:rc.web1",
        "store:file.web1",
    ]
    assert not (pair.first.data / "rc").exists()
    # Without a server the admin tool finds the same files.
    assert pair.second.running.stop() == 0
    assert pair.second.admin("config", "get", "web1").stdout == "[ReadOnly]\ndir=/usr\n"


def test_a_server_that_joins_a_database_brings_its_files_along_only_if_there_are_none(
    tmp_path: Path,
) -> None:
    with running_postgres(postgres_or_skip()) as postgres:
        url = postgres.new_database()
        homes = [ServerHome(tmp_path / name, f"StoreURL={url}") for name in ("first", "second")]
        for home in homes:
            (home.data / "rc").write_text(f"[ReadOnly]\ndir=/{home.directory.name}\n")
        with stopping(*homes):
            homes[0].start().wait_for("taken over into the store")
            shutil.copy(homes[0].data / "seal.key", homes[1].data / "seal.key")
            homes[1].start()
            for home in homes:
                assert "dir=/first" in home.admin("config", "get", "--default").stdout
            assert len(homes[0].events("--code", "FILES_TAKEN_OVER")) == 1


async def test_when_the_key_is_exchanged_a_server_with_the_old_one_ends_and_none_of_its_agents_is_lost(
    pair: Pair, tmp_path: Path
) -> None:
    names = names_of(2)
    await pair.register(tmp_path / "third", names)
    first, second = pair.homes
    async with reporting_agents(tmp_path / "agents", names, PASSWORD, pair.addresses) as agents:
        await until(lambda: all(agent.uplink.session for agent in agents), "all sessions")
        await asyncio.to_thread(first.running.stop)
        await until(lambda: all(agent.uplink.session for agent in agents), "the other server")
        await asyncio.to_thread(first.admin, "seal", "rotate")
        status = await asyncio.to_thread(second.running.exit_status)
        assert status == 8
        assert "the store is sealed with another key now" in second.running.output()
        with pytest.raises(AssertionError, match=r"seal\.key is the key"):
            await asyncio.to_thread(second.start)
        (second.data / "seal.key").unlink()
        with pytest.raises(AssertionError, match="from another server on this store"):
            await asyncio.to_thread(second.start)
        shutil.copy(first.data / "seal.key", second.data / "seal.key")
        for agent in agents:
            await asyncio.to_thread(agent.report, PER_ROUND)
        await asyncio.to_thread(second.start)
        await until(lambda: not any(agent.spool.waiting for agent in agents), "empty spools")
        assert sum(agent.count("SESSION_KEY_NEGOTIATED") for agent in agents) == len(agents)
