"""A pass that several processes share."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, TextIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from needfire_client import beginning, dead_mounts, directory, memory, scan_pool, scan_worker, walk
from needfire_client.attributes import Examiner, _is_cached
from needfire_client.baseline import BaselineReader
from needfire_client.directory import UNANSWERED
from needfire_client.efforts import AS_BEFORE_PER_EFFORT
from needfire_client.judging import Severities
from needfire_client.left_behind import Process
from needfire_client.mounts import Mount
from needfire_client.policy import EVERYTHING, Ruleset, Selection
from needfire_client.record import DirectoryRecord, Finding
from needfire_protocol.baseline import ENTRIES_PER_DIRECTORY_MAX
from needfire_protocol.rc.agent import AgentSettings
from needfire_protocol.rc.policies import Policy
from needfire_testkit.processes import wait_until
from needfire_testkit.scan_workers import ThreadWorker, share_out_everything
from needfire_testkit.scanner import Make, Raised, dir_rule, file_rule, making, settings_of

REAL_START = scan_pool.start_worker


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for number in range(40):
        directory = root / f"d{number % 4}" / f"s{number}"
        directory.mkdir(parents=True)
        for name in ("a", "b\n", "c"):
            (directory / name).write_bytes(os.urandom(number * 100))
    (root / "d0" / "large").write_bytes(bytes(300_000))
    return root


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    share_out_everything(monkeypatch)
    with making(tmp_path, scan_workers=3) as make:
        yield make


def contents(path: Path) -> tuple[str, int]:
    with BaselineReader(path) as reader:
        return reader.meta.content_sha256, reader.meta.entries


def test_the_baseline_is_the_same_to_the_byte_however_many_make_it(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for workers in (1, 2, 5):
        scanned = make(
            dir_rule(root),
            dir_rule(root / "d1", Policy.GROWING_LOG_FILES),
            file_rule(root / "d0" / "large", Policy.IGNORE_NONE),
            scan_workers=workers,
        )
        result = scanned.init()
        found[workers] = (
            contents(scanned.baseline),
            result.files,
            result.hashed,
            result.bytes_read,
        )
        weird = {event.path for event in scanned.take() if event.code == "WEIRD_FILENAME"}
        assert len(weird) == 40
    assert found[1] == found[2] == found[5]


def test_real_processes_find_the_same(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Process] = []

    def start() -> tuple[socket.socket, Process]:
        connection, process = REAL_START()
        started.append(process)
        return connection, process

    monkeypatch.setattr(scan_pool, "start_worker", start)
    scanned = make(dir_rule(root), scan_workers=2)
    scanned.init()
    checker = scanned.checker()
    (root / "d2" / "s2" / "a").write_bytes(b"other")
    (root / "d3" / "s3" / "c").unlink()
    scanned.take()
    result = checker.full_check()
    found = {(code, path.rsplit(b"/", 1)[1]) for code, path, _ in scanned.changes()}
    assert {each for each in found if each[0] != "WEIRD_FILENAME"} == {
        ("POLICY_MODIFIED", b"a"),
        ("POLICY_MISSING", b"c"),
        ("POLICY_MODIFIED", b"s3"),
    }
    assert (result.hashed, len(started)) == (120, 4)
    assert all(process.wait(0) is not None for process in started)


def test_a_small_tree_starts_no_process(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never() -> tuple[socket.socket, Process]:
        raise AssertionError("a process was started")

    monkeypatch.setattr(scan_pool, "start_worker", never)
    monkeypatch.setattr(beginning, "EFFORT", 1_000)
    scanned = make(dir_rule(root))
    assert scanned.init().is_complete
    assert scanned.checker().full_check().is_complete


places = st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=5).map(
    lambda names: b"/" + b"/".join(names)
)


@given(st.lists(st.tuples(places, st.booleans()), max_size=12), st.sampled_from([0, 2, 100]))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_place_of_a_directory_does_not_depend_on_what_was_asked_before(
    monkeypatch: pytest.MonkeyPatch, asked: list[tuple[bytes, bool]], most: int
) -> None:
    monkeypatch.setattr(walk, "_PLACES_MAX", most)
    wanted = settings_of(
        dir_rule(b"/a", depth=2),
        file_rule(b"/a/b/c"),
        dir_rule(b"/a/b/b", Policy.ATTRIBUTES),
        dir_rule(b"/b/*/a", Policy.LOG_FILES),
    )
    severities = Severities(*(wanted.severity_files,) * 3)
    walker = walk.Walker(Ruleset(wanted), severities, Examiner("sha256"))
    for path, is_followed in asked:
        if is_followed:
            walker.followed.add(path)
        place = walker._ruleset.root()[1]
        for end in (index for index in range(2, len(path) + 1, 2)):
            place = place.child(path[end - 1 : end])[1]
            if path[:end] in walker.followed:
                place = place.only_named()
        found = walker.place_of(path)
        assert (found.contents, found.levels, found.is_uniform, found.named()) == (
            *(place.contents, place.levels, place.is_uniform, place.named()),
        )


@pytest.mark.parametrize("quick", [EVERYTHING, Selection(quick=frozenset({""}))])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_processes_start_at_once_where_the_baseline_is_large(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch, quick: Selection, more: int
) -> None:
    started: list[int] = []
    start = scan_pool.start_worker

    def noted() -> tuple[socket.socket, Process]:
        started.append(1)
        return start()

    monkeypatch.setattr(scan_pool, "start_worker", noted)
    monkeypatch.setattr(beginning, "EFFORT", 1_000)
    scanned = make(dir_rule(root), scan_workers=2)
    effort = scanned.init().files
    assert started == []
    if quick.quick:
        effort //= AS_BEFORE_PER_EFFORT
    monkeypatch.setattr(beginning, "_LARGE_EFFORT", effort + more)
    monkeypatch.setattr(scan_pool, "BESIDE_EFFORT", 1)
    checker = scanned.checker()
    (root / "d2" / "s2" / "a").write_bytes(b"other")
    scanned.take()
    checker.full_check(selection=quick)
    assert [path for code, path, _ in scanned.changes() if code == "POLICY_MODIFIED"] == [
        bytes(root / "d2" / "s2" / "a")
    ]
    assert len(started) == (0 if more > 0 else 2)
    checker.full_check(selection=Selection(groups=frozenset({""})))
    assert len(started) == (0 if more > 0 else 2)


def dying(monkeypatch: pytest.MonkeyPatch, is_deadly: Callable[[Any], bool]) -> list[Any]:
    """Let workers end at the units that are named; return those units as they do."""
    met: list[Any] = []
    perform = scan_worker.Laborer.perform

    def mortal(self: scan_worker.Laborer, unit: Any) -> bytes:
        if is_deadly(unit):
            met.append(unit)
            raise ConnectionResetError
        return perform(self, unit)

    monkeypatch.setattr(scan_worker.Laborer, "perform", mortal)
    return met


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> "Standing":
    return Standing(monkeypatch)


class Standing:
    """Workers that stand still at units, as at mounts that do not answer, until they are ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mounts: list[Mount] = []
        self.silent: set[bytes] = set()
        """Where a mount is that does not answer when it is asked."""
        self.asked: list[bytes] = []
        self.stood: list[Any] = []
        """Units at which somebody stood still."""
        self.stands_at: Callable[[Any, frozenset[bytes]], bool] = lambda _unit, _avoids: False
        """Says it of a unit and of what its process leaves alone."""
        waiting: dict[socket.socket, tuple[bytes, tuple[bytes, ...]]] = {}
        perform = scan_worker.Laborer.perform

        def stand(laborer: scan_worker.Laborer, unit: Any) -> bytes:
            if not self.stands_at(unit, laborer.walker.avoids):
                return perform(laborer, unit)
            self.stood.append(unit)
            waiting[laborer._connection] = unit.directory, unit.names
            ended = select.poll()
            ended.register(laborer._connection, select.POLLRDHUP)
            ended.poll()
            raise ConnectionResetError

        def stands_still(worker: scan_pool._Worker, _now_s: float) -> bool:
            assert isinstance(worker.process, ThreadWorker)
            # What it did before that may not have been heard yet.
            unit = worker.under_way[0].unit
            assert unit is not None
            return waiting.get(worker.process._connection) == (unit.directory, unit.names)

        monkeypatch.setattr(scan_worker.Laborer, "perform", stand)
        monkeypatch.setattr(scan_pool._Worker, "stands_still", stands_still)
        monkeypatch.setattr(scan_pool, "LOOKS_EVERY_S", 0)
        monkeypatch.setattr(dead_mounts, "read_mounts", lambda: tuple(self.mounts))
        monkeypatch.setattr(dead_mounts, "unanswered", self._unanswered)

    def mount(self, point: Path, kind: str = "nfs4") -> bytes:
        """Pretend that something is mounted there; return where."""
        self.mounts.append(Mount(len(self.mounts), b"0:1", b"/", bytes(point), kind))
        return bytes(point)

    def _unanswered(self, mounts: list[Mount], _stop: object) -> frozenset[bytes]:
        points = [mount.point for mount in mounts]
        self.asked += points
        return frozenset(self.silent).intersection(points)


def unread(events: list[Raised]) -> dict[bytes, object]:
    """Return what was unreadable, and why."""
    return {
        event.path: event.fields["reason"] for event in events if event.code == "FILE_UNREADABLE"
    }


@pytest.mark.parametrize("kind", ["nfs4", "autofs"])
def test_a_mount_that_answers_one_question_and_no_other_takes_nothing_else_with_it(
    root: Path, make: Make, standing: Standing, kind: str
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    outer = standing.mount(root)
    point = standing.mount(root / "d1" / "s1", kind)
    elsewhere = standing.mount(root / "d2" / "s2")
    standing.stands_at = lambda unit, avoids: (
        unit.directory == bytes(root) and b"d1" in unit.names and point not in avoids
    )
    checker = scanned.checker()
    (root / "d1" / "s5" / "a").write_bytes(b"other")
    scanned.take()
    assert checker.full_check().is_complete
    events = scanned.take()
    assert unread(events) == {point: UNANSWERED}
    assert [event.path for event in events if event.code.startswith("POLICY")] == [
        bytes(root / "d1" / "s5" / "a")
    ]
    assert len(standing.stood) == scan_pool._FAILURES_MAX
    # No mount is asked a second time, and an automounter never: it would mount something.
    wanted = {outer, point, elsewhere} if kind == "nfs4" else {outer, elsewhere}
    assert (set(standing.asked), len(standing.asked)) == (wanted, len(wanted))


def test_who_mounts_something_that_holds_everybody_has_no_mount_beside_it_left_alone(
    root: Path, make: Make, standing: Standing
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    standing.mount(root / "d1" / "s1", "autofs")
    theirs = standing.mount(root / "d1" / "s5", "fuse.mine")
    standing.mount(root / "d1" / "s9")
    # It answers who asks for it, and nobody who lists the directory that it lies in.
    standing.stands_at = lambda unit, avoids: (
        unit.directory == bytes(root) and b"d1" in unit.names and theirs not in avoids
    )
    checker = scanned.checker()
    for name in ("s1", "s9"):
        (root / "d1" / name / "a").write_bytes(b"other")
    scanned.take()
    assert checker.full_check().is_complete
    events = scanned.take()
    assert unread(events) == {theirs: UNANSWERED}
    assert [event.path for event in events if event.code.startswith("POLICY")] == [
        bytes(root / "d1" / name / "a") for name in ("s1", "s9")
    ]
    assert len(standing.stood) == scan_pool._FAILURES_MAX


def test_who_mounts_more_and_more_where_nobody_answers_keeps_a_check_only_for_a_while(
    root: Path, make: Make, standing: Standing
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    place = root / "d1" / "s1"

    def stands_at(unit: Any, _avoids: frozenset[bytes]) -> bool:
        is_there = b"s1" in unit.names
        if is_there:
            standing.silent.add(standing.mount(place / f"more{len(standing.stood)}"))
        return is_there

    standing.stands_at = stands_at
    checker = scanned.checker()
    (root / "d3" / "s39" / "a").write_bytes(b"other")
    scanned.take()
    assert checker.full_check().is_complete
    events = scanned.take()
    assert unread(events) == {bytes(place): UNANSWERED}
    assert [event.path for event in events if event.code.startswith("POLICY")] == [
        bytes(root / "d3" / "s39" / "a")
    ]
    assert len(standing.stood) == scan_pool._STANDSTILLS_MAX


def test_a_directory_that_holds_everybody_is_left_once_what_is_mounted_in_it_is_no_more_asked(
    root: Path, make: Make, standing: Standing
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    place = root / "d1" / "s1"
    standing.mount(place / "innocent")
    standing.stands_at = lambda unit, _avoids: b"s1" in unit.names
    checker = scanned.checker()
    scanned.take()
    assert checker.full_check().is_complete
    assert unread(scanned.take()) == {bytes(place): UNANSWERED}
    assert len(standing.stood) == scan_pool._FAILURES_MAX + 1


def test_a_mount_that_holds_everybody_is_left_although_it_answers_when_it_is_asked(
    root: Path, make: Make, standing: Standing
) -> None:
    scanned = make(dir_rule(root), scan_workers=2)
    scanned.init()
    standing.mount(root)
    point = standing.mount(root / "d1")
    standing.stands_at = lambda unit, _avoids: unit.directory.startswith(point)
    checker = scanned.checker()
    scanned.take()
    assert checker.full_check().is_complete
    events = scanned.take()
    # Each of the two at one directory, and not all of them at ten.
    assert len(standing.stood) <= 2 * scan_pool._FAILURES_MAX
    assert all(path.startswith(point + b"/") for path in unread(events))
    assert [event for event in events if event.code.startswith("POLICY")] == []


def test_nobody_goes_into_a_dead_mount_when_no_process_can_be_started_any_more(
    root: Path, make: Make, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent would wait there itself, and nobody could give it up."""
    scanned = make(dir_rule(root), scan_workers=2)
    scanned.init()
    point = standing.mount(root / "d1")
    standing.silent.add(point)
    start, started = scan_pool.start_worker, count(1)

    def start_once() -> tuple[socket.socket, Process]:
        if next(started) > 1:
            raise OSError(11, "Resource temporarily unavailable")
        return start()

    monkeypatch.setattr(scan_pool, "start_worker", start_once)
    standing.stands_at = lambda unit, _avoids: unit.is_file and unit.directory.startswith(point)
    checker = scanned.checker()
    (root / "d3" / "s39" / "a").write_bytes(b"other")
    scanned.take()
    assert checker.full_check().is_complete
    events = scanned.take()
    assert unread(events)[bytes(root / "d1" / "s1" / "a")] == UNANSWERED
    assert set(unread(events).values()) == {UNANSWERED}
    assert [event.path for event in events if event.code.startswith("POLICY")] == [
        bytes(root / "d3" / "s39" / "a")
    ]


def test_a_process_that_stood_still_is_none_that_a_scan_does_not_survive(
    root: Path, make: Make, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    names = (b"s1", b"s6", b"s11")
    standing.stands_at = lambda unit, _avoids: any(name in unit.names for name in names)
    monkeypatch.setattr(scan_pool, "_DEATHS_MAX", 1)
    monkeypatch.setattr(scan_pool.ScanPool, "_do_alone", None)
    checker = scanned.checker()
    scanned.take()
    assert checker.full_check().is_complete
    events = scanned.take()
    assert {path.rsplit(b"/", 1)[1] for path in unread(events)} == set(names)


def test_what_a_process_has_in_hand_is_not_begun_anew_when_a_mount_is_found_dead(
    root: Path, make: Make, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned = make(dir_rule(root), scan_workers=2)
    scanned.init()
    point = standing.mount(root / "d1" / "s1")
    standing.silent.add(point)
    has_begun, is_dead, is_renewed = threading.Event(), threading.Event(), threading.Event()
    begun: list[bytes] = []
    start, started = scan_pool.start_worker, count(1)

    def noted() -> tuple[socket.socket, Process]:
        # Two at first, one for who stood still, and one for who was at the large file then.
        if next(started) == 4:
            is_renewed.set()
        return start()

    monkeypatch.setattr(scan_pool, "start_worker", noted)

    def stands_at(unit: Any, avoids: frozenset[bytes]) -> bool:
        if unit.names == (b"large",):
            begun.append(unit.directory)
            has_begun.set()
            is_dead.wait()
        if b"s1" in unit.names and point not in avoids:
            has_begun.wait()
            return True
        if point in avoids:
            is_dead.set()
            is_renewed.wait()
        return False

    standing.stands_at = stands_at
    checker = scanned.checker()
    scanned.take()
    assert checker.full_check().is_complete
    assert unread(scanned.take()) == {point: UNANSWERED}
    assert begun == [bytes(root / "d0")]


class NowAndThen:
    """Says yes at the given units, counted; to none twice, which would count as unreadable."""

    def __init__(self, *due: int) -> None:
        self._due = list(due)
        self._met: set[tuple[bytes, bytes]] = set()
        self._numbers = count(1)
        self._lock = threading.Lock()

    def __call__(self, unit: Any) -> bool:
        names = {(unit.directory, name) for name in unit.names}
        with self._lock:
            number = next(self._numbers)
            if not self._due or number < self._due[0] or names & self._met:
                return False
            self._met |= names
            del self._due[0]
            return True


def test_what_a_dead_worker_had_in_hand_is_done_again(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = make(dir_rule(root), scan_workers=1)
    alone.init()
    wanted = contents(alone.baseline)
    dies = NowAndThen(1, 40, 80)
    met = dying(monkeypatch, dies)
    scanned = make(dir_rule(root))
    scanned.init()
    assert contents(scanned.baseline) == wanted
    deaths = [event for event in scanned.take() if event.code == "SCAN_WORKER_DIED"]
    assert len(deaths) == len(met) == 3


def test_what_ends_every_worker_is_reported_and_the_rest_is_seen(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad_file, bad_directory = b"large", b"s9"
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    dying(monkeypatch, lambda unit: bad_file in unit.names or bad_directory in unit.names)
    scanned.take()
    (root / "d3" / "s39" / "a").write_bytes(b"other")
    result = checker.full_check()
    events = scanned.take()
    unreadable = {
        event.path.rsplit(b"/", 1)[1] for event in events if event.code == "FILE_UNREADABLE"
    }
    assert unreadable == {bad_file, bad_directory}
    changes = [event.path.rsplit(b"/", 1)[1] for event in events if event.code.startswith("POLICY")]
    assert changes == [b"a"]
    assert result.unreadable == 2
    assert result.is_complete


def test_where_all_workers_end_the_parent_does_it_alone(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = make(dir_rule(root), scan_workers=1)
    alone.init()
    wanted = contents(alone.baseline)
    dying(monkeypatch, lambda _unit: True)
    monkeypatch.setattr(scan_pool, "_FAILURES_MAX", 1_000)
    scanned = make(dir_rule(root))
    scanned.init()
    assert contents(scanned.baseline) == wanted
    deaths = [event for event in scanned.take() if event.code == "SCAN_WORKER_DIED"]
    assert len(deaths) == scan_pool._DEATHS_MAX


def test_where_no_process_can_be_started_the_parent_does_it_alone(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> tuple[socket.socket, Process]:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(scan_pool, "start_worker", refuse)
    scanned = make(dir_rule(root))
    result = scanned.init()
    (death,) = [event for event in scanned.take() if event.code == "SCAN_WORKER_DIED"]
    assert "unavailable" in str(death.fields["reason"])
    assert result.hashed == 121


def test_a_worker_that_talks_nonsense_is_replaced(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    perform, lies = scan_worker.Laborer.perform, NowAndThen(3, 40, 80)
    said = [b"\xc1", b"\x93\x01\x02\x03", b"\x90"]

    def lie(self: scan_worker.Laborer, unit: Any) -> bytes:
        return said.pop() if lies(unit) else perform(self, unit)

    alone = make(dir_rule(root), scan_workers=1)
    alone.init()
    wanted = contents(alone.baseline)
    monkeypatch.setattr(scan_worker.Laborer, "perform", lie)
    scanned = make(dir_rule(root))
    scanned.init()
    assert contents(scanned.baseline) == wanted
    assert len([event for event in scanned.take() if event.code == "SCAN_WORKER_DIED"]) == 3


def test_a_stop_ends_a_shared_pass_and_its_processes(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers: list[ThreadWorker] = []
    start = scan_pool.start_worker

    def noted() -> tuple[socket.socket, Any]:
        connection, worker = start()
        workers.append(worker)  # type: ignore[arg-type]
        return connection, worker

    scanned = make(dir_rule(root))
    scanned.init()
    monkeypatch.setattr(scan_pool, "start_worker", noted)
    result = scanned.checker().full_check(stop=lambda: bool(workers))
    assert not result.is_complete
    assert all(not worker._thread.is_alive() for worker in workers)


def test_a_real_worker_ends_when_its_parent_has_gone(root: Path) -> None:
    connection, process = REAL_START()
    connection.close()
    assert process.wait(20) == 0


@pytest.mark.parametrize(
    "number",
    [
        *(signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM),
        *(signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2),
    ],
)
def test_a_signal_to_all_processes_of_the_agent_is_for_the_parent_alone(
    number: signal.Signals,
) -> None:
    """Otherwise each stop of the service during a check would report that processes died."""
    connection, process = REAL_START()
    assert isinstance(process, subprocess.Popen)
    with connection, Path(f"/proc/{process.pid}/status").open() as status:
        wait_until(lambda: is_ignored(status, number), f"{number.name} is ignored")
        process.send_signal(number)
    assert process.wait(20) == 0


def is_ignored(status: TextIO, number: int) -> bool:
    """Return whether a process has come to ignore a signal."""
    status.seek(0)
    masks = dict(line.split(":", 1) for line in status)
    return bool(int(masks["SigIgn"], 16) >> (number - 1) & 1)


def test_a_killed_worker_is_named_with_its_signal() -> None:
    connection, process = REAL_START()
    worker = scan_pool._Worker(connection, process, frozenset())
    assert isinstance(process, subprocess.Popen)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(20)
    assert worker.end() == "killed by SIGKILL"


def test_a_worker_needs_no_module_of_the_servers_or_of_the_network() -> None:
    script = "import needfire_client.scan_worker, sys; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"asyncio", "sqlite3", "cryptography", "srp", "subprocess", "ssl"}
    assert not any(name.startswith("needfire_server") for name in loaded)


def test_a_look_at_a_path_beats_what_was_read_ahead_of_it(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes have read everything; then a file changes and is looked at by itself."""
    monkeypatch.setattr(scan_worker, "EFFORT_MAX", 10_000)
    monkeypatch.setattr(scan_worker, "DEFER_ABOVE_BYTES", 2**30)
    scanned = make(dir_rule(root), scan_workers=2)
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    changed = root / "d3" / "s39" / "a"
    new = root / "d2" / "new"
    gone = root / "d3" / "s35"
    was_in_it = {gone, *gone.rglob("*")}
    progress_calls = 0

    def progress(_files: int, _read: int, _directory: bytes) -> None:
        nonlocal progress_calls
        progress_calls += 1
        if progress_calls == 5:
            changed.write_bytes(b"newer")
            new.mkdir()
            (new / "inner").write_bytes(b"x")
            gone.rename(root.parent / "aside")
            for path in (changed, new, gone):
                checker.check_path(bytes(path))

    checker._progress = progress
    checker.full_check()
    checker._progress = None
    first = {(code, path) for code, path, _ in scanned.changes() if code != "WEIRD_FILENAME"}
    assert first == {
        ("POLICY_MODIFIED", bytes(changed)),
        ("POLICY_MODIFIED", bytes(root / "d2")),
        ("POLICY_ADDED", bytes(new)),
        ("POLICY_ADDED", bytes(new / "inner")),
        ("POLICY_MODIFIED", bytes(root / "d3")),
        *(("POLICY_MISSING", bytes(path)) for path in was_in_it),
    }
    checker.full_check()
    assert scanned.changes() == set()


def test_every_field_of_the_settings_that_workers_need_is_carried_to_them() -> None:
    """Add a field here once it is clear whether examining files depends on it."""
    carried = {
        "rules",
        "masks",
        "policy_severities",
        "recursion_level",
        "skip_checksum",
        "severity_files",
        "severity_dirs",
        "severity_names",
        "digest_algorithm",
        "acl_check",
        "selinux_check",
        "xattr_check",
        "drop_cache",
        "scan_cpu_limit",
        "io_limit_kib",
        "scan_memory_bytes",
    }
    of_the_parent = {
        "ignore_added",
        "ignore_missing",
        "ignore_modified",
        "file_check_interval_s",
        "loop_interval_s",
        "report_only_once",
        "report_full_detail",
        "loose_dir_check",
        "log_servers",
        "server_port",
        "bind_address",
        "print_severity",
        "log_severity",
        "export_severity",
        "log_file",
        "log_format",
        "realtime",
        "realtime_method",
        "canary_interval_s",
        "spool_size_limit_bytes",
        "nice_level",
        "scan_workers",
        "check_schedules",
        "check_schedules_two",
        "group_intervals",
        "group_schedules",
        "group_full_intervals",
        "full_check_interval_s",
        "source",
        "sha256",
        "notices",
    }
    assert set(AgentSettings.__dataclass_fields__) == carried | of_the_parent


def test_every_field_of_a_record_survives_the_way_from_a_worker(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(DirectoryRecord.__dataclass_fields__) == {
        "path", "_place", "rows", "atimes_ns", "scope", "is_readable", "prefixes", "findings", "deferred",
        "packed", "packed_count", "is_whole", "is_as_before",
    }  # fmt: skip
    assert set(Finding.__dataclass_fields__) == {"code", "path", "severity", "fields"}


def test_a_process_that_runs_out_of_memory_is_followed_by_fewer_with_more(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = root / "d1" / "big"
    big.mkdir()
    for number in range(20_000):
        (big / f"{number:0200}").touch()
    monkeypatch.setattr(scan_pool, "start_worker", REAL_START)
    # 16 MiB for each of four processes are not enough.
    monkeypatch.setattr(memory, "_SHARE_BYTES_MIN", 16 * 2**20)
    scanned = make(dir_rule(root), scan_workers=4, scan_memory_bytes=128 * 2**20)
    monkeypatch.setattr(memory, "_ENTRY_BYTES", 1)
    result = scanned.init()
    deaths = [event for event in scanned.take() if event.code == "SCAN_WORKER_DIED"]
    assert "it reached its 16 MiB, of the 4 processes of ScanMemoryLimit" in {
        str(event.fields["reason"]) for event in deaths
    }
    assert 1 <= len(deaths) <= 3
    assert (result.unreadable, result.files) == (0, 167 + 20_000)


def test_what_no_process_has_the_memory_for_is_reported(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = root / "d1" / "big"
    big.mkdir()
    for number in range(12_000):
        (big / f"{number:0200}").touch()
    monkeypatch.setattr(scan_pool, "start_worker", REAL_START)
    monkeypatch.setattr(memory, "share_bytes", lambda *_: 17 * 2**20)
    monkeypatch.setattr(scan_pool, "share_bytes", lambda *_: 17 * 2**20)
    scanned = make(dir_rule(root), scan_workers=2)
    result = scanned.init()
    [unreadable] = [event for event in scanned.take() if event.code == "FILE_UNREADABLE"]
    assert unreadable.path == bytes(big)
    assert unreadable.fields["reason"] == "it needs more memory than ScanMemoryLimit allows"
    assert result.files == 167


def test_the_default_limit_has_room_for_all_that_a_baseline_takes_of_a_directory() -> None:
    assert memory.entries_max(AgentSettings().scan_memory_bytes) == ENTRIES_PER_DIRECTORY_MAX


@pytest.mark.parametrize("workers", [1, 2])
def test_large_directories_give_the_same_rows_as_small_ones(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    (root / "d1" / "s1" / "log").write_bytes(bytes(10))
    found = []
    for names in (4_096, 3, 1):
        monkeypatch.setattr(directory, "_FOLDED_FROM_NAMES", names)
        scanned = make(
            dir_rule(root), dir_rule(root / "d1", Policy.GROWING_LOG_FILES), scan_workers=workers
        )
        result = scanned.init()
        weird = sorted(event.path for event in scanned.take() if event.code == "WEIRD_FILENAME")
        found.append((contents(scanned.baseline), result.files, result.hashed, weird))
    assert found[0] == found[1] == found[2]
    assert len(found[0][3]) == 40


@pytest.mark.parametrize("workers", [1, 2])
def test_a_directory_whose_row_would_be_too_large_is_a_finding(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(directory, "_FOLDED_FROM_NAMES", 2)
    monkeypatch.setattr(directory, "ENTRIES_BYTES_MAX", 300)
    scanned = make(dir_rule(root / "d1"), scan_workers=workers)
    scanned.init()
    reasons = {event.fields["reason"] for event in scanned.take() if "reason" in event.fields}
    assert [str(each).rpartition("(")[2] for each in reasons] == ["limit 300)"]


@pytest.mark.parametrize(("room", "is_seen"), [(41, True), (40, True), (39, False)])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_directory_that_memory_has_no_room_for_is_a_finding(
    tmp_path: Path,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    room: int,
    is_seen: bool,
    workers: int,
) -> None:
    root = tmp_path / "flat"
    root.mkdir()
    for number in range(40):
        (root / f"f{number}").touch()
    monkeypatch.setattr(memory, "_ENTRY_BYTES", 2**20)
    scanned = make(dir_rule(root), scan_workers=workers, scan_memory_bytes=2 * room * 2**20)
    scanned.init()
    reasons = [event.fields["reason"] for event in scanned.take()]
    expected = f"more than {room} entries; ScanMemoryLimit has no room for more"
    assert reasons == ([] if is_seen else [expected])


def test_limits_slow_a_scan_down_and_change_nothing(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root), scan_workers=2, io_limit_kib=400)
    began = time.monotonic()
    result = scanned.init()
    assert result.bytes_read / 1024 / (time.monotonic() - began) < 800
    assert result.hashed == 121


@pytest.mark.parametrize("size", [16_384, 300_000])
@pytest.mark.parametrize("was_in_memory", [False, True])
def test_contents_that_were_not_in_memory_are_dropped_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, was_in_memory: bool
) -> None:
    """What the kernel is asked for: whether it follows depends on what else it is busy with."""
    asked: list[tuple[int, int]] = []

    def advise(_fd: int, offset: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        asked.append((offset, length))

    (tmp_path / "file").write_bytes(os.urandom(size))
    monkeypatch.setattr("needfire_client.attributes._is_cached", lambda _fd: was_in_memory)
    monkeypatch.setattr("os.posix_fadvise", advise)
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        entry = Examiner("sha256", drops_cache=True).examine(directory, b"file", hashes=True)
    finally:
        os.close(directory)
    assert entry is not None
    assert entry.size == size
    assert asked == ([] if was_in_memory else [(0, 0)])


def test_contents_that_were_just_written_are_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"x" * 16_384)
        file.flush()
        assert _is_cached(file.fileno())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_directory_whose_entries_are_heavier_than_there_is_room_for_is_told_and_ends_nothing(
    root: Path, make: Make, workers: int
) -> None:
    room = 1_024
    heavy = root / "heavy"
    heavy.mkdir()
    (heavy / "0").symlink_to("x" * 4_000)
    (root / "zz").write_bytes(b"behind it")
    scanned = make(dir_rule(root), scan_workers=workers, scan_memory_bytes=2 * room * 512)
    each = 160 + 4_000 + 3
    fits = room * 256 // each
    for number in range(1, fits):
        # Hard links to a link cost their owner nothing but the name.
        os.link(heavy / "0", heavy / f"{number:03}", follow_symlinks=False)
    scanned.init()
    assert "FILE_UNREADABLE" not in {each.code for each in scanned.take()}
    os.link(heavy / "0", heavy / "one", follow_symlinks=False)
    os.link(heavy / "0", heavy / "two", follow_symlinks=False)
    scanned.init()
    (event,) = [each for each in scanned.take() if each.code == "FILE_UNREADABLE"]
    assert event.path == bytes(heavy)
    assert str(event.fields["reason"]).startswith("entries of ")
    with BaselineReader(scanned.baseline) as reader:
        assert reader.directory(bytes(heavy)) == {}
        assert b"zz" in reader.directory(bytes(root))
