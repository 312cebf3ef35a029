"""Which processes of ours has the kernel not let go of, although they were killed?

Who waits for a dead mount may end only with it. Checks of one, one after the other, must not fill
the memory with such processes: so they are counted for all checks of this process together.
"""

from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Final, Protocol

from needfire_client.mounts import Mount

__all__ = ["LEFT_MAX", "Process", "has_room", "leave", "waited_for"]

LEFT_MAX: Final = 8
"""Processes at a time; more are not given up."""


class Process(Protocol):
    """What is needed of a process."""

    @property
    def pid(self) -> int: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


_left: Final[list[tuple[Process, frozenset[Mount]]]] = []


def leave(process: Process, mounts: AbstractSet[Mount] = frozenset()) -> None:
    """Leave a process to the kernel.

    Args:
        mounts: those that it waits for.
    """
    _left.append((process, frozenset(mounts)))


def has_room() -> bool:
    """True where one more may be left."""
    _forget_ended()
    return len(_left) < LEFT_MAX


def waited_for() -> frozenset[Mount]:
    """Return the mounts that those who have not ended wait for."""
    _forget_ended()
    return frozenset().union(*(mounts for _, mounts in _left))


def _forget_ended() -> None:
    # Here, because most checks have none.
    from subprocess import TimeoutExpired

    for each in list(_left):
        with suppress(TimeoutExpired):
            each[0].wait(0)
            _left.remove(each)
