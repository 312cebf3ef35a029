"""What objects should be: the baseline, and over it what was reported since the start."""

import stat
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from needfire_client.baseline import BaselineReader
from needfire_client.overlay import Overlay
from needfire_client.pieces import InOrder, is_large, pieces
from needfire_protocol.baseline import (
    FileEntry,
    decode_entries,
    iterate_rows,
    key_of,
    subtree_end,
)

__all__ = ["UNREAD", "Known", "Reference"]

UNREAD: Final = b""
"""Stands for a row of the baseline that was not read; no row is without bytes."""

_CACHED_ENTRIES_MAX: Final = 50_000
"""Decoded entries that are kept for real-time checks, which ask for the same directories again."""


class Known(NamedTuple):
    """What is known of the objects in one directory, by name."""

    baseline: Mapping[bytes, FileEntry]
    reported: Mapping[bytes, FileEntry | None]
    """Takes the place of the baseline's; None: reported as gone."""

    def get(self, name: bytes) -> FileEntry | None:
        """Return what the object should be; None where it should not be there."""
        return self.reported[name] if name in self.reported else self.baseline.get(name)

    def names(self) -> set[bytes]:
        """Return the names of which anything is known."""
        return self.baseline.keys() | self.reported.keys()


class Reference:
    """Baseline and overlay as one.

    Args:
        overlay: None where everything is to be reported each time.
    """

    def __init__(self, reader: BaselineReader, overlay: Overlay | None) -> None:
        self._reader = reader
        self._overlay = overlay
        self._cache: OrderedDict[bytes, Mapping[bytes, FileEntry]] = OrderedDict()
        self._cached = 0
        self._large: tuple[bytes, InOrder] | None = None
        """The large directory that was asked for last: unpacked it would take a gigabyte."""

    def object(self, path: bytes, name: bytes) -> Known:
        """Return what is known of one object in a directory, and nothing of the others."""
        entry = self._baseline_entry(path, name)
        overlay = self._overlay
        return Known(
            {} if entry is None else {name: entry},
            {} if overlay is None else overlay.object(key_of(path), name),
        )

    def size(self, path: bytes, name: bytes) -> int | None:
        """Return how large a regular file should be; None where there should be none."""
        entry = self.object(path, name).get(name)
        return entry.size if entry is not None and stat.S_ISREG(entry.mode) else None

    def unpacked(self, key: bytes, packed: bytes | None) -> Known:
        """Return what is known of a directory whose row of the baseline is at hand."""
        return Known({} if packed is None else decode_entries(packed), self._reported(key))

    def in_pieces(
        self, key: bytes, packed: bytes | None, now: bytes, *, ignores_times: bool = False
    ) -> Iterator[tuple[Known, dict[bytes, FileEntry]]]:
        """Yield what is known of a directory, and what is there, a few thousand names at a time.

        Names of which nothing differs, and of which nothing was reported, are left out.

        Args:
            packed, now: the row of the baseline, and one of what is there.
            ignores_times: as for ``pieces``.
        """
        old = iter(()) if packed is None else iterate_rows(packed)
        overlay = self._overlay
        reported = iter(()) if overlay is None else overlay.iterate(key)
        new_rows = iterate_rows(now)
        for baseline, said, new in pieces(old, reported, new_rows, ignores_times=ignores_times):
            yield Known(baseline, said), new

    def rows(
        self, first: bytes = b"", end: bytes = subtree_end(b""), *, only_keys: bool = False
    ) -> Iterator[tuple[bytes, bytes | None, bool]]:
        """Yield, in order, the key of every directory of which anything is known in [first, end).

        With it come the row of the baseline, and whether anything was reported of it. Changes may
        be reported while this runs; only those of directories that it has passed are missed.

        Args:
            only_keys: most rows will not be needed; ``UNREAD`` stands for each.
        """
        baseline = self._keyed(first, end) if only_keys else self._reader.iterate(first, end)
        row = next(baseline, None)
        reported, version = self._next_reported(first, end), self._version()
        while row is not None or reported is not None:
            if row is None or (reported is not None and reported < row[0]):
                assert reported is not None
                key, packed = reported, None
            else:
                key, packed = row
                row = next(baseline, None)
            yield key, packed, key == reported
            if key == reported or version != self._version():
                # From the least key that comes after this one.
                reported, version = self._next_reported(key + b"\0", end), self._version()

    def _keyed(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        return ((key, UNREAD) for key in self._reader.keys(first, end))

    def _version(self) -> int:
        return 0 if self._overlay is None else self._overlay.version

    def _next_reported(self, first: bytes, end: bytes) -> bytes | None:
        return None if self._overlay is None else self._overlay.next_directory(first, end)

    def _reported(self, key: bytes) -> Mapping[bytes, FileEntry | None]:
        return {} if self._overlay is None else self._overlay.directory(key)

    def _baseline_entry(self, path: bytes, name: bytes) -> FileEntry | None:
        if path in self._cache:
            return self._baseline(path).get(name)
        if self._large is None or self._large[0] != path:
            packed = self._reader.row(path)
            if packed is None or not is_large(packed):
                return self._baseline(path).get(name)
            self._large = path, InOrder(packed)
        return self._large[1].find(name)

    def _baseline(self, path: bytes) -> Mapping[bytes, FileEntry]:
        entries = self._cache.get(path)
        if entries is None:
            entries = self._reader.directory(path)
            self._keep(path, entries)
        else:
            self._cache.move_to_end(path)
        return entries

    def _keep(self, path: bytes, entries: Mapping[bytes, FileEntry]) -> None:
        self._cache[path] = entries
        self._cached += len(entries) + 1
        while self._cached > _CACHED_ENTRIES_MAX and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cached -= len(dropped) + 1
