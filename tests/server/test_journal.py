"""What becomes of the server's own events while the store cannot take them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from needfire_protocol.audit.record import parse_record
from needfire_server import journal
from needfire_testkit.live_server import live_server


async def test_events_that_cannot_wait_for_the_store_are_counted_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_WAITING_MAX", 10)
    async with live_server(tmp_path) as live:
        store, raise_event = live.runtime.store, live.runtime.journal.raise_event
        may_go_on, record_all = asyncio.Event(), store.record_all

        async def stands_still(items: Any) -> None:
            await may_go_on.wait()
            await record_all(items)

        monkeypatch.setattr(store, "record_all", stands_still)
        for number in range(25):
            raise_event("CLIENT_RETURNED", client=f"web{number}")
        storing = asyncio.create_task(live.runtime.journal.store_waiting(store))
        may_go_on.set()
        assert (await live.until_said("EVENTS_NOT_STORED")).fields["count"] == 15
        await live.runtime.journal.flush(10)
        stored = [event.code for event in await live.stored()]
        assert stored.count("CLIENT_RETURNED") == 10
        assert stored[-1] == "EVENTS_NOT_STORED"
        lines = [line for _, line in store.audit.records_now(0, 100)]
        recorded = [parse_record(line).draft.code for line in lines]
        assert recorded.count("CLIENT_RETURNED") == 10
        assert recorded[-1] == "EVENTS_NOT_STORED"
        storing.cancel()
