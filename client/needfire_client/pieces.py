"""How large directories are held against each other: some thousand names at a time. Pure."""

from collections.abc import Iterator
from typing import Any, Final

from needfire_protocol.baseline import FileEntry, iterate_entries

__all__ = ["LARGE_BYTES", "NAMES_PER_PIECE", "InOrder", "is_large", "pieces"]

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
        self._entries = iterate_entries(self._packed)
        self._head = next(self._entries, None)

    def find(self, name: bytes) -> FileEntry | None:
        """Return the entry of a name; None where there is none.

        Raises:
            FormatError: the row is damaged, up to there.
        """
        if name < self._asked:
            self._begin()
        self._asked = name
        while self._head is not None and self._head[0] < name:
            self._head = next(self._entries, None)
        return self._head[1] if self._head is not None and self._head[0] == name else None


def pieces(
    *streams: Iterator[tuple[bytes, Any]], most: int = NAMES_PER_PIECE
) -> Iterator[tuple[dict[bytes, Any], ...]]:
    """Yield what each stream has for the next names, at most so many names together.

    Each stream has every name once and in order. A name is in one piece alone, with what all of
    the streams have for it; of each stream one value is taken ahead.
    """
    heads = [next(stream, None) for stream in streams]
    while any(head is not None for head in heads):
        found: tuple[dict[bytes, Any], ...] = tuple({} for _ in streams)
        for _ in range(most):
            least = min((head[0] for head in heads if head is not None), default=None)
            if least is None:
                break
            for index, head in enumerate(heads):
                if head is not None and head[0] == least:
                    found[index][least] = head[1]
                    heads[index] = next(streams[index], None)
        yield found
