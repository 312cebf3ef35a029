"""``set-password``: store the secret that belongs to the verifier on the server."""

import getpass
import os
import sys
from pathlib import Path

from needfire_client.failures import CommandError
from needfire_client.identity import PASSWORD_ADVISED_LENGTH, check_password, store_password
from needfire_client.options import Options
from needfire_client.statedir import StateDir
from needfire_client.terminal import advise, warn
from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.exit_status import ExitStatus
from needfire_protocol.limits import PASSWORD_BYTES_MAX

__all__ = ["run"]


def run(options: Options) -> ExitStatus:
    """Read a password from a file, standard input or the terminal, and store it."""
    password = check_password(_obtain(options.password_file))
    state = StateDir(options.state_dir)
    state.prepare()
    if len(password) < PASSWORD_ADVISED_LENGTH:
        entry = CATALOGUE["PASSWORD_WEAK"]
        warn(entry.msg.format(length=len(password)))
        advise("needfire-admin gen-password prints a good one")
    store_password(state.password, password)
    return ExitStatus.DONE


def _obtain(source: str | None) -> str:
    if source is None and sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Once more: ") != password:
            raise CommandError(ExitStatus.USAGE, "the two passwords differ; nothing was changed")
        return password
    if source in (None, "-"):
        return _text(sys.stdin.buffer.read(PASSWORD_BYTES_MAX + 3))
    try:
        # Any file that can be read, also a pipe: --password-file <(…).
        handle = os.open(Path(str(source)), os.O_RDONLY | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            return _text(file.read(PASSWORD_BYTES_MAX + 3))
    except OSError as error:
        raise CommandError(ExitStatus.LOCAL, f"{source}: {error.strerror}") from None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
