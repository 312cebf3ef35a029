"""For which mounts does the system not answer?

Who asks waits for ever where one is dead, and no thread can be given up: so a process asks.
"""

import os
import select
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from needfire_client.attributes import ScanStoppedError
from needfire_client.left_behind import has_room, leave, waited_for
from needfire_client.mounts import Mount, is_below, is_by_anybody, is_network, may_hang, read_mounts
from needfire_client.standstill import STANDSTILL_S

__all__ = ["ASKED_MAX", "Suspects", "mount_around", "mounts_inside", "unanswered"]

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


def unanswered(mounts: Sequence[Mount], stop: Callable[[], bool]) -> frozenset[bytes]:
    """Return the points of mounts for which the system does not answer; all are asked at once.

    Takes ``STANDSTILL_S`` where there is such a one. A mount is not asked again while a process that
    did so still waits there: whoever mounts by FUSE decides whether that ever ends, and each check
    would leave one more. Where too many have not ended nobody is asked, and so nobody is sent there
    either: who stood still could not be given up. Where nobody can be asked the result is empty.

    Raises:
        ScanStoppedError: ``stop`` said so meanwhile.
    """
    silent = waited_for().intersection(mounts)
    asked = [mount for mount in mounts if mount not in silent]
    if asked:
        silent |= _silent(asked[:ASKED_MAX], stop) if has_room() else frozenset(asked)
    return frozenset(mount.point for mount in silent)


def mount_around(directory: bytes) -> bytes | None:
    """Return where that is mounted which a directory is in, if it is one that may not answer."""
    around = [mount.point for mount in _risky() if is_below(directory, mount.point)]
    return max(around, key=len, default=None)


def mounts_inside(path: bytes, known: AbstractSet[bytes]) -> frozenset[bytes]:
    """Return where, at a path and below it, something is mounted that may not answer.

    Where an account without privileges may have mounted some of it, that alone: whoever keeps a
    mount of theirs from answering is not to have the others left alone that lie beside it.

    Args:
        known: those that are left alone already.
    """
    inside = [
        mount for mount in _risky() if is_below(mount.point, path) and mount.point not in known
    ]
    by_anybody = [mount for mount in inside if is_by_anybody(mount)]
    return frozenset(mount.point for mount in by_anybody or inside)


class Suspects:
    """Mounts that processes of one pass may have stood still at.

    Each is asked once: otherwise one that answers this question, and no other, would have it asked
    for every directory.

    Args:
        stop: as for ``unanswered``.
    """

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._stop = stop
        self._asked: set[Mount] = set()

    def silent(
        self, directory: bytes, paths: Iterable[bytes], known: AbstractSet[bytes]
    ) -> frozenset[bytes]:
        """Return which mounts around a directory, or inside of paths in it, do not answer.

        Args:
            known: those of which that is known; they are not asked.

        Raises:
            ScanStoppedError: it was to stop meanwhile.
        """
        inside = tuple(paths)
        asked = [
            mount
            for mount in _risky()
            # An automounter would mount what it is asked for.
            if is_network(mount)
            and mount not in self._asked
            and mount.point not in known
            and (
                is_below(directory, mount.point)
                or any(is_below(mount.point, path) for path in inside)
            )
        ]
        # Nearest to the root first: who stood still was not far below the directory.
        asked.sort(key=lambda mount: mount.point.count(b"/"))
        del asked[ASKED_MAX:]
        self._asked.update(asked)
        return unanswered(asked, self._stop)


def _risky() -> list[Mount]:
    # Without its root nothing of the host answers.
    return [mount for mount in read_mounts() if mount.point != b"/" and may_hang(mount)]


def _silent(mounts: Sequence[Mount], stop: Callable[[], bool]) -> frozenset[Mount]:
    import subprocess

    try:
        process = subprocess.Popen(  # noqa: S603 -- our own interpreter, no shell
            [sys.executable, "-I", "-S", "-c", _QUESTIONS, *(mount.point for mount in mounts)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return frozenset()
    assert process.stdout is not None
    silent: frozenset[Mount] = frozenset()
    try:
        answered = _answered(process.stdout.fileno(), range(len(mounts)), stop)
        silent = frozenset(mount for index, mount in enumerate(mounts) if index not in answered)
    finally:
        process.stdout.close()
        process.kill()
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            leave(process, silent)
    return silent


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
