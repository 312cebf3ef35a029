"""What was found in one directory, as far as the rules cover it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from needfire_client.policy import Place
from needfire_protocol.baseline import FileEntry, TimelessEntry, without_access_time
from needfire_protocol.plain_classes import dataclass
from needfire_protocol.severity import Severity

if TYPE_CHECKING:
    # The processes of a scan make no events, and need not load the catalogue.
    from needfire_protocol.event import FieldValue

__all__ = ["DirectoryRecord", "Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is no difference but worth an event."""

    code: str
    path: bytes
    severity: Severity | None
    """None: the catalogue's."""
    fields: "Mapping[str, FieldValue]"
    """Without the path."""


@dataclass(slots=True)
class DirectoryRecord:
    """What is in one directory, as far as the rules cover it."""

    path: bytes
    _place: Place | Callable[[bytes], Place]
    rows: list[TimelessEntry]
    """Its objects, sorted by name, but for their access times."""
    atimes_ns: list[int]
    """Of the objects in ``rows``, in the same order."""
    scope: frozenset[bytes] | None
    """Names that the record speaks of, present or absent; None: all names."""
    is_readable: bool
    """False: nothing is known of what is in it, nor below it."""
    prefixes: dict[bytes, bytes]
    """Of files that may grow: digest of as much as there was before."""
    findings: list[Finding]
    deferred: list[bytes]
    """Names of files whose contents somebody else is to read."""
    packed: bytes | None
    """The objects as a row of a baseline, where another process examined them, or they are many;
    then ``rows`` is empty."""
    packed_count: int
    is_whole: bool
    """Every object could be examined."""
    is_as_before: bool
    """The entries are those of the baseline's row: a quick look has found no difference. Where
    another process looked, ``packed`` is empty until somebody needs the row and fetches it."""

    def __init__(
        self,
        path: bytes,
        place: Place | Callable[[bytes], Place],
        *,
        scope: frozenset[bytes] | None = None,
        is_readable: bool = True,
        packed: bytes | None = None,
        packed_count: int = 0,
        is_whole: bool = True,
        is_as_before: bool = False,
    ) -> None:
        self.path = path
        self._place = place
        self.rows = []
        self.atimes_ns = []
        self.scope = scope
        self.is_readable = is_readable
        self.prefixes = {}
        self.findings = []
        self.deferred = []
        self.packed = packed
        self.packed_count = packed_count
        self.is_whole = is_whole and is_readable
        self.is_as_before = is_as_before

    @property
    def place(self) -> Place:
        """What the rules say of it. Nobody asks where nothing has changed, so it may be looked up
        only then."""
        if not isinstance(self._place, Place):
            self._place = self._place(self.path)
        return self._place

    @property
    def count(self) -> int:
        """How many objects it has."""
        return len(self.rows) if self.packed is None else self.packed_count

    def add(self, name: bytes, entry: FileEntry) -> None:
        """Take in an object that comes behind all others."""
        self.rows.append((name, without_access_time(entry)))
        self.atimes_ns.append(entry.atime_ns)
        self.is_whole = self.is_whole and entry.is_known

    def fold(self, packed: bytes, count: int) -> None:
        """Hold a row of so many objects in the place of them."""
        self.packed, self.packed_count, self.rows, self.atimes_ns = packed, count, [], []
