"""What is in a directory as a row of a baseline, and entry by entry."""

from needfire_client.record import DirectoryRecord
from needfire_protocol.baseline import (
    Entries,
    RowWriter,
    clamped,
    decode_entries,
    with_access_time,
)
from needfire_protocol.errors import FormatError

__all__ = ["entries_of", "pack_into", "pack_record"]


def pack_record(record: DirectoryRecord) -> bytes:
    """Return the record's entries as a baseline's row; equal rows mean that nothing changed."""
    if record.packed is not None:
        return record.packed
    writer = RowWriter()
    pack_into(writer, record)
    return writer.row()


def pack_into(writer: RowWriter, record: DirectoryRecord) -> None:
    """Put the record's entries behind those that are in a row already."""
    try:
        writer.add_timeless(record.rows, record.atimes_ns)
    except FormatError:
        # A file system with times beyond 64 bits: both sides of every comparison are clamped.
        writer.add([(name, clamped(entry)) for name, entry in _unpacked(record).items()])


def entries_of(record: DirectoryRecord) -> Entries:
    """Return the record's entries by name, as a row of the baseline would hold them.

    Raises:
        FormatError: it came packed, and the row is none.
    """
    if record.packed is not None:
        return decode_entries(record.packed)
    return {name: clamped(entry) for name, entry in _unpacked(record).items()}


def _unpacked(record: DirectoryRecord) -> Entries:
    return {
        name: with_access_time(attributes, atime_ns)
        for (name, attributes), atime_ns in zip(record.rows, record.atimes_ns, strict=True)
    }
