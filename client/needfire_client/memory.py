"""How much memory examining files may take, and how that is kept to.

Half of ScanMemoryLimit is for the agent, which holds one directory at a time, as it was and as it
is, both packed; entry by entry only a few thousand of it (``pieces.py``). So it bounds the entries
of a directory. Half is for the
processes, each with an equal share, which each watches by itself. One that has more ends; then
half as many go on, with twice the share.
"""

import os
import resource
import threading
import time
from typing import Final

from needfire_protocol.baseline import ENTRIES_PER_DIRECTORY_MAX

__all__ = ["EXIT_NO_MEMORY", "entries_max", "limit_own_memory", "share_bytes"]

EXIT_NO_MEMORY: Final = 75
"""Exit status of a process that reached its limit."""

_ENTRY_BYTES: Final = 512
"""Of one entry, listed and packed, or packed as it was and as it is; measured, and rounded up.
Longer names take more: then a process may reach its share, and a row is bounded by itself."""

_SHARE_BYTES_MIN: Final = 32 * 2**20
"""A Python process with our modules alone has 12 MiB of its own."""

_INTERVAL_S: Final = 0.05
"""Seconds between two looks: time to examine a few thousand entries, that is, a few MiB."""


def entries_max(limit_bytes: int) -> int:
    """Return how many entries of a directory are looked at under a limit for all processes."""
    return min(ENTRIES_PER_DIRECTORY_MAX, limit_bytes // 2 // _ENTRY_BYTES)


def share_bytes(limit_bytes: int, processes: int) -> int:
    """Return what one of so many processes may have."""
    return max(_SHARE_BYTES_MIN, limit_bytes // 2 // processes)


def limit_own_memory(own_bytes: int) -> None:
    """End this process, with EXIT_NO_MEMORY, soon after it has more memory of its own than that.

    The kernel's limits (RLIMIT_DATA) are none for a Python process: at them it does not end, but
    asks again and again, and creeps.
    """
    threading.Thread(target=_watch, args=(own_bytes,), name="memory", daemon=True).start()


def _watch(own_bytes: int) -> None:
    page_bytes = resource.getpagesize()
    with open("/proc/self/statm", "rb", buffering=0) as file:
        while True:
            _, resident, shared, *_ = file.read().split()
            if (int(resident) - int(shared)) * page_bytes > own_bytes:
                os._exit(EXIT_NO_MEMORY)
            time.sleep(_INTERVAL_S)
            file.seek(0)
