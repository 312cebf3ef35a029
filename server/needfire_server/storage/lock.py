"""Which process owns a data directory: the one that holds the lock on its file ``lock``."""

import contextlib
import fcntl
import os
from typing import Final

from needfire_protocol.errors import StorageError

__all__ = ["DirectoryLock"]

_PID_BYTES_MAX: Final = 32


class DirectoryLock:
    """Held from its making until ``release``, or until the process ends in any way.

    ``flock`` belongs to the open file: no stale lock can be left behind, and a second one in the
    same process is refused as well.
    """

    def __init__(self, directory: str) -> None:
        """Take the lock.

        Raises:
            StorageError: another process has it, or the directory is not writable.
        """
        path = os.path.join(directory, "lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(self._fd)
            os.close(self._fd)
            raise StorageError(f"{directory} is in use by another process{owner}") from None
        except OSError as error:  # A file system without locks.
            os.close(self._fd)
            raise StorageError(f"{path}: {error.strerror}") from error
        os.ftruncate(self._fd, 0)
        with contextlib.suppress(OSError):  # The number is for people; a full disk has no room.
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    @classmethod
    def of(cls, directory: str) -> "DirectoryLock":
        """Make the directory (0700) if only its last part is missing, and take its lock.

        Raises:
            StorageError: it cannot be made, another process has it, or it is not writable.
        """
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700)
        except OSError as error:
            raise StorageError(f"{directory}: {error.strerror}") from error
        return cls(directory)

    def release(self) -> None:
        """Give it up; the file stays, because removing it would race with the next owner."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _owner(fd: int) -> str:
    pid = os.pread(fd, _PID_BYTES_MAX, 0).strip()
    return f" (pid {pid.decode()})" if pid.isdigit() else ""
