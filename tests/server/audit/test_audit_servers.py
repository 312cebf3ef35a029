"""Several servers that share a database have one audit log."""

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from needfire_protocol.audit.verdict import Verdict
from needfire_protocol.audit.verify import verify
from needfire_server.audit.log import AuditLog
from needfire_server.storage.audit_base import AuditHead, StoredCheckpoint
from needfire_server.storage.store import DatabaseStore
from needfire_testkit.audit_store import drafts, nothing, opened
from needfire_testkit.postgres import PostgresServer
from needfire_testkit.server_store import event
from needfire_testkit.stores import StorePlace

Server = tuple[DatabaseStore, AuditLog]


@pytest.fixture
def shared(postgres: PostgresServer, tmp_path: Path) -> StorePlace:
    """A database in which no log was begun."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir(mode=0o700)
    return StorePlace(tmp_path, postgres, postgres.emptied_database())


@asynccontextmanager
async def both(shared: StorePlace) -> AsyncIterator[tuple[Server, Server]]:
    """Open the database for two servers, one after the other, and a log for each."""
    async with (
        opened(shared, shared.directory / "first") as first,
        opened(shared, shared.directory / "second") as second,
    ):
        yield first, second


async def share_key(shared: StorePlace) -> None:
    """Let the first server begin the log, and give its key to the second."""
    async with opened(shared, shared.directory / "first"):
        pass
    shutil.copytree(shared.directory / "first" / "audit", shared.directory / "second" / "audit")


async def test_servers_that_share_a_database_continue_one_log(shared: StorePlace) -> None:
    async with both(shared) as ((store, first), (other_store, second)):
        # One of them has the key: the other records, and shows what is signed.
        assert (first.key_trouble is None, second.key_trouble is None) == (True, False)
        items = [(event("SERVER_UP"), draft) for draft in drafts(60)]
        await asyncio.gather(
            *(each.record_all([item]) for item in items for each in (store, other_store))
        )
        made = await first.checkpoint()
        assert made is not None
        assert made.size == 1 + 120
        assert await second.checkpoint() == made
        assert second.shown is not None
        assert second.shown.checkpoint == made
        for log in (first, second):
            result = await log.check_all()
            assert result is not None
            assert (result.finding, result.records) == (None, 121)


async def test_servers_that_all_have_the_key_sign_in_turns(shared: StorePlace) -> None:
    await share_key(shared)
    async with both(shared) as ((_, first), (_, second)):
        for log in (first, second) * 3:
            await log.append(*drafts(2))
            await asyncio.gather(first.checkpoint(), second.checkpoint())
        closing = await first.checkpoint()
        assert closing is not None
        assert closing.size == 13
        assert closing == await second.checkpoint()
        assert verify(first.lines(closing), first.public_keys()).finding is None
        assert second.finding is None


async def test_a_key_that_another_server_changed_is_followed(shared: StorePlace) -> None:
    async with both(shared) as ((_, first), (_, second)):
        new = await first.rotate("root")
        made = await second.checkpoint()
        assert second.public_keys()[-1] == new
        assert second.shown is not None
        assert (second.shown.checkpoint, second.shown.key) == (made, str(new))


async def test_what_a_key_signs_behind_its_handover_is_not_kept(
    shared: StorePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second server looks which key is the latest, and then the first one changes it."""
    await share_key(shared)
    async with both(shared) as ((_, first), (store, second)):
        head = store.audit.head

        async def rotated_head() -> AuditHead:
            monkeypatch.setattr(first, "checkpoint", nothing)
            await first.rotate("root")
            return await head()

        with monkeypatch.context() as patched:
            patched.setattr(store.audit, "head", rotated_head)
            await second.checkpoint()
        monkeypatch.undo()
        await second.checkpoint()
        assert "No such file" in str(second.key_trouble)
        await first.checkpoint()
        for log in (first, second):
            result = await log.check_all()
            assert result is not None
            assert result.finding is None


async def test_a_server_shows_at_once_what_another_one_signed_if_it_is_told_to_look(
    shared: StorePlace,
) -> None:
    async with both(shared) as ((_, first), (store, second)):
        await first.rotate("root")
        looks = Counter[str]()
        ask = store.audit.last_checkpoint

        async def counted() -> StoredCheckpoint | None:
            looks["asked"] += 1
            return await ask()

        store.audit.last_checkpoint = counted  # type: ignore[method-assign]
        await asyncio.gather(*(second.catch_up() for _ in range(50)))
        assert second.shown == first.shown
        assert looks["asked"] <= 2


async def test_servers_that_begin_at_the_same_time_make_one_key(
    shared: StorePlace, tmp_path: Path
) -> None:
    places = [tmp_path / "first", tmp_path / "second"]
    stores = [shared.open(directory=each) for each in places]
    logs = await asyncio.gather(
        *(AuditLog.open(s.audit, str(d)) for s, d in zip(stores, places, strict=True))
    )
    assert logs[0].public_keys() == logs[1].public_keys()
    assert [log.key_trouble is None for log in logs].count(True) == 1
    assert len(list(tmp_path.glob("*/audit/*.key"))) == 1
    for store in stores:
        store.close()


async def test_what_is_changed_in_postgresql_under_a_running_server_is_noticed(
    shared: StorePlace, tmp_path: Path
) -> None:
    async with opened(shared, tmp_path / "first") as (_store, log):
        await log.append(*drafts(50))
        await log.checkpoint()
        assert await log.check_recent() is None
        shared.run("DELETE FROM audit_records WHERE number = 20")
        finding = await log.check_recent()
        assert finding is not None
        assert (finding.verdict, finding.first) == (Verdict.REMOVED, 20)
