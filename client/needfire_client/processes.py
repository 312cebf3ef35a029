"""Which program a process id stands for, also when the process is gone already.

A file event names a process id. A short-lived writer (``touch``, ``sed -i``) has mostly ended by
the time that its event is read, and /proc knows nothing of it any more. So the program of each
process is noted when it is executed, which fanotify tells as well, and looked up afterwards.

Never a guess. A number may be given to another process, so what is noted of one holds only while
that process lives, which a descriptor of it (pidfd) tells for certain, and for ``TRUST_S`` after
it was last seen alive: no kernel gives out all numbers of processes in that time. What is read
from /proc counts only if the process was still alive afterwards. The command line is read when the
process has changed something, never when it is executed: until the end of execve(2) it is that of
the parent, which may even run the same program.

Not every execution is heard: of a file that is in memory alone (memfd_create(2)), or in a file
system that only a private view of mounts has, nobody is told, and the path that /proc gives of it
may be that of something quite different here. So what a process runs is held against /proc while
it lives, and a path that does not lead there in our view is told with the kernel's
own mark for that, ``(unreachable)``. Of a process that has ended there is nothing left to ask.
"""

import os
import re
import select
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from needfire_protocol.plain_classes import dataclass

__all__ = ["TRUST_S", "Processes", "Writer", "unit_of"]

TRUST_S: Final = 1.0
"""Seconds after which the number of a process that has ended may mean another."""

_KNOWN_MAX: Final = 1_024
_DESCRIPTORS_MAX: Final = 256
"""Of processes that live: a service has 1,024 descriptors by default."""

_CGROUP_BYTES_MAX: Final = 8_192
_COMMAND_BYTES_MAX: Final = 4_097

_NO_LOGIN: Final = 2**32 - 1
_LOADER: Final = re.compile(rb"(?:/usr)?/lib(?:32|64|x32)?(?:/[^/]+)?/ld[-.][^/]*")
"""The dynamic loader is executed by the kernel behind each program that is linked dynamically."""

_UNREACHABLE: Final = b"(unreachable)"
"""As getcwd(2) has it: a path in somebody else's view of the file systems."""

_CONTAINER: Final = re.compile(r"(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?:/|$)", re.MULTILINE)
_UNIT: Final = re.compile(r"/([^/\n]+\.(?:service|scope|socket|mount|timer))(?=/|$)", re.MULTILINE)


_Inode = tuple[int, int]
"""Device and number."""


@dataclass(frozen=True, slots=True)
class Writer:
    """A process that changed something. What could not be learnt for certain is None."""

    pid: int
    program: bytes
    command: bytes | None = None
    """Arguments as /proc/PID/cmdline has them; they may hold secrets."""
    uid: int | None = None
    """The user whose rights it used for files."""
    login_uid: int | None = None
    """The user who logged in, however often identities changed since then."""
    parent: bytes | None = None
    """Program of the parent process."""
    unit: str | None = None
    """Container or unit of systemd."""


@dataclass(slots=True)
class _Facts:
    """What /proc says of a process that does not change with execve(2)."""

    parent_pid: int | None = None
    uid: int | None = None
    login_uid: int | None = None
    unit: str | None = None


@dataclass(slots=True, eq=False)
class _Known:
    pid: int
    program: bytes
    descriptor: int
    """-1 where it has ended."""
    alive_s: float
    """When it was last known to be alive, if it has ended."""
    facts: _Facts | None = None
    command: bytes | None = None
    parent: bytes | None = None
    was_loaded: bool = False
    writer: Writer | None = None
    runs: _Inode | None = None
    """What it runs, as far as that has been compared with its program."""
    asked_s: float = -1.0
    """The sweep after which that was compared last."""


class Processes:
    """Knows the programs of processes. For one thread.

    Args:
        clock_s: monotonic seconds.
        is_heard: called with a device number; says whether executions of files there are told.
    """

    def __init__(
        self,
        *,
        proc: Path = Path("/proc"),
        clock_s: Callable[[], float] = time.monotonic,
        is_heard: Callable[[int], bool] = lambda _device: True,
    ) -> None:
        self._is_heard = is_heard
        self._proc = os.fsencode(proc)
        self._clock_s = clock_s
        self._known: dict[int, _Known] = {}
        self._by_descriptor: dict[int, _Known] = {}
        self._ended: deque[_Known] = deque()
        self._poll = select.epoll()
        self._swept_s = clock_s()

    def close(self) -> None:
        """Give the descriptors back."""
        for descriptor in self._by_descriptor:
            os.close(descriptor)
        self._by_descriptor.clear()
        self._known.clear()
        self._poll.close()

    def sweep(self) -> None:
        """Note which processes have ended. To be called at least once in ``TRUST_S``."""
        now_s = self._clock_s()
        for descriptor, _ in self._poll.poll(0):
            known = self._by_descriptor[descriptor]
            known.alive_s = self._swept_s
            self._let_go(known)
            self._ended.append(known)
        while self._ended and now_s - self._ended[0].alive_s > TRUST_S:
            self._drop(self._ended.popleft())
        self._swept_s = now_s

    def executed(self, pid: int, program: bytes) -> None:
        """Note that a process has begun to run a program."""
        known = self._known.get(pid)
        if known is not None and not known.was_loaded and _LOADER.fullmatch(program) is not None:
            known.was_loaded = True
            self._learn(known)
            return
        if known is not None:
            self._drop(known)
        self._learn(self._note(pid, program))

    def executed_unseen(self, pid: int) -> None:
        """Note that a process has begun to run a program whose path nobody can tell."""
        known = self._known.get(pid)
        if known is not None:
            self._drop(known)

    def writer(self, pid: int) -> Writer | None:
        """Return what is known of the process that an event named just now; None: nothing is."""
        known = self._known.get(pid)
        if known is not None and not self._is_certain(known):
            self._drop(known)
            known = None
        if known is not None and self._is_belied(known):
            self._drop(known)
            known = None
        if known is None:
            known = self._meet(pid)
        if known is None:
            return None
        if known.writer is None:
            self._learn(known)
            self._learn_command(known)
            known.writer = _described(known)
        return known.writer

    def _is_certain(self, known: _Known) -> bool:
        now_s = self._clock_s()
        if known.descriptor < 0:
            return now_s - known.alive_s <= TRUST_S
        return now_s - self._swept_s <= TRUST_S or _is_alive(known.descriptor)

    def _is_belied(self, known: _Known) -> bool:
        """True where a process runs something of whose execution nobody was told.

        Where it would be told, the event is only still to come: then what was noted holds. Asked
        once between two sweeps.
        """
        if known.descriptor < 0 or known.asked_s == self._swept_s:
            return False
        known.asked_s = self._swept_s
        runs = self._runs(known.pid)
        if runs is None or runs == known.runs or not _is_alive(known.descriptor):
            return False
        is_told = self._is_heard(runs[0]) and _LOADER.fullmatch(known.program) is None
        if not is_told and _inode(known.program) != runs:
            return True
        known.runs = runs
        return False

    def _runs(self, pid: int) -> _Inode | None:
        return _inode(b"%s/%d/exe" % (self._proc, pid))

    def _note(self, pid: int, program: bytes) -> _Known:
        while len(self._known) >= _KNOWN_MAX or len(self._by_descriptor) >= _DESCRIPTORS_MAX:
            self._drop(next(iter(self._known.values())))
        known = _Known(pid, program, _open_process(pid), self._clock_s())
        self._known[pid] = known
        if known.descriptor >= 0:
            self._by_descriptor[known.descriptor] = known
            self._poll.register(known.descriptor, select.EPOLLIN)
        else:
            self._ended.append(known)
        return known

    def _meet(self, pid: int) -> _Known | None:
        """Take up a process that runs since before anybody looked."""
        if pid <= 0:
            return None
        known = self._note(pid, b"")
        program, runs = self._seen(pid), self._runs(pid)
        if program is None or known.descriptor < 0 or not _is_alive(known.descriptor):
            self._drop(known)
            return None
        known.program, known.runs = program, runs
        return known

    def _seen(self, pid: int) -> bytes | None:
        """Return the path of what a process runs, with a mark where it is none of ours."""
        program = self._link(pid, b"exe")
        if program is None:
            return None
        runs = self._runs(pid)
        # A kernel that does not let us look at it has told the path all the same.
        return program if runs is None or _inode(program) == runs else _UNREACHABLE + program

    def _learn(self, known: _Known) -> None:
        """Read what execve(2) does not change, as far as the process still lives."""
        if known.descriptor < 0 or known.facts is not None:
            return
        facts = self._facts(known.pid)
        parent = self._program_of(facts.parent_pid)
        if _is_alive(known.descriptor):
            known.facts, known.parent = facts, parent

    def _learn_command(self, known: _Known) -> None:
        """Read the command line of a process that runs its program by now."""
        if known.descriptor < 0:
            return
        command = self._read(known.pid, b"cmdline", _COMMAND_BYTES_MAX)
        is_its_own = self._link(known.pid, b"exe") == known.program.removeprefix(_UNREACHABLE)
        if command and is_its_own and _is_alive(known.descriptor):
            known.command = command

    def _facts(self, pid: int) -> _Facts:
        facts = _Facts()
        for line in self._read(pid, b"status", 4_096).splitlines():
            key, _, value = line.partition(b":")
            if key == b"PPid":
                facts.parent_pid = _number(value)
            elif key == b"Uid":
                facts.uid = _number(value.split()[-1] if value.split() else b"")
        login = _number(self._read(pid, b"loginuid", 32))
        facts.login_uid = None if login == _NO_LOGIN else login
        cgroups = self._read(pid, b"cgroup", _CGROUP_BYTES_MAX)
        facts.unit = unit_of(cgroups.decode("utf-8", "replace"))
        return facts

    def _program_of(self, pid: int | None) -> bytes | None:
        if not pid:
            return None
        known = self._known.get(pid)
        if known is not None and self._is_certain(known):
            return known.program
        return self._seen(pid)

    def _link(self, pid: int, name: bytes) -> bytes | None:
        try:
            return os.readlink(b"%s/%d/%s" % (self._proc, pid, name))
        except OSError:
            return None

    def _read(self, pid: int, name: bytes, size_max: int) -> bytes:
        try:
            file = os.open(b"%s/%d/%s" % (self._proc, pid, name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.read(file, size_max)
        except OSError:
            return b""
        finally:
            os.close(file)

    def _let_go(self, known: _Known) -> None:
        if known.descriptor >= 0:
            del self._by_descriptor[known.descriptor]
            with suppress(OSError):
                self._poll.unregister(known.descriptor)
            os.close(known.descriptor)
            known.descriptor = -1

    def _drop(self, known: _Known) -> None:
        self._let_go(known)
        if self._known.get(known.pid) is known:
            del self._known[known.pid]


def unit_of(cgroups: str) -> str | None:
    """Return ``container:ID`` or the unit of systemd from the text of /proc/PID/cgroup."""
    container = _CONTAINER.search(cgroups)
    if container is not None:
        return f"container:{container[1][:12]}"
    units = _UNIT.findall(cgroups)
    # The innermost, and of a user's session the service in it.
    return str(units[-1])[:128] if units else None


def _described(known: _Known) -> Writer:
    facts = known.facts or _Facts()
    return Writer(
        known.pid,
        known.program,
        known.command,
        facts.uid,
        facts.login_uid,
        known.parent,
        facts.unit,
    )


def _inode(path: bytes) -> _Inode | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _open_process(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def _is_alive(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return not poll.poll(0)


def _number(text: bytes) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
