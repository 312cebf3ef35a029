"""A directory whose path every user can walk; pytest's own belongs to whoever runs the tests alone."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["open_directory"]


@contextmanager
def open_directory() -> Iterator[Path]:
    """Make it, and take it away with everything in it."""
    path = Path(tempfile.mkdtemp(prefix="needfire-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)
