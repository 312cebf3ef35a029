"""Polling: which directories changed between two rounds; needs no rights at all."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from needfire_client.polling_watch import PollingWatcher
from needfire_testkit.realtime import Ears
from needfire_testkit.scanner import dir_rule, file_rule, settings_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_bytes(b"x")
    (root / "sub" / "deep").write_bytes(b"x")
    return root


def poller(ears: Ears, *rules: object, **others: object) -> PollingWatcher:
    watcher = PollingWatcher(settings_of(*rules), ears, **others)  # type: ignore[arg-type]
    watcher.look()
    assert ears.paths == []
    return watcher


def test_every_kind_of_change_names_its_directory(root: Path) -> None:
    ears = Ears()
    watcher = poller(ears, dir_rule(root))
    changes: dict[str, Callable[[], object]] = {
        "write": lambda: (root / "sub" / "deep").write_bytes(b"longer"),
        "mode": lambda: (root / "sub" / "deep").chmod(0o600),
        "new": lambda: (root / "sub" / "new").write_bytes(b""),
        "gone": lambda: (root / "sub" / "new").unlink(),
        "replaced": lambda: shutil.copy(root / "file", root / "sub" / "x"),
        "times": lambda: os.utime(root / "sub" / "deep", ns=(1, 1)),
    }
    for what, change in changes.items():
        change()
        watcher.look()
        assert bytes(root / "sub") in ears.paths, what
        ears.paths.clear()
        watcher.look()
        assert ears.paths == [], what
    assert ears.programs(root / "sub") == {None}


def test_directories_that_come_and_go_are_told(root: Path) -> None:
    ears = Ears()
    watcher = poller(ears, dir_rule(root))
    (root / "more" / "inner").mkdir(parents=True)
    watcher.look()
    assert {bytes(root), bytes(root / "more" / "inner")} <= set(ears.paths)
    ears.paths.clear()
    shutil.rmtree(root)
    watcher.look()
    assert bytes(root / "sub") in ears.paths


def test_what_no_rule_covers_is_not_looked_at(root: Path) -> None:
    ears = Ears()
    watcher = poller(ears, file_rule(root / "file"))
    (root / "sub" / "deep").write_bytes(b"other")
    (root / "unnamed").write_bytes(b"")
    watcher.look()
    assert ears.paths == []
    (root / "file").write_bytes(b"other")
    watcher.look()
    assert ears.paths == [bytes(root)]


def test_only_the_given_mount_points_are_polled(root: Path) -> None:
    ears = Ears()
    points = (bytes(root / "sub"), bytes(root / "sub" / "x"))
    watcher = poller(ears, dir_rule(root), points=points)
    (root / "file").write_bytes(b"other")
    (root / "sub" / "deep").write_bytes(b"other")
    watcher.look()
    assert ears.paths == [bytes(root / "sub")]


def test_a_link_is_not_followed(root: Path) -> None:
    (root / "loop").symlink_to(root)
    ears = Ears()
    watcher = poller(ears, dir_rule(root))
    assert watcher.health.watched == len(root.parts) + 1


def test_more_directories_than_are_kept_are_a_loss_told_once(root: Path) -> None:
    ears = Ears()
    watcher = poller(ears, dir_rule(root), directories_max=1)
    watcher.look()
    assert [reason for reason, _, _ in ears.losses] == ["more than 1 directories to poll"]


def test_it_goes_round_by_itself_until_it_is_stopped(root: Path) -> None:
    ears = Ears()
    watcher = PollingWatcher(settings_of(dir_rule(root)), ears, poll_s=0.01)
    watcher.start()
    try:
        (root / "file").write_bytes(b"other")
        ears.wait_paths(root)
    finally:
        watcher.stop()
    assert ears.losses == []


def test_a_round_that_fails_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ears = Ears()
    watcher = PollingWatcher(settings_of(dir_rule(root)), ears, poll_s=0.01)

    def fail() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(watcher, "look", fail)
    watcher.start(waits=False)
    try:
        ears.wait(lambda: ears.losses, "the loss")
    finally:
        watcher.stop()
    assert ears.losses[0][:2] == ("polling failed: ValueError: a bug", b"/")
