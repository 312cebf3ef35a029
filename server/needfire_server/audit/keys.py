"""The files of the audit log's keys: one private key a file, and the list of the public ones.

    DATA_DIR/audit/KEYID.key      private key, PEM (PKCS 8), mode 0600; the old one goes at a rotation
    DATA_DIR/audit/public-keys    every public key that the log had, one a line, the newest last
    DATA_DIR/audit/checkpoint     the latest signed checkpoint, beside the store that it speaks of
    DATA_DIR/audit/finding        what is wrong with the log, and evidence of it: standing.py

Each file is written whole, synced and renamed: a crash leaves the file of before or the new one. A
private key is on disk before the log names it; one that no record names was never used.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from needfire_protocol.audit.note import NOTE_BYTES_MAX, PublicKey, public_key_of
from needfire_protocol.errors import FormatError, StorageError

__all__ = ["AuditFiles", "read_public_keys"]

_FILE_BYTES_MAX: Final = 256 * 1024
_SEED_BYTES: Final = 32
_EVIDENCE_MAX: Final = 16
"""Copies of what the log contradicted. The earliest ones say the most: later ones are not kept."""


class AuditFiles:
    """The directory of the audit log's files."""

    def __init__(self, data_directory: str) -> None:
        self.directory = os.path.join(data_directory, "audit")

    @property
    def checkpoint_path(self) -> str:
        """Where the latest checkpoint lies."""
        return os.path.join(self.directory, "checkpoint")

    @property
    def public_path(self) -> str:
        """Where the public keys lie."""
        return os.path.join(self.directory, "public-keys")

    def make_key(self, origin: str, random_bytes: Callable[[int], bytes]) -> Ed25519PrivateKey:
        """Return a new private key that is on disk.

        Raises:
            StorageError: it cannot be written.
        """
        private = Ed25519PrivateKey.from_private_bytes(random_bytes(_SEED_BYTES))
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._write(_key_file(public_key_of(origin, private)), pem)
        return private

    def load_key(self, key: PublicKey) -> Ed25519PrivateKey:
        """Return the private key of a public one.

        Raises:
            StorageError: it is not there, or others can read it, or it is another one.
        """
        path = os.path.join(self.directory, _key_file(key))
        private = _parsed(path, _read(path, is_secret=True))
        if public_key_of(key.name, private) != key:
            raise StorageError(f"{path} is not the key {key.key_id.hex()} that the log names")
        return private

    def drop_key(self, key: PublicKey) -> None:
        """Delete a private key that signs no more."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.directory, _key_file(key)))

    def keep_public(self, keys: Sequence[PublicKey]) -> None:
        """Write the list of public keys, where it is not the same already.

        Raises:
            StorageError: it cannot be written.
        """
        text = "".join(f"{key}\n" for key in keys).encode()
        with contextlib.suppress(StorageError):
            if _read(self.public_path) == text:
                return
        self._write(os.path.basename(self.public_path), text, mode=0o644)

    def kept_public(self) -> list[PublicKey]:
        """Return the list of public keys as it was written here; none where it cannot be read."""
        try:
            return list(read_public_keys(_read(self.public_path), self.public_path))
        except (StorageError, FormatError):
            return []

    def keep_checkpoint(self, note: str) -> None:
        """Write the latest checkpoint.

        Raises:
            StorageError: it cannot be written.
        """
        self._write(os.path.basename(self.checkpoint_path), note.encode(), mode=0o644)

    def kept_checkpoint(self) -> str | None:
        """Return the latest checkpoint that was written here; None where none can be read."""
        try:
            return _read(self.checkpoint_path)[:NOTE_BYTES_MAX].decode()
        except (StorageError, UnicodeDecodeError):
            return None

    def keep_finding(self, data: bytes) -> None:
        """Write what was found wrong with the log.

        Raises:
            StorageError: it cannot be written.
        """
        self._write(_FINDING, data)

    def kept_finding(self) -> bytes | None:
        """Return what was found wrong; None where nothing is.

        What cannot be read was found all the same: it is empty then.
        """
        path = os.path.join(self.directory, _FINDING)
        try:
            return _read(path)
        except StorageError:
            return b"" if os.path.lexists(path) else None

    def drop_finding(self) -> None:
        """Delete what was found wrong.

        Raises:
            StorageError: it cannot be deleted.
        """
        path = os.path.join(self.directory, _FINDING)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                _sync(self.directory)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror or error}") from error

    def keep_evidence(self, what: str, text: str) -> None:
        """Write a copy of what the log contradicts, unless there is one, or there are many.

        Raises:
            StorageError: it cannot be written.
        """
        for number in range(1, _EVIDENCE_MAX + 1):
            name = f"evidence-{number}.{what}"
            path = os.path.join(self.directory, name)
            if not os.path.lexists(path):
                self._write(name, text.encode())
                return
            with contextlib.suppress(StorageError):
                if _read(path) == text.encode():
                    return

    def _write(self, name: str, data: bytes, *, mode: int = 0o600) -> None:
        path = os.path.join(self.directory, name)
        partial = f"{path}.part"
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.directory, 0o700)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(partial, flags, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(partial, path)
            _sync(self.directory)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror or error}") from error


def read_public_keys(data: bytes, source: str) -> tuple[PublicKey, ...]:
    """Return the keys of a file or of a text, one a line.

    Raises:
        FormatError: there is none, or a line is no key.
    """
    lines = data.decode("utf-8", "replace").split("\n")
    keys = tuple(PublicKey.parse(line) for line in lines if line.strip())
    if not keys:
        raise FormatError(f"{source} holds no public key")
    return keys


_FINDING: Final = "finding"


def _key_file(key: PublicKey) -> str:
    return f"{key.key_id.hex()}.key"


def _parsed(path: str, pem: bytes) -> Ed25519PrivateKey:
    try:
        private = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        raise StorageError(f"{path} is no private key") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise StorageError(f"{path} is no Ed25519 key")
    return private


def _read(path: str, *, is_secret: bool = False) -> bytes:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if is_secret and stat.S_IMODE(mode) & 0o077:
                raise StorageError(
                    f"{path} can be read by others (mode {stat.S_IMODE(mode):o}); expected 600"
                )
            return file.read(_FILE_BYTES_MAX)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def _sync(directory: str) -> None:
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
