"""What leaves the store because of its age, in which steps, and how that is told."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.errors import StorageError
from needfire_protocol.event import format_time
from needfire_server.config import ServerSettings
from needfire_server.open_alarms import open_alarms
from needfire_server.outputs.settings import TargetKind
from needfire_server.retention import Hold, Retention, count_held, remove_expired, retention_s
from needfire_server.storage.base import EventQuery, Expired, ExpiryBite
from needfire_server.storage.expiry import EXPIRING
from needfire_server.storage.store import DatabaseStore
from needfire_testkit.live_server import live_server
from needfire_testkit.output_doubles import settings_of
from needfire_testkit.server import until
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
    await store.record(event("STORE_RECOVERED", time_us=1 * S))
    await ingest(store, 1, 1, received_us=1 * S)
    await remove_expired(store, KEEP | {"alarm": 5}, now_us=100 * S)
    assert await remaining(store, before_rowid=5) == [1, 4]


@pytest.mark.parametrize("rows_max", [1, 2, 100])
async def test_an_alarm_that_holds_does_not_expire(store: DatabaseStore, rows_max: int) -> None:
    async def listed() -> list[tuple[str, str, str, str, int]]:
        return [
            (
                each.code,
                each.client,
                format_time(each.since_us),
                format_time(each.last_us),
                each.count,
            )
            for each in (await open_alarms(store)).alarms()
        ]

    clones = [event("CLONE_DETECTED", time_us=n * S, client="web1") for n in range(1, 5)]
    other = event("CLONE_DETECTED", time_us=5 * S, client="web2")
    for each in (
        *clones,
        event("STORE_FAILED", time_us=5 * S),
        event("STORE_RECOVERED", time_us=6 * S),
    ):
        await store.record(each)
    await store.record(other)
    limits = KEEP | {"alarm": 5}
    [told] = await remove_expired(store, limits, now_us=100 * S, rows_max=rows_max)
    assert told.fields["count"] == 4, "what came between, and the one that ended"
    assert await remaining(store, event_class=EventClass.ALARM) == [1, 4, 7]
    assert await listed() == [
        ("CLONE_DETECTED", "web1", format_time(1 * S), format_time(4 * S), 2),
        ("CLONE_DETECTED", "web2", format_time(5 * S), format_time(5 * S), 1),
    ]
    await store.record(
        event("ALARM_CLEARED", time_us=99 * S, client="web1", alarm="CLONE_DETECTED", about="")
    )
    await remove_expired(store, limits, now_us=102 * S, rows_max=rows_max)
    assert [client for _, client, *_ in await listed()] == ["web2"]
    assert 1 not in await remaining(store)


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


# ---- what outputs have not sent -----------------------------------------------------


@pytest.mark.parametrize(("age_s", "kept"), [(10, 5), (11, 3), (15, 3), (16, 0)])
async def test_what_an_output_has_not_sent_is_kept_for_a_bounded_time_longer(
    store: DatabaseStore, age_s: int, kept: int
) -> None:
    await ingest(store, 1, 5, received_us=1_000 * S)
    hold = Hold({"slow": 2, "fast": 4}, extra_s=5)
    limits, moment_us = KEEP | {"integrity": 10}, (1_000 + age_s) * S
    await remove_expired(store, limits, now_us=moment_us, rows_max=2, hold=hold)
    assert len(await remaining(store, event_class=EventClass.INTEGRITY)) == kept
    held = await count_held(store, limits, hold, now_us=moment_us, rows_max=2)
    assert held == ({"slow": 3, "fast": 1} if kept == 3 else {})


async def test_done_commands_wait_for_no_output(store: DatabaseStore) -> None:
    done = await store.queue_command("web1", "scan", "ann", 1)
    await store.acknowledge_command(done, "done", "", 2 * S)
    hold = Hold({"slow": 0}, extra_s=1_000)
    [told] = await remove_expired(store, KEEP | {"commands": 5}, now_us=100 * S, hold=hold)
    assert told.fields["what"] == "commands"


async def test_retention_waits_for_an_output_that_is_away_and_says_so(tmp_path: Path) -> None:
    """Through the server's own parts: nothing is dropped, and the alarm comes and goes."""
    target = tmp_path / "away" / "target"
    output = settings_of(name="siem", kind=TargetKind.FILE, where=str(target))
    async with live_server(tmp_path / "data", retain_integrity_s=100) as live:
        runtime, store = live.runtime, live.runtime.store
        await runtime.outputs.begin([output])
        work = asyncio.create_task(runtime.outputs.run())
        retention = Retention(runtime)
        await ingest(store, 1, 7, received_us=1_000 * S)  # type: ignore[arg-type]
        runtime.outputs.notify()
        await live.until_said("OUTPUT_FAILED")
        await retention.round(2_000 * S)
        await retention.round(2_000 * S)
        told = await live.until_said("OUTPUT_EVENTS_HELD")
        assert (told.fields["output"], told.fields["count"]) == ("siem", 7)
        assert live.codes().count("OUTPUT_EVENTS_HELD") == 1
        assert [each.held for each in await runtime.outputs.status()] == [7]
        target.parent.mkdir()
        await until(lambda: target.exists() and len(target.read_text().splitlines()) == 7, "all")
        await until_sent(live, 7)
        await retention.round(2_000 * S)
        await live.until_said("OUTPUT_EVENTS_RELEASED")
        assert await live.stored(event_class=EventClass.INTEGRITY) == []
        [status] = await runtime.outputs.status()
        assert (status.sent, status.dropped, status.held) == (7, 0, 0)
        paths = {json.loads(line)["fields"]["path"] for line in target.read_text().splitlines()}
        assert paths == {f"/{n}" for n in range(1, 8)}
        await runtime.outputs.stop()
        work.cancel()


@pytest.mark.parametrize("why", ["no room", "beyond the limit", "switched off"])
async def test_what_is_removed_before_it_was_sent_is_counted_and_told(
    tmp_path: Path, why: str
) -> None:
    target = tmp_path / "away" / "target"
    output = settings_of(name="siem", kind=TargetKind.FILE, where=str(target))
    settings: dict[str, Any] = {"retain_for_outputs_s": 0} if why == "switched off" else {}
    async with live_server(tmp_path / "data", retain_integrity_s=100, **settings) as live:
        runtime = live.runtime
        await runtime.outputs.begin([output])
        work = asyncio.create_task(runtime.outputs.run())
        await ingest(runtime.store, 1, 7, received_us=1_000 * S)  # type: ignore[arg-type]
        runtime.outputs.notify()
        await live.until_said("OUTPUT_FAILED")
        runtime.journal.has_no_room = why == "no room"
        later_s = 7 * DAY_S if why == "beyond the limit" else 0
        await Retention(runtime).round((2_000 + later_s) * S)
        target.parent.mkdir()
        lost = await live.until_said("OUTPUT_EVENTS_LOST")
        assert lost.fields["count"] == 7
        assert "OUTPUT_EVENTS_HELD" not in live.codes()
        await runtime.outputs.stop()
        work.cancel()


async def until_sent(live: Any, count: int) -> None:
    async with asyncio.timeout(15):
        while (await live.runtime.outputs.status())[0].sent < count:
            await asyncio.sleep(0.01)
