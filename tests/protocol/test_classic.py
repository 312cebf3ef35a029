"""One event is one classic line, in both forms, whatever its values hold."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.classic import text_line, xml_line
from needfire_protocol.event import Event, FieldValue, make_event
from needfire_protocol.severity import Severity
from needfire_testkit.event_strategies import events, made_events

TIME_US = 1_795_290_047_123_456


def event(
    code: str = "POLICY_MISSING", severity: Severity | None = None, **fields: FieldValue
) -> Event:
    return make_event(code, severity, time_us=TIME_US, random_10_bytes=bytes(10), **fields)


def test_the_xml_form_is_samhain_s() -> None:
    assert xml_line(event(path="/etc/x")) == (
        '<log sev="CRIT" tstamp="2026-11-21T19:40:47+0000" msg="POLICY MISSING" path="/etc/x" />'
    )


def test_the_text_form_is_samhain_s() -> None:
    assert text_line(event(path="/etc/x")) == (
        "CRIT   :  [2026-11-21T19:40:47+0000] msg=<POLICY MISSING>, path=</etc/x>"
    )


def test_an_event_without_fields_is_written_without() -> None:
    assert xml_line(event("NO_FILE_FROM_SERVER")).endswith('local file" />')
    assert text_line(event("NO_FILE_FROM_SERVER")).endswith("local file>")


def test_a_client_s_report_is_wrapped_in_its_receipt() -> None:
    received = event(path="/etc/x").received("client1", TIME_US + 5_000_000)
    assert xml_line(received) == (
        '<log sev="RCVT" tstamp="2026-11-21T19:40:52+0000" remote_host="client1" > '
        '<log sev="CRIT" tstamp="2026-11-21T19:40:47+0000" msg="POLICY MISSING" path="/etc/x" />'
        " </log>"
    )
    assert "client=<client1>" in text_line(received)


def test_a_field_that_the_message_tells_already_is_not_repeated() -> None:
    modified = event("POLICY_MODIFIED", policy="ReadOnly", change="C---------", path="/x")
    assert 'msg="POLICY [ReadOnly] C---------" path="/x"' in xml_line(modified)
    assert "policy=" not in text_line(modified)


@pytest.mark.parametrize(
    ("severity", "xml", "text"),
    [
        (Severity.DEBUG, "DEBG", "DEBUG  :  ["),
        (Severity.INFO, "INFO", "INFO   :  ["),
        (Severity.NOTICE, "NOTE", "NOTICE :  ["),
        (Severity.WARN, "WARN", "WARN   :  ["),
        (Severity.MARK, "MARK", "MARK   :  ["),
        (Severity.ERR, "ERRO", "ERROR  :  ["),
        (Severity.CRIT, "CRIT", "CRIT   :  ["),
        (Severity.ALERT, "ALRT", "ALERT  :  ["),
    ],
)
def test_every_severity_has_samhain_s_label(severity: Severity, xml: str, text: str) -> None:
    assert xml_line(event(severity=severity, path="/x")).startswith(f'<log sev="{xml}" ')
    assert text_line(event(severity=severity, path="/x")).startswith(text)


def test_values_are_written_plainly() -> None:
    line = xml_line(event(path="/x", size_old=6, a=True, b=False, c=None))
    assert 'size_old="6" a="yes" b="no" c=""' in line


def test_a_value_cannot_end_its_field() -> None:
    evil = 'x" /><log sev="ALRT" msg="forged'
    assert ElementTree.fromstring(xml_line(event(path=evil))).attrib["path"] == evil
    line = text_line(event(path="x>, msg=<forged"))
    assert line.count("msg=<") == 1
    assert "path=<x\\x3e, msg=\\x3cforged>" in line


def test_a_field_of_an_agent_cannot_pass_for_one_of_the_record() -> None:
    """Two attributes of one name would make the line no XML at all."""
    names = ("sev", "tstamp", "msg", "remote_host", "client")
    received = Event(
        id="",
        time_us=TIME_US,
        code="START",
        event_class=event().event_class,
        severity=Severity.ALERT,
        msg="START",
        fields=dict.fromkeys(names, "forged"),
    ).received("web1", TIME_US)
    inner = ElementTree.fromstring(xml_line(received))[0]
    assert inner.attrib["msg"] == "START"
    assert inner.attrib["sev"] == "ALRT"
    assert [inner.attrib[f"{name}_"] for name in names] == ["forged"] * 5
    assert "client=<web1>" in text_line(received)
    assert text_line(received).count(" client=<") == 1


_names = st.sampled_from(["msg", "sev", "client", "remote_host", "xmlns", "path", "a"]).flatmap(
    lambda name: st.sampled_from([name, f"{name}_", f"{name}__", f"{name}___"])
)
_values = st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=6)
_values |= st.just("http://www.w3.org/XML/1998/namespace")


@given(
    code=st.sampled_from(["START", "POLICY_MODIFIED", "CLIENT_REMOVED", "ODD"]),
    fields=st.dictionaries(_names, _values, max_size=12),
    client=st.sampled_from([None, "web1"]),
    received_us=st.sampled_from([None, TIME_US]),
)
def test_every_event_is_a_record_that_a_parser_takes_with_each_field_once(
    code: str, fields: dict[str, FieldValue], client: str | None, received_us: int | None
) -> None:
    made = replace(
        event(path="/x"), code=code, fields=fields, client=client, received_us=received_us
    )
    root = ElementTree.fromstring(xml_line(made))
    record = root if root.get("remote_host") is None else root[0]
    assert record.attrib["msg"] == made.msg
    told = {"sev", "tstamp", "msg"} | ({"client"} if client and received_us is None else set())
    entry = CATALOGUE.get(code)
    hidden = frozenset() if entry is None else entry.msg_fields()
    assert len(record.attrib) == len(told) + len(fields.keys() - hidden)
    names = re.findall(r" ([A-Za-z_]+)=<", text_line(made))
    assert len(names) == len(set(names))


def test_the_text_form_tells_the_server_s_word_from_a_client_s_report() -> None:
    own = event("CLIENT_REMOVED", client="web1", user="root", uid=0)
    forged = replace(own, fields={**own.fields, "remote_host": "x"}).received("web1", TIME_US)
    assert "remote_host" not in text_line(own)
    assert " client=<web1>, remote_host=<web1>, " in text_line(forged)
    assert "remote_host_=<x>" in text_line(forged)


def test_the_server_s_own_events_name_the_client_that_they_are_about() -> None:
    line = xml_line(event("NOT_IN_CLIENT_LIST", client="web1", peer="10.0.0.1"))
    assert 'client="web1" peer="10.0.0.1"' in line


@given(events)
def test_any_event_is_one_printable_line_of_text(any_event: Event) -> None:
    assert text_line(any_event).isprintable()


@given(events)
def test_any_event_is_one_printable_line_of_xml_that_a_parser_takes(any_event: Event) -> None:
    line = xml_line(any_event)
    assert line.isprintable()
    root = ElementTree.fromstring(line)
    record = root[0] if root.attrib["sev"] == "RCVT" else root
    assert record.attrib["sev"] == any_event.severity.label


@given(made_events())
def test_an_xml_parser_reads_back_what_our_own_events_hold(made: Event) -> None:
    attributes = ElementTree.fromstring(xml_line(made)).attrib
    assert attributes["msg"] == made.msg
    for name, value in made.fields.items():
        if isinstance(value, str) and name in attributes:
            assert attributes[name] == value
