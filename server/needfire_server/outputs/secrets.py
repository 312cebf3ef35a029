"""Secrets and programs that an output uses: read and trusted only where nobody else could touch them.

Whether they may be used is decided for the user that the server runs as, never for this process:
root, who starts it, may read and run everything.
"""

import base64
import binascii
import contextlib
import os
import stat
from typing import Final

from needfire_protocol.errors import FormatError
from needfire_protocol.escape import printable
from needfire_server.server_user import Account, check_way, user_name

__all__ = [
    "check_program",
    "check_readable",
    "check_secret_file",
    "parse_webhook_key",
    "read_secret",
]

SECRET_BYTES_MAX: Final = 4_096
KEY_BYTES_MIN: Final = 24
"""Bytes: what the Standard Webhooks specification asks for at least."""
_PREFIX: Final = b"whsec_"
_FOR_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_FOR_RUNNING: Final = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


def check_secret_file(path: str, account: Account) -> None:
    """Make sure that the server's user may read a file, and nobody else but root.

    Raises:
        FormatError: as ``read_secret``.
    """
    read_secret(path, account)


def read_secret(path: str, account: Account) -> bytes:
    """Return what a file of mode 0600 holds, without the end of its last line.

    Args:
        account: who the server runs as, and whose the file must be (any owner, if that is root).

    Raises:
        FormatError: it cannot be read, is no regular file, is empty or too long, belongs to
            somebody else, or others than its owner may read it.
    """
    shown = printable(path, 200)
    try:
        # Not blocking: a FIFO in its place must not stop the server.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise FormatError(f"{shown} cannot be read: {error.strerror}") from None
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{shown} is no regular file")
        if status.st_mode & _FOR_OTHERS:
            mode = stat.S_IMODE(status.st_mode)
            raise FormatError(f"{shown} has mode {mode:04o}; expected 0600: it holds a secret")
        if account.uid not in (0, status.st_uid):
            raise FormatError(
                f"{shown} belongs to {user_name(status.st_uid)}; expected: to the server's user, "
                f"{user_name(account.uid)}, who could not read it otherwise"
            )
        data = file.read(SECRET_BYTES_MAX + 1)
    secret = data.rstrip(b"\r\n")
    if not secret or len(data) > SECRET_BYTES_MAX:
        raise FormatError(f"{shown} has {len(data)} bytes; expected 1 to {SECRET_BYTES_MAX}")
    return secret


def parse_webhook_key(secret: bytes) -> bytes:
    """Return the key in the contents of a key file: ``whsec_BASE64``, or the bytes themselves.

    Raises:
        FormatError: it is too short, or no base64.
    """
    key = secret
    if secret.startswith(_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            raise FormatError("the key behind whsec_ is not base64") from None
    if len(key) < KEY_BYTES_MIN:
        raise FormatError(f"the key has {len(key)} bytes; at least {KEY_BYTES_MIN} are needed")
    return key


def check_readable(path: str, account: Account) -> None:
    """Make sure that the server's user may read a file that is no secret.

    Raises:
        FormatError: not so. What this process cannot look at is told by who loads it.
    """
    with contextlib.suppress(OSError):
        check_way(path, account, os.R_OK)


def check_program(path: str, account: Account) -> None:
    """Make sure that nobody else could have put a program in its place.

    Args:
        account: who the server runs as; it and root may own the program and what is above it.

    Raises:
        FormatError: it, or a directory on the way, can be written by others or belongs to them; or
            the account cannot run it.
    """
    try:
        real = os.path.realpath(path, strict=True)
        status = os.stat(real)
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & _FOR_RUNNING:
            raise FormatError(f"{printable(path, 200)} is no program that can be run")
        check_way(real, account, os.X_OK)
        while True:
            _check_writers(real, account)
            if real == "/":
                return
            real = os.path.dirname(real)
    except OSError as error:
        raise FormatError(f"{printable(path, 200)}: {error.strerror}") from None


def _check_writers(path: str, account: Account) -> None:
    status = os.stat(path)
    is_shared = status.st_mode & (stat.S_IWOTH | stat.S_IWGRP)
    # In a sticky directory (/tmp) nobody can replace the file of another.
    if is_shared and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
        raise FormatError(f"{printable(path, 200)} can be written by others; chmod go-w")
    if status.st_uid not in (0, account.uid):
        expected = "root" if account.uid == 0 else f"root or {user_name(account.uid)}"
        raise FormatError(
            f"{printable(path, 200)} belongs to {user_name(status.st_uid)}; expected: to {expected} "
            "(the server's user, see ServerUser)"
        )
