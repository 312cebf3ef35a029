"""Hypothesis strategies for events, as an agent makes them and as a hostile one sends them."""

from typing import Any

from hypothesis import strategies as st

from needfire_protocol.catalogue import CATALOGUE, EventClass
from needfire_protocol.codec import encode
from needfire_protocol.event import Event, FieldValue, event_id, make_event, pack_event
from needfire_protocol.severity import Severity

__all__ = [
    "any_text",
    "events",
    "field_values",
    "hostile_bodies",
    "made_events",
    "usual_batches",
]

any_text = st.text(st.characters(categories=["L", "N", "P", "S", "Z", "C"]), max_size=40)
field_values: st.SearchStrategy[FieldValue] = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | any_text
)
_times_us = st.integers(0, 253_402_300_799_999_999)
_field_names = st.from_regex(r"[a-z][A-Za-z0-9_]{0,12}", fullmatch=True)


@st.composite
def made_events(draw: st.DrawFn) -> Event:
    """Events as our own code makes them, with whatever text in the fields of their entry."""
    code = draw(st.sampled_from(sorted(CATALOGUE)))
    entry = CATALOGUE[code]
    names = {*entry.fields, *entry.msg_fields()}
    return make_event(
        code,
        draw(st.none() | st.sampled_from(Severity)),
        time_us=draw(_times_us),
        random_10_bytes=draw(st.binary(min_size=10, max_size=10)),
        **{name: draw(field_values) for name in sorted(names)},
    )


events = st.builds(
    Event,
    id=st.builds(event_id, _times_us, st.binary(min_size=10, max_size=10)),
    time_us=_times_us,
    code=st.sampled_from(sorted(CATALOGUE))
    | st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True),
    event_class=st.sampled_from(EventClass),
    severity=st.sampled_from(Severity),
    msg=any_text,
    fields=st.dictionaries(
        _field_names | st.sampled_from(["msg", "sev", "tstamp", "client", "remote_host"]),
        field_values,
        max_size=6,
    ),
    client=st.none() | st.sampled_from(["web1.example.org", "fe80::1"]),
    received_us=st.none() | _times_us,
)
"""Events as they can be in memory, printable or not: what logs must cope with."""

_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | any_text | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def hostile_bodies(draw: st.DrawFn) -> Any:
    """Decoded bodies that are almost right."""
    body: dict[str, Any] = {
        "id": "01920000-0000-7000-8000-000000000000",
        "time_us": 1,
        "code": "START",
        "class": "system",
        "severity": 8,
        "msg": "START",
        "fields": {"path": "/etc/hosts"},
    }
    for name in draw(st.sets(st.sampled_from(sorted(body)), max_size=2)):
        body[name] = draw(_anything)
    if draw(st.booleans()):
        body.pop(draw(st.sampled_from(sorted(body))))
    return body if draw(st.booleans()) else draw(_anything | st.just(body))


@st.composite
def usual_batches(draw: st.DrawFn) -> list[bytes]:
    """Bodies of reports as they come in one batch: alike, printable, and nearly all of them plain."""
    text = st.text("ab/ %{}\u00e9\u6f22", max_size=6)
    if draw(st.booleans()):
        text |= st.sampled_from(['"', "\\", "&", "<a>", "'"])
    names = draw(st.lists(_field_names | st.sampled_from(["msg", "client", "path"]), max_size=4))
    values = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | text
    kinds = draw(st.lists(st.sampled_from([text, st.integers(0, 9), values]), min_size=4))
    fields = st.fixed_dictionaries(dict(zip(names, kinds, strict=False)))
    codes = st.sampled_from(["POLICY_MODIFIED", "START", "CLIENT_REMOVED"])
    made = st.builds(
        lambda code, msg, time_us, random, fields: {
            **pack_event(make_event("START", time_us=time_us, random_10_bytes=random)),
            "code": code,
            "msg": msg,
            "fields": fields,
        },
        *(codes, text, _times_us, st.binary(min_size=10, max_size=10)),
        fields | st.just({"path": "/x"}) | st.just({}),
    )
    return [encode(body) for body in draw(st.lists(made, min_size=1, max_size=5))]
