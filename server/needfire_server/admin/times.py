"""Which moment an administrator means: an ISO time, or an age such as ``10m``."""

import re
from typing import Final

from needfire_protocol.errors import FormatError
from needfire_protocol.event import parse_time

__all__ = ["parse_moment"]

_AGE: Final = re.compile(r"([0-9]{1,9})([smhdw])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


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
