"""How a message is sealed: nobody on the way can read, change, replay, reorder or return it.

    frame body = AEAD(key of the direction, nonce, message, associated data)
    nonce      = 4 zero bytes | 64-bit counter of the records of this direction, from 0; never sent
    associated = label of the direction | frame header (type and length)

A record that was lost, repeated, moved or sent back meets another counter or another key, and
does not open. After that nothing does: the connection is over, and no second try exists.
"""

from enum import Enum, IntEnum
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from needfire_protocol.errors import LocalProtocolError, RemoteProtocolError
from needfire_protocol.framing import Frame, FrameType, frame_header
from needfire_protocol.limits import (
    FRAME_HEADER_BYTES,
    RECORDS_PER_KEY_MAX,
    SEALED_FRAME_BYTES_MAX,
    SEALED_TAG_BYTES,
)

__all__ = ["Direction", "Opener", "Sealer", "Suite"]


class Suite(IntEnum):
    """Which cipher seals; the numbers are what hello frames offer."""

    CHACHA20_POLY1305 = 1
    """Fast on every processor."""
    AES_256_GCM = 2
    """For sites whose rules want it."""


class Direction(bytes, Enum):
    """Who seals. The text is part of the associated data."""

    AGENT_TO_SERVER = b"needfire 1 agent to server"
    SERVER_TO_AGENT = b"needfire 1 server to agent"


_CIPHERS: Final[dict[int, type[ChaCha20Poly1305] | type[AESGCM]]] = {
    Suite.CHACHA20_POLY1305: ChaCha20Poly1305,
    Suite.AES_256_GCM: AESGCM,
}


class _Half:
    """One direction: its key, its label, and the number of its next record."""

    __slots__ = ("_key", "_label", "_make_cipher", "_next_record")

    def __init__(self, suite: int, key: bytes, direction: Direction) -> None:
        # A cipher is made for each record, in 2 us. Kept, it would cost 2.4 KiB, twice for each of
        # thousands of connections that say something once a minute.
        self._make_cipher = _CIPHERS[suite]
        self._key = key
        self._label = direction
        self._next_record = 0

    @property
    def records_left(self) -> int:
        """Records that this key may still seal or open."""
        return RECORDS_PER_KEY_MAX - self._next_record

    def _nonce(self) -> bytes:
        return self._next_record.to_bytes(12, "big")


class Sealer(_Half):
    """The sending half."""

    __slots__ = ()

    def seal(self, message: bytes) -> bytes:
        """Return the sealed frame of a message.

        Raises:
            LocalProtocolError: the message is too long, or this key has sealed all it may.
        """
        sealed_bytes = len(message) + SEALED_TAG_BYTES
        if FRAME_HEADER_BYTES + sealed_bytes > SEALED_FRAME_BYTES_MAX:
            raise LocalProtocolError(f"a message of {len(message)} bytes does not fit a frame")
        if not self.records_left:
            raise LocalProtocolError("the traffic key is worn out; connect again")
        header = frame_header(FrameType.SEALED, sealed_bytes)
        sealed = self._make_cipher(self._key).encrypt(self._nonce(), message, self._label + header)
        self._next_record += 1
        return header + sealed


class Opener(_Half):
    """The receiving half."""

    __slots__ = ()

    def open(self, frame: Frame) -> bytes:
        """Return the message of a sealed frame.

        Raises:
            RemoteProtocolError: it is not the next record of this direction, or was tampered
                with. The opener must not be used after that.
        """
        if not self.records_left:
            raise RemoteProtocolError(f"more than {RECORDS_PER_KEY_MAX} records under one key")
        header = frame_header(frame.type, len(frame.body))
        try:
            cipher = self._make_cipher(self._key)
            message = cipher.decrypt(self._nonce(), frame.body, self._label + header)
        except InvalidTag:
            raise RemoteProtocolError("a record is not authentic") from None
        self._next_record += 1
        return message
