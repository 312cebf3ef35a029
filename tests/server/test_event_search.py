"""Searches of events: each filter finds what it names, pages join, and only what must be is read."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.escape import escape_bytes
from needfire_protocol.event import Event
from needfire_protocol.severity import Severity
from needfire_server.storage import event_search, ingesting, summaries, tables
from needfire_server.storage.base import EventQuery
from needfire_server.storage.engine import Transaction
from needfire_server.storage.event_rows import EVENT_COLUMNS, event_of_row, rows_of_events
from needfire_server.storage.event_search import EVENT_BLOCKS, wanted_of
from needfire_server.storage.ingesting import Batch, store_all
from needfire_server.storage.statements import event_query, last_rowid
from needfire_server.storage.store import DatabaseStore
from needfire_server.storage.summaries import Stretch, stretches
from needfire_server.storage.summary import event_summary
from needfire_server.storage.unsummed import Unsummed
from needfire_server.summing import sum_up_all
from needfire_testkit.server_store import event, incoming
from needfire_testkit.stores import StorePlace

S = 1_000_000
DAY_US = 86_400 * S
START_US = 1_000 * DAY_US
CLIENTS = ("web1", "web2", "db1")
CODES = ("POLICY_MODIFIED", "CHECK_COMPLETED", "START", "STORE_FAILED")
PATHS = (
    "/etc",
    "/etc/passwd",
    "/etc/ssl/private/key",
    "/etcetera/x",
    "/srv/a\\\\b",
    escape_bytes(b'/srv/"quoted"\xff'),
    "/srv/\\\\x41",
    "/srv/é",
    "/srv/%_*?[]'",
)

queries = st.builds(
    EventQuery,
    client=st.none() | st.sampled_from([*CLIENTS, "WEB1", "nobody"]),
    since_us=st.none() | st.integers(0, 80).map(lambda each: START_US + each * S),
    until_us=st.none() | st.integers(0, 80).map(lambda each: START_US + each * S),
    event_class=st.none() | st.sampled_from([EventClass.INTEGRITY, EventClass.ALARM]),
    severity=st.none() | st.sampled_from([Severity.NOTICE, Severity.ALERT]),
    code=st.none() | st.sampled_from([*CODES, "POLICY_ADDED"]),
    path=st.none() | st.sampled_from([*PATHS, "/nowhere"]),
    below=st.none() | st.sampled_from(["", "/etc", "/etc/ssl", "/srv", "/srv/a\\\\b", "/etc/pass"]),
    request=st.none() | st.sampled_from(["r1", "r2"]),
    after_rowid=st.none() | st.integers(0, 90),
    before_rowid=st.none() | st.integers(0, 90),
    limit=st.integers(1, 12),
    newest_first=st.booleans(),
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few events, and steps that end soon: everything that takes millions otherwise."""
    monkeypatch.setattr(ingesting, "BLOCK_ROWS", 4)
    monkeypatch.setattr(ingesting, "BLOCK_ROWS_MIN", 4)
    monkeypatch.setattr(summaries, "BLOCK_ROWS", 4)
    monkeypatch.setattr(summaries, "STRETCH_ROWS_MAX", 6)
    monkeypatch.setattr(summaries, "_PAGE", 3)
    monkeypatch.setattr(event_search, "_COST_MAX", 40)


@pytest.fixture
async def store(place: StorePlace, small: None) -> AsyncIterator[DatabaseStore]:
    """80 events: commits of one to nine, some summed up with them, some later, some not at all."""
    opened = place.open()
    chance = Random(3)
    while (stored := await opened.last_rowid()) < 60:
        await add(opened, chance, stored, chance.randrange(1, 10))
    await sum_up_all(opened)
    while (stored := await opened.last_rowid()) < 80:
        await add(opened, chance, stored, chance.randrange(1, 5))
    yield opened
    opened.close()


async def add(store: DatabaseStore, chance: Random, stored: int, count: int) -> None:
    store.write_now(lambda t: store_all(t, items(chance, stored, count)))


def items(chance: Random, stored: int, count: int) -> list[Batch | Event]:
    """Reports and events of the server's own, as the places of their numbers say."""
    return [made(chance, stored + each + 1) for each in range(count)]


def made(chance: Random, number: int) -> Batch | Event:
    time_us = START_US + number * S - chance.choice((0, 0, 0, 3 * S, 900 * DAY_US))
    client, code = chance.choice(CLIENTS), chance.choice(CODES)
    fields: dict[str, Any] = {"path": chance.choice(PATHS)}
    if chance.random() < 0.2:
        fields = {"request": chance.choice(("r1", "r2"))} | fields
    if chance.random() < 0.2:
        return event(code, time_us=time_us, client=client, **fields)
    said = event(code, time_us=time_us, **fields)
    stream = number.to_bytes(16, "big")
    return Batch(client, stream, (incoming(1, said),), START_US + number * S)


def everything(store: DatabaseStore) -> list[tuple[int, Event]]:
    columns = [tables.events.c[name] for name in EVENT_COLUMNS]
    wanted = sa.select(*columns).order_by(tables.events.c.row_id)
    rows = store.read_now(lambda connection: connection.execute(wanted).all())
    return [event_of_row(row) for row in rows]


def matching(events: list[tuple[int, Event]], query: EventQuery) -> list[tuple[int, Event]]:
    """What a query must find, in the order of the numbers, whatever its limit."""
    return [(number, said) for number, said in events if _fits(number, said, query)]


def _fits(number: int, said: Event, query: EventQuery) -> bool:
    about = said.client or said.fields.get("client")
    path = str(said.fields["path"])
    return (
        (query.client is None or about == query.client.lower())
        and (query.event_class is None or said.event_class is query.event_class)
        and (query.severity is None or said.severity >= query.severity)
        and (query.code is None or said.code == query.code)
        and (query.path is None or path == query.path)
        and (query.below is None or path == query.below or path.startswith(f"{query.below}/"))
        and (
            query.request is None
            or (said.client is None and said.fields.get("request") == query.request)
        )
        and number > (query.after_rowid or 0)
        and (query.before_rowid is None or number < query.before_rowid)
        and any(
            (query.since_us is None or moment >= query.since_us)
            and (query.until_us is None or moment < query.until_us)
            for moment in (said.time_us, said.received_us)
            if moment is not None
        )
    )


def only(times: int, call: Callable[[], None]) -> Callable[[], None]:
    """Return what calls only the first times."""
    left = iter(range(times))

    def maybe() -> None:
        if next(left, None) is not None:
            call()

    return maybe


def pages(
    store: DatabaseStore, query: EventQuery, between: Callable[[], None] = lambda: None
) -> list[tuple[int, Event]]:
    """Search to the end; each step begins where the one before came to."""
    found: list[tuple[int, Event]] = []
    while True:
        page = store.read_now(event_search.search, query)
        assert len(page.events) <= query.limit
        found += page.events
        if page.reached is None:
            return found
        query = query.behind(page.reached)
        between()


async def test_pages_are_the_whole_list_for_every_filter(store: DatabaseStore) -> None:
    events = everything(store)

    @settings(max_examples=40, deadline=None)
    @given(query=queries)
    def check(query: EventQuery) -> None:
        expected = matching(events, query)
        found = pages(store, query)
        assert found == (expected[::-1] if query.newest_first else expected)

    check()


async def test_pages_have_no_gap_and_nothing_twice_while_more_comes(store: DatabaseStore) -> None:
    chance = Random(5)

    def more() -> None:
        stored = store.read_now(last_rowid)
        store.write_now(lambda t: store_all(t, items(chance, stored, chance.randrange(1, 6))))

    for filters in ({}, {"client": "web1"}, {"below": "/srv"}, {"code": "START", "client": "db1"}):
        query = EventQuery(limit=3, newest_first=True, **filters)  # type: ignore[arg-type]
        before = everything(store)
        assert pages(store, query, more) == matching(before, query)[::-1]
        forwards = pages(store, replace(query, newest_first=False), only(4, more))
        assert forwards == matching(everything(store), query)


async def test_the_newest_are_counted_for_every_filter(store: DatabaseStore) -> None:
    events = everything(store)
    chance = Random(9)
    for filters in ({}, {"client": "web1"}, {"path": "/etc/passwd"}, {"severity": Severity.ALERT}):
        query = EventQuery(**filters)
        numbers = [number for number, _ in matching(events, query)]
        count = chance.randrange(1, len(numbers))
        assert await store.nth_newest_rowid(query, count) == numbers[-count]
        assert await store.nth_newest_rowid(query, len(numbers)) == numbers[0]
        assert await store.nth_newest_rowid(query, len(numbers) + 1) == 0


async def test_a_question_goes_on_until_it_has_its_page(store: DatabaseStore) -> None:
    query = EventQuery(below="/etc/ssl", limit=1_000)
    assert await store.query_events(query) == matching(everything(store), query)


def read(store: DatabaseStore, query: EventQuery) -> list[tuple[int, int]]:
    """Return the first and last numbers of what a search reads of the events."""
    end = store.read_now(last_rowid) + 1

    def all_stretches(connection: sa.Connection) -> list[Stretch]:
        wanted = wanted_of(query)
        return list(stretches(connection, EVENT_BLOCKS, wanted, 0, end, newest_first=False))

    found = store.read_now(all_stretches)
    return [(each.first, each.last) for each in found if each.may_hold]


@pytest.fixture
async def blocks(place: StorePlace, small: None) -> AsyncIterator[DatabaseStore]:
    """Five blocks of four events, from 1 to 20, each of a client and a directory of its own."""
    opened = place.open()
    for block in range(5):
        made = [
            event(time_us=START_US + block * DAY_US, client=f"web{block}", path=f"/d{block}/{each}")
            for each in range(4)
        ]
        if block == 3:
            made[1] = event(time_us=START_US + 3 * DAY_US, client="web3", request="r1")
            made[2] = event("STORE_FAILED", time_us=0).received("web3", START_US + 3 * DAY_US)
        opened.write_now(partial(store_all, items=made))
    yield opened
    opened.close()


async def test_only_blocks_that_may_hold_it_are_read(blocks: DatabaseStore) -> None:
    expected = [
        (EventQuery(client="web2"), [(9, 12)]),
        (EventQuery(path="/d1/3"), [(5, 8)]),
        (EventQuery(path="/d1/4"), []),
        (EventQuery(below="/d1"), [(5, 8)]),
        (EventQuery(below="/d1/3"), [(5, 8)]),
        (EventQuery(below="/d"), []),
        (EventQuery(code="STORE_FAILED"), [(13, 16)]),
        (EventQuery(event_class=EventClass.ALARM), [(13, 16)]),
        (EventQuery(severity=Severity.ALERT), [(13, 16)]),
        (EventQuery(request="r1"), [(13, 16)]),
        (EventQuery(client="web3", code="STORE_FAILED"), [(13, 16)]),
        (EventQuery(client="web2", code="STORE_FAILED"), []),
        # One clock that says 1970 makes its block one of 1970, and no other day's.
        (EventQuery(until_us=S), [(13, 16)]),
        (EventQuery(since_us=START_US + 2 * DAY_US, until_us=START_US + 3 * DAY_US), [(9, 12)]),
        (EventQuery(since_us=START_US + 9 * DAY_US), []),
    ]
    assert [(query, read(blocks, query)) for query, _ in expected] == expected


async def test_what_no_summary_covers_is_read(blocks: DatabaseStore) -> None:
    query = EventQuery(path="/d1/3")
    await blocks.record(event(path="/new"))
    assert read(blocks, query) == [(5, 8), (21, 21)]
    blocks.write_now(
        lambda t: t.connection.execute(
            sa.delete(tables.event_summaries).where(tables.event_summaries.c.first == 9)
        )
    )
    assert read(blocks, query) == [(5, 8), (9, 12), (21, 21)]


async def test_events_of_before_are_summed_up_in_the_background(blocks: DatabaseStore) -> None:
    def forget(transaction: Any) -> None:
        transaction.connection.execute(sa.delete(tables.event_summaries))

    blocks.write_now(forget)
    for each in range(3):
        await blocks.record(event(path=f"/new{each}"))
    await sum_up_all(blocks)
    # The last three wait until there are enough of them for a block.
    assert read(blocks, EventQuery(path="/d1/3")) == [(5, 8), (21, 23)]
    await blocks.record(event(path="/new3"))
    await sum_up_all(blocks)
    assert read(blocks, EventQuery(path="/d1/3")) == [(5, 8)]
    assert not await blocks.sum_up()


def summed_up(store: DatabaseStore) -> list[tuple[int, int]]:
    """Return the first and last numbers of all summaries."""
    table = tables.event_summaries
    wanted = sa.select(table.c.first, table.c.last).order_by(table.c.first)
    return [tuple(row) for row in store.read_now(lambda each: each.execute(wanted).all())]


@pytest.fixture
async def sqlite(tmp_path: Path, small: None) -> AsyncIterator[DatabaseStore]:
    opened = StorePlace(tmp_path).open()
    yield opened
    opened.close()


async def test_small_commits_are_summed_up_by_those_that_follow(sqlite: DatabaseStore) -> None:
    """The background would read each event again, with the store's only writer."""
    for number in range(10):
        await sqlite.record(event(path=f"/d{number}/x", client="web1"))
    assert summed_up(sqlite) == [(1, 4), (5, 8)]
    assert read(sqlite, EventQuery(path="/d5/x")) == [(5, 8), (9, 10)]
    assert read(sqlite, EventQuery(client="web2")) == [(9, 10)]


async def test_events_that_were_not_committed_are_in_no_summary(sqlite: DatabaseStore) -> None:
    """They would stand for events that came in their place: nobody would find those."""
    await sqlite.record(event(path="/before"))

    def fails(transaction: Transaction) -> None:
        store_all(transaction, [event(path="/never"), event(path="/never")])
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(StorageError, match="disk"):
        sqlite.write_now(fails)
    for number in range(5):
        await sqlite.record(event(path=f"/after{number}"))
    assert summed_up(sqlite) == [(2, 5)]
    assert read(sqlite, EventQuery(path="/after0")) == [(1, 1), (2, 5), (6, 6)]
    assert read(sqlite, EventQuery(path="/never")) == [(1, 1), (6, 6)]


async def test_events_of_a_job_that_failed_by_itself_are_in_no_summary(
    sqlite: DatabaseStore,
) -> None:
    await sqlite.record(event(path="/before"))

    def fails(transaction: Transaction) -> None:
        store_all(transaction, [event(path="/never"), event(path="/never")])
        raise FormatError("not this one")

    with pytest.raises(FormatError):
        sqlite.write_now(fails)
    for number in range(3):
        await sqlite.record(event(path=f"/after{number}"))
    assert summed_up(sqlite) == [(1, 4)]
    assert read(sqlite, EventQuery(path="/never")) == []


def test_what_was_summed_up_since_a_mark_takes_all_before_it_along() -> None:
    unsummed, rows = Unsummed(), [(number,) for number in range(9)]
    assert unsummed.add((rows[:2], [{}] * 2), enough=4) is None
    mark = unsummed.mark()
    assert unsummed.add((rows[2:3], [{}]), enough=4) is None
    unsummed.back_to(mark)
    assert len(unsummed) == 2
    assert unsummed.add((rows[2:5], [{}] * 3), enough=4) is not None
    assert unsummed.add((rows[5:8], [{}] * 3), enough=4) is None
    unsummed.back_to(mark)
    assert len(unsummed) == 0


async def test_the_background_leaves_alone_what_the_next_commits_will_sum_up(
    tmp_path: Path, small: None
) -> None:
    """Blocks do not overlap: a search would take them for out of order."""
    place = StorePlace(tmp_path)
    earlier = place.open()
    for _ in range(3):
        await earlier.record(event(path="/before"))
    earlier.close()
    opened = place.open()
    for _ in range(3):
        await opened.record(event(path="/after"))
    await sum_up_all(opened)
    assert summed_up(opened) == []
    await opened.record(event(path="/after"))
    await sum_up_all(opened)
    assert summed_up(opened) == [(1, 3), (4, 7)]
    opened.close()


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_what_other_servers_store_between_ours_is_in_no_summary_of_ours(
    place: StorePlace, tmp_path: Path, small: None
) -> None:
    (tmp_path / "other").mkdir()
    one, other = place.open(), place.open(directory=tmp_path / "other")
    for number in range(4):
        await one.record(event(path=f"/one{number}"))
        await other.record(event(path=f"/other{number}"))
    assert summed_up(one) == []
    assert read(one, EventQuery(path="/other1")) == [(1, 6), (7, 8)]
    for opened in (one, other):
        opened.close()


def test_rows_that_do_not_follow_are_not_summed_up_together() -> None:
    unsummed = Unsummed()
    assert unsummed.add(([(1,), (2,)], [{}] * 2), enough=4) is None
    assert (unsummed.before(2), unsummed.before(3)) == (0, 3)
    assert unsummed.add(([(4,), (5,)], [{}] * 2), enough=4) is None
    assert (unsummed.before(5), unsummed.before(9)) == (3, 9)
    together = unsummed.add(([(6,), (7,)], [{}] * 2), enough=4)
    assert together is not None
    assert [number for (number,) in together[0]] == [4, 5, 6, 7]
    assert unsummed.before(7) == 7


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_a_server_sums_up_its_small_commits_wherever_no_other_one_comes_between(
    place: StorePlace, tmp_path: Path, small: None
) -> None:
    (tmp_path / "other").mkdir()
    one, other = place.open(), place.open(directory=tmp_path / "other")
    for number in range(5):
        await one.record(event(path=f"/one{number}"))
    await other.record(event(path="/other"))
    for number in range(5, 10):
        await one.record(event(path=f"/one{number}"))
    assert summed_up(one) == [(1, 4), (7, 10)]
    assert read(other, EventQuery(path="/one5")) == [(5, 6), (7, 10), (11, 11)]
    for opened in (one, other):
        opened.close()


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
@pytest.mark.parametrize("more", [1, 5])
async def test_what_another_server_has_summed_up_of_our_commits_is_in_no_second_summary(
    more: int, place: StorePlace, tmp_path: Path, small: None
) -> None:
    """It cannot know that we remember them, and blocks must not overlap."""
    (tmp_path / "other").mkdir()
    one, other = place.open(), place.open(directory=tmp_path / "other")
    for _ in range(2):
        await other.record(event(path="/other"))
    for _ in range(3):
        await one.record(event(path="/one"))
    await sum_up_all(other)
    assert summed_up(one) == [(1, 4)]
    for _ in range(more):
        await one.record(event(path="/one"))
    assert summed_up(one)[:2] == [(1, 4), (5, 6)]
    for opened in (one, other):
        opened.close()


def test_of_what_waits_only_what_a_summary_looks_at_is_kept() -> None:
    said = event(path="/etc/passwd", request="r1", chksum_new="a" * 64)
    row, following = rows_of_events(1, [said] * 2, [None] * 2)
    unsummed = Unsummed()
    assert unsummed.add(([row], [said.fields]), enough=2) is None
    assert len(unsummed) == 1
    together = unsummed.add(([following], [said.fields]), enough=2)
    assert together is not None
    rows, fields = together
    assert len(unsummed) == 0
    assert fields[0] == {"path": "/etc/passwd", "request": "r1"}
    assert said.msg not in rows[0]
    whole = event_summary([row, following], [said.fields] * 2)
    assert event_summary(rows, fields) == whole


async def test_events_that_somebody_damaged_are_read_and_not_summed_up(
    blocks: DatabaseStore,
) -> None:
    def damage(transaction: Any) -> None:
        transaction.connection.execute(sa.delete(tables.event_summaries))
        events = tables.events
        damaged = sa.update(events).where(events.c.row_id == 6).values(fields="[1")
        transaction.connection.execute(damaged)

    blocks.write_now(damage)
    await sum_up_all(blocks)
    assert read(blocks, EventQuery(path="/nowhere")) == [(5, 8)]


async def test_summaries_go_with_their_events(blocks: DatabaseStore) -> None:
    gone = sa.delete(tables.events).where(tables.events.c.row_id < 11)
    blocks.write_now(lambda t: t.connection.execute(gone))
    await sum_up_all(blocks)
    firsts = sa.select(tables.event_summaries.c.first).order_by(tables.event_summaries.c.first)
    assert blocks.read_now(lambda each: each.execute(firsts).scalars().all()) == [9, 13, 17]


async def test_numbers_without_events_are_passed_over_at_once(blocks: DatabaseStore) -> None:
    """Goal: a table of which a retention has left the ends takes few steps, not thousands."""

    def leave_the_ends(transaction: Any) -> None:
        transaction.connection.execute(sa.delete(tables.event_summaries))
        middle = tables.events.c.row_id.between(2, 19)
        transaction.connection.execute(sa.delete(tables.events).where(middle))

    blocks.write_now(leave_the_ends)
    steps = 1
    while await blocks.sum_up():
        steps += 1
    assert steps <= 4


def plan_of(place: StorePlace, query: EventQuery) -> str:
    if place.is_sqlite:
        dialect = sa.create_engine("sqlite://").dialect
    else:
        dialect = sa.create_engine("postgresql+psycopg://").dialect
    text = event_query(query).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    explain = "EXPLAIN QUERY PLAN" if place.is_sqlite else "EXPLAIN"
    return " ".join(str(row) for row in place.rows(f"{explain} {text}"))


async def test_within_a_block_nothing_else_is_looked_at(
    blocks: DatabaseStore, place: StorePlace
) -> None:
    filters: list[dict[str, Any]] = [
        {"path": "/etc/passwd"},
        {"below": "/etc"},
        {"request": "r1"},
        {"severity": Severity.ALERT},
        {"since_us": 1, "until_us": 9},
        {"client": "web1", "path": "/etc/passwd"},
        {"client": "web1", "event_class": EventClass.ALARM},
        {"code": "START", "below": "/etc"},
        {"code": "POLICY_MODIFIED", "event_class": EventClass.INTEGRITY},
    ]
    words = (
        ("rowid>? AND rowid<?",) if place.is_sqlite else ("Index Cond", "row_id > ", "row_id < ")
    )
    for each in filters:
        for newest_first in (False, True):
            query = EventQuery(after_rowid=4, before_rowid=9, newest_first=newest_first, **each)
            plan = plan_of(place, query)
            assert all(word in plan for word in words), plan
            assert not [word for word in ("SCAN", "Seq Scan", "TEMP B", "Sort") if word in plan]


async def test_a_question_for_the_newest_does_not_read_what_it_does_not_need(
    blocks: DatabaseStore,
) -> None:
    page = blocks.read_now(
        event_search.search, EventQuery(severity=Severity.CRIT, newest_first=True, limit=2)
    )
    assert [number for number, _ in page.events] == [20, 19]
    assert page.reached == 19


async def test_no_other_field_passes_for_the_path(place: StorePlace) -> None:
    """Goal: what a report says elsewhere does not bring it among the events of a path."""
    fields: list[dict[str, Any]] = [
        {"path": "/etc"},
        {"note": '"path":"/etc"', "path": "/other"},
        {"note": 'x","path":"/etc', "path": "/other"},
        {"note": "a", "path": "/etc"},
        {"note": "a", "path": "/etc/passwd"},
        {"xpath": "/etc", "path": "/other"},
        {"path": '/etc"'},
        {"path": "/etc\\"},
    ]
    store = place.open()
    for each in fields:
        await store.record(replace(event(), fields=each))
    exact = [each.fields for _, each in await store.query_events(EventQuery(path="/etc"))]
    below = [each.fields for _, each in await store.query_events(EventQuery(below="/etc"))]
    assert exact == [each for each in fields if each["path"] == "/etc"]
    assert below == [each for each in fields if each["path"] in ("/etc", "/etc/passwd")]
    store.close()
