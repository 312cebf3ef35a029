"""Unix sockets by paths of any length.

An address has room for 107 bytes, and data directories can be deeper. A directory that is open
has a short name, under /proc/self/fd.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["bind_path", "connect_path"]


def bind_path(unbound: socket.socket, path: str) -> None:
    """Bind a socket to a path.

    Raises:
        OSError: as ``bind`` does.
    """
    _with_short_path(path, unbound.bind)


def connect_path(unconnected: socket.socket, path: str) -> None:
    """Connect a socket to the one at a path.

    Raises:
        OSError: as ``connect`` does.
    """
    _with_short_path(path, unconnected.connect)


def _with_short_path(path: str, function: Callable[[str], None]) -> None:
    with _opened(os.path.dirname(os.path.abspath(path))) as fd:
        function(f"/proc/self/fd/{fd}/{os.path.basename(path)}")


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
