"""Targets by themselves: files, commands, the words of mails, queues, connections."""

import asyncio
import email
import email.policy
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from email.header import decode_header, make_header
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.errors import Error

from needfire_protocol.escape import printable
from needfire_protocol.event import Event, event_to_json, format_time
from needfire_protocol.severity import Severity
from needfire_server.outputs.formats.json_line import json_line
from needfire_server.outputs.records import identity_of, marked
from needfire_server.outputs.settings import MailSettings, OutputSettings, TargetKind
from needfire_server.outputs.target import TargetError
from needfire_server.outputs.targets import kafka
from needfire_server.outputs.targets.command import CommandTarget
from needfire_server.outputs.targets.file import FileTarget
from needfire_server.outputs.targets.kafka import KafkaTarget
from needfire_server.outputs.targets.mail import compose
from needfire_server.outputs.targets.nats import NatsTarget
from needfire_server.outputs.targets.syslog_stream import SyslogStreamTarget
from needfire_server.outputs.targets.syslog_udp import SyslogUdpTarget
from needfire_testkit.event_strategies import events
from needfire_testkit.output_doubles import settings_of
from needfire_testkit.record_parsers import parse_octet_counted
from needfire_testkit.server import until
from needfire_testkit.server_store import event
from needfire_testkit.sinks import free_port

MAIL = MailSettings(sender="needfire@example.org", recipients=("a@example.org", "b@example.org"))


# ---- files ------------------------------------------------------------------------------------------


async def test_a_file_is_appended_to_and_made_anew_after_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    target = FileTarget(settings_of(where=str(path)))
    one, two, three = event(), event(), event()
    await target.deliver([one, two])
    path.rename(tmp_path / "out.json.1")
    await target.deliver([three])
    assert (tmp_path / "out.json.1").read_text() == f"{json_line(one)}\n{json_line(two)}\n"
    assert path.read_text() == f"{json_line(three)}\n"
    assert path.stat().st_mode & 0o777 & ~0o640 == 0


async def test_half_a_line_that_a_crash_left_does_not_swallow_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text('{"half":')
    said = event()
    await FileTarget(settings_of(where=str(path))).deliver([said])
    assert path.read_text() == f'{{"half":\n{json_line(said)}\n'


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
async def test_a_file_that_is_none_is_not_written(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "out"
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises((OSError, TargetError)):
        await FileTarget(settings_of(where=str(path))).deliver([event()])
    assert not (tmp_path / "elsewhere").exists()


async def test_a_full_disk_is_a_failure_and_not_half_a_success() -> None:
    target = FileTarget(settings_of(where="/dev/full"))
    with pytest.raises((OSError, TargetError)):
        await target.deliver([event()])


# ---- commands ---------------------------------------------------------------------------------------


def command(tmp_path: Path, script: str, *arguments: str, limit_s: int = 10) -> CommandTarget:
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable}\n{script}")
    program.chmod(0o755)
    return CommandTarget(
        settings_of(kind=TargetKind.COMMAND, argv=(str(program), *arguments), time_limit_s=limit_s)
    )


async def test_a_command_gets_each_record_its_arguments_and_nothing_else(tmp_path: Path) -> None:
    found = tmp_path / "found"
    secret = (tmp_path / "secret").open("w")
    os.set_inheritable(secret.fileno(), True)
    target = command(
        tmp_path,
        "import sys, os, json\n"
        f"with open({str(found)!r}, 'a') as f:\n"
        "  fds = [fd for fd in range(3, 200) if os.path.exists(f'/proc/self/fd/{fd}') and fd != f.fileno()]\n"
        "  f.write(json.dumps([sys.stdin.read(), sys.argv[1:], dict(os.environ), fds, os.getcwd()]) + '\\n')\n",
        "$(id)",
        "a b",
    )
    sent = [event(path="/`id`/$(id)"), event(path="/'; id; '")]
    await target.deliver(sent)
    secret.close()
    for said, line in zip(sent, found.read_text().splitlines(), strict=True):
        record, arguments, environment, handles, directory = json.loads(line)
        assert record == json_line(said) + "\n"
        assert arguments == ["$(id)", "a b"]
        assert environment.keys() - {"LC_CTYPE"} == {"PATH", "LANG"}
        assert handles == []
        assert directory == "/"


async def test_a_command_that_fails_says_what_it_complained_about(tmp_path: Path) -> None:
    target = command(tmp_path, "import sys\nsys.exit('no \\x1b[31m pager' + 'x' * 1000)\n")
    with pytest.raises(TargetError) as caught:
        await target.deliver([event()])
    assert str(caught.value).startswith("it ended with status 1: no \\x1b[31m pager")
    assert len(str(caught.value)) < 600


async def test_what_a_command_took_before_it_failed_counts(tmp_path: Path) -> None:
    script = f"import sys\nsys.exit('/bad' in sys.stdin.read())\n"  # noqa: F541
    with pytest.raises(TargetError) as caught:
        await command(tmp_path, script).deliver([event(), event(), event(path="/bad"), event()])
    assert caught.value.delivered == 2


async def test_a_command_that_does_not_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '300'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(300)\n"
    )
    with pytest.raises(TargetError, match="within 1 seconds and was killed"):
        await command(tmp_path, script, limit_s=1).deliver([event()])
    if pids.exists():
        for pid in pids.read_text().split():
            await until(lambda: not is_running(int(pid)), "the end of both")  # noqa: B023


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def test_a_command_that_reads_nothing_and_complains_without_end_is_no_deadlock(
    tmp_path: Path,
) -> None:
    script = "import sys\nsys.stderr.write('x' * 1_000_000)\n"
    await command(tmp_path, script).deliver([event(path="/" + "x" * 19_000)] * 3)


async def test_a_program_that_became_writable_for_others_is_not_run(tmp_path: Path) -> None:
    target = command(tmp_path, "open('/nonexistent/x')\n")
    (tmp_path / "program").chmod(0o757)
    with pytest.raises(TargetError, match="can be written by others"):
        await target.deliver([event()])


# ---- the words of mails --------------------------------------------------------------------------------


def mail_settings(**changes: Any) -> OutputSettings:
    return settings_of(kind=TargetKind.SMTP, mail=MAIL, format="json", **changes)


def test_a_summary_counts_and_puts_the_most_severe_first() -> None:
    sent = [
        event(severity=Severity.WARN, time_us=3, path="/3"),
        event(severity=Severity.ALERT, time_us=2, path="/2"),
        event(severity=Severity.WARN, time_us=1, path="/1"),
    ]
    message = compose(mail_settings(), sent, hostname="log")
    body = message.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert body.startswith("3 events: 1 alert, 2 warn\nfrom 1970-01-01T00:00:00.000001Z to ")
    assert re.findall(r'"path":"(/\d)"', body) == ["/2", "/1", "/3"]
    assert message["Subject"] == "[needfire] alert server: POLICY MISSING and 2 more"
    assert message["X-Needfire-Events"] == "3"
    assert message["To"] == "a@example.org, b@example.org"
    assert compose(mail_settings(), sent, hostname="log")["Message-ID"] == message["Message-ID"]
    assert compose(mail_settings(), sent[1:], hostname="log")["Message-ID"] != message["Message-ID"]


def test_a_mail_that_may_be_the_second_says_so() -> None:
    sent = replace(event(), fields={"resent": True})
    assert compose(mail_settings(), [sent], hostname="h")["Subject"].endswith("(sent again)")


@given(sent=events)
def test_no_event_brings_a_header_along(sent: Event) -> None:
    sent = replace(sent, msg=f"{sent.msg}\r\nBcc: evil@example.org", time_us=1, received_us=None)
    raw = compose(mail_settings(), [sent], hostname="h\r\nX: y").as_bytes()
    head = raw.split(b"\r\n\r\n")[0].replace(b"\r\n ", b" ")
    names = [line.partition(b":")[0].decode() for line in head.split(b"\r\n")]
    assert sorted(names) == HEADERS
    assert max(map(len, raw.split(b"\r\n"))) <= 998


HEADERS = sorted(
    [
        *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"),
        *("X-Needfire-Events", "Content-Type", "Content-Transfer-Encoding", "MIME-Version"),
    ]
)
INJECTED = "=?utf-8?q?h=0D=0ATo:_victim=40x.y=0D=0A=0D=0AAll_is_well.=0D=0A?="
_WORDS = [
    *(INJECTED, "=?utf-8?b?DQpYOiB5?=", "=?us-ascii?q?a?=", "=?", "?=", "=", "_", " ", "  ", "."),
    *("From ", "\nFrom ", ":", "x" * 90, "é", "\u2028", "\x85", "\r\n", "\n.\n", "=0D=0A", "日本"),
]
_words = st.lists(st.sampled_from(_WORDS) | st.text(max_size=8), max_size=12).map("".join)


@settings(deadline=None, max_examples=60)
@given(msg=_words, path=_words, client=st.sampled_from([None, "web1", "wéb"]))
def test_a_mail_is_read_as_what_was_written_whatever_words_an_agent_uses(
    msg: str, path: str, client: str | None
) -> None:
    words, where = printable(msg, 1_024), printable(path, 20_000)
    sent = replace(event(path=where, severity=Severity.ALERT), msg=words, client=client)
    raw = compose(mail_settings(), [sent], hostname="log").as_bytes()
    told = printable(f"[needfire] alert {client or 'server'}: {words}", 120)
    lines = [
        "1 event: 1 alert",
        f"from {format_time(sent.time_us)} to {format_time(sent.time_us)}",
    ]
    body = "\n".join([*lines, "", "alert:", event_to_json(sent)]) + "\n"
    for policy in (email.policy.default, email.policy.SMTP, email.policy.compat32):
        read = email.message_from_bytes(raw, policy=policy)
        assert sorted(read.keys()) == HEADERS
        assert not read.defects
        subject = read["Subject"]
        if policy is email.policy.compat32:
            subject = str(make_header(decode_header(subject)))
        assert subject == told
        payload = read.get_payload(decode=True)
        assert isinstance(payload, bytes)
        assert payload.decode().replace("\r\n", "\n") == body
        assert read["To"] == "a@example.org, b@example.org"


def test_an_encoded_word_of_an_agent_stays_the_text_that_it_is() -> None:
    sent = replace(event(severity=Severity.ALERT), msg=INJECTED, client="web1")
    raw = compose(mail_settings(), [sent], hostname="log").as_bytes()
    assert b"victim@" not in raw
    head = raw.partition(b"\r\n\r\n")[0]
    assert head.count(b"\nTo:") == 1
    read = email.message_from_bytes(raw, policy=email.policy.default)
    assert read["Subject"] == f"[needfire] alert web1: {INJECTED}"


def test_a_name_with_an_end_of_a_line_gets_into_no_header() -> None:
    for name in ("out\r\nBcc: x@example.org", "out\n", "öut"):
        with pytest.raises(ValueError, match="cannot stand in the header"):
            compose(mail_settings(name=name), [event()], hostname="log")


def test_no_agent_can_choose_the_identity_of_another_one_s_event() -> None:
    said = event()
    events = [said, *(said.received(name, at) for name in ("web1", "web2") for at in (1, 2))]
    names = [identity_of(each) for each in events]
    assert len(set(names)) == len(events)
    assert names[0] == said.id, "the server's own are its own choice"
    assert names == [identity_of(each) for each in events], "the same each time"
    assert identity_of(marked(events[1], is_resent=True)) == names[1], "sent again as well"
    mails = {compose(mail_settings(), [each], hostname="log")["Message-ID"] for each in events}
    assert len(mails) == len(events)


# ---- connections ----------------------------------------------------------------------------------------


async def test_octets_are_counted_and_an_end_in_peace_is_certain() -> None:
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read())
        writer.close()

    receiver = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = receiver.sockets[0].getsockname()
    async with receiver:
        target = SyslogStreamTarget(
            settings_of(kind=TargetKind.SYSLOG_TCP, address=address), lambda: None, hostname="h"
        )
        await target.open()
        await target.deliver([event(path="/é"), event(path="/\n<13>")])
        assert await target.finish() is True
    assert len(parse_octet_counted(bytes(heard))) == 2


async def test_a_receiver_that_reads_nothing_costs_the_time_limit_and_is_not_certain() -> None:
    with socket.socket() as bound:
        # Accepted by the kernel alone; nobody ever reads.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        address = bound.getsockname()
        target = SyslogStreamTarget(
            settings_of(
                kind=TargetKind.SYSLOG_TCP,
                address=address,
                time_limit_s=1,
                message_bytes_max=2**20,
            ),
            lambda: None,
            hostname="h",
        )
        await target.open()
        many = [event(path="/" + "x" * 19_000)] * 1_000
        with pytest.raises(TimeoutError):
            await target.deliver(many)
        assert target.acknowledged() < target.handed_over()
        target.abort()


async def test_a_connection_that_the_receiver_ends_is_noticed_at_once() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    receiver = await asyncio.start_server(serve, "127.0.0.1", 0)
    lost = asyncio.Event()
    async with receiver:
        target = SyslogStreamTarget(
            settings_of(kind=TargetKind.SYSLOG_TCP, address=receiver.sockets[0].getsockname()),
            lost.set,
            hostname="h",
        )
        await target.open()
        async with asyncio.timeout(10):
            await lost.wait()
        assert target.is_lost
        with pytest.raises(TargetError, match="closed by the target"):
            await target.deliver([event()])
        assert await target.finish() is False


async def test_a_port_where_nobody_listens_is_noticed_over_udp() -> None:
    lost = asyncio.Event()
    settings = settings_of(kind=TargetKind.SYSLOG_UDP, address=("127.0.0.1", free_port()))
    target = SyslogUdpTarget(settings, lost.set, hostname="h")
    await target.open()
    await target.deliver([event()])
    async with asyncio.timeout(10):
        await lost.wait()
    assert target.is_lost
    assert target.loss == "nothing listens there"
    with pytest.raises(TargetError, match=target.loss):
        await target.deliver([event()])
    assert await target.finish() is False


# ---- queues ----------------------------------------------------------------------------------------------


@pytest.fixture
def nats_port(tmp_path: Path) -> Iterator[int]:
    """A real broker with JetStream."""
    port = free_port()
    program = Path(sys.executable).parent / "nats-server"
    process = subprocess.Popen(
        [str(program), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(tmp_path / "js")],
        stderr=subprocess.DEVNULL,
    )
    yield port
    process.kill()
    process.wait()


@asynccontextmanager
async def nats_client(port: int) -> AsyncIterator[Any]:
    client = Client()
    async with asyncio.timeout(30):
        while not client.is_connected:
            with suppress(OSError, Error):
                await client.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False)
    try:
        yield client
    finally:
        await client.close()


async def test_nats_confirms_each_record_and_leaves_out_what_it_has(nats_port: int) -> None:
    settings = settings_of(
        kind=TargetKind.NATS, addresses=(f"nats://127.0.0.1:{nats_port}",), time_limit_s=5
    )
    async with nats_client(nats_port) as client:
        target = NatsTarget(settings)
        await target.open()
        with pytest.raises(TargetError):
            await target.deliver([event()])  # no stream takes the subject
        stream = client.jetstream()
        await stream.add_stream(name="needfire", subjects=["needfire.>"])
        sent = [event() for _ in range(20)]
        await target.deliver(sent)
        await target.deliver(sent[10:])
        assert await target.finish() is True
        subscription = await stream.subscribe("needfire.events", ordered_consumer=True)
        got = [await subscription.next_msg(timeout=5) for _ in range(20)]
        info = await stream.stream_info("needfire")
    assert [message.data.decode() for message in got] == [json_line(each) for each in sent]
    assert info.state.messages == 20


async def test_a_broker_that_is_away_is_a_failure() -> None:
    settings = settings_of(
        kind=TargetKind.NATS, addresses=(f"nats://127.0.0.1:{free_port()}",), time_limit_s=2
    )
    target = NatsTarget(settings)
    with pytest.raises((TargetError, OSError, TimeoutError)):
        await target.open()
    target.abort()


class _Producer:
    """The protocol of aiokafka's producer, as far as it is used: no broker is to be had here."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.sent: list[tuple[str, bytes, bytes | None, list[tuple[str, bytes]]]] = []
        self.is_started = False
        self.refuses = False

    async def start(self) -> None:
        self.is_started = True

    async def stop(self) -> None:
        self.is_started = False

    async def send(self, topic: str, value: bytes, *, key: Any, headers: Any) -> Any:
        confirmation = asyncio.get_running_loop().create_future()
        if self.refuses:
            confirmation.set_exception(KafkaError("not enough replicas"))
        else:
            self.sent.append((topic, value, key, headers))
            confirmation.set_result(None)
        return confirmation


async def test_kafka_gets_each_record_with_its_host_and_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "AIOKafkaProducer", _Producer)
    target = KafkaTarget(
        settings_of(kind=TargetKind.KAFKA, addresses=("mq:9092",), topic="security.fim")
    )
    await target.open()
    producer: Any = target._producer
    assert producer.options["acks"] == "all"
    said = event().received("web1", 1)
    await target.deliver([said])
    assert producer.sent == [
        (
            "security.fim",
            json_line(said).encode(),
            b"web1",
            [("event-id", identity_of(said).encode())],
        )
    ]
    producer.refuses = True
    with pytest.raises(TargetError, match="not enough replicas"):
        await target.deliver([said])
    assert await target.finish() is True
    assert not producer.is_started


async def test_a_kafka_that_is_away_is_a_failure() -> None:
    target = KafkaTarget(
        settings_of(kind=TargetKind.KAFKA, addresses=(f"127.0.0.1:{free_port()}",), time_limit_s=2)
    )
    with pytest.raises((TargetError, OSError, TimeoutError)):
        await target.open()
    await target.finish()
