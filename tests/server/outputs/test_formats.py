"""Each form of a record, read back by a parser that was written from the standard."""

import json
import re
import threading
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from string import Formatter

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.classic import text_line, xml_line
from needfire_protocol.escape import printable
from needfire_protocol.event import Event, FieldValue, event_to_json, format_time, make_event
from needfire_protocol.severity import Severity
from needfire_server.outputs.formats import FORMATS
from needfire_server.outputs.formats.alert import alert_line
from needfire_server.outputs.formats.cef import cef_line
from needfire_server.outputs.formats.ecs import ecs_line
from needfire_server.outputs.formats.json_line import json_line
from needfire_server.outputs.formats.syslog import (
    FACILITIES,
    octet_counted,
    rfc5424_message,
    syslog_severity,
    traditional_message,
)
from needfire_server.outputs.gathering import leading
from needfire_server.outputs.records import RECORD_BYTES_MAX, line_of, marked, rendered
from needfire_server.outputs.shortening import fitting
from needfire_testkit.event_strategies import any_text, events
from needfire_testkit.output_doubles import settings_of
from needfire_testkit.record_parsers import (
    parse_alert,
    parse_cef,
    parse_octet_counted,
    parse_rfc5424,
)

TIME_US = 1_795_290_047_123_456
_sly_text = st.lists(
    st.sampled_from(
        [
            *(
                "\\",
                '"',
                "]",
                "[",
                "=",
                "|",
                "<",
                ">",
                "&",
                ",",
                ":",
                " ",
                "\n",
                "\r",
                "\0",
                "\x1b",
            ),
            *("\x7f", "\x85", "\u2028", "\u202e", "\ud800", "é", "\U0001f600", "x", "Key ID: 7"),
            *(", Host: ", " act=", "\\x2c", "\\x5c", "%s", "{0}", "$(id)", "`id`", "<13>"),
        ]
    ),
    max_size=8,
).map("".join)


@st.composite
def hostile(draw: st.DrawFn) -> Event:
    """Events whose every text is made of what some form gives a meaning to."""
    event = draw(events)
    values = st.one_of(_sly_text, any_text, st.integers(0, 9), st.booleans(), st.none())
    fields: dict[str, FieldValue] = {name: draw(values) for name in [*event.fields, "path"]}
    return replace(event, msg=draw(_sly_text), fields=fields)


def shown(value: FieldValue, yes: str = "yes", no: str = "no") -> str:
    """A value as the forms that are text have it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return yes if value else no
    return printable(str(value), 80_000)


def event_of(code: str = "POLICY_MODIFIED", **fields: FieldValue) -> Event:
    words = dict.fromkeys(CATALOGUE[code].msg_fields(), "x")
    event = make_event(code, time_us=TIME_US, random_10_bytes=bytes(10), **{**words, **fields})
    return event.received("web1.example.org", TIME_US + 5)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=50)
@given(event=hostile())
def test_one_record_is_one_line_whatever_an_event_holds(name: str, event: Event) -> None:
    line = FORMATS[name](event)
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    assert line.encode("utf-8")


@given(event=hostile())
def test_json_read_back_is_the_event(event: Event) -> None:
    assert json.loads(json_line(event)) == json.loads(event_to_json(event))


@given(event=hostile())
def test_ecs_read_back_has_every_field(event: Event) -> None:
    document = json.loads(ecs_line(event))
    assert document["needfire"]["fields"] == event.fields
    assert document["event"]["id"] == event.id
    assert document["message"] == event.msg
    assert datetime.fromisoformat(document["@timestamp"]) is not None
    assert document["ecs"]["version"] == "8.11.0"


def test_ecs_has_what_its_schema_names() -> None:
    event = event_of(
        path="/etc/x", size_old=1, size_new=2, who_user="eve", who_pid=7, mode_new="-rw"
    )
    document = json.loads(ecs_line(event))
    assert document["file"] == {"path": "/etc/x", "size": 2, "mode": "-rw"}
    assert document["user"] == {"name": "eve"}
    assert document["process"] == {"pid": 7}
    assert document["host"] == {"name": "web1.example.org"}
    assert document["event"]["kind"] == "alert"
    assert document["event"]["category"] == ["file"]
    assert document["event"]["type"] == ["change"]
    assert document["event"]["ingested"] == format_time(TIME_US + 5)


@given(event=hostile())
def test_cef_read_back_has_header_and_fields(event: Event) -> None:
    header, extension = parse_cef(cef_line(event))
    assert header[0] == "CEF:0"
    assert header[4:6] == [event.code, printable(event.msg, 80_000)]
    assert 0 <= int(header[6]) <= 10
    assert extension.pop("externalId") == event.id
    assert extension.pop("rt") == str(event.time_us // 1_000)
    known = {"path": "filePath"}
    for name, value in event.fields.items():
        found = extension.pop(known.get(name, f"nf_{name}"))
        assert found == shown(value, "true", "false")
    assert extension.keys() <= {"cat", "dvchost", "end"}


@given(event=hostile())
def test_alert_read_back_has_title_and_fields(event: Event) -> None:
    entry = CATALOGUE.get(event.code)
    form = None if entry is None else entry.alert
    # Without a number before it, a text of an agent could be taken for one that has.
    assume(form is None or form.shows_number)
    _, _, number, title, pairs = parse_alert(alert_line(event))
    told = frozenset() if entry is None else entry.msg_fields()
    assert number == (event.code if entry is None or form is None else str(entry.number))
    assert title == printable(event.msg, 80_000)
    found = dict(pairs)
    if event.client is not None and entry is not None and "client" in entry.fields:
        assert found.pop("reported_by") == event.client
    assert found == {
        "Path" if name == "path" else name: shown(value) if value is not None else "None"
        for name, value in event.fields.items()
        if name not in told
    }


DOCUMENTED = [
    line.split("\t", 1)
    for line in (Path(__file__).parent / "alert_lines.txt").read_text("utf-8").splitlines()
]
"""Number and line, without its header, of every example of the key manager's documents."""
LABELS = {
    "Host": "host",
    "Key ID": "key_id",
    "Key Id": "key_id",
    "Path": "path",
    "Type": "type",
    "Format": "format",
    "Fingerprint OpenSSH": "fingerprint",
    "Fingerprint SSH1": "fingerprint_ssh1",
    "Message": "message",
    "Old value": "old_value",
    "New value": "new_value",
    "Value": "value",
}


def documented_event(number: str, line: str) -> Event:
    """The event that a documented line tells of, read with the document's own words."""
    [entry] = [each for each in CATALOGUE.values() if each.number == int(number)]
    place = re.search(r"<(.*?)> ALERT", line)
    text = line.partition("ALERT: ")[2].removeprefix(f"({number}) ")
    fields: dict[str, FieldValue] = {}
    if entry.msg_fields():
        pieces = [
            re.escape(literal) + ("" if name is None else f"(?P<{name}>.*)")
            for literal, name, _, _ in Formatter().parse(entry.msg)
        ]
        match = re.fullmatch("".join(pieces), text, re.DOTALL)
        assert match is not None, entry.msg
        fields |= match.groupdict()
    else:
        assert text.startswith(entry.msg)
        for pair in re.split(f", (?=(?:{'|'.join(LABELS)}): )", text[len(entry.msg) :])[1:]:
            label, _, value = pair.partition(": ")
            fields[LABELS[label]] = None if value == "None" else value
    event = make_event(entry.code, time_us=TIME_US, random_10_bytes=bytes(10), **fields)
    client = None if place is None or place[1] == "internal" else place[1]
    return replace(event, client=client)


@pytest.mark.parametrize(("number", "line"), DOCUMENTED)
def test_the_documented_alert_lines_are_reproduced(number: str, line: str) -> None:
    written = alert_line(documented_event(number, line))
    # Two of the examples name no host before the word.
    assert written.removeprefix(written.partition("ALERT:")[0]) == line[line.index("ALERT:") :]
    assert "<" not in line[:12] or written == line


def test_every_documented_number_has_its_example() -> None:
    numbers = {int(number) for number, _ in DOCUMENTED}
    assert numbers == {each.number for each in CATALOGUE.values() if each.number is not None}
    assert len(DOCUMENTED) == 37


def test_the_sha256_fingerprint_is_in_every_form_but_the_documented_line() -> None:
    event = replace(
        documented_event(*DOCUMENTED[0]), fields={"fingerprint_sha256": "SHA256:x", "path": "/x"}
    )
    assert "SHA256:x" not in alert_line(event)
    for form in (json_line, ecs_line, cef_line):
        assert "SHA256:x" in form(event)


def test_an_alert_line_has_the_traditional_shape() -> None:
    event = event_of("POLICY_MISSING", path="/opt/keys, Key ID: 7", size_old=6)
    assert alert_line(event) == (
        "CRITICAL: <web1.example.org> ALERT: (POLICY_MISSING) POLICY MISSING, "
        "Path: /opt/keys\\x2c Key ID: 7, size_old: 6"
    )


def test_an_alert_line_tells_the_server_s_word_about_a_client_from_that_client_s_report() -> None:
    fields: dict[str, FieldValue] = {"client": "web1", "user": "root", "uid": 0}
    own = make_event("CLIENT_REMOVED", time_us=TIME_US, random_10_bytes=bytes(10), **fields)
    assert "reported_by" not in alert_line(own)
    forged = replace(own, client="web1", fields={**fields, "reported_by": "the server"})
    head, _, end = alert_line(forged).partition(", reported_by_: the server")
    assert (head, end) == (alert_line(own), ", reported_by: web1")


@pytest.mark.parametrize("code", [each.code for each in CATALOGUE.values() if each.alert])
def test_the_words_of_a_client_do_not_pass_for_the_number_of_an_alert(code: str) -> None:
    forged = replace(event_of(code), msg=" (CLIENT_REMOVED) Client removed: web1")
    number = CATALOGUE[code].number
    assert f"ALERT: ({number})  (CLIENT_REMOVED) Client" in alert_line(forged)


@given(event=hostile())
def test_classic_read_back_is_one_well_formed_record(event: Event) -> None:
    root = ElementTree.fromstring(xml_line(event))
    [record] = root.findall("log") if root.get("sev") == "RCVT" else [root]
    assert record.get("msg") == printable(event.msg, 20_000)
    assert root.get("remote_host") == (event.client if event.received_us is not None else None)


def angled(text: str) -> str:
    """A text as the forms with angle brackets have it."""
    return text.replace("<", "\\x3c").replace(">", "\\x3e")


def own_fields(event: Event) -> list[tuple[str, str]]:
    """The fields that the text does not hold already, with their values in words."""
    entry = CATALOGUE.get(event.code)
    told = frozenset() if entry is None else entry.msg_fields()
    return [(name, shown(value)) for name, value in event.fields.items() if name not in told]


def is_name_of(found: str, name: str) -> bool:
    """Whether it is the name, set apart from one that the record has by itself."""
    return found.startswith(name) and not found[len(name) :].strip("_")


@settings(max_examples=50)
@given(event=hostile())
def test_classic_read_back_has_every_field(event: Event) -> None:
    root = ElementTree.fromstring(xml_line(event))
    [record] = root.findall("log") if root.get("sev") == "RCVT" else [root]
    attributes = [(name, value) for name, value in record.attrib.items()]
    count = len(own_fields(event))
    found = attributes[len(attributes) - count :]
    for (name, value), (own, text) in zip(found, own_fields(event), strict=True):
        assert (is_name_of(name, own), value) == (True, text)


@settings(max_examples=50)
@given(event=hostile())
def test_text_read_back_has_every_field(event: Event) -> None:
    line = text_line(event)
    head = re.match(r"([A-Z]+) *:  \[([0-9T:+-]+)\] ", line)
    assert head is not None
    pairs = re.findall(r"(?:^|, )([A-Za-z0-9_]+)=<([^<>]*)>", line[head.end() :])
    assert ", ".join(f"{name}=<{value}>" for name, value in pairs) == line[head.end() :]
    first = [("msg", angled(printable(event.msg, 80_000)))]
    if event.client is not None:
        first += [("client", event.client), ("remote_host", event.client)]
    assert pairs[: len(first)] == first
    for (name, value), (own, text) in zip(pairs[len(first) :], own_fields(event), strict=True):
        assert (is_name_of(name, own), value) == (True, angled(text))


@settings(max_examples=50)
@given(event=hostile())
def test_gordium_read_back_has_its_parts(event: Event) -> None:
    line = FORMATS["gordium"](event)
    head = re.match(r"[A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d \S+ gordium [0-9-]+ [0-9:]+ ", line)
    assert head is not None
    pairs = re.findall(r"(?:^| )([a-z-]+)=<([^<>]*)>", line[head.end() :])
    assert " ".join(f"{name}=<{value}>" for name, value in pairs) == line[head.end() :]
    parts = dict(pairs)
    assert len(parts) == len(pairs)
    assert parts.get("reported-by") == event.client
    if event.client is not None:
        assert parts["msg"] == angled(printable(event.msg, 80_000))
        assert parts["client-name"] == event.client


HEADS = {
    "journal": r"[A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d [!-~]+ ([a-z0-9-]+)(?:\[\d+\])?: ",
    "plain": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: [A-Z]+ - ",
}


@settings(max_examples=50)
@pytest.mark.parametrize("name", HEADS)
@given(event=hostile())
@example(event=replace(event_of(), msg='x [path="/y"] [z="', fields={"path": ' [a="b"]\\'}))
@example(event=replace(event_of("START"), msg='\\x5bpath="/y"] \\x5c', client=None))
def test_lines_as_programs_write_them_read_back_have_text_and_details(
    name: str, event: Event
) -> None:
    line = FORMATS[name](event)
    head = re.match(HEADS[name], line)
    assert head is not None
    text, bracket, rest = re.match(  # type: ignore[union-attr]
        r'(.*?)(?:( \[)([a-z][A-Za-z0-9_-]*=".*"\]))?$', line[head.end() :]
    ).groups()
    assert text.replace("\\x5b", "[").replace("\\x5c", "\\") == printable(event.msg, 80_000)
    pairs = re.findall(r'([a-z][A-Za-z0-9_-]*)="((?:[^"\\]|\\.)*)"[ \]]', rest or "")
    assert "".join(f'{key}="{value}" ' for key, value in pairs)[:-1] == (rest or "")[:-1]
    details = {key: re.sub(r"\\(.)", r"\1", value) for key, value in pairs}
    assert len(details) == len(pairs)
    if name == "plain":
        assert details.pop("reported-by", None) == event.client
    entry = CATALOGUE.get(event.code)
    if entry is None or entry.written_by is None:
        assert (details.pop("code"), details.pop("severity")) == (event.code, event.severity.word)
        own = "needfire-server" if event.client is None else "needfire-agent"
        assert name == "plain" or head[1] == own
    shown_pid = entry is not None and entry.written_by and type(event.fields.get("pid")) is int
    told = frozenset() if entry is None else entry.msg_fields()
    fields = [
        shown(value)
        for name, value in event.fields.items()
        if not (shown_pid and name == "pid")
        and not (name in told and ("" if value is None else str(value)) in event.msg)
    ]
    assert list(details.values()) == fields
    assert bracket is not None or not fields


@given(event=hostile(), facility=st.sampled_from(sorted(FACILITIES.values())))
def test_rfc5424_read_back_has_header_elements_and_message(event: Event, facility: int) -> None:
    message = parse_rfc5424(
        rfc5424_message(event, "the record", facility=facility, hostname="log.example.org")
    )
    assert (message.facility, message.severity) == (facility, syslog_severity(event.severity))
    assert message.timestamp == format_time(event.time_us)
    assert message.hostname == (event.client or "log.example.org")
    assert (message.app_name, message.msgid) == ("needfire", event.code[:32])
    own, fields = message.elements["needfire@32473"], message.elements["fields@32473"]
    assert own["id"] == event.id
    assert fields == {name: shown(value) for name, value in event.fields.items()}
    assert message.msg == "the record"


@given(event=hostile(), text=_sly_text | any_text)
def test_syslog_messages_are_one_line_and_a_stream_of_them_can_be_split(
    event: Event, text: str
) -> None:
    messages = [
        header(event, text, facility=10, hostname="log\n<13>forged")
        for header in (rfc5424_message, traditional_message)
    ]
    for message in messages:
        assert message.decode("utf-8").isprintable()
    assert parse_octet_counted(b"".join(map(octet_counted, messages))) == messages


def test_a_name_longer_than_structured_data_allows_is_left_to_the_record() -> None:
    event = replace(event_of(), fields={"a" * 33: "x", "b" * 32: "y"})
    message = parse_rfc5424(rfc5424_message(event, "-", facility=1, hostname="h"))
    assert message.elements["fields@32473"] == {"b" * 32: "y"}


def test_the_traditional_header_pads_the_day_with_a_blank() -> None:
    event = replace(event_of(), time_us=1_396_976_536_000_000, severity=Severity.ALERT)
    message = traditional_message(event, "text", facility=FACILITIES["local0"], hostname="h")
    assert message == b"<129>Apr  8 17:02:16 web1.example.org needfire: text"


@given(event=hostile())
def test_a_mark_is_shown_by_every_form_and_cannot_be_brought_along(event: Event) -> None:
    fields = dict(list(event.fields.items())[:5])
    forged = replace(event, client="web1", fields={**fields, "resent": "yes"})
    assert "resent" not in marked(forged, is_resent=False).fields
    again = marked(forged, is_resent=True)
    assert again.fields["resent"] is True
    assert again.id == event.id
    for form in FORMATS.values():
        assert "resent" in form(again)


def test_an_event_that_needs_no_mark_is_left_as_it_is() -> None:
    event = event_of(path="/x")
    assert marked(event, is_resent=False) is event


# gordium has no fields of the event that could make it long.
@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"gordium"}))
def test_a_record_that_is_too_long_is_cut_and_says_so(name: str) -> None:
    event = replace(event_of(), fields={f"name{n}": "é" * 20_000 for n in range(96)})
    for size in (2_048, 8_192):
        data = fitting(event, lambda each: FORMATS[name](each).encode(), size)
        assert len(data) <= size
        assert b"shortened" in data
        assert event.code.encode() in data or name in ("text", "classic")
        assert name not in ("json", "ecs") or json.loads(data)


def test_a_record_of_just_the_size_is_left_whole() -> None:
    event = event_of(path="/" + "x" * 400)
    whole = json_line(event).encode()

    def render(each: Event) -> bytes:
        return json_line(each).encode()

    assert fitting(event, render, len(whole)) == whole
    assert fitting(event, render, len(whole) + 1) == whole
    assert b"shortened" in fitting(event, render, len(whole) - 1)


def test_the_host_of_a_syslog_message_can_never_be_a_path() -> None:
    event = replace(event_of(), client="hall/web1")
    for header in (rfc5424_message, traditional_message):
        message = header(event, "-", facility=1, hostname="h").decode()
        assert " hall!web1 needfire" in message


@pytest.mark.parametrize(("characters", "is_in_loop"), [(16_000, True), (20_000, False)])
async def test_what_takes_its_time_is_not_rendered_in_the_event_loop(
    characters: int, is_in_loop: bool
) -> None:
    threads: list[int] = []

    def render(each: Event) -> bytes:
        threads.append(threading.get_ident())
        return each.id.encode()

    event = replace(event_of(), fields={"text": "x" * characters})
    assert await rendered(render, event) == event.id.encode()
    assert (threads == [threading.get_ident()]) == is_in_loop


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_largest_event_that_there_can_be_is_a_record_of_bounded_size(name: str) -> None:
    event = replace(event_of(), fields={f"name{n}": '"' * 20_000 for n in range(96)})
    assert len(line_of(settings_of(format=name))(event)) <= RECORD_BYTES_MAX


def test_records_that_go_together_are_bounded_by_their_text() -> None:
    large = replace(event_of(), fields={f"name{n}": "x" * 20_000 for n in range(96)})
    assert leading([(n, large) for n in range(10)], 200) == 2
    assert leading([(1, large)], 200) == 1
    assert leading([(n, event_of()) for n in range(300)], 200) == 200
    assert leading([(1, event_of())], 200) == 1
