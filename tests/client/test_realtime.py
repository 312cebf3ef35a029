"""Which way of watching is chosen, what is said of it, and what stands beside it."""

import asyncio
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import needfire_client.realtime as realtime_module
from needfire_client import fanotify_calls
from needfire_client.fanotify_watch import FanotifyWatcher
from needfire_client.guard import Guard
from needfire_client.mounts import Mount
from needfire_client.polling_watch import PollingWatcher
from needfire_client.realtime import RealTime
from needfire_client.watch import InotifyWatcher
from needfire_testkit.realtime import Ears
from needfire_testkit.scanner import dir_rule, settings_of
from needfire_testkit.server import until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")


@contextmanager
def running(root: Path, method: str = "auto") -> Iterator[tuple[RealTime, Ears]]:
    ears = Ears()
    settings = settings_of(dir_rule(root), realtime_method=method, canary_interval_s=0.2)
    state = root.parent / "state"
    state.mkdir(exist_ok=True)
    realtime = RealTime(settings, state / "canary", ears)
    realtime.start()
    try:
        yield realtime, ears
    finally:
        realtime.stop()


def wait_for_canaries(realtime: RealTime) -> None:
    """Wait until the file and every root have come back."""

    async def wait() -> None:
        canary = realtime._canary
        await until(lambda: canary._expected and canary.has_come, "the canaries")

    asyncio.run(wait())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    return root


@pytest.fixture
def no_fanotify(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(fanotify_calls, "open_group", refuse)


@pytest.fixture
def no_inotify(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: object) -> None:
        raise OSError(errno.ENOSPC, "limit of watches reached")

    monkeypatch.setattr(InotifyWatcher, "start", refuse)


@needs_root
@pytest.mark.root
def test_the_best_way_that_works_is_taken_and_its_canary_comes_back(root: Path) -> None:
    with running(root) as (realtime, ears):
        assert ears.methods == [("fanotify", "", 1)]
        path = realtime._canary.path
        wait_for_canaries(realtime)
        assert bytes(path) in realtime._canary._came_us
        assert bytes(root) in realtime._canary._came_us
        assert path.exists()
        assert realtime.last_seen_us() is not None
        assert (ears.silences, ears.losses, ears.paths) == ([], [], [])
        assert [health.method for health in realtime.health] == ["fanotify"]
    assert realtime.health == ()


@pytest.mark.usefixtures("no_fanotify")
def test_without_rights_it_is_inotify_and_the_reason_is_told(root: Path) -> None:
    with running(root) as (realtime, ears):
        [(method, reason, watched)] = ears.methods
        assert (method, reason) == ("inotify", "fanotify: Operation not permitted")
        assert watched >= 2
        (root / "file").write_bytes(b"")
        ears.wait_paths(root / "file")
        assert ears.programs(root / "file") == {None}
        wait_for_canaries(realtime)
        assert bytes(root) in realtime._canary._came_us
        assert ears.silences == []


@pytest.mark.usefixtures("no_fanotify", "no_inotify")
def test_where_nothing_works_it_is_polling(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = PollingWatcher.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "poll_s", 0.01)
    with running(root) as (_, ears):
        assert ears.methods[0][:2] == (
            "polling",
            "fanotify: Operation not permitted; inotify: limit of watches reached",
        )
        (root / "file").write_bytes(b"")
        ears.wait_paths(root)
        assert ears.losses == []


@pytest.mark.usefixtures("no_fanotify")
def test_a_way_that_was_ordered_and_does_not_work_is_a_loss_and_no_other_is_taken(
    root: Path,
) -> None:
    with running(root, "fanotify") as (realtime, ears):
        assert ears.methods == [("none", "fanotify: Operation not permitted", 0)]
        assert ears.losses == [
            ("no real-time watching: fanotify: Operation not permitted", b"/", None)
        ]
        assert realtime.health == ()


@needs_root
@pytest.mark.root
def test_a_local_file_system_that_fanotify_cannot_mark_makes_it_inotify(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmarkable(self: FanotifyWatcher) -> None:
        self.unwatched = {b"/": "overlay: Operation not supported"}
        self._health.watched = 1

    monkeypatch.setattr(FanotifyWatcher, "reconcile", unmarkable)
    with running(root) as (_, ears):
        assert ears.methods[0][:2] == ("inotify", "fanotify: /: overlay: Operation not supported")


def test_a_network_file_system_is_polled_besides(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up = Mount(999, b"0:999", b"/", bytes(root / "sub"), "nfs4")
    monkeypatch.setattr(realtime_module, "read_mounts", lambda: (made_up,))
    with running(root, "inotify") as (realtime, _):
        assert [health.method for health in realtime.health] == ["inotify", "polling"]
        assert realtime.health[1].watched == 1
        realtime.mounts_changed()
        assert [health.method for health in realtime.health] == ["inotify", "polling"]


@needs_root
@pytest.mark.root
def test_a_watcher_that_hears_nothing_is_silent(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FanotifyWatcher, "_take", lambda _self, _data: None)
    defaults = Guard.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "tick_s", 0.05)
    with running(root) as (_, ears):
        ears.wait(lambda: ears.silences, "the silence")
