"""In which class the calling thread reads from disks."""

import ctypes
import os

import pytest

__all__ = ["IDLE", "io_class"]

IDLE = 3
_IOPRIO_GET = {"x86_64": 252, "aarch64": 31, "riscv64": 31, "ppc64le": 274, "s390x": 283}


def io_class() -> int:
    """Return the class that ioprio_get(2) tells."""
    number = _IOPRIO_GET.get(os.uname().machine)
    if number is None:
        pytest.skip("the number of ioprio_get(2) is not known here")
    found: int = ctypes.CDLL(None, use_errno=True).syscall(number, 1, 0)
    assert found >= 0, os.strerror(ctypes.get_errno())
    return found >> 13
