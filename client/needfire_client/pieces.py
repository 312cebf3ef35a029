"""How large directories are held against each other: some thousand names at a time. Pure."""

from collections.abc import Iterator
from typing import Any, Final

from needfire_protocol.baseline import FileEntry, entry_of, iterate_rows

__all__ = ["LARGE_BYTES", "NAMES_PER_PIECE", "InOrder", "Row", "is_large", "pieces"]

NAMES_PER_PIECE: Final = 4_096

LARGE_BYTES: Final = 4 * 2**20
"""Of a row, from which on a directory is looked at in pieces: some 30,000 objects."""


def is_large(packed: bytes) -> bool:
    """Return whether a row has more entries than should be in memory at a time."""
    return len(packed) > LARGE_BYTES


class InOrder:
    """Finds entries in a row, without unpacking it as a whole.

    It goes on from where it was: names in ascending order cost one pass together, and one that
    comes before the last one begins another.
    """

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._begin()

    def _begin(self) -> None:
        self._asked = b""
        self._rows = iterate_rows(self._packed)
        self._head = next(self._rows, None)

    def find(self, name: bytes) -> FileEntry | None:
        """Return the entry of a name; None where there is none.

        Raises:
            FormatError: the row is damaged, up to there.
        """
        if name < self._asked:
            self._begin()
        self._asked = name
        while self._head is not None and self._head[0] < name:
            self._head = next(self._rows, None)
        if self._head is None or self._head[0] != name:
            return None
        return entry_of(*self._head[1:])


Row = tuple[bytes, list[Any], Any]
"""A name, its attributes and its access time, as ``iterate_rows`` yields them."""


def pieces(
    old: Iterator[Row],
    reported: Iterator[tuple[bytes, FileEntry | None]],
    new: Iterator[Row],
    *,
    ignores_times: bool,
    most: int = NAMES_PER_PIECE,
) -> Iterator[tuple[dict[bytes, FileEntry], dict[bytes, FileEntry | None], dict[bytes, FileEntry]]]:
    """Yield what each stream has for the next names of which there is something to be said.

    That is not so of names that are the same in ``old`` and in ``new`` and were not reported: in
    a directory of a million objects that is nearly all of them, and to take them apart takes ten
    times as long as to hold them against each other.

    Each stream has every name once and in order. A name is in one piece alone, with what all of
    the streams have for it; of each stream one value is taken ahead.

    Args:
        ignores_times: names of which nothing but the access time differs are the same.

    Raises:
        FormatError: a row is damaged.
    """
    before, said, now = next(old, None), next(reported, None), next(new, None)
    piece: tuple[dict[bytes, FileEntry], dict[bytes, FileEntry | None], dict[bytes, FileEntry]]
    piece, count = ({}, {}, {}), 0
    while before is not None or said is not None or now is not None:
        if (
            before is not None
            and now is not None
            and before[1] == now[1]
            and before[0] == now[0]
            and (ignores_times or before[2] == now[2])
            and (said is None or said[0] > now[0])
        ):
            before, now = next(old, None), next(new, None)
            continue
        name = min(head[0] for head in (before, said, now) if head is not None)
        if before is not None and before[0] == name:
            piece[0][name] = entry_of(*before[1:])
            before = next(old, None)
        if said is not None and said[0] == name:
            piece[1][name] = said[1]
            said = next(reported, None)
        if now is not None and now[0] == name:
            piece[2][name] = entry_of(*now[1:])
            now = next(new, None)
        count += 1
        if count == most:
            yield piece
            piece, count = ({}, {}, {}), 0
    if count:
        yield piece
