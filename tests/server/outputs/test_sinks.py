"""Real receivers, killed and started again in the middle: nothing is lost, duplicates are marked."""

import asyncio
import email
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from email.policy import default as email_policy
from pathlib import Path
from typing import Any

import pytest

from needfire_protocol.event import Event, FieldValue, make_event
from needfire_protocol.severity import Severity
from needfire_server.outputs.engine import OutputEngine
from needfire_server.outputs.settings import (
    MailSettings,
    OutputSettings,
    TargetKind,
    TlsSettings,
)
from needfire_server.outputs.targets.webhook import signature
from needfire_server.storage.output_cursors import CursorStore
from needfire_server.storage.sqlite import SqliteStore
from needfire_testkit.certificates import Authority
from needfire_testkit.output_doubles import settings_of
from needfire_testkit.record_parsers import SyslogMessage, parse_rfc5424
from needfire_testkit.server import until
from needfire_testkit.server_store import event
from needfire_testkit.sinks import RSYSLOG, Rsyslog, Sink

KEY = b"a key of the webhook, 24+ bytes"
needs_rsyslog = [
    pytest.mark.debian,
    pytest.mark.skipif(RSYSLOG is None, reason="apt-get install rsyslog rsyslog-openssl"),
]
Arrival = tuple[str, bool]
"""The id of an event, and whether it was marked as sent again."""


@dataclass
class Server:
    """The part of a server that outputs are: a store, and the engine."""

    store: SqliteStore
    engine: OutputEngine
    raised: list[Event] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def running(cls, directory: Path, *outputs: OutputSettings) -> AsyncIterator["Server"]:
        store = SqliteStore.open(str(directory / "needfire.sqlite"))
        server: Server

        def raise_event(code: str, /, **fields: FieldValue) -> None:
            server.raised.append(make_event(code, time_us=1, random_10_bytes=bytes(10), **fields))

        server = cls(store, OutputEngine(CursorStore(store), raise_event=raise_event))
        try:
            await server.engine.begin(outputs)
            async with asyncio.TaskGroup() as group:
                running = group.create_task(server.engine.run())
                try:
                    yield server
                finally:
                    await server.engine.stop()
                    running.cancel()
        finally:
            store.close()

    async def record(self, *events: Event) -> list[str]:
        """Store events as the server does; return their ids."""
        for each in events:
            await self.store.record(each)
            self.engine.notify()
        return [each.id for each in events]

    async def sent(self) -> int:
        # None as long as the engine does not yet know that no other server sends.
        return sum(each.sent for each in await self.engine.status())

    async def until_sent(self, count: int, limit_s: float = 40) -> None:
        async with asyncio.timeout(limit_s):
            while await self.sent() < count:
                await asyncio.sleep(0.02)

    def codes(self) -> list[str]:
        return [each.code for each in self.raised]


def several(count: int, severity: Severity = Severity.CRIT) -> list[Event]:
    paths = ("/etc/x", "/tmp/a b", '/tmp/]"=\\|é', "/tmp/\n<13>forged")
    return [
        make_event(
            "POLICY_ADDED",
            severity,
            time_us=1_795_000_000_000_000 + n,
            random_10_bytes=os.urandom(10),
            path=paths[n % len(paths)],
            number=n,
        ).received("web1.example.org", 1_795_000_000_000_000 + n)
        for n in range(count)
    ]


@dataclass(frozen=True)
class Case:
    """A receiver, the output to it, and how its file is read."""

    sink: Sink
    settings: OutputSettings
    arrivals: Callable[[], list[Arrival]]


def http_bodies(sink: Sink) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for request in sink.lines()
        for line in json.loads(request)["body"].splitlines()
    ]


def mails(sink: Sink) -> list[EmailMessage]:
    found = []
    for line in sink.lines():
        parsed = email.message_from_string(json.loads(line)["content"], policy=email_policy)
        assert isinstance(parsed, EmailMessage)
        found.append(parsed)
    return found


def mailed(sink: Sink) -> list[dict[str, Any]]:
    """The records in all mails, one a line."""
    lines = [line for mail in mails(sink) for line in mail.get_content().splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def stored(sink: Sink) -> list[SyslogMessage]:
    messages = [parse_rfc5424(line.encode()) for line in sink.lines()]
    return [message for message in messages if message.app_name == "needfire"]


def from_json(records: list[dict[str, Any]]) -> list[Arrival]:
    return [(each["id"], each["fields"].get("resent") is True) for each in records]


def from_syslog(messages: list[SyslogMessage]) -> list[Arrival]:
    return [
        (
            each.elements["needfire@32473"]["id"],
            each.elements["fields@32473"].get("resent") == "yes",
        )
        for each in messages
    ]


def webhook_case(directory: Path) -> Case:
    authority = Authority(directory)
    sink = Sink("http", directory / "taken", authority.issue("localhost"))
    settings = settings_of(
        kind=TargetKind.WEBHOOK,
        where=f"https://localhost:{sink.port}/hook?x=1",
        key=KEY,
        tls=TlsSettings(ca_file=str(authority.path)),
    )
    return Case(sink, settings, lambda: from_json(http_bodies(sink)))


def mail_case(directory: Path, kind: TargetKind = TargetKind.SMTP_STARTTLS) -> Case:
    authority = Authority(directory)
    pair = None if kind is TargetKind.SMTP else authority.issue("localhost")
    sink = Sink(kind.value, directory / "taken", pair)
    is_encrypted = kind is not TargetKind.SMTP
    mail = MailSettings(
        sender="needfire@example.org",
        recipients=("security@example.org",),
        user="needfire" if is_encrypted else None,
        password="a mail password" if is_encrypted else None,
        summary_count=10,
    )
    settings = settings_of(
        kind=kind,
        where=f"localhost:{sink.port}",
        address=("localhost", sink.port),
        mail=mail,
        tls=TlsSettings(ca_file=str(authority.path)) if is_encrypted else TlsSettings(),
    )
    return Case(sink, settings, lambda: from_json(mailed(sink)))


def syslog_case(directory: Path, kind: TargetKind = TargetKind.SYSLOG_TLS) -> Case:
    authority = Authority(directory)
    is_encrypted = kind is TargetKind.SYSLOG_TLS
    pair = authority.issue("localhost") if is_encrypted else None
    sink = Rsyslog(directory, pair, authority.path)
    settings = settings_of(
        kind=kind,
        where=f"localhost:{sink.port}",
        address=("localhost", sink.port),
        tls=TlsSettings(ca_file=str(authority.path)) if is_encrypted else TlsSettings(),
        format="text",
    )
    return Case(sink, settings, lambda: from_syslog(stored(sink)))


CASES = [
    pytest.param(webhook_case, id="webhook"),
    pytest.param(mail_case, id="mail"),
    pytest.param(syslog_case, id="rsyslog-tls", marks=needs_rsyslog),
    pytest.param(
        lambda directory: syslog_case(directory, TargetKind.SYSLOG_TCP),
        id="rsyslog-tcp",
        marks=needs_rsyslog,
    ),
]


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    (tmp_path / "sink").mkdir()
    made: Case = request.param(tmp_path / "sink")
    yield made
    made.sink.kill()


@pytest.mark.parametrize("case", CASES, indirect=True)
async def test_a_receiver_that_is_killed_and_comes_back_has_everything(
    case: Case, tmp_path: Path
) -> None:
    await case.sink.start()
    async with Server.running(tmp_path, case.settings) as server:
        ids: set[str] = set()
        for _ in range(2):
            before = len(case.arrivals())
            recording = several(100)
            for number, each in enumerate(recording):
                ids.update(await server.record(each))
                if number == 60:
                    await until(lambda: len(case.arrivals()) > before + 20, "some records", 40)  # noqa: B023
                    case.sink.kill()
            await until(lambda: server.codes()[-1:] == ["OUTPUT_FAILED"], "the failure", 40)
            await case.sink.start()
            await until(lambda: {i for i, _ in case.arrivals()} == ids, "all records", 40)
        await server.until_sent(200)
        [status] = await server.engine.status()
        assert (status.sent, status.dropped, status.waiting) == (200, 0, 0)
        assert "OUTPUT_RECOVERED" in server.codes()
    seen: set[str] = set()
    for event_id, is_marked in case.arrivals():
        assert event_id not in seen or is_marked, "came twice without a mark"
        seen.add(event_id)
    assert status.retried >= len(case.arrivals()) - 200


@pytest.mark.parametrize("case", CASES[2:], indirect=True)
async def test_the_lines_that_rsyslog_stores_have_every_field(case: Case, tmp_path: Path) -> None:
    await case.sink.start()
    async with Server.running(tmp_path, case.settings) as server:
        events = several(8)
        await server.record(*events)
        await until(lambda: len(stored(case.sink)) == 8, "all records")
    for event_, message in zip(events, stored(case.sink), strict=True):
        assert (message.facility, message.severity) == (10, 2)
        assert message.hostname == "web1.example.org"
        assert message.msgid == "POLICY_ADDED"
        assert message.elements["fields@32473"]["path"] == event_.fields["path"]
        assert event_.msg in message.msg


@pytest.mark.parametrize("case", [CASES[3]], indirect=True)
async def test_rsyslog_takes_datagrams_with_either_header(case: Case, tmp_path: Path) -> None:
    await case.sink.start()
    for header in ("rfc5424", "traditional"):
        settings = replace(
            case.settings,
            name=header,
            kind=TargetKind.SYSLOG_UDP,
            address=("127.0.0.1", case.sink.port),
            header=header,
            format="alert",
        )
        (tmp_path / header).mkdir()
        async with Server.running(tmp_path / header, settings) as server:
            await server.record(event(path=f"/{header}"))
            await until(lambda: f"Path: /{header}" in case.sink.file.read_text(), "the record")  # noqa: B023
            await server.until_sent(1)
    for message in stored(case.sink):
        assert message.msg.lstrip().startswith("CRITICAL: <")


# ---- certificates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [webhook_case, mail_case, syslog_case])
async def test_a_certificate_of_a_stranger_is_refused(
    make: Callable[[Path], Case], tmp_path: Path
) -> None:
    if make is syslog_case and RSYSLOG is None:
        pytest.skip("apt-get install rsyslog rsyslog-openssl")
    (tmp_path / "sink").mkdir()
    case = make(tmp_path / "sink")
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    other = TlsSettings(ca_file=str(Authority(strangers, "other").path))
    await case.sink.start()
    try:
        async with Server.running(tmp_path, replace(case.settings, tls=other)) as server:
            await server.record(event(severity=Severity.ALERT))
            await until(lambda: server.raised, "the refusal")
            assert "certificate is not trusted" in str(server.raised[0].fields["reason"])
            assert case.arrivals() == []
            assert await server.sent() == 0
    finally:
        case.sink.kill()


@pytest.mark.parametrize("make", [webhook_case, mail_case, syslog_case])
async def test_a_certificate_for_another_name_is_refused(
    make: Callable[[Path], Case], tmp_path: Path
) -> None:
    if make is syslog_case and RSYSLOG is None:
        pytest.skip("apt-get install rsyslog rsyslog-openssl")
    (tmp_path / "sink").mkdir()
    case = make(tmp_path / "sink")
    port = case.sink.port
    settings = replace(
        case.settings,
        where=case.settings.where.replace("localhost", "127.0.0.1"),
        address=("127.0.0.1", port) if case.settings.address[1] else ("", 0),
    )
    await case.sink.start()
    try:
        async with Server.running(tmp_path, settings) as server:
            await server.record(event(severity=Severity.ALERT))
            await until(lambda: server.raised, "the refusal")
            assert "certificate is not trusted" in str(server.raised[0].fields["reason"])
            assert case.arrivals() == []
    finally:
        case.sink.kill()


# ---- webhooks ---------------------------------------------------------------------------------------


async def test_a_request_of_a_webhook_is_signed(tmp_path: Path) -> None:
    case = webhook_case(tmp_path)
    await case.sink.start()
    try:
        async with Server.running(tmp_path, case.settings) as server:
            await server.record(*several(3))
            await server.until_sent(3)
    finally:
        case.sink.kill()
    for request in map(json.loads, case.sink.lines()):
        headers = request["headers"]
        assert request["path"] == "/hook?x=1"
        assert headers["webhook-signature"] == signature(
            KEY,
            headers["webhook-id"],
            int(headers["webhook-timestamp"]),
            request["body"].encode(),
        )
        assert headers["Content-Type"] == "application/x-ndjson"


def test_the_signature_is_that_of_standard_webhooks() -> None:
    # The example of the specification's reference libraries.
    import base64

    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


async def answer_with(answer: bytes, *, keep: bool = False) -> tuple[asyncio.Server, list[bytes]]:
    """A server that answers each request with the same bytes."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read(65_536))
        writer.write(answer)
        await writer.drain()
        if keep:
            await reader.read()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0), requests


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            "it answered 302 Found; redirects are not followed",
        ),
        (
            b"HTTP/1.1 500 Oops\x1b[31m\r\nContent-Length: 0\r\n\r\n",
            "it answered 500 Oops\\x1b[31m",
        ),
        (b"nonsense\r\n\r\n", "its answer is not HTTP: BadStatusLine"),
    ],
)
async def test_an_answer_that_is_no_success_is_a_failure(
    answer: bytes, reason: str, tmp_path: Path
) -> None:
    receiver, requests = await answer_with(answer)
    port = receiver.sockets[0].getsockname()[1]
    settings = settings_of(
        kind=TargetKind.WEBHOOK, where=f"http://127.0.0.1:{port}/", key=KEY, time_limit_s=5
    )
    async with receiver, Server.running(tmp_path, settings) as server:
        await server.record(event())
        await until(lambda: server.raised, "the failure")
        assert server.raised[0].fields["reason"] == reason
        await until(lambda: len(requests) > 1, "another try")
        assert await server.sent() == 0


async def test_an_answer_that_never_ends_is_cut_short(tmp_path: Path) -> None:
    receiver, _ = await answer_with(b"HTTP/1.1 200 OK\r\nX: ", keep=True)
    port = receiver.sockets[0].getsockname()[1]
    settings = settings_of(
        kind=TargetKind.WEBHOOK, where=f"http://127.0.0.1:{port}/", key=KEY, time_limit_s=1
    )
    async with receiver, Server.running(tmp_path, settings) as server:
        await server.record(event())
        await until(lambda: server.raised, "the failure")
        assert "1 seconds" in str(server.raised[0].fields["reason"]) or "time" in str(
            server.raised[0].fields["reason"]
        )


# ---- mail --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TargetKind.SMTP, TargetKind.SMTP_STARTTLS, TargetKind.SMTPS])
async def test_mail_is_encrypted_and_logged_in_as_configured(
    kind: TargetKind, tmp_path: Path
) -> None:
    case = mail_case(tmp_path, kind)
    await case.sink.start()
    try:
        async with Server.running(tmp_path, case.settings) as server:
            await server.record(*several(1, Severity.ALERT))
            await server.until_sent(1)
    finally:
        case.sink.kill()
    [taken] = [json.loads(line) for line in case.sink.lines()]
    assert taken["starttls"] is (kind is TargetKind.SMTP_STARTTLS)
    assert taken["user"] == (None if kind is TargetKind.SMTP else "needfire")
    assert (taken["from"], taken["to"]) == ("needfire@example.org", ["security@example.org"])


async def test_a_wrong_password_is_told_and_the_password_is_not(tmp_path: Path) -> None:
    case = mail_case(tmp_path)
    assert case.settings.mail is not None
    wrong = replace(case.settings.mail, password="a planted secret")
    await case.sink.start()
    try:
        async with Server.running(tmp_path, replace(case.settings, mail=wrong)) as server:
            await server.record(event(severity=Severity.ALERT))
            await until(lambda: server.raised, "the refusal")
            assert "535" in str(server.raised[0].fields["reason"])
            assert "planted" not in str(server.raised[0])
            assert "planted" not in repr(server.engine._wanted)
    finally:
        case.sink.kill()


async def test_a_recipient_that_is_refused_does_not_keep_mail_from_the_others(
    tmp_path: Path,
) -> None:
    case = mail_case(tmp_path)
    assert case.settings.mail is not None
    recipients = ("nobody@example.org", "security@example.org")
    mail = replace(case.settings.mail, recipients=recipients)
    await case.sink.start()
    try:
        async with Server.running(tmp_path, replace(case.settings, mail=mail)) as server:
            await server.record(event(severity=Severity.ALERT))
            await server.until_sent(1)
            assert server.codes() == ["OUTPUT_REMARK"]
            assert "nobody@example.org" in str(server.raised[0].fields["reason"])
    finally:
        case.sink.kill()
    assert [json.loads(line)["to"] for line in case.sink.lines()] == [["security@example.org"]]
