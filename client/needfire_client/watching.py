"""When the agent looks at files: full checks by schedule, single paths when the kernel names them.

One scan at a time, in a thread. Real-time watching is armed before the first full check begins,
so that nothing changes unseen between the two.
"""

import asyncio
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from needfire_client.background import run_in_background
from needfire_client.check import Checker
from needfire_client.check_plans import check_plans
from needfire_client.check_times import CheckTimes
from needfire_client.configuration import Baseline
from needfire_client.dirty import DirtyPaths
from needfire_client.guard import CANARY_NAME
from needfire_client.ioclass import be_idle_reader
from needfire_client.looks import touches
from needfire_client.mounts import is_below
from needfire_client.overlay import ScratchError
from needfire_client.parts import Parts
from needfire_client.policy import EVERYTHING, Selection
from needfire_client.position import PositionStore
from needfire_client.processes import Writer
from needfire_client.realtime import RealTime
from needfire_client.reporter import Reporter
from needfire_client.schedule import RECHECK_S
from needfire_client.standstill import (
    LOOKS_EVERY_S,
    STANDSTILL_S,
    Standstill,
    processor_ns,
)
from needfire_client.watcher import now_us
from needfire_client.who import WhoBook, who_fields
from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.escape import escape_bytes, unescape_bytes
from needfire_protocol.event import FieldValue, format_time
from needfire_protocol.rc.agent import AgentSettings
from needfire_protocol.severity import Severity

__all__ = ["DEBOUNCE_S", "Watching"]

DEBOUNCE_S: Final = 0.2
"""Seconds between the first word of a change and the look at it: an editor's save is several
changes, and a change is to be at the server within a second."""

_AFTER_LOSS_S: Final = 5.0
"""Seconds after a loss until the check that makes up for it: a storm should be over."""

_BETWEEN_DIRECTORIES_MAX: Final = 100
"""Paths that are looked at before a full check goes on."""

_RETRY_S: Final = 60.0
"""Seconds until the next attempt where baseline or scratch file could not be used."""

_STOP_S: Final = 5.0
"""Seconds that a scan gets to come to an end when the agent stops."""

_CHANGES: Final = frozenset({"POLICY_ADDED", "POLICY_MISSING", "POLICY_MODIFIED"})
"""Events that say who it was, where that is known."""


class Watching:
    """The scanning half of the daemon. ``run`` does the work; the rest steers it.

    Args:
        overlay: scratch file of what has been reported.
        position: where it is kept how far a full check has come.
        on_bug: told of an error that nobody foresaw; the watch goes on.
    """

    def __init__(
        self,
        reporter: Reporter,
        overlay: Path,
        position: Path,
        *,
        on_bug: Callable[[Exception], None],
    ) -> None:
        self._reporter = reporter
        self._overlay = overlay
        self._on_bug = on_bug
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._stop = threading.Event()
        self._plan: tuple[AgentSettings, Baseline] | None = None
        self._baseline: Baseline | None = None
        self._nice_level = 0
        self._checker: Checker | None = None
        self._watcher: RealTime | None = None
        self._who = WhoBook()
        self._was_watching = False
        self._settings = AgentSettings()
        self._is_new_watcher_wished = False
        self._is_scanning = False
        self._scan_task = ""
        """Thread of the scan, as a path in /proc; empty while it hands over a report, or is none."""
        self._is_paused = False
        self._is_stopping = False
        self._idle = asyncio.Event()
        self._times = CheckTimes(now_s=_clock_s(), random=random.random)
        self._positions = PositionStore(position)
        self._process = secrets.token_hex(8)
        self._unfinished: Selection | None = None
        self._dirty_since_s = 0.0
        self._is_checking_paths = self._is_checking_part = False
        self._is_check_wished = False
        self._gaps = self._told_gaps = 0
        self._dirty = DirtyPaths(on_first=self._nudge, on_overflow=self._overflowed)
        self._parts = Parts()
        self._silent: set[bytes] = set()
        """Canaries of which it was told that they did not come back."""

    def configure(self, settings: AgentSettings, baseline: Baseline) -> None:
        """Use these from now on. A scan that runs is broken off, and a full check follows."""
        self._plan = (settings, baseline)
        self._baseline = baseline
        self._nice_level = settings.nice_level
        self._times.set_plans(check_plans(settings), _clock_s())
        self._times.request(_clock_s())
        self._unfinished = None
        self._interrupt()

    def request_check(self) -> None:
        """Check everything once more, after the check that runs or is due already."""
        self._is_check_wished = True
        self._wake.set()

    def pause(self) -> None:
        """Look at nothing until ``resume``; what changes meanwhile is remembered."""
        self._is_paused = True
        self._interrupt()

    def resume(self) -> None:
        """Go on, and look at what was named meanwhile."""
        self._is_paused = False
        self._wake.set()

    async def stop(self) -> None:
        """Come to an end; returns when no scan runs any more, or after a few seconds."""
        self._is_stopping = True
        self._interrupt()
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await self._idle.wait()

    # ---- what real-time watching tells, from its threads ---------------------------------------

    def changed(self, path: bytes, *, below: bool = False) -> None:
        """Hear that a path may have changed, and perhaps everything below it."""
        self._dirty.add(path, below=below)

    def wrote(self, path: bytes, writer: Writer | None, *, below: bool = False) -> None:
        """Hear who changed a path."""
        self._who.note(path, writer, below=below)

    def lost(self, reason: str, scope: bytes, since_us: int | None = None) -> None:
        """Hear that something was missed: it is reported, and that part is checked soon."""
        self._report_gap(reason, scope, since_us)
        self._call(partial(self._check_soon, (scope,)))

    def silent(self, method: str, path: bytes, scope: bytes, since_us: int) -> None:
        """Hear that a canary did not come back: an alarm; where it is all, watching starts anew."""
        self._silent.add(path)
        self._reporter.report(
            "REALTIME_SILENT", method=method, path=escape_bytes(path), since=format_time(since_us)
        )
        self.lost("the canary did not come back", scope, since_us)
        if scope == b"/":
            self._call(self._start_anew)

    def answered(self, path: bytes) -> None:
        """Hear that a canary came back; told of those that had been silent."""
        if path in self._silent:
            self._silent.discard(path)
            self._reporter.report("REALTIME_ANSWERS", path=escape_bytes(path))

    def chosen(self, method: str, reason: str, watched: int, polled: int) -> None:
        """Hear how this host is watched."""
        self._reporter.report(
            "REALTIME_STARTED", method=method, reason=reason, watched=watched, polled=polled
        )

    # ---- the work ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch and check until ``stop``."""
        async with asyncio.TaskGroup() as tasks:
            looking_on = tasks.create_task(self._look_on())
            try:
                while not self._is_stopping:
                    self._wake.clear()
                    self._stop.clear()
                    if self._is_paused:
                        await self._wake.wait()
                    else:
                        await self._step()
            finally:
                await self._close()
                self._idle.set()
                looking_on.cancel()

    async def _step(self) -> None:
        plan = self._plan
        try:
            if plan is not None:
                self._plan = None
                await self._scan(lambda: self._prepare(*plan))
            elif self._checker is None:
                await self._wait(None)
            elif self._is_new_watcher_wished:
                self._is_new_watcher_wished = False
                await self._scan(self._watch)
            elif (selection := self._unfinished) is not None:
                await self._scan(partial(self._full_check, selection))
            elif (wait_s := self._times.wait_s(_clock_s())) <= 0:
                await self._scan(partial(self._full_check, self._times.begin(_clock_s())))
            elif self._is_check_wished:
                self._is_check_wished = False
                self._positions.clear()
                await self._scan(partial(self._full_check, EVERYTHING))
            elif (part := self._parts.take(time.monotonic())) is not None:
                await self._scan(partial(self._check_part, part))
            elif self._dirty:
                await asyncio.sleep(DEBOUNCE_S)
                await self._scan(self._check_dirty)
            else:
                # A wait does not go on while the host sleeps; the times do.
                await self._wait(self._parts.wait_s(time.monotonic(), min(wait_s, RECHECK_S)))
        except ScratchError as error:
            self._reporter.report("LOCAL_STORAGE_FAILED", reason=str(error))
            again = None if self._baseline is None else (self._settings, self._baseline)
            await self._retry(plan or again, _AFTER_LOSS_S)
        except (FormatError, StorageError) as error:
            path = "" if self._baseline is None else self._baseline.shown_path
            self._reporter.report("BASELINE_UNUSABLE", path=path, reason=str(error))
            await self._retry(plan, _RETRY_S)
        except Exception as error:  # noqa: BLE001 -- a watch that has died of a bug guards nothing
            self._on_bug(error)
            await self._retry(plan, _RETRY_S)

    async def _retry(self, plan: tuple[AgentSettings, Baseline] | None, wait_s: float) -> None:
        if self._plan is None:
            self._plan = plan
        # Paths that were taken may not have been looked at.
        self._positions.clear()
        self._unfinished = None
        self._times.request(_clock_s(), within_s=wait_s)
        await self._wait(wait_s)

    async def _wait(self, wait_s: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()

    async def _scan(self, work: Callable[[], None]) -> None:
        def nicely() -> None:
            with suppress(OSError):
                # Of this thread alone, as Linux has it: who talks to the server stays quick.
                os.setpriority(os.PRIO_PROCESS, 0, self._nice_level)
            # Inherited by the processes that are started from here, as the nice level is.
            be_idle_reader()
            self._is_scanning = True
            self._scan_task = _own_task()
            try:
                work()
            finally:
                self._scan_task = ""
                self._is_scanning = False

        await run_in_background(nicely, "scan")

    async def _look_on(self) -> None:
        """Tell of a scan that does not get on because the system does not answer it."""
        standstill = Standstill()
        fields: dict[str, FieldValue] = {}
        while True:
            await asyncio.sleep(LOOKS_EVERY_S)
            used_ns = processor_ns(task) if (task := self._scan_task) else None
            waiting_s = standstill.waiting_s(time.monotonic(), used_ns)
            if fields and waiting_s < STANDSTILL_S:
                self._reporter.report_fields("SCAN_GOES_ON", fields)
                fields = {}
            elif not fields and waiting_s >= STANDSTILL_S:
                fields = self._standstill_fields(waiting_s)
                self._reporter.report_fields("SCAN_STANDS_STILL", fields)

    def _standstill_fields(self, waiting_s: float) -> dict[str, FieldValue]:
        path = b"" if self._checker is None else self._checker.at
        since_us = now_us() - round(waiting_s * 1_000_000)
        return {"path": escape_bytes(path or b"/"), "since": format_time(since_us)}

    async def _close(self) -> None:
        # A scan that hangs (a dead network mount) keeps what it uses until the process ends.
        if not self._is_scanning:
            await run_in_background(self._release, "scan-end")

    def _release(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        if self._checker is not None:
            self._checker.close()
        self._watcher = self._checker = None

    def _prepare(self, settings: AgentSettings, baseline: Baseline) -> None:
        self._release()
        self._settings = settings
        if settings.realtime and settings.realtime_method != "none":
            self._watch()
        self._checker = Checker(
            settings,
            baseline.path,
            self._overlay,
            self._on_event,
            self._between_directories,
            health=self._health,
        )

    def _watch(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        self._watcher = RealTime(self._settings, self._overlay.with_name(CANARY_NAME), self)
        self._tell_of_absence(self._watcher.last_seen_us())
        self._watcher.start()

    def _tell_of_absence(self, last_seen_us: int | None) -> None:
        """Report, once a run, since when nobody watched; the first full check makes up for it."""
        if not self._was_watching and last_seen_us is not None:
            self._report_gap("the agent was not running", b"/", last_seen_us)
        self._was_watching = True

    def _check_part(self, part: bytes) -> None:
        """Check a part that something was lost of, or in which too much changed at once."""
        assert self._checker is not None
        self._who.begin_look_below(part)
        # Paths that are named meanwhile wait: one that is looked at in the middle would be
        # compared with what the part was before.
        self._is_checking_paths = self._is_checking_part = True
        try:
            result = self._checker.check_below(part, self._should_stop)
        finally:
            self._is_checking_paths = self._is_checking_part = False
        if not result.is_complete:
            self._parts.add(part, time.monotonic())
            return
        self._reporter.report_fields(
            "PART_CHECKED",
            {"scope": escape_bytes(part), "files": result.files, "changes": result.changes},
            may_wait=True,
        )
        if self._watcher is not None:
            self._watcher.reconcile()

    def _full_check(self, selection: Selection) -> None:
        assert self._checker is not None
        began_s = _clock_s()
        if selection == EVERYTHING and self._unfinished is None:
            # One that goes on where it was does not come by everywhere again.
            self._parts.clear()
        self._unfinished = selection
        result = self._checker.full_check(
            self._should_stop, selection, positions=self._positions, watch=self._watch_now()
        )
        if not result.is_complete:
            return
        self._unfinished = None
        self._call(partial(self._times.completed, selection, began_s))
        if self._watcher is not None:
            self._watcher.reconcile()

    def _watch_now(self) -> str:
        """Return a word that stays the same for as long as nothing can have changed unseen."""
        return "" if self._watcher is None else f"{self._process}:{self._gaps}"

    def _check_dirty(self) -> None:
        paths = self._dirty.take()
        self._who.begin_look(paths)
        self._check_paths(paths)

    def _check_paths(self, paths: Mapping[bytes, bool]) -> None:
        assert self._checker is not None
        self._is_checking_paths = True
        # A directory in which a thousand files change is told once, and not a thousand times.
        looked_at: set[bytes] = set()
        try:
            for path, below in paths.items():
                if self._stop.is_set():
                    # A full check that goes on later may have passed it.
                    self._dirty.add(path, below=below)
                else:
                    self._checker.check_path(path, below=below, looked_at=looked_at)
        finally:
            self._is_checking_paths = False

    def _between_directories(self, _files: int, _bytes_read: int, directory: bytes) -> None:
        """Look at single paths while a full check runs, which may take an hour.

        The full check has read ``directory`` and not compared it yet. Paths that touch the same
        entries wait until it has moved on: it would take what it read for a newer change.
        """
        if self._is_checking_paths:
            return
        if (part := self._parts.take(time.monotonic(), beside=directory)) is not None:
            self._check_part(part)
        is_time = time.monotonic() - self._dirty_since_s >= DEBOUNCE_S
        if not self._dirty or not is_time:
            return
        # A few at each directory: whoever makes and removes files without end must not be able to
        # keep the full check from getting on.
        paths = self._dirty.take(_BETWEEN_DIRECTORIES_MAX)
        put_off = {
            path: below
            for path, below in paths.items()
            if touches(path, directory) or (below and is_below(directory, path))
        }
        self._who.begin_look(paths)
        self._check_paths({path: paths[path] for path in paths if path not in put_off})
        self._who.put_off(put_off)
        for path, below in put_off.items():
            self._dirty.add(path, below=below)

    def _health(self) -> Mapping[str, FieldValue]:
        """Return what the receipt of a check says of the watch before it."""
        gaps = self._gaps - self._told_gaps
        self._told_gaps += gaps
        if self._watcher is None:
            return {"watcher": "off"}
        health = self._watcher.health
        return {
            "watcher": ", ".join(each.method for each in health),
            "watched": sum(each.watched for each in health),
            "watcher_gaps": gaps,
        }

    def _should_stop(self) -> bool:
        return self._stop.is_set()

    def _on_event(
        self, code: str, severity: Severity | None, fields: Mapping[str, FieldValue]
    ) -> None:
        if code in _CHANGES and self._watcher is not None:
            writers = self._who.writers(unescape_bytes(str(fields["path"])))
            # What a full check found may have happened at any time since the last one.
            if writers or (self._is_checking_paths and not self._is_checking_part):
                fields = {**fields, **who_fields(writers)}
        # Where there is no room for a report it waits, and that is no standstill.
        task, self._scan_task = self._scan_task, ""
        self._reporter.report_fields(code, fields, severity=severity, may_wait=True)
        self._scan_task = task

    def _report_gap(self, reason: str, scope: bytes, since_us: int | None) -> None:
        self._gaps += 1
        until_us = now_us()
        fields = {
            "reason": reason,
            "scope": escape_bytes(scope),
            "from": format_time(min(until_us, since_us or until_us)),
            "to": format_time(until_us),
        }
        self._reporter.report_fields("COVERAGE_GAP", fields)

    def _overflowed(self, trees: frozenset[bytes]) -> None:
        """Hear that too many paths were named: nothing is lost, their trees are checked."""
        self._call(partial(self._check_soon, tuple(trees)))

    def _start_anew(self) -> None:
        self._is_new_watcher_wished = True
        self._wake.set()

    def _check_soon(self, parts: Iterable[bytes]) -> None:
        now_s = time.monotonic()
        for part in parts:
            if not self._parts.add(part, now_s + _AFTER_LOSS_S):
                self._times.request(_clock_s(), within_s=_AFTER_LOSS_S)
        self._wake.set()

    def _nudge(self) -> None:
        self._dirty_since_s = time.monotonic()
        self._call(self._wake.set)

    def _call(self, callback: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop has closed: the agent is at its end
            self._loop.call_soon_threadsafe(callback)

    def _interrupt(self) -> None:
        self._stop.set()
        self._wake.set()


def _own_task() -> str:
    """Return the calling thread as a path in /proc."""
    return f"{os.getpid()}/task/{threading.get_native_id()}"


def _clock_s() -> float:
    """Return seconds that also run while the host sleeps: a missed check is due when it wakes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
