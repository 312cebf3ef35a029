"""A record has one way to be written, however it is written quickly."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from needfire_protocol.audit.merkle import leaf_hash
from needfire_protocol.audit.record import (
    FIRST_PREVIOUS,
    Draft,
    Moment,
    encode_record,
    parse_record,
)
from needfire_protocol.errors import FormatError
from needfire_protocol.escape import printable
from needfire_protocol.event import FieldValue, format_time

MOMENT = Moment(1_795_352_447_123_456, 987_654_321)
PREVIOUS = bytes(range(32))
OUTCOMES = {True: "success", False: "failure", None: "asked"}
TEXT_MAX = 4_096


def as_defined(number: int, previous: bytes, moment: Moment, draft: Draft) -> bytes:
    """The form as docs/audit.md has it, by the standard library alone."""

    def clean(value: Any) -> Any:
        return printable(value, TEXT_MAX) if isinstance(value, str) else value

    data = {
        "n": number,
        "prev": previous.hex(),
        "code": draft.code,
        "time": format_time(moment.time_us),
        "mono_us": moment.mono_us,
        "outcome": OUTCOMES[draft.is_success],
        "subject": clean(draft.subject),
        "client": clean(draft.client),
        "request": clean(draft.request),
        "fields": {name: clean(value) for name, value in draft.fields.items()},
    }
    return json.dumps(data, separators=(",", ":")).encode("ascii")


texts = st.one_of(
    st.from_regex(r"[a-z0-9./-]{0,20}", fullmatch=True),
    st.text("ab \"\\%{}'\x00\n\x1f\x7fé\u2028\ud800😀", max_size=8),
    st.builds(str.__mul__, st.sampled_from(["x", '"', "é", "\n"]), st.integers(3_500, 4_200)),
)
values = st.one_of(
    texts, st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.integers(0, 9)
)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,6}", fullmatch=True)
drafts = st.builds(
    Draft,
    st.sampled_from(["REPORTS_RECEIVED", "A", "X9_Y"]),
    st.sampled_from([True, False, None]),
    texts,
    st.none() | texts,
    st.none() | texts,
    st.dictionaries(names, values, max_size=6),
)
moments = st.builds(Moment, st.integers(0, 4 * 10**15), st.integers(0, 2**63))


@settings(max_examples=60)
@given(st.integers(0, 10**17), st.binary(min_size=32, max_size=32), moments, drafts)
@example(0, bytes(32), Moment(0, 0), Draft("A"))
def test_every_record_is_written_as_it_is_defined(
    number: int, previous: bytes, moment: Moment, draft: Draft
) -> None:
    line = encode_record(number, previous, moment, draft)
    assert line == as_defined(number, previous, moment, draft)
    # Once more, with whatever is remembered of the first time.
    assert encode_record(number, previous, moment, draft) == line
    assert encode_record(0, bytes(32), MOMENT, parse_record(line).draft) == as_defined(
        0, bytes(32), MOMENT, draft
    )


@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("char", ["x", '"', "\\", "é"])
def test_a_text_is_cut_where_it_is_too_long_and_not_where_its_line_is(
    char: str, extra: int
) -> None:
    bare = len(encode_record(1, PREVIOUS, MOMENT, Draft("A", fields={"path": ""})))
    for length in (TEXT_MAX - bare + extra, TEXT_MAX + extra):
        draft = Draft("A", fields={"path": char * length})
        line = encode_record(1, PREVIOUS, MOMENT, draft)
        assert line == as_defined(1, PREVIOUS, MOMENT, draft)
        assert len(json.loads(line)["fields"]["path"]) == min(length, TEXT_MAX)


def test_the_same_names_with_other_kinds_of_values_are_other_records() -> None:
    for value in (1, True, None, "1", "true", "null", 0, False, "", "%d", '"', 2**64 - 1, -(2**63)):
        for client in (None, "", "null", 'a","client":"b'):
            draft = Draft("A", None, "%s", client, None, {"one": value, "two": "é"})
            line = encode_record(7, PREVIOUS, MOMENT, draft)
            assert line == as_defined(7, PREVIOUS, MOMENT, draft)
            assert parse_record(line).draft == draft


@pytest.mark.parametrize(
    "draft",
    [
        Draft("lower"),
        Draft(""),
        Draft("A" * 65),
        Draft('A","code":"B'),
        Draft("A", fields={"a b": 1}),
        Draft("A", fields={'"': 1}),
        Draft("A", fields={"a" * 49: 1}),
        Draft("A", fields={f"f{n}": n for n in range(65)}),
        Draft("A", fields={"n": 2**64}),
        Draft("A", fields={"n": -(2**63) - 1}),
        Draft("A", fields={"n": 1.5}),  # type: ignore[dict-item]
        Draft("A", fields={"n": b"1"}),  # type: ignore[dict-item]
        Draft("A", fields={"n": ["1"]}),  # type: ignore[dict-item]
    ],
)
def test_what_is_no_record_is_refused_each_time(draft: Draft) -> None:
    for _ in range(2):
        with pytest.raises(FormatError):
            encode_record(0, FIRST_PREVIOUS, MOMENT, draft)


def test_so_many_fields_and_such_long_names_and_numbers_are_just_allowed() -> None:
    fields = {f"f{n:02}".ljust(48, "x"): 2**64 - 1 for n in range(64)}
    draft = Draft("A" * 64, fields=fields)
    line = encode_record(0, FIRST_PREVIOUS, MOMENT, draft)
    assert line == as_defined(0, FIRST_PREVIOUS, MOMENT, draft)


REPORTS: dict[str, FieldValue] = {
    "stream": "0123456789abcdef" * 2,
    "first": 17,
    "last": 36,
    "count": 20,
    "accepted": 20,
    "sha256": "ab" * 32,
}


@pytest.mark.parametrize(
    ("number", "draft", "leaf"),
    [
        (
            4711,
            Draft("REPORTS_RECEIVED", True, "web1", "web1", None, REPORTS),
            "16866c859f8ff629c09540ea3cb68668f5b958365458ee4fa8e65e4a7eb596db",
        ),
        (
            0,
            Draft(
                "ADMIN_REQUEST",
                None,
                "ann",
                None,
                "5f2b8c1d9e3a7046",
                {"verb": "audit", "all": True},
            ),
            "c00d9797e8a57cce63ff1848b3808ad9f72165edfa9b9307e1e0fae4917119d9",
        ),
        (
            12,
            Draft("ADMIN_REFUSED", False, 'a"b\\c', "wéb", None, {"why": "\n\x7f%d", "n": None}),
            "1f3f007b092503f47fe8de551403077a719193cf87e2491acd6a20fc1510dc31",
        ),
        (
            1000000000,
            Draft("START"),
            "83c5af143dc2eeb08ca34b5cd67dde8c476dc5e396abb8fce6d1196b1885e4fc",
        ),
    ],
)
def test_what_was_written_once_is_written_so_for_ever(number: int, draft: Draft, leaf: str) -> None:
    """The leaves are of lines that the first server with an audit log wrote."""
    assert leaf_hash(encode_record(number, PREVIOUS, MOMENT, draft)).hex() == leaf
