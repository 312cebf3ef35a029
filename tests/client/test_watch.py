import ctypes
import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers import inotify_c
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, WatchDescriptor

from needfire_client.attributes import Examiner
from needfire_client.watch import Watcher
from needfire_protocol.rc.policies import PathRule, Policy
from needfire_testkit.scanner import Scanned, dir_rule, file_rule, settings_of

WAIT_S = 10.0


class Heard:
    """What a watcher said, with a way to wait for it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.dirty: list[bytes] = []
        self.trees: list[bytes] = []
        self.losses: list[tuple[str, bytes]] = []
        self.hold = threading.Event()
        self.hold.set()

    def on_dirty(self, path: bytes, below: bool) -> None:
        self.hold.wait(WAIT_S)
        with self.changed:
            self.dirty.append(path)
            if below:
                self.trees.append(path)
            self.changed.notify_all()

    def on_loss(self, reason: str, scope: bytes) -> None:
        with self.changed:
            self.losses.append((reason, scope))
            self.changed.notify_all()

    def wait(self, condition: Callable[[], object], what: str) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, WAIT_S), f"{what}: {self.dirty} {self.losses}"

    def wait_dirty(self, *paths: Path) -> None:
        wanted = {bytes(path) for path in paths}
        self.wait(lambda: wanted <= set(self.dirty), f"waited for {wanted}")

    def wait_until_idle(self, marker: Path) -> None:
        """Return after everything that happened before now was told."""
        marker.write_bytes(b"")
        self.wait_dirty(marker)
        with self.changed:
            self.dirty.clear()
        marker.unlink()
        self.wait_dirty(marker)
        with self.changed:
            self.dirty.clear()


@contextmanager
def watching(*rules: PathRule) -> Iterator[tuple[Watcher, Heard]]:
    heard = Heard()
    watcher = Watcher(settings_of(*rules), heard.on_dirty, heard.on_loss)
    watcher.start()
    try:
        yield watcher, heard
    finally:
        heard.hold.set()
        watcher.stop()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_bytes(b"x")
    return root


def test_every_kind_of_change_names_its_path(root: Path) -> None:
    (root / "gone").write_bytes(b"")
    (root / "mode").write_bytes(b"")
    (root / "from").write_bytes(b"")
    with watching(dir_rule(root)) as (_, heard):
        (root / "file").write_bytes(b"y")
        (root / "new").write_bytes(b"")
        (root / "gone").unlink()
        (root / "mode").chmod(0o600)
        (root / "from").rename(root / "sub" / "to")
        os.symlink("nowhere", root / "link")
        os.mkfifo(root / "fifo")
        heard.wait_dirty(
            *(
                root / name
                for name in ["file", "new", "gone", "mode", "from", "sub/to", "link", "fifo"]
            )
        )
        assert heard.losses == []


def test_a_write_to_a_file_that_stays_open_is_seen(root: Path) -> None:
    with watching(dir_rule(root)) as (_, heard), (root / "file").open("ab", buffering=0) as file:
        file.write(b"more")
        heard.wait_dirty(root / "file")


def test_directories_that_come_later_are_watched_at_any_depth(root: Path) -> None:
    with watching(dir_rule(root)) as (watcher, heard):
        before = watcher.watched_count
        deep = root / "n1" / "n2" / "n3"
        deep.mkdir(parents=True)
        heard.wait_dirty(root / "n1")
        heard.wait_until_idle(root / "marker")
        assert watcher.watched_count == before + 3
        (deep / "inside").write_bytes(b"")
        heard.wait_dirty(deep / "inside")


def test_a_directory_that_is_moved_in_the_tree_keeps_being_watched_under_its_new_name(
    root: Path,
) -> None:
    (root / "sub" / "deep").mkdir()
    with watching(dir_rule(root)) as (watcher, heard):
        before = watcher.watched_count
        (root / "sub").rename(root / "other")
        heard.wait_dirty(root / "sub", root / "other")
        heard.wait_until_idle(root / "marker")
        (root / "other" / "deep" / "inside").write_bytes(b"")
        heard.wait_dirty(root / "other" / "deep" / "inside")
        assert not any(path.startswith(bytes(root / "sub")) for path in heard.dirty)
        assert watcher.watched_count == before


def test_a_directory_that_is_moved_away_takes_its_watches_with_it(
    root: Path, tmp_path: Path
) -> None:
    (root / "sub" / "deep").mkdir()
    with watching(dir_rule(root)) as (watcher, heard):
        before = watcher.watched_count
        (root / "sub").rename(tmp_path / "outside")
        heard.wait_dirty(root / "sub")
        heard.wait_until_idle(root / "marker")
        assert watcher.watched_count == before - 2
        (tmp_path / "outside" / "deep" / "inside").write_bytes(b"")
        heard.wait_until_idle(root / "marker")
        assert heard.dirty == []


def test_a_directory_that_comes_back_is_told_with_everything_below_it(
    root: Path, tmp_path: Path
) -> None:
    (root / "sub/deeper").mkdir()
    (root / "sub/deeper/file").write_bytes(b"x")
    with watching(dir_rule(root)) as (_, heard):
        (root / "sub").rename(tmp_path / "out")
        (tmp_path / "out/deeper/file").write_bytes(b"changed where nobody listens")
        (tmp_path / "out").rename(root / "sub")
        heard.wait(lambda: bytes(root / "sub") in heard.trees, "told with what is below")


def test_a_directory_that_is_deleted_and_made_again_is_watched(root: Path) -> None:
    with watching(dir_rule(root)) as (watcher, heard):
        before = watcher.watched_count
        for _ in range(3):
            (root / "sub").rmdir()
            (root / "sub").mkdir()
        heard.wait_until_idle(root / "marker")
        assert watcher.watched_count == before
        (root / "sub" / "inside").write_bytes(b"")
        heard.wait_dirty(root / "sub" / "inside")


def test_the_removal_and_the_return_of_a_rules_own_root_are_seen(
    root: Path, tmp_path: Path
) -> None:
    with watching(dir_rule(root)) as (_, heard):
        root.rename(tmp_path / "aside")
        heard.wait_dirty(root)
        (tmp_path / "aside").rename(root)
        heard.wait(lambda: heard.dirty.count(bytes(root)) >= 2, "the return")
        (root / "sub" / "inside").write_bytes(b"")
        heard.wait_dirty(root / "sub" / "inside")


def test_a_named_file_is_seen_and_its_neighbours_are_not(root: Path) -> None:
    with watching(file_rule(root / "file"), file_rule(root / "later")) as (_, heard):
        (root / "neighbour").write_bytes(b"")
        (root / "file").write_bytes(b"y")
        (root / "later").write_bytes(b"")
        heard.wait_dirty(root / "file", root / "later")
        assert bytes(root / "neighbour") not in heard.dirty


def test_a_covered_directory_is_named_when_something_in_it_comes_or_goes(root: Path) -> None:
    with watching(file_rule(root)) as (_, heard):
        (root / "neighbour").write_bytes(b"")
        heard.wait_dirty(root)
        assert set(heard.dirty) == {bytes(root)}


def test_the_depth_of_a_rule_and_exclusions_bound_what_is_watched(root: Path) -> None:
    (root / "sub" / "deep" / "deeper").mkdir(parents=True)
    (root / "skip" / "inner").mkdir(parents=True)
    rules = (
        dir_rule(root, Policy.ATTRIBUTES, 1),
        dir_rule(root / "skip", Policy.IGNORE_ALL, -1),
    )
    with watching(*rules) as (_, heard):
        (root / "sub" / "deep" / "deeper" / "x").write_bytes(b"")
        (root / "sub" / "deep" / "x").write_bytes(b"")
        (root / "skip" / "inner" / "x").write_bytes(b"")
        (root / "skip" / "x").write_bytes(b"")
        heard.wait_until_idle(root / "marker")
        (root / "sub" / "x").write_bytes(b"")
        heard.wait_dirty(root / "sub" / "x")
        assert set(heard.dirty) == {bytes(root / "sub" / "x")}


def test_writing_is_no_news_where_the_policy_does_not_compare_contents(root: Path) -> None:
    with watching(dir_rule(root, Policy.LOG_FILES)) as (_, heard):
        (root / "file").write_bytes(b"y")
        (root / "file").chmod(0o600)
        heard.wait_dirty(root / "file")
        assert heard.dirty == [bytes(root / "file")]


def test_our_own_hashing_causes_no_events(root: Path) -> None:
    with watching(dir_rule(root)) as (_, heard):
        heard.wait_until_idle(root / "marker")
        fd = os.open(root, os.O_RDONLY)
        Examiner("sha256").examine(fd, b"file", hashes=True)
        os.listdir(fd)
        os.close(fd)
        heard.wait_until_idle(root / "marker")
        assert heard.dirty == []


def test_symbolic_links_are_not_followed(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "before").symlink_to(outside)
    with watching(dir_rule(root)) as (_, heard):
        (root / "after").symlink_to(outside)
        heard.wait_until_idle(root / "marker")
        (outside / "x").write_bytes(b"")
        heard.wait_until_idle(root / "marker")
        assert heard.dirty == []


def test_a_directory_that_becomes_a_link_before_it_is_watched_is_not(
    root: Path, tmp_path: Path
) -> None:
    (root / "link").symlink_to(tmp_path)
    with watching(dir_rule(root)) as (watcher, _):
        assert watcher._reader is not None
        with pytest.raises(NotADirectoryError):
            watcher._reader.arm(bytes(root / "link"), follow=False)


def test_a_link_on_the_way_to_a_named_file_is_followed(root: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (root / "link").symlink_to(real)
    named = root / "link" / "named"
    with watching(dir_rule(root), file_rule(named)) as (_, heard):
        (real / "other").write_bytes(b"")
        (real / "named").write_bytes(b"")
        heard.wait_dirty(named)
        assert bytes(root / "link" / "other") not in heard.dirty


def test_names_that_are_not_utf_8_come_as_bytes(root: Path) -> None:
    name = bytes(root) + b"/\xff\n"
    with watching(dir_rule(root)) as (_, heard):
        os.mkdir(name)
        os.mkdir(name + b"/\xfe")
        heard.wait(lambda: name in heard.dirty, "the weird name")
        heard.wait_until_idle(root / "marker")
        os.close(os.open(name + b"/\xfe/x", os.O_CREAT | os.O_WRONLY))
        heard.wait(lambda: name + b"/\xfe/x" in heard.dirty, "below the weird name")


def test_a_real_overflow_is_told_and_no_live_watch_is_lost(root: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 50_000:
        pytest.skip(f"the queue of this host holds {limit} events")
    with watching(dir_rule(root)) as (watcher, heard):
        before = watcher.watched_count
        heard.hold.clear()
        (root / "first").write_bytes(b"")
        fd = os.open(root / "sub", os.O_RDONLY)
        for number in range(limit // 2 + 4_000):
            os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.close(fd)
        # Its own event is among those that are lost.
        (root / "late").mkdir()
        heard.hold.set()
        heard.wait(lambda: heard.losses, "the overflow")
        assert heard.losses[0] == ("the queue of events overflowed", b"/")
        heard.wait_until_idle(root / "marker")
        (root / "late" / "x").write_bytes(b"")
        (root / "sub" / "x").write_bytes(b"")
        heard.wait_dirty(root / "late" / "x", root / "sub" / "x")
        assert watcher.watched_count == before + 1
        assert len(heard.losses) == 1


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Let the system refuse watches beyond a number."""
    state = {"left": 10**9}
    real = inotify_c.inotify_add_watch

    def add(fd: int, path: bytes, mask: int) -> Any:
        if state["left"] <= 0:
            ctypes.set_errno(errno.ENOSPC)
            return -1
        state["left"] -= 1
        return real(fd, path, mask)

    monkeypatch.setattr(inotify_c, "inotify_add_watch", add)
    return state


def test_the_limit_of_watches_is_told_once_and_again_after_it_healed(
    root: Path, limited: dict[str, int]
) -> None:
    for number in range(20):
        (root / f"d{number}").mkdir()
    limited["left"] = len(root.parts) + 5
    with watching(dir_rule(root)) as (watcher, heard):
        ((reason, scope),) = heard.losses
        assert "16 directories are not watched: limit of watches reached" in reason
        assert scope == b"/"
        watcher.reconcile()
        assert len(heard.losses) == 1
        limited["left"] = 10**9
        watcher.reconcile()
        assert len(heard.losses) == 1
        (root / "d7" / "x").write_bytes(b"")
        heard.wait_dirty(root / "d7" / "x")
        limited["left"] = 0
        (root / "d21").mkdir()
        heard.wait(lambda: len(heard.losses) == 2, "the limit again")
        assert "a directory is not watched" in heard.losses[1][0]


def test_a_directory_that_may_not_be_watched_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = inotify_c.inotify_add_watch

    def add(fd: int, path: bytes, mask: int) -> Any:
        if path.endswith(b"/sub"):
            ctypes.set_errno(errno.EACCES)
            return -1
        return real(fd, path, mask)

    monkeypatch.setattr(inotify_c, "inotify_add_watch", add)
    with watching(dir_rule(root)) as (_, heard):
        reason, scope = heard.losses[0]
        assert reason == "a directory is not watched: Permission denied"
        assert scope == bytes(root / "sub")


def test_no_inotify_at_all_is_a_loss_and_no_crash(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left() -> int:
        ctypes.set_errno(errno.EMFILE)
        return -1

    monkeypatch.setattr(inotify_c, "inotify_init", none_left)
    with watching(dir_rule(root)) as (_, heard):
        assert heard.losses == [("no real-time watching: inotify instance limit reached", b"/")]


def test_a_reader_that_dies_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_self: object) -> list[InotifyEvent]:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(inotify_c.InotifyFD, "read_events", die)
    with watching(dir_rule(root)) as (_, heard):
        heard.wait(lambda: heard.losses, "the death")
        assert heard.losses == [("the reader failed: OSError: [Errno 5] broken", b"/")]


def test_an_unmounted_file_system_is_told(root: Path) -> None:
    with watching(dir_rule(root)) as (watcher, heard):
        node = next(
            node for nodes in watcher._by_wd.values() for node in nodes if node.name == b"sub"
        )
        mask = InotifyConstants.IN_UNMOUNT
        watcher._handle([InotifyEvent(WatchDescriptor(node.wd), mask, 0, b"")])
        assert heard.losses == [("the file system was unmounted", bytes(root / "sub"))]


def test_nothing_is_told_after_stop(root: Path) -> None:
    with watching(dir_rule(root)) as (watcher, heard):
        watcher.stop()
        (root / "late").write_bytes(b"")
        assert heard.dirty == []
        assert watcher.watched_count == 0


def test_a_storm_of_new_directories_loses_nothing_in_the_end(root: Path, tmp_path: Path) -> None:
    """Whatever races there are between a directory and its watch, a check of the paths finds all."""
    scanned = Scanned(settings_of(dir_rule(root)), tmp_path)
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    with watching(dir_rule(root)) as (_, heard):
        for number in range(200):
            deep = root / f"a{number}" / "b" / "c"
            deep.mkdir(parents=True)
            (deep / "file").write_bytes(b"x")
        marker = root / "marker"
        marker.write_bytes(b"")
        heard.wait_dirty(marker)
        for path in dict.fromkeys(heard.dirty):
            checker.check_path(path)
    found = scanned.changes()
    for number in range(200):
        path = bytes(root / f"a{number}" / "b" / "c" / "file")
        assert ("POLICY_ADDED", path, "") in found
    checker.full_check()
    assert scanned.changes() == set()
    scanned.close()
