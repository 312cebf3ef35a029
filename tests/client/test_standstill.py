"""A scan that waits for a file system that does not answer is told by another thread than it."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import needfire_client.watching as watching_module
from needfire_client import beginning, dead_mounts, left_behind, scan, scan_pool
from needfire_client.attributes import ScanStoppedError, never
from needfire_client.configuration import Baseline
from needfire_client.logbook import Logbook
from needfire_client.mounts import Mount, is_below, read_mounts
from needfire_client.policy import EVERYTHING, Selection
from needfire_client.position import PositionStore
from needfire_client.reporter import Reporter
from needfire_client.scan import Scan
from needfire_client.standstill import LOOKS_EVERY_S, STANDSTILL_S, Standstill, processor_ns
from needfire_client.walk import Rest, Walker
from needfire_client.watching import Watching
from needfire_protocol.event import Event
from needfire_protocol.plain_classes import replace
from needfire_protocol.rc.policies import Policy
from needfire_testkit.mounting import dead_mount, deaf_mount, mounted
from needfire_testkit.scanner import (
    ADDED,
    MISSING,
    MODIFIED,
    Scanned,
    dir_rule,
    file_rule,
    settings_of,
)
from needfire_testkit.server import until

STANDS, GOES_ON = "SCAN_STANDS_STILL", "SCAN_GOES_ON"


def test_who_uses_no_processor_time_waits_since_it_was_seen_to_use_some() -> None:
    one = Standstill()
    used_ns = [5, 7, 7, 7, 8, 8]
    assert [one.waiting_s(10.0 * i, used) for i, used in enumerate(used_ns)] == [
        *(0, 0, 10, 20),
        *(0, 10),
    ]


def test_nobody_waits_of_whom_nothing_is_known() -> None:
    one = Standstill()
    assert [one.waiting_s(now_s, None) for now_s in (0.0, 1_000.0)] == [0, 0]
    assert [one.waiting_s(now_s, used) for now_s, used in ((2_000.0, 5), (3_000.0, None))] == [0, 0]


def test_a_time_in_which_nobody_looked_on_is_no_standstill() -> None:
    """All of a container was frozen, or a check was stopped at its terminal."""
    one = Standstill()
    looks_s = [100.0, 110.0, 3_710.0, 3_720.0]
    assert [one.waiting_s(now_s, 7) for now_s in looks_s] == [0, 10, 0, 10]


def test_the_processor_time_is_told_of_who_waits_and_of_nobody_who_could_go_on() -> None:
    own = f"{os.getpid()}/task/{threading.get_native_id()}"
    assert processor_ns(own) is None, "it runs"
    assert processor_ns("0") is None, "there is none"
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as waits:
        task = str(waits.pid)
        while processor_ns(task) is None:
            pass
        assert processor_ns(task) == processor_ns(task)
        waits.send_signal(signal.SIGSTOP)
        while processor_ns(task) is not None:
            pass
        waits.send_signal(signal.SIGCONT)
        while processor_ns(task) is None:
            pass


class Log:
    """What was reported."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.gate = threading.Event()
        self.has_waited = threading.Event()

    def write(self, event: Event) -> None:
        self.events.append(event)

    def of(self, code: str) -> list[Event]:
        return [event for event in self.events if event.code == code]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching_module, "LOOKS_EVERY_S", 0.005)
    # A thread that a busy machine lets wait for its turn uses no processor time either.
    monkeypatch.setattr(watching_module, "STANDSTILL_S", 1.0)


@pytest.fixture
def scanned(tmp_path: Path) -> Scanned:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / "b").mkdir()
    (tmp_path / "tree" / "b" / "file").write_text("x")
    scanned = Scanned(
        settings_of(dir_rule(tmp_path / "tree"), realtime=False, scan_workers=1), tmp_path
    )
    scanned.init()
    return scanned


class SlowReporter(Reporter):
    """A report of a change waits for the log's gate, as one does for which there is no room."""

    log: Log

    def report_fields(self, code: str, *given: Any, **named: Any) -> None:
        if code == MODIFIED:
            self.log.has_waited.set()
            self.log.gate.wait()
        super().report_fields(code, *given, **named)


@asynccontextmanager
async def watching(scanned: Scanned, log: Log) -> AsyncIterator[Watching]:
    """Run a daemon's watch whose first full check begins at once."""
    reporter = SlowReporter(Logbook(log), clock_us=lambda: 1, random_bytes=os.urandom)
    reporter.log = log
    bugs: list[Exception] = []
    watching = Watching(
        reporter, scanned.directory / "overlay", scanned.directory / "place", on_bug=bugs.append
    )
    baseline = Baseline(scanned.baseline, str(scanned.baseline), "sha256:0")
    watching.configure(scanned.settings, baseline)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(watching.run())
        try:
            yield watching
        finally:
            log.gate.set()
            await watching.stop()
            task.cancel()
    assert bugs == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
@pytest.mark.usefixtures("impatient")
async def test_a_mount_that_does_not_answer_is_told_with_its_place_and_so_is_its_end(
    scanned: Scanned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is mounted when the check has begun.
    monkeypatch.setattr(scan, "read_mounts", tuple)
    log = Log()
    with dead_mount(tmp_path / "tree" / "a") as end:
        async with watching(scanned, log):
            await until(lambda: log.of(STANDS), "word of the standstill")
            assert not log.of("CHECK_COMPLETED")
            end()
            await until(lambda: log.of("CHECK_COMPLETED"), "the end of the check")
            await until(lambda: log.of(GOES_ON), "word of its end")
    [told], [ended] = log.of(STANDS), log.of(GOES_ON)
    assert told.fields["path"] == ended.fields["path"] == str(tmp_path / "tree")
    assert told.fields["since"] == ended.fields["since"]
    assert [event.fields["path"] for event in log.of("FILE_UNREADABLE")] == [
        str(tmp_path / "tree" / "a")
    ]


@pytest.mark.usefixtures("impatient")
async def test_a_scan_that_hangs_is_told_and_keeps_no_agent_from_ending(
    scanned: Scanned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, answer = Log(), threading.Event()
    listed = os.scandir

    def hanging(place: int) -> object:
        answer.wait()
        return listed(place)

    monkeypatch.setattr(watching_module, "_STOP_S", 0.01)
    monkeypatch.setattr(os, "scandir", hanging)
    async with watching(scanned, log):
        await until(lambda: log.of(STANDS), "word of the standstill")
    assert log.of(GOES_ON) == []
    [scan] = [thread for thread in threading.enumerate() if thread.name == "scan"]
    answer.set()
    scan.join(60)
    assert not scan.is_alive()
    # What it has open is left to the end of the process, and the one of the tests goes on.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del scan
        gc.collect()


async def test_a_scan_whose_report_has_to_wait_does_not_stand_still(
    scanned: Scanned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, looks = Log(), Looks(monkeypatch)
    monkeypatch.setattr(watching_module, "LOOKS_EVERY_S", 0.001)
    (tmp_path / "tree" / "b" / "file").write_text("y")
    async with watching(scanned, log):
        await until(log.has_waited.is_set, "the report")
        monkeypatch.setattr(watching_module, "STANDSTILL_S", 0.003)
        first = looks.count
        await until(lambda: looks.count > first + 20, "looks at the scan")
        monkeypatch.setattr(watching_module, "STANDSTILL_S", 60.0)
        log.gate.set()
        await until(lambda: log.of("CHECK_COMPLETED"), "the end of the check")
    assert [event.code for event in log.events if event.code in (STANDS, GOES_ON)] == []


class Looks:
    """Counts how often a scan was looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        waiting_s = Standstill.waiting_s

        def counted(one: Standstill, now_s: float, used_ns: int | None) -> float:
            self.count += 1
            return waiting_s(one, now_s, used_ns)

        monkeypatch.setattr(Standstill, "waiting_s", counted)


def test_a_slow_disk_is_not_told() -> None:
    one = Standstill()
    looks = [one.waiting_s(100 + LOOKS_EVERY_S * number, 5) for number in range(14)]
    assert [waiting_s >= STANDSTILL_S for waiting_s in looks] == [False] * 12 + [True] * 2


@pytest.fixture
def impatient_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process does not come to is told soon."""
    monkeypatch.setattr(scan_pool, "LOOKS_EVERY_S", 0.01)
    monkeypatch.setattr(scan_pool, "STANDSTILL_S", 1.0)
    monkeypatch.setattr(dead_mounts, "STANDSTILL_S", 1.0)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
@pytest.mark.usefixtures("impatient_pool")
@pytest.mark.parametrize(
    ("workers", "policy"), [(1, Policy.READ_ONLY), (2, Policy.GROWING_LOG_FILES)]
)
def test_a_check_leaves_a_mount_alone_that_does_not_answer_and_nothing_else(
    tmp_path: Path, workers: int, policy: Policy
) -> None:
    """Wherever it is, and however small the tree: the agent's own thread does not go there."""
    tree = tmp_path / "tree"
    for name in ("a", "b/dead/inner", "c"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").write_text("x")
    (tree / "b" / "file").write_text("x")
    settings = settings_of(dir_rule(tree, policy), scan_workers=workers)
    scanned = Scanned(settings, tmp_path)
    scanned.init()
    (tree / "a" / "file").write_text("y")
    (tree / "b" / "file").write_text("y")
    (tree / "c" / "file").unlink()
    scanned.take()
    with dead_mount(tree / "b" / "dead"):
        for selection in (Selection(quick=frozenset({""})), EVERYTHING):
            assert scanned.checker().full_check(selection=selection).is_complete
            assert scanned.receipt().fields["skipped_why"] == "the system does not answer: 1"
            events = scanned.take()
            assert {event.path for event in events if "C" in event.change} == {
                bytes(tree / "a" / "file"),
                bytes(tree / "b" / "file"),
            }
            told = [(event.code, event.path) for event in events if event.code != MODIFIED]
            assert sorted(told) == [
                ("FILE_UNREADABLE", bytes(tree / "b" / "dead")),
                (MISSING, bytes(tree / "c" / "file")),
            ]
        updated = scanned.checker().update(
            scanned.baseline, host="h", configuration_sha256="", created_us=2
        )
        assert updated.is_complete
    scanned.take()
    # What it could not see is as it was before.
    assert scanned.checker().full_check().changes == 0
    scanned.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
@pytest.mark.usefixtures("impatient_pool")
@pytest.mark.parametrize("rule", ["names it", "stops at it", "names something in it"])
def test_a_dead_mount_is_told_wherever_it_is_on_the_way_of_a_rule(
    tmp_path: Path, rule: str
) -> None:
    (tmp_path / "tree" / "dead" / "inner").mkdir(parents=True)
    rules = {
        "names it": file_rule(tmp_path / "tree" / "dead"),
        "stops at it": dir_rule(tmp_path / "tree", depth=0),
        "names something in it": file_rule(tmp_path / "tree" / "dead" / "inner"),
    }
    scanned = Scanned(settings_of(rules[rule], scan_workers=1), tmp_path)
    scanned.init()
    scanned.take()
    with dead_mount(tmp_path / "tree" / "dead"):
        assert scanned.checker().full_check().is_complete
    events = scanned.take()
    scanned.close()
    assert [(event.code, event.path) for event in events] == [
        ("FILE_UNREADABLE", bytes(tmp_path / "tree" / "dead"))
    ]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
@pytest.mark.usefixtures("impatient_pool")
def test_processes_go_on_beside_a_mount_that_died_after_the_check_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "read_mounts", tuple)
    monkeypatch.setattr(beginning, "EFFORT", 0)
    tree = tmp_path / "tree"
    for name in ("a", "b", "b/dead", "c"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").write_text("x")
    scanned = Scanned(settings_of(dir_rule(tree), scan_workers=2), tmp_path)
    scanned.init()
    for name in ("a", "b", "c"):
        (tree / name / "file").write_text("other")
    scanned.take()
    with dead_mount(tree / "b" / "dead"):
        result = scanned.checker().full_check()
    events = scanned.take()
    scanned.close()
    assert result.is_complete
    paths = {event.path for event in events if event.code == MODIFIED and "C" in event.change}
    assert paths == {bytes(tree / name / "file") for name in ("a", "b", "c")}
    assert [event for event in events if event.code == MISSING] == []
    [unread] = [event for event in events if event.code == "FILE_UNREADABLE"]
    assert (unread.path, unread.fields["reason"]) == (
        bytes(tree / "b" / "dead"),
        "the system does not answer",
    )
    deaths = [event for event in events if event.code == "SCAN_WORKER_DIED"]
    assert {event.fields["reason"] for event in deaths} == {"the system does not answer"}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
@pytest.mark.usefixtures("impatient_pool")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_mount_that_dies_inside_of_another_one_takes_nothing_else_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    net, asked = tmp_path / "net", list[list[Path]]()
    net.mkdir()
    unanswered = dead_mounts.unanswered

    def counted(mounts: Sequence[Mount], stop: Callable[[], bool]) -> frozenset[bytes]:
        asked.append([Path(os.fsdecode(mount.point)) for mount in mounts])
        # It dies when all have been asked before the check.
        return frozenset() if len(asked) == 1 else unanswered(mounts, stop)

    def as_of_a_network() -> tuple[Mount, ...]:
        ours = (mount for mount in read_mounts() if is_below(mount.point, bytes(tmp_path)))
        return tuple(replace(mount, kind="nfs4") for mount in ours)

    for module in (scan, dead_mounts):
        monkeypatch.setattr(module, "read_mounts", as_of_a_network)
    with mounted("-t", "tmpfs", "needfire-test", str(net)):
        places = [net / "a", net / "b", net / "b" / "live", net / "b" / "y", net / "c"]
        for place in (*places, net / "b" / "dead"):
            place.mkdir(parents=True)
        with mounted("-t", "tmpfs", "needfire-test", str(net / "b" / "live")):
            for place in (*places, net / "b" / "dead"):
                (place / "file").write_text("x")
            scanned = Scanned(settings_of(dir_rule(net), scan_workers=workers), tmp_path)
            scanned.init()
            for place in places:
                (place / "file").write_text("other")
            scanned.take()
            monkeypatch.setattr(dead_mounts, "unanswered", counted)
            with dead_mount(net / "b" / "dead"):
                assert scanned.checker().full_check().is_complete
    events = scanned.take()
    scanned.close()
    changed = {event.path for event in events if event.code == MODIFIED and "C" in event.change}
    assert changed == {bytes(place / "file") for place in places}
    assert [event.path for event in events if event.code == "FILE_UNREADABLE"] == [
        bytes(net / "b" / "dead")
    ]
    assert [event for event in events if event.code == MISSING] == []
    everywhere = [net, net / "b" / "dead", net / "b" / "live"]
    assert sorted(asked[0]) == everywhere
    assert sorted(path for paths in asked[1:] for path in paths) == everywhere


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
@pytest.mark.usefixtures("impatient_pool")
@pytest.mark.parametrize(
    ("dead", "resumed_after", "unread"), [("z", "b/inner", "z"), ("b", None, "b")]
)
def test_a_check_that_was_stopped_goes_on_beside_a_mount_that_has_died_meanwhile(
    tmp_path: Path, dead: str, resumed_after: str | None, unread: str
) -> None:
    """And begins anew where its place lies in there."""
    tree = tmp_path / "tree"
    for name in ("a", "b/inner", "z"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").write_text("x")
    scanned = Scanned(settings_of(dir_rule(tree), scan_workers=1), tmp_path)
    scanned.init()
    checker = scanned.checker()
    store = PositionStore(tmp_path / "position")
    stopped = checker.full_check(lambda: checker.at.endswith(b"inner"), positions=store, watch="w")
    assert not stopped.is_complete
    scanned.take()
    with dead_mount(tree / dead):
        assert checker.full_check(positions=store, watch="w").is_complete
    [started] = [event for event in scanned.raised if event.code == "CHECK_STARTED"]
    place = None if resumed_after is None else str(tree / resumed_after)
    assert started.fields.get("resumed_after") == place
    events = scanned.take()
    scanned.close()
    # Nor is a process sent there only to be given up.
    assert [(event.code, event.path) for event in events] == [
        ("FILE_UNREADABLE", bytes(tree / unread))
    ]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
@pytest.mark.usefixtures("impatient_pool")
def test_who_does_not_answer_twice_is_asked_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies while a process is inside of it: to ask in each of its directories takes hours."""
    net, names = tmp_path / "tree" / "net", [b"%02d" % number for number in range(20)]
    for name in names:
        (net / os.fsdecode(name) / "inner").mkdir(parents=True)
    (tmp_path / "tree" / "other").mkdir()
    scanned = Scanned(settings_of(dir_rule(tmp_path / "tree"), scan_workers=1), tmp_path)
    scanned.init()
    checker = scanned.checker()
    store = PositionStore(tmp_path / "position")
    stopped = checker.full_check(lambda: checker.at == bytes(net), positions=store, watch="w")
    assert not stopped.is_complete
    (tmp_path / "tree" / "other" / "new").touch()
    scanned.take()
    rests = [Rest(bytes(net), names), Rest(bytes(tmp_path / "tree"), [b"other"])]
    monkeypatch.setattr(Walker, "rests_after", lambda *_given: rests)
    monkeypatch.setattr(dead_mounts, "unanswered", lambda *_given: frozenset())
    with dead_mount(net):
        assert checker.full_check(positions=store, watch="w").is_complete
    events = scanned.take()
    scanned.close()
    assert sorted(event.path for event in events if event.code == "FILE_UNREADABLE") == [
        bytes(net) + b"/" + name for name in names
    ]
    assert [event.code for event in events].count("SCAN_WORKER_DIED") == 2
    assert [event.path for event in events if event.code == ADDED] == [
        bytes(tmp_path / "tree" / "other" / "new")
    ]
    assert [event for event in events if event.code == MISSING] == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
@pytest.mark.usefixtures("impatient_pool")
def test_of_several_mounts_those_are_known_that_do_not_answer(tmp_path: Path) -> None:
    (tmp_path / "dead").mkdir()
    mounts = [mount_at(tmp_path / name) for name in (".", "dead", "none")]
    with dead_mount(tmp_path / "dead") as end:
        assert dead_mounts.unanswered(mounts, never) == {mounts[1].point}
        with pytest.raises(ScanStoppedError):
            dead_mounts.unanswered(mounts, lambda: True)
        end()
        assert dead_mounts.unanswered(mounts, never) == frozenset()


def test_no_more_mounts_are_asked_at_once_than_the_manual_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[Any]] = []

    def refuse(command: list[Any], **_how: object) -> None:
        commands.append(command)
        raise OSError(11, "Resource temporarily unavailable")

    most = dead_mounts.ASKED_MAX
    mounts = [mount_at(tmp_path / str(number), number) for number in range(most + 1)]
    monkeypatch.setattr(subprocess, "Popen", refuse)
    # Where nobody can be asked nothing is known, and so it is of what is beyond.
    assert dead_mounts.unanswered(mounts, never) == frozenset()
    [command] = commands
    assert command[-most:] == [mount.point for mount in mounts[:most]]
    manual = Path(__file__).parents[2] / "docs" / "operate.md"
    assert f"up to {most} of them" in manual.read_text()


def mount_at(place: Path, number: int = 1) -> Mount:
    return Mount(number, b"0:1", b"/", bytes(place), "fuse")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
@pytest.mark.usefixtures("impatient_pool")
def test_a_mount_that_lets_nobody_go_is_asked_by_one_process_and_not_by_one_of_each_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deaf").mkdir()
    left: list[Any] = []
    monkeypatch.setattr(left_behind, "_left", left)
    mounts = [mount_at(tmp_path), mount_at(tmp_path / "deaf", 2)]
    with deaf_mount(tmp_path / "deaf") as end:
        for _ in range(10):
            assert dead_mounts.unanswered(mounts, never) == {mounts[1].point}
        [(asker, _)] = left
        # Another one that has come to stand there is none of which anything is known.
        with monkeypatch.context() as no_question:
            no_question.setattr(dead_mounts, "ASKED_MAX", 0)
            another = [mount_at(tmp_path / "deaf", 3)]
            assert dead_mounts.unanswered(another, never) == frozenset()
        end()
        asker.wait(60)
    assert dead_mounts.unanswered(mounts, never) == frozenset()
    assert left == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
@pytest.mark.usefixtures("impatient_pool")
def test_a_mount_is_not_taken_for_silent_that_nobody_could_be_made_to_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dead").mkdir()
    mounts = [mount_at(tmp_path / "dead"), *(mount_at(tmp_path, 2 + each) for each in range(8))]
    # Room for the stack of one thread.
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nulimit -s 500000\nulimit -v 850000\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with dead_mount(tmp_path / "dead"):
        assert dead_mounts.unanswered(mounts, never) == {mounts[0].point}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
@pytest.mark.usefixtures("impatient_pool")
def test_where_too_many_have_not_ended_no_other_is_given_up_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    (tree / "dead").mkdir(parents=True)
    scanned = Scanned(settings_of(dir_rule(tree), scan_workers=2), tmp_path)
    scanned.init()
    scanned.take()
    monkeypatch.setattr(scan, "read_mounts", tuple)
    monkeypatch.setattr(beginning, "EFFORT", 0)
    monkeypatch.setattr(left_behind, "_left", [])
    for _ in range(left_behind.LEFT_MAX):
        left_behind.leave(Undead())
    with dead_mount(tree / "dead") as end:

        def ended_once_told() -> bool:
            if any(event.code == "SCAN_WORKER_DIED" for event in scanned.raised):
                end()
            return False

        assert scanned.checker().full_check(ended_once_told).is_complete
    [died] = [event for event in scanned.take() if event.code == "SCAN_WORKER_DIED"]
    scanned.close()
    assert str(died.fields["reason"]).startswith("not yet: the system does not answer")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
@pytest.mark.usefixtures("impatient_pool")
def test_checks_beside_processes_that_do_not_end_send_nobody_after_them_until_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    for name in ("deaf", "other"):
        (tree / name).mkdir(parents=True)
    scanned = Scanned(settings_of(dir_rule(tree), scan_workers=1), tmp_path)
    scanned.init()
    left: list[Any] = []
    monkeypatch.setattr(left_behind, "_left", left)
    # A process that stood still, and the one that asked why.
    monkeypatch.setattr(left_behind, "LEFT_MAX", 2)
    with deaf_mount(tree / "deaf") as end:
        with monkeypatch.context() as dies_later:
            dies_later.setattr(Scan, "unanswered", lambda _scan: frozenset())
            scanned.take()
            assert scanned.checker().full_check().is_complete
        told = [event.path for event in scanned.take() if event.code == "FILE_UNREADABLE"]
        assert told == [bytes(tree / "deaf")]
        processes = [process for process, _ in left]
        assert len(processes) == left_behind.LEFT_MAX
        for number in range(3):
            (tree / "other" / f"new{number}").touch()
            assert scanned.checker().full_check().is_complete
            events = scanned.take()
            # Nobody was given up.
            assert {event.path: event.code for event in events if event.code != MODIFIED} == {
                bytes(tree / "deaf"): "FILE_UNREADABLE",
                **{bytes(tree / "other" / f"new{each}"): ADDED for each in range(number + 1)},
            }
        assert [process for process, _ in left] == processes
        end()
        for process in processes:
            process.wait(60)
    assert scanned.checker().full_check().unreadable == 0
    scanned.close()
    assert left_behind.waited_for() == frozenset()
    assert left == []


def test_a_root_that_comes_over_a_network_is_not_asked_before_each_check(
    scanned: Scanned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it nothing of the host answers, and each small check would start processes."""
    root = Mount(1, b"0:30", b"/", b"/", "nfs4")
    monkeypatch.setattr(scan, "read_mounts", lambda: (root,))
    monkeypatch.setattr(dead_mounts, "unanswered", None)
    monkeypatch.setattr(scan_pool, "start_worker", None)
    assert scanned.init().is_complete


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
@pytest.mark.usefixtures("impatient_pool")
def test_the_agent_does_no_part_of_a_large_check_itself_where_a_mount_may_die(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    (tree / "a" / "dead").mkdir(parents=True)
    scanned = Scanned(settings_of(dir_rule(tree), scan_workers=1), tmp_path)
    scanned.init()
    scanned.take()
    monkeypatch.setattr(scan, "is_large", lambda *_: True)
    # It dies when it has been asked.
    monkeypatch.setattr(dead_mounts, "unanswered", lambda *_given: frozenset())
    with dead_mount(tree / "a" / "dead"):
        assert scanned.checker().full_check().is_complete
    scanned.close()


class Undead:
    """A process that does not end, until it does."""

    pid = 0

    def __init__(self) -> None:
        self.has_ended = False

    def kill(self) -> None:
        """It is in the hands of the kernel."""

    def wait(self, timeout: float | None = None) -> int:
        if not self.has_ended:
            raise subprocess.TimeoutExpired("worker", timeout or 0)
        return 0


def test_processes_that_do_not_end_are_left_to_the_kernel_up_to_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(left_behind, "_left", [])
    undead = [Undead() for _ in range(left_behind.LEFT_MAX)]
    for each in undead:
        assert left_behind.has_room()
        left_behind.leave(each)
    assert not left_behind.has_room()
    undead[3].has_ended = True
    assert left_behind.has_room()
    left_behind.leave(Undead())
    assert not left_behind.has_room(), "of the others none has ended"


def test_where_too_many_have_not_ended_nobody_is_asked_nor_sent_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(left_behind, "_left", [])
    undead = [Undead() for _ in range(left_behind.LEFT_MAX)]
    for each in undead:
        left_behind.leave(each)
    mounts = [mount_at(tmp_path)]
    with monkeypatch.context() as no_process:
        no_process.setattr(subprocess, "Popen", None)
        assert dead_mounts.unanswered(mounts, never) == {bytes(tmp_path)}
    undead[0].has_ended = True
    assert dead_mounts.unanswered(mounts, never) == frozenset()
