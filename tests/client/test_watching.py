"""When the daemon looks at files; the scanner itself is a stand-in that does what it is told."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

import needfire_client.watching as watching_module
from needfire_client.check import CheckResult, OnEvent
from needfire_client.configuration import Baseline
from needfire_client.logbook import Logbook
from needfire_client.policy import EVERYTHING, Selection
from needfire_client.position import PositionStore
from needfire_client.processes import Writer
from needfire_client.reporter import Reporter
from needfire_client.watcher import WatchHealth
from needfire_client.watching import Watching
from needfire_protocol.errors import FormatError
from needfire_protocol.escape import escape_bytes
from needfire_protocol.event import Event, FieldValue
from needfire_protocol.rc.agent import AgentSettings
from needfire_testkit.io_class import IDLE, io_class
from needfire_testkit.scanner import dir_rule, settings_of
from needfire_testkit.server import until

BASELINE = Baseline(Path("/baseline"), "/baseline", "sha256:0")


@dataclass
class World:
    """What the stand-ins did, and how they behave."""

    did: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    bugs: list[Exception] = field(default_factory=list)
    directories: list[bytes] = field(default_factory=list)
    """What a full check goes through."""
    gate: threading.Event = field(default_factory=threading.Event)
    """A full check waits for it before each directory."""
    part_gate: threading.Event = field(default_factory=threading.Event)
    """A check of a part waits for it."""
    at_directory: bytes = b""
    fails_with: list[Exception] = field(default_factory=list)
    selections: list[Selection] = field(default_factory=list)
    watches: list[str] = field(default_factory=list)
    io_classes: list[int] = field(default_factory=list)
    """In which class each full check read."""
    batches: list[set[bytes]] = field(default_factory=list)
    """For each look at a path: what those of the same batch share."""
    watcher: "FakeWatcher | None" = None
    health: Callable[[], Mapping[str, FieldValue]] = dict
    last_seen_us: int | None = None
    finds: bytes = b""
    """What a look at a path reports as modified."""

    def write(self, event: Event) -> None:
        self.events.append(event)

    def count(self, what: str) -> int:
        return self.did.count(what)


def result(*, is_complete: bool) -> CheckResult:
    return CheckResult(
        files=0,
        hashed=0,
        bytes_read=0,
        added=0,
        missing=0,
        modified=0,
        unreadable=0,
        unstable=0,
        findings=0,
        duration_s=0,
        is_complete=is_complete,
    )


class FakeChecker:
    def __init__(
        self,
        world: World,
        settings: AgentSettings,
        _baseline: Path,
        _overlay: Path,
        on_event: OnEvent,
        progress: Callable[[int, int, bytes], None],
        *,
        health: Callable[[], Mapping[str, FieldValue]],
    ) -> None:
        self._world = world
        self.at = b"/mnt/dead"
        world.health = health
        self._progress = progress
        self._on_event = on_event
        world.did.append(f"open {settings.loop_interval_s}")

    def full_check(
        self,
        stop: Callable[[], bool],
        selection: Selection,
        *,
        positions: PositionStore,
        watch: str,
    ) -> CheckResult:
        self._world.did.append("full check")
        self._world.io_classes.append(io_class())
        self._world.selections.append(selection)
        self._world.watches.append(watch)
        if self._world.fails_with:
            raise self._world.fails_with.pop()
        is_complete = True
        for directory in self._world.directories:
            self._world.at_directory = directory
            while not self._world.gate.wait(0.002):
                if stop():
                    break
            if stop():
                is_complete = False
                break
            self._progress(1, 1, directory)
        self._world.did.append("done" if is_complete else "broken off")
        return result(is_complete=is_complete)

    def check_path(self, path: bytes, *, below: bool, looked_at: set[bytes]) -> int:
        word = "tree" if below else "path"
        self._world.batches.append(looked_at)
        self._world.did.append(f"{word} {path.decode(errors='replace')}")
        if self._world.finds:
            fields = {"policy": "x", "change": "C", "path": escape_bytes(self._world.finds)}
            self._on_event("POLICY_MODIFIED", None, fields)
        self._progress(1, 1, b"/somewhere")
        return 0

    def check_below(self, path: bytes, stop: Callable[[], bool]) -> CheckResult:
        self._world.did.append(f"below {path.decode(errors='replace')}")
        self._progress(1, 1, path)
        while self._world.part_gate.wait(0.002) is False and not stop():
            pass
        if self._world.finds:
            fields = {"policy": "x", "change": "C", "path": escape_bytes(self._world.finds)}
            self._on_event("POLICY_MODIFIED", None, fields)
        return result(is_complete=not stop())

    def close(self) -> None:
        self._world.did.append("close")


class FakeWatcher:
    def __init__(
        self, world: World, _settings: AgentSettings, _canary: Path, owner: Watching
    ) -> None:
        self.world = world
        self.owner = owner
        self.dirty = owner.changed
        self.lose = owner.lost
        self.health = (WatchHealth("fanotify", watched=1),)
        world.watcher = self

    def last_seen_us(self) -> int | None:
        return self.world.last_seen_us

    def start(self) -> None:
        self.world.did.append("armed")

    def stop(self) -> None:
        self.world.did.append("disarmed")

    def reconcile(self) -> None:
        self.world.did.append("reconciled")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    world.gate.set()
    world.part_gate.set()
    monkeypatch.setattr(watching_module, "Checker", partial(FakeChecker, world))
    monkeypatch.setattr(watching_module, "RealTime", lambda *given: FakeWatcher(world, *given))
    monkeypatch.setattr(watching_module, "DEBOUNCE_S", 0.0)
    monkeypatch.setattr(watching_module, "_AFTER_LOSS_S", 0.0)
    monkeypatch.setattr(watching_module, "_RETRY_S", 0.01)
    return world


@asynccontextmanager
async def running(world: World, settings: AgentSettings | None = None) -> AsyncIterator[Watching]:
    reporter = Reporter(Logbook(world), clock_us=lambda: 1, random_bytes=os.urandom)
    watching = Watching(reporter, Path("/overlay"), Path("/position"), on_bug=world.bugs.append)
    watching.configure(settings or AgentSettings(), BASELINE)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(watching.run())
        yield watching
        world.gate.set()
        await watching.stop()
        task.cancel()


async def test_watching_is_armed_before_the_first_full_check(world: World) -> None:
    async with running(world):
        await until(lambda: world.count("reconciled"), "the first check")
    assert world.did == [
        "armed",
        "open 60",
        "full check",
        "done",
        "reconciled",
        "disarmed",
        "close",
    ]


async def test_without_real_time_watching_the_schedule_does_it(world: World) -> None:
    for settings in (AgentSettings(realtime=False), AgentSettings(realtime_method="none")):
        async with running(world, settings):
            await until(lambda: world.count("done"), "the first check")
            assert world.health() == {"watcher": "off"}
        assert "armed" not in world.did


async def test_a_dirty_path_is_looked_at(world: World) -> None:
    async with running(world):
        await until(lambda: world.count("done"), "the first check")
        assert world.watcher is not None
        world.watcher.dirty(b"/a/b")
        await until(lambda: world.count("path /a/b"), "the look")
        assert world.count("full check") == 1


async def test_a_check_reads_when_nobody_else_does(world: World) -> None:
    async with running(world):
        await until(lambda: world.count("done"), "the first check")
    assert world.io_classes == [IDLE]


async def test_paths_that_were_named_together_are_looked_at_together(world: World) -> None:
    async with running(world):
        await until(lambda: world.count("done"), "the first check")
        assert world.watcher is not None
        for path in (b"/a/b", b"/a/c", b"/a/d"):
            world.watcher.dirty(path)
        await until(lambda: world.count("path /a/d"), "the looks")
        world.watcher.dirty(b"/a/e")
        await until(lambda: world.count("path /a/e"), "the next look")
    first, *others, last = world.batches
    assert all(each is first for each in others)
    assert last is not first


async def test_dirty_paths_need_not_wait_for_the_end_of_a_full_check(world: World) -> None:
    world.directories = [b"/1", b"/2", b"/3"]
    world.gate.clear()
    async with running(world):
        await until(lambda: world.at_directory, "the check to run")
        assert world.watcher is not None
        for path in (b"/x/y/z", b"/1/file", b"/1/sub/file", b"/1"):
            world.watcher.dirty(path)
        world.gate.set()
        await until(lambda: world.count("path /1"), "the looks")
    # What touches the directory at hand had to wait until the check had moved on.
    paths = [each for each in world.did if each.startswith("path")]
    assert paths == ["path /x/y/z", "path /1/file", "path /1/sub/file", "path /1"]
    assert world.did.index("path /x/y/z") < world.did.index("done")


async def test_a_directory_that_came_from_elsewhere_is_looked_at_to_its_bottom(
    world: World,
) -> None:
    async with running(world):
        await until(lambda: world.count("done"), "the first check")
        assert world.watcher is not None
        world.watcher.owner.changed(b"/a/came", below=True)
        await until(lambda: world.count("tree /a/came"), "the look")


async def test_a_wished_check_comes_on_top_of_the_one_that_runs(world: World) -> None:
    async with running(world) as watching:
        watching.request_check()
        watching.request_check()
        await until(lambda: world.count("done") == 2, "two checks")


async def test_a_loss_is_reported_and_made_up_for_by_an_early_check_of_that_part(
    world: World,
) -> None:
    async with running(world):
        await until(lambda: world.count("done"), "the first check")
        assert world.watcher is not None
        world.watcher.lose("a file system was mounted", b"/var/\xff", 1_000_000)
        await until(lambda: len(world.events) == 2, "the check of the part")
        assert world.count("full check") == 1
    gap, checked = world.events
    assert gap.code == "COVERAGE_GAP"
    assert str(gap.fields["to"]) > "2026"
    assert {**gap.fields, "to": ""} == {
        "reason": "a file system was mounted",
        "scope": "/var/\\xff",
        "from": "1970-01-01T00:00:01.000000Z",
        "to": "",
    }
    assert checked.code == "PART_CHECKED"
    assert checked.fields == {"scope": "/var/\\xff", "files": 0, "changes": 0}
    # And what is there now is watched.
    assert world.count("reconciled") == 2
    assert world.bugs == []


async def test_a_loss_of_everything_is_made_up_for_by_a_full_check(world: World) -> None:
    async with running(world):
        await until(lambda: world.count("done"), "the first check")
        assert world.watcher is not None
        world.watcher.lose("the queue overflowed", b"/", 1_000_000)
        await until(lambda: world.count("done") == 2, "the second check")
    assert [event.code for event in world.events] == ["COVERAGE_GAP"]


async def test_a_part_is_checked_while_a_full_check_is_elsewhere(world: World) -> None:
    world.directories = [b"/1", b"/2", b"/3"]
    world.gate.clear()
    async with running(world) as watching:
        await until(lambda: world.at_directory, "the check to run")
        assert world.watcher is not None
        for part in (b"/1/lost", b"/9"):
            world.watcher.lose("a file system was mounted", part)
        # They are told of first, and put off in the event loop after that.
        await until(lambda: len(watching._parts._due_s) == 2, "both parts to wait")
        world.gate.set()
        await until(lambda: len(world.events) == 4, "both checks")
    # The full check had read /1 and not compared it: what is in it had to wait.
    assert world.did.index("below /9") < world.did.index("below /1/lost") < world.did.index("done")


async def test_a_check_of_a_part_that_is_broken_off_is_done_again(world: World) -> None:
    async with running(world) as watching:
        await until(lambda: world.count("done"), "the first check")
        world.part_gate.clear()
        assert world.watcher is not None
        world.watcher.lose("a file system was mounted", b"/a")
        await until(lambda: world.count("below /a"), "the check of the part")
        watching.pause()
        world.part_gate.set()
        watching.resume()
        await until(lambda: len(world.events) == 2, "the check of the part, to its end")
    assert world.count("below /a") == 2


async def test_what_an_early_check_finds_has_the_writers_that_were_noted_and_no_others(
    world: World,
) -> None:
    async with running(world):
        await until(lambda: world.count("done"), "the first check")
        assert world.watcher is not None
        world.finds = b"/d/noted"
        world.watcher.owner.wrote(world.finds, Writer(7, b"/bin/vi"))
        world.watcher.lose("lost", b"/d")
        await until(lambda: len(world.events) == 3, "the first check of the part")
        world.watcher.lose("lost", b"/d")
        await until(lambda: len(world.events) == 6, "the second check of the part")
    changes = [event for event in world.events if event.code == "POLICY_MODIFIED"]
    # The second time it may have been anybody, and it need not have been just now.
    assert [event.fields.get("who_program") for event in changes] == ["/bin/vi", None]
    assert "who" not in changes[1].fields


async def test_a_receipt_gets_how_the_watch_was_since_the_last_one(world: World) -> None:
    async with running(world):
        await until(lambda: world.count("done"), "the first check")
        assert world.watcher is not None
        world.watcher.lose("the queue overflowed", b"/", 1_000_000)
        assert [dict(world.health()) for _ in range(2)] == [
            {"watcher": "fanotify", "watched": 1, "watcher_gaps": gaps} for gaps in (1, 0)
        ]


async def test_without_real_time_watching_the_receipt_says_off(world: World) -> None:
    async with running(world, AgentSettings(realtime=False)):
        await until(lambda: world.count("done"), "the first check")
        assert world.health() == {"watcher": "off"}


async def test_more_changes_than_can_be_remembered_are_looked_at_by_their_trees(
    world: World,
) -> None:
    world.directories = [b"/1"]
    world.gate.clear()
    async with running(world):
        await until(lambda: world.at_directory, "the check to run")
        assert world.watcher is not None
        for number in range(10_001):
            world.watcher.dirty(b"/many/%d/%d" % (number % 3, number))
        world.gate.set()
        await until(lambda: len(world.events) == 3, "the checks of the trees")
    # Nothing was lost, so no gap is told.
    assert {event.fields["scope"] for event in world.events} == {"/many/0", "/many/1", "/many/2"}
    assert world.count("full check") == 1


async def test_a_pause_breaks_a_check_off_and_nothing_is_forgotten(world: World) -> None:
    world.directories = [b"/1"]
    world.gate.clear()
    async with running(world) as watching:
        await until(lambda: world.at_directory, "the check to run")
        watching.pause()
        await until(lambda: world.count("broken off"), "the end of the check")
        assert world.watcher is not None
        world.watcher.dirty(b"/a")
        world.gate.set()
        watching.resume()
        await until(lambda: world.count("path /a"), "the look")
        assert world.count("done") >= 1


async def test_a_new_configuration_breaks_a_check_off_and_is_checked_at_once(world: World) -> None:
    world.directories = [b"/1"]
    world.gate.clear()
    async with running(world) as watching:
        await until(lambda: world.at_directory, "the check to run")
        watching.configure(AgentSettings(loop_interval_s=7), BASELINE)
        world.gate.set()
        await until(lambda: world.count("done"), "the check")
    assert world.did.index("close") < world.did.index("open 7") < world.did.index("done")


async def test_a_bug_is_told_and_the_watch_goes_on(world: World) -> None:
    world.fails_with = [ZeroDivisionError("a bug")]
    async with running(world):
        await until(lambda: world.count("done"), "the next check")
    assert [type(error) for error in world.bugs] == [ZeroDivisionError]


async def test_a_baseline_that_turns_out_to_be_damaged_is_reported(world: World) -> None:
    world.fails_with = [FormatError("row 7 is damaged")]
    async with running(world):
        await until(lambda: world.count("done"), "the next check")
    [event] = world.events
    assert event.msg == "Baseline not usable: row 7 is damaged"
    assert event.fields["path"] == "/baseline"


async def test_stopping_ends_a_check_that_runs(world: World) -> None:
    world.directories = [b"/1"]
    world.gate.clear()
    async with running(world) as watching:
        await until(lambda: world.at_directory, "the check to run")
        async with asyncio.timeout(3):
            await watching.stop()
        assert world.did[-2:] == ["disarmed", "close"]


async def test_an_absence_is_a_gap_told_once_and_the_first_check_makes_up_for_it(
    world: World,
) -> None:
    world.last_seen_us = 1_000_000
    async with running(world) as watching:
        await until(lambda: world.count("done"), "the first check")
        watching.configure(AgentSettings(loop_interval_s=7), BASELINE)
        await until(lambda: world.count("done") == 2, "the check of the new configuration")
    [gap] = world.events
    assert gap.code == "COVERAGE_GAP"
    assert gap.fields["reason"] == "the agent was not running"
    assert gap.fields["from"] == "1970-01-01T00:00:01.000000Z"


async def test_a_change_seen_in_real_time_says_who_it_was(world: World) -> None:
    async with running(world):
        await until(lambda: world.count("done"), "the first check")
        assert world.watcher is not None
        world.finds = b"/d/\xff"
        world.watcher.owner.wrote(world.finds, Writer(7, b"/bin/vi"))
        world.watcher.dirty(world.finds)
        await until(lambda: len(world.events) == 1, "the first look")
        world.finds = b"/d/other"
        world.watcher.owner.wrote(world.finds, None)
        world.watcher.dirty(world.finds)
        await until(lambda: len(world.events) == 2, "the second look")
    first, second = world.events
    assert first.fields["who_program"] == "/bin/vi"
    assert first.fields["who_pid"] == 7
    assert second.fields["who"] == "unknown"


async def test_a_silent_canary_is_an_alarm_a_gap_and_a_new_watcher(world: World) -> None:
    async with running(world):
        await until(lambda: world.count("done"), "the first check")
        old = world.watcher
        assert old is not None
        old.owner.silent("fanotify", b"/state/canary", b"/", 1_000_000)
        await until(lambda: world.count("armed") == 2, "the new watcher")
        await until(lambda: world.count("done") == 2, "the check that makes up for it")
        for path in (b"/other", b"/state/canary", b"/state/canary"):
            old.owner.answered(path)
    assert world.did.index("disarmed") < len(world.did) - 1 - world.did[::-1].index("armed")
    codes = [event.code for event in world.events]
    assert codes == ["REALTIME_SILENT", "COVERAGE_GAP", "REALTIME_ANSWERS"]
    assert world.events[0].fields == {
        "method": "fanotify",
        "path": "/state/canary",
        "since": "1970-01-01T00:00:01.000000Z",
    }


async def test_the_way_of_watching_is_reported(world: World) -> None:
    async with running(world) as watching:
        await until(lambda: world.count("done"), "the first check")
        watching.chosen("inotify", "fanotify: Operation not permitted", 12, 1)
        assert world.health()["watcher"] == "fanotify"
    [event] = world.events
    assert event.msg == "Real-time watching: inotify"
    assert event.fields["reason"] == "fanotify: Operation not permitted"


async def test_a_check_that_is_broken_off_goes_on_as_the_same_one(world: World) -> None:
    world.directories = [b"/1"]
    world.gate.clear()
    settings = settings_of(dir_rule(b"/a", group="g"), dir_rule(b"/b"), file_check_interval_s=9)
    async with running(world, settings) as watching:
        await until(lambda: world.at_directory, "the check to run")
        watching.pause()
        await until(lambda: world.count("broken off"), "the end of the check")
        world.gate.set()
        watching.resume()
        await until(lambda: world.count("done"), "the check")
    assert world.selections == [EVERYTHING] * 2
    assert world.watches[0] == world.watches[1] != ""


async def test_what_was_lost_while_a_check_was_broken_off_is_another_watch(world: World) -> None:
    world.directories = [b"/1"]
    world.gate.clear()
    async with running(world) as watching:
        await until(lambda: world.at_directory, "the check to run")
        watching.pause()
        await until(lambda: world.count("broken off"), "the end of the check")
        assert world.watcher is not None
        world.watcher.lose("the queue overflowed", b"/", 1_000_000)
        world.gate.set()
        watching.resume()
        await until(lambda: world.count("done"), "the check")
    assert world.watches[0] != world.watches[1]


async def test_where_nobody_watches_no_two_parts_have_the_same_watch(world: World) -> None:
    async with running(world, AgentSettings(realtime=False)):
        await until(lambda: world.count("done"), "the check")
    assert world.watches == [""]


async def test_a_group_is_checked_at_its_own_interval(world: World) -> None:
    settings = settings_of(dir_rule(b"/a"), dir_rule(b"/b", group="g"), group_intervals=(("g", 0),))
    async with running(world, settings):
        await until(lambda: world.count("done") >= 3, "checks")
    assert world.selections[:3] == [EVERYTHING, *[Selection(frozenset("g"))] * 2]
