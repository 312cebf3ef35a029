"""How late does the event loop come back? It is measured, and the service manager hears that it lives."""

import asyncio
import os
from typing import Final

from needfire_server.clock import monotonic_s
from needfire_server.metrics import Metrics
from needfire_server.systemd_notify import notify, watchdog_interval_s

__all__ = ["watch_loop"]

_INTERVAL_S: Final = 0.5


async def watch_loop(metrics: Metrics) -> None:
    """Measure, and feed the watchdog of the service manager where there is one; for ever."""
    feed_every_s = watchdog_interval_s(os.getpid())
    feed_at_s = monotonic_s()
    while True:
        began_s = monotonic_s()
        if feed_every_s is not None and began_s >= feed_at_s:
            feed_at_s = began_s + feed_every_s
            notify("WATCHDOG=1")
        await asyncio.sleep(_INTERVAL_S)
        metrics.lag(max(0.0, monotonic_s() - began_s - _INTERVAL_S))
