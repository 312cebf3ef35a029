"""What time it is: the one place where the server reads the clocks."""

import time

__all__ = ["monotonic_s", "now_us"]


def now_us() -> int:
    """Return the wall clock in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def monotonic_s() -> float:
    """Return seconds of a clock that never jumps: for limits and expiry."""
    return time.monotonic()
