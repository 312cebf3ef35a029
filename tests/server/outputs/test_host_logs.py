"""The lines of hosts' own logs, as two documents have them, come out of events byte for byte."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from string import Formatter

import pytest

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.catalogue_entry import Entry
from needfire_protocol.escape import escape_bytes
from needfire_protocol.event import Event, FieldValue, make_event
from needfire_server.admin.banner import banner_lines
from needfire_server.lockout import Failures
from needfire_server.outputs.formats import FORMATS
from needfire_testkit.record_parsers import AuditRecord, parse_linux_audit

HERE = Path(__file__).parent
ROUTER = (HERE / "router_lines.txt").read_text("utf-8").splitlines()
"""Every log line of "Configuring Audit Events and Logging", Example Audit Logs, in its order."""
GATEWAY = (HERE / "sshd_lines.txt").read_text("utf-8").splitlines()
"""The sample logs of the "Log Monitoring Guide", CLI Login Events."""
HOST_ENTRIES = [entry for entry in CATALOGUE.values() if entry.written_by is not None]


def micros(text: str, form: str) -> int:
    moment = datetime.strptime(text, form).replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


def event_of(line: str) -> tuple[str, Event]:
    """Return the form that a documented line has, and the event behind it."""
    if line.startswith("type="):
        return "linux-audit-hosts", audit_event(parse_linux_audit(line))
    found = re.fullmatch(r"([A-Z][a-z]{2} [ \d]\d [\d:]{8}) (\S+) ([a-z]+)\[(\d+)\]: (.*)", line)
    if found is not None:
        stamp, host, program, pid, text = found.groups()
        time_us = micros(f"2024 {stamp}", "%Y %b %d %H:%M:%S")
        made = worded_event(program, text, time_us, pid=int(pid))
        return "journal", made.received(host, time_us)
    found = re.fullmatch(r"([\d-]{10} [\d:]{8},\d{3}): [A-Z]+ - (.*)", line)
    assert found is not None, f"no form for {line!r}"
    time_us = micros(f"{found[1]}000", "%Y-%m-%d %H:%M:%S,%f")
    return "plain", worded_event("installer", found[2], time_us)


def audit_event(record: AuditRecord) -> Event:
    """The event behind a record; its fields in no order of theirs."""
    fields: dict[str, FieldValue] = {"record": record.type, "serial": record.stamp[1]}
    for name in sorted(record.fields, reverse=True):
        fields[name.replace("-", "_")] = audit_value(record, name)
    seconds, millis = record.stamp[0].split(".")
    time_us = int(seconds) * 1_000_000 + int(millis) * 1_000
    return make_event("HOST_AUDIT_RECORD", time_us=time_us, random_10_bytes=bytes(10), **fields)


def audit_value(record: AuditRecord, name: str) -> FieldValue:
    value = record.fields[name]
    if name in record.quoted:
        return escape_bytes(value.encode())
    if value in ("?", "(none)", "(null)"):
        return None
    if name == "proctitle":
        return escape_bytes(bytes.fromhex(value))
    return int(value) if value.isdecimal() and str(int(value)) == value else value


def worded_event(program: str, text: str, time_us: int, **fields: FieldValue) -> Event:
    """The event whose entry has these words; what stands in their places becomes its fields."""
    [(entry, told)] = matches(program, text)
    values = {**dict(sorted(told.items())), **fields}
    return make_event(entry.code, time_us=time_us, random_10_bytes=bytes(10), **values)


def matches(program: str, text: str) -> list[tuple[Entry, dict[str, str]]]:
    found = [
        (entry, re.fullmatch(pattern(entry), text))
        for entry in HOST_ENTRIES
        if entry.written_by == program
    ]
    return [(entry, match.groupdict()) for entry, match in found if match is not None]


def pattern(entry: Entry) -> str:
    def pieces() -> Iterator[str]:
        for literal, name, _, _ in Formatter().parse(entry.msg):
            yield re.escape(literal) + ("" if name is None else f"(?P<{name}>.+?)")

    return "".join(pieces())


@pytest.mark.parametrize("line", [*ROUTER, *GATEWAY])
def test_every_documented_line_comes_out_byte_for_byte(line: str) -> None:
    form, event = event_of(line)
    assert FORMATS[form](event) == line


def test_the_documents_are_there_as_a_whole() -> None:
    kinds = [event_of(line)[0] for line in ROUTER]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "linux-audit-hosts": 28,
        "journal": 4,
        "plain": 10,
    }
    assert len(GATEWAY) == 6


def test_bytes_that_no_text_can_hold_come_out_as_the_kernel_wrote_them() -> None:
    # The arguments of a process, a NUL between them, a name that is not UTF-8, and a backslash.
    raw = b"rm\0-r\0/tmp/\xff\\x"
    line = f"type=PROCTITLE msg=audit(1709742929.678:2340): proctitle={raw.hex().upper()}"
    form, event = event_of(line)
    assert event.fields["proctitle"] == r"rm\x00-r\x00/tmp/\xff\\x"
    assert FORMATS[form](event) == line


@pytest.mark.parametrize("line", ROUTER[:28])
def test_a_host_s_record_names_its_host_where_several_come_together(line: str) -> None:
    event = event_of(line)[1].received("web1", 1)
    assert FORMATS["linux-audit-hosts"](event) == f"node=web1 {line}"


TABLES = [
    "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=h user=u",
    "Failed password for u from h port 61203 ssh2",
    "Disconnecting: Too many authentication failures for u [preauth]",
    "error: maximum authentication attempts exceeded for u from h port 61203 ssh2 [preauth]",
    "error: Received disconnect from h: 14: No supported authentication methods available [preauth]",
    "Accepted password for u from h port 61203 ssh2",
    "Accepted publickey for u from h port 61203 ssh2: RSA SHA256:abc",
    "pam_unix(sshd:session): session opened for user u by (uid=0)",
    "pam_unix(sshd:session): session closed for user u",
]
"""All rows of its two tables, with something in the places."""


@pytest.mark.parametrize("text", TABLES)
def test_every_event_of_the_gateway_s_tables_has_its_entry(text: str) -> None:
    event = worded_event("sshd", text, 0, pid=7).received("web1", 0)
    assert FORMATS["journal"](event) == f"Jan  1 00:00:00 web1 sshd[7]: {text}"


def test_who_comes_back_is_told_of_failures_in_the_document_s_words() -> None:
    documented = (HERE / "router_banner.txt").read_text("utf-8").splitlines()
    last_us = micros("2024-03-18 04:07:15", "%Y-%m-%d %H:%M:%S")
    failures = Failures(2, last_us - 20_000_000, last_us)
    assert banner_lines(failures, "172.18.15.253", "ssh:notty") == documented
    assert banner_lines(Failures(1, 0, None), "eve", "needfire-admin") == [
        "There was 1 failed login attempt since the last successful login."
    ]
    [early, _] = banner_lines(Failures(1, 0, 0), "eve", "needfire-admin")
    assert early == "Last failed login: Thu Jan  1 00:00:00 UTC 1970 from eve on needfire-admin"


def test_an_installer_s_line_that_a_client_reported_names_the_client() -> None:
    _, event = event_of(ROUTER[-1])
    line = FORMATS["plain"](event.received("web1", 1))
    assert line == f'{ROUTER[-1]} [reported-by="web1"]'


def test_a_process_number_that_is_none_does_not_get_into_the_head() -> None:
    _, event = event_of(GATEWAY[0])
    forged = replace(event, fields={**event.fields, "pid": "1]: x sshd[2"})
    line = FORMATS["journal"](forged)
    assert line.startswith("Oct 12 08:19:40 54.89.128.83 sshd: pam_unix(")
    assert line.endswith(' [pid="1]: x sshd[2"]')


@pytest.mark.parametrize("form", ["journal", "plain"])
def test_what_a_field_says_and_the_text_does_not_follows_in_brackets(form: str) -> None:
    """A long text is cut, and a client chooses its words itself."""
    event = make_event("SCAN_GOES_ON", time_us=0, random_10_bytes=bytes(10), path="/etc/passwd")
    assert "path=" not in FORMATS[form](event)
    assert ' path="/etc/passwd"' in FORMATS[form](replace(event, msg="nothing happened"))
