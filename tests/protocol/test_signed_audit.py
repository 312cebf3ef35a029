"""The bracket form: the documented lines come out byte for byte, and every line can be read back."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.event import Event, FieldValue
from needfire_protocol.severity import Severity
from needfire_protocol.signed_audit import signed_audit_line

# Every example line of the audit events of a key recovery authority, once each. Where the page hides a
# mail address it has a blank that is no blank; here it is one.
LINES = (Path(__file__).parent / "lines" / "signed-audit.txt").read_text().splitlines()

ATTRIBUTE = re.compile(r"\[([A-Za-z]+)=(.*?)\](?=\[| |$)", re.DOTALL)
EVENT = Event(
    id="01234567-0123-7123-8123-0123456789ab",
    time_us=1_763_754_047_000_000,
    code="CLIENT_REGISTERED",
    event_class=EventClass.ADMINISTRATION,
    severity=Severity.NOTICE,
    msg="Client registered",
)


def parsed(line: str) -> tuple[list[tuple[str, str]], str]:
    """Read a line as a log reader would: attributes in order, then the text."""
    attributes, end = [], 0
    while (found := ATTRIBUTE.match(line, end)) is not None:
        value = found[2].replace("\\x5d", "]").replace("\\x5c", "\\")
        attributes.append((found[1], value))
        end = found.end()
    return attributes, line[end + 1 :]


def field_name(attribute: str) -> str:
    special = {"aclResource": "resource", "Op": "operation", "SubjectID": "subject"}
    return special.get(attribute) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", attribute).lower()


def event_of(line: str) -> Event:
    """The event behind a documented line; its fields in no order of theirs."""
    attributes, _text = parsed(line)
    values = dict(attributes)
    code, outcome = values.pop("AuditEvent"), values.pop("Outcome")
    fields: dict[str, FieldValue] = {
        field_name(name): None if value == "null" else value for name, value in values.items()
    }
    fields["outcome"] = outcome.lower()
    return replace(EVENT, code=code, fields=dict(sorted(fields.items(), reverse=True)))


def test_the_document_has_examples() -> None:
    assert len(LINES) == 33
    assert len({dict(parsed(line)[0])["AuditEvent"] for line in LINES}) == 13


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_every_documented_line_comes_out_byte_for_byte(line: str) -> None:
    assert signed_audit_line(event_of(line)) == line


@pytest.mark.parametrize(
    ("code", "fields", "line"),
    [
        (
            "NEW_CLIENT",
            {"client": "web1", "peer": "192.0.2.7:4711"},
            (
                "[AuditEvent=ACCESS_SESSION_ESTABLISH_SUCCESS][ClientIP=192.0.2.7:4711][ServerIP=null]"
                "[SubjectID=web1][Outcome=Success] access session establish success"
            ),
        ),
        (
            "CONNECTION_CLOSED",
            {"client": "web1", "peer": "192.0.2.7:4711", "reason": "goodbye: exit"},
            (
                "[AuditEvent=ACCESS_SESSION_TERMINATED][ClientIP=192.0.2.7:4711][ServerIP=null]"
                "[SubjectID=web1][Outcome=Success][Info=goodbye: exit] access session terminated"
            ),
        ),
        (
            "NOT_IN_CLIENT_LIST",
            {"client": "web1", "peer": "192.0.2.7:4711"},
            "[AuditEvent=AUTH_FAIL][SubjectID=web1][Outcome=Failure] authentication failure",
        ),
        (
            "CLIENT_REGISTERED",
            {"client": "web1", "user": "root", "replaced": False},
            (
                "[AuditEvent=CLIENT_REGISTERED][SubjectID=root][Outcome=Success][replaced=false] "
                "Client registered"
            ),
        ),
        (
            "SECURITY_DATA_RECOVERY_REQUEST_STATE_CHANGE",
            {"subject": "kraadmin", "recovery_id": 316, "operation": "approve"},
            (
                "[AuditEvent=SECURITY_DATA_RECOVERY_REQUEST_STATE_CHANGE][SubjectID=kraadmin]"
                "[Outcome=Success][RecoveryID=316][Operation=approve] "
                "security data recovery request state change"
            ),
        ),
    ],
)
def test_events_of_the_server_have_their_line(
    code: str, fields: dict[str, FieldValue], line: str
) -> None:
    assert signed_audit_line(replace(EVENT, code=code, fields=fields)) == line


def test_no_value_forges_an_attribute() -> None:
    fields = {"user": "x][Outcome=Success] ok [a=b", "reason": "x][Outcome=Success]"}
    line = signed_audit_line(
        replace(EVENT, code="FILE_NOT_ACCESSIBLE", severity=Severity.ERR, fields=fields)
    )
    attributes, text = parsed(line)
    assert [name for name, _ in attributes] == ["AuditEvent", "SubjectID", "Outcome", "reason"]
    assert dict(attributes)["Outcome"] == "Failure"
    assert text == "Client registered"


@given(
    st.dictionaries(
        st.from_regex(r"x[a-z]{1,8}", fullmatch=True),
        st.text(st.sampled_from("ab][ =\\x5dc5/.")) | st.text(max_size=40),
        max_size=5,
    )
)
def test_every_line_can_be_read_back(fields: dict[str, str]) -> None:
    line = signed_audit_line(replace(EVENT, fields=fields))
    assert "\n" not in line
    assert line.isprintable()
    attributes, text = parsed(line)
    assert text == "Client registered"
    shown = dict(attributes[3:])
    assert list(shown) == list(fields)
    for name, value in fields.items():
        if value.isprintable():
            assert shown[name] == value


@pytest.mark.parametrize(
    "code", ["AUTHZ_SUCCESS", "ROLE_ASSUME", "NEW_CLIENT", "CLIENT_REMOVED", "ADMIN_REFUSED", "ODD"]
)
def test_a_client_s_report_is_about_that_client_and_says_who_brought_it(code: str) -> None:
    fields: dict[str, FieldValue] = {
        "subject": "root",
        "user": "root",
        "client": "web2",
        "uid": 0,
        "aclResource": "audit",
        "role": "Administrators",
        "outcome": "success",
        "client_ip": "10.0.0.1",
    }
    line = signed_audit_line(replace(EVENT, code=code, client="web1", fields=fields))
    assert line == (
        f"[AuditEvent={code}][SubjectID=web1][Outcome=Success][ReportedBy=web1][subject_=root]"
        "[user_=root][client_=web2][uid_=0][aclResource_=audit][role=Administrators]"
        "[client_ip=10.0.0.1] Client registered"
    )
    assert "ReportedBy" not in signed_audit_line(replace(EVENT, code=code, fields=fields))
