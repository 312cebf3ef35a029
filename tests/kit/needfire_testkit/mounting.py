"""Mounts that are taken away again; a test that may not mount is skipped."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

__all__ = ["mounted"]


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
