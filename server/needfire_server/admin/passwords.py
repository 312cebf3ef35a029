"""Where a password comes from: a file, standard input or a person, and never the command line."""

import os
import sys
from typing import Final

import click

from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.limits import PASSWORD_BYTES_MAX
from needfire_server.admin.output import hint, warn

__all__ = ["read_password"]

_LENGTH_GOOD: Final = 20
"""Characters below which a password is worth a warning: who steals the store can guess it."""


def read_password(path: str | None) -> str:
    """Return the first line of a file (``-``: standard input), or what a person types twice.

    Raises:
        FormatError: it is empty, too long or no text.
        StorageError: the file cannot be read.
        click.UsageError: there is neither a file nor a person.
    """
    if path is None and not sys.stdin.isatty():
        raise click.UsageError("no terminal to ask for the password; use --password-file FILE or -")
    if path is None or (path == "-" and sys.stdin.isatty()):
        password: str = click.prompt(
            "Password", hide_input=True, confirmation_prompt=True, err=True
        )
    else:
        password = _clean(_read(path))
    if len(password) < _LENGTH_GOOD:
        warn(f"the password is short: {len(password)} characters")
        hint("needfire-admin gen-password makes one that cannot be guessed")
    return password


def _read(path: str) -> bytes:
    try:
        if path == "-":
            return sys.stdin.buffer.read(PASSWORD_BYTES_MAX + 3)
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                warn(f"{path} can be read by others; chmod 600 {path}")
            return file.read(PASSWORD_BYTES_MAX + 3)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error


def _clean(data: bytes) -> str:
    line = data.removesuffix(b"\n").removesuffix(b"\r")
    if not line:
        raise FormatError("the password is empty")
    if len(line) > PASSWORD_BYTES_MAX or b"\n" in line:
        raise FormatError(f"the password is not one line of at most {PASSWORD_BYTES_MAX} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise FormatError("the password is not UTF-8 text") from None
