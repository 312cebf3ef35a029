"""What a pass did not see, and why: counted for each class of reasons, with examples of each.

Whoever may make files may make thousands that cannot be examined, each with another number in its
reason, to hide the one that matters. So reasons that differ in their numbers alone are one class:
there are as many as this program and the system have words. All are counted, and each has an
example before any has a second one.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from needfire_protocol.escape import escape_bytes
from needfire_protocol.event import FieldValue
from needfire_protocol.plain_classes import dataclass, field

__all__ = ["Skipped"]

_CLASSES_MAX: Final = 256
"""More than there are: one for each error of the system, and some twenty of our own."""
_PATHS_MAX: Final = 20
_PATHS_TEXT_MAX: Final = 8_000
"""Of one event. Each object has an event of its own the first time; the receipt is a summary."""
_BYTE_SHOWN_MAX: Final = 4
"""Characters of one byte of a path."""

_OTHERS: Final = "other reasons"
_EARLIER: Final = "named by another part of the check"


@dataclass(slots=True)
class _Class:
    """Objects with the same reason, but for its numbers."""

    reason: str | None = None
    """In the words of all of them; None where their numbers differ."""
    count: int = 0
    paths: list[bytes] = field(default_factory=list)
    paths_bytes: int = 0

    def add(self, path: bytes, reason: str) -> None:
        self.reason = reason if self.reason == reason or not self.count else None
        self.count += 1
        # One byte more than is shown: that says that it was cut.
        path = path[: _PATHS_TEXT_MAX + 1]
        is_one_more = len(self.paths) < _PATHS_MAX
        if not self.paths or (is_one_more and self.paths_bytes + len(path) <= _PATHS_TEXT_MAX):
            self.paths.append(path)
            self.paths_bytes += len(path)


class Skipped:
    """Objects that a pass could not examine, or not whole."""

    def __init__(self) -> None:
        self._classes: dict[str, _Class] = {}

    def add(self, path: bytes, reason: str) -> None:
        """Count one object."""
        self._class_of(reason).add(path, reason)

    def add_earlier(self, count: int, reasons: Mapping[str, int]) -> None:
        """Count objects that another part of the pass could not examine, and has reported.

        Args:
            reasons: what ``counts`` said there; of the rest of ``count`` nobody knows why.
        """
        unknown = count - sum(reasons.values())
        for reason, number in (*reasons.items(), (_EARLIER, unknown)):
            if number > 0:
                found = self._class_of(reason)
                found.reason = reason if not found.count else None
                found.count += number

    def counts(self) -> Mapping[str, int]:
        """Return how many objects there are of each class of reasons."""
        return {name: each.count for name, each in self._classes.items()}

    def fields(self) -> Mapping[str, FieldValue]:
        """Return what the receipt says: how many, why (most frequent first), and which."""
        total = sum(each.count for each in self._classes.values())
        if not total:
            return {"skipped": 0}
        counted = sorted(self._classes.items(), key=lambda item: -item[1].count)
        reasons = "; ".join(f"{each.reason or name}: {each.count}" for name, each in counted)
        shown = list(self._examples())
        more = total - len(shown)
        paths = " ".join(shown) + (f" and {more} more" if more else "")
        return {"skipped": total, "skipped_why": reasons, "skipped_paths": paths.strip()}

    def _class_of(self, reason: str) -> _Class:
        name = re.sub("[0-9]+", "N", reason)
        if name not in self._classes and len(self._classes) >= _CLASSES_MAX:
            name = _OTHERS
        return self._classes.setdefault(name, _Class())

    def _examples(self) -> Iterator[str]:
        """Yield paths, in turn one of each class, and those of the smallest classes first."""
        classes = [each for each in self._classes.values() if each.paths]
        classes.sort(key=lambda each: each.count)
        share = _PATHS_TEXT_MAX // max(1, len(classes))
        count, room = 0, _PATHS_TEXT_MAX
        for turn in range(_PATHS_MAX):
            for each in classes:
                if turn >= len(each.paths):
                    continue
                # The first of a class has its place, whatever others need.
                shown = _shown(each.paths[turn], share if turn == 0 else _PATHS_TEXT_MAX)
                if turn == 0 or (count < _PATHS_MAX and len(shown) <= room):
                    yield shown
                    count, room = count + 1, room - len(shown)


def _shown(path: bytes, length_max: int) -> str:
    # A blank then stands between two paths and nowhere else.
    shown = escape_bytes(path).replace(" ", "\\x20")
    if len(shown) <= length_max:
        return shown
    return _shown(path[: (length_max - 1) // _BYTE_SHOWN_MAX], length_max) + "…"
