"""Mounts that are taken away again; a test that may not mount is skipped."""

import ctypes
import os
import select
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

__all__ = ["autofs_point", "dead_mount", "deaf_mount", "mounted"]

_MNT_DETACH = 2

_DEAD_S_MAX = 100.0
"""Seconds that a mount is dead at most. No signal but the last one reaches who waits for it, so that
neither would a test's time limit."""


@contextmanager
def mounted(*arguments: str) -> Iterator[None]:
    """Do ``mount ARGUMENTS``, whose last one is the mount point."""
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.decode()}")
    try:
        yield
    finally:
        with suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", "-l", arguments[-1]], check=True)


@contextmanager
def dead_mount(place: Path) -> Iterator[Callable[[], None]]:
    """Mount what answers nobody, as a network mount of which the server has gone.

    Gives what ends it: from then on everything there fails at once. A test that still waits for it
    after ``_DEAD_S_MAX`` goes on then, and fails.
    """
    with _fuse(place) as (_, end):
        yield end


@contextmanager
def _fuse(place: Path) -> Iterator[tuple[int, Callable[[], None]]]:
    """Give the descriptor that asks, and what closes it."""
    system = ctypes.CDLL(None, use_errno=True)
    try:
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")
    open_fds, is_too_late = [fd], threading.Event()

    def end() -> None:
        with suppress(IndexError):
            os.close(open_fds.pop())

    def give_up() -> None:
        is_too_late.set()
        end()

    limit = threading.Timer(_DEAD_S_MAX, give_up)
    limit.daemon = True
    limit.start()
    try:
        options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd
        if system.mount(b"needfire-test", bytes(place), b"fuse", 0, options):
            pytest.skip(f"cannot mount FUSE here: {os.strerror(ctypes.get_errno())}")
        try:
            yield fd, end
        finally:
            end()
            system.umount2(bytes(place), _MNT_DETACH)
    finally:
        limit.cancel()
        end()
    assert not is_too_late.is_set(), "somebody waited for what does not answer"


_INIT = 26
_INIT_ANSWER = struct.pack("<IIIIHHIIHHI7I", 7, 31, 65_536, 0, 16, 12, 131_072, 1, 32, *[0] * 9)


@contextmanager
def deaf_mount(place: Path) -> Iterator[Callable[[], None]]:
    """Mount what takes every question and answers none: who asks cannot even be killed any more.

    Gives what ends it, as ``dead_mount``.
    """
    with _fuse(place) as (fd, end):
        has_ended = threading.Event()

        def take() -> None:
            while not has_ended.is_set():
                if not select.select((fd,), (), (), 0.01)[0]:
                    continue
                question = os.read(fd, 256 * 1024)
                _, what, number = struct.unpack_from("<IIQ", question)
                if what == _INIT:
                    size = 16 + len(_INIT_ANSWER)
                    os.write(fd, struct.pack("<IiQ", size, 0, number) + _INIT_ANSWER)

        taker = threading.Thread(target=take)
        taker.start()

        def stop() -> None:
            has_ended.set()
            taker.join()
            end()

        try:
            yield stop
        finally:
            stop()


_AUTOMOUNTER = """
import fcntl, os, sys
sys.stdin.readline()
place = os.open(sys.argv[1], os.O_RDONLY)
print("ready", flush=True)
while os.read(int(sys.argv[2]), 4096):
    print("asked", flush=True)
    fcntl.ioctl(place, 0x9362)
"""
"""Says of each request that it was asked, and gives up (AUTOFS_IOC_CATATONIC): all fail then."""


@contextmanager
def autofs_point(place: Path) -> Iterator[Callable[[], bool]]:
    """Make a directory one that an automounter mounts something on as soon as it is opened.

    Gives what ends it, and says whether it was opened; nothing is ever mounted on it.
    """
    system = ctypes.CDLL(None, use_errno=True)
    receiver, sender = os.pipe()
    try:
        automounter = subprocess.Popen(
            [sys.executable, "-c", _AUTOMOUNTER, str(place), str(receiver)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(receiver,),
            text=True,
            # Its group is the one that opens the place without asking itself.
            start_new_session=True,
        )
    finally:
        os.close(receiver)
    with automounter:
        assert automounter.stdin is not None
        assert automounter.stdout is not None
        try:
            options = b"fd=%d,pgrp=%d,minproto=5,maxproto=5,direct" % (sender, automounter.pid)
            if system.mount(b"needfire-test", bytes(place), b"autofs", 0, options):
                pytest.skip(f"cannot mount autofs here: {os.strerror(ctypes.get_errno())}")
            try:
                print(file=automounter.stdin, flush=True)
                assert automounter.stdout.readline() == "ready\n"

                def was_opened() -> bool:
                    automounter.kill()
                    assert automounter.stdout is not None
                    return automounter.stdout.read() != ""

                yield was_opened
            finally:
                automounter.kill()
                system.umount2(bytes(place), _MNT_DETACH)
        finally:
            automounter.kill()
            os.close(sender)
