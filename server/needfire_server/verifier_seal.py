"""How a client's verifier lies in the store: sealed, so that the store alone is of no use.

    sealed = 1 byte of form | 12 bytes of nonce | ChaCha20-Poly1305( verifier )

Who steals a copy of the database can neither guess passwords with it nor pose as the server. Name
and salt are authenticated with the verifier: who can write the database can give no client the
verifier of another, nor one of his own.
"""

import os
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from needfire_protocol.srp import PUBLIC_BYTES, Verifier
from needfire_server.seal_key import key_check

__all__ = ["SEALED_BYTES", "VerifierSeal"]

_LABEL: Final = b"needfire 1 stored verifier"
_FORM: Final = b"\x01"
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
SEALED_BYTES: Final = 1 + _NONCE_BYTES + PUBLIC_BYTES + _TAG_BYTES


class VerifierSeal:
    """Seals and opens verifiers under one key."""

    def __init__(
        self, root_key: bytes, *, random_bytes: Callable[[int], bytes] = os.urandom
    ) -> None:
        """Args:
        root_key: 32 secret bytes of this server or, where several share a store, of all of them.
        """
        self.check = key_check(root_key)
        """By which the store knows the key."""
        self._cipher = ChaCha20Poly1305(HKDFExpand(SHA256(), 32, _LABEL).derive(root_key))
        self._random_bytes = random_bytes

    def seal(self, name: str, verifier: Verifier) -> bytes:
        """Return what the store may show."""
        nonce = self._random_bytes(_NONCE_BYTES)
        assert len(nonce) == _NONCE_BYTES
        about = _about(name, verifier.salt)
        return _FORM + nonce + self._cipher.encrypt(nonce, verifier.verifier, about)

    def open(self, name: str, salt: bytes, sealed: bytes) -> Verifier | None:
        """Return the verifier of a client; None where this key did not seal it, or it was changed.

        Raises:
            FormatError: it was sealed, and is none.
        """
        if len(sealed) != SEALED_BYTES or sealed[:1] != _FORM:
            return None
        nonce, rest = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            found = self._cipher.decrypt(nonce, rest, _about(name, salt))
        except InvalidTag:
            return None
        return Verifier(salt, found)


def _about(name: str, salt: bytes) -> bytes:
    # The first two parts have one length each, so no two rows give the same bytes.
    return b"".join((_LABEL, len(salt).to_bytes(1, "big"), salt, name.encode()))
