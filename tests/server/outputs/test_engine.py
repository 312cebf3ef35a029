"""All outputs of a server: begun, changed and ended as the configuration says, on a real store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path

import pytest

from needfire_protocol.errors import StorageError
from needfire_protocol.event import Event, FieldValue, make_event
from needfire_server.outputs.engine import OutputEngine
from needfire_server.outputs.settings import OutputSettings
from needfire_server.outputs.worker import WorkerState
from needfire_server.storage.output_cursors import CursorStore, OutputCursor
from needfire_server.storage.sqlite import SqliteStore
from needfire_testkit.output_doubles import MemoryStore, ScriptedSink, settings_of
from needfire_testkit.server import until
from needfire_testkit.server_store import event


@dataclass
class Run:
    """An engine at work."""

    engine: OutputEngine
    sink: ScriptedSink
    raised: list[Event] = field(default_factory=list)


@asynccontextmanager
async def running(
    store: SqliteStore | MemoryStore, *outputs: OutputSettings, sink: ScriptedSink | None = None
) -> AsyncIterator[Run]:
    behind = sink or ScriptedSink()
    run: Run

    def raise_event(code: str, /, **fields: FieldValue) -> None:
        run.raised.append(make_event(code, time_us=1, random_10_bytes=bytes(10), **fields))

    kept = store if isinstance(store, MemoryStore) else CursorStore(store)
    run = Run(OutputEngine(kept, raise_event=raise_event, make_target=behind.make), behind)
    await run.engine.begin(outputs)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run.engine.run())
        try:
            yield run
        finally:
            await run.engine.stop()
            task.cancel()


def quiet(_code: str, /, **_fields: FieldValue) -> None:
    """Nobody listens."""


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore.open(str(tmp_path / "needfire.sqlite"))


async def test_a_new_output_begins_with_what_is_stored_after_it(store: SqliteStore) -> None:
    await store.record(event(path="/before"))
    new = event(path="/after")
    async with running(store, settings_of()) as run:
        await store.record(new)
        run.engine.notify()
        await until(lambda: run.sink.got, "the event")
    assert run.sink.got == [new]
    assert await store.output_cursors() == [OutputCursor("out", 2, 2, sent=1)]
    store.close()


async def test_what_was_stored_between_the_configuration_and_the_start_is_sent(
    store: SqliteStore,
) -> None:
    engine = OutputEngine(CursorStore(store), raise_event=quiet)
    await engine.begin([settings_of()])
    await store.record(event())
    async with running(store, settings_of()) as run:
        await until(lambda: run.sink.got, "the event")
    store.close()


async def test_an_output_that_did_not_change_is_not_disturbed(store: SqliteStore) -> None:
    same, other = settings_of(name="same"), settings_of(name="other")
    async with running(store, same, other) as run:
        await until(lambda: len(run.engine._running) == 2, "both")
        before = run.engine._running["same"].worker
        run.engine.configure([same, replace(other, format="cef"), settings_of(name="new")])
        await until(lambda: len(run.engine._running) == 3, "three")
        assert run.engine._running["same"].worker is before
        assert [each.format for each in await run.engine.status()] == ["json", "cef", "json"]
        run.engine.configure([same])
        await until(lambda: len(run.engine._running) == 1, "one")
    store.close()


async def test_an_output_that_comes_back_goes_on_where_it_was(store: SqliteStore) -> None:
    async with running(store, settings_of()) as run:
        await store.record(event())
        run.engine.notify()
        await until(lambda: run.sink.got, "the event")
        run.engine.configure([])
        await until(lambda: not run.engine._running, "no output")
        await store.record(event())
        run.engine.configure([settings_of()])
        await until(lambda: len(run.sink.got) == 2, "what was stored meanwhile")
    assert not any("resent" in each.fields for each in run.sink.got)
    store.close()


async def test_one_output_that_is_away_does_not_hold_up_another(store: SqliteStore) -> None:
    away, works = ScriptedSink(script=repeat("away")), ScriptedSink()
    engine = OutputEngine(
        CursorStore(store),
        raise_event=quiet,
        make_target=lambda settings, lost: (away if settings.name == "away" else works).make(
            settings, lost
        ),
    )
    await engine.begin([settings_of(name="away"), settings_of(name="works")])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(engine.run())
        for _ in range(300):
            await store.record(event())
        engine.notify()
        await until(lambda: len(works.got) == 300, "all at the one that works")
        found = {each.name: each for each in await engine.status()}
        assert found["away"].state is WorkerState.AWAY
        assert (found["away"].waiting, found["works"].waiting) == (300, 0)
        await engine.stop()
        task.cancel()
    store.close()


async def test_a_test_uses_a_connection_of_its_own_and_touches_no_counter(
    store: SqliteStore,
) -> None:
    async with running(store, settings_of()) as run:
        await until(lambda: run.engine._running, "the output")
        record = event()
        result = await run.engine.send_now("out", record)
        assert result is not None
        assert (result.reason, result.is_certain) == ("", True)
        assert run.sink.got == [record]
        [status] = await run.engine.status()
        assert (status.sent, status.waiting) == (0, 0)
        assert await run.engine.send_now("nothing", record) is None
        run.sink.script = iter(["away"])
        failed = await run.engine.send_now("out", record)
        assert failed is not None
        assert failed.reason == "as the script says"
    store.close()


async def test_outputs_begin_as_soon_as_the_store_can_be_read() -> None:
    store = MemoryStore()
    async with running(store) as run:
        store.is_failing = True
        run.engine.configure([settings_of()])
        await asyncio.sleep(0.05)
        assert not run.engine._running
        store.is_failing = False
        await until(lambda: run.engine._running, "the output")


async def test_a_server_whose_turn_is_over_stops_sending_and_goes_on_when_it_is_chosen_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("needfire_server.outputs.engine.CHOICE_INTERVAL_S", 0.01)
    store = MemoryStore()
    async with running(store, settings_of()) as run:
        store.add(event())
        run.engine.notify()
        await until(lambda: len(run.sink.got) == 1, "the event")
        store.is_chosen = False
        await until(lambda: not run.engine._running, "no output")
        store.add(event())
        # Meanwhile the server whose turn it is has sent it.
        store.saved["out"] = OutputCursor("out", 2, 2, sent=2)
        store.add(last := event())
        store.is_chosen = True
        await until(lambda: len(run.sink.got) == 2, "what came after that")
    assert run.sink.got[-1] == last


async def test_who_does_not_hold_the_job_cannot_begin_a_delivery(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def somebody_else_has_it(_job: str) -> bool:
        return False

    monkeypatch.setattr(store, "holds", somebody_else_has_it)
    cursors = CursorStore(store)
    await cursors.save(OutputCursor("out", 0, 0))
    with pytest.raises(StorageError, match="another server"):
        await cursors.save(OutputCursor("out", 0, 1))
    store.close()


async def test_a_cursor_never_goes_back(store: SqliteStore) -> None:
    await store.save_output_cursor(OutputCursor("out", 5, 6, sent=3))
    await store.save_output_cursor(OutputCursor("out", 4, 9, sent=9))
    assert await store.output_cursors() == [OutputCursor("out", 5, 6, sent=3)]
    store.close()
    with pytest.raises(StorageError):
        await store.output_cursors()
