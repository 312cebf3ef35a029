"""needfire-admin as people and scripts meet it: real processes, a real socket, a real store."""

import asyncio
import hashlib
import json
import os
import pty
import re
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import pytest

from needfire_protocol.audit.record import Moment, encode_record, parse_record
from needfire_protocol.baseline import encode_entries
from needfire_protocol.escape import escape_bytes, unescape_bytes
from needfire_protocol.event import format_time
from needfire_protocol.exit_status import MEANINGS
from needfire_protocol.srp import Verifier
from needfire_server.admin.cli import cli
from needfire_server.audit.drafts import draft_of_event
from needfire_server.change_text import lines_of
from needfire_server.clock import now_us
from needfire_server.datafiles import DataFiles
from needfire_server.states import ClientState, ClientStatus
from needfire_testkit.admin_server import AdminServer, run_admin, start_admin
from needfire_testkit.baselines import FILE, write_baseline
from needfire_testkit.open_directory import open_directory
from needfire_testkit.server_store import NOW_US, STREAM, event, incoming, verifier

RC = b"[ReadOnly]\ndir=/etc\n[Misc]\nSetFilecheckTime=600\n"
BAD_RC = b"[ReadOnly]\ndir=/etc\n[Misc]\nSetFilecheckTim=600\n"
PASSWORD = "a password that is long enough"


@dataclass(frozen=True)
class Line:
    name: str
    verifier: Verifier
    line: int


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir(mode=0o700)
    return tmp_path / "data"


@pytest.fixture
async def server(directory: Path) -> AsyncIterator[AdminServer]:
    async with AdminServer.running(directory) as running:
        yield running


async def registered(server: AdminServer, *names: str) -> None:
    for name in names:
        await server.store.register(name, verifier(), now_us=NOW_US, user="root")
        record = await server.store.client_record(name)
        assert record is not None
        server.registry.put(record)


async def on_terminal(*arguments: str, directory: Path) -> bytes:
    """Run needfire-admin on a terminal; return what it shows there."""
    leader, follower = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from needfire_server.admin.cli import main; main()",
        *("--data-dir", str(directory), *arguments),
        stdout=follower,
        stderr=follower,
        stdin=follower,
    )
    await process.wait()
    os.close(follower)
    shown = os.read(leader, 65_536)
    os.close(leader)
    return shown


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


# ---- files ---------------------------------------------------------------------------------------


async def test_a_configuration_is_put_and_got_back(server: AdminServer, tmp_path: Path) -> None:
    await registered(server, "web1")
    (tmp_path / "my rc").write_bytes(RC)
    ended = await run_admin("config", "put", "Web1", tmp_path / "my rc", directory=server.directory)
    assert (ended.status, ended.out) == (0, "")
    path = server.directory / "rc.web1"
    assert path.read_bytes() == RC
    assert str(path) in ended.err
    assert server.codes() == ["CONFIGURATION_PUT"]
    assert (server.last()["client"], server.last()["path"]) == ("web1", str(path))
    got = await run_admin("config", "get", "web1", directory=server.directory)
    assert (got.out.encode(), got.err) == (RC, "")


async def test_what_a_configuration_changes_is_told_and_recorded(
    server: AdminServer, tmp_path: Path
) -> None:
    new = RC.replace(b"600", b"300") + b"[Database]\nSetDBPassword=hunter2\n"
    puts = [
        await run_admin("config", "put", "web1", "-", directory=server.directory, stdin=data)
        for data in (RC, new)
    ]
    assert "there was none before" in puts[0].err
    assert "lines: 3 added, 1 removed" in puts[1].err
    first, last = (each.fields for each in server.raised)
    assert (first["hash_old"], first["added"], first["removed"]) == (None, 4, 0)
    assert last["hash_old"] == first["hash"] == f"sha256:{hashlib.sha256(RC).hexdigest()}"
    assert last["hash"] == f"sha256:{hashlib.sha256(new).hexdigest()}"
    assert (last["added"], last["removed"], last["diff_left_out"]) == (3, 1, 0)
    assert unescape_bytes(str(last["diff"])).split(b"\n") == [
        b"@@ -1,4 +1,6 @@",
        b" [ReadOnly]",
        b" dir=/etc",
        b" [Misc]",
        b"-SetFilecheckTime=600",
        b"+SetFilecheckTime=300",
        b"+[Database]",
        b"+SetDBPassword=***",
    ]
    # One record is one line, and has the same text.
    shown = await run_admin(
        "events", "--lines", "--code", "CONFIGURATION_PUT", directory=server.directory
    )
    assert len(shown.out.splitlines()) == 2
    assert str(last["diff"]) in shown.out
    assert "hunter2" not in shown.out
    draft = draft_of_event(server.raised[-1])
    assert draft is not None
    record = parse_record(encode_record(0, bytes(32), Moment(1, 1), draft))
    assert record.draft.fields["diff"] == last["diff"]
    assert record.draft.fields["hash_old"] == first["hash"]


async def test_a_first_configuration_of_its_own_is_compared_with_that_of_all(
    server: AdminServer,
) -> None:
    await run_admin("config", "put", "--default", "-", directory=server.directory, stdin=RC)
    mine = ("config", "put", "web1", "-")
    ended = await run_admin(*mine, directory=server.directory, stdin=RC + b"# mine\n")
    assert "web1 had none of its own: compared with the one of all others" in ended.err
    assert server.last()["path_old"] == str(server.directory / "rc")
    assert (server.last()["added"], server.last()["removed"]) == (1, 0)
    again = await run_admin(*mine, directory=server.directory, stdin=RC)
    assert "none of its own" not in again.err


async def test_a_configuration_that_cannot_be_read_is_replaced_and_that_is_told(
    server: AdminServer,
) -> None:
    (server.directory / "rc.web1").mkdir()
    (server.directory / "rc.web1").rename(server.directory / "rc.web2")
    os.symlink("/etc/hostname", server.directory / "rc.web1")
    put = await run_admin("config", "put", "web1", "-", directory=server.directory, stdin=RC)
    assert put.status == 0
    assert (server.directory / "rc.web1").read_bytes() == RC
    assert "symbolic link" in str(server.last()["not_compared"])
    assert "not compared" in put.err


async def test_what_a_baseline_changes_is_told(server: AdminServer, tmp_path: Path) -> None:
    write_baseline(tmp_path / "one")
    changed = [(b"hosts", FILE._replace(size=7)), (b"new\nD ", FILE)]
    rows = {b"": encode_entries([(b"/", FILE)]), b"\0etc": encode_entries(changed)}
    write_baseline(tmp_path / "two", rows=rows, format=3, entries=3)
    puts = [
        await run_admin("baseline", "put", "web1", tmp_path / name, directory=server.directory)
        for name in ("one", "two")
    ]
    assert "objects: 1 added, 2 removed, 2 modified" in puts[1].err
    first, last = (each.fields for each in server.raised)
    assert (first["hash_old"], first["added"]) == (None, 4)
    assert last["hash_old"] == first["hash"]
    assert (last["added"], last["removed"], last["modified"]) == (1, 2, 2)
    named = lines_of(str(last["diff"]))
    assert "A /etc/new\\x0aD " in named
    assert named.count("D /etc/passwd") == 1
    assert [line[:1] for line in named].count("D") == 2


async def test_a_damaged_baseline_is_replaced_and_that_is_told(
    server: AdminServer, tmp_path: Path
) -> None:
    (server.directory / "file.web1").write_bytes(b"no baseline")
    write_baseline(tmp_path / "b")
    put = await run_admin("baseline", "put", "web1", tmp_path / "b", directory=server.directory)
    assert put.status == 0
    assert "is not a baseline" in str(server.last()["not_compared"])
    assert str(server.last()["hash_old"]).startswith("sha256:")
    assert "added" not in server.last()


async def test_what_is_put_without_a_server_is_told_the_same_way(
    directory: Path, tmp_path: Path
) -> None:
    for data in (RC, RC + b"# more\n"):
        put = await run_admin("config", "put", "web1", "-", directory=directory, stdin=data)
        assert put.status == 0
    for _ in range(2):
        write_baseline(tmp_path / "b")
        put = await run_admin("baseline", "put", "web1", tmp_path / "b", directory=directory)
        assert put.status == 0
        (tmp_path / "b").unlink()
    found = await run_admin("events", "--class", "provisioning", "--json", directory=directory)
    told = [json.loads(line) for line in found.out.splitlines()]
    counts = [(each["code"], each["fields"]["added"], each["fields"]["removed"]) for each in told]
    assert counts == [
        ("CONFIGURATION_PUT", 4, 0),
        ("CONFIGURATION_PUT", 1, 0),
        ("BASELINE_PUT", 4, 0),
        ("BASELINE_PUT", 0, 0),
    ]
    assert told[1]["fields"]["diff"].endswith(r"\x0a+# more")
    records = await run_admin("audit", "show", "--json", directory=directory)
    assert records.out.count(r"\\x0a+# more") == 1


async def test_the_catch_all_is_put_from_standard_input(server: AdminServer) -> None:
    await registered(server, "web1")
    put = await run_admin("config", "put", "--default", "-", directory=server.directory, stdin=RC)
    assert put.status == 0
    assert (server.directory / "rc").read_bytes() == RC
    assert server.last()["client"] is None
    got = await run_admin("config", "get", "web1", directory=server.directory)
    assert got.out.encode() == RC
    assert "none of its own" in got.err


async def test_a_configuration_with_errors_is_not_put(server: AdminServer, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(BAD_RC)
    ended = await run_admin("config", "put", "web1", tmp_path / "bad", directory=server.directory)
    assert (ended.status, ended.out) == (3, "")
    assert f"{tmp_path / 'bad'}:4: " in ended.err
    assert "SetFilecheckTime" in ended.err
    assert not (server.directory / "rc.web1").exists()
    assert server.codes() == []


async def test_an_error_for_one_of_its_hosts_stops_a_catch_all(server: AdminServer) -> None:
    await registered(server, "web1", "web2")
    text = b"[Misc]\n@web2\nSetFilecheckTim=1\n@end\n[ReadOnly]\ndir=/etc\n"
    ended = await run_admin(
        "config", "put", "--default", "-", directory=server.directory, stdin=text
    )
    assert ended.status == 3
    assert "standard input:3: " in ended.err


async def test_a_file_for_a_name_that_is_not_registered_is_put_with_a_warning(
    server: AdminServer,
) -> None:
    ended = await run_admin("config", "put", "web9", "-", directory=server.directory, stdin=RC)
    assert ended.status == 0
    assert "web9 is not registered" in ended.err


async def test_a_configuration_without_rules_is_put_with_a_warning(server: AdminServer) -> None:
    ended = await run_admin("config", "put", "web9", "-", directory=server.directory, stdin=b"")
    assert ended.status == 0
    assert "warning: no rule in it says what to watch" in ended.err


async def test_a_baseline_of_another_host_is_put_with_a_warning(
    server: AdminServer, tmp_path: Path
) -> None:
    write_baseline(tmp_path / "b")
    for name, is_other in (("web1", False), ("web1.example.org", False), ("web3", True)):
        ended = await run_admin("baseline", "put", name, tmp_path / "b", directory=server.directory)
        assert ended.status == 0
        assert ("was made on web1.example.org, not on web3" in ended.err) is is_other


async def test_what_cannot_be_read_is_named(server: AdminServer, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    ended = await run_admin("config", "put", "web1", missing, directory=server.directory)
    assert ended.status == 8
    assert f"{missing}: No such file or directory" in ended.err
    ended = await run_admin("config", "get", "web1", directory=server.directory)
    assert ended.status == 9
    assert f"File not accessible: {server.directory}/rc.web1" in ended.err


async def test_a_baseline_is_put_listed_shown_and_got_back(
    server: AdminServer, tmp_path: Path
) -> None:
    await registered(server, "web1")
    write_baseline(tmp_path / "b")
    ended = await run_admin("baseline", "put", "web1", tmp_path / "b", directory=server.directory)
    assert ended.status == 0
    assert "4 objects of web1.example.org" in ended.err
    assert server.codes() == ["BASELINE_PUT"]
    listed = await run_admin("baseline", "list", "--json", directory=server.directory)
    [row] = [json.loads(line) for line in listed.out.splitlines()]
    assert (row["kind"], row["client"], row["entries"]) == ("baseline", "web1", 4)
    table = await run_admin("baseline", "list", directory=server.directory)
    assert re.search(r"^web1 +4 +\d+ +2026-\S+ +web1.example.org +-$", table.out, re.MULTILINE)
    shown = await run_admin("baseline", "show", "web1", directory=server.directory)
    assert re.search(r"^entries: +4$", shown.out, re.MULTILINE)
    got = await run_admin(
        "baseline", "get", "web1", "--output", tmp_path / "c", directory=server.directory
    )
    assert got.status == 0
    assert (tmp_path / "c").read_bytes() == (tmp_path / "b").read_bytes()


async def test_what_is_no_baseline_is_not_put(server: AdminServer, tmp_path: Path) -> None:
    write_baseline(tmp_path / "forged", content_sha256="0" * 64)
    (tmp_path / "text").write_bytes(b"hello")
    for name in ("forged", "text"):
        ended = await run_admin(
            "baseline", "put", "--default", tmp_path / name, directory=server.directory
        )
        assert ended.status == 9
        assert "baseline" in ended.err
    assert not (server.directory / "file").exists()
    assert server.codes() == []


def swap(path: str, other: Path) -> None:
    """Change a file behind the server's back."""
    with open(path, "wb") as file:
        file.write(other.read_bytes())


async def propose(server: AdminServer, client: str, tmp_path: Path) -> int:
    """Do what the server does when a client offers a baseline."""
    write_baseline(tmp_path / f"offered-{client}")
    data = (tmp_path / f"offered-{client}").read_bytes()
    file = DataFiles(str(server.directory)).new_proposal(client)
    file.write(data)
    path = file.keep()
    digest = hashlib.sha256(data).digest()
    return await server.store.add_proposal(client, path, len(data), digest, NOW_US)


async def test_a_proposal_is_looked_at_and_put_in_place(
    server: AdminServer, tmp_path: Path
) -> None:
    await registered(server, "web1", "web2")
    number = str(await propose(server, "web1", tmp_path))
    listed = await run_admin("baseline", "list", directory=server.directory)
    assert re.search(rf"^{number} +web1 ", listed.out, re.MULTILINE)
    shown = await run_admin("baseline", "show", "--proposal", number, directory=server.directory)
    assert re.search(r"^client: +web1$", shown.out, re.MULTILINE)
    other = await run_admin(
        "baseline", "put", "web2", "--proposal", number, directory=server.directory
    )
    assert other.status == 9
    assert "came from web1" in other.err
    put = await run_admin(
        "baseline", "put", "web1", "--proposal", number, directory=server.directory
    )
    assert put.status == 0
    assert (server.directory / "file.web1").read_bytes() == (tmp_path / "offered-web1").read_bytes()
    assert list((server.directory / "proposals").iterdir()) == []
    again = await run_admin(
        "baseline", "put", "web1", "--proposal", number, directory=server.directory
    )
    assert again.status == 9


async def test_a_proposal_that_changed_on_the_disk_is_not_put(
    server: AdminServer, tmp_path: Path
) -> None:
    number = str(await propose(server, "web1", tmp_path))
    [proposal] = await server.store.proposals()
    write_baseline(tmp_path / "other", host="evil")
    swap(proposal.path, tmp_path / "other")
    put = await run_admin(
        "baseline", "put", "web1", "--proposal", number, directory=server.directory
    )
    assert put.status == 8
    assert "damaged" in put.err
    assert not (server.directory / "file.web1").exists()


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


async def test_events_of_what_is_not_known_warn(server: AdminServer) -> None:
    await registered(server, "web1")
    given = ("events", "--code", "NO_SUCH", "--client")
    ended = await run_admin(*given, "web9", directory=server.directory)
    assert (ended.status, ended.out) == (0, "")
    assert "no event has the code NO_SUCH" in ended.err
    assert "the client web9 is not registered" in ended.err
    known = ("events", "--code", "session_key_mismatch", "--client", "web1")
    assert (await run_admin(*known, directory=server.directory)).err == ""


# ---- events --------------------------------------------------------------------------------------


async def test_events_are_shown_as_lines_and_as_json(server: AdminServer) -> None:
    await server.store.ingest(
        "web1", STREAM, [incoming(1, event(path="/tmp/\\x1b[2J"))], received_us=NOW_US + 5
    )
    await server.store.record(event("SERVER_UP", time_us=NOW_US + 9))
    lines = await run_admin("events", "--lines", directory=server.directory)
    first_line = lines.out.splitlines()[0]
    assert first_line.startswith("CRIT   :  [2026-11-18T11:06:40+0000] msg=<POLICY MISSING>")
    assert "client=<web1>" in first_line
    assert "path=</tmp/\\x1b[2J>" in first_line
    assert "\x1b" not in lines.out
    as_json = await run_admin("events", directory=server.directory)
    first, second = map(json.loads, as_json.out.splitlines())
    assert (first["cursor"], second["cursor"]) == (1, 2)
    assert first["client"] == "web1"
    assert first["received"] == format_time(NOW_US + 5)
    assert second["code"] == "SERVER_UP"


async def test_events_are_chosen_by_every_option(server: AdminServer) -> None:
    reports = [
        incoming(1, event("POLICY_MISSING", time_us=NOW_US)),
        incoming(2, event("CHECK_COMPLETED", time_us=NOW_US + 1_000_000)),
    ]
    await server.store.ingest("web1", STREAM, reports, received_us=NOW_US + 2_000_000)
    await server.store.record(event("SERVER_UP", time_us=NOW_US + 3_000_000))

    async def codes(*options: str) -> list[str]:
        ended = await run_admin("events", "--json", *options, directory=server.directory)
        assert ended.status == 0, ended.err
        return [json.loads(line)["code"] for line in ended.out.splitlines()]

    expected = {
        ("--client", "WEB1"): ["POLICY_MISSING", "CHECK_COMPLETED"],
        ("--code", "server_up"): ["SERVER_UP"],
        ("--class", "system"): ["SERVER_UP"],
        ("--severity", "crit"): ["POLICY_MISSING"],
        ("--limit", "2"): ["CHECK_COMPLETED", "SERVER_UP"],
        ("--limit", "0"): [],
        ("--until", format_time(NOW_US + 500_000)): ["POLICY_MISSING"],
        ("--since", format_time(NOW_US + 2_500_000)): ["SERVER_UP"],
        ("--since", "9999d", "--client", "web2"): [],
    }
    found = await asyncio.gather(*(codes(*options) for options in expected))
    assert dict(zip(expected, found, strict=True)) == expected


async def test_more_events_than_a_page_come_all_and_in_order(server: AdminServer) -> None:
    batch = [incoming(number) for number in range(1, 501)]
    await server.store.ingest("web1", STREAM, batch, received_us=NOW_US)
    ended = await run_admin("events", "--json", "--limit", "420", directory=server.directory)
    paths = [json.loads(line)["fields"]["path"] for line in ended.out.splitlines()]
    assert paths == [f"/{number}" for number in range(81, 501)]


async def test_following_gives_each_event_at_once_and_none_twice(server: AdminServer) -> None:
    """Goal: an event is there less than half a second after its commit, by notice, not by polling."""
    await server.store.record(event("SERVER_UP"))
    process = await start_admin(
        "events", "--follow", "--limit", "1", "--json", directory=server.directory
    )
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline())["code"] == "SERVER_UP"
    assert process.stderr is not None
    assert b"following new events" in await process.stderr.readline()
    loop = asyncio.get_running_loop()
    for sequence in range(1, 6):
        await server.store.ingest("web1", STREAM, [incoming(sequence)], received_us=NOW_US)
        started = loop.time()
        server.service.notify_new_events()
        async with asyncio.timeout(10):
            line = json.loads(await process.stdout.readline())
        assert line["fields"]["path"] == f"/{sequence}"
        assert loop.time() - started < 0.5
    process.terminate()
    await process.wait()
    process._transport.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("what", [("events",), ("audit", "show")])
async def test_following_ends_when_its_time_is_over(
    server: AdminServer, what: tuple[str, ...]
) -> None:
    await server.store.record(event("SERVER_UP"))
    began_us = now_us()
    for until_us in (began_us - 1_000_000, began_us + 2_000_000):
        async with asyncio.timeout(60):
            ended = await run_admin(
                *(*what, "--follow", "--json", "--until", format_time(until_us)),
                directory=server.directory,
            )
        assert ended.status == 0, ended.err
        assert now_us() >= until_us
        assert ended.out or until_us < began_us


async def test_following_needs_a_server(directory: Path) -> None:
    ended = await run_admin("events", "--follow", directory=directory)
    assert ended.status == 4
    assert "no server listens" in ended.err


async def test_pages_join_while_more_comes(server: AdminServer) -> None:
    batch = [incoming(number) for number in range(1, 26)]
    await server.store.ingest("web1", STREAM, batch, received_us=NOW_US)
    await server.store.ingest("web2", STREAM, batch, received_us=NOW_US)

    async def page(*options: str) -> list[dict[str, Any]]:
        given = ("events", "--client", "web1", "--limit", "10", *options)
        ended = await run_admin(*given, directory=server.directory)
        assert ended.status == 0, ended.err
        return [json.loads(line) for line in ended.out.splitlines()]

    newest = await page()
    await server.store.ingest("web1", STREAM, [incoming(26)], received_us=NOW_US)
    older = await page("--before", str(newest[0]["cursor"]))
    oldest = await page("--before", str(older[0]["cursor"]))
    paths = [each["fields"]["path"] for each in oldest + older + newest]
    assert paths == [f"/{number}" for number in range(1, 26)]
    forwards = await page("--after", str(older[-1]["cursor"]))
    assert forwards == newest
    assert await page("--after", str(newest[-1]["cursor"])) == await page("--limit", "1")


async def test_a_path_of_any_bytes_is_found_as_events_show_it(server: AdminServer) -> None:
    name = b"/srv/\x1b[2J\xff\n\\x41\xc3\xa9"
    shown = escape_bytes(name)
    paths = [shown, f"{shown}/below", "/srv/\\x1b", "/srvx", "/srv"]
    batch = [incoming(at, event(path=path)) for at, path in enumerate(paths, 1)]
    await server.store.ingest("web1", STREAM, batch, received_us=NOW_US)

    async def found(*options: str) -> list[str]:
        ended = await run_admin("events", *options, directory=server.directory)
        assert ended.status == 0, ended.err
        return [json.loads(line)["fields"]["path"] for line in ended.out.splitlines()]

    assert await found("--path", shown) == [shown]
    # The bytes themselves are understood as well, but for a backslash, which is doubled.
    assert await found("--path", os.fsdecode(name.replace(b"\\", b"\\\\"))) == [shown]
    assert await found("--below", f"{shown}/") == [shown, f"{shown}/below"]
    assert await found("--below", "/srv") == [*paths[:3], "/srv"]
    assert await found("--below", "/") == paths


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--path", "etc"), "begins with /"),
        (("--below", "/etc/\\q"), "backslash"),
        (("--follow", "--before", "3"), "no end"),
        (("--table", "--lines"), "give one of"),
        (("--after", "-1"), "not in the range"),
        (("--after", "7", "--before", "7"), "--before is not behind --after"),
        (("--since", "1h", "--until", "2h"), "--since is not before --until"),
        (("--since", "2026-11-18", "--until", "2026-11-18"), "--since is not before --until"),
    ],
)
async def test_what_cannot_be_asked_for_is_named(
    directory: Path, options: tuple[str, ...], expected: str
) -> None:
    ended = await run_admin("events", *options, directory=directory)
    assert ended.status == 2
    assert expected in ended.err


async def test_one_request_is_followed_through_events_and_records(
    server: AdminServer, tmp_path: Path
) -> None:
    await registered(server, "web1", "web2")
    (tmp_path / "rc").write_bytes(RC)
    for name in ("web1", "web2"):
        put = await run_admin("config", "put", name, tmp_path / "rc", directory=server.directory)
        assert put.status == 0, put.err
    [request, _] = [str(each.fields["request"]) for each in server.raised]
    events = await run_admin("events", "--request", request, directory=server.directory)
    [told] = map(json.loads, events.out.splitlines())
    assert (told["code"], told["client"], told["fields"]["client"]) == (
        "CONFIGURATION_PUT",
        None,
        "web1",
    )
    records = await run_admin("audit", "show", "--request", request, directory=server.directory)
    asked = [json.loads(line) for line in records.out.splitlines()]
    assert [each["code"] for each in asked] == ["ADMIN_REQUEST", "CONFIGURATION_PUT"]
    # A report that claims to be part of it is not.
    said = incoming(1, event(request=request))
    await server.store.ingest("web1", STREAM, [said], received_us=NOW_US)
    again = await run_admin("events", "--request", request, directory=server.directory)
    assert again.out == events.out


async def test_detail_shows_every_field_with_what_was_and_what_is(server: AdminServer) -> None:
    said = event(
        "POLICY_MODIFIED",
        path="/etc/\\x1b[2J",
        size_old=6,
        size_new=14,
        mode_new="-rw-r--r--",
        diff="-old\\x0a+\\\\x1b[2J\\\\x0a+ \\x1b[2J",
    )
    await server.store.ingest("web1", STREAM, [incoming(1, said)], received_us=NOW_US)
    ended = await run_admin("events", "--detail", directory=server.directory)
    [block, rest] = ended.out.split("\n\n")
    assert rest == ""
    rule, heading, again, *lines = block.splitlines()
    assert set(rule) == set(again) == {"="}
    assert heading == f"{format_time(said.time_us)}  {said.msg}"
    assert lines[-2:] == ["  -old", "  +\\x1b[2J\\x0a+ \\x1b[2J"]
    values = dict(re.split(r":\s+", line.strip(), maxsplit=1) for line in lines[:-2])
    assert values["Type"] == "integrity.policy_modified"
    assert values["Description"] == said.msg
    assert values["id"] == said.id
    assert values["size"] == "6 -> 14"
    assert values["mode_new"] == "-rw-r--r--"
    assert values["path"] == "/etc/\\x1b[2J"
    assert values["explain"] == "needfire-admin explain POLICY_MODIFIED"
    as_json = await run_admin("events", "--detail", "--json", directory=server.directory)
    assert json.loads(as_json.out)["explain"] == values["explain"]


async def test_a_terminal_gets_a_table_that_no_name_can_break(server: AdminServer) -> None:
    """Goal: neither the report of a hostile agent nor a store that somebody wrote into steers it."""
    hostile = "/\x1b[2J\x9b1m\r\n\u202e\u2028\x7f"
    said = replace(event(path="/x"), fields={"path": hostile})
    await server.store.ingest("web1", STREAM, [incoming(1, said)], received_us=NOW_US)
    out = (await on_terminal("events", directory=server.directory)).decode()
    heading, row, *_ = out.split("\r\n")
    assert heading.split() == ["TIME", "SEVERITY", "CLIENT", "CODE", "WHAT"]
    assert row.split()[:4] == ["2026-11-18T11:06:40Z", "crit", "web1", "POLICY_MISSING"]
    assert escape_bytes(hostile.encode()) in row
    assert "\x1b" not in out
    assert "\x9b" not in out
    for form in ("--detail", "--json", "--lines", "--table"):
        lines = (await run_admin("events", form, directory=server.directory)).out.split("\n")
        assert all(line.isprintable() for line in lines)


async def test_a_table_shows_whom_the_servers_own_events_are_about(server: AdminServer) -> None:
    """And nobody else can put words into another one's mouth, or under its name."""
    gone = replace(event(path="/x"), code="STOPPED_WITHOUT_GOODBYE", fields={"client": "web1"})
    await server.store.record(gone)
    await server.store.ingest("evil", STREAM, [incoming(1, gone)], received_us=NOW_US)
    out = (await run_admin("events", "--table", directory=server.directory)).out
    assert [line.split()[2] for line in out.splitlines()[1:]] == ["(web1)", "evil"]
    await registered(server, "web1")
    found = await run_admin("events", "--table", "--client", "web1", directory=server.directory)
    assert [line.split()[2] for line in found.out.splitlines()[1:]] == ["(web1)"]


async def test_a_long_code_moves_no_other_line(server: AdminServer) -> None:
    codes = ("START", "MANAGED_CONFIGURATION_LOCAL_CHANGE_ROLLBACK_LAUNCHED", "EXIT")
    for code in codes:
        await server.store.record(replace(event(path="/x"), code=code, msg="said", fields={}))
    out = (await run_admin("events", "--table", directory=server.directory)).out
    heading, *rows = out.splitlines()
    assert [row.index("said") == heading.index("WHAT") for row in rows] == [True, False, True]
    assert {row.index(code) for row, code in zip(rows, codes, strict=True)} == {
        heading.index("CODE")
    }


async def test_a_reader_that_has_enough_is_no_error(server: AdminServer) -> None:
    batch = [incoming(number) for number in range(1, 400)]
    await server.store.ingest("web1", STREAM, batch, received_us=NOW_US)
    process = await start_admin("events", "--limit", "400", directory=server.directory)
    assert process.stdout is not None
    await process.stdout.readline()
    process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


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
