"""The catalogue: complete, consistent, and found by code, state or the words of a log line."""

import re
from collections.abc import Callable
from string import Formatter

import pytest

from needfire_protocol.catalogue import CATALOGUE, explain, find_entries, nothing_found
from needfire_protocol.catalogue_entries import ENTRIES
from needfire_protocol.catalogue_entry import Entry
from needfire_protocol.classic import text_line, xml_line
from needfire_protocol.codec import decode, encode
from needfire_protocol.event import Event, event_to_json, make_event, pack_event, unpack_event
from needfire_protocol.limits import EVENT_DECODING

ALL = tuple(CATALOGUE.values())
every_entry = pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry.code)

CONTRACT_TEXTS = {
    "Connection refused": 1,
    "Connection error: {reason}": 2,
    "Refused connection from {peer}": 2,
    "Session key negotiation failed": 3,
    "Invalid connection attempt: Session key mismatch": 3,
    "Invalid connection attempt: Not in client list": 4,
    "File download failed": 6,
    "File not accessible": 6,
    "Invalid connection state": 7,
    "Invalid connection attempt: Signature mismatch": 7,
    "Restart without prior exit": 8,
}
"""The texts of spec/error-states.md that people search their logs for."""


def longest_literal(entry: Entry) -> str:
    return max((text.strip() for text, *_ in Formatter().parse(entry.msg)), key=len)


def filled(entry: Entry) -> dict[str, str]:
    return {name: f"value of {name}" for name in {*entry.fields, *entry.msg_fields()}}


def test_the_texts_of_the_documented_states_are_exact() -> None:
    states = {entry.msg: entry.state for entry in ALL if entry.msg in CONTRACT_TEXTS}
    assert states == CONTRACT_TEXTS


def test_every_documented_state_has_its_entries() -> None:
    assert {entry.state for entry in ALL} == {None, 1, 2, 3, 4, 5, 6, 7, 8}


def test_no_code_stands_twice() -> None:
    assert list(CATALOGUE) == [entry.code for entry in ENTRIES]


def test_a_refusal_by_access_lists_has_samhain_s_subroutine() -> None:
    assert "subroutine" in CATALOGUE["REFUSED_CONNECTION"].fields


@every_entry
def test_an_entry_is_complete(entry: Entry) -> None:
    assert re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", entry.code)
    for text in (entry.msg, entry.description, entry.remedy, entry.source):
        assert text == text.strip() != ""
        assert text.isprintable()
        assert "  " not in text
    assert entry.description.endswith((".", "?", ")"))
    assert entry.remedy.endswith((".", "?", ")"))
    assert len(entry.msg) <= 200


@every_entry
def test_the_open_places_of_a_text_are_plain_and_described(entry: Entry) -> None:
    for _, name, spec, conversion in Formatter().parse(entry.msg):
        assert not spec
        assert conversion is None
        if name is not None:
            assert name in entry.fields, f"{name} is not described"


@every_entry
def test_an_entry_goes_over_the_wire_and_into_both_logs(entry: Entry) -> None:
    event = make_event(entry.code, time_us=1, random_10_bytes=bytes(10), **filled(entry))
    body = encode(pack_event(event))
    assert unpack_event(decode(body, limits=EVENT_DECODING)) == event
    for line in (xml_line(event), text_line(event)):
        assert line.isprintable()
        for name in entry.fields:
            assert f"value of {name}" in line


@every_entry
def test_an_entry_is_found_by_its_code_and_its_text(entry: Entry) -> None:
    assert find_entries(entry.code) == (entry,)
    assert find_entries(f"  {entry.code.lower()} ") == (entry,)
    assert entry in find_entries(longest_literal(entry))


@pytest.mark.parametrize(
    "entry",
    # Shorter texts, as START and EXIT, stand in too many lines to tell anything.
    [entry for entry in ALL if len(longest_literal(entry)) >= 8],
    ids=lambda entry: entry.code,
)
def test_an_entry_is_found_by_a_line_that_was_pasted_from_a_log(entry: Entry) -> None:
    event = make_event(entry.code, time_us=1, random_10_bytes=bytes(10), **filled(entry))
    if all(character not in entry.msg for character in "<>&"):
        assert entry in find_entries(xml_line(event))
        assert entry in find_entries(text_line(event))


@every_entry
def test_an_explanation_says_what_it_means_and_how_to_resolve_it(entry: Entry) -> None:
    text = explain(entry)
    assert text.startswith(f"{entry.code}: {entry.msg}\n")
    assert entry.description in text
    assert f"How to resolve: {entry.remedy}" in text
    assert all(meaning in text for meaning in entry.fields.values())
    assert (f"documented state {entry.state}" in text) == (entry.state is not None)


@pytest.mark.parametrize("state", range(1, 9))
def test_a_state_is_found_by_its_number(state: int) -> None:
    found = find_entries(f"state {state}")
    assert found
    assert {entry.state for entry in found} == {state}
    assert find_entries(str(state)) == found


def test_the_alerts_of_the_key_manager_have_their_numbers_and_titles() -> None:
    alerts = [entry for entry in CATALOGUE.values() if entry.number is not None]
    assert [entry.number for entry in alerts] == [*range(100, 118), *range(200, 217)]
    for entry in alerts:
        assert find_entries(str(entry.number)) == (entry,)
        assert entry.title is not None
        assert entry in find_entries(entry.title)
        assert f"alert {entry.number}: {entry.title}" in explain(entry)
        assert "planned: nothing raises it yet" in explain(entry)
    assert CATALOGUE["PRIVATE_KEY_RENEWAL_FAILED"].msg == "Private key renew failed"


@pytest.mark.parametrize("words", ["", "   ", "no such thing at all", "state 9", "state x"])
def test_what_nothing_names_finds_nothing(words: str) -> None:
    assert find_entries(words) == ()


def test_a_code_with_a_slip_is_answered_with_the_nearest_one() -> None:
    for slip in ("POLICY_MODIFED", "policy modifed"):
        assert find_entries(slip) == ()
        assert "did you mean POLICY_MODIFIED?" in nothing_found(slip)
    assert "did you mean" not in nothing_found("xyzzy")


def test_a_sign_alone_names_nothing() -> None:
    assert find_entries("-") == find_entries("...") == ()


@pytest.mark.parametrize("form", [xml_line, text_line, event_to_json])
@pytest.mark.parametrize("code", sorted(CATALOGUE))
def test_a_pasted_log_line_is_explained_by_its_own_entry(
    code: str, form: Callable[[Event], str]
) -> None:
    places = dict.fromkeys(CATALOGUE[code].msg_fields(), 'a "value" & <more>')
    event = make_event(code, time_us=1, random_10_bytes=bytes(10), **places)
    found = find_entries(form(event))
    assert CATALOGUE[code] in found
    assert {entry.msg for entry in found} == {CATALOGUE[code].msg}


def test_a_pasted_report_is_explained_and_not_its_wrapping() -> None:
    event = make_event("EXIT", time_us=1, random_10_bytes=bytes(10), program="needfire-agent")
    assert [e.code for e in find_entries(xml_line(event.received("web1", 2)))] == ["EXIT"]
