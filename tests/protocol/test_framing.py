"""Frames come out of any split of the stream, and a bad header ends it at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.errors import RemoteProtocolError
from needfire_protocol.framing import Frame, FrameReader, FrameType, frame_bytes, frame_header
from needfire_protocol.limits import (
    FRAME_HEADER_BYTES,
    HANDSHAKE_FRAME_BYTES_MAX,
    SEALED_FRAME_BYTES_MAX,
)

ALL = frozenset(FrameType)
frames = st.builds(Frame, st.sampled_from(FrameType), st.binary(max_size=60))


def read_all(reader: FrameReader) -> list[Frame]:
    found = []
    while frame := reader.next_frame(ALL):
        found.append(frame)
    return found


@given(st.lists(frames, max_size=5), st.data())
def test_any_split_of_the_stream_gives_the_same_frames(
    sent: list[Frame], data: st.DataObject
) -> None:
    stream = b"".join(frame.raw for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader, received = FrameReader(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reader.feed(stream[start:end])
        received += read_all(reader)
    assert received == sent
    assert reader.buffered_bytes == 0


def test_a_frame_is_type_length_and_body() -> None:
    assert frame_bytes(FrameType.SEALED, b"abc") == b"\x20\x00\x00\x00\x03abc"
    assert frame_header(FrameType.HELLO, 258) == b"\x01\x00\x00\x01\x02"


@pytest.mark.parametrize("frame_type", FrameType)
@pytest.mark.parametrize(("beyond", "is_taken"), [(-1, True), (0, True), (1, False)])
def test_the_length_limit_of_each_type_holds_exactly(
    frame_type: FrameType, beyond: int, is_taken: bool
) -> None:
    body_bytes = frame_type.frame_bytes_max - FRAME_HEADER_BYTES + beyond
    reader = FrameReader()
    reader.feed(frame_header(frame_type, body_bytes))
    if not is_taken:
        with pytest.raises(RemoteProtocolError, match="exceeds the limit"):
            reader.next_frame(ALL)
        return
    assert reader.next_frame(ALL) is None
    reader.feed(bytes(body_bytes))
    assert reader.next_frame(ALL) == Frame(frame_type, bytes(body_bytes))


def test_the_limits_are_what_they_are_documented_as() -> None:
    assert HANDSHAKE_FRAME_BYTES_MAX == 2_048
    assert SEALED_FRAME_BYTES_MAX == 262_144
    for frame_type in FrameType:
        assert (frame_type.frame_bytes_max > 2_048) == (frame_type is FrameType.SEALED)


@pytest.mark.parametrize("number", sorted(set(range(256)) - set(FrameType)))
def test_an_unknown_type_is_refused_at_its_first_byte(number: int) -> None:
    reader = FrameReader()
    reader.feed(bytes((number,)))
    with pytest.raises(RemoteProtocolError, match="unknown"):
        reader.next_frame(ALL)


@pytest.mark.parametrize("frame_type", FrameType)
def test_a_known_type_that_is_not_allowed_now_is_refused_at_its_first_byte(
    frame_type: FrameType,
) -> None:
    reader = FrameReader()
    reader.feed(bytes((frame_type,)))
    with pytest.raises(RemoteProtocolError, match=frame_type.name):
        reader.next_frame(ALL - {frame_type})


def test_an_http_request_is_refused_at_its_first_byte() -> None:
    reader = FrameReader()
    reader.feed(b"GET / HTTP/1.1\r\n")
    with pytest.raises(RemoteProtocolError, match="0x47"):
        reader.next_frame(ALL)


@pytest.mark.parametrize("kept", range(FRAME_HEADER_BYTES + 3))
def test_an_incomplete_frame_is_waited_for(kept: int) -> None:
    reader = FrameReader()
    reader.feed(frame_bytes(FrameType.HELLO, b"abc")[:kept])
    assert reader.next_frame(ALL) is None
    assert reader.buffered_bytes == kept
