"""What the store does with the reports of clients: each is kept exactly once."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from needfire_protocol.errors import FormatError
from needfire_server.storage.base import EventQuery
from needfire_server.storage.sqlite import SqliteStore
from needfire_testkit.server_store import NOW_US, STREAM, event, incoming, unusable


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(str(tmp_path / "needfire.sqlite"))
    yield opened
    opened.close()


async def paths(store: SqliteStore) -> list[object]:
    return [each.fields["path"] for _, each in await store.query_events(EventQuery(limit=1_000))]


async def test_new_reports_are_kept_with_their_sender_and_receipt(store: SqliteStore) -> None:
    result = await store.ingest("web1", STREAM, [incoming(1), incoming(2)], received_us=NOW_US)
    assert [each.client for each in result.accepted] == ["web1", "web1"]
    assert {each.received_us for each in result.accepted} == {NOW_US}
    assert (result.duplicates, result.sequence_before, result.gap) == (0, 0, None)
    stored = await store.query_events(EventQuery())
    assert [each for _, each in stored] == list(result.accepted)
    assert [rowid for rowid, _ in stored] == [1, 2]


async def test_what_is_delivered_twice_is_kept_once(store: SqliteStore) -> None:
    batch = [incoming(1), incoming(2)]
    await store.ingest("web1", STREAM, batch, received_us=NOW_US)
    again = await store.ingest("web1", STREAM, [*batch, incoming(3)], received_us=NOW_US + 1)
    assert (len(again.accepted), again.duplicates, again.sequence_before) == (1, 2, 2)
    assert again.gap is None
    assert await paths(store) == ["/1", "/2", "/3"]


async def test_a_number_twice_in_one_batch_is_kept_once(store: SqliteStore) -> None:
    result = await store.ingest("web1", STREAM, [incoming(1), incoming(1)], received_us=NOW_US)
    assert (len(result.accepted), result.duplicates) == (1, 1)


async def test_streams_and_clients_do_not_share_numbers(store: SqliteStore) -> None:
    await store.ingest("web1", STREAM, [incoming(1)], received_us=NOW_US)
    other_stream = await store.ingest("web1", bytes(16), [incoming(1)], received_us=NOW_US)
    other_client = await store.ingest("web2", STREAM, [incoming(1)], received_us=NOW_US)
    assert len(other_stream.accepted) == len(other_client.accepted) == 1


async def test_a_jump_is_a_gap_and_is_told_once(store: SqliteStore) -> None:
    await store.ingest("web1", STREAM, [incoming(1)], received_us=NOW_US)
    jump = await store.ingest("web1", STREAM, [incoming(5), incoming(6)], received_us=NOW_US)
    assert jump.gap == (1, 5)
    after = await store.ingest("web1", STREAM, [incoming(7)], received_us=NOW_US)
    assert after.gap is None


async def test_a_stream_that_does_not_begin_with_one_has_a_gap(store: SqliteStore) -> None:
    result = await store.ingest("web1", STREAM, [incoming(3)], received_us=NOW_US)
    assert result.gap == (0, 3)


async def test_a_late_report_of_a_gap_is_kept_and_then_known(store: SqliteStore) -> None:
    await store.ingest("web1", STREAM, [incoming(1), incoming(5)], received_us=NOW_US)
    late = await store.ingest("web1", STREAM, [incoming(3)], received_us=NOW_US)
    assert len(late.accepted) == 1
    again = await store.ingest("web1", STREAM, [incoming(3), incoming(2)], received_us=NOW_US)
    assert (len(again.accepted), again.duplicates) == (1, 1)
    assert sorted(map(str, await paths(store))) == ["/1", "/2", "/3", "/5"]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batches=st.lists(st.lists(st.integers(1, 30), max_size=12), max_size=8))
async def test_any_order_of_delivery_keeps_each_number_once(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]]
) -> None:
    """Goal: what is accepted over all batches is the set of all numbers, each of them once."""
    opened = SqliteStore.open(str(tmp_path_factory.mktemp("s") / "needfire.sqlite"))
    try:
        accepted: list[object] = []
        for batch in batches:
            reports = [incoming(number) for number in batch]
            result = await opened.ingest("web1", STREAM, reports, received_us=NOW_US)
            accepted += [each.fields["path"] for each in result.accepted]
            assert len(result.accepted) + result.duplicates == len(batch)
        numbers = {number for batch in batches for number in batch}
        assert sorted(map(str, accepted)) == sorted(f"/{number}" for number in numbers)
        assert accepted == await paths(opened)
    finally:
        opened.close()


async def test_an_unusable_report_is_kept_raw_and_counts_as_come(
    store: SqliteStore, tmp_path: Path
) -> None:
    reports = [incoming(1), unusable(2, b"\x00raw"), incoming(3)]
    result = await store.ingest("web1", STREAM, reports, received_us=NOW_US)
    assert (len(result.accepted), result.gap) == (2, None)
    again = await store.ingest("web1", STREAM, reports, received_us=NOW_US)
    assert again.duplicates == 3
    connection = sqlite3.connect(tmp_path / "needfire.sqlite")
    rows = connection.execute("SELECT client, sequence, body, problem FROM unusable_reports")
    assert rows.fetchall() == [("web1", 2, b"\x00raw", "not decodable")]
    connection.close()


@pytest.mark.parametrize("sequence", [1, 2**63 - 1])
async def test_the_first_and_the_last_number_are_taken(store: SqliteStore, sequence: int) -> None:
    result = await store.ingest("web1", STREAM, [incoming(sequence)], received_us=NOW_US)
    assert len(result.accepted) == 1


@pytest.mark.parametrize("sequence", [0, -1, 2**63, 2**64 - 1])
async def test_a_number_out_of_range_takes_nothing_of_the_batch(
    store: SqliteStore, sequence: int
) -> None:
    with pytest.raises(FormatError):
        await store.ingest("web1", STREAM, [incoming(1), incoming(sequence)], received_us=NOW_US)
    assert await store.last_rowid() == 0


@pytest.mark.parametrize("length", [0, 15, 17])
async def test_a_stream_has_sixteen_bytes(store: SqliteStore, length: int) -> None:
    with pytest.raises(FormatError):
        await store.ingest("web1", bytes(length), [incoming(1)], received_us=NOW_US)


async def test_fields_come_back_as_they_were(store: SqliteStore) -> None:
    said = event(
        path="/tmp/\\x1b[31m ünï", size_new=2**64 - 1, size_old=-(2**63), flag=True, no=None
    )
    await store.ingest("web1", STREAM, [incoming(1, said)], received_us=NOW_US)
    [(_, stored)] = await store.query_events(EventQuery())
    assert stored == said.received("web1", NOW_US)
