"""How many connections the process may hold open: what the system allows, not what is wished for.

A server that runs out of descriptors cannot accept, and cannot open its log or a client's files
either. So the limit is raised as far as it goes at the start, and what is left beyond it is taken
off the connections, and said.
"""

import resource
from typing import Final

__all__ = ["DESCRIPTORS_SPARE", "connections_possible", "raise_descriptor_limit"]

DESCRIPTORS_SPARE: Final = 256
"""Kept for all else: store, logs (one for each of 64 clients), admin socket, files being sent."""

_UNKNOWN: Final = -1


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; return it, or -1 where it is unknown.

    A service manager may forbid both questions (``SystemCallFilter``).
    """
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    except OSError:
        return _UNKNOWN
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        # Where "no limit" is more than the kernel gives a process; what there is must do.
        return soft
    return hard


def connections_possible(descriptor_limit: int) -> int:
    """Return how many connections there may be; at least one.

    Args:
        descriptor_limit: of the process; negative for none, or an unknown one.
    """
    if descriptor_limit < 0:
        return 2**31
    return max(1, descriptor_limit - DESCRIPTORS_SPARE)
