"""A record that a target refuses for good: found, set aside, told of, and seen to by a person."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from needfire_protocol.event import Event, FieldValue, make_event
from needfire_server.outputs import worker as worker_module
from needfire_server.outputs.backoff import Backoff
from needfire_server.outputs.engine import OutputEngine, Retried
from needfire_server.outputs.second_chances import AFTER_S, RECORDS_MAX, SecondChances
from needfire_server.outputs.settings import MailSettings, OutputSettings, TargetKind
from needfire_server.outputs.suspects import REFUSALS_MAX, SOURCES_MAX, Suspects
from needfire_server.outputs.target import RefusedError
from needfire_server.outputs.targets import make_target
from needfire_server.outputs.worker import Worker, WorkerState
from needfire_server.storage.output_cursors import CursorStore, OutputCursor, Skipped
from needfire_server.storage.store import DatabaseStore
from needfire_testkit.output_doubles import MemoryStore, ScriptedSink, settings_of
from needfire_testkit.server import until
from needfire_testkit.server_store import event
from needfire_testkit.sinks import Sink


@dataclass
class Bench:
    """A worker on a store in memory, and what it announced."""

    sink: ScriptedSink
    store: MemoryStore = field(default_factory=MemoryStore)
    raised: list[str] = field(default_factory=list)
    backoff: Backoff = field(default_factory=lambda: Backoff(first_s=0.0))
    now_s: float = 1_000.0

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Worker]:
        worker = Worker(
            settings_of(),
            OutputCursor("out", 0, 0),
            self.store,
            make_target=self.sink.make,
            raise_event=lambda code, /, **_fields: self.raised.append(code),
            backoff=self.backoff,
            clock_s=lambda: self.now_s,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run())
            try:
                yield worker
            finally:
                worker.stop()


def paths(events: list[Event]) -> list[FieldValue]:
    return [each.fields["path"] for each in events]


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 230), st.sets(st.integers(0, 229), max_size=3))
async def test_whatever_is_refused_is_set_aside_and_the_rest_arrives_in_order(
    count: int, refused: set[int]
) -> None:
    poison = {f"/{n}" for n in refused if n < count}
    bench = Bench(ScriptedSink(poison=frozenset(poison)))
    bench.store.add(*(event(path=f"/{n}") for n in range(count)))
    async with bench.working() as worker:
        await until(lambda: worker.cursor.confirmed == count, "the end")
    assert paths(bench.sink.got) == [f"/{n}" for n in range(count) if f"/{n}" not in poison]
    assert set(paths([each.event for each in bench.store.skips.values()])) == poison
    assert worker.cursor.sent == count - len(poison)
    assert bench.raised.count("OUTPUT_RECORD_SKIPPED") == bool(poison), "the alarm is added once"


async def test_a_record_that_breaks_our_own_code_is_set_aside_too() -> None:
    bench = Bench(ScriptedSink())
    broken = replace(event(), fields={"no": "path"})
    bench.store.add(event(path="/1"), broken, event(path="/3"))
    async with bench.working() as worker:
        await until(lambda: worker.cursor.confirmed == 3, "the end")
    [skipped] = bench.store.skips.values()
    assert (skipped.number, skipped.reason) == (2, "internal error: KeyError: 'path'")


async def test_a_target_that_refuses_everything_is_waited_for_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "SKIPPED_MAX", 2)
    bench = Bench(ScriptedSink(poison=frozenset(f"/{n}" for n in range(12))))
    bench.store.add(*(event(path=f"/{n}").received(f"web{n % 4}", 1) for n in range(12)))
    async with bench.working() as worker:
        await until(lambda: len(bench.store.skips) == 8, "two of each")
        await until(lambda: worker.state is WorkerState.AWAY, "the rest")
        tries = bench.sink.opened
        await until(lambda: bench.sink.opened > tries + REFUSALS_MAX, "more tries")
        assert worker.cursor.confirmed == 8
        bench.sink.poison = frozenset()
        await until(lambda: worker.cursor.confirmed == 12, "the end")
    assert (len(bench.sink.got), len(bench.store.skips)) == (4, 8)
    assert bench.raised.count("OUTPUT_FAILED") == 1
    assert "OUTPUT_RECORDS_GIVEN_UP" not in bench.raised
    assert worker.cursor.dropped == 0


class NoBackoff(Backoff):
    """Notes that somebody wanted to wait."""

    asked = 0

    def failed(self, now_s: float, random_0_to_1: float) -> float:
        self.asked += 1
        return 0.0


@pytest.mark.parametrize("count", [1, 5, 200, 201])
async def test_a_client_whose_records_are_refused_holds_up_nobody_else_s(count: int) -> None:
    bench = Bench(ScriptedSink(poison=frozenset({"/poison"})))
    bench.backoff = NoBackoff()
    bench.store.add(*(event(path="/poison").received("web1", 1) for _ in range(count)))
    bench.store.add(*(event(path=f"/{n}").received("web2", 1) for n in range(3)))
    async with bench.working() as worker:
        await until(lambda: worker.cursor.confirmed == count + 3, "the honest ones")
        assert worker.state is WorkerState.WORKING
    assert paths(bench.sink.got) == ["/0", "/1", "/2"]
    assert len(bench.store.skips) == count
    assert bench.raised == ["OUTPUT_RECORD_SKIPPED"]
    assert bench.backoff.asked == 0


async def test_what_a_client_sends_beyond_its_room_is_given_up_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "SKIPPED_MAX", 3)
    bench = Bench(ScriptedSink(poison=frozenset({"/poison"})))
    names = ["web1", "web1/a", "web1/b", "web1", "web1", "web2", "web1"]
    bench.store.add(*(event(path="/poison").received(name, 1) for name in names))
    bench.store.add(event(path="/poison"), event(path="/honest").received("web3", 1))
    async with bench.working() as worker:
        await until(lambda: worker.cursor.confirmed == len(names) + 2, "the end")
    kept = [each.event.client for each in bench.store.skips.values()]
    assert kept == ["web1", "web1/a", "web1/b", "web2", None]
    assert (worker.cursor.dropped, bench.store.saved["out"].dropped) == (3, 3)
    assert bench.raised.count("OUTPUT_RECORDS_GIVEN_UP") == 1, "the first of three"
    assert paths(bench.sink.got) == ["/honest"]


async def test_a_flood_beyond_a_client_s_room_costs_the_others_few_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An agent may send a thousand records a second, and no target refuses as many one by one."""
    monkeypatch.setattr(worker_module, "SKIPPED_MAX", 3)
    bench = Bench(ScriptedSink(poison=frozenset({"/poison"})))
    bench.store.add(*(event(path="/poison").received("web1", 1) for _ in range(3_000)))
    bench.store.add(event(path="/honest").received("web2", 1))
    bench.store.add(*(event(path="/poison").received("web1", 1) for _ in range(3_000)))
    async with bench.working() as worker:
        await until(lambda: worker.cursor.confirmed == 6_001, "the end")
    assert paths(bench.sink.got) == ["/honest"]
    assert len(bench.store.skips) == 3
    assert (worker.cursor.dropped, bench.store.saved["out"].dropped) == (5_997, 5_997)
    assert bench.sink.opened < 600
    assert bench.raised.count("OUTPUT_RECORDS_GIVEN_UP") == 4, "at 1, 10, 100 and 1000"


async def test_of_a_client_without_room_only_what_is_refused_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "SKIPPED_MAX", 1)
    bench = Bench(ScriptedSink(poison=frozenset({"/poison"})))
    names = ["/poison", "/poison", "/1", "/poison", "/2", "/3", "/poison", "/4"]
    bench.store.add(*(event(path=name).received("web1", 1) for name in names))
    async with bench.working() as worker:
        await until(lambda: worker.cursor.confirmed == len(names), "the end")
    assert paths(bench.sink.got) == ["/1", "/2", "/3", "/4"]
    assert worker.cursor.dropped == 3


async def test_what_was_refused_by_mistake_is_taken_beside_those_that_follow() -> None:
    bench = Bench(ScriptedSink(poison=frozenset({"/1", "/2"})))
    bench.store.add(*(event(path=f"/{n}") for n in range(4)))
    async with bench.working() as worker:
        await until(lambda: worker.cursor.confirmed == 4, "the others")
        bench.sink.poison = frozenset({"/2"})
        bench.now_s += AFTER_S[0]
        worker.notify()
        await until(lambda: len(bench.store.skips) == 1, "the first of them")
        await until(lambda: worker._second_chances.wait_s(bench.now_s) == AFTER_S[1], "the second")
        assert "OUTPUT_SKIPPED_HANDLED" not in bench.raised
        bench.sink.poison = frozenset()
        bench.now_s += AFTER_S[1]
        worker.notify()
        await until(lambda: not bench.store.skips, "both")
    assert paths(bench.sink.got) == ["/0", "/3", "/1", "/2"]
    assert [each.fields.get("resent") for each in bench.sink.got[2:]] == [True, True]
    assert bench.raised == ["OUTPUT_RECORD_SKIPPED", "OUTPUT_SKIPPED_HANDLED"]
    assert bench.store.saved["out"].sent == 4


async def test_what_is_refused_each_time_is_left_to_a_person() -> None:
    bench = Bench(ScriptedSink(poison=frozenset({"/1"})))
    bench.store.add(event(path="/1"))
    async with bench.working() as worker:
        await until(lambda: worker.cursor.confirmed == 1, "the refusal")
        for wait_s in AFTER_S:
            tries = bench.sink.opened
            bench.now_s += wait_s
            worker.notify()
            await until(lambda tries=tries: bench.sink.opened > tries, "another try")  # type: ignore[misc]
        await until(lambda: worker._second_chances.wait_s(bench.now_s) is None, "the last one")
    assert len(bench.store.skips) == 1
    assert worker.state is WorkerState.STOPPED


async def test_a_record_that_a_person_gave_up_meanwhile_is_not_sent() -> None:
    bench = Bench(ScriptedSink(poison=frozenset({"/1"})))
    bench.store.add(event(path="/1"))
    async with bench.working() as worker:
        await until(lambda: worker.cursor.confirmed == 1, "the refusal")
        bench.sink.poison = frozenset()
        bench.store.skips.clear()
        bench.now_s += AFTER_S[0]
        worker.notify()
        await until(lambda: worker._second_chances.wait_s(bench.now_s) is None, "a look")
    assert bench.sink.got == []


def test_second_chances_are_bounded_and_come_in_order() -> None:
    chances = SecondChances()
    chances.add(1, 5.0, tries=1)
    chances.add(2, 5.0)
    assert chances.take(5.0 + AFTER_S[0] - 0.1) is None
    assert chances.wait_s(5.0) == AFTER_S[0]
    assert chances.take(5.0 + AFTER_S[0]) == (2, 1)
    assert chances.take(5.0 + AFTER_S[1]) == (1, 2)
    chances.add(3, 5.0, tries=len(AFTER_S))
    assert chances.wait_s(9.0) is None
    for number in range(RECORDS_MAX + 1):
        chances.add(number, 0.0)
    assert len(chances._due) == RECORDS_MAX


def test_one_refusal_makes_nothing_certain_where_the_target_may_be_to_blame() -> None:
    suspects = Suspects()
    numbered = [(n, event().received(f"web{n}", 1)) for n in range(1, 101)]
    assert not suspects.narrowed(numbered)
    assert (suspects.delivery_size(0, 200), suspects.delivery_size(100, 200)) == (50, 200)
    for n in range(SOURCES_MAX - 1):
        assert suspects.narrowed(numbered[n : n + 1])
        assert suspects.is_certain, "two clients say nothing of the target"
        assert not suspects.is_target_to_blame
    for n in (7, 8):
        assert suspects.narrowed(numbered[n : n + 1])
        assert not suspects.is_certain, "another one"
    for _ in range(REFUSALS_MAX - 1):
        suspects.narrowed(numbered[8:9])
    assert suspects.is_certain
    assert suspects.is_target_to_blame
    suspects.taken()
    suspects.narrowed(numbered[9:10])
    assert suspects.is_certain, "it takes others again"


# ---- in the store -------------------------------------------------------------------


@dataclass
class Run:
    """An engine on a real store."""

    engine: OutputEngine
    raised: list[Event] = field(default_factory=list)

    def codes(self) -> list[str]:
        return [each.code for each in self.raised]


@asynccontextmanager
async def running(
    store: DatabaseStore, output: OutputSettings, sink: ScriptedSink | None = None
) -> AsyncIterator[Run]:
    run: Run

    def raise_event(code: str, /, **fields: FieldValue) -> None:
        run.raised.append(make_event(code, time_us=1, random_10_bytes=bytes(10), **fields))

    make = make_target if sink is None else sink.make
    run = Run(OutputEngine(CursorStore(store), raise_event=raise_event, make_target=make))
    await run.engine.begin([output])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run.engine.run())
        try:
            yield run
        finally:
            await run.engine.stop()
            task.cancel()


async def without_pauses(run: Run) -> None:
    await until(lambda: run.engine._running, "the output")
    for each in run.engine._running.values():
        each.worker._backoff = Backoff(first_s=0.0)


async def until_skipped(run: Run, count: int) -> None:
    async with asyncio.timeout(40):
        while sum((await run.engine.skipped_counts()).values()) < count:
            await asyncio.sleep(0.01)


async def test_what_is_set_aside_outlives_its_event_and_is_sent_or_given_up(
    store: DatabaseStore,
) -> None:
    sink = ScriptedSink(poison=frozenset({"/1", "/2", "/3"}))
    async with running(store, settings_of(), sink) as run:
        await without_pauses(run)
        sent = [event(path=f"/{n}") for n in range(5)]
        for each in sent:
            await store.record(each)
        run.engine.notify()
        await until_skipped(run, 3)
        await store.expire("integrity", before_us=2**60, from_row=0, rows_max=100)
        found = await run.engine.skipped("out", 0, 10)
        assert [each.event for each in found] == sent[1:4]
        assert {each.reason for each in found} == {"it answered 400 Bad Request"}
        assert [each.event.id for each in await run.engine.skipped("out", 2, 1)] == [sent[2].id]
        # Still refused: it stays. Then one is sent, one given up, and the rest sent.
        assert await run.engine.retry_skipped("out", None) == Retried(0, 3, "")
        sink.poison = frozenset({"/2"})
        assert await run.engine.retry_skipped("out", 2) == Retried(1, 0, "")
        assert await run.engine.discard_skipped("out", 3) == 1
        assert await run.engine.discard_skipped("out", 3) == 0
        assert "OUTPUT_SKIPPED_HANDLED" not in run.codes()
        sink.script = iter(["away"])
        assert await run.engine.retry_skipped("out", None) == Retried(0, 0, "as the script says")
        assert await run.engine.retry_skipped("out", None) == Retried(1, 0, "")
        assert run.codes().count("OUTPUT_SKIPPED_HANDLED") == 1
        assert run.codes().count("OUTPUT_RECORD_SKIPPED") == 1
        [status] = await run.engine.status()
        assert (status.sent, status.dropped, status.skipped) == (4, 1, 0)
        assert sink.got[-1].fields["resent"] is True
        assert await run.engine.retry_skipped("nothing", None) == Retried(0, 0, "")


async def test_an_event_is_set_aside_together_with_the_cursor(store: DatabaseStore) -> None:
    skipped = Skipped("out", 7, event().received("web_1/a", 1), "no", 1)
    cursors = CursorStore(store)
    await cursors.skip(OutputCursor("out", 7, 7), skipped)
    await cursors.skip(OutputCursor("out", 7, 7), skipped)
    assert await store.output_cursors() == [OutputCursor("out", 7, 7)]
    assert list(await cursors.skipped("out", 0)) == [skipped]
    assert await cursors.forget_skipped("other", [7]) == 0
    of = [
        await cursors.skipped_of("out", name) for name in ("web_1", "web_1/a", "webx1", "w", None)
    ]
    assert of == [1, 1, 0, 0, 0]
    await cursors.skip(OutputCursor("out", 8, 8), replace(skipped, number=8, event=event()))
    assert await cursors.skipped_of("out", None) == 1


# ---- real receivers -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "smtp"])
async def test_a_receiver_that_refuses_one_record_gets_the_others(
    kind: str, store: DatabaseStore, tmp_path: Path
) -> None:
    sink = Sink(kind, tmp_path / "taken")
    await sink.start()
    if kind == "http":
        where = f"http://127.0.0.1:{sink.port}/"
        output = settings_of(kind=TargetKind.WEBHOOK, where=where, key=b"k" * 24)
    else:
        output = settings_of(
            kind=TargetKind.SMTP,
            address=("127.0.0.1", sink.port),
            mail=MailSettings(
                sender="a@example.org", recipients=("b@example.org",), summary_count=3
            ),
        )
    try:
        async with running(store, output) as run:
            await without_pauses(run)
            for path in ("/good1", "/poison", "/good2"):
                await store.record(event(path=path))
            run.engine.notify()
            await until_skipped(run, 1)
            if kind == "smtp":  # Nothing else is due before the summary.
                await store.record(event(path="/good3"))
                await store.record(event(path="/good4"))
                run.engine.notify()
            await until(lambda: "good2" in "".join(sink.lines()), "the one behind it")
            taken = "".join(sink.lines())
            assert "good1" in taken
            assert "poison" not in taken
    finally:
        sink.kill()


async def test_what_only_says_who_asks_is_no_refusal(tmp_path: Path) -> None:
    """A password, an address, a limit: a person changes that, and the record then goes."""
    from needfire_server.outputs.targets import webhook

    class Answer:
        reason = "x"

        def __init__(self, status: int) -> None:
            self.status = status

    for status in (400, 413, 415, 422):
        with pytest.raises(RefusedError):
            webhook._check(Answer(status))  # type: ignore[arg-type]
    for status in (301, 401, 403, 404, 405, 408, 410, 429, 500, 503):
        with pytest.raises(Exception, match=str(status)) as failed:
            webhook._check(Answer(status))  # type: ignore[arg-type]
        assert not isinstance(failed.value, RefusedError)
