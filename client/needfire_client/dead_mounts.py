"""For which mounts does the system not answer?

Who asks waits for ever where one is dead, and no thread can be given up: so a process asks.
"""

import os
import select
import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final

from needfire_client.attributes import ScanStoppedError
from needfire_client.left_behind import has_room, leave, waited_for
from needfire_client.mounts import is_below, may_hang, read_mounts
from needfire_client.standstill import STANDSTILL_S

__all__ = ["ASKED_MAX", "mount_around", "unanswered"]

ASKED_MAX: Final = 256
"""Mounts that are asked at once, each by a thread; of more nothing is known."""

_QUESTIONS: Final = """
import os, sys, threading
def ask(index, point):
    try:
        os.stat(point)
        os.statvfs(point)
    except OSError:
        pass
    answer(index)
def answer(index):
    os.write(1, b"%d\\n" % index)
for index, point in enumerate(sys.argv[1:]):
    try:
        threading.Thread(target=ask, args=(index, point)).start()
    except RuntimeError:
        answer(index)
"""
"""Of attributes NFS may know something by heart, of the free space it does not. An error is an
answer, and what nobody could ask is not to be called dead."""

_POLL_S: Final = 0.1
_ANSWERS_BYTES: Final = 64 * 1024


def unanswered(points: Sequence[bytes], stop: Callable[[], bool]) -> frozenset[bytes]:
    """Return for which mount points the system does not answer; all are asked at once.

    Takes ``STANDSTILL_S`` where there is such a one. Where nobody can be asked, the result is empty;
    where too many who did so have not ended, it is what those wait for.

    Raises:
        ScanStoppedError: ``stop`` said so meanwhile.
    """
    import subprocess

    asked = points[:ASKED_MAX]
    if not has_room():
        return waited_for().intersection(asked)
    try:
        process = subprocess.Popen(  # noqa: S603 -- our own interpreter, no shell
            [sys.executable, "-I", "-S", "-c", _QUESTIONS, *asked],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return frozenset()
    assert process.stdout is not None
    silent: frozenset[bytes] = frozenset()
    try:
        answered = _answered(process.stdout.fileno(), range(len(asked)), stop)
        silent = frozenset(point for index, point in enumerate(asked) if index not in answered)
    finally:
        process.stdout.close()
        process.kill()
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            leave(process, silent)
    return silent


def mount_around(directory: bytes) -> bytes | None:
    """Return where that is mounted which a directory is in, if it is one that may not answer."""
    around = [
        point
        for mount in read_mounts()
        if (point := mount.point) != b"/" and may_hang(mount) and is_below(directory, point)
    ]
    return max(around, key=len, default=None)


def _answered(fd: int, all_of_them: Collection[int], stop: Callable[[], bool]) -> Collection[int]:
    data, until_s = b"", time.monotonic() + STANDSTILL_S
    while time.monotonic() < until_s:
        if stop():
            raise ScanStoppedError
        if not select.select((fd,), (), (), _POLL_S)[0]:
            continue
        if not (more := os.read(fd, _ANSWERS_BYTES)):
            # It has no question any more, or somebody has ended it, which says nothing.
            return all_of_them
        data += more
    return {int(line) for line in data.splitlines()}
