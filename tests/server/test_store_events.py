"""Which events a question finds, in which order, and by which index."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.severity import Severity
from needfire_server.storage.base import EVENTS_PAGE_MAX, EventQuery
from needfire_server.storage.event_rows import event_of_row, row_of_event
from needfire_server.storage.statements import event_query
from needfire_server.storage.store import DatabaseStore
from needfire_testkit.event_strategies import field_values
from needfire_testkit.server_store import STREAM, event, incoming
from needfire_testkit.stores import StorePlace

S = 1_000_000


@pytest.fixture
async def store(place: StorePlace) -> AsyncIterator[DatabaseStore]:
    """Six events; their times are 10 to 60 seconds, and the reports came at 100."""
    opened = place.open()
    await opened.record(event("SERVER_UP", time_us=10 * S))
    reports = [
        incoming(1, event("POLICY_MODIFIED", time_us=20 * S)),
        incoming(2, event("CHECK_COMPLETED", time_us=30 * S, client="web2")),
    ]
    await opened.ingest("web1", STREAM, reports, received_us=100 * S)
    await opened.record(event("CLIENT_REGISTERED", time_us=40 * S, client="WEB1"))
    await opened.ingest(
        "web2", STREAM, [incoming(1, event("POLICY_ADDED", time_us=50 * S))], received_us=100 * S
    )
    await opened.record(event("STORE_FAILED", time_us=60 * S))
    yield opened
    opened.close()


async def found(store: DatabaseStore, query: EventQuery) -> list[int]:
    return [rowid for rowid, _ in await store.query_events(query)]


@pytest.mark.parametrize(
    ("query", "rowids"),
    [
        (EventQuery(), [1, 2, 3, 4, 5, 6]),
        # What a report says in a field named client does not make it another's.
        (EventQuery(client="web1"), [2, 3, 4]),
        (EventQuery(client="Web2"), [5]),
        (EventQuery(client="web3"), []),
        (EventQuery(event_class=EventClass.INTEGRITY), [2, 3, 5]),
        (EventQuery(severity=Severity.CRIT), [2, 5, 6]),
        (EventQuery(severity=Severity.ALERT), [6]),
        (EventQuery(code="POLICY_ADDED"), [5]),
        (EventQuery(after_rowid=4), [5, 6]),
        (EventQuery(before_rowid=3), [1, 2]),
        (EventQuery(limit=2), [1, 2]),
        (EventQuery(limit=2, newest_first=True), [6, 5]),
        (EventQuery(newest_first=True, before_rowid=5, limit=2), [4, 3]),
        (EventQuery(client="web1", severity=Severity.CRIT, code="POLICY_MODIFIED"), [2]),
        # Happened or arrived: the reports came at 100 s, whatever their own clocks say.
        (EventQuery(since_us=60 * S), [2, 3, 5, 6]),
        (EventQuery(since_us=60 * S + 1), [2, 3, 5]),
        (EventQuery(since_us=101 * S), []),
        (EventQuery(until_us=40 * S), [1, 2, 3]),
        (EventQuery(since_us=15 * S, until_us=25 * S), [2]),
        (EventQuery(since_us=70 * S, until_us=101 * S), [2, 3, 5]),
        (EventQuery(since_us=70 * S, until_us=100 * S), []),
    ],
)
async def test_a_question_finds(store: DatabaseStore, query: EventQuery, rowids: list[int]) -> None:
    assert await found(store, query) == rowids


async def test_the_limit_is_bounded(store: DatabaseStore) -> None:
    for number in range(0, EVENTS_PAGE_MAX + 1, 500):
        batch = [incoming(number + offset + 1) for offset in range(500)]
        await store.ingest("many", STREAM, batch, received_us=1)
    assert len(await found(store, EventQuery(client="many", limit=10**9))) == EVENTS_PAGE_MAX
    assert len(await found(store, EventQuery(client="many", limit=0))) == 1


@pytest.mark.parametrize(("count", "rowid"), [(1, 6), (2, 5), (6, 1), (7, 0)])
async def test_the_start_of_the_newest_is_found(
    store: DatabaseStore, count: int, rowid: int
) -> None:
    assert await store.nth_newest_rowid(EventQuery(), count) == rowid


async def test_the_start_of_the_newest_that_match_is_found(store: DatabaseStore) -> None:
    assert await store.nth_newest_rowid(EventQuery(client="web1"), 2) == 3
    assert await store.nth_newest_rowid(EventQuery(client="web1"), 4) == 0


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (EventQuery(client="web1", newest_first=True), "events_about"),
        (EventQuery(code="START", newest_first=True), "events_rare_code"),
        (EventQuery(event_class=EventClass.ALARM, newest_first=True), "events_rare_class"),
        (EventQuery(code="POLICY_MODIFIED", newest_first=True), None),
        (EventQuery(event_class=EventClass.INTEGRITY, newest_first=True), None),
        (EventQuery(after_rowid=10), None),
    ],
)
async def test_a_question_uses_its_index_and_does_not_sort(
    store: DatabaseStore, place: StorePlace, query: EventQuery, index: str | None
) -> None:
    """Goal: without an index of its own the question walks along the numbers of the events."""
    if place.is_sqlite:
        dialect = sa.create_engine("sqlite://").dialect
        explain, by_number = "EXPLAIN QUERY PLAN", "events"
    else:
        dialect = sa.create_engine("postgresql+psycopg://").dialect
        explain, by_number = "EXPLAIN", "events_pkey"
    text = event_query(query).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    plan = " ".join(str(row) for row in place.rows(f"{explain} {text}"))
    if place.is_sqlite or index is None:
        assert (index or by_number) in plan
    else:
        # Which of two indexes suits an empty table better depends on when it was last analysed.
        assert "Seq Scan" not in plan
        assert place.rows(f"SELECT 1 FROM pg_indexes WHERE indexname LIKE '{index}%'")
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan


async def test_events_of_codes_that_nobody_knows_are_kept(store: DatabaseStore) -> None:
    newer = replace(event(), code="FROM_A_NEWER_AGENT")
    await store.ingest("web9", STREAM, [incoming(1, newer)], received_us=1)
    [(_, stored)] = await store.query_events(EventQuery(client="web9"))
    assert stored.code == "FROM_A_NEWER_AGENT"


@given(fields=st.dictionaries(st.from_regex(r"[a-z]\w{0,5}|[%\"] ", fullmatch=True), field_values))
def test_fields_are_written_as_the_encoder_of_json_writes_them(fields: dict[str, Any]) -> None:
    said = replace(event(), fields=fields)
    row = row_of_event(1, said)
    assert row[-1] == json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    assert event_of_row(row) == (1, said)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 63, 64, 65, 73, 129])
async def test_any_number_of_rows_is_stored_in_order(count: int, place: StorePlace) -> None:
    store = place.open()
    reports = [incoming(number) for number in range(1, count + 1)]
    await store.ingest("web1", STREAM, reports, received_us=100 * S)
    rows = await store.query_events(EventQuery(limit=1_000))
    assert [each.fields["path"] for _, each in rows] == [f"/{each}" for each in range(1, count + 1)]
    store.close()
