"""Which secret is made from which, and what each is for: the only table of key labels.

    SRP's K ──extract(salt: transcript)──► master ──expand(label, transcript)──► one key a purpose
    resumption key ──extract(salt: transcript)──► the same for the traffic of a resumed connection

Every key has one purpose, one direction and one label (HKDF-SHA256, RFC 5869). The transcript is
the hash of all that both sides have sent, so two peers that saw different bytes share no key.
"""

import hmac
import struct
from enum import Enum
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from needfire_protocol.plain_classes import dataclass, field

__all__ = [
    "KeyLabel",
    "Master",
    "ReportVerifier",
    "SessionKeys",
    "TrafficKeys",
    "derive",
    "derive_session_keys",
    "derive_traffic_keys",
    "extract",
    "finished_value",
    "sign_report",
]

_SHA256: Final = SHA256()

KEY_BYTES: Final = 32
SESSION_ID_BYTES: Final = 16


class KeyLabel(bytes, Enum):
    """What a derived key is for; the text goes into its derivation. No two uses share one."""

    AGENT_FINISHED = b"needfire 1 agent finished"
    SERVER_FINISHED = b"needfire 1 server finished"
    AGENT_TRAFFIC = b"needfire 1 agent traffic"
    SERVER_TRAFFIC = b"needfire 1 server traffic"
    SESSION_ID = b"needfire 1 session id"
    RESUMPTION = b"needfire 1 resumption"
    SIGNING = b"needfire 1 report signing"
    RESUMED_SERVER_FINISHED = b"needfire 1 resumed server finished"
    RESUMED_AGENT_FINISHED = b"needfire 1 resumed agent finished"
    RESUMED_REFUSAL = b"needfire 1 resumed refusal"
    RESUMED_AGENT_TRAFFIC = b"needfire 1 resumed agent traffic"
    RESUMED_SERVER_TRAFFIC = b"needfire 1 resumed server traffic"


_PLACE: Final = struct.Struct(">QB")
"""Number and type of a report."""
_REPORT_DOMAIN: Final = b"needfire 1 report\0"
"""First bytes of what is signed, so that a signature can never be read as another MAC."""


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """What a session is, for as long as it lives: over any number of connections.

    Hidden from ``repr``: a traceback or a debug log must not carry keys.
    """

    session_id: bytes
    """16 bytes, derived by both sides and never sent until the session is resumed."""
    resumption_key: bytes = field(repr=False)
    signing_key: bytes = field(repr=False)
    version: int
    suite: int
    features: int


@dataclass(frozen=True, slots=True)
class TrafficKeys:
    """The keys that seal one connection, one for each direction."""

    agent: bytes = field(repr=False)
    server: bytes = field(repr=False)


Master: TypeAlias = HMAC
"""The master key of a handshake, hashed already for all that is made of it. Never updated itself."""


def extract(secret: bytes, transcript: bytes) -> Master:
    """Return the master key of a handshake (HKDF-Extract with the transcript as salt)."""
    return HMAC(_mac(transcript, secret), _SHA256)


def derive(
    master: Master, label: KeyLabel, transcript: bytes, length_bytes: int = KEY_BYTES
) -> bytes:
    """Return the key for one purpose (HKDF-Expand over label, a zero byte, and transcript)."""
    assert length_bytes <= KEY_BYTES
    # HKDF-Expand of one block (RFC 5869 2.3). Four keys are made for each connection, and a copy
    # takes half of what it takes to begin with the key again.
    mac = master.copy()
    mac.update(b"".join((label, b"\0", transcript, b"\1")))
    return mac.finalize()[:length_bytes]


def finished_value(master: Master, label: KeyLabel, transcript: bytes) -> bytes:
    """Return the proof that its sender has the master key and saw this transcript."""
    return _mac(derive(master, label, b""), transcript)


def _mac(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA256, without giving Python's lock away as ``hmac.digest`` does.

    A handshake of a server has a dozen of them beside other threads, and each time one would be
    woken for nothing.
    """
    mac = HMAC(key, _SHA256)
    mac.update(data)
    return mac.finalize()


def derive_session_keys(
    master: Master, transcript: bytes, *, version: int, suite: int, features: int
) -> SessionKeys:
    """Return the keys of a new session."""
    return SessionKeys(
        session_id=derive(master, KeyLabel.SESSION_ID, transcript, SESSION_ID_BYTES),
        resumption_key=derive(master, KeyLabel.RESUMPTION, transcript),
        signing_key=derive(master, KeyLabel.SIGNING, transcript),
        version=version,
        suite=suite,
        features=features,
    )


def derive_traffic_keys(master: Master, transcript: bytes, *, resumed: bool) -> TrafficKeys:
    """Return the keys of one connection; fresh, since the transcript has both sides' randoms."""
    if resumed:
        agent, server = KeyLabel.RESUMED_AGENT_TRAFFIC, KeyLabel.RESUMED_SERVER_TRAFFIC
    else:
        agent, server = KeyLabel.AGENT_TRAFFIC, KeyLabel.SERVER_TRAFFIC
    return TrafficKeys(derive(master, agent, transcript), derive(master, server, transcript))


def sign_report(
    keys: SessionKeys,
    stream: bytes,
    sequence: int,
    type: int,
    body: bytes,
) -> bytes:
    """Return the signature of a report: 32 bytes, HMAC-SHA256 by the session's signing key.

    What is signed says which session, stream and place the body belongs to, so a body cannot be
    moved to another. Every part but the last has a fixed length: no two reports sign alike.
    """
    assert len(keys.session_id) == len(stream) == SESSION_ID_BYTES
    place = _PLACE.pack(sequence, type)
    signed = b"".join((_REPORT_DOMAIN, keys.session_id, stream, place, body))
    return hmac.digest(keys.signing_key, signed, "sha256")


class ReportVerifier:
    """Verifies the reports of one stream; what they have in common is hashed only once."""

    def __init__(self, keys: SessionKeys, stream: bytes) -> None:
        assert len(keys.session_id) == len(stream) == SESSION_ID_BYTES
        self._common = HMAC(keys.signing_key, SHA256())
        self._common.update(_REPORT_DOMAIN + keys.session_id + stream)

    def is_signed(self, sequence: int, type: int, body: bytes, signature: bytes) -> bool:
        """True where the signature is the report's own; compared in constant time."""
        mac = self._common.copy()
        mac.update(_PLACE.pack(sequence, type) + body)
        return hmac.compare_digest(mac.finalize(), signature)
