"""Where the key comes from that seals what the store must not show: never from the store.

Either from the service manager (``LoadCredentialEncrypted=needfire-seal-key`` of systemd, which can
bind it to the machine's TPM), or from the file ``seal.key`` in the data directory, which is made at
the first start. A backup of the database alone is useless to a thief; one of the whole data
directory is not, and where that matters the credential is the answer. Servers that share a store
must have the same key.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Mapping
from typing import Final

from needfire_protocol.errors import StorageError

__all__ = ["CREDENTIAL", "KEY_BYTES", "load_seal_key", "read_credential"]

KEY_BYTES: Final = 32
CREDENTIAL: Final = "needfire-seal-key"
"""Name of the credential."""
_FILE: Final = "seal.key"


def read_credential(environment: Mapping[str, str]) -> bytes | None:
    """Return the key that the service manager gives; None where it gives none.

    To be called before the rights are dropped: the credential may be readable for root only.

    Raises:
        StorageError: there is one, and it cannot be used.
    """
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if directory is None:
        return None
    path = os.path.join(directory, CREDENTIAL)
    try:
        return _read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from None


def load_seal_key(data_directory: str, random_bytes: Callable[[int], bytes]) -> bytes:
    """Return the key of the data directory; made, durable and readable for us only, if needed.

    Raises:
        StorageError: it cannot be read or written, or has another size or the wrong rights.
    """
    path = os.path.join(data_directory, _FILE)
    try:
        with contextlib.suppress(FileNotFoundError):
            return _read(path, must_be_ours=True)
        return _make(data_directory, path, random_bytes)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from None


def _read(path: str, *, must_be_ours: bool = False) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(handle)
        if must_be_ours and (status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077):
            raise StorageError(
                f"{path} can be read by others, or belongs to somebody else; expected: the "
                f"server's own user, mode 0600. If others may have seen it, delete it: agents "
                "then log in with their passwords once"
            )
        key = os.read(handle, KEY_BYTES + 1)
    finally:
        os.close(handle)
    if len(key) != KEY_BYTES:
        raise StorageError(
            f"{path} has {'more than ' * (len(key) > KEY_BYTES)}{min(len(key), KEY_BYTES)} bytes; "
            f"expected exactly {KEY_BYTES} random ones"
        )
    return key


def _make(directory: str, path: str, random_bytes: Callable[[int], bytes]) -> bytes:
    """Write a new key so that a crash leaves it whole or not at all."""
    key = random_bytes(KEY_BYTES)
    partial = f"{path}.part"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(partial)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(partial, flags, 0o600)
    try:
        os.write(handle, key)
        os.fsync(handle)
    finally:
        os.close(handle)
    os.rename(partial, path)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return key
