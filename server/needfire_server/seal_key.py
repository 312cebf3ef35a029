"""Where the key comes from that seals what the store must not show: never from the store.

Either from the service manager (``LoadCredentialEncrypted=needfire-seal-key`` of systemd, which can
bind it to the machine's TPM), or from the file ``seal.key`` in the data directory, which is made at
the first start. A backup of the database alone is useless to a thief; one of the whole data
directory is not, and where that matters the credential is the answer. Without the key no client can
log in any more, since verifiers are sealed too. Servers that share a store must have the same key.

While a key is exchanged there are two files: ``seal.key.next`` is written first, the store is sealed
with it in one transaction, and then it takes the name ``seal.key``. The store says which of the two
counts (``key_check``), so a crash between any two of these steps is no harm. The one before stays as
``seal.key.old``, for backups of the store that were made before.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Mapping
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from needfire_protocol.errors import StorageError

__all__ = [
    "CREDENTIAL",
    "FILE",
    "KEY_BYTES",
    "NEXT_FILE",
    "OLD_FILE",
    "SealKeyError",
    "find_seal_key",
    "key_check",
    "key_id",
    "make_seal_key",
    "promote_next_key",
    "read_credential",
    "read_seal_key",
]

KEY_BYTES: Final = 32
CREDENTIAL: Final = "needfire-seal-key"
"""Name of the credential."""
FILE: Final = "seal.key"
NEXT_FILE: Final = "seal.key.next"
OLD_FILE: Final = "seal.key.old"

_CHECK_LABEL: Final = b"needfire 1 check of the seal key"
_ID_BYTES: Final = 6


class SealKeyError(StorageError):
    """The store is sealed with another key than is at hand."""


def key_check(key: bytes) -> bytes:
    """Return 32 bytes by which a store knows a key; nothing about the key follows from them."""
    assert len(key) == KEY_BYTES
    return HKDFExpand(SHA256(), 32, _CHECK_LABEL).derive(key)


def key_id(check: bytes) -> str:
    """Return what people call a key, of its check: the same on every host."""
    return check[:_ID_BYTES].hex()


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


def find_seal_key(data_directory: str, name: str = FILE) -> bytes | None:
    """Return a key of the data directory; None where there is none.

    Raises:
        StorageError: it cannot be read, or has another size or the wrong rights.
    """
    path = os.path.join(data_directory, name)
    try:
        return _read(path, must_be_ours=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from None


def read_seal_key(path: str) -> bytes:
    """Return the key in any file, a backup's say.

    Raises:
        StorageError: it cannot be read, or has another size.
    """
    try:
        return _read(path)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from None


def make_seal_key(
    data_directory: str, random_bytes: Callable[[int], bytes], name: str = FILE
) -> bytes:
    """Make a key in the data directory, durable and for us only; one that is there is replaced.

    Raises:
        StorageError: it cannot be written.
    """
    path = os.path.join(data_directory, name)
    try:
        return _make(data_directory, path, random_bytes)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from None


def promote_next_key(data_directory: str) -> None:
    """Let the next key be the one that counts; the one before, if there is one, is kept aside.

    Raises:
        StorageError: a file could not be renamed.
    """
    path = os.path.join(data_directory, FILE)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, os.path.join(data_directory, OLD_FILE))
        os.rename(os.path.join(data_directory, NEXT_FILE), path)
        _flush_directory(data_directory)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from None


def _read(path: str, *, must_be_ours: bool = False) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(handle)
        if must_be_ours and (status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077):
            raise StorageError(
                f"{path} can be read by others, or belongs to somebody else; expected: the "
                "server's own user, mode 0600. If others may have seen it and have a copy of the "
                "store, register the clients anew"
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
    _flush_directory(directory)
    return key


def _flush_directory(directory: str) -> None:
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
