"""The form ``gordium``: the documented lines come out byte for byte, and no value forges a part."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.event import Event
from needfire_protocol.gordium import gordium_line
from needfire_protocol.severity import Severity

# The sample lines of the log monitoring guide; one of its line breaks had put a blank into
# "client-name".
LINES = (Path(__file__).parent / "lines" / "gordium.txt").read_text().splitlines()
CODES = {
    "Client instance update success": "CLIENT_INSTANCE_UPDATED",
    "Agent create success": "AGENT_CREATED",
    "Gateway token create": "GATEWAY_TOKEN_CREATED",
}
FORM = re.compile(
    r"(\w{3} [ \d]\d [\d:]{8}) (\S+) gordium ([\d-]{10} [\d:]{8}) category=<([^<>]*)>(,?) "
    r"status=<([^<>]*)>\5 msg=<([^<>]*)>\5 subject=<([^<>]*)>\5 client-name=<([^<>]*)>"
)
EVENT = Event(
    id="01234567-0123-7123-8123-0123456789ab",
    time_us=1_763_754_047_999_999,
    code="CLIENT_REGISTERED",
    event_class=EventClass.ADMINISTRATION,
    severity=Severity.NOTICE,
    msg="Client registered",
)


def micros(text: str) -> int:
    moment = datetime.strptime(text, "%Y %b %d %H:%M:%S").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000


@pytest.mark.parametrize("line", LINES)
def test_every_documented_line_comes_out_byte_for_byte(line: str) -> None:
    found = FORM.fullmatch(line)
    assert found is not None
    sent, host, made, _category, _comma, _status, msg, _subject, client = found.groups()
    event = replace(
        EVENT,
        code=CODES[msg],
        time_us=int(datetime.fromisoformat(f"{made}+00:00").timestamp()) * 1_000_000,
        fields={} if client == "none" else {"client": client},
    )
    assert gordium_line(event, host=host, sent_us=micros(f"2017 {sent}")) == line


def test_the_documented_table_of_the_form_has_commas() -> None:
    line = gordium_line(
        replace(EVENT, fields={"client": "web1"}), host="192.0.2.1", sent_us=0, with_commas=True
    )
    assert line == (
        "Jan  1 00:00:00 192.0.2.1 gordium 2025-11-21 19:40:47 category=<Audit>, status=<success>, "
        "msg=<Client create success>, subject=<Client>, client-name=<web1>"
    )


@pytest.mark.parametrize(
    ("code", "severity", "status", "msg"),
    [
        ("FILE_NOT_ACCESSIBLE", Severity.ERR, "failure", "Key not found"),
        ("FILE_TRANSFER_COMPLETED", Severity.INFO, "success", "Key accessed"),
        ("SIGNATURE_MISMATCH", Severity.CRIT, "failure", "Alert Client instance access denied"),
        ("STORE_FAILED", Severity.ALERT, "failure", "Client registered"),
        ("START", Severity.NOTICE, "success", "Client registered"),
    ],
)
def test_events_of_the_server_have_the_document_s_words(
    code: str, severity: Severity, status: str, msg: str
) -> None:
    line = gordium_line(replace(EVENT, code=code, severity=severity), host="h", sent_us=0)
    found = FORM.fullmatch(line)
    assert found is not None
    assert (found[6], found[7]) == (status, msg)


@given(st.text(max_size=40), st.text(max_size=40), st.booleans())
def test_no_value_ends_its_part_or_its_line(msg: str, client: str, with_commas: bool) -> None:
    event = replace(EVENT, code="STORE_FAILED", msg=msg, fields={"client": client})
    line = gordium_line(event, host="h", sent_us=1, with_commas=with_commas)
    found = FORM.fullmatch(line)
    assert found is not None
    assert line.isprintable()
    if client and client.isprintable() and not set(client) & set("<>"):
        assert found[9] == client


@pytest.mark.parametrize("code", ["CLIENT_REMOVED", "NEW_CLIENT", "AGENT_CREATED", "ODD"])
def test_a_client_s_report_is_none_of_the_server_s_records(code: str) -> None:
    own = gordium_line(replace(EVENT, code=code, fields={"client": "web1"}), host="h", sent_us=0)
    words = "Client delete> reported-by=<web2"
    forged = replace(EVENT, code=code, msg=words, client="web1", fields={"client": "web2"})
    line = gordium_line(forged, host="h", sent_us=0)
    assert "reported-by" not in own
    assert line.endswith(
        "msg=<Client delete\\x3e reported-by=\\x3cweb2> subject=<Administration> "
        "client-name=<web1> reported-by=<web1>"
    )
