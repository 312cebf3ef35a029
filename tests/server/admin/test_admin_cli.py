"""needfire-admin as people and scripts meet it: real processes, a real socket, a real store."""

import asyncio
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from needfire_protocol.event import format_time
from needfire_protocol.exit_status import MEANINGS
from needfire_protocol.srp import Verifier
from needfire_server.admin.cli import cli
from needfire_server.states import ClientState, ClientStatus
from needfire_testkit.admin_server import RC, AdminServer, on_terminal, registered, run_admin
from needfire_testkit.baselines import write_baseline
from needfire_testkit.open_directory import open_directory
from needfire_testkit.server_store import NOW_US, event, verifier

PASSWORD = "a password that is long enough"


@dataclass(frozen=True)
class Line:
    name: str
    verifier: Verifier
    line: int


# ---- the program ---------------------------------------------------------------------------------


async def test_help_names_every_verb_and_exit_status() -> None:
    ended = await run_admin("--help")
    assert ended.status == 0
    for verb in [
        "gen-password",
        "verifier",
        "register",
        "clients",
        "config",
        "baseline",
        "status",
        "events",
        "send",
    ]:
        assert f"\n  {verb} " in ended.out
    for status, text in MEANINGS.items():
        assert re.search(rf"^ +{status.value}  {re.escape(text)}$", ended.out, re.MULTILINE)


async def test_version_is_told() -> None:
    ended = await run_admin("--version")
    assert (ended.status, ended.out.split()[0]) == (0, "needfire-admin,")


_WRONG_USAGE: tuple[tuple[str, ...], ...] = (
    ("no-such-verb",),
    ("register",),
    ("send", "web1"),
    ("send", "web1", "halt"),
    ("send", "--all", "web1", "stop"),
    ("config", "put", "web1"),
    ("config", "put", "--default", "web1", "file"),
    ("config", "get"),
    ("baseline", "put", "web1", "file", "--proposal", "1"),
    ("events", "--since", "yesterday"),
    ("events", "--limit", "-1"),
    ("events", "--class", "nothing"),
    ("register", "../web1"),
    ("events", "--client", ".."),
    ("explain", "no such thing at all"),
    ("verifier",),
)


async def test_wrong_usage_ends_with_2_and_one_message(directory: Path) -> None:
    ended = await asyncio.gather(
        *(run_admin(*arguments, directory=directory) for arguments in _WRONG_USAGE)
    )
    for arguments, each in zip(_WRONG_USAGE, ended, strict=True):
        assert (each.status, each.out) == (2, ""), arguments
        assert "rror" in each.err
        assert "Traceback" not in each.err


async def test_explain_works_without_any_server() -> None:
    ended = await run_admin("explain", "state", "3", directory=Path("/nonexistent"))
    assert ended.status == 0
    assert "SESSION_KEY_MISMATCH" in ended.out


async def test_explain_of_nothing_known_says_what_to_try() -> None:
    ended = await run_admin("explain", "xyzzy")
    assert ended.status == 2
    assert "paste the text between the quotes" in ended.err


async def test_explain_gives_its_data_as_json() -> None:
    ended = await run_admin("explain", "SESSION_KEY_MISMATCH", "--json")
    [entry] = [json.loads(line) for line in ended.out.splitlines()]
    assert (entry["code"], entry["state"], entry["severity"]) == ("SESSION_KEY_MISMATCH", 3, "crit")


async def test_what_changes_something_gives_its_data_as_json(
    server: AdminServer, tmp_path: Path
) -> None:
    async def data(*arguments: str) -> dict[str, object]:
        ended = await run_admin(*arguments, "--json", directory=server.directory)
        assert ended.status == 0, ended.err
        [found] = [json.loads(line) for line in ended.out.splitlines()]
        assert isinstance(found, dict)
        return found

    (tmp_path / "rc").write_bytes(RC)
    (tmp_path / "password").write_text(PASSWORD)
    assert len(str((await data("gen-password"))["password"])) == 43
    line = await data("verifier", "--password-file", str(tmp_path / "password"), "--name", "web1")
    assert str(line["line"]).startswith("Client=web1@")
    made = await data("register", "web1")
    assert (made["name"], made["replaced"], len(str(made["password"]))) == ("web1", False, 43)
    assert (await data("config", "put", "web1", str(tmp_path / "rc")))["rules"] == 1
    assert (await data("clients", "remove", "web1"))["name"] == "web1"


def test_every_verb_tells_its_version() -> None:
    def walk(command: click.Command) -> Iterator[click.Command]:
        yield command
        for below in command.commands.values() if isinstance(command, click.Group) else ():
            yield from walk(below)

    for command in walk(cli):
        assert [each.name for each in command.params].count("version") == 1, command.name


# ---- passwords -----------------------------------------------------------------------------------


async def test_a_generated_password_is_one_line_of_256_bits() -> None:
    first, second = await run_admin("gen-password"), await run_admin("gen-password")
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}\n", first.out)
    assert first.out != second.out


async def test_a_verifier_is_a_line_for_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    file.chmod(0o600)
    ended = await run_admin("verifier", "--password-file", file)
    assert (ended.status, ended.err) == (0, "")
    assert re.fullmatch(r"Client=HOSTNAME@[0-9a-f]{32}@[0-9a-f]{768}\n", ended.out)
    named = await run_admin("verifier", "--password-file", "-", "--name", "Web1", stdin=b"x" * 30)
    name, _ = Verifier.parse_line_value(named.out.removeprefix("Client="))
    assert name == "web1"
    assert PASSWORD not in ended.out + named.out


async def test_a_password_file_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("short\n")
    file.chmod(0o644)
    bad = (b"", b"\n", b"a\nb\n", b"x" * 2_000, b"\xff" * 30)
    weak, missing, *refused = await asyncio.gather(
        run_admin("verifier", "--password-file", file),
        run_admin("verifier", "--password-file", tmp_path / "missing"),
        *(run_admin("verifier", "--password-file", "-", stdin=content) for content in bad),
    )
    assert weak.status == 0
    assert "can be read by others" in weak.err
    assert "short: 5 characters" in weak.err
    assert missing.status == 8
    assert "No such file" in missing.err
    assert [(each.status, each.out) for each in refused] == [(2, "")] * len(bad)


# ---- registering ---------------------------------------------------------------------------------


async def test_registering_counts_at_once_and_shows_the_password_once(server: AdminServer) -> None:
    ended = await run_admin("register", "Web1.example.org", directory=server.directory)
    assert ended.status == 0
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}\n", ended.out)
    assert "needfire-agent set-password" in ended.err
    assert ended.out.strip() not in ended.err
    assert server.registry.lookup("web1.example.org") is not None
    assert server.codes() == ["CLIENT_REGISTERED"]
    assert server.last()["client"] == "web1.example.org"
    assert server.last()["user"] == "root"
    everything = b"".join(path.read_bytes() for path in server.directory.glob("needfire*"))
    assert ended.out.strip().encode() not in everything


async def test_registering_with_a_password_prints_none(server: AdminServer) -> None:
    ended = await run_admin(
        "register", "web1", "--password-file", "-", directory=server.directory, stdin=b"p" * 30
    )
    assert (ended.status, ended.out) == (0, "")
    assert server.dropped == []
    again = await run_admin(
        "register", "web1", "--password-file", "-", directory=server.directory, stdin=b"q" * 30
    )
    assert "new password" in again.err
    # Who knows the old password may hold a session key: it ends now.
    assert server.dropped == ["web1"]
    assert server.last()["replaced"] is True


async def test_registering_what_the_configuration_lists_warns_of_both(directory: Path) -> None:
    listed = (Line("web1", verifier("a"), 7),)
    async with AdminServer.running(directory, listed) as server:
        ended = await run_admin("register", "web1", directory=directory)
        assert "[Clients], line 7" in ended.err
        assert server.codes() == ["CLIENT_REGISTERED", "CLIENT_LISTED_TWICE"]
        assert server.registry.lookup("web1") != verifier("a")
        removed = await run_admin("clients", "remove", "web1", directory=directory)
        assert removed.status == 0
        assert "may still log in" in removed.err
        assert server.registry.lookup("web1") == verifier("a")
        refused = await run_admin("clients", "remove", "web1", directory=directory)
        assert refused.status == 9
        assert "line 7" in refused.err


async def test_clients_are_listed_shown_and_removed(server: AdminServer) -> None:
    await registered(server, "web1", "web2.example.org")
    listed = await run_admin("clients", "list", directory=server.directory)
    assert [line.split()[0] for line in listed.out.splitlines()] == [
        "CLIENT",
        "web1",
        "web2.example.org",
    ]
    as_json = await run_admin("clients", "list", "--json", directory=server.directory)
    assert [json.loads(line)["name"] for line in as_json.out.splitlines()] == [
        "web1",
        "web2.example.org",
    ]
    await server.store.queue_command("web1", "scan", "root", NOW_US)
    shown = await run_admin("clients", "show", "web1", directory=server.directory)
    assert re.search(r"^status: +Inactive$", shown.out, re.MULTILINE)
    assert re.search(r"^scan +1 +root", shown.out, re.MULTILINE)
    removed = await run_admin("clients", "remove", "WEB1", directory=server.directory)
    assert removed.status == 0
    assert server.dropped == ["web1"]
    assert server.registry.lookup("web1") is None
    assert server.codes() == ["CLIENT_REMOVED"]
    unknown = await run_admin("clients", "show", "web1", directory=server.directory)
    assert unknown.status == 9
    assert "not registered" in unknown.err
    assert "hint: needfire-admin clients list" in unknown.err


# ---- status and commands -------------------------------------------------------------------------


async def test_status_shows_the_latest_event_of_each_type(server: AdminServer) -> None:
    await registered(server, "web1", "web2")
    state = ClientState("web1", last_seen_us=NOW_US, address="192.0.2.1")
    state = state.with_status(ClientStatus.STARTED, NOW_US - 2_000_000)
    server.states["web1"] = state.with_status(ClientStatus.POLICY, NOW_US)
    server.connected["web1"] = "192.0.2.1:1234"
    ended = await run_admin("status", directory=server.directory)
    time = format_time(NOW_US)[:19] + "Z"
    lines = ended.out.splitlines()
    here = ["192.0.2.1:1234", "log1:49777"]
    assert lines[1].split() == ["web1", "POLICY", time, time, *here]
    assert lines[2].split() == ["Started", format_time(NOW_US - 2_000_000)[:19] + "Z"]
    assert lines[3].split() == ["web2", "Inactive", "-", "-", "-", "-"]
    one = await run_admin("status", "web1", "--json", directory=server.directory)
    data = json.loads(one.out)
    assert (data["status"], list(data["latest"])) == ("POLICY", ["POLICY", "Started"])


async def test_clients_behind_a_registered_relay_are_shown_with_it(server: AdminServer) -> None:
    await registered(server, "hall", "hall2")
    for name in ("hall/web1", "gone/web2"):
        server.states[name] = ClientState(name).with_status(ClientStatus.POLICY, NOW_US)
    ended = await run_admin("status", directory=server.directory)
    shown = [line.split()[0] for line in ended.out.splitlines()[1:]]
    assert shown == ["hall", "hall/web1", "hall2"]
    one = await run_admin("status", "HALL/web1", "--json", directory=server.directory)
    assert json.loads(one.out)["status"] == "POLICY"
    for name in ("gone/web2", "hall/web3", "hall/../web1"):
        refused = await run_admin("status", name, directory=server.directory)
        assert refused.status != 0
    for verb in (("send", "hall/web1", "scan"), ("register", "hall/web1")):
        refused = await run_admin(*verb, directory=server.directory)
        assert "is not a client name" in refused.err


async def test_a_command_is_queued_and_the_connected_client_woken(server: AdminServer) -> None:
    await registered(server, "web1", "web2")
    server.connected["web1"] = "192.0.2.1:1234"
    ended = await run_admin("send", "web1", "scan", directory=server.directory)
    assert ended.out.startswith("command 1 queued for web1, which is connected; it expires at 20")
    assert server.woken == ["web1"]
    everyone = await run_admin("send", "--all", "reload", "--json", directory=server.directory)
    assert [json.loads(line)["client"] for line in everyone.out.splitlines()] == ["web1", "web2"]
    assert server.codes() == ["COMMAND_QUEUED"] * 3
    assert server.last()["command"] == "reload"
    [scan, reload] = await server.store.pending_commands("web1")
    assert (scan.verb, scan.user, reload.verb) == ("scan", "root", "reload")
    unknown = await run_admin("send", "web9", "stop", directory=server.directory)
    assert unknown.status == 9


async def test_a_command_waits_a_day_or_as_long_as_it_is_told(server: AdminServer) -> None:
    await registered(server, "web1")
    for given in ([], ["--expires", "10m"]):
        await run_admin("send", "web1", "scan", *given, directory=server.directory)
    commands = await server.store.pending_commands("web1")
    waits_s = [(each.expires_us or 0) - each.queued_us for each in commands]
    assert waits_s == [86_400_000_000, 600_000_000]
    last_us = max(each.expires_us or 0 for each in commands)
    assert await server.store.pending_commands("web1", last_us) == []
    wrong = await run_admin("send", "web1", "scan", "--expires", "0s", directory=server.directory)
    assert (wrong.status, "is no duration" in wrong.err) == (2, True)


# ---- without a server ----------------------------------------------------------------------------


async def test_every_verb_works_on_the_store_when_no_server_runs(
    directory: Path, tmp_path: Path
) -> None:
    write_baseline(tmp_path / "b")
    (tmp_path / "rc").write_bytes(RC)
    for arguments in (
        ("register", "web1"),
        ("config", "put", "--default", tmp_path / "rc"),
        ("baseline", "put", "web1", tmp_path / "b"),
        ("send", "web1", "reload"),
        ("status",),
        ("clients", "list"),
        ("clients", "show", "web1"),
        ("config", "get", "web1"),
        ("baseline", "list"),
        ("baseline", "show", "web1"),
    ):
        ended = await run_admin(*arguments, directory=directory)
        assert ended.status == 0, ended.err
    ended = await run_admin("events", "--json", directory=directory)
    assert [json.loads(line)["code"] for line in ended.out.splitlines()] == [
        "CLIENT_REGISTERED",
        "CONFIGURATION_PUT",
        "BASELINE_PUT",
        "COMMAND_QUEUED",
    ]
    async with AdminServer.running(directory) as server:
        assert server.registry.lookup("web1") is not None
        [command] = await server.store.pending_commands("web1")
        assert command.verb == "reload"


async def test_a_store_that_is_in_use_without_a_socket_is_not_touched(directory: Path) -> None:
    async with AdminServer.running(directory) as server:
        server.socket_path.unlink()
        ended = await run_admin("status", directory=directory)
    assert ended.status == 8
    assert "in use by another process" in ended.err


async def test_an_explicit_socket_needs_a_server(directory: Path) -> None:
    ended = await run_admin("status", "--socket", directory / "control.sock")
    assert ended.status == 4
    async with AdminServer.running(directory) as server:
        ended = await run_admin("--socket", server.socket_path, "status")
        assert ended.status == 0


async def test_a_data_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    ended = await run_admin("status", directory=tmp_path / "missing")
    assert ended.status == 8
    assert "missing" in ended.err
    assert not (tmp_path / "missing").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
async def test_what_root_does_offline_belongs_to_the_servers_user() -> None:
    with open_directory() as parent:
        directory = parent / "data"
        directory.mkdir(mode=0o700)
        os.chown(directory, 65_534, 65_534)
        assert (await run_admin("register", "web1", directory=directory)).status == 0
        put = await run_admin("config", "put", "--default", "-", directory=directory, stdin=RC)
        assert put.status == 0, put.err
        with os.scandir(directory) as entries:
            assert {entry.stat().st_uid for entry in entries} == {65_534}


async def test_a_configuration_on_a_terminal_cannot_steer_it(directory: Path) -> None:
    (directory / "rc").write_bytes(b"# \x1b[2J\x9b ok\n\tx=1\n")
    shown = await on_terminal("config", "get", "--default", directory=directory)
    assert b"\x1b" not in shown
    assert b"\\x1b[2J\\x9b ok" in shown


# ---- alarms --------------------------------------------------------------------------------------


async def test_alarms_are_listed_until_they_are_cleared(server: AdminServer) -> None:
    for each in (
        event("STOPPED_WITHOUT_GOODBYE", client="web1"),
        event("CLONE_DETECTED", client="web1"),
        event("CLONE_DETECTED", client="web1"),
        event("OUTPUT_EVENTS_LOST", output="siem"),
        event("CLIENT_RETURNED", client="web1"),
    ):
        await server.store.record(each)
    listed = await run_admin("alarms", "list", directory=server.directory)
    assert re.search(r"^\S+ +\S+ +2 +crit +web1 +CLONE_DETECTED +- ", listed.out, re.MULTILINE)
    assert "siem" in listed.out
    assert "STOPPED_WITHOUT_GOODBYE" not in listed.out
    arguments = ("alarms", "clear", "clone_detected")
    wrong = await run_admin(*arguments, directory=server.directory)
    assert (wrong.status, server.codes()) == (9, [])
    assert "no alarm CLONE_DETECTED holds of the server itself" in wrong.err
    cleared = await run_admin(
        *arguments, "--client", "web1", "--note", "a rebuilt host", directory=server.directory
    )
    assert (cleared.status, server.codes()) == (0, ["ALARM_CLEARED"])
    assert (server.last()["alarm"], server.last()["count"]) == ("CLONE_DETECTED", 2)
    assert (server.last()["client"], server.last()["note"]) == ("web1", "a rebuilt host")
    rest = await run_admin("alarms", "list", "--json", directory=server.directory)
    assert [json.loads(line)["about"] for line in rest.out.splitlines()] == ["siem"]
    no_alarm = await run_admin("alarms", "clear", "START", directory=server.directory)
    assert "START is no alarm" in no_alarm.err
