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
from needfire_client.check import CheckResult
from needfire_client.configuration import Baseline
from needfire_client.logbook import Logbook
from needfire_client.reporter import Reporter
from needfire_client.watching import Watching
from needfire_protocol.errors import FormatError
from needfire_protocol.event import Event, FieldValue
from needfire_protocol.rc.agent import AgentSettings
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
    at_directory: bytes = b""
    fails_with: list[Exception] = field(default_factory=list)
    watcher: "FakeWatcher | None" = None
    health: Callable[[], Mapping[str, FieldValue]] = dict

    def write(self, event: Event) -> None:
        self.events.append(event)

    def count(self, what: str) -> int:
        return self.did.count(what)


class FakeChecker:
    def __init__(
        self,
        world: World,
        settings: AgentSettings,
        _baseline: Path,
        _overlay: Path,
        _on_event: object,
        progress: Callable[[int, int, bytes], None],
        *,
        health: Callable[[], Mapping[str, FieldValue]],
    ) -> None:
        self._world = world
        world.health = health
        self._progress = progress
        world.did.append(f"open {settings.loop_interval_s}")

    def full_check(self, stop: Callable[[], bool]) -> CheckResult:
        self._world.did.append("full check")
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

    def check_path(self, path: bytes) -> int:
        self._world.did.append(f"path {path.decode()}")
        self._progress(1, 1, b"/somewhere")
        return 0

    def close(self) -> None:
        self._world.did.append("close")


class FakeWatcher:
    def __init__(
        self,
        world: World,
        _settings: AgentSettings,
        on_dirty: Callable[[bytes], None],
        on_loss: Callable[[str, bytes], None],
    ) -> None:
        self.world = world
        self.dirty = on_dirty
        self.lose = on_loss
        world.watcher = self

    @property
    def watched_count(self) -> int:
        return 7

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
    monkeypatch.setattr(watching_module, "Checker", partial(FakeChecker, world))
    monkeypatch.setattr(watching_module, "Watcher", lambda *given: FakeWatcher(world, *given))
    monkeypatch.setattr(watching_module, "DEBOUNCE_S", 0.0)
    monkeypatch.setattr(watching_module, "_AFTER_LOSS_S", 0.0)
    monkeypatch.setattr(watching_module, "_RETRY_S", 0.01)
    return world


@asynccontextmanager
async def running(world: World, settings: AgentSettings | None = None) -> AsyncIterator[Watching]:
    reporter = Reporter(Logbook(world), clock_us=lambda: 1, random_bytes=os.urandom)
    watching = Watching(reporter, Path("/overlay"), on_bug=world.bugs.append)
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
    async with running(world, AgentSettings(realtime=False)):
        await until(lambda: world.count("done"), "the first check")
    assert "armed" not in world.did


async def test_a_dirty_path_is_looked_at(world: World) -> None:
    async with running(world):
        await until(lambda: world.count("done"), "the first check")
        assert world.watcher is not None
        world.watcher.dirty(b"/a/b")
        await until(lambda: world.count("path /a/b"), "the look")
        assert world.count("full check") == 1


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


async def test_a_wished_check_comes_on_top_of_the_one_that_runs(world: World) -> None:
    async with running(world) as watching:
        watching.request_check()
        watching.request_check()
        await until(lambda: world.count("done") == 2, "two checks")


async def test_a_loss_is_reported_and_made_up_for_by_a_full_check(world: World) -> None:
    async with running(world):
        await until(lambda: world.count("done"), "the first check")
        assert world.watcher is not None
        world.watcher.lose("the queue overflowed", b"/var/\xff")
        await until(lambda: world.count("done") == 2, "the second check")
    [gap] = [event for event in world.events if event.code == "COVERAGE_GAP"]
    assert gap.fields == {"reason": "the queue overflowed", "scope": "/var/\\xff"}


async def test_a_receipt_gets_how_the_watch_was_since_the_last_one(world: World) -> None:
    async with running(world):
        await until(lambda: world.count("done"), "the first check")
        assert world.watcher is not None
        world.watcher.lose("the queue overflowed", b"/")
        assert [dict(world.health()) for _ in range(2)] == [
            {"watcher": "inotify", "watched": 7, "watcher_gaps": gaps} for gaps in (1, 0)
        ]


async def test_without_real_time_watching_the_receipt_says_off(world: World) -> None:
    async with running(world, AgentSettings(realtime=False)):
        await until(lambda: world.count("done"), "the first check")
        assert world.health() == {"watcher": "off"}


async def test_more_changes_than_can_be_remembered_are_a_loss(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.directories = [b"/1"]
    world.gate.clear()
    async with running(world):
        await until(lambda: world.at_directory, "the check to run")
        assert world.watcher is not None
        for number in range(10_001):
            world.watcher.dirty(b"/many/%d" % number)
        world.gate.set()
        await until(lambda: world.count("done") == 2, "the check that makes up for it")
    assert [event.code for event in world.events] == ["COVERAGE_GAP"]


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
