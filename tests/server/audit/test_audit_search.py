"""Reading the audit log: filters, pages that join, following, and what is damaged."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from needfire_protocol.audit.record import Draft, Moment, encode_record
from needfire_protocol.errors import StorageError
from needfire_protocol.event import parse_time
from needfire_server import clock
from needfire_server.admin.offline import OfflineStore
from needfire_server.storage import audit_search, audit_statements, summaries, tables
from needfire_server.storage.audit_base import AuditQuery
from needfire_server.storage.audit_search import AUDIT_BLOCKS
from needfire_server.storage.audit_statements import records
from needfire_server.storage.audit_summary import record_summary, row_of_draft
from needfire_server.storage.engine import Transaction
from needfire_server.storage.store import DatabaseStore
from needfire_server.storage.summaries import Stretch, stretches
from needfire_server.storage.summary import Wanted
from needfire_server.summing import sum_up_all
from needfire_testkit.admin_server import AdminServer, run_admin, start_admin
from needfire_testkit.stores import StorePlace

S = 1_000_000
START_US = 1_795_000_000 * S
CODES = ("CLIENT_REGISTERED", "AUTHZ_FAIL", "ADMIN_REQUEST")

queries = st.builds(
    AuditQuery,
    since_us=st.none() | st.integers(0, 70).map(lambda each: START_US + each * S),
    until_us=st.none() | st.integers(0, 70).map(lambda each: START_US + each * S),
    codes=st.none() | st.frozensets(st.sampled_from(CODES), max_size=2),
    outcome=st.none() | st.sampled_from(["success", "failure"]),
    client=st.none() | st.sampled_from(["web1", "nobody"]),
    subject=st.none() | st.sampled_from(["ann", "bob"]),
    request=st.none() | st.sampled_from(["r1", "r2"]),
    path=st.none() | st.sampled_from(["/etc", "/etc/rc"]),
    below=st.none() | st.sampled_from(["", "/etc", "/et"]),
    after=st.none() | st.integers(0, 70),
    before=st.none() | st.integers(0, 70),
    limit=st.integers(1, 9),
    newest_first=st.booleans(),
)


@pytest.fixture
async def store(place: StorePlace, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DatabaseStore]:
    """60 records, a second apart: most are summed up by commits, some later, the last one not at all."""
    monkeypatch.setattr(audit_statements, "BLOCK_ROWS", 4)
    monkeypatch.setattr(audit_statements, "BLOCK_ROWS_MIN", 4)
    monkeypatch.setattr(summaries, "BLOCK_ROWS", 4)
    monkeypatch.setattr(summaries, "STRETCH_ROWS_MAX", 6)
    monkeypatch.setattr(summaries, "_PAGE", 3)
    monkeypatch.setattr(audit_search, "_LINES", 3)
    monkeypatch.setattr(audit_search, "_COST_MAX", 40)
    times = iter(range(START_US, START_US + 1_000 * S, S))
    monkeypatch.setattr(clock, "now_us", lambda: next(times))
    opened = place.open()
    chance = Random(4)
    for number in range(60):
        await opened.audit.append([_draft(chance)])
        if number == 50:
            # What was remembered for the next commit is forgotten.
            opened.close()
            opened = place.open()
    await sum_up_all(opened)
    yield opened
    opened.close()


def _draft(chance: Random) -> Draft:
    return Draft(
        chance.choice(CODES),
        is_success=chance.random() < 0.5,
        subject=chance.choice(("ann", "bob", "")),
        client=chance.choice(("web1", "web2", None)),
        request=chance.choice(("r1", None)),
        fields=chance.choice(({}, {"path": "/etc"}, {"path": "/etc/rc"}, {"path": "/etcetera"})),
    )


def everything(store: DatabaseStore) -> list[dict[str, Any]]:
    return [json.loads(line) for _, line in store.read_now(records, 0, 1_000)]


def _fits(record: dict[str, Any], query: AuditQuery) -> bool:
    path, time_us = record["fields"].get("path"), parse_time(record["time"])
    below = query.below
    return (
        all(
            getattr(query, name) in (None, record[name])
            for name in ("client", "subject", "request", "outcome")
        )
        and (query.codes is None or record["code"] in query.codes)
        and query.path in (None, path)
        and (below is None or (path or "x").startswith(f"{below}/") or path == below)
        and (query.since_us is None or time_us >= query.since_us)
        and (query.until_us is None or time_us < query.until_us)
        and (query.after is None or record["n"] > query.after)
        and (query.before is None or record["n"] < query.before)
    )


async def test_pages_are_the_whole_list_for_every_filter(store: DatabaseStore) -> None:
    log = everything(store)

    @settings(max_examples=40, deadline=None)
    @given(query=queries)
    def check(query: AuditQuery) -> None:
        expected = [record for record in log if _fits(record, query)]
        found: list[Any] = []
        while True:
            page = store.read_now(audit_search.search, query)
            assert len(page.records) <= query.limit
            found += [record for _, record in page.records]
            if page.reached is None:
                break
            query = query.behind(page.reached)
        assert found == (expected[::-1] if query.newest_first else expected)

    check()


async def test_records_without_a_subject_are_found_by_that(store: DatabaseStore) -> None:
    """No summary has the empty text, so none can say that it is not there."""
    page = store.read_now(audit_search.search, AuditQuery(subject="", limit=500, before=30))
    wanted = [each["n"] for each in everything(store)[:30] if each["subject"] == ""]
    assert [number for number, _ in page.records] == wanted != []


@pytest.fixture
async def summing(
    place: StorePlace, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DatabaseStore]:
    """A log of which every four records are summed up by the commit that completes them."""
    monkeypatch.setattr(audit_statements, "BLOCK_ROWS", 4)
    monkeypatch.setattr(audit_statements, "BLOCK_ROWS_MIN", 4)
    monkeypatch.setattr(summaries, "BLOCK_ROWS", 4)
    opened = place.open()
    yield opened
    opened.close()


def summed_up(store: DatabaseStore) -> list[tuple[int, int]]:
    """Return the first and last numbers of all summaries."""
    table = tables.audit_summaries
    wanted = sa.select(table.c.first, table.c.last).order_by(table.c.first)
    return [tuple(row) for row in store.read_now(lambda each: each.execute(wanted).all())]


async def test_commits_sum_up_the_records_that_they_and_those_before_append(
    summing: DatabaseStore,
) -> None:
    """The background would read each line again, with the store's only writer."""
    for _ in range(6):
        await summing.audit.append([Draft("EXIT")])
    assert summed_up(summing) == [(0, 3)]
    await sum_up_all(summing)
    assert summed_up(summing) == [(0, 3)], "the next commits will do the rest"
    await summing.audit.append([Draft("EXIT")] * 9)
    assert summed_up(summing) == [(0, 3), (4, 7), (8, 11), (12, 14)]
    await sum_up_all(summing)
    assert summed_up(summing) == [(0, 3), (4, 7), (8, 11), (12, 14)]


async def test_records_that_were_not_committed_are_in_no_summary(summing: DatabaseStore) -> None:
    await summing.audit.append([Draft("EXIT", client="before")])

    def fails(transaction: Transaction) -> None:
        transaction.drafts.extend([Draft("EXIT", client="never")] * 2)
        audit_statements.append(transaction)
        raise summing._engine.errors[0]("disk I/O error")

    with pytest.raises(StorageError):
        summing.write_now(fails)
    for _ in range(4):
        await summing.audit.append([Draft("EXIT", client="after")])
    assert summed_up(summing) == [(1, 4)]
    page = await summing.audit.search(AuditQuery(client="after"))
    assert [number for number, _ in page.records] == [1, 2, 3, 4]


@pytest.mark.parametrize("value", [None, 2**62])
async def test_records_are_kept_whatever_somebody_wrote_where_it_stands_what_is_summed_up(
    value: int | None, summing: DatabaseStore
) -> None:
    counters = tables.counters

    def damage(transaction: Transaction) -> None:
        ours = counters.c.name == "audit_summaries"
        change = sa.update(counters).where(ours).values(value=value)
        transaction.connection.execute(sa.delete(counters).where(ours) if value is None else change)

    summing.write_now(damage)
    await summing.audit.append([Draft("EXIT", client="web1")] * 9)
    assert summed_up(summing) == []
    page = await summing.audit.search(AuditQuery(client="web1"))
    assert len(page.records) == 9


TEXTS = st.sampled_from(["", "ann", "web1", "b\u00f6b", "a\nb", "a\x1bb", "x" * 9_000])
DRAFTS = st.builds(
    Draft,
    code=st.sampled_from(CODES),
    subject=TEXTS,
    client=st.none() | TEXTS,
    request=st.none() | TEXTS,
    fields=st.dictionaries(st.sampled_from(["path", "count"]), TEXTS | st.integers(0, 9)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(DRAFTS, min_size=1, max_size=5))
def test_drafts_are_summed_up_as_the_lines_that_they_become(drafts: list[Draft]) -> None:
    lines = [
        (number, encode_record(number, bytes(32), Moment(START_US + number, 7), draft))
        for number, draft in enumerate(drafts)
    ]
    rows = [row_of_draft(number, START_US + number, each) for number, each in enumerate(drafts)]
    made = record_summary(rows, [draft.fields for draft in drafts])
    read = audit_search._summary(lines)
    assert {*memoryview(made.keys).cast("I")} == {*memoryview(read.keys).cast("I")}
    assert sorted(memoryview(made.paths).cast("I")) == sorted(memoryview(read.paths).cast("I"))
    assert replace(made, keys=b"", paths=b"") == replace(read, keys=b"", paths=b"")


def _stretches(connection: sa.Connection, wanted: Wanted) -> list[Stretch]:
    return list(stretches(connection, AUDIT_BLOCKS, wanted, -1, 68, newest_first=False))


async def test_only_blocks_that_may_hold_it_are_read(store: DatabaseStore) -> None:
    await store.audit.append([Draft("CLIENT_REMOVED", client="web9"), *[Draft("EXIT")] * 7])
    await sum_up_all(store)
    for query in (AuditQuery(client="web9"), AuditQuery(codes=frozenset({"CLIENT_REMOVED"}))):
        wanted = audit_search._wanted(query)
        found = store.read_now(_stretches, wanted)
        assert [(each.first, each.last) for each in found if each.may_hold] == [(59, 62)]


async def test_a_record_that_is_none_is_named_and_never_passed_over(store: DatabaseStore) -> None:
    def damage(transaction: Any) -> None:
        transaction.connection.execute(sa.delete(tables.audit_summaries))
        done = sa.update(tables.counters).values(value=-1)
        transaction.connection.execute(done.where(tables.counters.c.name == "audit_summaries"))
        number = tables.audit_records.c.number
        damaged = sa.update(tables.audit_records).where(number == 9)
        transaction.connection.execute(damaged.values(record=b'{"code":7}'))

    store.write_now(damage)
    await sum_up_all(store)
    for query in (AuditQuery(), AuditQuery(client="nobody")):
        with pytest.raises(StorageError, match=r"record 9 of the audit log is none; .* verify"):
            await _to_the_end(store, query)


async def _to_the_end(store: DatabaseStore, query: AuditQuery) -> None:
    while (page := await store.audit.search(query)).reached is not None:
        query = query.behind(page.reached)


# ---- the verb ------------------------------------------------------------------------------------


async def shown(directory: Path, *options: str) -> list[dict[str, Any]]:
    ended = await run_admin("audit", "show", *options, directory=directory)
    assert ended.status == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


async def test_filters_choose_among_all_records_not_among_the_newest(tmp_path: Path) -> None:
    async with AdminServer.running(tmp_path) as server:
        draft = Draft("AUTHZ_FAIL", is_success=False, subject="ann", fields={"path": "/etc/x"})
        await server.store.audit.append([draft])
        await server.store.audit.append([Draft("CLIENT_REGISTERED", client="web1")] * 300)
        [found] = await shown(tmp_path, "--code", "authz_fail", "--limit", "1")
        options = (
            ("--subject", "ann"),
            ("--outcome", "failure"),
            ("--path", "/etc/x"),
            ("--below", "/etc"),
            ("--class", "administration", "--severity", "warn"),
            ("--first", "0", "--limit", "1", "--subject", "ann"),
        )
        every = await asyncio.gather(*(shown(tmp_path, *each) for each in options))
        assert every == [[found]] * len(options)
        newest = await shown(tmp_path, "--client", "web1", "--limit", "2")
        older = await shown(
            tmp_path, "--client", "web1", "--limit", "2", "--before", str(newest[0]["n"])
        )
        assert [each["n"] for each in older] == [newest[0]["n"] - 2, newest[0]["n"] - 1]
        after = ("--client", "web1", "--limit", "2", "--after", str(older[0]["n"] - 1))
        assert await shown(tmp_path, *after) == older


async def test_a_table_and_a_block_can_be_had_of_records(tmp_path: Path) -> None:
    async with AdminServer.running(tmp_path) as server:
        said = Draft(
            "AUTHZ_FAIL", is_success=False, subject="a\x1b[2J", fields={"role": "Auditors"}
        )
        await server.store.audit.append([said])
        table = await run_admin(
            "audit", "show", "--table", "--code", "AUTHZ_FAIL", directory=tmp_path
        )
        heading, row = table.out.splitlines()
        assert heading.split()[:4] == ["NUMBER", "TIME", "CODE", "OUTCOME"]
        assert row.split()[2:] == ["AUTHZ_FAIL", "failure", "a\\x1b[2J", "-", "role=Auditors"]
        block = await run_admin(
            "audit", "show", "--detail", "--outcome", "failure", directory=tmp_path
        )
        assert "explain:" in block.out
        assert "  role:" in block.out
        # As the event has it, and not as the catalogue has it for all of them.
        assert "{" not in block.out
        assert "a\\x1b[2J may not do this" in block.out
        assert all(line.isprintable() for line in block.out.splitlines())


async def test_following_gives_records_that_come_without_an_event(tmp_path: Path) -> None:
    async with AdminServer.running(tmp_path) as server:
        process = await start_admin(
            *("audit", "show", "--follow", "--limit", "0", "--client", "web1"), directory=tmp_path
        )
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"following new records" in await process.stderr.readline()
        for number in range(3):
            draft = Draft("CLIENT_REMOVED", client="web1", fields={"number": number})
            await server.store.audit.append([Draft("EXIT"), draft])
            record = json.loads(await process.stdout.readline())
            assert (record["code"], record["fields"]) == ("CLIENT_REMOVED", {"number": number})
        process.terminate()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


def test_an_event_and_its_record_name_the_same_request(tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(b"[ReadOnly]\ndir=/etc\n")
    with OfflineStore(str(tmp_path)) as store, open(tmp_path / "given", "rb") as file:
        store.call("config-put", {"name": None, "source": "given"}, file)
        put = {"code": "CONFIGURATION_PUT", "limit": 9}
        [event] = [item["event"] for item in store.stream("events", put)]
        arguments = {"request": event["fields"]["request"], "limit": 9}
        found = [item["record"] for item in store.stream("audit-show", arguments)]
    assert [record["code"] for record in found] == ["ADMIN_REQUEST", "CONFIGURATION_PUT"]
    assert found[1]["fields"]["path"] == event["fields"]["path"]
