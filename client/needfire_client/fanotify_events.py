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

__all__ = [
    "ENTRY",
    "NEW_NAME",
    "OLD_NAME",
    "DirectoryEntry",
    "RawEvent",
    "entries",
    "merged",
    "split",
]

ENTRY: Final = 2
OLD_NAME: Final = 10
NEW_NAME: Final = 12
_NAMED: Final = frozenset({ENTRY, OLD_NAME, NEW_NAME})

HANDLE_BYTES_MAX: Final = 128
"""MAX_HANDLE_SZ of the kernel."""

_VERSION: Final = 3
_EVENT: Final = struct.Struct("=IBBHQii")
_PID: Final = struct.Struct("=i")
_RECORD: Final = struct.Struct("=BxH")
_HANDLE_BYTES: Final = struct.Struct("=I")
_HANDLE_AT: Final = _RECORD.size + 8
_NAME_AT: Final = _HANDLE_AT + 8
_PID_AT: Final = _EVENT.size - 4


class RawEvent(NamedTuple):
    """One event, its records not looked into."""

    mask: int
    pid: int
    body: bytes
    """Process and records as they came: two events with equal bodies speak of the same."""


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
        yield RawEvent(mask, pid, data[at + _PID_AT : at + length])
        at += length


def merged(data: bytes, apart: int) -> tuple[list[RawEvent], int]:
    """Return the events of a buffer, those of one process on one entry as one, and their number.

    As the kernel does it with events that wait: the first stands for all, and its mask says
    everything that happened. An event with one of ``apart`` in its mask is never merged, and
    nothing is merged across it: what it says holds from there on.

    Raises:
        FormatError: see ``split``.
    """
    found: list[RawEvent] = []
    masks: dict[bytes, int] = {}
    number = 0
    for mask, pid, body in split(data):
        number += 1
        if mask & apart:
            found += _run(masks)
            found.append(RawEvent(mask, pid, body))
            masks = {}
        else:
            masks[body] = masks.get(body, 0) | mask
    found += _run(masks)
    return found, number


def _run(masks: dict[bytes, int]) -> list[RawEvent]:
    return [RawEvent(mask, _PID.unpack_from(body)[0], body) for body, mask in masks.items()]


def entries(event: RawEvent) -> Iterator[DirectoryEntry]:
    """Yield the directory entries that an event names; other records are passed over.

    Raises:
        FormatError: a length is impossible.
    """
    data = event.body
    at, end = _PID.size, len(data)
    while at < end:
        if end - at < _RECORD.size:
            raise FormatError(f"a record of {end - at} bytes")
        kind, length = _RECORD.unpack_from(data, at)
        if not _RECORD.size <= length <= end - at:
            raise FormatError(f"a record says {length} bytes and has {end - at}")
        if kind in _NAMED:
            yield _entry(kind, data, at, at + length)
        at += length


def _entry(kind: int, data: bytes, at: int, end: int) -> DirectoryEntry:
    if end - at < _NAME_AT:
        raise FormatError(f"a directory record of {end - at} bytes")
    (handle_bytes,) = _HANDLE_BYTES.unpack_from(data, at + _HANDLE_AT)
    name_at = at + _NAME_AT + handle_bytes
    if handle_bytes > HANDLE_BYTES_MAX or name_at > end:
        raise FormatError(f"a handle of {handle_bytes} bytes in a record of {end - at}")
    name_end = data.find(b"\0", name_at, end)
    name = data[name_at : name_end if name_end >= 0 else end]
    if b"/" in name:
        raise FormatError("a name with a slash in it")
    return DirectoryEntry(kind, data[at + _RECORD.size : name_at], name or b".")
