"""Plain frames survive their bytes, fit their limit, and are refused when malformed."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.codec import encode
from needfire_protocol.errors import FormatError, RemoteProtocolError
from needfire_protocol.framing import Frame, FrameReader, FrameType, frame_bytes
from needfire_protocol.handshake_frames import (
    FRAME_TABLES,
    Challenge,
    Confirmation,
    Hello,
    PlainRefusal,
    Proof,
    ResumptionAnswer,
    ResumptionProof,
    ResumptionRequest,
    decode_frame,
    encode_frame,
)
from needfire_protocol.limits import HANDSHAKE_FRAME_BYTES_MAX
from needfire_protocol.messages import RefusalCode

number = st.integers(1, 255)
offers = st.lists(number, min_size=1, max_size=8, unique=True).map(tuple)
bits_32 = st.integers(0, 2**32 - 1)
bytes_16 = st.binary(min_size=16, max_size=16)
bytes_32 = st.binary(min_size=32, max_size=32)
public = st.binary(min_size=384, max_size=384)
names = st.from_regex(r"[a-z0-9_:-][a-z0-9._:-]{0,254}", fullmatch=True)

STRATEGIES: dict[type[Any], st.SearchStrategy[Any]] = {
    Hello: st.builds(Hello, offers, offers, bits_32, st.booleans(), names, bytes_32, public),
    Challenge: st.builds(Challenge, number, number, bits_32, bytes_32, bytes_16, public),
    Proof: st.builds(Proof, bytes_32, bytes_32),
    Confirmation: st.builds(Confirmation, bytes_32, bytes_32),
    ResumptionRequest: st.builds(ResumptionRequest, number, number, bits_32, bytes_16, bytes_32),
    ResumptionAnswer: st.builds(ResumptionAnswer, bytes_32, bytes_32),
    ResumptionProof: st.builds(ResumptionProof, bytes_32),
    PlainRefusal: st.builds(PlainRefusal, st.sampled_from(RefusalCode), st.just(b"") | bytes_32),
}
every_frame = st.one_of(*STRATEGIES.values())

HELLO = Hello((1,), (1, 2), 0, False, "web1.example.org", bytes(32), bytes(384))
CHALLENGE = Challenge(1, 1, 0, bytes(32), bytes(16), bytes(384))
LONGEST = Hello(
    tuple(range(248, 256)),
    tuple(range(248, 256)),
    2**32 - 1,
    True,
    "x" * 255,
    bytes(32),
    bytes(384),
)


def frame_of(raw: bytes) -> Frame:
    reader = FrameReader()
    reader.feed(raw)
    frame = reader.next_frame(frozenset(FrameType))
    assert frame is not None
    assert reader.buffered_bytes == 0
    return frame


def test_every_plain_frame_has_a_table_and_a_strategy() -> None:
    assert set(STRATEGIES) == set(FRAME_TABLES)
    for kind, (_, table) in FRAME_TABLES.items():
        assert list(table) == [each.name for each in fields(kind)]
    used = [frame_type for frame_type, _ in FRAME_TABLES.values()]
    assert sorted(used) == sorted(set(FrameType) - {FrameType.SEALED})


@given(every_frame)
def test_every_plain_frame_survives_its_bytes(content: Any) -> None:
    frame = frame_of(encode_frame(content))
    assert frame.type is FRAME_TABLES[type(content)][0]
    assert decode_frame(frame, type(content)) == content
    assert frame.raw == encode_frame(content)


@given(st.sampled_from(list(FRAME_TABLES)), st.binary(max_size=600), st.booleans())
def test_any_body_gives_a_frame_or_a_protocol_error(
    kind: type[Any], body: bytes, has_version: bool
) -> None:
    frame = Frame(FRAME_TABLES[kind][0], b"\x01" + body if has_version else body)
    try:
        content = decode_frame(frame, kind)
    except RemoteProtocolError:
        return
    assert decode_frame(frame_of(encode_frame(content)), kind) == content


def test_the_longest_hello_is_far_below_the_limit_of_a_plain_frame() -> None:
    assert len(encode_frame(LONGEST)) < 800 < HANDSHAKE_FRAME_BYTES_MAX
    assert decode_frame(frame_of(encode_frame(LONGEST)), Hello) == LONGEST


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_layout_is_refused(version: int) -> None:
    body = bytes((version,)) + frame_of(encode_frame(HELLO)).body[1:]
    with pytest.raises(RemoteProtocolError, match="layout"):
        decode_frame(Frame(FrameType.HELLO, body), Hello)


def test_an_empty_body_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        decode_frame(Frame(FrameType.HELLO, b""), Hello)


def test_a_name_is_compared_in_lower_case() -> None:
    raw = encode_frame(replace(HELLO, name="WEB1.Example.ORG"))
    assert b"WEB1.Example.ORG" in raw
    assert decode_frame(frame_of(raw), Hello).name == "web1.example.org"


BAD_FIELDS: list[tuple[Any, dict[str, Any]]] = [
    (HELLO, {"versions": ()}),
    (HELLO, {"versions": (0,)}),
    (HELLO, {"versions": (256,)}),
    (HELLO, {"versions": (1, 1)}),
    (HELLO, {"versions": tuple(range(1, 10))}),
    (HELLO, {"versions": (True,)}),
    (HELLO, {"suites": ()}),
    (HELLO, {"suites": ("1",)}),
    (HELLO, {"features": -1}),
    (HELLO, {"features": 2**32}),
    (HELLO, {"takeover": 1}),
    (HELLO, {"takeover": None}),
    (HELLO, {"name": ""}),
    (HELLO, {"name": "x" * 256}),
    (HELLO, {"name": "../rc"}),
    (HELLO, {"name": ".hidden"}),
    (HELLO, {"name": "a\nb"}),
    (HELLO, {"name": "a\0b"}),
    (HELLO, {"name": "häst"}),
    (HELLO, {"name": b"web1"}),
    (HELLO, {"random": bytes(31)}),
    (HELLO, {"random": bytes(33)}),
    (HELLO, {"random": None}),
    (HELLO, {"public": b""}),
    (HELLO, {"public": bytes(383)}),
    (HELLO, {"public": bytes(385)}),
    (HELLO, {"public": "x" * 384}),
    (HELLO, {"public": None}),
    (CHALLENGE, {"version": 0}),
    (CHALLENGE, {"suite": 256}),
    (CHALLENGE, {"salt": bytes(15)}),
    (CHALLENGE, {"salt": None}),
    (CHALLENGE, {"public": None}),
    (Proof(bytes(32), bytes(32)), {"proof": None}),
    (Proof(bytes(32), bytes(32)), {"proof": bytes(20)}),
    (Proof(bytes(32), bytes(32)), {"finished": b""}),
    (Confirmation(bytes(32), bytes(32)), {"proof": None}),
    (Confirmation(bytes(32), bytes(32)), {"proof": b""}),
    (Confirmation(bytes(32), bytes(32)), {"finished": None}),
    (ResumptionRequest(1, 1, 0, bytes(16), bytes(32)), {"session_id": bytes(15)}),
    (ResumptionAnswer(bytes(32), bytes(32)), {"finished": None}),
    (ResumptionProof(bytes(32)), {"finished": None}),
    (PlainRefusal(RefusalCode.BUSY, b""), {"code": 0}),
    (PlainRefusal(RefusalCode.BUSY, b""), {"code": 9}),
    (PlainRefusal(RefusalCode.BUSY, b""), {"mac": bytes(31)}),
    (PlainRefusal(RefusalCode.BUSY, b""), {"mac": None}),
]


@pytest.mark.parametrize(("good", "changes"), BAD_FIELDS, ids=range(len(BAD_FIELDS)))
def test_a_field_out_of_bounds_is_refused_by_encoder_and_decoder(
    good: Any, changes: dict[str, Any]
) -> None:
    kind = type(good)
    assert decode_frame(frame_of(encode_frame(good)), kind) == good
    bad = replace(good, **changes)
    with pytest.raises(FormatError):
        encode_frame(bad)
    values = [getattr(bad, each.name) for each in fields(bad)]
    values = [list(value) if isinstance(value, tuple) else value for value in values]
    body = b"\x01" + encode([int(v) if isinstance(v, RefusalCode) else v for v in values])
    raw = frame_bytes(FRAME_TABLES[kind][0], body)
    with pytest.raises(RemoteProtocolError, match="malformed"):
        decode_frame(frame_of(raw), kind)
