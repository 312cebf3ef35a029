"""What the record of a batch says of it."""

import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from needfire_protocol.audit.record import Draft
from needfire_protocol.event import make_event
from needfire_protocol.messages import EVENT_REPORT, Report
from needfire_server.audit.drafts import batch_digest, draft_of_event, reports_draft
from needfire_server.storage.base import IngestResult


def reports(bodies: list[bytes]) -> list[Report]:
    return [Report(17 + n, EVENT_REPORT, body, bytes(32)) for n, body in enumerate(bodies)]


@given(st.lists(st.binary(max_size=40) | st.just(bytes(3_000)), max_size=12))
@example([])
@example([b""])
def test_the_digest_is_over_each_body_behind_its_length(bodies: list[bytes]) -> None:
    framed = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    assert batch_digest(reports(bodies)) == hashlib.sha256(framed).hexdigest()


def test_a_batch_is_told_with_its_numbers_and_its_digest() -> None:
    came = reports([b"a", b"b", b"c"])
    draft = reports_draft("web1", bytes(16), came, IngestResult((), None, unusable=2))
    assert draft == Draft(
        "REPORTS_RECEIVED",
        is_success=True,
        subject="web1",
        client="web1",
        request=None,
        fields={
            "stream": "00" * 16,
            "first": 17,
            "last": 19,
            "count": 3,
            "accepted": 0,
            "sha256": batch_digest(came),
        },
    )


def test_a_batch_of_which_nothing_was_new_leaves_no_record() -> None:
    assert reports_draft("web1", bytes(16), reports([b"a"]), IngestResult((), None)) is None


@pytest.mark.parametrize(
    ("about", "subject", "client"),
    [
        ({"client": "web1", "user": "eve"}, "eve", "web1"),
        ({"client": "web1"}, "web1", "web1"),
        ({"user": "eve"}, "eve", None),
        ({}, "", None),
    ],
)
def test_the_subject_of_a_record_is_the_person_and_else_the_client(
    about: dict[str, str], subject: str, client: str | None
) -> None:
    event = make_event("CLIENT_RESUMED", time_us=1, random_10_bytes=bytes(10), **about)
    draft = draft_of_event(event)
    assert draft is not None
    assert (draft.subject, draft.client) == (subject, client)
    assert not {"client", "user"} & draft.fields.keys()
