"""Since when has a scan been waiting for one answer of the system, such as a dead network mount's?

Who waits in a system call can tell nobody, nor can it be told to stop. But it uses no processor
time meanwhile, not the least, as one does that reads, pauses or naps; so another one looks on.
"""

from typing import Final

__all__ = ["LOOKS_EVERY_S", "STANDSTILL_S", "Standstill", "processor_ns"]

STANDSTILL_S: Final = 60.0
"""Seconds without an answer after which it is told: no disk that works is so slow."""

LOOKS_EVERY_S: Final = 5.0
_LATE_S: Final = 3 * LOOKS_EVERY_S
"""Between two looks so late those who look on stood still themselves, and the others with them:
stopped at a terminal, for example, or frozen with all of a container."""

_WAITS_FOR_NO_ANSWER: Final = frozenset({b"R", b"T", b"t"})
"""States in proc(5): it has no turn at the processor yet, or somebody has stopped it."""


class Standstill:
    """What is known of one thread or process. Pure."""

    __slots__ = ("_looked_s", "_since_s", "_used_ns")

    def __init__(self) -> None:
        self._used_ns: int | None = None
        self._since_s = self._looked_s = 0.0

    def waiting_s(self, now_s: float, used_ns: int | None) -> float:
        """Return for how many seconds it has used no processor time.

        Args:
            used_ns: processor time so far; None where nobody knows, or it waits for somebody else.
        """
        is_late, self._looked_s = now_s - self._looked_s > _LATE_S, now_s
        if is_late or used_ns is None or used_ns != self._used_ns:
            self._used_ns, self._since_s = used_ns, now_s
        return now_s - self._since_s


def processor_ns(task: str) -> int | None:
    """Return the processor time of a task, which is a path in /proc.

    None if it cannot be told, or where the task could go on if somebody let it.
    """
    try:
        with open(f"/proc/{task}/stat", "rb") as file:
            # Behind the name of its program, which may hold anything.
            state = file.read().rpartition(b")")[2].split()[0]
        with open(f"/proc/{task}/schedstat", "rb") as file:
            used_ns = int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return None if state in _WAITS_FOR_NO_ANSWER else used_ns
