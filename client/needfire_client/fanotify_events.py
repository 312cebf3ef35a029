"""What a buffer of fanotify events says. Pure: bytes in, values out.

The buffer comes from the kernel, whose lengths can be believed; they are checked all the same,
for a length that is taken on trust is how a reader of binary data goes round for ever.

Layout (fanotify(7)): a fixed part of 24 bytes, then records that each say their type and length.
A directory record holds the file system's id (8 bytes), a ``struct file_handle`` (u32 length, i32
type, so many bytes), and the name of the entry with at least one NUL behind it.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from needfire_protocol.errors import FormatError

__all__ = ["ENTRY", "NEW_NAME", "OLD_NAME", "DirectoryEntry", "RawEvent", "entries", "split"]

ENTRY: Final = 2
OLD_NAME: Final = 10
NEW_NAME: Final = 12
_NAMED: Final = frozenset({ENTRY, OLD_NAME, NEW_NAME})

HANDLE_BYTES_MAX: Final = 128
"""MAX_HANDLE_SZ of the kernel."""

_VERSION: Final = 3
_EVENT: Final = struct.Struct("=IBBHQii")
_RECORD: Final = struct.Struct("=BBH")
_HANDLE: Final = struct.Struct("=Ii")
_HANDLE_AT: Final = _RECORD.size + 8
_NAME_AT: Final = _HANDLE_AT + _HANDLE.size


class RawEvent(NamedTuple):
    """One event, its records not looked into."""

    mask: int
    pid: int
    body: bytes
    """Mask, pid and records as they came: two events with equal bodies say the same."""


class DirectoryEntry(NamedTuple):
    """An entry of a directory, as a record names it."""

    kind: int
    """ENTRY, OLD_NAME or NEW_NAME."""
    directory: bytes
    """Id of the file system and file handle: what identifies the directory."""
    name: bytes
    """``.`` for the directory itself."""


def split(data: bytes) -> Iterator[RawEvent]:
    """Yield the events of a buffer.

    Raises:
        FormatError: a length or the version is not what the kernel's interface says.
    """
    at, end = 0, len(data)
    while at < end:
        if end - at < _EVENT.size:
            raise FormatError(f"an event of {end - at} bytes, expected at least {_EVENT.size}")
        length, version, _, fixed, mask, _, pid = _EVENT.unpack_from(data, at)
        if version != _VERSION or fixed != _EVENT.size:
            raise FormatError(f"fanotify version {version}, {fixed} bytes; expected {_VERSION}, 24")
        if not _EVENT.size <= length <= end - at:
            raise FormatError(f"an event says {length} bytes and has {end - at}")
        yield RawEvent(mask, pid, data[at + 8 : at + length])
        at += length


def entries(event: RawEvent) -> Iterator[DirectoryEntry]:
    """Yield the directory entries that an event names; other records are passed over.

    Raises:
        FormatError: a length is impossible.
    """
    data = event.body
    at, end = _EVENT.size - 8, len(data)
    while at < end:
        if end - at < _RECORD.size:
            raise FormatError(f"a record of {end - at} bytes")
        kind, _, length = _RECORD.unpack_from(data, at)
        if not _RECORD.size <= length <= end - at:
            raise FormatError(f"a record says {length} bytes and has {end - at}")
        if kind in _NAMED:
            yield _entry(kind, data[at : at + length])
        at += length


def _entry(kind: int, record: bytes) -> DirectoryEntry:
    if len(record) < _NAME_AT:
        raise FormatError(f"a directory record of {len(record)} bytes")
    (handle_bytes, _) = _HANDLE.unpack_from(record, _HANDLE_AT)
    name_at = _NAME_AT + handle_bytes
    if handle_bytes > HANDLE_BYTES_MAX or name_at > len(record):
        raise FormatError(f"a handle of {handle_bytes} bytes in a record of {len(record)}")
    name = record[name_at:].partition(b"\0")[0]
    if b"/" in name:
        raise FormatError("a name with a slash in it")
    return DirectoryEntry(kind, record[_RECORD.size : name_at], name or b".")
