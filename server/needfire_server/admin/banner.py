"""What a user is told at the next success of what failed before it, in the words of pam_lastlog.

Last failed login: Mon Mar 18 04:07:15 UTC 2024 from 192.0.2.7 on ssh:notty
There were 2 failed login attempts since the last successful login.
"""

import time

from needfire_server.lockout import Failures

__all__ = ["banner_lines"]


def banner_lines(failures: Failures, origin: str, terminal: str) -> list[str]:
    """Return the lines that tell of failures.

    Args:
        origin: where the last one came from.
        terminal: at what it came.
    """
    lines = []
    if failures.last_us is not None:
        when = _stamp(failures.last_us)
        lines.append(f"Last failed login: {when} from {origin} on {terminal}")
    is_one = failures.count == 1
    attempts = (
        "was 1 failed login attempt" if is_one else f"were {failures.count} failed login attempts"
    )
    return [*lines, f"There {attempts} since the last successful login."]


def _stamp(time_us: int) -> str:
    """As ``date`` shows it in UTC; asctime asks no locale."""
    head, _, year = time.asctime(time.gmtime(time_us // 1_000_000)).rpartition(" ")
    return f"{head} UTC {year}"
