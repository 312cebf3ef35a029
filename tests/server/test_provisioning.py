"""What a server tells of changes is in their order, told once, and complete without the secrets."""

import asyncio
import json
from pathlib import Path
from typing import Any

from needfire_protocol.event import Event
from needfire_server.config import ServerSettings
from needfire_server.provisioning import Provisioning
from needfire_server.storage.base import EventQuery
from needfire_testkit.live_server import LiveServer, live_server


def settings(sha256: str, **in_force: str) -> ServerSettings:
    return ServerSettings(
        source="/etc/serverrc",
        sha256=sha256,
        in_force={name: [value] for name, value in in_force.items()},
    )


async def stored(live: LiveServer, code: str) -> list[Event]:
    return [event for _, event in await live.runtime.store.query_events(EventQuery(code=code))]


def started_again(live: LiveServer) -> Provisioning:
    runtime = live.runtime
    return Provisioning(runtime.store, runtime.journal, runtime.data_files.directory)


async def test_a_reload_before_the_start_is_told_waits_for_it(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        await started_again(live).started(settings("a", ConnectionLimit="1"))
        again = started_again(live)
        reload = asyncio.ensure_future(again.configured(settings("c", ConnectionLimit="3")))
        await again.started(settings("b", ConnectionLimit="2"))
        await reload
        changes: list[Any] = [
            json.loads(str(event.fields["changes"]))["ConnectionLimit"]
            for event in await stored(live, "SETTINGS_CHANGED")
        ]
        assert changes == [["1", "2"], ["2", "3"]]


async def test_a_file_in_which_only_a_secret_differs_is_told(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        told = started_again(live)
        await told.started(settings("a", OutputTarget="webhook https://h/***"))
        await told.configured(settings("a", OutputTarget="webhook https://h/***"))
        assert await stored(live, "SETTINGS_CHANGED") == []
        await told.configured(settings("b", OutputTarget="webhook https://h/***"))
        [event] = await stored(live, "SETTINGS_CHANGED")
        shown = {name: event.fields[name] for name in ("changed", "changes", "hash", "hash_old")}
        assert shown == {"changed": 0, "changes": "{}", "hash": "sha256:b", "hash_old": "sha256:a"}


async def test_other_settings_of_the_same_file_are_told(tmp_path: Path) -> None:
    """A condition that holds for this host now."""
    async with live_server(tmp_path) as live:
        told = started_again(live)
        await told.started(settings("a", ConnectionLimit="1"))
        await told.configured(settings("a", ConnectionLimit="2"))
        assert [each.fields["changed"] for each in await stored(live, "SETTINGS_CHANGED")] == [1]


async def test_that_the_audit_log_is_signed_again_is_told_once_by_whichever_run_sees_it(
    tmp_path: Path,
) -> None:
    async with live_server(tmp_path) as live:
        await started_again(live).audit_log_signed(True, is_told=False)
        first = started_again(live)
        await first.audit_log_signed(False, is_told=False)
        await first.audit_log_signed(True, is_told=True)
        await started_again(live).audit_log_signed(True, is_told=False)
        assert await stored(live, "AUDIT_LOG_SIGNED") == []
        await started_again(live).audit_log_signed(False, is_told=False)
        again = started_again(live)
        await again.audit_log_signed(True, is_told=False)
        await again.audit_log_signed(True, is_told=False)
        assert len(await stored(live, "AUDIT_LOG_SIGNED")) == 1


async def test_a_client_with_another_version_at_each_log_in_is_told_of_a_few_times(
    tmp_path: Path,
) -> None:
    async with live_server(tmp_path) as live:
        for number in range(40):
            await live.runtime.provisioning.agent_seen("web1", f"1.{number}")
            await live.runtime.provisioning.agent_seen("web2", "1.0")
        await live.runtime.provisioning.agent_seen("web2", "2.0")
        told = [each.fields["client"] for each in await live.stored(code="SOFTWARE_CHANGED")]
        assert (told.count("web1"), told.count("web2")) == (5, 1)
