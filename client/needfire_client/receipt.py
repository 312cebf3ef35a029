"""What a pass did not see, and why: counted by reason, and named up to a bound."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from needfire_protocol.escape import escape_bytes
from needfire_protocol.event import FieldValue

__all__ = ["Skipped"]

_REASONS_MAX: Final = 16
_PATHS_MAX: Final = 20
_PATHS_TEXT_MAX: Final = 4_000
"""Of one event. Each object has an event of its own the first time; the receipt is a summary."""


class Skipped:
    """Objects that a pass could not examine, or not whole."""

    def __init__(self) -> None:
        self._reasons: Counter[str] = Counter()
        self._paths: list[str] = []
        self._paths_text = 0

    def add(self, path: bytes, reason: str) -> None:
        """Count one object."""
        if reason not in self._reasons and len(self._reasons) >= _REASONS_MAX:
            reason = "other reasons"
        self._reasons[reason] += 1
        # A blank then stands between two paths and nowhere else.
        shown = escape_bytes(path).replace(" ", "\\x20")
        if len(self._paths) < _PATHS_MAX and self._paths_text + len(shown) <= _PATHS_TEXT_MAX:
            self._paths.append(shown)
            self._paths_text += len(shown)

    def add_earlier(self, count: int) -> None:
        """Count objects that another part of the pass could not examine, and has reported."""
        if count:
            self._reasons["named by another part of the check"] += count

    def fields(self) -> Mapping[str, FieldValue]:
        """Return what the receipt says: how many, why (most frequent first), and which."""
        total = self._reasons.total()
        if not total:
            return {"skipped": 0}
        reasons = "; ".join(f"{reason}: {count}" for reason, count in self._reasons.most_common())
        more = total - len(self._paths)
        paths = " ".join(self._paths) + (f" and {more} more" if more else "")
        return {"skipped": total, "skipped_why": reasons, "skipped_paths": paths.strip()}
