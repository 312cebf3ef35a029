"""Where the rules begin, and a directory that is opened so that its watcher hears of it."""

import os
from pathlib import Path

import pytest

from needfire_client import fanotify_calls
from needfire_client.fanotify_watch import FanotifyWatcher
from needfire_client.policy import Ruleset
from needfire_client.probing import ROOTS_MAX, held, open_audibly, probe_roots
from needfire_client.watch import InotifyWatcher
from needfire_protocol.rc.policies import Policy
from needfire_testkit.realtime import Ears
from needfire_testkit.scanner import dir_rule, file_rule, settings_of

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
watchers = pytest.mark.parametrize(
    "kind",
    [pytest.param(FanotifyWatcher, marks=[pytest.mark.root, needs_root]), InotifyWatcher],
    ids=["fanotify", "inotify"],
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_bytes(b"x")
    return root


def test_each_kind_of_rule_has_its_root(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    rules = (
        dir_rule(root / "sub"),
        file_rule(root / "file"),
        dir_rule(root / "gone"),
        dir_rule(tmp_path / "link"),
        file_rule(bytes(tmp_path) + b"/tr*/file"),
        dir_rule(root / "sub" / "not", Policy.IGNORE_ALL, -1),
        dir_rule(b"/no/such/directory/at/all"),
    )
    # A link that a rule names is an object in its directory; what is behind it is not covered.
    assert probe_roots(Ruleset(settings_of(*rules))) == (
        bytes(root / "sub"),
        bytes(root),
        bytes(tmp_path),
    )


def test_the_roots_are_bounded(tmp_path: Path) -> None:
    for number in range(ROOTS_MAX + 1):
        (tmp_path / str(number)).mkdir()
    rules = [dir_rule(tmp_path / str(number)) for number in range(ROOTS_MAX + 1)]
    assert len(probe_roots(Ruleset(settings_of(*rules[:-1])))) == ROOTS_MAX
    assert len(probe_roots(Ruleset(settings_of(*rules)))) == ROOTS_MAX


def test_a_held_directory_stays_the_same_whatever_its_name_means(root: Path) -> None:
    with held(bytes(root / "sub")) as same:
        inode = (root / "sub").stat().st_ino
        (root / "sub").rename(root / "moved")
        (root / "sub").mkdir()
        assert os.stat(same).st_ino == inode
        open_audibly(same)
    with pytest.raises(NotADirectoryError), held(bytes(root / "file")):
        pass


@watchers
def test_a_probe_is_heard_at_each_root_and_changes_nothing(
    kind: type[FanotifyWatcher | InotifyWatcher], root: Path
) -> None:
    before = [os.stat(path) for path in (root, root / "sub")]
    ears = Ears()
    watcher = kind(settings_of(dir_rule(root), dir_rule(root / "sub")), ears)
    watcher.start()
    try:
        roots = {bytes(root), bytes(root / "sub")}
        assert watcher.probe() == roots
        ears.wait(lambda: set(ears.canaries) >= roots, "both roots")
        # The openings of others are not told, neither before nor after a probe.
        count = len(ears.canaries)
        os.listdir(root)
        (root / "file").read_bytes()
        assert watcher.probe() == roots
        ears.wait(lambda: len(ears.canaries) >= count + 2, "both roots again")
        assert len(ears.canaries) == count + 2
        assert ears.paths == []
    finally:
        watcher.stop()
    after = [os.stat(path) for path in (root, root / "sub")]
    for old, new in zip(before, after, strict=True):
        assert (old.st_mtime_ns, old.st_ctime_ns) == (new.st_mtime_ns, new.st_ctime_ns)


@watchers
def test_after_a_probe_the_root_is_watched_as_before(
    kind: type[FanotifyWatcher | InotifyWatcher], root: Path
) -> None:
    ears = Ears()
    watcher = kind(settings_of(dir_rule(root)), ears)
    watcher.start()
    try:
        watcher.probe()
        os.spawnv(os.P_WAIT, "/bin/sh", ["sh", "-c", f"echo y >{root}/file; touch {root}/new"])
        ears.wait_paths(root / "file", root / "new")
    finally:
        watcher.stop()


@pytest.mark.root
@needs_root
def test_a_mark_that_the_kernel_has_lost_is_a_point_that_is_not_heard(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the file system were another one than that which was marked."""
    ears = Ears()
    watcher = FanotifyWatcher(settings_of(dir_rule(root)), ears)
    watcher.start()
    try:
        assert watcher._lacking_points() == []
        (point,) = watcher._marked.values()
        monkeypatch.setattr(watcher, "_marked", {b"9:99": point})
        assert watcher.probe() == {bytes(root), point}
    finally:
        watcher.stop()


@pytest.mark.root
@needs_root
def test_a_root_that_goes_while_it_is_probed_is_not_expected(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_given: object) -> None:
        raise FileNotFoundError

    watcher = FanotifyWatcher(settings_of(dir_rule(root)), Ears())
    watcher.start()
    try:
        monkeypatch.setattr(fanotify_calls, "mark_directory", refuse)
        assert watcher.probe() == frozenset()
    finally:
        watcher.stop()
