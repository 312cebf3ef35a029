"""The form of the Linux audit daemon: every record is read back, by us and by the daemon's own tools."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from needfire_protocol.catalogue import CATALOGUE, is_success
from needfire_protocol.event import Event, FieldValue, make_event
from needfire_server.outputs.formats import FORMATS
from needfire_server.outputs.formats.linux_audit import LINE_BYTES_MAX, linux_audit_line
from needfire_testkit.event_strategies import any_text, events
from needfire_testkit.record_parsers import AuditRecord, parse_linux_audit

TIME_US = 1_795_290_047_123_456
OWN = ("event", "class", "severity", "nf_id")
SLY = (
    *("'", '"', "=", " ", "\n", "\0", "\\", "\\x27", "é", "\U0001f600", "\ud800", "x", "DEADBEEF"),
    *("res=success", "uid=0", "' type=USER_LOGIN msg=audit(1.000:1): ", "acct=root", "node=web2 "),
)
sly_text = st.lists(st.sampled_from(SLY), max_size=6).map("".join)
sly_names = st.sampled_from(
    [
        *(
            "uid",
            "res",
            "acct",
            "addr",
            "pid",
            "ses",
            "exe",
            "id",
            "path",
            "path_",
            "event",
            "text",
        ),
        *(
            "type",
            "type_",
            "msg",
            "node",
            "resent",
            "hostname",
            "old_auid",
            "tty",
            "key",
            "shortened",
        ),
    ]
)
values = st.one_of(sly_text, any_text, st.integers(-9, 2**64 - 1), st.booleans(), st.none())


fields_of_others = st.dictionaries(sly_names, values, max_size=8)
any_events = st.builds(
    lambda event, msg, fields: replace(event, msg=msg, fields=fields),
    events,
    sly_text,
    fields_of_others,
)


def own_event(code: str, **fields: FieldValue) -> Event:
    words = dict.fromkeys(CATALOGUE[code].msg_fields(), "x")
    return make_event(code, time_us=TIME_US, random_10_bytes=bytes(10), **{**words, **fields})


def record_of(code: str, **fields: FieldValue) -> AuditRecord:
    return parse_linux_audit(linux_audit_line(own_event(code, **fields)))


@pytest.mark.parametrize(
    ("code", "type_", "op", "res"),
    [
        ("SESSION_KEY_MISMATCH", "USER_AUTH", "SRP", "failed"),
        ("NOT_IN_CLIENT_LIST", "USER_AUTH", "SRP", "failed"),
        ("NEW_CLIENT", "USER_LOGIN", "login", "success"),
        ("CLIENT_RESUMED", "USER_START", "resume", "success"),
        ("CONNECTION_CLOSED", "USER_END", "close", "success"),
        ("FORCE_AUTHENTICATION", "CRYPTO_KEY_USER", "destroy", "success"),
        ("SIGNATURE_MISMATCH", "CRYPTO_FAILURE_USER", "verify", "failed"),
        ("REFUSED_CONNECTION", "ANOM_LOGIN_LOCATION", "libwrap", "failed"),
        ("ADMIN_LOCKED", "ANOM_LOGIN_FAILURES", "lock", "failed"),
        ("AUTHZ_FAIL", "DAC_CHECK", "request", "failed"),
        ("CLIENT_REGISTERED", "ADD_USER", "register", "success"),
        ("CLIENT_REMOVED", "DEL_USER", "remove", "success"),
        ("START", "SERVICE_START", "start", "success"),
        ("EXIT", "SERVICE_STOP", "stop", "success"),
        ("SETTINGS_CHANGED", "USYS_CONFIG", "change", "success"),
        ("TIME_EXCEEDED", "TRUSTED_APP", "time_exceeded", "failed"),
    ],
)
def test_the_server_s_own_events_have_the_types_of_the_audit_library(
    code: str, type_: str, op: str, res: str
) -> None:
    record = record_of(code)
    assert (record.type, record.fields["op"], record.fields["res"]) == (type_, op, res)
    assert record.text("event") == code


def test_a_log_in_looks_as_in_the_daemon_s_own_log() -> None:
    line = linux_audit_line(own_event("NEW_CLIENT", client="web1", peer="192.0.2.7:4711"))
    event_id = own_event("NEW_CLIENT").id
    assert line == (
        f"type=USER_LOGIN msg=audit(1795290047.123:{int(event_id[-8:], 16)}): pid=0 "
        'uid=4294967295 auid=4294967295 ses=4294967295 msg=\'op=login rport=4711 acct="web1" '
        f'event="NEW_CLIENT" class="traffic" severity="notice" nf_id="{event_id}" '
        'text=4E455720434C49454E54 exe="needfire-server" hostname=? addr=192.0.2.7 terminal=? '
        "res=success'"
    )


@pytest.mark.parametrize(
    ("peer", "address", "port"),
    [
        ("192.0.2.7", "192.0.2.7", None),
        ("192.0.2.7:4711", "192.0.2.7", "4711"),
        ("[2001:db8::7]:4711", "2001:db8::7", "4711"),
        ("2001:db8::7", "2001:db8::7", None),
        ("fe80::1%eth0", "fe80::1%eth0", None),
        ("unknown", "unknown", None),
        (None, "?", None),
    ],
)
def test_an_address_and_its_port_are_told_apart(
    peer: str | None, address: str, port: str | None
) -> None:
    record = record_of("NEW_CLIENT", client="web1", **({} if peer is None else {"peer": peer}))
    assert (record.fields["addr"], record.fields.get("rport")) == (address, port)


def test_who_was_refused_stands_where_the_daemon_s_tools_look_for_a_user() -> None:
    record = record_of("AUTHZ_FAIL", user="eve", uid=1000, operation="show", resource="audit")
    assert (record.text("acct"), record.fields["uid"]) == ("eve", "1000")
    assert record.text("nf_operation") == "show"


def test_what_a_client_reports_is_none_of_the_server_s_records() -> None:
    for code in CATALOGUE.keys() - {"HOST_AUDIT_RECORD"}:
        event = own_event(code, user="root", uid=0, peer="192.0.2.7", client="web2")
        record = parse_linux_audit(linux_audit_line(event.received("web1", TIME_US)))
        assert (record.node, record.type) == ("web1", "TRUSTED_APP")
        assert record.fields["uid"] == "4294967295"
        assert (record.fields["addr"], record.text("exe")) == ("?", "needfire-agent")
        assert parse_linux_audit(linux_audit_line(event)).node is None


@settings(max_examples=100)
@given(event=any_events)
@example(event=replace(own_event("START"), fields={"uid": "x", "uid_": 1, "nf_uid": None}))
@example(event=replace(own_event("START"), fields={"path": "a b", "path_": "c", "id": "'"}))
def test_a_record_read_back_has_every_field(event: Event) -> None:
    record = parse_linux_audit(linux_audit_line(event))
    millis = event.time_us // 1_000
    assert record.stamp[0] == f"{millis // 1_000}.{millis % 1_000:03}"
    assert (record.node, record.said >= {*OWN, "op", "exe", "res"}) == (event.client, True)
    told = event.fields.get("outcome")
    went_well = is_success(event.code, event.severity, told)
    assert record.fields["res"] == ("success" if went_well else "failed")
    assert [record.text(name) for name in OWN] == [
        *(event.code, event.event_class.value, event.severity.word, event.id)
    ]
    # Of the server's own events, some stand under names of the daemon's.
    uid = event.fields.get("uid")
    used = {"uid"} if event.client is None and type(uid) is int and 0 <= uid < 2**32 else set()
    given_values = [value for name, value in event.fields.items() if name not in used]
    found = [value for name, value in record.fields.items() if re.match(r"path|nf_(?!id$)", name)]
    shown = [record_value(value) for value in given_values]
    assert sorted(found) == sorted(shown)


def record_value(value: FieldValue) -> str:
    """A value as it stands in a record, without its quotes."""
    if value is None:
        return "?"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    raw = value.encode("utf-8", "surrogatepass")
    is_plain = re.fullmatch(rb"[!-~]*", raw) and not set(raw) & set(b"\"'=")
    return value if is_plain else raw.hex().upper()


@settings(max_examples=100)
@given(
    event=any_events,
    kind=st.sampled_from(["USER_LOGIN", "SYSCALL", "LOGIN", "PATH", "UNKNOWN[7]"]),
    serial=st.integers(0, 2**64 - 1),
)
def test_a_host_s_record_read_back_has_every_field(event: Event, kind: str, serial: int) -> None:
    fields: dict[str, FieldValue] = {**event.fields, "record": kind, "serial": serial}
    record = parse_linux_audit(
        linux_audit_line(
            replace(event, code="HOST_AUDIT_RECORD", fields=fields), with_host_records=True
        )
    )
    assert (record.node, record.type, record.stamp[1]) == (event.client, kind, serial)
    names = [name.replace("-", "_").rstrip("_") for name in record.fields]
    assert sorted(names) == sorted(name.rstrip("_") for name in event.fields)


@pytest.mark.parametrize(
    ("kind", "serial"),
    [
        *(
            ("A B", 1),
            ("user_login", 1),
            ("", 1),
            ("É", 1),
            (None, 1),
            ("X" * 65, 1),
            ("LOGIN\n", 1),
        ),
        *(("LOGIN", "1"), ("LOGIN", -1), ("LOGIN", True), ("LOGIN", 2**64)),
    ],
)
def test_what_is_no_record_of_the_daemon_does_not_become_one(
    kind: FieldValue, serial: FieldValue
) -> None:
    event = replace(own_event("HOST_AUDIT_RECORD"), fields={"record": kind, "serial": serial})
    line = linux_audit_line(event.received("web1", 1), with_host_records=True)
    record = parse_linux_audit(line)
    assert record.type == "TRUSTED_APP"
    assert record.text("event") == "HOST_AUDIT_RECORD"


def test_no_client_puts_a_log_in_into_the_server_s_reports() -> None:
    """aureport does not show whose record it is: only TRUSTED_APP is in no report of log-ins."""
    fields: dict[str, FieldValue] = {
        "record": "USER_AUTH",
        "serial": 7,
        "acct": "web9",
        "addr": "192.0.2.66",
        "exe": "needfire-server",
        "res": "failed",
    }
    event = replace(own_event("HOST_AUDIT_RECORD"), fields=fields).received("web1", 1)
    record = parse_linux_audit(FORMATS["linux-audit"](event))
    assert (record.node, record.type) == ("web1", "TRUSTED_APP")
    assert record.text("nf_record") == "USER_AUTH"
    asked = parse_linux_audit(FORMATS["linux-audit-hosts"](event))
    assert (asked.node, asked.type) == ("web1", "USER_AUTH")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("centos", '"centos"'),
        ("?", '"?"'),
        ("", '""'),
        ("a b", "612062"),
        ('"', "22"),
        ("o'neil", "6F276E65696C"),
        ("res=success", "7265733D73756363657373"),
        ("é", "C3A9"),
        ("\x7f", "7F"),
        ("~!", '"~!"'),
    ],
)
def test_text_of_others_is_quoted_or_encoded(text: str, shown: str) -> None:
    event = replace(own_event("START"), fields={"path": text})
    assert f" path={shown} " in linux_audit_line(event)


@pytest.mark.parametrize("code", ["POLICY_MODIFIED", "HOST_AUDIT_RECORD"])
@pytest.mark.parametrize("size", [100, 120, 130, 1_000, 20_000])
def test_a_record_is_never_longer_than_the_daemon_allows(code: str, size: int) -> None:
    fields: dict[str, FieldValue] = {f"name{n}": "é" * size for n in range(96)}
    fields |= {"record": "USER_LOGIN", "serial": 1, "resent": True}
    event = replace(own_event(code), msg="é" * 1_024, fields=fields, client="x" * 255)
    line = linux_audit_line(event)
    assert len(line) <= LINE_BYTES_MAX
    assert " shortened=yes" in line
    assert parse_linux_audit(line).node == "x" * 255
    assert code == "HOST_AUDIT_RECORD" or "nf_resent=yes" in line


def test_a_record_that_just_fits_is_whole() -> None:
    event = replace(own_event("START"), msg="x", fields={"path": ""})
    rest = LINE_BYTES_MAX - len(" shortened=yes") - len(linux_audit_line(event))
    for more, is_whole in ((-1, True), (0, True), (1, False)):
        line = linux_audit_line(replace(event, fields={"path": "y" * (rest + more)}))
        assert (" shortened=yes" not in line) == is_whole
        assert len(line) <= LINE_BYTES_MAX


# ---- the daemon's own tools

AUSEARCH = shutil.which("ausearch", path="/usr/sbin:/sbin:/usr/bin")
needs_auditd = [
    pytest.mark.debian,
    pytest.mark.skipif(AUSEARCH is None, reason="ausearch is missing: apt-get install auditd"),
]


def run(program: str, log: Path, *options: str) -> str:
    """Return what a tool of auditd prints of a log; it complains of records that it cannot read."""
    done = subprocess.run(
        [str(Path(str(AUSEARCH)).parent / program), *options, "-if", str(log)],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        stdin=subprocess.DEVNULL,
    )
    assert not re.search("skipped|[Mm]alformed|error", done.stderr), done.stderr
    return done.stdout


def written(tmp_path: Path, lines: Iterable[str]) -> Path:
    log = tmp_path / "audit.log"
    log.write_text("".join(f"{line}\n" for line in lines))
    log.chmod(0o600)
    return log


def server_events() -> Sequence[Event]:
    told: list[tuple[str, dict[str, FieldValue]]] = [
        ("NEW_CLIENT", {"client": "web1", "peer": "192.0.2.7:4711"}),
        ("SESSION_KEY_MISMATCH", {"client": "web1 'x'", "peer": "192.0.2.8:4711"}),
        ("CLIENT_REGISTERED", {"client": "web2", "user": "root", "uid": 0}),
        ("AUTHZ_FAIL", {"user": "eve", "uid": 1000, "operation": "show", "resource": "audit"}),
        ("ADMIN_LOCKED", {"user": "eve", "uid": 1000, "until": "later"}),
        ("FORCE_AUTHENTICATION", {"client": "web1", "peer": "192.0.2.7:4711"}),
        ("POLICY_MISSING", {"path": "/etc/res=success uid=0"}),
    ]
    return [
        make_event(code, time_us=TIME_US + n * 1_000_000, random_10_bytes=bytes([n] * 10), **fields)
        for n, (code, fields) in enumerate(told)
    ]


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        pytest.param(options, codes, marks=needs_auditd, id=" ".join(options))
        for options, codes in [
            (("-m", "USER_LOGIN"), ["NEW_CLIENT"]),
            (("-m", "CRYPTO_KEY_USER"), ["FORCE_AUTHENTICATION"]),
            (("-ui", "1000"), ["AUTHZ_FAIL", "ADMIN_LOCKED"]),
            (("-hn", "192.0.2.7"), ["NEW_CLIENT", "FORCE_AUTHENTICATION"]),
            (("-n", "web9"), ["POLICY_MISSING"]),
            (("-sv", "no", "-m", "TRUSTED_APP"), ["POLICY_MISSING"]),
            (("-sv", "yes"), ["NEW_CLIENT", "CLIENT_REGISTERED", "FORCE_AUTHENTICATION"]),
            (("-x", "needfire-agent"), ["POLICY_MISSING"]),
        ]
    ],
)
def test_the_real_ausearch_finds_what_it_is_asked_for(
    tmp_path: Path, options: Sequence[str], codes: Sequence[str]
) -> None:
    *own, last = server_events()
    log = written(tmp_path, map(linux_audit_line, [*own, last.received("web9", TIME_US)]))
    found = run("ausearch", log, "--raw", *options)
    assert re.findall(r' event="([A-Z_]+)"', found) == codes


@pytest.mark.debian
@pytest.mark.skipif(AUSEARCH is None, reason="ausearch is missing: apt-get install auditd")
def test_the_real_aureport_counts_log_ins_and_takes_every_record(tmp_path: Path) -> None:
    log = written(tmp_path, map(linux_audit_line, server_events()))
    summary = dict(re.findall(r"^Number of ([^:]+): (\d+)$", run("aureport", log), re.MULTILINE))
    counted = {
        "events": "7",
        "logins": "1",
        "failed authentications": "1",
        "changes to accounts, groups, or roles": "1",
        "anomaly events": "1",
        "crypto events": "1",
    }
    assert {name: summary[name] for name in counted} == counted


@pytest.mark.debian
@pytest.mark.skipif(AUSEARCH is None, reason="ausearch is missing: apt-get install auditd")
@settings(max_examples=10, deadline=None)
@given(many=st.lists(any_events, min_size=1, max_size=10))
def test_no_field_misleads_the_real_ausearch(
    tmp_path_factory: pytest.TempPathFactory, many: list[Event]
) -> None:
    said = [
        replace(event, time_us=TIME_US + n * 1_000, client=None, fields={**event.fields, "uid": 7})
        for n, event in enumerate(many)
    ]
    log = written(tmp_path_factory.mktemp("log"), map(linux_audit_line, said))
    about = ("-ui", "7", "-p", "0", "-x", "needfire-server", "-tm", "?")
    for answer in (True, False):
        found = run("ausearch", log, "--raw", *about, "-sv", "yes" if answer else "no")
        assert found.splitlines() == [
            linux_audit_line(event)
            for event in said
            if is_success(event.code, event.severity, event.fields.get("outcome")) is answer
        ]
