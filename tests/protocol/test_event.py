"""Events: made from the catalogue, packed for the wire, unpacked with suspicion, written as JSON."""

import json
import re
import uuid
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.catalogue import CATALOGUE, EventClass
from needfire_protocol.codec import decode, decode_flat, encode
from needfire_protocol.errors import FormatError
from needfire_protocol.escape import escape_bytes, unescape_bytes
from needfire_protocol.event import (
    FIELD_COUNT_MAX,
    FIELD_TEXT_MAX,
    MSG_TEXT_MAX,
    Event,
    FieldValue,
    event_id,
    event_to_json,
    format_time,
    make_event,
    pack_event,
    parse_time,
    unpack_event,
)
from needfire_protocol.limits import EVENT_DECODING
from needfire_protocol.severity import Severity
from needfire_testkit.event_strategies import events, hostile_bodies, made_events

RANDOM = bytes(range(10))
TIME_US = 1_795_290_047_123_456
MODIFIED = make_event(
    "POLICY_MODIFIED",
    time_us=TIME_US,
    random_10_bytes=RANDOM,
    policy="ReadOnly",
    change="C----M--TS",
    path="/etc/hosts",
    size_old=6,
    size_new=14,
)


def packed(**changes: Any) -> dict[str, Any]:
    return {**pack_event(MODIFIED), **changes}


def test_the_json_form_is_the_documented_one() -> None:
    received = MODIFIED.received("web1.example.org", TIME_US + 1_000_000)
    assert event_to_json(received) == (
        '{"v":1,"id":"01a1ffa0-2293-7001-8203-040506070809",'
        '"time":"2026-11-21T19:40:47.123456Z","received":"2026-11-21T19:40:48.123456Z",'
        '"client":"web1.example.org","class":"integrity","severity":"crit",'
        '"code":"POLICY_MODIFIED","msg":"POLICY [ReadOnly] C----M--TS",'
        '"fields":{"policy":"ReadOnly","change":"C----M--TS","path":"/etc/hosts",'
        '"size_old":6,"size_new":14}}'
    )


def test_the_json_of_the_server_s_own_event_has_no_client_and_no_receipt() -> None:
    data = json.loads(event_to_json(MODIFIED))
    assert data["client"] is None
    assert "received" not in data


@given(events)
def test_json_is_one_line_whatever_an_event_holds(event: Event) -> None:
    line = event_to_json(event)
    assert len(line.splitlines()) == 1 or not all(
        str(value).isprintable() for value in [event.msg, *event.fields.values()]
    )
    assert "\n" not in line
    assert "\r" not in line
    data = json.loads(line)
    assert data["fields"] == dict(event.fields)
    assert data["msg"] == event.msg
    assert parse_time(data["time"]) == event.time_us


@given(made_events())
def test_the_json_of_an_event_that_we_made_is_one_printable_line(event: Event) -> None:
    assert event_to_json(event).isprintable()


@given(made_events())
def test_an_event_survives_its_way_to_the_server(event: Event) -> None:
    body = encode(pack_event(event))
    unpacked = unpack_event(decode(body, limits=EVENT_DECODING))
    assert unpacked == event
    with pytest.raises(FrozenInstanceError):
        unpacked.code = "OTHER"  # type: ignore[misc]


@given(hostile_bodies())
def test_any_body_gives_an_event_or_a_format_error(body: Any) -> None:
    try:
        event = unpack_event(body)
    except FormatError:
        return
    assert event_to_json(event).isprintable()
    assert unpack_event(pack_event(event)) == event


def test_a_path_can_be_recovered_from_its_field() -> None:
    path = b"/tmp/evil\n\xff\\x00 \xe2\x80\xae"
    event = make_event("WEIRD_FILENAME", time_us=1, random_10_bytes=RANDOM, path=escape_bytes(path))
    received = unpack_event(decode(encode(pack_event(event)), limits=EVENT_DECODING))
    assert unescape_bytes(str(received.fields["path"])) == path


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("id", "no uuid"),
        ("id", "01A1FFDA-0783-7001-8203-040506070809"),
        ("id", 5),
        ("time_us", -1),
        ("time_us", 253_402_300_800_000_000),
        ("time_us", True),
        ("time_us", "1"),
        ("code", ""),
        ("code", "lower"),
        ("code", "A" * 65),
        ("code", "A\n"),
        ("class", "other"),
        ("class", None),
        ("severity", 0),
        ("severity", 9),
        ("severity", True),
        ("severity", "crit"),
        ("severity", 7.0),
        ("msg", None),
        ("msg", b"bytes"),
        ("fields", None),
        ("fields", []),
        ("fields", {"Upper": 1}),
        ("fields", {"": 1}),
        ("fields", {"a b": 1}),
        ("fields", {'a"': 1}),
        ("fields", {"a" * 49: 1}),
        ("fields", {"a": 2**64}),
        ("fields", {"a": -(2**63) - 1}),
        ("fields", {"a": 1.5}),
        ("fields", {"a": []}),
        ("fields", {"a": b""}),
        ("fields", {f"f{number}": 1 for number in range(FIELD_COUNT_MAX + 1)}),
    ],
    ids=range(33),
)
def test_a_part_that_is_not_as_it_should_be_is_refused(part: str, value: object) -> None:
    with pytest.raises(FormatError):
        unpack_event(packed(**{part: value}))


@pytest.mark.parametrize("part", sorted(packed()))
def test_every_part_is_needed_and_no_other_is_taken(part: str) -> None:
    body = packed()
    del body[part]
    with pytest.raises(FormatError):
        unpack_event(body)
    with pytest.raises(FormatError):
        unpack_event(packed(more=1))


def test_the_limits_of_fields_hold_exactly() -> None:
    at_limit = {f"f{number}": 2**64 - 1 for number in range(FIELD_COUNT_MAX)}
    assert unpack_event(packed(fields=at_limit)).fields == at_limit
    event = unpack_event(packed(fields={"a": "x" * (FIELD_TEXT_MAX + 1)}, msg="y" * 2_000))
    assert len(str(event.fields["a"])) == FIELD_TEXT_MAX
    assert len(event.msg) == MSG_TEXT_MAX


def test_a_code_of_a_newer_agent_is_taken() -> None:
    assert unpack_event(packed(code="SOMETHING_NEW")).code == "SOMETHING_NEW"


def test_what_a_peer_writes_cannot_reach_a_terminal() -> None:
    event = unpack_event(packed(msg="\x1b[2J\n", fields={"path": "\u202e\r"}))
    assert event.msg == "\\x1b[2J\\x0a"
    assert event.fields["path"] == "\\xe2\\x80\\xae\\x0d"


def test_a_client_and_a_receipt_are_the_server_s_to_say() -> None:
    for name in ("client", "received_us", "received"):
        with pytest.raises(FormatError):
            unpack_event(packed(**{name: "web2"}))


def test_braces_in_a_value_are_not_filled_in() -> None:
    event = make_event(
        "CONNECTION_ERROR", time_us=1, random_10_bytes=RANDOM, server="s", reason="{server} {0}"
    )
    assert event.msg == "Connection error: {server} {0}"


@pytest.mark.parametrize(
    ("reason", "shown"), [(None, ""), ("late", "late"), (7, "7"), (True, "True")]
)
def test_a_text_shows_what_its_field_holds_and_nothing_for_nothing(
    reason: FieldValue, shown: str
) -> None:
    event = make_event("CONNECTION_ERROR", time_us=1, random_10_bytes=RANDOM, reason=reason)
    assert (event.msg, event.fields["reason"]) == (f"Connection error: {shown}", reason)


def test_configuration_can_decide_the_severity() -> None:
    event = make_event("POLICY_ADDED", Severity.INFO, time_us=1, random_10_bytes=RANDOM, path="/x")
    assert event.severity is Severity.INFO
    assert CATALOGUE["POLICY_ADDED"].severity is Severity.CRIT


def test_an_unknown_code_is_a_bug_of_ours() -> None:
    with pytest.raises(KeyError):
        make_event("NO_SUCH_CODE", time_us=1, random_10_bytes=RANDOM)


@given(st.integers(0, 2**48 * 1_000 - 1), st.binary(min_size=10, max_size=10))
def test_an_id_is_a_uuid_of_version_7(time_us: int, random_10_bytes: bytes) -> None:
    identifier = uuid.UUID(event_id(time_us, random_10_bytes))
    assert identifier.version == 7
    assert identifier.variant == uuid.RFC_4122
    assert identifier.int >> 80 == time_us // 1_000


@given(st.integers(0, 2**47 * 1_000), st.integers(1_000, 10**12))
def test_ids_sort_by_time(time_us: int, later: int) -> None:
    assert event_id(time_us, b"\xff" * 10) < event_id(time_us + later, bytes(10))


@given(st.integers(0, 253_402_300_799_999_999))
def test_times_survive_their_text(time_us: int) -> None:
    text = format_time(time_us)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    assert parse_time(text) == time_us
    assert parse_time(text.replace("Z", "+00:00")) == time_us
    assert parse_time(text.removesuffix("Z")) == time_us


def test_times_are_taken_with_a_zone_or_as_utc() -> None:
    expected = int(datetime(2026, 11, 21, 19, 40, 47, tzinfo=UTC).timestamp()) * 1_000_000
    for text in ("2026-11-21T19:40:47Z", "2026-11-21 19:40:47", "2026-11-21T20:40:47+01:00"):
        assert parse_time(text) == expected


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        time_us = parse_time(text)
    except FormatError:
        return
    assert isinstance(time_us, int)


@pytest.mark.parametrize("event_class", EventClass)
def test_every_class_goes_over_the_wire(event_class: EventClass) -> None:
    assert unpack_event(packed(**{"class": event_class.value})).event_class is event_class


@given(hostile_bodies())
def test_a_body_is_read_alike_by_either_way_of_decoding(body: Any) -> None:
    try:
        data = encode(body)
    except FormatError:
        return
    results: list[Event | None] = []
    for how in (decode, decode_flat):
        try:
            results.append(unpack_event(how(data, limits=EVENT_DECODING)))
        except FormatError:
            results.append(None)
    assert results[0] == results[1]
