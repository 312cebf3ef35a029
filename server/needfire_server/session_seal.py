"""How a session's keys lie in the store: sealed, so that the store alone is of no use.

    sealed = 1 byte of form | 12 bytes of nonce | ChaCha20-Poly1305( instance, registration, keys )

The key is not in the store (``seal_key.py``). Who steals a copy of the database can neither resume
a session nor sign reports; who can write it can delete rows or bring old ones back, but not move a
session to another client, make it live longer, or make one up: client, session id and expiry are
authenticated with it.
"""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from needfire_protocol.keys import SessionKeys
from needfire_protocol.srp import Verifier

__all__ = ["SealedSession", "SessionSeal", "StoredSession", "registration_of"]

_LABEL: Final = b"needfire 1 stored session"
_FORM: Final = b"\x01"
_NONCE_BYTES: Final = 12
"""Random. At a thousand new sessions a second it takes a month until two in 2**32 are likely to
meet; no fleet comes near."""
_PLAIN: Final = struct.Struct(">16s16s32s32sBBI")


@dataclass(frozen=True, slots=True)
class StoredSession:
    """What outlives the process of a session."""

    client: str
    keys: SessionKeys
    instance: bytes
    """The agent process that negotiated it."""
    registration: bytes
    """Which password it was negotiated with (``registration_of``)."""
    expires_us: int


@dataclass(frozen=True, slots=True)
class SealedSession:
    """The same as a row of the store."""

    session_id: bytes
    client: str
    expires_us: int
    is_current: bool
    """False: superseded, and kept so that its agent can be told so with proof."""
    sealed: bytes


def registration_of(verifier: Verifier) -> bytes:
    """Return 16 bytes that are others for each password and each registration."""
    return hashlib.sha256(b"registration" + verifier.salt + verifier.verifier).digest()[:16]


class SessionSeal:
    """Seals and opens sessions under one key."""

    def __init__(self, root_key: bytes, random_bytes: Callable[[int], bytes]) -> None:
        """Args:
        root_key: 32 secret bytes of this server or, where several share a store, of all of them.
        """
        assert len(root_key) == 32
        key = HKDFExpand(SHA256(), 32, _LABEL).derive(root_key)
        self._cipher = ChaCha20Poly1305(key)
        self._random_bytes = random_bytes

    def seal(self, session: StoredSession) -> SealedSession:
        """Return the row of a session that is current."""
        keys = session.keys
        plain = _PLAIN.pack(
            session.instance,
            session.registration,
            keys.resumption_key,
            keys.signing_key,
            keys.version,
            keys.suite,
            keys.features,
        )
        nonce = self._random_bytes(_NONCE_BYTES)
        assert len(nonce) == _NONCE_BYTES
        about = _about(keys.session_id, session.client, session.expires_us)
        sealed = _FORM + nonce + self._cipher.encrypt(nonce, plain, about)
        return SealedSession(keys.session_id, session.client, session.expires_us, True, sealed)

    def open(self, row: SealedSession) -> StoredSession | None:
        """Return the session of a row; None where it was not sealed with this key, or changed."""
        form, nonce, sealed = row.sealed[:1], row.sealed[1:13], row.sealed[13:]
        if form != _FORM or len(nonce) != _NONCE_BYTES:
            return None
        try:
            plain = self._cipher.decrypt(
                nonce, sealed, _about(row.session_id, row.client, row.expires_us)
            )
        except InvalidTag:
            return None
        instance, registration, resumption, signing, version, suite, features = _PLAIN.unpack(plain)
        keys = SessionKeys(row.session_id, resumption, signing, version, suite, features)
        return StoredSession(row.client, keys, instance, registration, row.expires_us)


def _about(session_id: bytes, client: str, expires_us: int) -> bytes:
    # The first two parts have one length each, so no two rows give the same bytes.
    return b"".join(
        (_LABEL, len(session_id).to_bytes(1, "big"), session_id, struct.pack(">q", expires_us))
    ) + client.encode("utf-8", "surrogatepass")
