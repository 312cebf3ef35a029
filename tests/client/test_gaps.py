"""Every way of missing something: told with from, to and scope, and the check that then finds it.

Nothing is made up here but what a test may not do to a machine: to set its clock, to stop time,
to use up its watches. Watcher, guard, checker, baseline and events are those of the agent.
"""

import asyncio
import ctypes
import errno
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers import inotify_c

import needfire_client.guard as guard_module
import needfire_client.watch as watch_module
import needfire_client.watching as watching_module
from needfire_client.configuration import Baseline
from needfire_client.dirty import DirtyPaths
from needfire_client.fanotify_watch import FanotifyWatcher
from needfire_client.guard import CANARY_NAME, Clocks, Guard
from needfire_client.logbook import Logbook
from needfire_client.new_baseline import init_baseline
from needfire_client.polling_watch import PollingWatcher
from needfire_client.reporter import Reporter
from needfire_client.watch import Watcher
from needfire_client.watching import Watching
from needfire_protocol.escape import escape_bytes
from needfire_protocol.event import Event, format_time
from needfire_protocol.rc.agent import AgentSettings
from needfire_testkit.mounting import mounted
from needfire_testkit.scanner import dir_rule, settings_of
from needfire_testkit.server import until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
methods = pytest.mark.parametrize(
    "method", [pytest.param("fanotify", marks=[pytest.mark.root, needs_root]), "inotify"]
)

READERS: dict[str, tuple[type, str]] = {
    "fanotify": (FanotifyWatcher, "_take"),
    "inotify": (inotify_c.InotifyFD, "read_events"),
}
"""What a reader calls for each batch."""


@dataclass
class Told:
    """The events of an agent."""

    events: list[Event] = field(default_factory=list)

    def write(self, event: Event) -> None:
        self.events.append(event)

    def of(self, code: str) -> list[Event]:
        return [event for event in self.events if event.code == code]

    def paths(self) -> set[str]:
        codes = ("POLICY_ADDED", "POLICY_MISSING", "POLICY_MODIFIED")
        return {str(event.fields["path"]) for event in self.events if event.code in codes}

    def gaps(self, reason: str) -> list[Event]:
        return [gap for gap in self.of("COVERAGE_GAP") if reason in str(gap.fields["reason"])]

    def checks(self) -> int:
        return len(self.of("CHECK_COMPLETED"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching_module, "_AFTER_LOSS_S", 0.0)
    monkeypatch.setattr(watching_module, "DEBOUNCE_S", 0.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "old").write_bytes(b"old")
    return root


@asynccontextmanager
async def agent(root: Path, method: str = "auto", **others: Any) -> AsyncIterator[Told]:
    """Run what the agent runs, until its first full check is over."""
    told = Told()
    settings = settings_of(dir_rule(root), realtime_method=method, **others)
    state = root.parent / "state"
    state.mkdir(exist_ok=True)
    baseline = make_baseline(settings, state)
    bugs: list[Exception] = []
    reporter = Reporter(Logbook(told), clock_us=lambda: 1, random_bytes=os.urandom)
    watching = Watching(reporter, state / "overlay", state / "position", on_bug=bugs.append)
    watching.configure(settings, baseline)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(watching.run())
        try:
            await until(told.checks, "the first full check")
            yield told
        finally:
            await watching.stop()
            task.cancel()
    assert bugs == []


def make_baseline(settings: AgentSettings, state: Path) -> Baseline:
    path = state / "baseline"
    if not path.exists():
        init_baseline(
            settings,
            path,
            lambda _code, _severity, _fields: None,
            host="host.example",
            configuration_sha256="",
            created_us=1,
        )
    return Baseline(path, str(path), "sha256:0")


async def run(*command: str) -> None:
    """Let another process do something: what the agent's own does is not told."""
    await asyncio.to_thread(subprocess.run, command, check=True)


def assert_told(gap: Event, scope: Path | str) -> None:
    assert gap.fields["scope"] == escape_bytes(os.fsencode(scope))
    begin, end = str(gap.fields["from"]), str(gap.fields["to"])
    assert "2020" < begin <= end


async def checked(told: Told, part: Path) -> Event:
    """Wait for the early check of a part, and return what was told of it."""
    name = escape_bytes(bytes(part))

    def found() -> list[Event]:
        return [event for event in told.of("PART_CHECKED") if event.fields["scope"] == name]

    await until(found, f"the check of {name}")
    assert told.checks() == 1, "a full check was done where a part was enough"
    return found()[0]


# ---- the queue overflows -----------------------------------------------------------------------


STORM = """
import os, sys
os.chdir(sys.argv[1])
for n in range(int(sys.argv[2])):
    os.close(os.open(f"s{n}", os.O_CREAT | os.O_WRONLY))
    os.unlink(f"s{n}")
os.mkdir("lost")
os.close(os.open("lost/file", os.O_CREAT | os.O_WRONLY))
"""


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> Iterator[threading.Event]:
    """Hold the reader of a watcher up as long as the event is not set."""
    gate = threading.Event()
    real: Callable[..., object] = getattr(kind, name)

    def wait(self: object, *given: object) -> object:
        gate.wait(30)
        return real(self, *given)

    monkeypatch.setattr(kind, name, wait)
    try:
        yield gate
    finally:
        gate.set()


@methods
async def test_a_queue_that_overflows_is_one_gap_and_the_check_finds_what_was_lost(
    method: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = int(Path(f"/proc/sys/fs/{method}/max_queued_events").read_text())
    if limit > 50_000:
        pytest.skip(f"a queue of {limit} events takes too long to fill")
    async with agent(root, method) as told:
        with held(monkeypatch, *READERS[method]) as gate:
            (root / "wakes-the-reader").write_bytes(b"")
            await run("/bin/touch", str(root / "from-outside"))
            await run(sys.executable, "-c", STORM, str(root), str(limit + 2_000))
            gate.set()
            await until(lambda: told.gaps("overflowed"), "the gap")
            await until(lambda: told.checks() == 2, "the check that makes up for it")
        (gap,) = told.gaps("overflowed")
        assert_told(gap, "/")
        assert escape_bytes(bytes(root / "lost" / "file")) in told.paths()


@methods
async def test_more_changes_than_are_kept_apart_lose_nothing_and_are_no_gap(
    method: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = DirtyPaths.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "count_max", 20)
    script = 'for n in $(seq 100); do echo x >"$0/sub/f$n"; done'
    async with agent(root, method) as told:
        await run("/bin/sh", "-c", script, str(root))
        wanted = {str(root / "sub" / f"f{number}") for number in range(1, 101)}
        await until(lambda: wanted <= told.paths(), "all of them")
        assert told.of("COVERAGE_GAP") == []
        assert told.checks() == 1


# ---- directories that are not watched ----------------------------------------------------------


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let the system refuse watches: of a path's end, or all beyond a number."""
    state: dict[str, Any] = {"end": None, "left": 10**9, "errno": errno.EACCES}
    real = inotify_c.inotify_add_watch

    def add(fd: int, path: bytes, mask: int) -> Any:
        is_refused = state["left"] <= 0 or (state["end"] and path.endswith(state["end"]))
        if is_refused and b"/proc/self" not in path:
            ctypes.set_errno(state["errno"])
            return -1
        state["left"] -= 1
        return real(fd, path, mask)

    monkeypatch.setattr(inotify_c, "inotify_add_watch", add)
    monkeypatch.setattr(watch_module, "inotify_add_watch", add)
    return state


async def test_a_directory_that_is_not_watched_is_a_gap_of_its_own(
    root: Path, refused: dict[str, Any]
) -> None:
    async with agent(root, "inotify") as told:
        refused["end"] = b"/closed"
        (root / "closed").mkdir()
        (root / "closed" / "inside").write_bytes(b"")
        await until(lambda: told.gaps("not watched"), "the gap")
        await checked(told, root / "closed")
        (gap,) = told.gaps("not watched: Permission denied")
        assert_told(gap, root / "closed")
        assert str(root / "closed" / "inside") in told.paths()


async def test_the_limit_of_watches_is_a_gap_and_everything_is_checked(
    root: Path, refused: dict[str, Any]
) -> None:
    async with agent(root, "inotify") as told:
        refused.update(left=0, errno=errno.ENOSPC)
        (root / "beyond").mkdir()
        (root / "beyond" / "inside").write_bytes(b"")
        await until(lambda: told.gaps("limit of watches"), "the gap")
        await until(lambda: told.checks() == 2, "the check that makes up for it")
        assert_told(told.gaps("limit of watches")[0], "/")
        assert str(root / "beyond" / "inside") in told.paths()


# ---- mounts ------------------------------------------------------------------------------------


@pytest.mark.root
@needs_root
@methods
async def test_a_mount_over_a_watched_tree_is_a_gap_of_that_tree(method: str, root: Path) -> None:
    other = root.parent / "other"
    other.mkdir()
    (other / "new").write_bytes(b"")
    async with agent(root, method) as told:
        with mounted("--bind", str(other), str(root / "sub")):
            await checked(told, root / "sub")
            (gap,) = told.gaps("was mounted")
            assert_told(gap, root / "sub")
            assert {str(root / "sub" / "old"), str(root / "sub" / "new")} <= told.paths()
            # What is there now is watched.
            await run("/bin/touch", str(root / "sub" / "newer"))
            await until(lambda: str(root / "sub" / "newer") in told.paths(), "the newer file")
        await until(lambda: told.gaps("was unmounted"), "the second gap")
        assert_told(told.gaps("was unmounted")[0], root / "sub")


# ---- nobody watched for a time -----------------------------------------------------------------


async def test_the_time_in_which_the_agent_did_not_run_is_a_gap(root: Path) -> None:
    async with agent(root) as told:
        assert told.of("COVERAGE_GAP") == []
    until_ns = (root.parent / "state" / CANARY_NAME).stat().st_mtime_ns
    (root / "meanwhile").write_bytes(b"")
    async with agent(root) as told:
        (gap,) = told.of("COVERAGE_GAP")
        assert gap.fields["reason"] == "the agent was not running"
        assert_told(gap, "/")
        assert gap.fields["from"] == format_time(until_ns // 1000)
        assert str(root / "meanwhile") in told.paths()


@pytest.mark.parametrize(
    ("passed", "reason"),
    [
        ((3_600, 1, 1), "the clock was set forward by 3599 s"),
        ((-3_600, 1, 1), "the clock was set back by 3601 s"),
        ((500, 1, 500), "the machine slept for 499 s"),
        ((60, 60, 60), "the agent did not run for 60 s"),
    ],
    ids=["forward", "back", "sleep", "late"],
)
async def test_time_that_did_not_pass_as_it_should_is_a_gap_and_everything_is_checked(
    passed: tuple[float, float, float],
    reason: str,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, jump = Clocks.now(), threading.Event()

    def clocks() -> Clocks:
        real_s, monotonic_s, boot_s = passed if jump.is_set() else (0, 0, 0)
        return Clocks(now.real_s + real_s, now.monotonic_s + monotonic_s, now.boot_s + boot_s)

    defaults = Guard.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "clocks", clocks)
    monkeypatch.setitem(defaults, "tick_s", 0.01)
    async with agent(root) as told:
        # A change that nobody hears of stands for what was missed.
        monkeypatch.setattr(Watching, "changed", lambda _self, _path: None)
        (root / "meanwhile").write_bytes(b"")
        jump.set()
        await until(lambda: told.gaps(reason), "the gap")
        await until(lambda: told.checks() == 2, "the check that makes up for it")
        assert_told(told.gaps(reason)[0], "/")
        assert str(root / "meanwhile") in told.paths()


# ---- watchers that say nothing -----------------------------------------------------------------


@methods
async def test_a_reader_that_is_too_late_is_an_alarm_a_gap_and_a_new_watcher(
    method: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "CANARY_WAIT_S", 0.2)
    defaults = Guard.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "tick_s", 0.05)
    async with agent(root, method, canary_interval_s=0.2) as told:
        with held(monkeypatch, *READERS[method]) as gate:
            (root / "held-up").write_bytes(b"")
            await until(lambda: told.of("REALTIME_SILENT"), "the alarm")
            # Restarting waits for the reader, which may be at work on what it has.
            gate.set()
        await until(lambda: told.checks() >= 2, "the check that makes up for it")
        gaps = told.gaps("the canary did not come back")
        assert {gap.fields["scope"] for gap in gaps} <= {"/", str(root)}
        await until(lambda: len(told.of("REALTIME_STARTED")) >= 2, "the new watcher")
        await until(lambda: told.of("REALTIME_ANSWERS"), "the end of the alarm")
        assert str(root / "held-up") in told.paths()


async def test_a_root_that_is_silent_alone_is_an_alarm_and_a_gap_of_its_own(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its watch goes as it would with a bug, or with a mount that nobody was told of."""
    defaults = Guard.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "tick_s", 0.05)
    reconciled: list[Watcher] = []
    reconcile = Watcher.reconcile

    def note(self: Watcher) -> None:
        reconcile(self)
        reconciled.append(self)

    monkeypatch.setattr(Watcher, "reconcile", note)
    async with agent(root, "inotify", canary_interval_s=0.2) as told:
        # Once at the start and once after the full check, which would heal what is broken here.
        await until(lambda: len(reconciled) >= 2, "the watches to be looked through")
        watcher = reconciled[0]
        for nodes in list(watcher._by_wd.values()):
            for node in nodes:
                if node.path == bytes(root) and watcher._reader is not None:
                    watcher._reader.disarm(node.wd)
        (root / "meanwhile").write_bytes(b"")
        await until(lambda: told.of("REALTIME_SILENT"), "the alarm")
        await checked(told, root)
        assert told.of("REALTIME_SILENT")[0].fields["path"] == str(root)
        assert_told(told.gaps("the canary did not come back")[0], root)
        assert str(root / "meanwhile") in told.paths()
        # And it is watched again, and says so.
        await until(lambda: told.of("REALTIME_ANSWERS"), "the end of the alarm")
        assert told.of("REALTIME_ANSWERS")[0].fields["path"] == str(root)
        (root / "after").write_bytes(b"")
        await until(lambda: str(root / "after") in told.paths(), "the file after it")


@methods
async def test_a_reader_that_dies_is_a_gap_and_everything_is_checked(
    method: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent(root, method) as told:

        def die(*_given: object) -> None:
            gate.wait(30)
            raise OSError(errno.EIO, "broken")

        gate = threading.Event()

        monkeypatch.setattr(*READERS[method], die)
        await run("/bin/touch", str(root / "lost"))
        gate.set()
        await until(lambda: told.gaps("the reader failed"), "the gap")
        await until(lambda: told.checks() == 2, "the check that makes up for it")
        assert_told(told.gaps("the reader failed")[0], "/")
        assert str(root / "lost") in told.paths()


async def test_more_directories_than_are_polled_are_a_gap(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = PollingWatcher.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "poll_s", 0.01)
    monkeypatch.setitem(defaults, "directories_max", len(root.parts) + 2)
    async with agent(root, "polling") as told:
        (root / "beyond" / "deep").mkdir(parents=True)
        await until(lambda: told.gaps("directories to poll"), "the gap")
        await until(lambda: told.checks() == 2, "the check that makes up for it")
        assert_told(told.gaps("directories to poll")[0], "/")


async def test_no_way_of_watching_is_a_gap_from_the_beginning(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: object) -> None:
        raise OSError(errno.ENOSPC, "no watches left")

    monkeypatch.setattr(watch_module.InotifyWatcher, "start", refuse)
    async with agent(root, "inotify") as told:
        (gap,) = told.of("COVERAGE_GAP")
        assert gap.fields["reason"] == "no real-time watching: inotify: no watches left"
        assert_told(gap, "/")
        assert told.of("REALTIME_STARTED")[0].fields["method"] == "none"


# ---- and what is none --------------------------------------------------------------------------


@methods
@pytest.mark.parametrize(
    "script",
    [
        'echo new >"$0/sub/.old.swp"; mv "$0/sub/.old.swp" "$0/sub/old"',
        'for n in $(seq 50); do echo "$n" >>"$0/sub/old"; chmod 600 "$0/sub/old"; done',
        'mv "$0/sub/old" "$0/sub/old~"; echo new >"$0/sub/old"; rm "$0/sub/old~"',
    ],
    ids=["renamed-onto", "written-often", "backed-up"],
)
async def test_a_save_and_a_burst_are_one_modification_and_no_other_alarm(
    method: str, script: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As much as a loaded machine may take for the script; in operation it is 0.2 seconds.
    monkeypatch.setattr(watching_module, "DEBOUNCE_S", 1.0)
    async with agent(root, method) as told:
        await run("/bin/sh", "-c", script, str(root))
        await until(lambda: str(root / "sub" / "old") in told.paths(), "the modification")
        # Whatever else was told of it would have been told by the time that this is.
        await run("/bin/touch", str(root / "after"))
        await until(lambda: str(root / "after") in told.paths(), "the file after it")
    alarms = [
        (event.code, str(event.fields["path"])) for event in told.events if "path" in event.fields
    ]
    assert alarms.count(("POLICY_MODIFIED", str(root / "sub" / "old"))) == 1
    # Besides it only the directories, whose times have moved.
    others = {path for code, path in alarms if code != "REALTIME_SILENT"}
    assert others <= {str(root), *(str(root / name) for name in ("sub", "sub/old", "after"))}
