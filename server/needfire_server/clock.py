"""What time it is: the one place where the server reads the clocks."""

import time
from typing import Final

__all__ = ["boottime_us", "monotonic_s", "now_us"]


def now_us() -> int:
    """Return the wall clock in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


monotonic_s: Final = time.monotonic
"""Returns seconds of a clock that never jumps: for limits and expiry."""


def boottime_us() -> int:
    """Return microseconds since the machine was started: never set, and goes on while it sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
