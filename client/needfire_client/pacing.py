"""Whether a scan is to stop, asked together with a pause where it has used more than its share."""

import time
from collections.abc import Callable
from typing import Final

from needfire_client.attributes import Examiner
from needfire_client.throttle import Throttle

__all__ = ["paced"]

_NAP_S: Final = 0.1
"""Seconds of a pause between two questions whether to stop."""


def paced(
    stop: Callable[[], bool], examiner: Examiner, cpu_percent: float, bytes_per_s: float
) -> Callable[[], bool]:
    """Return a ``stop`` that pauses its caller, so that its thread keeps to the limits."""
    clock, cpu_clock, sleep = time.monotonic, time.thread_time, time.sleep
    throttle = Throttle(
        cpu_percent, bytes_per_s, now_s=clock(), cpu_s=cpu_clock(), bytes_read=examiner.bytes_read
    )
    if throttle.is_unlimited:
        return stop

    def stop_or_pause() -> bool:
        while not stop():
            pause_s = throttle.pause_s(clock(), cpu_clock(), examiner.bytes_read)
            if pause_s <= 0:
                return False
            sleep(min(pause_s, _NAP_S))
        return True

    return stop_or_pause
