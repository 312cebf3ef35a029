"""A small file system in memory that a test fills and empties; only root can mount it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["SmallDisk"]


class SmallDisk:
    """A file system that a test fills and empties."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._filler = directory / "filler"

    @classmethod
    @contextmanager
    def mounted(cls, directory: Path, size: str) -> "Iterator[SmallDisk]":
        """Mount one of a size (16m) over a directory, for as long as the block lasts."""
        options = f"size={size},mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(directory)], check=True)
        try:
            yield cls(directory)
        finally:
            subprocess.run(["umount", "-l", str(directory)], check=True)

    def fill(self) -> None:
        """Write until not one more byte has room."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (65_536, 4_096, 1):
                try:
                    while file.write(b"x" * size):
                        pass
                except OSError as error:
                    assert error.strerror == "No space left on device"  # noqa: PT017

    def empty(self) -> None:
        self._filler.unlink()
