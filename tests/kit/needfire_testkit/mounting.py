"""Mounts that are taken away again; a test that may not mount is skipped."""

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

__all__ = ["dead_mount", "mounted"]

_MNT_DETACH = 2


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

    Gives what ends it: from then on everything there fails at once.
    """
    system = ctypes.CDLL(None, use_errno=True)
    try:
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")
    is_open = True

    def end() -> None:
        nonlocal is_open
        if is_open:
            os.close(fd)
        is_open = False

    try:
        options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd
        if system.mount(b"needfire-test", bytes(place), b"fuse", 0, options):
            pytest.skip(f"cannot mount FUSE here: {os.strerror(ctypes.get_errno())}")
        try:
            yield end
        finally:
            end()
            system.umount2(bytes(place), _MNT_DETACH)
    finally:
        end()
