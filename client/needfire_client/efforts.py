"""How much work a directory is, in examinations of an object. Pure."""

from typing import Final

from needfire_client.record import DirectoryRecord

__all__ = ["AS_BEFORE_PER_EFFORT", "effort_of"]

_EFFORT_OF_DIRECTORY: Final = 3
AS_BEFORE_PER_EFFORT: Final = 4
"""Objects that only needed a quick look."""


def effort_of(record: DirectoryRecord) -> int:
    """Return what a directory has cost, but for what was read."""
    if record.is_as_before:
        return 1 + record.count // AS_BEFORE_PER_EFFORT
    return _EFFORT_OF_DIRECTORY + record.count
