"""What a proposal would change is told before it is put in place: every object, before and now."""

import asyncio
import hashlib
import json
import stat
import threading
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from needfire_protocol.baseline import FileEntry, encode_entries
from needfire_protocol.event import FieldValue
from needfire_server.admin import proposal_verbs
from needfire_server.admin.requests import Arguments, Request
from needfire_server.admin.service import AdminHooks, AdminService
from needfire_server.audit.log import AuditLog
from needfire_server.datafiles import DataFiles
from needfire_server.entry_text import attributes_of, differing
from needfire_server.registry import Registry
from needfire_server.storage.store import DatabaseStore
from needfire_server.stored_files import StoredFiles
from needfire_testkit.admin_server import AdminServer, Ended, run_admin
from needfire_testkit.baselines import FILE, write_baseline
from needfire_testkit.server import until
from needfire_testkit.server_store import NOW_US

Rows = Mapping[bytes, Sequence[tuple[bytes, FileEntry]]]

OLD: Rows = {b"\0etc": [(b"gone", FILE), (b"hosts", FILE), (b"passwd", FILE)]}
SETUID = FILE._replace(mode=stat.S_IFREG | 0o4755, digest=b"\7" * 32)
NEW: Rows = {
    b"\0etc": [
        (b"hosts", FILE._replace(size=7, digest=b"\2" * 32)),
        (b"new\nD ", SETUID),
        (b"passwd", FILE._replace(atime_ns=9)),
    ]
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[AdminServer]:
    (tmp_path / "data").mkdir(mode=0o700)
    async with AdminServer.running(tmp_path / "data") as running:
        yield running


def packed(directory: Path, rows: Rows) -> bytes:
    path = directory / "made"
    path.unlink(missing_ok=True)
    write_baseline(
        path,
        rows={key: encode_entries(list(entries)) for key, entries in rows.items()},
        format=3,
        entries=sum(map(len, rows.values())),
    )
    return path.read_bytes()


async def propose(store: Any, files: DataFiles, data: bytes) -> str:
    """Do what the server does when a client offers a baseline."""
    file = files.new_proposal("web1")
    file.write(data)
    path = file.keep()
    digest = hashlib.sha256(data).digest()
    return str(await store.add_proposal("web1", path, len(data), digest, NOW_US))


async def proposed(server: AdminServer, directory: Path) -> str:
    """Put the old one in place and propose the new one."""
    (server.directory / "file.web1").write_bytes(packed(directory, OLD))
    files = DataFiles(str(server.directory))
    return await propose(server.store, files, packed(directory, NEW))


async def diff(directory: Path, number: str, *options: str) -> Ended:
    return await run_admin(
        *("baseline", "diff", "web1", "--proposal", number, *options), directory=directory
    )


def lines(ended: Ended) -> list[dict[str, Any]]:
    assert ended.status == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


async def test_a_pipe_gets_every_change_and_the_numbers_that_putting_tells(
    server: AdminServer, tmp_path: Path
) -> None:
    number = await proposed(server, tmp_path)
    ended = await diff(server.directory, number)
    gone, hosts, new, last = lines(ended)
    assert (gone["change"], gone["path"]) == ("removed", "/etc/gone")
    assert gone["attributes"]["size"] == [6, None]
    assert (hosts["change"], hosts["path"]) == ("modified", "/etc/hosts")
    assert hosts["attributes"] == {
        "size": [6, 7],
        "chksum": [f"sha256:{'01' * 32}", f"sha256:{'02' * 32}"],
    }
    assert (new["change"], new["path"]) == ("added", "/etc/new\\x0aD ")
    assert new["attributes"]["mode"] == [None, "-rwsr-xr-x"]
    summary = last["summary"]
    assert summary["not_shown"] == 0
    assert "objects: 1 added, 1 removed, 1 modified" in ended.err
    put = await run_admin(
        *("baseline", "put", "web1", "--proposal", number), directory=server.directory
    )
    assert "objects: 1 added, 1 removed, 1 modified" in put.err
    told = server.raised[-1].fields
    for name in ("added", "removed", "modified", "hash", "hash_old"):
        assert summary[name] == told[name]


async def test_a_table_shows_what_matters_in_one_row_an_object(
    server: AdminServer, tmp_path: Path
) -> None:
    number = await proposed(server, tmp_path)
    ended = await diff(server.directory, number, "--table")
    head, gone, hosts, new = ended.out.splitlines()
    assert head.split() == ["CHANGE", "PATH", "BEFORE", "->", "NOW"]
    assert gone.startswith("removed   /etc/gone ")
    assert hosts.endswith("size: 6 -> 7, chksum: sha256:010101010101… -> sha256:020202020202…")
    assert "/etc/new\\x0aD " in new
    assert "mode: -rwsr-xr-x, iowner: 0, igroup: 0, size: 6, chksum: sha256:070707070707…" in new


@pytest.mark.parametrize(("limit", "shown"), [(0, 0), (2, 2), (3, 3), (4, 3)])
async def test_a_limit_hides_and_still_counts(
    server: AdminServer, tmp_path: Path, limit: int, shown: int
) -> None:
    number = await proposed(server, tmp_path)
    ended = await diff(server.directory, number, "--limit", str(limit))
    *changes, last = lines(ended)
    assert len(changes) == shown
    assert last["summary"]["not_shown"] == 3 - shown
    assert [last["summary"][each] for each in ("added", "removed", "modified")] == [1, 1, 1]
    assert ("more are not shown" in ended.err) == (shown < 3)


async def test_it_is_on_the_audit_record_and_works_without_a_server(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    async with AdminServer.running(directory) as server:
        number = await proposed(server, tmp_path)
        online = lines(await diff(directory, number))
    assert lines(await diff(directory, number)) == online
    shown = await run_admin("audit", "show", "--json", directory=directory)
    records = [json.loads(line) for line in shown.out.splitlines()]
    verbs = [each["fields"].get("verb") for each in records if each["code"] == "ADMIN_REQUEST"]
    assert verbs.count("baseline-diff") == 2


async def test_without_a_baseline_in_place_all_is_added(
    server: AdminServer, tmp_path: Path
) -> None:
    number = await propose(server.store, DataFiles(str(server.directory)), packed(tmp_path, NEW))
    ended = await diff(server.directory, number)
    *changes, last = lines(ended)
    assert {each["change"] for each in changes} == {"added"}
    assert (last["summary"]["hash_old"], last["summary"]["added"]) == (None, 3)
    assert "there was none before" in ended.err


async def test_a_client_without_its_own_is_compared_with_the_one_of_all_others(
    server: AdminServer, tmp_path: Path
) -> None:
    number = await proposed(server, tmp_path)
    (server.directory / "file.web1").rename(server.directory / "file")
    ended = await diff(server.directory, number)
    assert lines(ended)[-1]["summary"]["path_old"].endswith("/file")
    assert "has none of its own" in ended.err


async def test_what_cannot_be_compared_is_refused_with_the_reason(
    server: AdminServer, tmp_path: Path
) -> None:
    number = await proposed(server, tmp_path)
    other = await run_admin(
        *("baseline", "diff", "web2", "--proposal", number), directory=server.directory
    )
    assert (other.status, "came from web1" in other.err) == (9, True)
    (server.directory / "file.web1").write_bytes(b"no baseline")
    damaged = await diff(server.directory, number)
    assert (damaged.status, "not compared: the file is not a baseline" in damaged.err) == (9, True)
    [proposal] = await server.store.proposals()
    Path(proposal.path).write_bytes(b"another")
    swapped = await diff(server.directory, number)
    assert (swapped.status, "its digest has changed" in swapped.err) == (8, True)


def nobody_listens(_code: str, /, **_fields: FieldValue) -> None:
    """Take an event of the server's own."""


async def test_files_in_a_shared_store_are_compared_the_same_way(
    store: DatabaseStore, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    files = StoredFiles(str(tmp_path / "data"), store)
    hooks = AdminHooks(
        on_command_queued=lambda _client: None,
        on_client_removed=lambda _client: None,
        record_event=nobody_listens,
        kept_of=lambda event: (event, None),
        connections=lambda: pytest.fail("nobody asked"),
        states=dict,
    )
    audit = await AuditLog.open(store.audit, str(tmp_path / "data"))
    service = AdminService(store, Registry((), []), files, hooks, audit)
    number = int(await propose(store, files, packed(tmp_path, NEW)))
    arguments = Arguments({"name": "web1", "proposal": number})
    reply = await service.handle(Request("baseline-diff", arguments), user="root")
    assert reply.pages is not None
    found = [each async for page in reply.pages for each in page]
    assert [each.get("change") for each in found] == ["added", "added", "added", None]


async def test_many_changes_come_in_order_and_one_who_goes_away_stops_it(
    server: AdminServer, tmp_path: Path
) -> None:
    names = [b"%05d" % number for number in range(1_001)]
    data = packed(tmp_path, {b"\0etc": [(name, FILE) for name in names]})
    number = int(await propose(server.store, DataFiles(str(server.directory)), data))
    request = Request("baseline-diff", Arguments({"name": "web1", "proposal": number}))
    reply = await server.service.handle(request, user="root")
    assert reply.pages is not None
    paths = [each.get("path") async for page in reply.pages for each in page]
    assert paths[:-1] == [f"/etc/{name.decode()}" for name in names]
    again = await server.service.handle(request, user="root")
    assert again.pages is not None
    first, *_ = await anext(again.pages)
    assert first["path"] == "/etc/00000"
    await again.pages.aclose()


_small = st.integers(0, 2)
XATTRS = st.dictionaries(
    st.sampled_from([b"user.a", b"user.b"]), st.sampled_from([b"", b"1", b"\xff"])
)
ENTRIES = st.builds(
    lambda mode, numbers, optional, link, digest, xattrs: FileEntry._make(
        (
            *(mode, *numbers, link, digest),
            *(optional[0] or 0, ["", "\n", "\\x0a"][optional[1] or 0]),
            *(*optional[2:5], optional[5] or 0),
            tuple((name, numbers[0], value) for name, value in sorted(xattrs.items())),
        )
    ),
    st.sampled_from([0, 0o100644, 0o104755, 0o100755, 0o40755, 0o120777, 0o20600]),
    st.lists(_small, min_size=10, max_size=10),
    st.lists(st.none() | _small, min_size=6, max_size=6),
    st.none() | st.sampled_from([b"a", b"\n"]),
    st.none() | st.sampled_from([b"\1", b"\2"]),
    XATTRS,
)


@settings(max_examples=200, deadline=None)
@given(old=ENTRIES, new=ENTRIES)
def test_what_differs_in_more_than_its_last_access_differs_in_an_attribute(
    old: FileEntry, new: FileEntry
) -> None:
    found = differing(attributes_of(old, "sha256"), attributes_of(new, "sha256"))
    assert bool(found) == (old._replace(atime_ns=0) != new._replace(atime_ns=0))
    shown = [str(each) for name, pair in found.items() for each in (name, *pair)]
    assert all(each.isprintable() for each in shown)


def test_times_beyond_the_calendar_and_large_values_are_shown_as_well() -> None:
    odd = FILE._replace(
        mtime_ns=2**63, xattrs=((b"user.\xff", 300, b"\1" * 32), (b"user.q", 1, b'"'))
    )
    found = attributes_of(odd, "sha256")
    assert found["mtime"] == "2262-04-11T23:47:16.854775808"
    assert attributes_of(FILE._replace(mtime_ns=2**64 * 16), "sha256")["mtime"] != found["mtime"]
    assert found["xattr user.\\xff"] == f"sha256:{'01' * 32} (300)"
    assert found["xattr user.q"] == '"""'


async def test_baselines_are_compared_one_at_a_time_also_where_who_asked_has_gone() -> None:
    """Who asks and goes away, again and again, must not keep all processors from the agents."""
    turn, may_end = asyncio.Semaphore(1), threading.Event()
    begun: list[str] = []

    def differences(name: str) -> Generator[Mapping[str, Any], None, None]:
        begun.append(name)
        may_end.wait()
        yield {"path": name}

    streams = [proposal_verbs._streamed(differences(name), turn) for name in ("/a", "/b")]
    gone, waits = [asyncio.ensure_future(anext(stream)) for stream in streams]
    try:
        await until(lambda: begun, "the first one")
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        for _ in range(100):
            await asyncio.sleep(0)
        assert begun == ["/a"], "its thread is still at work"
    finally:
        may_end.set()
    assert await waits == [{"path": "/b"}]
    assert [each async for each in streams[1]] == []
    assert not turn.locked()
