"""What the store does with the reports of clients: each is kept exactly once."""

import asyncio
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from needfire_protocol.errors import FormatError
from needfire_server.storage import statements
from needfire_server.storage.base import EventQuery, IngestResult
from needfire_server.storage.ingesting import Batch, Stored, store_all
from needfire_server.storage.store import DatabaseStore
from needfire_testkit.server_store import NOW_US, STREAM, event, incoming, unusable
from needfire_testkit.stores import StorePlace


async def paths(store: DatabaseStore) -> list[object]:
    return [each.fields["path"] for _, each in await store.query_events(EventQuery(limit=1_000))]


async def test_new_reports_are_kept_with_their_sender_and_receipt(store: DatabaseStore) -> None:
    result = await store.ingest("web1", STREAM, [incoming(1), incoming(2)], received_us=NOW_US)
    assert [each.client for each in result.accepted] == ["web1", "web1"]
    assert {each.received_us for each in result.accepted} == {NOW_US}
    assert result.gap is None
    stored = await store.query_events(EventQuery())
    assert [each for _, each in stored] == list(result.accepted)
    assert [rowid for rowid, _ in stored] == [1, 2]


async def test_what_is_delivered_twice_is_kept_once(store: DatabaseStore) -> None:
    batch = [incoming(1), incoming(2)]
    await store.ingest("web1", STREAM, batch, received_us=NOW_US)
    again = await store.ingest("web1", STREAM, [*batch, incoming(3)], received_us=NOW_US + 1)
    assert [each.fields["path"] for each in again.accepted] == ["/3"]
    assert again.gap is None
    assert await paths(store) == ["/1", "/2", "/3"]


async def test_a_number_twice_in_one_batch_is_kept_once(store: DatabaseStore) -> None:
    result = await store.ingest("web1", STREAM, [incoming(1), incoming(1)], received_us=NOW_US)
    assert len(result.accepted) == 1


async def test_streams_and_clients_do_not_share_numbers(store: DatabaseStore) -> None:
    await store.ingest("web1", STREAM, [incoming(1)], received_us=NOW_US)
    other_stream = await store.ingest("web1", bytes(16), [incoming(1)], received_us=NOW_US)
    other_client = await store.ingest("web2", STREAM, [incoming(1)], received_us=NOW_US)
    assert len(other_stream.accepted) == len(other_client.accepted) == 1


@pytest.mark.parametrize("count", [1, 7, 8, 9, 63, 64, 65, 145])
def test_each_of_many_streams_in_one_commit_goes_on_where_it_was(
    count: int, store: DatabaseStore
) -> None:
    """Some of them are new; numbers are as large as they may be."""
    names = [f"web{each}" for each in range(count)]
    known = {name: 2**63 - 3 - each for each, name in enumerate(names) if each % 2}
    following = {name: known.get(name, 0) + 1 for name in names}

    def ingest(sequences: dict[str, int]) -> list[Stored]:
        batches = [
            Batch(name, STREAM, [incoming(number)], NOW_US) for name, number in sequences.items()
        ]
        return store.write_now(lambda transaction: store_all(transaction, batches))

    ingest(known)
    results = [each for each in ingest(following) if each is not None]
    assert [(len(each.accepted), each.gap) for each in results] == [(1, None)] * count
    again = [each for each in ingest(following) if each is not None]
    assert [each.accepted for each in again] == [()] * count


async def test_a_jump_is_a_gap_and_is_told_once(store: DatabaseStore) -> None:
    await store.ingest("web1", STREAM, [incoming(1)], received_us=NOW_US)
    jump = await store.ingest("web1", STREAM, [incoming(5), incoming(6)], received_us=NOW_US)
    assert jump.gap == (1, 5)
    after = await store.ingest("web1", STREAM, [incoming(7)], received_us=NOW_US)
    assert after.gap is None


async def test_numbers_that_never_came_are_counted_even_where_a_client_is_hostile(
    store: DatabaseStore,
) -> None:
    assert await store.missing_reports() == 0
    await store.ingest("web1", STREAM, [incoming(1), incoming(5)], received_us=NOW_US)
    await store.ingest("web2", STREAM, [incoming(3)], received_us=NOW_US)
    assert await store.missing_reports() == 5
    await store.ingest("web1", STREAM, [incoming(3)], received_us=NOW_US)
    assert await store.missing_reports() == 4
    for name in ("web3", "web4"):
        await store.ingest(name, STREAM, [incoming(2**63 - 1)], received_us=NOW_US)
    assert await store.missing_reports() > 2**63


@pytest.mark.parametrize("clients", [2, 3, 4])
async def test_very_many_gaps_are_counted_in_pages(
    clients: int, store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[object] = []
    read = statements.missing_reports

    def counted(connection: sa.Connection, behind: Any) -> Any:
        page = read(connection, behind)
        pages.append(page)
        return page

    monkeypatch.setattr(statements, "_GAPS_PAGE", 3)
    monkeypatch.setattr(statements, "missing_reports", counted)
    for number in range(clients):
        for stream in (STREAM, bytes(16)):
            reports = [incoming(3), incoming(6)]
            await store.ingest(f"web{number}", stream, reports, received_us=NOW_US)
    assert await store.missing_reports() == clients * 2 * 4
    assert len(pages) == clients * 4 // 3 + 1


async def test_a_report_is_known_by_its_client_identifier_and_time(store: DatabaseStore) -> None:
    result = await store.ingest("web1", STREAM, [incoming(1)], received_us=NOW_US)
    [kept] = result.accepted
    assert await store.has_report("web1", kept.id, kept.time_us)
    assert not await store.has_report("web2", kept.id, kept.time_us)
    assert not await store.has_report("web1", kept.id, kept.time_us + 1)
    assert not await store.has_report("web1", "0" * 26, kept.time_us)


async def test_a_stream_that_does_not_begin_with_one_has_a_gap(store: DatabaseStore) -> None:
    result = await store.ingest("web1", STREAM, [incoming(3)], received_us=NOW_US)
    assert result.gap == (0, 3)


async def test_a_late_report_of_a_gap_is_kept_and_then_known(store: DatabaseStore) -> None:
    await store.ingest("web1", STREAM, [incoming(1), incoming(5)], received_us=NOW_US)
    late = await store.ingest("web1", STREAM, [incoming(3)], received_us=NOW_US)
    assert len(late.accepted) == 1
    again = await store.ingest("web1", STREAM, [incoming(3), incoming(2)], received_us=NOW_US)
    assert [each.fields["path"] for each in again.accepted] == ["/2"]
    assert sorted(map(str, await paths(store))) == ["/1", "/2", "/3", "/5"]


_clients = count(1)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    batches=st.lists(st.lists(st.integers(1, 30), max_size=12), max_size=8), at_once=st.booleans()
)
async def test_any_order_of_delivery_keeps_each_number_once(
    store: DatabaseStore, batches: list[list[int]], at_once: bool
) -> None:
    """Goal: what is accepted over all batches is the set of all numbers, each of them once."""
    client = f"client{next(_clients)}"

    async def deliver(batch: list[int]) -> list[str]:
        reports = [incoming(number) for number in batch]
        result = await store.ingest(client, STREAM, reports, received_us=NOW_US)
        return [str(each.fields["path"]) for each in result.accepted]

    if at_once:
        accepted = await asyncio.gather(*map(deliver, batches))
    else:
        accepted = [await deliver(batch) for batch in batches]
    numbers = {number for batch in batches for number in batch}
    flat = [path for paths in accepted for path in paths]
    assert sorted(flat) == sorted(f"/{number}" for number in numbers)
    stored = await store.query_events(EventQuery(client=client, limit=1_000))
    assert [each.fields["path"] for _, each in stored] == flat


async def test_an_unusable_report_is_kept_raw_and_counts_as_come(
    store: DatabaseStore, place: StorePlace
) -> None:
    reports = [incoming(1), unusable(2, b"\x00raw"), incoming(3)]
    result = await store.ingest("web1", STREAM, reports, received_us=NOW_US)
    assert (len(result.accepted), result.gap) == (2, None)
    again = await store.ingest("web1", STREAM, reports, received_us=NOW_US)
    assert again == IngestResult((), None)
    rows = place.rows("SELECT client, sequence, body, problem FROM unusable_reports")
    assert rows == [("web1", 2, b"\x00raw", "not decodable")]


@pytest.mark.parametrize("sequence", [1, 2**63 - 1])
async def test_the_first_and_the_last_number_are_taken(store: DatabaseStore, sequence: int) -> None:
    result = await store.ingest("web1", STREAM, [incoming(sequence)], received_us=NOW_US)
    assert len(result.accepted) == 1


@pytest.mark.parametrize("sequence", [0, -1, 2**63, 2**64 - 1])
async def test_a_number_out_of_range_takes_nothing_of_the_batch(
    store: DatabaseStore, sequence: int
) -> None:
    with pytest.raises(FormatError):
        await store.ingest("web1", STREAM, [incoming(1), incoming(sequence)], received_us=NOW_US)
    assert await store.last_rowid() == 0


@pytest.mark.parametrize("length", [0, 15, 17])
async def test_a_stream_has_sixteen_bytes(store: DatabaseStore, length: int) -> None:
    with pytest.raises(FormatError):
        await store.ingest("web1", bytes(length), [incoming(1)], received_us=NOW_US)


async def test_fields_come_back_as_they_were(store: DatabaseStore) -> None:
    said = event(
        path="/tmp/\\x1b[31m ünï", size_new=2**64 - 1, size_old=-(2**63), flag=True, no=None
    )
    await store.ingest("web1", STREAM, [incoming(1, said)], received_us=NOW_US)
    [(_, stored)] = await store.query_events(EventQuery())
    assert stored == said.received("web1", NOW_US)
