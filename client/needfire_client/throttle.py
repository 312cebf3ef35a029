"""How long to pause so that a scan keeps to its share of the processor and of the disk. Pure.

Time, processor time and bytes come in as numbers that only grow. What was not used is not saved
up: after a wait for a slow disk a scan may catch up for a moment, not for a minute.
"""

from typing import Final

__all__ = ["BURST_S", "Throttle"]

BURST_S: Final = 0.25
"""Seconds of unused share that may be caught up."""


class Throttle:
    """The limits of one scanning process.

    Args:
        cpu_percent: of one core.
        bytes_per_s: to be read; 0 for no limit.
        now_s, cpu_s, bytes_read: as they are at the start.
    """

    __slots__ = ("_bytes_limit", "_cpu_limit", "_is_unlimited")

    def __init__(
        self,
        cpu_percent: float,
        bytes_per_s: float,
        *,
        now_s: float,
        cpu_s: float,
        bytes_read: int,
    ) -> None:
        self._cpu_limit = _Limit(cpu_percent / 100, now_s, cpu_s)
        self._bytes_limit = _Limit(bytes_per_s, now_s, bytes_read) if bytes_per_s else None
        # A thread cannot use more than one core.
        self._is_unlimited = cpu_percent >= 100 and self._bytes_limit is None

    @property
    def is_unlimited(self) -> bool:
        """True where it will never ask for a pause."""
        return self._is_unlimited

    def pause_s(self, now_s: float, cpu_s: float, bytes_read: int) -> float:
        """Return the seconds to pause from now on; 0 for none."""
        pause_s = self._cpu_limit.pause_s(now_s, cpu_s)
        if self._bytes_limit is not None:
            pause_s = max(pause_s, self._bytes_limit.pause_s(now_s, bytes_read))
        return pause_s


class _Limit:
    """A bucket that fills at a rate: ``_paid_s`` is when what was used so far is paid for."""

    __slots__ = ("_paid_s", "_rate", "_used")

    def __init__(self, rate: float, now_s: float, used: float) -> None:
        self._rate = rate
        self._paid_s = now_s
        self._used = used

    def pause_s(self, now_s: float, used: float) -> float:
        self._paid_s = max(self._paid_s, now_s - BURST_S) + (used - self._used) / self._rate
        self._used = used
        return max(0.0, self._paid_s - now_s)
