"""The system calls of fanotify, which Python's library lacks, and their numbers.

See fanotify_init(2), fanotify_mark(2), fanotify(7), open_by_handle_at(2).
"""

import ctypes
import os
from typing import Final

__all__ = [
    "ATTRIB",
    "CLOSE_WRITE",
    "CREATE",
    "DELETE",
    "MODIFY",
    "MOVED_FROM",
    "MOVED_TO",
    "ONDIR",
    "OPEN",
    "OPEN_EXEC",
    "OVERFLOW",
    "RENAME",
    "mark_directory",
    "mark_file_system",
    "open_group",
    "open_handle",
    "unmark_directory",
]

MODIFY: Final = 0x2
ATTRIB: Final = 0x4
CLOSE_WRITE: Final = 0x8
OPEN: Final = 0x20
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
DELETE: Final = 0x200
OPEN_EXEC: Final = 0x1000
OVERFLOW: Final = 0x4000
RENAME: Final = 0x1000_0000
ONDIR: Final = 0x4000_0000

_CLOEXEC: Final = 0x1
_NONBLOCK: Final = 0x2
_REPORT_DIRECTORY_AND_NAME: Final = 0x400 | 0x800
_MARK_ADD: Final = 0x1
_MARK_REMOVE: Final = 0x2
_MARK_ONLYDIR: Final = 0x8
_MARK_FILESYSTEM: Final = 0x100
_AT_FDCWD: Final = -100

_LIBRARY: Final = ctypes.CDLL(None, use_errno=True)


def open_group() -> int:
    """Return a descriptor of a new group that names directory and entry of each event.

    Its queue is the system's (fs.fanotify.max_queued_events): one without a bound would give
    whoever writes fast the agent's memory.

    Raises:
        OSError: the kernel is too old for names (5.9), or CAP_SYS_ADMIN is missing.
    """
    flags = _CLOEXEC | _NONBLOCK | _REPORT_DIRECTORY_AND_NAME
    group: int = _call("fanotify_init")(
        ctypes.c_uint(flags), ctypes.c_uint(os.O_RDONLY | os.O_CLOEXEC)
    )
    return _checked(group)


def mark_file_system(group: int, mask: int, path: bytes) -> None:
    """Ask for the events of ``mask`` on the whole file system that ``path`` is on.

    Raises:
        OSError: EINVAL for an event that the kernel does not know, ENODEV, EXDEV or EOPNOTSUPP
            for a file system that has no handles.
    """
    _mark(group, _MARK_ADD | _MARK_FILESYSTEM, mask, path)


def mark_directory(group: int, mask: int, path: bytes) -> None:
    """Ask for the events of ``mask`` on one directory itself.

    Raises:
        OSError: it is none, or cannot be marked.
    """
    _mark(group, _MARK_ADD | _MARK_ONLYDIR, mask, path)


def unmark_directory(group: int, mask: int, path: bytes) -> None:
    """Take back what ``mark_directory`` asked for.

    Raises:
        OSError: it was not marked.
    """
    _mark(group, _MARK_REMOVE | _MARK_ONLYDIR, mask, path)


def open_handle(mount: int, handle: bytes) -> int:
    """Return a descriptor (O_PATH) of what a file handle stands for.

    Args:
        mount: descriptor of anything in that file system; the path is told as seen from it.
        handle: a ``struct file_handle`` whose lengths were checked.

    Raises:
        OSError: ESTALE where it is gone.
    """
    buffer = ctypes.create_string_buffer(handle, len(handle))
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    found: int = _call("open_by_handle_at")(ctypes.c_int(mount), buffer, ctypes.c_int(flags))
    return _checked(found)


def _mark(group: int, flags: int, mask: int, path: bytes) -> None:
    _checked(
        _call("fanotify_mark")(
            ctypes.c_int(group),
            ctypes.c_uint(flags),
            ctypes.c_uint64(mask),
            ctypes.c_int(_AT_FDCWD),
            ctypes.c_char_p(path),
        )
    )


def _call(name: str) -> "ctypes._NamedFuncPointer":
    function = getattr(_LIBRARY, name, None)
    if function is None:
        # A C library without the wrapper has the same meaning as a kernel without the call.
        raise OSError(38, f"this C library has no {name}")
    return function  # type: ignore[no-any-return]


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
