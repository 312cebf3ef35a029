"""The seven traps of watchdog that were met when it was tried out, each with what became of it.

They are known from its observers, which are not used here for their sake; its reader is. So each
test is one of what stands in their place. More about each stands in ``test_watch.py``.
"""

import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from watchdog.observers import inotify_c

from needfire_client.dirty import DirtyPaths
from needfire_client.watch import InotifyWatcher
from needfire_protocol.rc.policies import PathRule
from needfire_testkit.realtime import Ears
from needfire_testkit.scanner import Scanned, dir_rule, settings_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    return root


@contextmanager
def watching(*rules: PathRule) -> Iterator[tuple[InotifyWatcher, Ears]]:
    ears = Ears()
    watcher = InotifyWatcher(settings_of(*rules), ears)
    watcher.start()
    try:
        yield watcher, ears
    finally:
        ears.hold.set()
        watcher.stop()


def settled(root: Path, ears: Ears, name: str = "settled") -> list[bytes]:
    """Return all that was told until everything before now was."""
    (root / name).mkdir()
    ears.wait_paths(root / name)
    return list(ears.paths)


def test_trap_1_a_file_that_was_written_before_its_directory_was_watched_is_looked_at(
    root: Path, tmp_path: Path
) -> None:
    """Of it there is a creation at most and never a closing: to be named is enough to be read."""
    scanned = Scanned(settings_of(dir_rule(root)), tmp_path)
    scanned.init()
    with watching(dir_rule(root)) as (_, ears):
        ears.hold.clear()
        (root / "wakes-the-reader").mkdir()
        (root / "new" / "deep").mkdir(parents=True)
        (root / "new" / "deep" / "file").write_bytes(b"written before anybody watched")
        ears.hold.set()
        settled(root, ears)
        checker = scanned.checker()
        for path in ears.paths:
            checker.check_path(path)
    found = {event.path: event for event in scanned.take() if event.code == "POLICY_ADDED"}
    digest = hashlib.sha256(b"written before anybody watched").hexdigest()
    assert digest in str(found[bytes(root / "new" / "deep" / "file")].fields)
    scanned.close()


def test_trap_2_an_overflow_is_told_and_no_watch_is_lost_by_it(root: Path) -> None:
    """watchdog takes all watches away and adds them again, which overflows the queue again."""
    with watching(dir_rule(root)) as (watcher, ears):
        removed: list[int] = []
        watches = watcher._watcher.watched_count

        def remove(_fd: int, wd: int) -> int:
            removed.append(wd)
            return 0

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("needfire_client.watch.inotify_rm_watch", remove)
            overflow = inotify_c.InotifyEvent(
                inotify_c.WatchDescriptor(-1), inotify_c.InotifyConstants.IN_Q_OVERFLOW, 0, b""
            )
            watcher._watcher._handle([overflow])
        assert [loss[:2] for loss in ears.losses] == [("the queue of events overflowed", b"/")]
        assert removed == []
        assert watcher._watcher.watched_count == watches
        (root / "sub" / "after").write_bytes(b"")
        ears.wait_paths(root / "sub" / "after")


def test_trap_3_what_waits_to_be_looked_at_is_bounded_and_one_path_is_one(root: Path) -> None:
    """watchdog's queue between its threads has no bound, and holds each event."""
    overflows: list[frozenset[bytes]] = []
    dirty = DirtyPaths(on_first=lambda: None, on_overflow=overflows.append, count_max=50)
    with watching(dir_rule(root)) as (_, ears):
        for _ in range(200):
            (root / "sub" / "one").write_bytes(b"again")
        for number in range(100):
            (root / "sub" / f"f{number}").write_bytes(b"")
        for path in settled(root, ears):
            dirty.add(path)
    assert overflows
    assert all(trees <= {bytes(root), bytes(root / "sub")} for trees in overflows)
    assert len(dirty.take()) <= 50


def test_trap_4_a_directory_that_is_moved_is_never_known_under_a_name_that_it_has_not(
    root: Path, tmp_path: Path
) -> None:
    """watchdog keeps the watch of one that was moved out, under the path that it had."""
    (root / "out").mkdir()
    with watching(dir_rule(root)) as (_, ears):
        (root / "out").rename(tmp_path / "outside")
        (root / "sub").rename(root / "within")
        settled(root, ears)
        ears.paths.clear()
        (tmp_path / "outside" / "x").write_bytes(b"")
        (root / "within" / "y").write_bytes(b"")
        told = settled(root, ears, "settled-again")
    assert bytes(root / "within" / "y") in told
    assert not [
        path for path in told if path.startswith((bytes(root / "out"), bytes(root / "sub")))
    ]


def test_trap_4_the_root_that_is_moved_away_and_one_that_takes_its_place_are_told(
    root: Path, tmp_path: Path
) -> None:
    """watchdog tells nothing of a root that was renamed, and goes on under its old path."""
    with watching(dir_rule(root)) as (_, ears):
        root.rename(tmp_path / "elsewhere")
        root.mkdir()
        ears.wait_paths(root)
        (tmp_path / "elsewhere" / "not-ours").write_bytes(b"")
        (root / "ours").write_bytes(b"")
        ears.wait_paths(root / "ours")
        assert bytes(root / "not-ours") not in ears.paths


def test_trap_5_writing_through_a_link_elsewhere_or_a_mapping_is_found_by_the_full_check(
    root: Path, tmp_path: Path
) -> None:
    """Of the first inotify tells nothing at all, of the second only the closing."""
    (root / "linked").write_bytes(b"old")
    (root / "mapped").write_bytes(b"old")
    os.link(root / "linked", tmp_path / "outside")
    scanned = Scanned(settings_of(dir_rule(root)), tmp_path)
    scanned.init()
    with watching(dir_rule(root)) as (_, ears):
        (tmp_path / "outside").write_bytes(b"new")
        with (root / "mapped").open("r+b") as file, mmap.mmap(file.fileno(), 3) as mapping:
            mapping[:] = b"new"
        told = settled(root, ears)
        assert bytes(root / "linked") not in told
        assert bytes(root / "mapped") in told
    scanned.checker().full_check()
    changed = {event.path for event in scanned.take() if event.code == "POLICY_MODIFIED"}
    assert {bytes(root / "linked"), bytes(root / "mapped")} <= changed
    scanned.close()


def test_trap_6_many_directories_are_armed_and_each_of_them_is_heard(root: Path) -> None:
    """As many as a test may make; scripts/bench/watch arms 20,000 and says how long it took."""
    paths = [root / f"a{number % 50}" / f"b{number}" for number in range(1_000)]
    for path in paths:
        path.mkdir(parents=True)
    with watching(dir_rule(root)) as (watcher, ears):
        assert watcher.health.watched >= 1_050
        for path in paths[::97]:
            (path / "x").write_bytes(b"")
        ears.wait_paths(*(path / "x" for path in paths[::97]))
        assert ears.losses == []


def test_trap_7_our_own_reading_of_everything_causes_no_event(root: Path, tmp_path: Path) -> None:
    """With watchdog's default mask hashing 500 files is 1,000 events, which hash them again."""
    for number in range(50):
        (root / "sub" / f"f{number}").write_bytes(b"x" * number)
    scanned = Scanned(settings_of(dir_rule(root)), tmp_path)
    scanned.init()
    with watching(dir_rule(root)) as (watcher, ears):
        scanned.checker().full_check()
        scanned.checkers[0].full_check()
        assert set(settled(root, ears)) == {bytes(root / "settled")}
        # Some are of the scratch file beside the tree, none of the fifty files.
        assert watcher.health.events < 50
    scanned.close()
