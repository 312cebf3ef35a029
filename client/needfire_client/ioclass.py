"""How a thread tells the kernel that its reading can wait for everybody else's."""

import ctypes
import os
from contextlib import suppress
from typing import Final

__all__ = ["be_idle_reader"]

_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}
"""Number of the system call ioprio_set(2), which the C library does not offer."""
_WHO_PROCESS: Final = 1
"""With the number 0: the calling thread."""
_CLASS_IDLE: Final = 3 << 13


def be_idle_reader() -> bool:
    """Put the calling thread, and what it starts, into the idle class; return whether that worked.

    Only some schedulers of disks heed it (bfq); it does no harm with others.
    """
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is None:
        return False
    with suppress(OSError, AttributeError):
        status: int = ctypes.CDLL(None).syscall(number, _WHO_PROCESS, 0, _CLASS_IDLE)
        return status == 0
    return False
