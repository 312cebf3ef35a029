"""A sealed record opens once, in its place, in its direction, unchanged; or not at all."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol import seal
from needfire_protocol.errors import LocalProtocolError, RemoteProtocolError
from needfire_protocol.framing import Frame, FrameType
from needfire_protocol.limits import SEALED_FRAME_BYTES_MAX, SEALED_TAG_BYTES
from needfire_protocol.seal import Direction, Opener, Sealer, Suite

KEY = bytes(range(32))
A, S = Direction.AGENT_TO_SERVER, Direction.SERVER_TO_AGENT

every_suite = pytest.mark.parametrize("suite", Suite)
suites = st.sampled_from(Suite)


def frame_of(raw: bytes) -> Frame:
    return Frame(FrameType(raw[0]), raw[5:])


def sealed(suite: Suite, *messages: bytes) -> list[Frame]:
    sealer = Sealer(suite, KEY, A)
    return [frame_of(sealer.seal(message)) for message in messages]


@given(suites, st.lists(st.binary(max_size=200), max_size=6))
def test_messages_open_in_the_order_in_which_they_were_sealed(
    suite: Suite, messages: list[bytes]
) -> None:
    opener = Opener(suite, KEY, A)
    assert [opener.open(frame) for frame in sealed(suite, *messages)] == messages


@every_suite
def test_a_record_is_the_documented_bytes(suite: Suite) -> None:
    """Computed again from the cipher itself: nonce, associated data, and what is sent."""
    cipher = ChaCha20Poly1305(KEY) if suite is Suite.CHACHA20_POLY1305 else AESGCM(KEY)
    sealer = Sealer(suite, KEY, S)
    for number, message in enumerate((b"first", b"second")):
        header = b"\x20" + (len(message) + 16).to_bytes(4, "big")
        nonce = bytes(4) + number.to_bytes(8, "big")
        body = cipher.encrypt(nonce, message, b"needfire 1 server to agent" + header)
        assert sealer.seal(message) == header + body


@given(suites, st.binary(max_size=40), st.integers(min_value=0))
def test_a_flipped_bit_is_noticed(suite: Suite, message: bytes, position: int) -> None:
    (frame,) = sealed(suite, message)
    body = bytearray(frame.body)
    bit = position % (8 * len(body))
    body[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteProtocolError, match="not authentic"):
        Opener(suite, KEY, A).open(Frame(frame.type, bytes(body)))


@every_suite
@pytest.mark.parametrize("kept", [0, 1, 15, 16, 17, 20])
def test_a_shortened_record_is_noticed(suite: Suite, kept: int) -> None:
    (frame,) = sealed(suite, b"12345")
    with pytest.raises(RemoteProtocolError):
        Opener(suite, KEY, A).open(Frame(frame.type, frame.body[:kept]))


@every_suite
def test_a_lengthened_record_is_noticed(suite: Suite) -> None:
    (frame,) = sealed(suite, b"12345")
    with pytest.raises(RemoteProtocolError):
        Opener(suite, KEY, A).open(Frame(frame.type, frame.body + b"\0"))


@every_suite
def test_a_replayed_record_is_noticed(suite: Suite) -> None:
    (frame,) = sealed(suite, b"once")
    opener = Opener(suite, KEY, A)
    opener.open(frame)
    with pytest.raises(RemoteProtocolError):
        opener.open(frame)


@every_suite
def test_a_lost_record_is_noticed_at_the_next_one(suite: Suite) -> None:
    first, _lost, third = sealed(suite, b"1", b"2", b"3")
    opener = Opener(suite, KEY, A)
    opener.open(first)
    with pytest.raises(RemoteProtocolError):
        opener.open(third)


@every_suite
def test_exchanged_records_are_noticed(suite: Suite) -> None:
    _, second = sealed(suite, b"1", b"2")
    with pytest.raises(RemoteProtocolError):
        Opener(suite, KEY, A).open(second)


@every_suite
def test_a_record_that_is_sent_back_is_noticed_even_if_the_keys_were_equal(suite: Suite) -> None:
    (frame,) = sealed(suite, b"reflected")
    with pytest.raises(RemoteProtocolError):
        Opener(suite, KEY, S).open(frame)


@every_suite
def test_another_key_opens_nothing(suite: Suite) -> None:
    (frame,) = sealed(suite, b"secret")
    with pytest.raises(RemoteProtocolError):
        Opener(suite, bytes(32), A).open(frame)


def test_another_suite_opens_nothing() -> None:
    (frame,) = sealed(Suite.CHACHA20_POLY1305, b"secret")
    with pytest.raises(RemoteProtocolError):
        Opener(Suite.AES_256_GCM, KEY, A).open(frame)


@every_suite
def test_the_type_in_the_header_is_authentic(suite: Suite) -> None:
    (frame,) = sealed(suite, b"typed")
    with pytest.raises(RemoteProtocolError):
        Opener(suite, KEY, A).open(Frame(FrameType.HELLO, frame.body))


@every_suite
@pytest.mark.parametrize(("beyond", "fits"), [(-1, True), (0, True), (1, False)])
def test_the_longest_message_fits_a_frame_exactly(suite: Suite, beyond: int, fits: bool) -> None:
    message = bytes(SEALED_FRAME_BYTES_MAX - 5 - SEALED_TAG_BYTES + beyond)
    sealer = Sealer(suite, KEY, A)
    if not fits:
        with pytest.raises(LocalProtocolError, match="does not fit"):
            sealer.seal(message)
        return
    frame = frame_of(sealer.seal(message))
    assert len(frame.raw) <= SEALED_FRAME_BYTES_MAX
    assert Opener(suite, KEY, A).open(frame) == message


@every_suite
def test_a_key_seals_and_opens_so_many_records_and_no_more(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "RECORDS_PER_KEY_MAX", 3)
    sealer, opener = Sealer(suite, KEY, A), Opener(suite, KEY, A)
    for number in range(3):
        assert sealer.records_left == 3 - number
        opener.open(frame_of(sealer.seal(b"x")))
    assert sealer.records_left == opener.records_left == 0
    with pytest.raises(LocalProtocolError, match="worn out"):
        sealer.seal(b"x")
    with pytest.raises(RemoteProtocolError, match="more than 3 records"):
        opener.open(Frame(FrameType.SEALED, bytes(17)))
