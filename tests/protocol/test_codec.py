"""Decoding gives plain values within limits, or FormatError; nothing else ever."""

import math
import struct
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.codec import (
    decode,
    decode_array,
    decode_flat,
    decode_flat_all,
    encode,
    encode_array_header,
)
from needfire_protocol.errors import FormatError
from needfire_protocol.limits import DecodingLimits

WIDE = DecodingLimits(
    size_bytes_max=100_000,
    text_bytes_max=1_000,
    binary_bytes_max=1_000,
    array_items_max=100,
    map_items_max=100,
    depth_max=8,
)
SMALL = DecodingLimits(
    size_bytes_max=40,
    text_bytes_max=4,
    binary_bytes_max=4,
    array_items_max=3,
    map_items_max=3,
    depth_max=2,
)
NOTHING = DecodingLimits(
    size_bytes_max=40,
    text_bytes_max=0,
    binary_bytes_max=0,
    array_items_max=0,
    map_items_max=0,
    depth_max=0,
)

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(values)
def test_values_survive_encoding_and_decoding(value: object) -> None:
    try:
        decoded = decode(encode(value), limits=WIDE)
    except FormatError as error:
        assert "nested deeper" in str(error)  # noqa: PT017 -- deep ones are drawn now and then
        return
    assert decoded == value
    assert repr(decoded) == repr(value)  # 1 is not True, and 0.0 is not 0


@given(st.lists(values, max_size=20))
def test_a_list_that_is_decoded_one_by_one_has_the_same_values(found: list[object]) -> None:
    data = b"before" + encode(found) + b"behind"
    end = len(data) - len(b"behind")
    try:
        whole = decode(data[6:end], limits=WIDE)
    except FormatError:
        with pytest.raises(FormatError):
            list(decode_array(data, 6, end, limits=WIDE))
        return
    assert repr(list(decode_array(data, 6, end, limits=WIDE))) == repr(whole)


@given(data=st.binary(max_size=300), end=st.integers(0, 300))
def test_any_bytes_one_by_one_are_what_they_are_as_a_whole(data: bytes, end: int) -> None:
    for limits in (WIDE, SMALL):
        try:
            whole = decode(data[:end], limits=limits)
        except FormatError:
            whole = None
        try:
            found = list(decode_array(data[:end], 0, len(data[:end]), limits=limits))
        except FormatError:
            found = None
        if found is not None or isinstance(whole, list):
            assert repr(found) == repr(whole)


@pytest.mark.parametrize("missing", [1, -1])
def test_a_list_that_ends_elsewhere_is_a_format_error(missing: int) -> None:
    data = encode([1, 2, 3]) + b"\x01"
    with pytest.raises(FormatError, match="does not end"):
        list(decode_array(data, 0, len(data) - 1 + missing, limits=WIDE))


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
def test_the_header_of_a_list_is_what_it_begins_with(count: int) -> None:
    header = encode_array_header(count)
    assert encode([None] * count) == header + b"\xc0" * count


@given(st.binary(max_size=300))
def test_any_bytes_give_a_value_or_a_format_error(data: bytes) -> None:
    for limits in (WIDE, SMALL):
        try:
            value = decode(data, limits=limits)
        except FormatError:
            continue
        assert _depth(value) <= limits.depth_max
        assert encode(value)


def _depth(value: object) -> int:
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 0


def test_the_compiled_decoder_is_installed() -> None:
    """The fallback is fifty times slower and has other limits of its own."""
    assert msgpack.Unpacker.__module__ == "msgpack._cmsgpack"


def test_tuples_become_arrays_and_bytes_stay_bytes() -> None:
    assert decode(encode((1, b"\xff", "ä")), limits=WIDE) == [1, b"\xff", "ä"]


@pytest.mark.parametrize(
    ("at_limit", "beyond"),
    [
        ("abcd", "abcde"),
        ("ää", "äää"),
        (b"1234", b"12345"),
        ([1, 2, 3], [1, 2, 3, 4]),
        ({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2, "c": 3, "d": 4}),
        ([[1]], [[[1]]]),
        ({"a": {"b": 1}}, {"a": {"b": {}}}),
        ([[]], [[[]]]),
    ],
)
def test_each_limit_holds_exactly(at_limit: object, beyond: object) -> None:
    assert decode(encode(at_limit), limits=SMALL) == at_limit
    with pytest.raises(FormatError):
        decode(encode(beyond), limits=SMALL)


def test_the_size_is_checked_before_anything_is_decoded() -> None:
    limits = DecodingLimits(40, 100, 100, 100, 100, 8)
    assert decode(encode(b"x" * 38), limits=limits)
    with pytest.raises(FormatError, match="41 encoded bytes exceed the limit of 40"):
        decode(encode(b"x" * 39), limits=limits)


@pytest.mark.parametrize("value", ["a", b"b", [1], {"a": 1}, []])
def test_a_limit_of_zero_means_none_of_that_kind(value: object) -> None:
    with pytest.raises(FormatError):
        decode(encode(value), limits=NOTHING)


HOSTILE = {
    "empty": b"",
    "reserved byte": b"\xc1",
    "truncated array": b"\x92\x01",
    "truncated text": b"\xa5ab",
    "bytes beyond the value": b"\x01\x02",
    "array of 4 G items": b"\xdd\xff\xff\xff\xff",
    "map of 4 G items": b"\xdf\xff\xff\xff\xff",
    "text of 4 G bytes": b"\xdb\xff\xff\xff\xff",
    "bytes of 4 G": b"\xc6\xff\xff\xff\xff",
    "duplicate key": b"\x82\xa1a\x01\xa1a\x02",
    "key that is bytes": b"\x81\xc4\x01a\x01",
    "key that is a number": b"\x81\x01\x01",
    "key that is nil": b"\x81\xc0\x01",
    "key that is an array": b"\x81\x90\x01",
    "key that is a map": b"\x81\x80\x01",
    "not a number": b"\xcb" + struct.pack(">d", math.nan),
    "infinity": b"\xcb" + struct.pack(">d", math.inf),
    "minus infinity, short": b"\xca" + struct.pack(">f", -math.inf),
    "not a number, inside": b"\x91\x81\xa1a\xcb" + struct.pack(">d", math.nan),
    "timestamp": b"\xd6\xff\x00\x00\x00\x00",
    "extension": b"\xd4\x05\x00",
    "extension without data": b"\xc7\x00\x05",
    "timestamp without data": b"\xc7\x00\xff",
    "text that is not UTF-8": b"\xa1\xff",
    "text that is half a surrogate pair": b"\xa3\xed\xa0\x80",
    "deep arrays": b"\x91" * 5_000 + b"\xc0",
    "deep maps": b"\x81\xa1a" * 5_000 + b"\xc0",
    "very deep arrays": b"\x91" * 90_000 + b"\xc0",
    "many small maps": b"\xdc\xff\xff" + b"\x80" * 65_535,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode(data, limits=WIDE)


@pytest.mark.parametrize("value", ["\ud800", 2**64, -(2**63) - 1, {"a": "\udfff"}])
def test_what_has_no_encoding_is_a_format_error(value: object) -> None:
    with pytest.raises(FormatError):
        encode(value)


def test_encoding_another_type_is_a_bug_and_not_hidden() -> None:
    not_plain: Any = object()
    with pytest.raises(TypeError):
        encode(not_plain)


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_library_s_fallback_refuses_the_same_bytes(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host without the compiled module must not be open where others are closed."""
    from msgpack import fallback

    def unpackb(packed: bytes, **keywords: Any) -> object:
        unpacker = fallback.Unpacker(None, max_buffer_size=len(packed), **keywords)
        unpacker.feed(packed)
        try:
            value = unpacker._unpack()
        except msgpack.OutOfData:
            raise ValueError("incomplete") from None
        if unpacker._got_extradata():
            raise msgpack.ExtraData(value, unpacker._get_extradata())
        return value

    monkeypatch.setattr(msgpack, "unpackb", unpackb)
    with pytest.raises(FormatError):
        decode(data, limits=WIDE)


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\xa1a\x01\xa1a\x02",
        b"\x82\xa1a\xcc\x01\xa1b\x02",
        b"\x81\xa1a\x01\x00",
        b"\x81\xa1a",
        b"\x81\xa1a\xd4\x05\x00",
        b"\x81\xa1a\xc4\x01x",
        b"\x81\xa5abcde\x01",
        b"\x84\xa1a\x01\xa1b\x01\xa1c\x01\xa1d\x01",
        bytes(41),
        b"",
    ],
)
def test_what_is_flat_decodes_the_same_by_the_short_way(data: bytes) -> None:
    limits = replace(SMALL, binary_bytes_max=0)
    assert outcome(decode_flat, data, limits) == outcome(decode, data, limits)


@given(
    value=st.dictionaries(
        st.text(max_size=4), st.none() | st.booleans() | st.integers(-5, 2**64 - 1) | st.text()
    ),
    at=st.integers(0, 60),
    byte=st.integers(0, 255),
)
def test_any_flat_map_and_most_of_what_is_nearly_one_decode_the_same_by_the_short_way(
    value: dict[str, Any], at: int, byte: int
) -> None:
    data = encode(value)
    assert decode_flat(data, limits=WIDE) == decode(data, limits=WIDE)
    broken = data[:at] + bytes([byte]) + data[at + 1 :]
    found, expected = outcome(decode_flat, broken, FLAT), outcome(decode, broken, FLAT)
    if isinstance(found, FormatError | str) or is_flat(found):
        assert found == expected


@given(
    values=st.lists(
        st.dictionaries(st.text(max_size=4), st.integers(-5, 300) | st.text(max_size=9)), max_size=4
    ),
    cuts=st.lists(st.integers(0, 100), max_size=4),
)
def test_maps_that_are_decoded_together_are_decoded_as_they_were_cut(
    values: list[Any], cuts: list[int]
) -> None:
    whole = [encode(value) for value in values]
    assert decode_flat_all(whole, limits=FLAT) == values
    stream = b"".join(whole)
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(places)]
    found = decode_flat_all(pieces, limits=FLAT)
    assert found is None or found == [decode(piece, limits=FLAT) for piece in pieces]


@pytest.mark.parametrize("size", [40, 41])
def test_each_of_those_that_are_decoded_together_has_the_limit_of_one(size: int) -> None:
    whole = [encode({"a": "x" * 4}), encode({"a": "", "b": 1})]
    assert decode_flat_all(whole, limits=SMALL) is not None
    assert decode_flat_all([*whole, bytes(size)], limits=SMALL) is None
    for beyond in ({"a": "x" * 5}, {"a": b"x"}, {"a": [1]}, dict.fromkeys("abcd", 1)):
        limits = replace(SMALL, binary_bytes_max=0, array_items_max=0)
        assert decode_flat_all([encode(beyond)], limits=limits) is None


def test_a_million_values_in_the_place_of_one_are_not_made() -> None:
    tracemalloc.start()
    try:
        assert decode_flat_all([bytes(99_000), bytes(99_000)], limits=WIDE) is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def outcome(how: Any, data: bytes, limits: DecodingLimits) -> Any:
    try:
        return how(data, limits=limits)
    except FormatError as error:
        return f"refused: {error}"


def is_flat(value: Any) -> bool:
    """What a caller of the short way lets pass."""
    if type(value) is not dict:
        return False
    return all(type(key) is str for key in value) and all(
        each is None or type(each) in (bool, int, str) for each in value.values()
    )


FLAT = replace(WIDE, binary_bytes_max=0, array_items_max=0, depth_max=2)


def test_arrays_come_back_as_tuples_where_that_is_asked_for() -> None:
    value = {"a": [1, [2, "x"]]}
    assert decode(encode(value), limits=WIDE) == value
    read = decode(encode(value), limits=WIDE, is_only_compared=True, as_tuples=True)
    assert read == {"a": (1, (2, "x"))}


@pytest.mark.parametrize("bad", [[1, "a", "\ud800"], [b"x" * 300_000, 2**64], ["a", object()]])
def test_what_could_not_be_encoded_leaves_nothing_to_what_comes_next(bad: object) -> None:
    with pytest.raises((FormatError, TypeError)):
        encode(bad)
    assert encode([1, "a"]) == b"\x92\x01\xa1a"
