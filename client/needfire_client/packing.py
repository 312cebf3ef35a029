"""The entries of a directory as a row of a baseline, and back."""

from typing import TYPE_CHECKING

from needfire_protocol.baseline import RowWriter, clamped, decode_entries
from needfire_protocol.errors import FormatError

if TYPE_CHECKING:
    from needfire_client.walk import DirectoryRecord

__all__ = ["pack_into", "pack_record", "unpack_record"]


def pack_record(record: "DirectoryRecord") -> bytes:
    """Return the record's entries as a baseline's row; equal rows mean that nothing changed."""
    if record.packed is not None:
        return record.packed
    writer = RowWriter()
    pack_into(writer, record)
    return writer.row()


def pack_into(writer: RowWriter, record: "DirectoryRecord") -> None:
    """Put the record's entries behind those that are in a row already."""
    try:
        writer.add(record.entries)
    except FormatError:
        # A file system with times beyond 64 bits: both sides of every comparison are clamped.
        record.entries = [(name, clamped(entry)) for name, entry in record.entries]
        writer.add(record.entries)


def unpack_record(record: "DirectoryRecord") -> None:
    """Give a record that came packed its entries.

    Raises:
        FormatError: the row is none.
    """
    if record.packed is not None:
        record.entries = list(decode_entries(record.packed).items())
        record.packed = None
