"""Rows of many events are those of each, whichever way their fields were written."""

import json

from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.event import Event
from needfire_protocol.event_batch import unpack_usual_events
from needfire_server.storage.event_rows import (
    about,
    event_of_row,
    fields_texts,
    row_of_event,
    rows_of_events,
)
from needfire_testkit.event_strategies import events, usual_batches


@given(usual_batches())
def test_the_fields_of_a_batch_are_written_as_those_of_each_event(bodies: list[bytes]) -> None:
    usual = unpack_usual_events(bodies, client="web1", received_us=1)
    assert usual is not None
    found = fields_texts(usual)
    assert (None in found) != usual.is_plain
    if usual.is_plain:
        rows = rows_of_events(7, usual.events, found)
        assert rows == [row_of_event(number, each) for number, each in enumerate(usual.events, 7)]


@given(st.lists(events, max_size=4))
def test_a_row_holds_its_event_and_plain_json(several: list[Event]) -> None:
    rows = rows_of_events(3, several, [None] * len(several))
    assert [event_of_row(row) for row in rows] == [*enumerate(several, 3)]
    assert rows == [row_of_event(number, each) for number, each in enumerate(several, 3)]
    for row, event in zip(rows, several, strict=True):
        assert row[5] == about(event)
        expected = json.dumps(event.fields, ensure_ascii=False, separators=(",", ":"))
        assert row[10] == expected
        assert type(row[7]) is int
