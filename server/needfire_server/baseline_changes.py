"""What differs between two baselines: how many objects, and the first of them by name.

Both files are read in the order of their keys beside each other, so memory does not grow with
them. Rows that are the same bytes are not even decoded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from needfire_protocol.baseline import (
    FileEntry,
    decode_entries,
    differ_in_access_times_only,
    iterate_entries,
    path_of,
)
from needfire_server.baseline_files import baseline_rows
from needfire_server.change_text import ChangeText

__all__ = [
    "PATHS_MAX",
    "BaselineChanges",
    "Difference",
    "changes_of_rows",
    "compare_baselines",
    "differences",
]

PATHS_MAX: Final = 20
"""Paths of each kind of change that are named."""

V = TypeVar("V")
_ATIME: Final = FileEntry._fields.index("atime_ns")
_ROW_BYTES_AT_ONCE: Final = 4 * 1024 * 1024
"""Rows up to here are decoded whole, which is several times as fast; it takes some 40 MiB."""


class Difference(NamedTuple):
    """One object that is not the same. A tuple, because there may be millions."""

    mark: bytes
    """A, D or M."""
    path: bytes
    old: FileEntry | None
    new: FileEntry | None


@dataclass(frozen=True, slots=True)
class BaselineChanges:
    """What changed.

    Attributes:
        added, removed, modified: objects. Modified is what is recorded otherwise in anything but
            the time of the last access.
        text: ``A path``, ``D path`` and ``M path``, the first of each kind, in the order of the
            baseline, as ``ChangeText`` writes it.
        left_out: changes that are not named there.
    """

    added: int
    removed: int
    modified: int
    text: str
    left_out: int


def compare_baselines(old: str | None, new: str) -> BaselineChanges:
    """Return what changed from the baseline at one path (None: an empty one) to that at another.

    Takes seconds for a million objects that all differ. Both are taken for hostile.

    Raises:
        FormatError: one of them is no baseline, or is damaged.
    """
    counts = {b"A": 0, b"D": 0, b"M": 0}
    text = ChangeText()
    unnamed = 0
    for mark, path, _, _ in differences(old, new):
        counts[mark] += 1
        if counts[mark] > PATHS_MAX:
            unnamed += 1
        else:
            text.add(mark + b" " + path)
    text.leave_out(unnamed)
    return BaselineChanges(counts[b"A"], counts[b"D"], counts[b"M"], str(text), text.left_out)


def differences(old: str | None, new: str) -> Iterator[Difference]:
    """Yield what differs between two baselines, as ``compare_baselines`` counts it.

    Raises:
        FormatError: one of them is no baseline, or is damaged.
    """
    with baseline_rows(new) as after:
        if old is None:
            yield from changes_of_rows(iter(()), after)
            return
        with baseline_rows(old) as before:
            yield from changes_of_rows(before, after)


def changes_of_rows(
    before: Iterator[tuple[bytes, bytes]], after: Iterator[tuple[bytes, bytes]]
) -> Iterator[Difference]:
    """Yield each object that differs; rows come sorted by key."""
    for key, old, new in _beside_each_other(before, after):
        if old == new or (
            old is not None and new is not None and differ_in_access_times_only(old, new)
        ):
            continue
        for mark, name, entry_old, entry_new in _of_entries(_entries(old), _entries(new)):
            # Only the root's own entry is named "/", in a row that has no path.
            path = path_of(key) + (name if name == b"/" or key == b"\0" else b"/" + name)
            yield Difference(mark, path, entry_old, entry_new)


def _of_entries(
    before: Iterator[tuple[bytes, FileEntry]], after: Iterator[tuple[bytes, FileEntry]]
) -> Iterator[Difference]:
    """The same with names in place of paths."""
    for name, old, new in _beside_each_other(before, after):
        if old is None:
            yield Difference(b"A", name, None, new)
        elif new is None:
            yield Difference(b"D", name, old, None)
        elif old[:_ATIME] != new[:_ATIME] or old[_ATIME + 1 :] != new[_ATIME + 1 :]:
            yield Difference(b"M", name, old, new)


def _entries(row: bytes | None) -> Iterator[tuple[bytes, FileEntry]]:
    if row is None:
        return iter(())
    if len(row) > _ROW_BYTES_AT_ONCE:
        return iterate_entries(row)
    return iter(decode_entries(row).items())


def _beside_each_other(
    one: Iterator[tuple[bytes, V]], other: Iterator[tuple[bytes, V]]
) -> Iterator[tuple[bytes, V | None, V | None]]:
    """Merge two sorted streams by their first values; None where one of them has nothing."""
    left, right = next(one, None), next(other, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            assert left is not None
            yield left[0], left[1], None
            left = next(one, None)
        elif left is None or right[0] < left[0]:
            yield right[0], None, right[1]
            right = next(other, None)
        else:
            yield left[0], left[1], right[1]
            left, right = next(one, None), next(other, None)
