"""Which processes of ours has the kernel not let go of, although they were killed?

Who waits for a dead mount may end only with it. Checks of one, one after the other, must not fill
the memory with such processes: so they are counted for all checks of this process together.
"""

from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Final, Protocol

__all__ = ["LEFT_MAX", "Process", "has_room", "leave", "waited_for"]

LEFT_MAX: Final = 8
"""Processes at a time; more are not given up."""


class Process(Protocol):
    """What is needed of a process."""

    @property
    def pid(self) -> int: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


_left: Final[list[tuple[Process, frozenset[bytes]]]] = []


def leave(process: Process, points: AbstractSet[bytes] = frozenset()) -> None:
    """Leave a process to the kernel.

    Args:
        points: mounts that it was asking about.
    """
    _left.append((process, frozenset(points)))


def has_room() -> bool:
    """True where one more may be left."""
    _forget_ended()
    return len(_left) < LEFT_MAX


def waited_for() -> frozenset[bytes]:
    """Return the mounts that those who have not ended were asking about."""
    _forget_ended()
    return frozenset().union(*(points for _, points in _left))


def _forget_ended() -> None:
    # Here, because most checks have none.
    from subprocess import TimeoutExpired

    for each in list(_left):
        with suppress(TimeoutExpired):
            each[0].wait(0)
            _left.remove(each)
