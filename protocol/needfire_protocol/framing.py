"""Where one frame ends and the next begins.

    +--------+-------------------+----------------------+
    | type   | length of body    | body                 |
    | 1 byte | 4 bytes, unsigned | length bytes         |     numbers are big-endian
    +--------+-------------------+----------------------+

The header alone decides whether a frame may come now and may be that long, so a peer can make us
keep no more bytes than its phase allows.
"""

import struct
from collections.abc import Collection
from enum import IntEnum
from typing import Final, NamedTuple

from needfire_protocol.errors import RemoteProtocolError
from needfire_protocol.limits import (
    FRAME_HEADER_BYTES,
    HANDSHAKE_FRAME_BYTES_MAX,
    SEALED_FRAME_BYTES_MAX,
)

__all__ = ["Frame", "FrameReader", "FrameType", "frame_bytes", "frame_header"]


_HEADER: Final = struct.Struct(">BI")


class FrameType(IntEnum):
    """First byte of a frame. All but ``SEALED`` are plain and belong to the handshake."""

    HELLO = 0x01
    CHALLENGE = 0x02
    PROOF = 0x03
    CONFIRMATION = 0x04
    RESUME = 0x05
    RESUMPTION_ANSWER = 0x06
    RESUMPTION_PROOF = 0x07
    REFUSAL = 0x08
    SEALED = 0x20

    @property
    def frame_bytes_max(self) -> int:
        """Bytes of a whole frame of this type."""
        return _BYTES_MAX[self]


_TYPES: Final = {int(each): each for each in FrameType}
_BYTES_MAX: Final = {
    **dict.fromkeys(FrameType, HANDSHAKE_FRAME_BYTES_MAX),
    FrameType.SEALED: SEALED_FRAME_BYTES_MAX,
}


class Frame(NamedTuple):
    """One whole frame."""

    type: FrameType
    body: bytes

    @property
    def raw(self) -> bytes:
        """The bytes as they were on the wire; what transcripts are made of."""
        return frame_bytes(self.type, self.body)


def frame_header(frame_type: FrameType, body_bytes: int) -> bytes:
    """Return the header of a frame whose body has that many bytes."""
    return _HEADER.pack(frame_type, body_bytes)


def frame_bytes(frame_type: FrameType, body: bytes) -> bytes:
    """Return the whole frame."""
    assert FRAME_HEADER_BYTES + len(body) <= _BYTES_MAX[frame_type]
    return _HEADER.pack(frame_type, len(body)) + body


class FrameReader:
    """Cuts a stream into frames. After an error it must not be used any more."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def buffered_bytes(self) -> int:
        """Bytes that are kept: less than one frame, once ``next_frame`` has returned None."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take bytes as they came."""
        self._buffer += data

    def clear(self) -> None:
        """Forget what was not read."""
        self._buffer.clear()

    def next_frame(self, allowed: Collection[FrameType]) -> Frame | None:
        """Return the next frame, or None if it is not complete yet.

        Raises:
            RemoteProtocolError: its header announces a type that is not allowed now, or a length
                beyond the limit of its type. The body need not be there yet.
        """
        buffer = self._buffer
        if not buffer:
            return None
        frame_type = _TYPES.get(buffer[0])
        if frame_type is None or frame_type not in allowed:
            raise _not_allowed(buffer[0], allowed)
        if len(buffer) < FRAME_HEADER_BYTES:
            return None
        end = FRAME_HEADER_BYTES + _HEADER.unpack_from(buffer)[1]
        if end > _BYTES_MAX[frame_type]:
            raise RemoteProtocolError(
                f"a {frame_type.name} frame of {end} bytes exceeds the limit of "
                f"{frame_type.frame_bytes_max} bytes"
            )
        if len(buffer) < end:
            return None
        body = bytes(buffer[FRAME_HEADER_BYTES:end])
        del buffer[:end]
        return Frame(frame_type, body)


def _not_allowed(number: int, allowed: Collection[FrameType]) -> RemoteProtocolError:
    names = ", ".join(sorted(each.name for each in allowed)) or "none"
    known = _TYPES[number].name if number in _TYPES else "unknown"
    return RemoteProtocolError(
        f"a frame of type {number:#04x} ({known}) is not allowed now; expected: {names}"
    )
