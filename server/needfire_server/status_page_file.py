"""How the status page gets to the disk: whole or not at all, and empty once the server has ended."""

import contextlib
import os
import stat
from typing import Final

from needfire_server.status_page import DEFAULT_TEMPLATES, Templates

__all__ = ["load_templates", "write_page"]

PAGE_MODE: Final = 0o640
"""Who runs a web server there gives it the group: the page names every host that is watched."""

TEMPLATE_BYTES_MAX: Final = 65_536


def write_page(path: str, text: str) -> None:
    """Put the page in place of the one before; a link there is replaced, never followed.

    Raises:
        OSError: it cannot be written.
    """
    partial = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(partial)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(partial, flags, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(descriptor, PAGE_MODE)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


def load_templates(directory: str) -> Templates:
    """Return the templates of the data directory; our own for those that are not there.

    Raises:
        OSError: one is there, and it cannot be read or is too large.
    """
    return Templates(
        *(
            _load(os.path.join(directory, f"{part}.html"), getattr(DEFAULT_TEMPLATES, part))
            for part in ("head", "entry", "foot")
        )
    )


def _load(path: str, default: str) -> str:
    try:
        # Not a pipe that nobody writes to: opening it would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return default
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a regular file")
        data = file.read(TEMPLATE_BYTES_MAX + 1)
    if len(data) > TEMPLATE_BYTES_MAX:
        raise OSError(f"{path} has more than {TEMPLATE_BYTES_MAX} bytes")
    return data.decode("utf-8", "replace")
