"""Which unit of a scan comes next, and which records may be given on. Pure.

A pass is a list of pieces in the order of the walk: units that wait, units that somebody does, and
records that are there. An answer takes the place of its unit: records, files to be read, and what
is left. Records leave at the front, so the order is that of a single walk; units are handed out
from the front, so that there is never more behind the front than a few answers.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from needfire_client.record import DirectoryRecord
from needfire_client.units import Unit
from needfire_client.walk import Rest
from needfire_protocol.plain_classes import dataclass, field

__all__ = ["NAMES_PER_UNIT_MAX", "Order", "Piece"]

NAMES_PER_UNIT_MAX: Final = 32
"""Directories of one unit: what is left when its effort is used up comes back anyway."""


@dataclass(slots=True, eq=False)
class Piece:
    """One place in the order: a unit, or records where ``unit`` is None."""

    unit: Unit | None = None
    is_taken: bool = False
    failures: int = 0
    """Processes that ended while they did it."""
    records: Sequence[DirectoryRecord] = ()
    whole: "_Whole | None" = None
    """Of a file: what it is a part of."""
    size_bytes: int = 0
    taken_at: int = 0
    """What the clock of changes said when it was handed out."""


@dataclass(slots=True, eq=False)
class _Whole:
    """A record that waits for the contents of files."""

    record: DirectoryRecord
    parts: list[DirectoryRecord] = field(default_factory=list)


class Order:
    """The pieces of one pass."""

    def __init__(
        self,
        records: Sequence[DirectoryRecord],
        rests: Sequence[Rest],
        buffered_bytes_max: int,
        *,
        taken_at: int = 0,
    ) -> None:
        self._buffered_bytes_max = buffered_bytes_max
        self._buffered_bytes = 0
        first = Piece(Unit(b"", (), False, None, False), taken_at=taken_at)
        self._pieces = [first]
        """Reversed: the front is the end of the list."""
        self.answer(first, records, rests)

    @property
    def is_done(self) -> bool:
        """True where every record has left."""
        return not self._pieces

    def next_unit(self, *, files_too: bool = True) -> Piece | None:
        """Take the next unit that waits; None where there is none, or enough is under way.

        Args:
            files_too: the one who asks can begin with a large file now.
        """
        is_full = self._buffered_bytes >= self._buffered_bytes_max
        for index in range(len(self._pieces) - 1, -1, -1):
            piece = self._pieces[index]
            if piece.unit is None or piece.is_taken:
                if is_full:
                    return None
                continue
            if piece.unit.is_file and not files_too:
                return None
            if len(piece.unit.names) > NAMES_PER_UNIT_MAX:
                piece = self._split(index)
            piece.is_taken = True
            return piece
        return None

    def front(self) -> Piece | None:
        """Return the first piece, if it is a unit that waits."""
        piece = self._pieces[-1] if self._pieces else None
        return piece if piece is not None and piece.unit is not None else None

    def answer(
        self,
        piece: Piece,
        records: Sequence[DirectoryRecord],
        rests: Sequence[Rest],
        size_bytes: int = 0,
    ) -> None:
        """Put what came of a unit in its place."""
        if piece.whole is not None:
            piece.whole.parts.extend(records)
            self._replace(piece, [])
            return
        pieces: list[Piece] = []
        ready: list[DirectoryRecord] = []
        for record in records:
            ready.append(record)
            if record.deferred:
                self._add_files(pieces, ready, piece.taken_at)
                ready = []
        if ready:
            pieces.append(Piece(records=ready, size_bytes=size_bytes, taken_at=piece.taken_at))
            self._buffered_bytes += size_bytes
        pieces.reverse()
        is_careful = piece.unit is not None and piece.unit.is_careful
        self._add_rests(pieces, rests, is_careful)
        self._replace(piece, pieces)

    def give_back(self, piece: Piece) -> None:
        """Let somebody else do a unit."""
        piece.is_taken = False

    def fail(self, piece: Piece) -> None:
        """Let a unit be done again, in small steps: whoever did it has ended."""
        assert piece.unit is not None
        piece.failures += 1
        units = (
            [piece.unit]
            if piece.unit.is_file
            else [piece.unit._replace(names=(name,), is_careful=True) for name in piece.unit.names]
        )
        self._replace(
            piece,
            [
                Piece(unit, failures=piece.failures, whole=piece.whole, taken_at=piece.taken_at)
                for unit in reversed(units)
            ],
        )

    def ready(self) -> Iterator[tuple[DirectoryRecord, list[DirectoryRecord], int]]:
        """Yield the records that may leave now, each with its parts and the time it was taken."""
        while self._pieces and self._pieces[-1].unit is None:
            piece = self._pieces.pop()
            for record in piece.records:
                yield record, [], piece.taken_at
            if piece.whole is not None:
                yield piece.whole.record, piece.whole.parts, piece.taken_at
            self._buffered_bytes -= piece.size_bytes

    def _add_files(self, pieces: list[Piece], ready: list[DirectoryRecord], taken_at: int) -> None:
        """Add the records before one that waits for files, the files, and the one itself."""
        record = ready.pop()
        if ready:
            pieces.append(Piece(records=ready, taken_at=taken_at))
        whole = _Whole(record)
        pieces.extend(
            Piece(Unit(record.path, (name,), True, None, False), whole=whole, taken_at=taken_at)
            for name in record.deferred
        )
        pieces.append(Piece(whole=whole, taken_at=taken_at))

    def _add_rests(self, pieces: list[Piece], rests: Sequence[Rest], is_careful: bool) -> None:
        """Put units for what is left behind the reversed pieces that there are."""
        pieces[:0] = [
            Piece(Unit(rest.path, tuple(rest.names), False, None, is_careful))
            for rest in reversed(rests)
            if rest.names
        ]

    def _replace(self, piece: Piece, pieces: list[Piece]) -> None:
        index = self._index(piece)
        self._pieces[index : index + 1] = pieces

    def _split(self, index: int) -> Piece:
        """Make two pieces of one with many names; return the first."""
        piece = self._pieces[index]
        assert piece.unit is not None
        names = piece.unit.names
        first = Piece(piece.unit._replace(names=names[:NAMES_PER_UNIT_MAX]))
        piece.unit = piece.unit._replace(names=names[NAMES_PER_UNIT_MAX:])
        self._pieces.insert(index + 1, first)
        return first

    def _index(self, piece: Piece) -> int:
        # From the front, near which everything happens.
        for index in range(len(self._pieces) - 1, -1, -1):
            if self._pieces[index] is piece:
                return index
        raise AssertionError("the piece is not in the order")
