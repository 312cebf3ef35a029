"""needfire-admin finds, follows and shows events, to people and to scripts."""

import asyncio
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from needfire_protocol.escape import escape_bytes
from needfire_protocol.event import format_time
from needfire_server.clock import now_us
from needfire_testkit.admin_server import (
    RC,
    AdminServer,
    on_terminal,
    registered,
    run_admin,
    start_admin,
)
from needfire_testkit.server_store import NOW_US, STREAM, event, incoming


async def test_events_of_what_is_not_known_warn(server: AdminServer) -> None:
    await registered(server, "web1")
    given = ("events", "--code", "NO_SUCH", "--client")
    ended = await run_admin(*given, "web9", directory=server.directory)
    assert (ended.status, ended.out) == (0, "")
    assert "no event has the code NO_SUCH" in ended.err
    assert "the client web9 is not registered" in ended.err
    known = ("events", "--code", "session_key_mismatch", "--client", "web1")
    assert (await run_admin(*known, directory=server.directory)).err == ""


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
    assert heading == f"{format_time(said.time_us)} {said.msg}"
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
