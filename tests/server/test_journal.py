"""What becomes of the server's own events while the store cannot take them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from needfire_protocol.audit.record import parse_record
from needfire_server import journal
from needfire_server.event_classes import SWITCHABLE, ClassSettings
from needfire_server.logbook import STRANGER_BURST
from needfire_testkit.live_server import LiveServer, live_server


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


@pytest.mark.parametrize("is_suspended", [False, True])
async def test_a_class_that_is_switched_off_is_on_record_all_the_same(
    tmp_path: Path, is_suspended: bool
) -> None:
    async with live_server(tmp_path) as live:
        speaker = live.runtime.journal
        speaker.classes = ClassSettings(frozenset(SWITCHABLE), frozenset(SWITCHABLE), is_suspended)
        refusals = ("AUTHZ_FAIL", "SESSION_KEY_MISMATCH", "NOT_IN_CLIENT_LIST")
        who = {"user": "eve", "resource": "audit", "operation": "show", "role": "Auditors"}
        for code in refusals:
            speaker.raise_event(code, client="web1", peer="192.0.2.1:5000", **who)
        storing = asyncio.create_task(speaker.store_waiting(live.runtime.store))
        await speaker.flush(10)
        storing.cancel()
        assert tuple(recorded(live)[-len(refusals) :]) == refusals
        # Out of the log and of the store.
        assert "192.0.2.1" not in (tmp_path / "log").read_text()
        assert not set(refusals) & {event.code for event in await live.stored()}


async def test_what_is_switched_off_and_not_recorded_is_nothing(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        speaker = live.runtime.journal
        speaker.classes = ClassSettings(frozenset(SWITCHABLE))
        assert speaker.raise_event("NEW_CONNECTION", peer="192.0.2.1:5000") is None


async def test_a_stranger_fills_no_audit_log_with_what_is_switched_off(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        speaker = live.runtime.journal
        speaker.classes = ClassSettings(frozenset(SWITCHABLE))
        for number in range(STRANGER_BURST + 20):
            speaker.raise_event("SESSION_KEY_MISMATCH", client="web1", peer=f"192.0.2.1:{number}")
        storing = asyncio.create_task(speaker.store_waiting(live.runtime.store))
        await speaker.flush(10)
        storing.cancel()
        count = recorded(live).count("SESSION_KEY_MISMATCH")
        # A slow machine may refill one or the other meanwhile.
        assert STRANGER_BURST <= count < STRANGER_BURST + 20


def recorded(live: LiveServer) -> list[str]:
    lines = [line for _, line in live.runtime.store.audit.records_now(0, 1_000)]
    return [parse_record(line).draft.code for line in lines]
