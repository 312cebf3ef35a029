"""A scan that waits for a file system that does not answer is told by another thread than it."""

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import needfire_client.watching as watching_module
from needfire_client import beginning, scan_pool
from needfire_client.configuration import Baseline
from needfire_client.logbook import Logbook
from needfire_client.reporter import Reporter
from needfire_client.standstill import LOOKS_EVERY_S, STANDSTILL_S, Standstill, processor_ns
from needfire_client.watching import Watching
from needfire_protocol.event import Event
from needfire_testkit.mounting import dead_mount
from needfire_testkit.scanner import MISSING, MODIFIED, Scanned, dir_rule, settings_of
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
    scanned: Scanned, tmp_path: Path
) -> None:
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
    answer.set()


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


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
def test_processes_go_on_beside_a_mount_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    for name in ("a", "b/dead", "c"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").write_text("x")
    scanned = Scanned(settings_of(dir_rule(tree), scan_workers=2), tmp_path)
    scanned.init()
    for name in ("a", "c"):
        (tree / name / "file").write_text("other")
    scanned.take()
    # Only processes look, and what they do not come to is told soon.
    monkeypatch.setattr(beginning, "EFFORT", 0)
    monkeypatch.setattr(scan_pool, "LOOKS_EVERY_S", 0.01)
    monkeypatch.setattr(scan_pool, "STANDSTILL_S", 1.0)
    with dead_mount(tree / "b" / "dead"):
        result = scanned.checker().full_check()
    events = scanned.take()
    scanned.close()
    assert result.is_complete
    paths = {event.path for event in events if event.code == MODIFIED and "C" in event.change}
    assert paths == {bytes(tree / "a" / "file"), bytes(tree / "c" / "file")}
    assert [event for event in events if event.code == MISSING] == []
    [unread] = [event for event in events if event.code == "FILE_UNREADABLE"]
    assert (unread.path, unread.fields["reason"]) == (
        bytes(tree / "b"),
        "the system does not answer",
    )
    deaths = [event for event in events if event.code == "SCAN_WORKER_DIED"]
    assert {event.fields["reason"] for event in deaths} == {"the system does not answer"}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
def test_where_too_many_have_not_ended_no_other_is_given_up_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    (tree / "dead").mkdir(parents=True)
    scanned = Scanned(settings_of(dir_rule(tree), scan_workers=2), tmp_path)
    scanned.init()
    scanned.take()
    monkeypatch.setattr(beginning, "EFFORT", 0)
    monkeypatch.setattr(scan_pool, "LOOKS_EVERY_S", 0.01)
    monkeypatch.setattr(scan_pool, "STANDSTILL_S", 1.0)
    monkeypatch.setattr(scan_pool, "_lost", [Undead() for _ in range(8)])
    with dead_mount(tree / "dead") as end:

        def ended_once_told() -> bool:
            if any(event.code == "SCAN_WORKER_DIED" for event in scanned.raised):
                end()
            return False

        assert scanned.checker().full_check(ended_once_told).is_complete
    [died] = [event for event in scanned.take() if event.code == "SCAN_WORKER_DIED"]
    scanned.close()
    assert str(died.fields["reason"]).startswith("not yet: the system does not answer")


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
    undead = [Undead() for _ in range(8)]
    monkeypatch.setattr(scan_pool, "_lost", undead[:7])
    assert scan_pool._has_room_for_lost()
    monkeypatch.setattr(scan_pool, "_lost", undead)
    assert not scan_pool._has_room_for_lost()
    undead[3].has_ended = True
    assert scan_pool._has_room_for_lost()
    assert len(undead) == 7
