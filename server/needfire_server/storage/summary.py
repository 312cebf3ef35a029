"""What a summary says of a block of rows: enough to pass over the block, never enough to answer.

An index over paths would cost each report a write somewhere in the middle of a large tree, and finds
nothing below a directory in the order of arrival. So blocks of about a thousand rows are summed up
instead, as column stores do (data-skipping indexes): a search reads the summaries and then only
blocks that may hold what it looks for. Keys are 32-bit sums: two may be the same, and then a block is
read in vain. Whoever reports can bring that about, and cannot hide anything by it.
"""

import sys
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import repeat
from operator import itemgetter
from typing import Any, Final
from zlib import crc32

__all__ = [
    "SUMMARY_COLUMNS",
    "Kind",
    "Summary",
    "Wanted",
    "directory_key",
    "event_summary",
    "key",
    "may_hold",
    "pack",
    "path_keys",
    "place_keys",
    "time_spans",
    "unreadable_summary",
]

_LEVELS_MAX: Final = 16
"""Directories of a path that have keys, from the root. Who asks for one further down is led to all
below its sixteenth; without a limit, one path of 4,096 bytes could have two thousand keys."""
_ODD_US: Final = 86_400 * 1_000_000
"""A clock that is further away than a day from the server's is odd."""


class Kind(IntEnum):
    """What a key is of: where the sum over its text begins."""

    CLIENT = 1
    CODE = 2
    CLASS = 3
    CLIENT_CODE = 4
    CLIENT_CLASS = 5
    REQUEST = 6
    SUBJECT = 7
    DIRECTORY = 8
    PATH = 9


@dataclass(frozen=True, slots=True)
class Summary:
    """One block.

    Attributes:
        first, last: its rows' numbers.
        from_us, to_us: the times of its rows; None without any.
        odd_from_us, odd_to_us: the times that odd clocks told. They are apart, so that one host
            whose clock says 1970 does not make every block one of 1970 until today.
        severity: the highest.
        keys: of everything but paths.
        paths: of paths.
    """

    first: int
    last: int
    from_us: int | None
    to_us: int | None
    odd_from_us: int | None
    odd_to_us: int | None
    severity: int
    keys: bytes
    paths: bytes

    def row(self) -> tuple[Any, ...]:
        """Return it in the order of ``SUMMARY_COLUMNS``."""
        return tuple(getattr(self, name) for name in SUMMARY_COLUMNS)


SUMMARY_COLUMNS: Final = tuple(Summary.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a block must have to be read.

    Attributes:
        since_us, until_us: a time from the one on and before the other.
        severity: this one or a higher one.
        keys: for each group at least one of its keys.
        path: a key in ``Summary.paths``.
        or_below: where this key of a directory is there, ``path`` need not be.
    """

    since_us: int | None = None
    until_us: int | None = None
    severity: int | None = None
    keys: tuple[tuple[int, ...], ...] = ()
    path: int | None = None
    or_below: int | None = None

    @property
    def is_anything(self) -> bool:
        return self == Wanted()


def key(kind: Kind, *texts: str) -> int:
    """Return the key of a text, or of several together."""
    return crc32("\0".join(texts).encode(), kind)


def directory_key(directory: str) -> int:
    """Return the key of everything below a directory; the root is the empty text."""
    return _directory_keys(directory)[-1]


def _directory_keys(directory: str) -> list[int]:
    """Return the keys of a directory and those above it, the root first.

    The sum over a longer text goes on from that over its beginning.
    """
    parts = directory.encode().split(b"/", _LEVELS_MAX)
    running = crc32(parts[0], Kind.DIRECTORY)
    found = [running]
    for part in parts[1:_LEVELS_MAX]:
        running = crc32(b"/" + part, running)
        found.append(running)
    return found


def path_keys(fields: Iterable[Mapping[str, Any]]) -> tuple[set[int], bytes]:
    """Return the keys of all directories that paths lie below, and those of the paths, packed.

    Every report passes here, so as much as can be is done by what is written in C.
    """
    paths: set[Any] = {each.get("path") for each in fields}
    if not _TEXT.issuperset(map(type, paths)):
        paths = {path for path in paths if type(path) is str}
    split = map(str.rpartition, paths, repeat("/"))
    above: set[int] = set()
    for directory in set(map(itemgetter(0), split)):
        above.update(_directory_keys(directory))
    return above, pack(map(crc32, map(str.encode, paths), repeat(int(Kind.PATH))))


_TEXT: Final = frozenset({str})


def place_keys(path: str | None, below: str | None) -> Wanted:
    """Return what a block must have that holds a path, or anything at or below a directory."""
    if path is not None:
        parent = directory_key(path.rpartition("/")[0])
        return Wanted(keys=((parent,),), path=key(Kind.PATH, path))
    if below is None:
        return Wanted()
    parent = directory_key(below.rpartition("/")[0])
    return Wanted(
        keys=((parent,),), path=key(Kind.PATH, below or "/"), or_below=directory_key(below)
    )


def pack(keys: Iterable[int]) -> bytes:
    """Return keys as a summary keeps them: four bytes each, the lowest byte first, in any order."""
    packed = array("I", keys)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def may_hold(packed: bytes, wanted: Iterable[bytes]) -> bool:
    """Tell whether one of some packed keys is there; always true of what cannot be summed up.

    What stands across two keys is found as well, which happens once in a million summaries: looking
    at the places of the keys alone takes ten times as long.
    """
    return any(each in packed for each in wanted) or packed == _ANYTHING


def time_spans(
    times_us: Collection[int], arrived_us: Collection[int]
) -> tuple[int | None, int | None, int | None, int | None]:
    """Return the first four times of a summary, from what the two clocks said of its rows.

    Args:
        times_us: of each row.
        arrived_us: different times at which rows came, by the server's clock.
    """
    if not arrived_us:
        return None, None, None, None
    first, last = min(arrived_us), max(arrived_us)
    earliest, latest = min(times_us), max(times_us)
    least, most = first - _ODD_US, last + _ODD_US
    if least <= earliest and latest <= most:
        return min(first, earliest), max(last, latest), None, None
    odd = [each for each in times_us if not least <= each <= most]
    even = [each for each in times_us if least <= each <= most]
    return min([first, *even]), max([last, *even]), min(odd), max(odd)


def event_summary(rows: Sequence[tuple[Any, ...]], fields: Sequence[Mapping[str, Any]]) -> Summary:
    """Return the summary of a block of events, at least one.

    Args:
        rows: in the order of ``event_rows.EVENT_COLUMNS``, by number.
        fields: of each of them.
    """
    above, exact = path_keys(fields)
    words = set(map(_WORDS, rows))
    for _, client, event_class, code in words:
        above.update(_word_keys(client, event_class, code))
    times = list(map(_TIME, rows))
    arrived = set(map(_RECEIVED, rows))
    if None in arrived:
        arrived.discard(None)
        arrived.update(row[2] for row in rows if row[3] is None)
    if any(client is None for client, *_ in words):
        above.update(_request_keys(rows, fields))
    spans = time_spans(times, arrived)
    severity = max(map(_SEVERITY, rows))
    return Summary(rows[0][0], rows[-1][0], *spans, severity, pack(above), exact)


_WORDS: Final = itemgetter(4, 5, 6, 8)
"""Client, whom it is about, class and code."""
_TIME: Final = itemgetter(2)
_RECEIVED: Final = itemgetter(3)
_SEVERITY: Final = itemgetter(7)


def unreadable_summary(first: int, last: int) -> Summary:
    """Return the summary of a block that cannot be summed up: it is always read."""
    return Summary(first, last, 0, _TIME_MAX, None, None, _SEVERITY_MAX, _ANYTHING, _ANYTHING)


_TIME_MAX: Final = 2**63 - 1
_SEVERITY_MAX: Final = 2**31
_ANYTHING: Final = b"*"
"""No number of whole keys."""


def _word_keys(client: str | None, event_class: str, code: str) -> Iterable[int]:
    yield key(Kind.CODE, code)
    yield key(Kind.CLASS, event_class)
    if client is not None:
        yield key(Kind.CLIENT, client)
        yield key(Kind.CLIENT_CODE, client, code)
        yield key(Kind.CLIENT_CLASS, client, event_class)


def _request_keys(
    rows: Sequence[tuple[Any, ...]], fields: Sequence[Mapping[str, Any]]
) -> Iterable[int]:
    """Only the server's own events are part of a request, whatever a report says."""
    for row, each in zip(rows, fields, strict=True):
        request = each.get("request")
        if row[4] is None and type(request) is str:
            yield key(Kind.REQUEST, request)
