"""Whether real-time watching still works: mounts, clocks, and a canary.

A watcher that has died, or looks at the wrong tree, says nothing, and nothing is also what a
quiet system says. So somebody else looks after it, in a thread of its own:

- The kernel tells when mounts change (poll(2) on mountinfo). What is mounted over a watched tree
  hides it, and what is in it was never looked at.
- The clocks are compared every few seconds. One that was set makes the times of events lie; a
  sleep of the machine, or of this process, is a time in which nobody watched.
- The canary, a file in the agent's own state directory, is written at an interval and has to come
  back through the watcher. Its time of modification also says, at the next start, until when the
  agent was watching: it is kept up to date once a minute, also where canaries are rarer.
- At the same time each root of the rules is opened as a directory, and that has to come back too
  (``probing.py``). Trees that are watched are never written to: it would be a change in them.
"""

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from needfire_client.mounts import MOUNTINFO, Mount, concerned, read_mounts
from needfire_client.policy import Ruleset
from needfire_client.watcher import now_us
from needfire_protocol.plain_classes import dataclass

__all__ = ["CANARY_NAME", "Canary", "Clocks", "Gap", "Guard", "Silence", "Timekeeper", "mount_gaps"]

CANARY_NAME: Final = ".needfire-canary"

TICK_S: Final = 5.0
"""Seconds between two looks at the clocks."""

JUMP_S: Final = 2.0
"""Seconds by which a clock may move against another: more than any slewing in a tick."""

LATE_S: Final = 15.0
"""Seconds that a tick may come late before nobody can be said to have watched."""

ALIVE_S: Final = 60.0
"""Seconds between two notes that the agent is alive: by so much a gap after a crash may be told too
long. One write of an inode a minute."""

CANARY_WAIT_S: Final = 30.0
"""Seconds that the canary may take: a queue that was full takes a few to be read."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks of the system at one moment, in seconds."""

    real_s: float
    monotonic_s: float
    """Stands still while the machine sleeps."""
    boot_s: float

    @classmethod
    def now(cls) -> "Clocks":
        """Return what they show now."""
        return cls(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))


@dataclass(frozen=True, slots=True)
class Gap:
    """A part that was not watched for a time."""

    reason: str
    scope: bytes
    since_us: int


class Timekeeper:
    """Says when time did not pass as it should have. Pure."""

    def __init__(self, first: Clocks, tick_s: float = TICK_S) -> None:
        self._last = first
        self._tick_s = tick_s

    def tick(self, now: Clocks) -> Gap | None:
        """Compare the clocks with the tick before."""
        last, self._last = self._last, now
        since_us = int(last.real_s * 1_000_000)
        passed_s = now.boot_s - last.boot_s
        slept_s = passed_s - (now.monotonic_s - last.monotonic_s)
        jumped_s = (now.real_s - last.real_s) - passed_s
        late_s = now.monotonic_s - last.monotonic_s - self._tick_s
        if abs(jumped_s) > JUMP_S:
            way = "forward" if jumped_s > 0 else "back"
            return Gap(f"the clock was set {way} by {abs(jumped_s):.0f} s", b"/", since_us)
        if slept_s > JUMP_S:
            return Gap(f"the machine slept for {slept_s:.0f} s", b"/", since_us)
        if late_s > LATE_S:
            return Gap(f"the agent did not run for {late_s:.0f} s", b"/", since_us)
        return None


def mount_gaps(
    old: tuple[Mount, ...], new: tuple[Mount, ...], ruleset: Ruleset, since_us: int
) -> list[Gap]:
    """Return a gap for each mount that came to or went from where a rule covers something."""
    before, after = set(concerned(old, ruleset)), set(concerned(new, ruleset))
    came = [
        Gap(f"a file system ({mount.kind}) was mounted", mount.point, since_us)
        for mount in after - before
    ]
    went = [
        Gap(f"a file system ({mount.kind}) was unmounted", mount.point, since_us)
        for mount in before - after
    ]
    return sorted(came + went, key=lambda gap: gap.scope)


@dataclass(frozen=True, slots=True)
class Silence:
    """Something that should have come back through the watcher, and did not."""

    path: bytes
    """The canary's file, or a root of the rules."""
    since_us: int
    """When it came last, or when it was first expected."""


class Canary:
    """A file that is written, and roots that are opened: all have to come back through the watcher.

    A root that stays silent is told once until it comes back; the file, which stands for the
    watcher as a whole, is told each time.

    Args:
        path: in a directory of the agent's own.
        probe: opens the roots; returns those that must come back.
    """

    def __init__(
        self,
        path: Path,
        interval_s: float,
        wait_s: float = CANARY_WAIT_S,
        probe: Callable[[], frozenset[bytes]] = frozenset,
    ) -> None:
        self.path = path
        self.is_expected = True
        """False where no watcher tells of it: then it only says until when the agent ran."""
        self._key = os.fsencode(path)
        self._interval_s = interval_s
        self._wait_s = min(wait_s, interval_s)
        self._probe = probe
        self._expected: frozenset[bytes] = frozenset()
        self._came: set[bytes] = set()
        """Since the last time; some come before it is known that they are expected."""
        self._came_us: dict[bytes, int] = {}
        self._lock = threading.Lock()
        self._told: frozenset[bytes] = frozenset()
        self._written_s: float | None = None
        self._alive_s = float("-inf")

    def came(self, which: bytes) -> None:
        """Note that the watcher has told of the file or of a root."""
        with self._lock:
            self._came_us[which] = now_us()
            self._came.add(which)

    @property
    def has_come(self) -> bool:
        """True where nothing is waited for any more."""
        with self._lock:
            return self._expected <= self._came

    def last_seen_us(self) -> int | None:
        """Return when the agent last wrote it, in whichever run; None: never."""
        try:
            return os.lstat(self.path).st_mtime_ns // 1000
        except OSError:
            return None

    def keep_alive(self, now_s: float) -> None:
        """Note that the agent still watches, if it is time; its file is not made for it.

        That the watcher tells of it is no harm: whatever comes through it shows that it works.
        """
        if now_s - self._alive_s >= ALIVE_S:
            self._alive_s = now_s
            with suppress(OSError):
                os.utime(self.path, follow_symlinks=False)

    def write(self) -> bool:
        """Write it; False where that fails (disk full), which is no silence of the watcher."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            file = os.open(self.path, flags, 0o600)
            try:
                os.write(file, b"written so that its change is seen\n")
            finally:
                os.close(file)
        except OSError:
            return False
        return True

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until ``tick`` has something to do."""
        if self._written_s is None:
            return 0.0
        pause_s = self._interval_s if self.has_come else self._wait_s
        return max(0.0, self._written_s + pause_s - now_s)

    def tick(self, now_s: float) -> tuple[Silence, ...]:
        """Write it and open the roots if it is time; return what was silent since the last time."""
        if self.wait_s(now_s) > 0:
            return ()
        with self._lock:
            silent = self._expected - self._came
            told = sorted(silent - self._told | silent & {self._key})
            silences = tuple(Silence(path, self._came_us[path]) for path in told)
            self._told = silent
            self._came.clear()
            self._expected = frozenset()
        self._written_s = now_s
        self._begin()
        return silences

    def _begin(self) -> None:
        began_us = now_us()
        is_written = self.write()
        if not self.is_expected:
            return
        expected = self._probe() | ({self._key} if is_written else frozenset())
        with self._lock:
            self._expected = expected
            self._came_us = {path: self._came_us.get(path, began_us) for path in expected}


class Watched(Protocol):
    """What the guard tells."""

    def lost(self, reason: str, scope: bytes, since_us: int | None = None) -> None: ...
    def mounts_changed(self) -> None: ...
    def silent(self, silence: Silence) -> None: ...


class Guard:
    """Looks after a watcher.

    Args:
        canary: written here; the watcher tells it when it came.
    """

    def __init__(
        self,
        ruleset: Ruleset,
        watched: Watched,
        canary: Canary,
        *,
        tick_s: float = TICK_S,
        clocks: Callable[[], Clocks] = Clocks.now,
        mounts: Callable[[], tuple[Mount, ...]] = read_mounts,
        mountinfo: Path = MOUNTINFO,
    ) -> None:
        self._ruleset = ruleset
        self._watched = watched
        self._canary = canary
        self._tick_s = tick_s
        self._clocks = clocks
        self._read_mounts = mounts
        self._mountinfo = mountinfo
        self._wake = -1
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look."""
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop; the canary then says until when the agent watched."""
        self._stopping.set()
        if self._thread is not None:
            os.eventfd_write(self._wake, 1)
            if self._thread is not threading.current_thread():
                self._thread.join()
            self._thread = None
            os.close(self._wake)
            self._canary.write()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        mountinfo = self._open_mountinfo()
        if mountinfo >= 0:
            poll.register(mountinfo, select.POLLPRI | select.POLLERR)
        try:
            self._look(poll)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be told
            self._watched.lost(f"the guard failed: {type(error).__name__}: {error}", b"/")
        finally:
            if mountinfo >= 0:
                os.close(mountinfo)

    def _look(self, poll: select.poll) -> None:
        timekeeper = Timekeeper(self._clocks(), self._tick_s)
        mounts, mounts_us = self._read_mounts(), now_us()
        next_s = time.monotonic() + self._tick_s
        self._tick_canary()
        while True:
            poll.poll(max(0.0, next_s - time.monotonic()) * 1000)
            if self._stopping.is_set():
                return
            mounts, mounts_us = self._compare_mounts(mounts, mounts_us)
            if time.monotonic() >= next_s:
                next_s = time.monotonic() + self._tick_s
                gap = timekeeper.tick(self._clocks())
                if gap is not None:
                    self._watched.lost(gap.reason, gap.scope, gap.since_us)
                self._canary.keep_alive(next_s)
            self._tick_canary()

    def _open_mountinfo(self) -> int:
        try:
            return os.open(self._mountinfo, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1

    def _compare_mounts(
        self, old: tuple[Mount, ...], since_us: int
    ) -> tuple[tuple[Mount, ...], int]:
        at_us = now_us()
        new = self._read_mounts()
        if new != old:
            # First watch what came, then say that it was not: the other way round is a hole.
            self._watched.mounts_changed()
            for gap in mount_gaps(old, new, self._ruleset, since_us):
                self._watched.lost(gap.reason, gap.scope, gap.since_us)
        return new, at_us

    def _tick_canary(self) -> None:
        for silence in self._canary.tick(time.monotonic()):
            self._watched.silent(silence)
