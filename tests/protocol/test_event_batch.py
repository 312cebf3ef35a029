"""The events of a batch read together are those that are read one by one."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.classic import xml_line
from needfire_protocol.classic_batch import xml_lines
from needfire_protocol.codec import decode_flat, encode
from needfire_protocol.errors import FormatError
from needfire_protocol.event import MSG_TEXT_MAX, Event, make_event, pack_event, unpack_event
from needfire_protocol.event_batch import unpack_usual_events
from needfire_protocol.limits import EVENT_DECODING
from needfire_testkit.event_strategies import hostile_bodies, made_events, usual_batches

CLIENT = "web1.example.org"
RECEIVED_US = 1_795_290_047_123_456


def body(**fields: Any) -> dict[str, Any]:
    """Return what an agent sends of a file that changed; some parts otherwise."""
    event = make_event("POLICY_ADDED", time_us=1, random_10_bytes=bytes(10), path="/etc/x", size=1)
    return pack_event(event) | fields


def one_by_one(bodies: Sequence[bytes]) -> list[Event] | None:
    try:
        return [
            unpack_event(
                decode_flat(each, limits=EVENT_DECODING), client=CLIENT, received_us=RECEIVED_US
            )
            for each in bodies
        ]
    except FormatError:
        return None


def assert_read_alike(bodies: Sequence[bytes]) -> bool:
    """Assert that reading them together gives the same, or nothing; return whether it gave any."""
    usual = unpack_usual_events(bodies, client=CLIENT, received_us=RECEIVED_US)
    if usual is None:
        return False
    assert usual.events == one_by_one(bodies)
    assert sorted(place for alike in usual.alike for place in alike.places) == [*range(len(bodies))]
    for alike in usual.alike:
        whose = [usual.events[place] for place in alike.places]
        assert {each.code for each in whose} == {alike.code}
        rows = [
            dict(zip(alike.names, row, strict=True)) for row in zip(*alike.columns, strict=True)
        ]
        assert rows == [each.fields for each in whose] or not alike.names
        assert alike.kinds == [frozenset(map(type, column)) for column in alike.columns]
    return True


@given(st.lists(made_events(), min_size=1, max_size=8))
def test_what_our_agents_send_is_read_together(events: list[Event]) -> None:
    is_short = all(
        len(value.encode("utf-8", "replace")) <= MSG_TEXT_MAX
        for event in events
        for value in (event.msg, *event.fields.values())
        if isinstance(value, str)
    )
    assert assert_read_alike([encode(pack_event(event)) for event in events]) == is_short


def packed(bodies: Sequence[Any]) -> list[bytes]:
    try:
        return [encode(each) for each in bodies]
    except FormatError:
        return [b"\xc1"]


@given(
    usual=st.lists(made_events().map(pack_event), max_size=3),
    bad=hostile_bodies(),
    at=st.integers(0, 3),
)
def test_whatever_stands_between_usual_ones_is_not_read_otherwise(
    usual: list[Any], bad: Any, at: int
) -> None:
    assert_read_alike(packed([*usual[:at], bad, *usual[at:]]))


@given(
    bodies=st.lists(made_events().map(pack_event).map(encode), min_size=1, max_size=3),
    at=st.integers(0, 2_000),
    byte=st.integers(0, 255),
    cut=st.integers(0, 2_000),
)
def test_bytes_that_were_changed_or_moved_to_a_neighbour_are_not_read_otherwise(
    bodies: list[bytes], at: int, byte: int, cut: int
) -> None:
    stream = b"".join(bodies)
    changed = bytearray(bodies[0])
    changed[at % len(changed)] = byte
    assert_read_alike([bytes(changed), *bodies[1:]])
    place = cut % len(stream)
    assert not assert_read_alike([stream[:place], stream[place:], b""])


@pytest.mark.parametrize(
    "bad",
    [
        body(id="0" * 36),
        body(id="01234567-0123-7123-8123-0123456789AB"),
        body(id="01234567-0123-7123-8123-0123456789a"),
        body(id=b""),
        body(time_us=-1),
        body(time_us=253_402_300_800_000_000),
        body(time_us=True),
        body(code="lower"),
        body(code="A_CODE_OF_A_NEWER_AGENT"),
        body(code=1),
        body(severity=0),
        body(severity=True),
        body(**{"class": "unknown"}),
        body(msg="a\nb"),
        body(msg="\u202e"),
        body(msg="x" * (MSG_TEXT_MAX + 1)),
        body(fields=[]),
        body(fields={"Upper": 1}),
        body(fields={"a": 1.5}),
        body(fields={"a": {}}),
        body(fields={"a": "\x7f"}),
        body(fields={f"f{number}": 1 for number in range(97)}),
        body(more=1),
        dict(reversed(body().items())),
        [],
        None,
    ],
    ids=range(26),
)
def test_a_batch_with_one_that_is_not_as_usual_is_left_to_be_read_one_by_one(bad: Any) -> None:
    good = encode(body())
    assert assert_read_alike([good, good])
    assert not assert_read_alike([good, encode(bad), good])


def test_two_halves_of_one_report_are_not_read_as_one() -> None:
    good = encode(body())
    assert not assert_read_alike([good, good[:9], good[9:]])
    assert not assert_read_alike([good + good])
    assert not assert_read_alike([good + good, b""])
    assert not assert_read_alike([])


def test_a_key_that_stands_twice_is_not_read_as_one() -> None:
    twice = encode(body()).replace(b"\xa4size", b"\xa4path")
    assert not assert_read_alike([twice])


@pytest.mark.parametrize("mark", ['"', "\\", "&", "<", ">"])
def test_what_json_or_xml_would_have_to_escape_is_noticed(mark: str) -> None:
    for changed in (body(msg=f"a{mark}"), body(fields={"path": "a", "other": f"é{mark}"})):
        usual = unpack_usual_events([encode(body()), encode(changed)], client="a", received_us=1)
        assert usual is not None
        assert not usual.is_plain
    usual = unpack_usual_events([encode(body())], client="a", received_us=1)
    assert usual is not None
    assert usual.is_plain


@given(usual_batches(), st.sampled_from([CLIENT, "a&b", "100%"]))
def test_the_lines_of_a_batch_are_those_of_its_events(bodies: list[bytes], shown: str) -> None:
    usual = unpack_usual_events(bodies, client=CLIENT, received_us=RECEIVED_US)
    assert usual is not None
    expected = [xml_line(event.received(shown, RECEIVED_US)) for event in usual.events]
    assert xml_lines(usual, shown) == expected
