"""Tell the service manager how the server is doing: sd_notify(3), without its library."""

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

__all__ = ["notify", "notify_reloading", "watchdog_interval_s"]

_WATCHDOG_SHARE: Final = 0.5
"""sd_watchdog_enabled(3) recommends half of the time after which the service counts as hung."""


def notify(message: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send ``READY=1``, ``STOPPING=1``, ``WATCHDOG=1`` and the like; False where nobody listens.

    Never fails and never waits: a service manager that is busy must not stop the server.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        # An abstract socket: its name begins with a zero byte, which no environment can hold.
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
            return sender.sendto(message.encode(), flags, address) > 0
    except OSError:
        return False


def notify_reloading(environment: Mapping[str, str] = os.environ) -> bool:
    """Say that the configuration is being read again; ``READY=1`` ends it."""
    microseconds = time.monotonic_ns() // 1000
    return notify(f"RELOADING=1\nMONOTONIC_USEC={microseconds}", environment)


def watchdog_interval_s(
    process_id: int, environment: Mapping[str, str] = os.environ
) -> float | None:
    """Return how often ``WATCHDOG=1`` is to be sent, in seconds; None where nobody waits for it."""
    if environment.get("WATCHDOG_PID", str(process_id)) != str(process_id):
        return None
    text = environment.get("WATCHDOG_USEC", "")
    if not text.isascii() or not text.isdecimal() or int(text) == 0:
        return None
    return int(text) / 1_000_000 * _WATCHDOG_SHARE
