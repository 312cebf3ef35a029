"""What one server says to another of a report: whose it is and which way it came, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.codec import encode
from needfire_protocol.errors import FormatError
from needfire_protocol.event import make_event, pack_event
from needfire_protocol.limits import RELAYED_DECODING, RELAYS_MAX
from needfire_protocol.names import is_relayed_name, parse_client_name, parse_reporter_name
from needfire_protocol.relayed import Relayed, decode_relayed, encode_relayed
from needfire_testkit.event_strategies import made_events

NAMES = st.lists(st.sampled_from(["web1", "a.example.org", "10.0.0.1", "_"]), max_size=RELAYS_MAX)
EVENT = make_event("WAKEUP", time_us=1, random_10_bytes=bytes(10))


def body(**changes: Any) -> bytes:
    """A good body of the client web1 of a relay, with something else in it."""
    parts = {"names": ["web1"], "path": [b"r" * 16], "event": pack_event(EVENT)}
    return encode(parts | changes)


def decode(data: bytes) -> Relayed:
    return decode_relayed(data, relay="hall", received_us=7)


@given(NAMES, made_events(), st.booleans())
def test_what_was_written_is_read_with_the_name_of_the_relay_before_it(
    names: list[str], event: Any, is_own: bool
) -> None:
    path = tuple(bytes([n]) * 16 for n in range(len(names) + (is_own or not names)))
    told = decode(encode_relayed(Relayed(tuple(names), path, event)))
    assert told.names == tuple(names)
    assert told.path == path
    client = "/".join(("hall", *names))
    assert told.event == replace(event, client=client, received_us=7)
    assert parse_reporter_name(client) == client


@given(st.binary(max_size=300))
def test_nonsense_is_refused_and_never_more(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"names": ["../etc"]},
        {"names": ["a/b"]},
        {"names": ["Web1"]},
        {"names": [""]},
        {"names": [1]},
        {"names": "web1"},
        {"names": None},
        {"path": []},
        {"path": [b"r" * 15]},
        {"path": [b"r" * 17]},
        {"path": ["r" * 16]},
        {"path": b"r" * 16},
        {"names": ["a", "b"]},
        {"names": [], "path": [b"r" * 16] * 2},
        {"path": [b"r" * 16] * 3},
        {"event": {}},
        {"event": None},
        {"more": 1},
    ],
    ids=repr,
)
def test_a_body_that_lies_about_its_form_is_refused(changes: dict[str, Any]) -> None:
    assert decode(body()).event.client == "hall/web1"
    with pytest.raises(FormatError):
        decode(body(**changes))


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_way_beyond_what_is_decoded_is_refused(beyond: int) -> None:
    count = RELAYED_DECODING.array_items_max + beyond
    data = body(names=["n"] * count, path=[b"r" * 16] * count)
    if beyond:
        with pytest.raises(FormatError, match="not decodable"):
            decode(data)
    else:
        assert len(decode(data).path) == count


def test_the_servers_on_the_way_are_told_by_the_receivers_names() -> None:
    hall, cellar = b"h" * 16, b"c" * 16
    of_agent = Relayed(("cellar", "web1"), (cellar, hall), EVENT)
    of_server = Relayed(("cellar",), (cellar, hall), EVENT)
    assert of_agent.relays("hall") == of_server.relays("hall")
    assert of_agent.relays("hall") == {"hall": hall, "hall/cellar": cellar}
    assert Relayed((), (hall,), EVENT).relays("hall") == {"hall": hall}


@pytest.mark.parametrize("name", ["hall/web1", "a/b/c/d/e"])
def test_a_name_behind_relays_is_never_the_name_of_a_client(name: str) -> None:
    assert is_relayed_name(name)
    assert parse_reporter_name(name.upper()) == name
    with pytest.raises(FormatError):
        parse_client_name(name)


@pytest.mark.parametrize(
    "name", ["a/b/c/d/e/f", "/", "a/", "/a", "a//b", "a/../b", "a/.b", "", "a b"]
)
def test_what_is_no_way_of_names_is_refused(name: str) -> None:
    with pytest.raises(FormatError):
        parse_reporter_name(name)
