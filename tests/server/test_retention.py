"""What leaves the store because of its age, in which steps, and how that is told."""

import asyncio
from typing import Any

import pytest

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.errors import StorageError
from needfire_server.config import ServerSettings
from needfire_server.retention import remove_expired, retention_s
from needfire_server.storage.base import EventQuery, Expired, ExpiryBite
from needfire_server.storage.expiry import EXPIRING
from needfire_server.storage.store import DatabaseStore
from needfire_testkit.server_store import STREAM, event, incoming, unusable

S = 1_000_000
DAY_S = 86_400
KEEP = dict.fromkeys(EXPIRING, 10**6)


async def ingest(store: DatabaseStore, first: int, count: int, received_us: int) -> None:
    batch = [incoming(n, event(time_us=1, path=f"/{n}")) for n in range(first, first + count)]
    await store.ingest("web1", STREAM, batch, received_us=received_us)


async def remaining(store: DatabaseStore, **query: Any) -> list[int]:
    return [row_id for row_id, _ in await store.query_events(EventQuery(limit=1_000, **query))]


async def test_the_settings_say_how_long_each_kind_is_kept() -> None:
    limits = retention_s(ServerSettings(retain_alarm_s=7, retain_integrity_s=8))
    assert limits.keys() == set(EXPIRING)
    assert (limits["alarm"], limits["integrity"], limits["unusable_reports"]) == (7, 8, 8)
    assert (limits["traffic"], limits["commands"]) == (DAY_S, 180 * DAY_S)


@pytest.mark.parametrize(("age_s", "kept"), [(9, 1), (10, 1), (11, 0)])
async def test_what_is_older_than_its_limit_goes(
    store: DatabaseStore, age_s: int, kept: int
) -> None:
    """Goal: how long the server has had it counts, not what the clock of a host said."""
    await ingest(store, 1, 1, received_us=1_000 * S)
    await remove_expired(store, KEEP | {"integrity": 10}, now_us=(1_000 + age_s) * S)
    assert len(await remaining(store, event_class=EventClass.INTEGRITY)) == kept


async def test_each_class_has_its_own_limit(store: DatabaseStore) -> None:
    await store.record(event("SERVER_UP", time_us=1 * S))
    await store.record(event("STORE_FAILED", time_us=1 * S))
    await ingest(store, 1, 1, received_us=1 * S)
    await remove_expired(store, KEEP | {"alarm": 5}, now_us=100 * S)
    assert await remaining(store, before_rowid=4) == [1, 3]


async def test_what_was_removed_is_told_once_in_the_same_store(store: DatabaseStore) -> None:
    await ingest(store, 1, 7, received_us=1 * S)
    await ingest(store, 8, 3, received_us=2 * S)
    limits = KEEP | {"integrity": 5}
    [told] = await remove_expired(store, limits, now_us=100 * S, rows_max=4)
    assert told.code == "RECORDS_EXPIRED"
    assert (told.fields["what"], told.fields["count"]) == ("integrity", 10)
    assert told.fields["oldest"] == "1970-01-01T00:00:01.000000Z"
    assert told.fields["newest"] == "1970-01-01T00:00:02.000000Z"
    assert [each for _, each in await store.query_events(EventQuery())] == [told]
    assert await remove_expired(store, limits, now_us=100 * S) == []
    # The number of the newest event is never given to another one.
    assert await remaining(store) == [11]


async def test_a_step_looks_at_no_more_rows_than_it_was_told(store: DatabaseStore) -> None:
    await ingest(store, 1, 5, received_us=1 * S)
    first = await store.expire("integrity", before_us=9 * S, from_row=0, rows_max=3)
    assert first == ExpiryBite(3, 4)
    assert await remaining(store) == [4, 5]
    second = await store.expire("integrity", before_us=9 * S, from_row=4, rows_max=3)
    assert second == ExpiryBite(2, None)


async def test_a_wrong_clock_for_a_moment_does_not_stop_it(store: DatabaseStore) -> None:
    await ingest(store, 1, 1, received_us=10_000 * S)
    await ingest(store, 2, 5, received_us=1 * S)
    await remove_expired(store, KEEP | {"integrity": 5}, now_us=100 * S, rows_max=2)
    assert await remaining(store, event_class=EventClass.INTEGRITY) == [1]


async def test_what_was_removed_before_a_crash_is_told_after_it(store: DatabaseStore) -> None:
    await ingest(store, 1, 3, received_us=1 * S)
    await store.expire("integrity", before_us=9 * S, from_row=0, rows_max=2)
    await store.expire("integrity", before_us=9 * S, from_row=0, rows_max=2)
    [told] = await remove_expired(store, KEEP, now_us=100 * S)
    assert told.fields["count"] == 3


async def test_a_telling_that_fails_is_told_the_next_time(store: DatabaseStore) -> None:
    await ingest(store, 1, 3, received_us=1 * S)
    await store.expire("integrity", before_us=9 * S, from_row=0, rows_max=10)

    def fails(_expired: Expired) -> Any:
        raise StorageError("no")

    with pytest.raises(StorageError):
        await store.tell_expired(fails)
    [told] = await remove_expired(store, KEEP, now_us=100 * S)
    assert told.fields["count"] == 3


async def test_unreadable_reports_and_done_commands_go_too(store: DatabaseStore) -> None:
    await store.ingest("web1", STREAM, [unusable(1)], received_us=1 * S)
    done = await store.queue_command("web1", "scan", "ann", 1)
    await store.acknowledge_command(done, "done", "", 2 * S)
    await store.queue_command("web1", "reload", "ann", 1, 3 * S)
    waits = await store.queue_command("web1", "stop", "ann", 1)
    limits = KEEP | {"commands": 5, "unusable_reports": 5}
    told = await remove_expired(store, limits, now_us=100 * S)
    assert [(each.fields["what"], each.fields["count"]) for each in told] == [
        ("commands", 2),
        ("unusable_reports", 1),
    ]
    assert [each.id for each in await store.pending_commands("web1", 4)] == [waits]
    again = await store.ingest("web1", STREAM, [unusable(1)], received_us=1 * S)
    assert (again.accepted, again.gap) == ((), None)


async def test_reports_are_taken_between_the_steps(store: DatabaseStore) -> None:
    await ingest(store, 1, 50, received_us=1 * S)
    removing = asyncio.ensure_future(
        remove_expired(store, KEEP | {"integrity": 5}, now_us=100 * S, rows_max=1)
    )
    await ingest(store, 51, 1, received_us=100 * S)
    assert not removing.done()
    [told] = await removing
    assert told.fields["count"] == 50
