"""One output at work: whatever fails where, nothing is lost, order is kept, what comes twice is marked."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.event import Event, FieldValue
from needfire_protocol.severity import Severity, SeverityFilter
from needfire_server.outputs.backoff import Backoff
from needfire_server.outputs.gathering import due_in_s
from needfire_server.outputs.selection import Selection
from needfire_server.outputs.settings import MailSettings, OutputSettings
from needfire_server.outputs.worker import Worker, WorkerState
from needfire_server.storage.output_cursors import OutputCursor
from needfire_testkit.output_doubles import (
    Crash,
    MemoryStore,
    ScriptedSink,
    ScriptedTarget,
    settings_of,
)
from needfire_testkit.server import until
from needfire_testkit.server_store import NOW_US, event

MAIL = MailSettings(sender="a@example.org", recipients=("b@example.org",), summary_count=10)


@dataclass
class Bench:
    """A worker, what it works with, and what it announced."""

    store: MemoryStore = field(default_factory=MemoryStore)
    sink: ScriptedSink = field(default_factory=ScriptedSink)
    settings: OutputSettings = field(default_factory=settings_of)
    raised: list[tuple[str, dict[str, FieldValue]]] = field(default_factory=list)
    now_s: float = 1_000.0
    now_us: int = NOW_US

    def worker(self) -> Worker:
        return Worker(
            self.settings,
            self.store.saved.get("out", OutputCursor("out", 0, 0)),
            self.store,
            make_target=self.sink.make,
            raise_event=self._raise,
            backoff=Backoff(first_s=0.0),
            clock_s=lambda: self.now_s,
            clock_us=lambda: self.now_us,
        )

    def _raise(self, code: str, /, **fields: FieldValue) -> None:
        entry = CATALOGUE[code]
        assert set(entry.fields) == fields.keys(), "announced as the catalogue says"
        self.raised.append((code, fields))

    def codes(self) -> list[str]:
        return [code for code, _ in self.raised]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Worker]:
        worker = self.worker()
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run())
            try:
                yield worker
            finally:
                worker.stop()

    def everything_arrived(self) -> bool:
        return len(set(self.sink.ids())) == len(self.store.events)


def check_laws(sent: list[Event], got: list[Event]) -> None:
    """Nothing is lost, first arrivals are in order, and whatever comes again is marked."""
    first: dict[str, Event] = {}
    for each in got:
        if each.id in first:
            assert each.fields.get("resent") is True, "came twice without a mark"
        first.setdefault(each.id, each)
    assert list(first) == [each.id for each in sent]


async def test_events_arrive_in_order_and_once() -> None:
    bench = Bench()
    sent = [event(path=f"/{n}") for n in range(500)]
    bench.store.add(*sent)
    async with bench.working() as worker:
        await until(bench.everything_arrived, "all events")
        bench.store.add(late := event(path="/late"))
        worker.notify()
        await until(bench.everything_arrived, "the late one")
    assert bench.sink.got == [*sent, late]
    assert bench.store.saved["out"] == OutputCursor("out", 501, 501, sent=501)
    assert bench.codes() == []
    assert worker.state is WorkerState.STOPPED


_steps = st.lists(st.sampled_from(["ok", "away", "torn", "told", "crash"]), max_size=12)


@settings(deadline=None, max_examples=40)  # No test is a matter of time.
@given(script=_steps, count=st.integers(1, 450))
async def test_whatever_fails_nothing_is_lost_and_duplicates_are_marked(
    script: list[str], count: int
) -> None:
    bench = Bench(sink=ScriptedSink(script=iter(script)))
    sent = [event(path=f"/{n}") for n in range(count)]
    bench.store.add(*sent)
    while not bench.everything_arrived():
        # A crash goes through everything, as the end of a process does; then it starts again.
        with suppress(BaseExceptionGroup):
            async with bench.working():
                await until(bench.everything_arrived, "all events")
    check_laws(sent, bench.sink.got)
    async with bench.working() as worker:
        await until(lambda: worker.cursor.confirmed == count, "the cursor")
    cursor = bench.store.saved["out"]
    assert (cursor.confirmed, cursor.dropped) == (count, 0)
    assert cursor.sent + cursor.retried >= count


async def test_a_connection_that_breaks_before_it_settles_is_made_good() -> None:
    bench = Bench(sink=ScriptedSink(settle_s=5.0))
    sent = [event(path=f"/{n}") for n in range(3)]
    bench.store.add(*sent)
    async with bench.working() as worker:
        await until(lambda: bench.sink.targets and bench.sink.targets[0]._pipe, "the pipe")
        assert bench.store.saved["out"].confirmed == 0, "handed over is not delivered"
        bench.sink.targets[0].lose()
        await until(lambda: len(bench.sink.targets) == 2 and bench.sink.targets[1]._pipe, "again")
        bench.sink.targets[1].pull()
        bench.now_s += 4.9
        worker.notify()
        await asyncio.sleep(0.05)
        assert worker.cursor.confirmed == 0
        bench.now_s += 0.2
        worker.notify()
        await until(lambda: bench.store.saved["out"].confirmed == 3, "settled")
    check_laws(sent, bench.sink.got)
    assert all(each.fields["resent"] is True for each in bench.sink.got)
    assert bench.store.saved["out"] == OutputCursor("out", 3, 3, sent=3, retried=3)
    assert bench.codes() == ["OUTPUT_FAILED", "OUTPUT_RECOVERED"]


async def test_a_connection_that_ends_while_all_is_settled_is_no_failure() -> None:
    bench = Bench(sink=ScriptedSink(settle_s=5.0))
    bench.store.add(event())
    async with bench.working() as worker:
        await until(lambda: bench.sink.targets and bench.sink.targets[0]._pipe, "the pipe")
        bench.sink.targets[0].pull()
        bench.now_s += 5
        worker.notify()
        await until(lambda: worker.cursor.confirmed == 1, "settled")
        bench.sink.targets[0].lose()
        bench.store.add(event())
        worker.notify()
        await until(lambda: len(bench.sink.targets) == 2, "a new connection")
    assert bench.codes() == []
    assert not any("resent" in each.fields for each in bench.sink.got)


async def test_an_end_in_peace_confirms_what_had_not_settled() -> None:
    bench = Bench(sink=ScriptedSink(settle_s=5.0))
    bench.store.add(event())
    async with bench.working():
        await until(lambda: bench.sink.targets and bench.sink.targets[0]._pipe, "the pipe")
    assert bench.store.saved["out"] == OutputCursor("out", 1, 1, sent=1)


async def test_only_selected_events_are_sent_and_the_others_are_passed() -> None:
    selection = Selection(
        SeverityFilter.parse(">=warn !=err"),
        frozenset({EventClass.INTEGRITY, EventClass.ALARM}),
        {EventClass.ALARM: SeverityFilter.parse("alert")},
    )
    bench = Bench(settings=settings_of(selection=selection))
    wanted = [
        event(severity=Severity.WARN),
        event(severity=Severity.CRIT),
        event("STORE_FAILED", severity=Severity.ALERT),
    ]
    bench.store.add(
        event(severity=Severity.NOTICE),
        wanted[0],
        event(severity=Severity.ERR),
        event("EXIT", severity=Severity.ALERT),
        wanted[1],
        event("STORE_FAILED", severity=Severity.CRIT),
        wanted[2],
        event(severity=Severity.DEBUG),
    )
    async with bench.working() as worker:
        await until(lambda: worker.cursor.confirmed == 8, "all events")
    assert bench.sink.got == wanted
    assert bench.store.saved["out"] == OutputCursor("out", 8, 8, sent=3)


async def test_what_a_target_took_of_a_delivery_that_failed_is_not_sent_again() -> None:
    bench = Bench()
    bench.store.add(*(event(path=f"/{n}") for n in range(10)))
    bench.sink.script = iter(["told", "told"])
    async with bench.working() as worker:
        await until(lambda: worker.cursor.confirmed == 10, "the rest")
    assert [each.fields["path"] for each in bench.sink.got] == [f"/{n}" for n in range(10)]
    assert bench.store.saved["out"].sent == 10


async def test_a_target_that_is_away_is_announced_once_and_once_when_it_is_back() -> None:
    bench = Bench(sink=ScriptedSink(script=chain(repeat("away", 5), repeat("ok"))))
    bench.store.add(event())
    async with bench.working() as worker:
        await until(bench.everything_arrived, "the event")
        assert worker.state is WorkerState.WORKING
    assert bench.codes() == ["OUTPUT_FAILED", "OUTPUT_RECOVERED"]
    assert bench.raised[0][1]["reason"] == "as the script says"


async def test_a_buffer_is_announced_when_nearly_full_when_full_and_when_it_has_drained() -> None:
    script = iter(["away"] * 3)
    bench = Bench(sink=ScriptedSink(script=chain(script, repeat("stop"))))
    bench.settings = settings_of(buffer_limit=1_000)
    bench.sink.script = repeat("away")
    bench.store.add(*(event() for _ in range(799)))
    async with bench.working() as worker:
        await until(lambda: bench.sink.opened > 2, "some tries")
        assert bench.codes() == ["OUTPUT_FAILED"], "799 of 1000 are not worth a word"
        bench.store.add(event())
        await until(lambda: bench.codes()[1:] == ["OUTPUT_BUFFER_NEARLY_FULL"], "800")
        bench.store.add(*(event() for _ in range(199)))
        opened = bench.sink.opened
        await until(lambda: bench.sink.opened > opened + 2, "some tries")
        assert len(bench.raised) == 2, "999 of 1000 are not all"
        bench.store.add(event())
        await until(lambda: bench.codes()[2:] == ["OUTPUT_BUFFER_FULL"], "1000")
        bench.sink.script = repeat("ok")
        await until(lambda: len(bench.raised) == 5, "drained")
    assert bench.codes()[3:] == ["OUTPUT_RECOVERED", "OUTPUT_BUFFER_DRAINED"]
    assert bench.store.saved["out"].sent == 1_000
    assert bench.store.saved["out"].dropped == 0
    assert worker.state is WorkerState.STOPPED


async def test_what_the_store_no_longer_has_is_counted_and_announced() -> None:
    bench = Bench()
    bench.store.add(*(event() for _ in range(10)))
    bench.store.saved["out"] = OutputCursor("out", 2, 2)
    bench.store.remove_up_to(7)
    async with bench.working() as worker:
        await until(lambda: worker.cursor.confirmed == 10, "the rest")
    assert bench.raised == [("OUTPUT_EVENTS_LOST", {"output": "out", "count": 5})]
    assert bench.store.saved["out"] == OutputCursor("out", 10, 10, sent=3, dropped=5)


async def test_what_is_missing_is_counted_once_however_often_a_delivery_fails() -> None:
    bench = Bench()
    bench.store.add(*(event() for _ in range(10)))
    bench.store.remove_up_to(4)
    for number in (7, 8):
        del bench.store.events[number]
    bench.sink.script = iter(["away"] * 4)
    async with bench.working() as worker:
        await until(lambda: worker.cursor.confirmed == 10, "the rest")
    lost = [fields["count"] for code, fields in bench.raised if code == "OUTPUT_EVENTS_LOST"]
    assert lost == [6]
    saved = bench.store.saved["out"]
    assert (saved.sent, saved.dropped) == (4, 6)


async def test_what_is_missing_in_front_is_confirmed_while_the_target_is_away() -> None:
    bench = Bench()
    bench.store.add(*(event() for _ in range(10)))
    bench.store.remove_up_to(4)
    bench.sink.script = repeat("away")
    for told in ([4], [4]):
        async with bench.working() as worker:
            await until(is_away(worker), "a failure")
        assert counts(bench) == told, "the next process does not tell it again"
        saved = bench.store.saved["out"]
        assert (saved.confirmed, saved.sent, saved.dropped) == (4, 0, 4)


async def test_what_is_missing_behind_what_waits_is_counted_when_that_is_delivered() -> None:
    bench = Bench()
    bench.store.add(*(event() for _ in range(10)))
    for number in (1, 2, 7, 8):
        del bench.store.events[number]
    bench.sink.script = chain(["away"], repeat("told", 1), repeat("away"))
    async with bench.working() as worker:
        await until(lambda: worker.cursor.sent == 3, "the half of it")
        assert (worker.cursor.confirmed, worker.cursor.dropped) == (5, 2)
    # The next process meets again what was not passed, and only that.
    bench.raised.clear()
    bench.sink.script = iter(())
    async with bench.working() as worker:
        await until(lambda: worker.cursor.confirmed == 10, "the rest")
    assert bench.raised == [("OUTPUT_EVENTS_LOST", {"output": "out", "count": 2})]
    assert bench.store.saved["out"].dropped == 4


async def test_what_goes_while_its_delivery_fails_is_counted_once_as_well() -> None:
    bench = Bench()
    bench.store.add(*(event() for _ in range(10)))
    del bench.store.events[5], bench.store.events[6]
    bench.sink.script = repeat("away")
    async with bench.working() as worker:
        await until(lambda: counts(bench) == [2], "the gap")
        bench.store.remove_up_to(4)
        await until(lambda: counts(bench) == [2, 4], "what went in front of it")
        bench.store.remove_up_to(8)
        await until(lambda: counts(bench) == [2, 4, 2], "what went behind it")
        bench.sink.script = iter(())
        await until(lambda: worker.cursor.confirmed == 10, "the rest")
    saved = bench.store.saved["out"]
    assert (saved.sent, saved.dropped) == (2, 8)


def is_away(worker: Worker) -> Callable[[], bool]:
    return lambda: worker.state is WorkerState.AWAY


def counts(bench: Bench) -> list[FieldValue]:
    return [fields["count"] for code, fields in bench.raised if code == "OUTPUT_EVENTS_LOST"]


async def test_a_store_that_fails_is_not_blamed_on_the_target() -> None:
    bench = Bench()
    bench.store.add(event())
    bench.store.is_failing = True
    async with bench.working() as worker:
        await asyncio.sleep(0.02)
        bench.store.is_failing = False
        bench.now_s += 2
        worker.notify()
        await until(bench.everything_arrived, "the event")
    assert bench.codes() == []


async def test_what_a_target_says_of_a_delivery_is_announced_once() -> None:
    bench = Bench(sink=ScriptedSink(remark="it refused one"))
    for _ in range(3):
        bench.store.add(event())
    async with bench.working() as worker:
        await until(bench.everything_arrived, "the events")
        bench.store.add(event())
        worker.notify()
        await until(bench.everything_arrived, "one more")
    assert bench.raised == [("OUTPUT_REMARK", {"output": "out", "reason": "it refused one"})]


async def test_a_bug_in_a_target_is_announced_and_tried_again() -> None:
    bench = Bench()
    bench.store.add(event())
    made: list[ScriptedTarget] = []

    def make(settings: OutputSettings, on_lost: Callable[[], None]) -> ScriptedTarget:
        made.append(bench.sink.make(settings, on_lost))
        if len(made) == 1:
            raise KeyError("a bug")
        return made[-1]

    worker = Worker(
        bench.settings,
        OutputCursor("out", 0, 0),
        bench.store,
        make_target=make,
        raise_event=bench._raise,
        backoff=Backoff(first_s=0.0),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        await until(bench.everything_arrived, "the event")
        worker.stop()
    assert bench.codes() == ["OUTPUT_FAILED", "OUTPUT_RECOVERED"]
    assert bench.raised[0][1]["reason"] == "internal error: KeyError: 'a bug'"


# ---- mail: what is held ----------------------------------------------------------------------------


async def test_a_summary_waits_for_its_time_and_is_one_delivery() -> None:
    bench = Bench(settings=settings_of(mail=MAIL))
    sent = [event(severity=Severity.CRIT) for _ in range(9)]
    bench.store.add(*sent)
    async with bench.working() as worker:
        await asyncio.sleep(0.05)
        assert bench.sink.got == []
        assert worker.cursor.confirmed == 0, "held events are not passed"
        bench.now_us += 3_600_000_000
        worker.notify()
        await until(bench.everything_arrived, "the summary")
        assert bench.sink.opened == 1


async def test_enough_events_or_an_alert_make_a_summary_due_at_once() -> None:
    bench = Bench(settings=settings_of(mail=MAIL))
    bench.store.add(*(event(severity=Severity.CRIT) for _ in range(10)))
    async with bench.working() as worker:
        await until(bench.everything_arrived, "ten of ten")
        bench.store.add(event(severity=Severity.CRIT), event(severity=Severity.ALERT))
        worker.notify()
        await until(bench.everything_arrived, "the alert, and what waited")


async def test_what_is_held_at_the_end_is_sent_by_the_next_process() -> None:
    bench = Bench(settings=settings_of(mail=MAIL))
    bench.store.add(*(event(severity=Severity.CRIT) for _ in range(3)))
    async with bench.working():
        await asyncio.sleep(0.02)
    assert bench.sink.got == []
    bench.now_us += 3_600_000_000
    async with bench.working():
        await until(bench.everything_arrived, "the summary")
    assert not any("resent" in each.fields for each in bench.sink.got)


def test_the_server_s_clock_decides_when_mail_is_due_and_a_jump_cannot_hold_it_up() -> None:
    from_client = replace(event(severity=Severity.CRIT), time_us=1).received("web1", NOW_US)
    held = [(1, from_client)]
    assert due_in_s(MAIL, held, NOW_US) == 3_600
    assert due_in_s(MAIL, held, NOW_US + 3_599_000_000) == 1
    assert due_in_s(MAIL, held, NOW_US + 3_600_000_000) == 0
    assert due_in_s(MAIL, held, NOW_US - 10**15) == 3_600
    assert due_in_s(None, held, NOW_US) == 0


# ---- back-off ----------------------------------------------------------------------------------------


def test_the_wait_doubles_up_to_a_minute_and_a_calm_minute_resets_it() -> None:
    backoff = Backoff()
    assert [backoff.failed(0.0, 1.0) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.failed(119.0, 1.0) == 60, "a record that went through in between is no calm"
    assert backoff.failed(119.0 + 121.0, 1.0) == 1
    assert Backoff().failed(0.0, 0.0) == 0.5


def test_crashes_are_not_caught_by_the_worker() -> None:
    assert not issubclass(Crash, Exception)


@pytest.mark.parametrize("text", ["", "nothing", "traffic,nothing"])
def test_a_list_of_classes_that_names_none_is_refused(text: str) -> None:
    from needfire_protocol.errors import FormatError
    from needfire_server.outputs.selection import parse_classes

    with pytest.raises(FormatError, match="class"):
        parse_classes(text)
