"""Who this agent is: its name, its password, and which run of the program this is."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from needfire_client.durable import put_in_place
from needfire_client.failures import CommandError
from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.exit_status import ExitStatus
from needfire_protocol.limits import PASSWORD_BYTES_MAX
from needfire_protocol.names import parse_client_name

__all__ = [
    "PASSWORD_ADVISED_LENGTH",
    "PASSWORD_LENGTH_MIN",
    "agent_name",
    "boot_id",
    "check_password",
    "host_name",
    "load_password",
    "store_password",
]

PASSWORD_LENGTH_MIN: Final = 8
"""Characters. Whoever steals the server's store can try all shorter ones."""

PASSWORD_ADVISED_LENGTH: Final = 20
"""Characters below which there is a warning; needfire-admin gen-password makes 43."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def _resolved() -> str:
    # Most checks have no server, nor anybody who wants to know the name.
    from socket import getfqdn

    return getfqdn()


def host_name(resolve: Callable[[], str] = _resolved) -> str:
    """Return the fully qualified name of this host, as far as it knows it; asks the resolver."""
    return resolve().strip().rstrip(".")


def agent_name(claimed: str | None) -> str:
    """Return the name to claim: the one that was given, or the host's own.

    Raises:
        CommandError: it cannot name a client.
    """
    name = host_name() if claimed is None else claimed
    try:
        return parse_client_name(name)
    except FormatError as error:
        if claimed is not None:
            raise CommandError(ExitStatus.USAGE, f"--name: {error}") from None
        raise CommandError(
            ExitStatus.CONFIGURATION,
            f"the name of this host cannot be used: {error}",
            hint="give the registered name with --name, or correct /etc/hostname and /etc/hosts",
        ) from None


def boot_id() -> str:
    """Return what the kernel calls this boot, or ``unknown``."""
    try:
        text = _BOOT_ID.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return "unknown"
    return text if 0 < len(text) <= 64 and text.isprintable() else "unknown"


def check_password(text: str) -> str:
    """Return the password of what a person or file gave, without the newline at its end.

    Raises:
        CommandError: it is too short, too long, or not one line of text.
    """
    password = text.removesuffix("\n").removesuffix("\r")
    if len(password) < PASSWORD_LENGTH_MIN:
        raise CommandError(
            ExitStatus.USAGE,
            f"the password has {len(password)} characters; expected at least {PASSWORD_LENGTH_MIN}",
            hint="needfire-admin gen-password prints a good one",
        )
    try:
        length_bytes = len(password.encode("utf-8"))
    except UnicodeEncodeError:
        raise CommandError(ExitStatus.USAGE, "the password is not valid UTF-8") from None
    if length_bytes > PASSWORD_BYTES_MAX or not password.isprintable():
        raise CommandError(
            ExitStatus.USAGE,
            f"the password is not one line of at most {PASSWORD_BYTES_MAX} bytes of text",
        )
    return password


def load_password(path: Path) -> str:
    """Return the stored password.

    Raises:
        CommandError: there is none, or it cannot be read, or others could read it.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise CommandError(
            ExitStatus.AUTHENTICATION,
            f"no password is set ({path} does not exist)",
            hint="needfire-agent set-password; needfire-admin register on the log host prints one",
        ) from None
    except OSError as error:
        raise CommandError(
            ExitStatus.LOCAL, f"the password in {path} cannot be read: {error.strerror}"
        ) from None
    try:
        if os.fstat(handle).st_mode & 0o077:
            raise CommandError(
                ExitStatus.LOCAL,
                f"the password in {path} can be read by others than its owner",
                hint=f"chmod 600 {path}, and choose a new password if somebody may have read it",
            )
        raw = os.read(handle, PASSWORD_BYTES_MAX + 3)
    finally:
        os.close(handle)
    return check_password(raw.decode("utf-8", "surrogateescape"))


def store_password(path: Path, password: str) -> None:
    """Put the password in place, whole or not at all, for its owner only.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, password.encode("utf-8") + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
        put_in_place(temporary, path)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
