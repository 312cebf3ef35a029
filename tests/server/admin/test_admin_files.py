"""needfire-admin puts, shows and gets back the files of clients, and says what changes with them."""

import hashlib
import json
import os
import re
from pathlib import Path

from needfire_protocol.audit.record import Moment, encode_record, parse_record
from needfire_protocol.baseline import encode_entries
from needfire_protocol.escape import unescape_bytes
from needfire_server.audit.drafts import draft_of_event
from needfire_server.change_text import lines_of
from needfire_server.datafiles import DataFiles
from needfire_testkit.admin_server import RC, AdminServer, registered, run_admin
from needfire_testkit.baselines import FILE, write_baseline
from needfire_testkit.server_store import NOW_US

BAD_RC = b"[ReadOnly]\ndir=/etc\n[Misc]\nSetFilecheckTim=600\n"


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
