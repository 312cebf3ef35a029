"""No memory of this process on a disk: its password and keys, and what it read, are in it."""

import resource
from typing import Final

__all__ = ["forbid_core_dumps"]

_NONE_AT_ALL: Final = 1
"""Less than any core has, so that there is no file; and the one limit that also counts where the
kernel hands cores to a program (``core_pattern`` with ``|``), which 0 does not: core(5), do_coredump()."""


def forbid_core_dumps() -> None:
    """Let this process, and all that it starts, die without leaving a core."""
    limit = _NONE_AT_ALL
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    if most != resource.RLIM_INFINITY:
        limit = min(limit, most)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
