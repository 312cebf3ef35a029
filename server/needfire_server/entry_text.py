"""How does what a baseline says of an object look, attribute by attribute? Pure.

The names are those of the fields of reports (docs/events.md), as far as there are any. Users and
groups are numbers: the names are those of another host. Everything shown is printable.
"""

import os
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from needfire_protocol.baseline import INLINE_BYTES_MAX, FileEntry, State, Xattr, digest_text
from needfire_protocol.escape import escape_bytes
from needfire_protocol.event import FieldValue

__all__ = ["Attributes", "attributes_of", "differing"]

Attributes = Mapping[str, FieldValue]

_NS_PER_S: Final = 1_000_000_000


def differing(old: Attributes, new: Attributes) -> dict[str, list[FieldValue]]:
    """Return before and now of each attribute that is not the same; None where it is not there."""
    return {
        name: [old.get(name), new.get(name)]
        for name in (*old, *(each for each in new if each not in old))
        if old.get(name) != new.get(name)
    }


def attributes_of(entry: FileEntry | None, algorithm: str) -> dict[str, FieldValue]:
    """Return what is recorded, but for the last access; nothing for None.

    Two entries that differ in more than that differ in at least one of these.
    """
    if entry is None:
        return {}
    found: dict[str, FieldValue] = {
        "mode": stat.filemode(entry.mode) if stat.S_IFMT(entry.mode) else f"{entry.mode:o}",
        "imode": entry.mode,
        "iowner": entry.uid,
        "igroup": entry.gid,
        "size": entry.size,
        "chksum": digest_text(entry.digest, algorithm) or None,
        "link": None if entry.link is None else escape_bytes(entry.link),
        "mtime": _time_text(entry.mtime_ns),
        "ctime": _time_text(entry.ctime_ns),
        "btime": None if entry.birth_ns is None else _time_text(entry.birth_ns),
        "hardlinks": entry.nlink,
        "inode": entry.inode,
        "dev": f"{os.major(entry.device)},{os.minor(entry.device)}",
        "idevice": entry.rdev,
        "iattr": entry.flags,
        "project": entry.project,
        "state": State(entry.state).name.lower(),
        "reason": escape_bytes(entry.reason.encode()) or None,
        "looked": entry.looked,
    }
    found |= {f"xattr {escape_bytes(each[0])}": _value_text(each) for each in entry.xattrs}
    return {name: value for name, value in found.items() if value is not None}


def _time_text(time_ns: int) -> str:
    """Return a time in UTC to the nanosecond; one beyond the calendar as ``@seconds``."""
    seconds, nanoseconds = divmod(time_ns, _NS_PER_S)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return f"@{seconds}.{nanoseconds:09d}"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}"


def _value_text(found: Xattr) -> str:
    """Return a value: text in quotes, other bytes in hex, a large one as its digest."""
    name, size, data = found
    if size > INLINE_BYTES_MAX or name in (b"", b"trusted."):
        return f"sha256:{data.hex()} ({size})"
    is_text = data.isascii() and data.decode("ascii").isprintable()
    text = f'"{escape_bytes(data)}"' if is_text else f"0x{data.hex()}"
    # Only a baseline that no agent wrote says another size.
    return text if size == len(data) else f"{text} ({size})"
