"""How a file takes the place of another, so that a power cut leaves the one or the other."""

import os
from pathlib import Path

__all__ = ["put_in_place", "sync"]


def put_in_place(arriving: Path, place: Path) -> None:
    """Rename a file whose contents are on disk already; on return the rename is on disk too.

    Raises:
        OSError: as the system says it; what stood there before still does.
    """
    os.replace(arriving, place)
    sync(place.parent)


def sync(path: Path) -> None:
    """Bring a file's contents, or a directory's entries, to the disk.

    Raises:
        OSError: as the system says it.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
