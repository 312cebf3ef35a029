"""Where the details of an error go that nobody foresaw: a file for whoever mends it."""

import contextlib
import os
import time
from pathlib import Path
from typing import Final

__all__ = ["innermost", "record_bug", "where_of"]

_LOG_BYTES_MAX: Final = 1_048_576
"""Bytes after which the file begins anew: an error that repeats must not fill the disk."""


def innermost(error: BaseException) -> BaseException:
    """Return the first error inside of groups of errors, or the error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def record_bug(path: Path, error: BaseException) -> bool:
    """Append the whole story of an error to a file for its owner; False if that fails too."""
    import traceback

    text = "".join(traceback.format_exception(error))
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(path, flags, 0o600)
        try:
            if os.fstat(handle).st_size > _LOG_BYTES_MAX:
                os.ftruncate(handle, 0)
            os.write(handle, f"{stamp} {text}\n".encode("utf-8", "backslashreplace"))
        finally:
            os.close(handle)
        return True
    return False


def where_of(error: BaseException) -> str:
    """Return the place in our code where the error came up, as ``module:line``."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "needfire" in frame.filename] or frames
    return f"{Path(ours[-1].filename).stem}:{ours[-1].lineno}" if ours else "unknown"
