"""Whether something went well is told in the same way by the record and by every form of an event."""

import pytest

from needfire_protocol.catalogue import CATALOGUE, is_success
from needfire_protocol.catalogue_entry import Entry, EventClass
from needfire_protocol.event import make_event
from needfire_protocol.gordium import gordium_line
from needfire_protocol.severity import Severity
from needfire_protocol.signed_audit import signed_audit_line
from needfire_server.audit.drafts import draft_of_event
from needfire_testkit.server_store import NOW_US

LOUD = ("START", "EXIT", "CONFIGURATION_RELOADED", "LOG_RECOVERED")
QUIET = ("AUTHZ_FAIL", "ADMIN_REQUEST_FAILED", "SESSION_IN_USE", "PROPOSAL_REFUSED")


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=lambda entry: entry.code)
@pytest.mark.parametrize("outcome", [None, "success", "failure", "done"])
def test_every_form_says_the_same(entry: Entry, outcome: str | None) -> None:
    fields = dict.fromkeys(entry.msg_fields(), "x")
    if outcome is not None:
        fields["outcome"] = outcome
    event = make_event(entry.code, time_us=NOW_US, random_10_bytes=bytes(10), **fields)
    went_well = "[Outcome=Success]" in signed_audit_line(event)
    assert ("status=<success>" in gordium_line(event, host="h", sent_us=0)) == went_well
    draft = draft_of_event(event)
    assert draft is None or draft.is_success == went_well
    if outcome in ("success", "failure"):
        assert went_well == (outcome == "success")


@pytest.mark.parametrize("severity", [Severity.NOTICE, Severity.ALERT])
def test_what_is_loud_need_not_be_a_failure_nor_what_is_quiet_a_success(severity: Severity) -> None:
    for code in LOUD:
        assert CATALOGUE[code].severity >= Severity.ERR
        assert is_success(code, severity)
    for code in QUIET:
        assert CATALOGUE[code].severity < Severity.ERR
        assert not is_success(code, severity)
    for code in ("CONNECTION_TIMEOUT", "NOT_IN_CLIENT_LIST", "ADMIN_REFUSED"):
        assert not is_success(code, severity)


@pytest.mark.parametrize("severity", [Severity.NOTICE, Severity.WARN, Severity.ERR, Severity.CRIT])
def test_of_a_code_that_nobody_knows_its_severity_decides_unless_a_document_does(
    severity: Severity,
) -> None:
    assert is_success("NOBODY_KNOWS", severity) == (severity < Severity.ERR)
    for documented in (False, True):
        assert is_success("NOBODY_KNOWS", severity, documented=documented) == documented
        assert is_success("STORE_FAILED", severity, documented=documented) == (
            severity < Severity.ERR
        )


def test_what_json_says_of_an_entry_leaves_nothing_out() -> None:
    alerts = [entry for entry in CATALOGUE.values() if entry.alert is not None]
    assert alerts
    for entry in (*alerts, CATALOGUE["LOG_RECOVERED"]):
        names = {"event_class": "class"}
        assert {names.get(name, name) for name in Entry.__slots__} == entry.as_data().keys()
        assert EventClass(entry.as_data()["class"]) is entry.event_class
