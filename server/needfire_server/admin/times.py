"""Which moment or duration an administrator means: an ISO time, or an age such as ``10m``."""

import re
from typing import Final

from needfire_protocol.errors import FormatError
from needfire_protocol.event import parse_time

__all__ = ["DURATION_S_MAX", "parse_duration_s", "parse_moment"]

DURATION_S_MAX: Final = 366 * 86_400
"""Seconds of the longest duration; who waits longer than a year waits for ever."""

_AGE: Final = re.compile(r"([0-9]{1,9})([smhdw])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def parse_duration_s(text: str) -> int:
    """Return the seconds of ``10m``, ``2h`` or ``7d``: 1 to DURATION_S_MAX.

    Raises:
        FormatError: it is none, or out of range.
    """
    duration = _AGE.fullmatch(text.strip())
    seconds = 0 if duration is None else int(duration[1]) * _SECONDS[duration[2]]
    if not 1 <= seconds <= DURATION_S_MAX:
        raise FormatError(f"{text[:64]!r} is no duration such as 30s, 10m, 2h, 7d, from 1s to 366d")
    return seconds


def parse_moment(text: str, now_us: int) -> int:
    """Return microseconds since 1970 of ``2026-11-21T19:40:47Z`` or of ``7d`` before now.

    Raises:
        FormatError: it is neither.
    """
    age = _AGE.fullmatch(text.strip())
    if age is None:
        try:
            return max(0, parse_time(text.strip()))
        except FormatError:
            raise FormatError(
                f"{text[:64]!r} is neither a time such as 2026-11-21T19:40:47Z nor an age such as "
                "30s, 10m, 2h, 7d"
            ) from None
    return max(0, now_us - int(age[1]) * _SECONDS[age[2]] * 1_000_000)
