r"""How a baseline is laid out: keys, entries, schema and digest. Files are opened elsewhere.

A baseline is an SQLite file with two tables. ``directories`` holds one row for each directory; an
object is an entry of its parent's row, so that "nothing changed here" is one comparison of bytes.
``meta`` holds eight values about the whole.

    key      the directory's path with every "/" written as NUL: byte order is then the order of
             a depth-first walk with sorted names ("/a" < "/a/x" < "/a-b"). The root directory
             has no parent; its own entry stands in the row with the empty key, named "/".
    entries  length | [[name, [mode, uid, … xattrs]], …] | [atime, …]: two values in MessagePack,
             sorted by name, and before them the size of the first in 4 bytes, big-endian. Access
             times stand apart because whoever reads a file moves its own, and few policies
             compare it. The same objects always give the same bytes. Up to format 2 a row was
             one value, with the access time between the other attributes (MessagePack never
             begins an array like a length does), and format 1 ended an object at its reason;
             such rows are read as objects of which the later attributes are not known.
    digest   SHA-256 over len(key) | key | len(entries) | entries of every row in key order, the
             lengths as 8 bytes, big-endian. It finds damage, not forgery: whoever can write the
             file can write the digest too.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum, IntFlag
from itertools import zip_longest
from typing import Any, Final, NamedTuple

from needfire_protocol.codec import (
    decode,
    decode_array,
    encode,
    encode_array_header,
)
from needfire_protocol.errors import FormatError
from needfire_protocol.limits import DecodingLimits
from needfire_protocol.plain_classes import dataclass, field_types

__all__ = [
    "APPLICATION_ID",
    "BASELINE_FORMAT",
    "DEFENSIVE_PRAGMAS",
    "DIGEST_BYTES",
    "ENTRIES_BYTES_MAX",
    "ENTRIES_PER_DIRECTORY_MAX",
    "INLINE_BYTES_MAX",
    "SCHEMA",
    "TIMELESS_FIELDS",
    "XATTRS_MAX",
    "BaselineMeta",
    "ContentDigest",
    "Entries",
    "FileEntry",
    "Looked",
    "RowWriter",
    "State",
    "TimelessEntry",
    "Xattr",
    "check_key",
    "check_schema",
    "clamped",
    "decode_entries",
    "differ_in_access_times_only",
    "digest_text",
    "encode_entries",
    "entries_to_compare",
    "entry_of",
    "iterate_entries",
    "iterate_rows",
    "key_of",
    "parse_meta",
    "path_of",
    "subtree_end",
    "with_access_time",
    "without_access_time",
]

BASELINE_FORMAT: Final = 3
"""Raised with every change of the layout."""

_FORMATS_READ: Final = (1, 2, BASELINE_FORMAT)

APPLICATION_ID: Final = 0x4E664231
"""``NfB1`` in SQLite's header, so that file(1) and the reader can tell a baseline at once."""

ENTRIES_PER_DIRECTORY_MAX: Final = 1_000_000
"""Objects of one directory. A scan keeps one directory in memory, about 600 bytes an object."""

ENTRIES_BYTES_MAX: Final = 256 * 1024 * 1024
"""Bytes of one row: a million objects at the usual 130 bytes, with room for long names."""

DIGEST_BYTES: Final[Mapping[str, int]] = {
    "sha256": 32,
    "sha224": 28,
    "sha384": 48,
    "sha512": 64,
    "sha3_224": 28,
    "sha3_256": 32,
    "sha3_384": 48,
    "sha3_512": 64,
    "blake2b": 64,
    "blake2s": 32,
    "sha1": 20,
    "md5": 16,
    "blake3": 32,
}
"""Bytes of a digest, for each algorithm that DigestAlgo takes; the names are hashlib's, except for
``blake3``, which is a package of its own and need not be there."""

XATTRS_MAX: Final = 64
"""Extended attributes of one object that are kept one by one; others are one digest together."""

INLINE_BYTES_MAX: Final = 256
"""Bytes of a value that is kept as it is; of a larger one the SHA-256 is kept. An ACL of 31
entries fits in."""

_NAME_BYTES_MAX: Final = 4_096
"""Linux allows 255 in a name; some network file systems give more."""
_LINK_BYTES_MAX: Final = 65_536
_REASON_TEXT_MAX: Final = 256
_XATTR_NAME_BYTES_MAX: Final = 255
_KEY_BYTES_MAX: Final = 1024 * 1024

SCHEMA: Final = (
    "CREATE TABLE directories(key BLOB PRIMARY KEY, entries BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID",
)
"""The statements that make a baseline, spelled exactly as SQLite keeps them."""

DEFENSIVE_PRAGMAS: Final = (
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA mmap_size = 0",
    "PRAGMA query_only = ON",
)
"""For a file that somebody else may have made (sqlite.org/security.html)."""

_DECODING: Final = DecodingLimits(
    size_bytes_max=ENTRIES_BYTES_MAX,
    text_bytes_max=4 * _REASON_TEXT_MAX,
    binary_bytes_max=_LINK_BYTES_MAX,
    array_items_max=ENTRIES_PER_DIRECTORY_MAX,
    map_items_max=0,
    depth_max=5,
)

_INT_LEAST: Final = -(2**63)
_INT_MOST: Final = 2**64 - 1


class State(IntEnum):
    """How well an object is known."""

    OK = 0
    UNSTABLE = 1
    """It changed during every attempt to read it: attributes, but no digest."""
    UNREADABLE = 2
    """Its contents could not be read, or (mode 0) not even its attributes."""
    IMPORTED = 3
    """Samhain recorded it: times in whole seconds, the low 32 bits of the inode number, the target
    of a relative link with the link's directory before it, perhaps no digest, and nothing of what
    Samhain does not look at. Only in baselines; the next update puts a full entry in its place."""


class Looked(IntFlag):
    """Which extended attributes of an object are known, present or absent."""

    NOTHING = 0
    ACL = 1
    """``system.*acl*``."""
    LABEL = 2
    """``security.selinux``."""
    OTHER = 4
    """Everything else but ``trusted.*``: capabilities, IMA, ``user.*``, …"""
    TRUSTED = 8
    """``trusted.*``, which only a process with CAP_SYS_ADMIN gets to see."""
    EVERYTHING = 15


Xattr = tuple[bytes, int, bytes]
"""Name, size of the value, and the value, or its SHA-256 where it has more than INLINE_BYTES_MAX.

With an empty name (or ``trusted.``) it stands for those beyond the limits: how many there are, and
a SHA-256 over them."""


class FileEntry(NamedTuple):
    """What one object of a file system is. A tuple, because a scan makes one for each object."""

    mode: int
    """Type and permissions (st_mode); 0 where not even those are known."""
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    atime_ns: int
    inode: int
    device: int
    nlink: int
    rdev: int
    """Of device nodes; 0 for everything else."""
    link: bytes | None
    """Target of a symbolic link, as it stands in the link."""
    digest: bytes | None
    """Of a regular file's contents, raw; None where its policy does not compare contents."""
    state: int
    """A ``State``; a plain int, as it comes from the file."""
    reason: str
    """Why it is not OK; empty otherwise."""
    birth_ns: int | None = None
    """When the inode was made; None where the file system does not say."""
    flags: int | None = None
    """Inode flags (chattr), those alone that do not change by themselves; None where there are
    none."""
    project: int | None = None
    """Project id for quotas; None where there is none."""
    looked: int = 0
    """A ``Looked``: which of the extended attributes ``xattrs`` speaks of."""
    xattrs: tuple[Xattr, ...] = ()
    """Sorted by name."""

    @property
    def is_known(self) -> bool:
        """False where only the name is known, because the object could not even be examined."""
        return self.mode != 0


Entries = Mapping[bytes, FileEntry]
"""Entries of one directory by name."""

TimelessEntry = tuple[bytes, tuple[Any, ...]]
"""A name, and the attributes of its ``FileEntry`` but for the access time, as a row has them."""


def without_access_time(entry: FileEntry) -> tuple[Any, ...]:
    """Return the attributes of a ``TimelessEntry``."""
    return entry[:_ATIME] + entry[_ATIME + 1 :]


def with_access_time(attributes: tuple[Any, ...], atime_ns: int) -> FileEntry:
    """Return the entry that attributes of a ``TimelessEntry`` and an access time are of."""
    return FileEntry._make((*attributes[:_ATIME], atime_ns, *attributes[_ATIME:]))


_ATIME: Final = FileEntry._fields.index("atime_ns")
TIMELESS_FIELDS: Final = FileEntry._fields[:_ATIME] + FileEntry._fields[_ATIME + 1 :]
"""Names of the attributes of a ``TimelessEntry``."""


# ---- keys ----------------------------------------------------------------------------------------


def key_of(path: bytes) -> bytes:
    """Return the key of an absolute, normalised path; b"" (above the root) has the empty key."""
    return path.replace(b"/", b"\0")


def path_of(key: bytes) -> bytes:
    """Return the path of a key."""
    return key.replace(b"\0", b"/")


def subtree_end(key: bytes) -> bytes:
    """Return the least key that is greater than every key below the directory ``key``."""
    return b"\1" if key in (b"", b"\0") else key + b"\1"


def check_key(key: object) -> bytes:
    """Return key if it can be one.

    Raises:
        FormatError: it is no key of an absolute and normalised path.
    """
    if type(key) is not bytes or len(key) > _KEY_BYTES_MAX:
        raise FormatError("a key is not a bounded byte string")
    if key in (b"", b"\0"):
        return key
    # Looked for and not split: this is asked of every row, mostly of thousands. Few names begin
    # with a dot, and only of those it is asked whether they are "." or "..".
    if (
        key[0] != 0
        or key[-1] == 0
        or b"/" in key
        or b"\0\0" in key
        or (b"\0." in key and _has_dots_alone(key + b"\0"))
    ):
        raise FormatError(f"{key[:64]!r} is not the key of an absolute, normalised path")
    return key


def _has_dots_alone(ended: bytes) -> bool:
    return b"\0.\0" in ended or b"\0..\0" in ended


# ---- entries -------------------------------------------------------------------------------------


def encode_entries(entries: Sequence[tuple[bytes, FileEntry]]) -> bytes:
    """Return the row of a directory; the entries must be sorted by name.

    Raises:
        FormatError: a number has more than 64 bits; see ``clamped``.
    """
    writer = RowWriter()
    for first in range(0, len(entries), _ENTRIES_AT_ONCE):
        writer.add(entries[first : first + _ENTRIES_AT_ONCE])
    return writer.row()


_ENTRIES_AT_ONCE: Final = 4_096


class RowWriter:
    """Makes the row of a directory that is too large to be held entry by entry."""

    __slots__ = ("_rows", "_times", "count")

    def __init__(self) -> None:
        self._rows = bytearray()
        self._times = bytearray()
        self.count = 0
        """Entries so far."""

    @property
    def size_bytes(self) -> int:
        """Of the row so far, but for a few bytes."""
        return len(self._rows) + len(self._times)

    def add(self, entries: Sequence[tuple[bytes, FileEntry]]) -> None:
        """Take in the next entries, sorted by name, and behind all that were taken before.

        Raises:
            FormatError: a number has more than 64 bits; then none of them was taken.
        """
        self.add_timeless(
            [(name, without_access_time(entry)) for name, entry in entries],
            [entry.atime_ns for _, entry in entries],
        )

    def add_timeless(self, entries: Sequence[TimelessEntry], atimes_ns: Sequence[int]) -> None:
        """Take in entries as ``add`` does, from whoever holds their access times apart."""
        rows, times = encode(entries), encode(atimes_ns)
        begin = len(encode_array_header(len(entries)))
        self._rows += memoryview(rows)[begin:]
        self._times += memoryview(times)[begin:]
        self.count += len(entries)

    def row(self) -> bytes:
        """Return the row."""
        header = encode_array_header(self.count)
        length = (len(header) + len(self._rows)).to_bytes(_LENGTH_BYTES, "big")
        return b"".join((length, header, self._rows, header, self._times))


def decode_entries(data: bytes) -> dict[bytes, FileEntry]:
    """Return the entries of a directory's row by name, every part checked.

    Raises:
        FormatError: the bytes are not what ``encode_entries`` makes.
    """
    rows = _decoded_rows(data)
    if type(rows) is not list:
        raise FormatError("the entries of a directory are not a list")
    entries: dict[bytes, FileEntry] = {}
    last = b""
    for row in rows:
        if type(row) is not list or len(row) != 2:
            raise FormatError("an entry is not a name and its attributes")
        name = _name(row[0], last)
        entries[name] = _entry(row[1])
        last = name
    return entries


def iterate_entries(data: bytes) -> Iterator[tuple[bytes, FileEntry]]:
    """Yield what ``decode_entries`` returns, one entry after the other, as for a large directory.

    Raises:
        FormatError: as ``decode_entries``, perhaps after some of the entries.
    """
    for name, attributes, time in iterate_rows(data):
        yield name, entry_of(attributes, time)


def iterate_rows(data: bytes) -> Iterator[tuple[bytes, list[Any], Any]]:
    """Yield the names of a row, each with its attributes and, apart from them, its access time.

    Those are any plain values, to be held against others in a tenth of the time that it takes to
    look at each of them; ``entry_of`` does that, and alone makes something of them.

    Raises:
        FormatError: the names are not sorted, or this is no row at all.
    """
    last = b""
    for row, time in _iterated_rows(data):
        if type(row) is not list or len(row) != 2 or type(row[1]) is not list:
            raise FormatError("an entry is not a name and its attributes")
        last = _name(row[0], last)
        yield last, row[1], time


def entry_of(attributes: list[Any], time: object) -> FileEntry:
    """Return the entry that a name of ``iterate_rows`` has, every part checked.

    Raises:
        FormatError: there is none.
    """
    return _entry([*attributes[:_ATIME], time, *attributes[_ATIME:]])


def _iterated_rows(data: bytes) -> Iterator[tuple[Any, Any]]:
    if data[:1] >= _ARRAY:
        for row in decode_array(data, 0, len(data), limits=_DECODING, is_only_compared=True):
            time = None
            if type(row) is list and len(row) == 2 and type(row[1]) is list:
                time = next(iter(row[1][_ATIME:]), None)
                del row[1][_ATIME : _ATIME + 1]
            yield row, time
        return
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
    rows = decode_array(data, _LENGTH_BYTES, end, limits=_DECODING, is_only_compared=True)
    times = decode_array(data, end, len(data), limits=_DECODING, is_only_compared=True)
    for row, time in zip_longest(rows, times, fillvalue=_NOTHING):
        if row is _NOTHING or time is _NOTHING:
            raise FormatError("a directory has not one access time for each of its entries")
        yield row, time


_NOTHING: Final = object()


def entries_to_compare(data: bytes) -> Any:
    """Return the names and attributes of a row without access times, to be held against others.

    For equality alone: nothing but bounds is checked, so whoever takes them apart has to be ready
    for any plain value.

    Raises:
        FormatError: the bytes are no plain value within the limits of a row.
    """
    if data[:1] < _ARRAY:
        end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
        rows = data[_LENGTH_BYTES:end]
        return decode(rows, limits=_DECODING, is_only_compared=True, as_tuples=True)
    rows = decode(data, limits=_DECODING, is_only_compared=True)
    for row in rows if type(rows) is list else ():
        if type(row) is list and len(row) == 2 and type(row[1]) is list:
            del row[1][_ATIME : _ATIME + 1]
    return rows


def differ_in_access_times_only(old: bytes, new: bytes) -> bool:
    """Return whether two rows are the same but for access times; False of an old format's row."""
    end = _LENGTH_BYTES + int.from_bytes(new[:_LENGTH_BYTES], "big")
    # An old format's row begins with what would be a length beyond any row's end.
    return end <= len(new) and old[:end] == new[:end]


def _decoded_rows(data: bytes) -> Any:
    """Return the rows with the access times in their places."""
    if data[:1] >= _ARRAY:
        return decode(data, limits=_DECODING)
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
    rows = decode(data[_LENGTH_BYTES:end], limits=_DECODING)
    times = decode(data[end:], limits=_DECODING)
    if type(rows) is not list or type(times) is not list or len(rows) != len(times):
        raise FormatError("a directory has not one access time for each of its entries")
    for row, time in zip(rows, times, strict=True):
        # Other rows are refused by whoever looks at them next.
        if type(row) is list and len(row) == 2 and type(row[1]) is list:
            row[1].insert(_ATIME, time)
    return rows


_LENGTH_BYTES: Final = 4
_ARRAY: Final = b"\x90"
"""Least first byte of an array in MessagePack; a length below 2 GiB begins with less."""


def digest_text(digest: bytes | None, algorithm: str) -> str:
    """Return a digest as events show it, ``algorithm:hex``; empty for None."""
    return "" if digest is None else f"{algorithm}:{digest.hex()}"


def clamped(entry: FileEntry) -> FileEntry:
    """Return the entry with every number in 64 bits: some file systems keep longer times."""
    return FileEntry._make(
        min(max(value, _INT_LEAST), _INT_MOST) if type(value) is int else value for value in entry
    )


def _name(name: object, last: bytes) -> bytes:
    if type(name) is not bytes or not 0 < len(name) <= _NAME_BYTES_MAX:
        raise FormatError("a name is not a bounded byte string")
    if name <= last:
        raise FormatError("the entries of a directory are not sorted by name")
    if b"\0" in name or name in (b".", b"..") or (b"/" in name and name != b"/"):
        raise FormatError(f"{name[:64]!r} cannot be a name in a directory")
    return name


def _entry(values: object) -> FileEntry:
    if type(values) is not list or len(values) not in _ENTRY_LENGTHS:
        raise FormatError(f"an entry has not the {len(FileEntry._fields)} attributes of an object")
    entry = FileEntry(*values)
    # bool is a subclass of int, and would pass isinstance.
    if any(type(value) is not int for value in values[:11]):
        raise FormatError("an attribute of an entry is not a number")
    if max(entry.mode, entry.uid, entry.gid) >= 2**32 or min(values[:4] + values[7:11]) < 0:
        raise FormatError("an attribute of an entry is out of its range")
    if not (_is_bytes_or_none(entry.link) and _is_bytes_or_none(entry.digest)):
        raise FormatError("a link's target or a digest of an entry is not a byte string")
    if type(entry.state) is not int or entry.state not in _STATES:
        raise FormatError("the state of an entry is none of the known ones")
    if type(entry.reason) is not str or len(entry.reason) > _REASON_TEXT_MAX:
        raise FormatError("the reason of an entry is not a short text")
    return entry if len(values) == _ENTRY_LENGTHS[0] else _with_inode_checked(entry)


def _with_inode_checked(entry: FileEntry) -> FileEntry:
    if not _is_int_or_none(entry.birth_ns):
        raise FormatError("the time of birth of an entry is not a number")
    for number in (entry.flags, entry.project):
        if not _is_int_or_none(number) or not 0 <= (number or 0) < 2**32:
            raise FormatError("the flags or the project of an entry are not 32 bits")
    if type(entry.looked) is not int or not 0 <= entry.looked <= Looked.EVERYTHING:
        raise FormatError("an entry does not say what is known of its extended attributes")
    found: object = entry.xattrs
    if type(found) is not list or len(found) > XATTRS_MAX:
        raise FormatError(f"the extended attributes of an entry are not at most {XATTRS_MAX}")
    if not found:
        return entry._replace(xattrs=())
    return entry._replace(xattrs=_xattrs(found))


def _xattrs(rows: list[object]) -> tuple[Xattr, ...]:
    found: list[Xattr] = []
    for row in rows:
        if type(row) is not list or [type(part) for part in row] != [bytes, int, bytes]:
            raise FormatError("an extended attribute is not a name, a size and a value")
        name, size, data = row
        if len(name) > _XATTR_NAME_BYTES_MAX or (found and name <= found[-1][0]):
            raise FormatError("the extended attributes are not sorted by name")
        if size < 0 or len(data) > INLINE_BYTES_MAX:
            raise FormatError("the value of an extended attribute is out of its bounds")
        found.append((name, size, data))
    return tuple(found)


_ENTRY_LENGTHS: Final = (FileEntry._fields.index("reason") + 1, len(FileEntry._fields))
"""Of format 1, and of the present one."""

_STATES: Final = frozenset(int(state) for state in State)


def _is_int_or_none(value: object) -> bool:
    return value is None or type(value) is int


def _is_bytes_or_none(value: object) -> bool:
    return value is None or type(value) is bytes


# ---- the whole -----------------------------------------------------------------------------------

_JOINED_BYTES_MAX: Final = 64 * 1024
"""Of a row that is copied once, to be fed to a digest together with what stands before it."""


class ContentDigest:
    """The digest over all rows; feed them in key order."""

    __slots__ = ("_hash",)

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, key: bytes, entries: bytes) -> None:
        """Take in the next row."""
        lengths = len(key).to_bytes(8, "big"), len(entries).to_bytes(8, "big")
        # One call for nearly every row: each takes and gives back the hash's lock.
        if len(entries) <= _JOINED_BYTES_MAX:
            self._hash.update(b"".join((lengths[0], key, lengths[1], entries)))
            return
        self._hash.update(b"".join((lengths[0], key, lengths[1])))
        self._hash.update(entries)

    def hexdigest(self) -> str:
        """Return the digest of the rows so far: 64 hexadecimal digits."""
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineMeta:
    """What a baseline says about itself."""

    format: int
    created_us: int
    """When it was finished; microseconds since 1970."""
    host: str
    """Name of the host that it was made on."""
    version: str
    """Version of the program that made it."""
    algorithm: str
    """Of every digest in it."""
    configuration_sha256: str
    """Of the configuration that it was made with; empty where it was not known."""
    entries: int
    """Objects in all rows together."""
    content_sha256: str

    def rows(self) -> list[tuple[str, str | int]]:
        """Return the rows of the table ``meta``."""
        return [(name, getattr(self, name)) for name in field_types(BaselineMeta)]


def parse_meta(rows: Iterable[Sequence[object]]) -> BaselineMeta:
    """Return what the rows of ``meta`` (name and value, text as bytes or str) say.

    Raises:
        FormatError: something is missing, is of another type, or is of another format.
    """
    found: dict[str, Any] = {}
    expected = field_types(BaselineMeta)
    for name, value in rows:
        text = _as_text(name)
        if text not in expected or text in found:
            raise FormatError(f"the baseline's table meta has an unexpected row {text[:32]!r}")
        found[text] = value if expected[text] is int else _as_text(value)
    missing = expected.keys() - found.keys()
    if missing:
        raise FormatError(f"the baseline does not say its {', '.join(sorted(missing))}")
    if type(found["format"]) is not int or found["format"] not in _FORMATS_READ:
        raise FormatError(
            f"the baseline has format {found['format']!r}; this version reads "
            f"{', '.join(map(str, _FORMATS_READ))}"
        )
    return _checked_meta(BaselineMeta(**found))


def check_schema(rows: Iterable[Sequence[object]]) -> None:
    """Check the rows (type, name, sql) of ``sqlite_schema``: the two tables and nothing else.

    A trigger, a view, an index on an expression or a virtual table would run with our rights.

    Raises:
        FormatError: the schema is another.
    """
    found = sorted((_as_text(kind), _as_text(name), _as_text(sql)) for kind, name, sql in rows)
    expected = [
        ("table", "directories", SCHEMA[0]),
        ("table", "meta", SCHEMA[1]),
    ]
    if found != expected:
        raise FormatError("the file is an SQLite database, but not a baseline: its tables differ")


def _checked_meta(meta: BaselineMeta) -> BaselineMeta:
    if any(type(number) is not int or number < 0 for number in (meta.created_us, meta.entries)):
        raise FormatError("a number of the baseline's table meta is not a count")
    if meta.algorithm not in DIGEST_BYTES:
        raise FormatError(
            f"the baseline has digests of {meta.algorithm[:32]!r}; "
            f"known are {', '.join(DIGEST_BYTES)}"
        )
    if re.fullmatch(r"[0-9a-f]{64}", meta.content_sha256, re.ASCII) is None:
        raise FormatError("the baseline's content_sha256 is not a SHA-256 digest")
    return meta


def _as_text(value: object) -> str:
    """Return a short text that SQLite gave, as str or (where the reader asked for it) as bytes."""
    if type(value) is bytes:
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise FormatError("a text in the baseline is not UTF-8") from None
    if type(value) is not str or len(value) > 1024:
        raise FormatError("a value in the baseline is not a short text")
    return value
