"""Mounts, clocks and the canary: what tells that watching works is tested with made-up times."""

import os
import threading
import time
from pathlib import Path

import pytest

from needfire_client import guard as guard_module
from needfire_client.guard import Canary, Clocks, Guard, Timekeeper, mount_gaps
from needfire_client.mounts import Mount
from needfire_client.policy import Ruleset
from needfire_testkit.realtime import Ears
from needfire_testkit.scanner import dir_rule, settings_of

START = Clocks(1_000.0, 50.0, 80.0)


def later(real_s: float, monotonic_s: float, boot_s: float) -> Clocks:
    return Clocks(START.real_s + real_s, START.monotonic_s + monotonic_s, START.boot_s + boot_s)


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (later(5, 5, 5), None),
        (later(6.9, 5, 5), None),
        (later(7.1, 5, 5), "the clock was set forward by 2 s"),
        (later(-3_595, 5, 5), "the clock was set back by 3600 s"),
        (later(605, 5, 605), "the machine slept for 600 s"),
        (later(20, 20, 20), None),
        (later(21, 21, 21), "the agent did not run for 16 s"),
    ],
)
def test_time_that_does_not_pass_as_it_should_is_a_gap(now: Clocks, reason: str | None) -> None:
    keeper = Timekeeper(START, tick_s=5)
    gap = keeper.tick(now)
    assert (None if gap is None else gap.reason) == reason
    if gap is not None:
        assert (gap.scope, gap.since_us) == (b"/", 1_000_000_000)
    after = Clocks(now.real_s + 5, now.monotonic_s + 5, now.boot_s + 5)
    assert keeper.tick(after) is None


def mount(number: int, point: bytes, kind: str = "tmpfs") -> Mount:
    return Mount(number, b"0:1", b"/", point, kind)


def test_mounts_over_watched_trees_are_gaps_and_others_are_not() -> None:
    ruleset = Ruleset(settings_of(dir_rule(b"/srv/www")))
    root, other = mount(1, b"/", "ext4"), mount(2, b"/home")
    over, inside = mount(3, b"/srv"), mount(4, b"/srv/www/x", "ext4")
    gaps = mount_gaps((root,), (root, other, over, inside), ruleset, 7)
    assert [(gap.reason, gap.scope, gap.since_us) for gap in gaps] == [
        ("a file system (tmpfs) was mounted", b"/srv", 7),
        ("a file system (ext4) was mounted", b"/srv/www/x", 7),
    ]
    gaps = mount_gaps((root, other, over), (root,), ruleset, 7)
    assert [(gap.reason, gap.scope) for gap in gaps] == [
        ("a file system (tmpfs) was unmounted", b"/srv")
    ]


def test_a_canary_that_comes_back_is_no_news(tmp_path: Path) -> None:
    canary = Canary(tmp_path / "canary", interval_s=300, wait_s=30)
    assert canary.last_seen_us() is None
    assert canary.tick(0.0) == ()
    assert canary.last_seen_us() is not None
    canary.came(bytes(canary.path))
    assert canary.wait_s(100.0) == 200.0
    assert canary.tick(299.0) == ()
    assert canary.tick(300.0) == ()


def test_a_canary_that_does_not_come_back_is_silence_each_time(tmp_path: Path) -> None:
    canary = Canary(tmp_path / "canary", interval_s=300, wait_s=30)
    canary.tick(0.0)
    assert canary.tick(29.9) == ()
    assert [each.path for each in canary.tick(30.0)] == [bytes(canary.path)]
    assert [each.path for each in canary.tick(60.0)] == [bytes(canary.path)]
    canary.came(bytes(canary.path))
    assert canary.tick(360.0) == ()


def test_a_root_that_does_not_come_back_is_told_once_until_it_does(tmp_path: Path) -> None:
    roots = frozenset({b"/etc", b"/usr"})
    canary = Canary(tmp_path / "canary", 300, 30, lambda: roots)

    def come(*which: bytes) -> None:
        for each in (bytes(canary.path), *which):
            canary.came(each)

    def told(now_s: float) -> list[bytes]:
        return [each.path for each in canary.tick(now_s)]

    assert told(0.0) == []
    come(b"/etc")
    assert told(30.0) == [b"/usr"]
    come(b"/etc")
    assert told(60.0) == []
    come(b"/etc", b"/usr")
    assert told(360.0) == []
    come(b"/usr")
    (silence,) = canary.tick(390.0)
    assert silence.path == b"/etc"
    # It is silent since it came last, not since it was missed.
    assert silence.since_us < time.time_ns() // 1000


def test_a_root_that_comes_back_before_it_is_known_that_it_is_expected_counts(
    tmp_path: Path,
) -> None:
    def probe() -> frozenset[bytes]:
        canary.came(b"/etc")
        canary.came(b"/not/asked/for")
        return frozenset({b"/etc"})

    canary = Canary(tmp_path / "canary", 300, 30, probe)
    canary.tick(0.0)
    canary.came(bytes(canary.path))
    assert canary.has_come
    assert canary.tick(300.0) == ()


def test_a_canary_that_cannot_be_written_or_is_not_expected_is_no_silence(tmp_path: Path) -> None:
    canary = Canary(tmp_path / "no" / "canary", interval_s=300, wait_s=30)
    canary.tick(0.0)
    assert canary.tick(30.0) == ()
    canary = Canary(tmp_path / "canary", interval_s=300, wait_s=30)
    canary.is_expected = False
    canary.tick(0.0)
    assert canary.tick(300.0) == ()


def test_a_canary_does_not_follow_a_link_that_was_put_in_its_place(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "canary").symlink_to(victim)
    assert not Canary(tmp_path / "canary", 300).write()
    assert victim.read_bytes() == b"precious"


def test_the_guard_tells_of_mounts_clocks_and_silence(tmp_path: Path) -> None:
    """Mounts are made up, and what the kernel would wake it for is its short tick here."""
    ears = Ears()
    mounts: list[Mount] = [mount(1, b"/")]
    times = iter([START, later(1, 1, 1), later(90, 2, 2)])
    last = later(90, 2, 2)
    guard = Guard(
        Ruleset(settings_of(dir_rule(b"/srv"))),
        ears,
        Canary(tmp_path / "canary", interval_s=0.05, wait_s=0.05),
        tick_s=0.02,
        clocks=lambda: next(times, last),
        mounts=lambda: tuple(mounts),
        mountinfo=Path(os.devnull),
    )
    guard.start()
    try:
        ears.wait(lambda: ears.silences, "silence")
        ears.wait(lambda: ears.losses, "the clock")
        assert ears.losses[0][0] == "the clock was set forward by 88 s"
        mounts.append(mount(2, b"/srv/x"))
        ears.wait(lambda: any(scope == b"/srv/x" for _, scope, _ in ears.losses), "the mount")
    finally:
        guard.stop()
    assert not any(thread.name == "guard" for thread in threading.enumerate())


def test_a_guard_that_fails_says_so(tmp_path: Path) -> None:
    ears = Ears()

    def fail() -> tuple[Mount, ...]:
        raise ValueError("a bug")

    canary = Canary(tmp_path / "canary", 300)
    guard = Guard(Ruleset(settings_of()), ears, canary, mounts=fail)
    guard.start()
    try:
        ears.wait(lambda: ears.losses, "the loss")
    finally:
        guard.stop()
    assert ears.losses[0][0] == "the guard failed: ValueError: a bug"


def test_the_time_until_which_the_agent_watched_is_noted_once_a_minute(tmp_path: Path) -> None:
    """A canary that is written once a day would say that the agent died yesterday."""
    canary = Canary(tmp_path / "canary", interval_s=86_400)
    canary.keep_alive(0.0)
    assert canary.last_seen_us() is None
    assert canary.write()

    def is_noted_at(now_s: float) -> bool:
        os.utime(canary.path, (1, 1))
        canary.keep_alive(now_s)
        return canary.last_seen_us() != 1_000_000

    assert [is_noted_at(now_s) for now_s in (59.9, 60.0, 119.9, 120.0)] == [
        *(False, True, False, True)
    ]


def test_the_guard_notes_that_the_agent_is_alive_between_canaries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "ALIVE_S", 0.0)
    ears = Ears()
    canary = Canary(tmp_path / "canary", interval_s=86_400)
    canary.is_expected = False
    guard = Guard(Ruleset(settings_of()), ears, canary, tick_s=0.02, mountinfo=Path(os.devnull))
    guard.start()
    try:
        ears.wait(lambda: canary.last_seen_us() is not None, "the first canary")
        os.utime(canary.path, (1, 1))
        ears.wait(lambda: canary.last_seen_us() != 1_000_000, "the note")
    finally:
        guard.stop()
