"""Peers that mean harm, against a server that listens: each has failed in some product before.

Strangers, and clients that have a password and use it badly. What is asked each time: is the damage
bounded, does the log say so without lying, and is everybody else served as before?
"""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from needfire_protocol.codec import encode
from needfire_protocol.connection import AgentConnection
from needfire_protocol.connection_events import (
    Closed,
    ConnectionEvent,
    Established,
    Failed,
    Refused,
)
from needfire_protocol.handshake_frames import Hello, encode_frame
from needfire_protocol.limits import HANDSHAKE_FRAME_BYTES_MAX, SEALED_FRAME_BYTES_MAX
from needfire_protocol.messages import (
    Acknowledge,
    AgentMessage,
    CommandResult,
    FileBegin,
    FileChunk,
    FileKind,
    FileRequest,
    Goodbye,
    Heartbeat,
    ProposalBegin,
    ProposalChunk,
    ProposalEnd,
    RefusalCode,
    ReportBatch,
)
from needfire_protocol.srp import make_verifier
from needfire_server import listener as listener_module
from needfire_server import login as login_module
from needfire_server import wire as wire_module
from needfire_server.clock import now_us
from needfire_server.listener import HANDSHAKE_LIMIT_S
from needfire_server.logbook import STRANGER_BURST
from needfire_server.wire import RESET_ON_CLOSE
from needfire_testkit.live_server import NAME, PASSWORD, LiveServer, Peer, event_body, live_server

VECTORS = Path(__file__).parents[1] / "vectors"
OTHER = "127.9.9.9"
OTHER_PASSWORD = "another password, of another host"
LINE_BYTES_MAX = 2_048
"""What a stranger may make us write at once."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LiveServer]:
    async with live_server(tmp_path / "data") as live:
        yield live


async def register_another(server: LiveServer) -> None:
    store, verifier = server.runtime.store, make_verifier(OTHER_PASSWORD, os.urandom)
    await store.register(OTHER, verifier, now_us=now_us(), user="test")
    record = await store.client_record(OTHER)
    assert record is not None
    server.runtime.registry.put(record)


async def deliver(peer: Peer, first: int, *bodies: bytes) -> None:
    """Send reports and wait until all of them are acknowledged."""
    await peer.send(peer.batch(first, *bodies))
    answer = await peer.next_message()
    assert answer == Acknowledge(peer.stream, first + len(bodies) - 1)


async def serves_others(server: LiveServer, name: str = NAME, password: str = PASSWORD) -> None:
    """A good client logs in and has a report stored, and no bug was met so far."""
    peer = await server.log_in(name=name, password=password, instance=os.urandom(16))
    await deliver(peer, 1, event_body())
    assert "SERVER_INTERNAL_ERROR" not in server.codes()


def log_text(server: LiveServer) -> str:
    return (server.directory / "log").read_text()


# ---- strangers ---------------------------------------------------------------------------------


def recorded(pattern: str) -> list[Path]:
    """The vectors of a first frame that a server must refuse."""
    found = [path for path in sorted(VECTORS.glob(pattern)) if path.name[:5] in ("hello", "first")]
    return [path for path in found if "receiver: fresh server" in path.read_text()]


@pytest.mark.parametrize("path", recorded("*.txt"), ids=lambda path: path.stem)
async def test_a_first_frame_that_is_not_as_it_must_be_gets_nobody_in(
    path: Path, server: LiveServer
) -> None:
    """Zero, N and its neighbours as SRP's public value, lies about sizes, odd names, old versions."""
    frame = bytes.fromhex("".join(path.read_text().partition("\n\n")[2].split()))
    peer = await server.connect()
    peer.writer.write(frame)
    peer.writer.write_eof()
    answer = await peer.until_closed()
    assert len(answer) < 64, "at most a refusal, which tells nothing"
    assert not server.listener.connected()
    await serves_others(server)


@pytest.mark.parametrize("seed", range(8))
async def test_random_bytes_before_the_log_in_are_refused_and_harm_nobody(
    seed: int, server: LiveServer
) -> None:
    chance = random.Random(seed)
    for _ in range(12):
        peer = await server.connect()
        head = bytes([chance.choice((1, 3, 5, 7, 0x20, chance.randrange(256)))])
        size = chance.choice((0, 1, 30, 500, HANDSHAKE_FRAME_BYTES_MAX, 2**31, 2**32 - 1))
        peer.writer.write(head + size.to_bytes(4, "big") + chance.randbytes(min(size, 3_000)))
        peer.writer.write_eof()
        await peer.until_closed()
    await serves_others(server)


async def test_a_hello_that_comes_byte_by_byte_is_understood(server: LiveServer) -> None:
    peer = await server.connect()
    peer._agent = AgentConnection.negotiate(NAME, PASSWORD, takeover=True, random_bytes=os.urandom)
    for byte in peer.agent.data_to_send():
        peer.writer.write(bytes([byte]))
        await peer.writer.drain()
    assert isinstance(await peer.next_event(), Established)


async def test_who_keeps_dripping_bytes_gets_no_more_time_than_who_is_silent(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "HANDSHAKE_LIMIT_S", 0.3)
    peer = await server.connect()
    hello = AgentConnection.negotiate(NAME, PASSWORD, takeover=True, random_bytes=os.urandom)
    dripping = iter(hello.data_to_send()[:-1])

    async def drip() -> None:
        for byte in dripping:
            peer.writer.write(bytes([byte]))
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(drip())
        await server.until_said("CONNECTION_TIMEOUT")
        task.cancel()
    assert next(dripping, None) is not None, "it had more to say"
    await peer.until_closed()


async def test_many_silent_connections_do_not_keep_a_client_out(server: LiveServer) -> None:
    for _ in range(150):
        await server.connect()
    await server.until_said("NEW_CONNECTION", count=50)
    await serves_others(server)


async def test_many_wrong_passwords_at_once_are_each_refused_and_the_right_one_works_after(
    server: LiveServer,
) -> None:
    async def guess(number: int) -> RefusalCode:
        peer = await server.connect()
        (outcome,) = await peer.negotiate(NAME, f"guess {number}")
        assert isinstance(outcome, Refused)
        return outcome.code

    codes = await asyncio.gather(*(guess(number) for number in range(24)))
    assert set(codes) <= {RefusalCode.AUTHENTICATION_FAILED, RefusalCode.BUSY}
    evaluated = codes.count(RefusalCode.AUTHENTICATION_FAILED)
    assert evaluated > 0
    await server.until_said("SESSION_KEY_MISMATCH", count=evaluated)
    assert server.codes().count("SESSION_KEY_MISMATCH") == evaluated
    await serves_others(server)


async def test_a_middleman_cannot_take_the_better_suites_out_of_the_offer(
    server: LiveServer,
) -> None:
    peer = await server.connect()
    peer._agent = AgentConnection.negotiate(
        NAME, PASSWORD, takeover=True, random_bytes=os.urandom, suites=(1, 2)
    )
    offered = peer.agent.data_to_send()
    weaker = offered.replace(encode([1, 2]), encode([2]), 1)
    assert len(weaker) == len(offered) - 1
    size = int.from_bytes(weaker[1:5], "big") - 1
    peer.writer.write(weaker[:1] + size.to_bytes(4, "big") + weaker[5:])
    outcome = await peer.next_event()
    assert not isinstance(outcome, Established)
    assert isinstance(outcome, Failed | Refused | Closed)
    assert not server.listener.connected()
    assert not server.runtime.sessions.current(NAME)


async def test_a_recorded_connection_that_is_played_again_is_worth_nothing(
    server: LiveServer,
) -> None:
    peer = await server.connect()
    sent: list[bytes] = []
    write = peer.writer.write

    def record(data: bytes) -> None:
        sent.append(data)
        write(data)

    peer.writer.write = record  # type: ignore[method-assign, assignment]
    (outcome,) = await peer.negotiate(NAME, PASSWORD)
    assert isinstance(outcome, Established)
    await peer.announce()
    await deliver(peer, 1, event_body(), event_body())
    await peer.close()
    stored = await server.stored(client=NAME, code="WAKEUP")
    again = await server.connect()
    for piece in filter(None, sent):
        again.writer.write(piece)
    again.writer.write_eof()
    await again.until_closed()
    assert await server.stored(client=NAME, code="WAKEUP") == stored
    assert NAME not in server.listener.connected()


async def test_a_session_id_without_its_key_resumes_nothing(server: LiveServer) -> None:
    keys = (await server.log_in()).keys
    for forged in (
        replace(keys, resumption_key=bytes(32)),
        replace(keys, session_id=bytes(16)),
        replace(keys, suite=3 - keys.suite),
    ):
        thief = await server.connect()
        (outcome,) = await thief.resume(forged)
        assert not isinstance(outcome, Established)
    assert len(server.listener.connected()) == 1
    await serves_others(server)


async def test_who_resumes_with_another_suite_is_not_waited_for(server: LiveServer) -> None:
    keys = (await server.log_in()).keys
    thief = await server.connect()
    asked = AgentConnection.resume(replace(keys, suite=3 - keys.suite), random_bytes=os.urandom)
    thief.writer.write(asked.data_to_send())

    # The identifier of a session goes over the wire in clear: it takes no key to ask so.
    await asyncio.wait_for(thief.reader.read(), HANDSHAKE_LIMIT_S / 2)

    assert "PROTOCOL_ERROR" in server.codes()
    assert "CONNECTION_TIMEOUT" not in server.codes()


@pytest.mark.parametrize("ends_first", [False, True])
@pytest.mark.parametrize(
    ("name", "code"), [(NAME, "SESSION_KEY_MISMATCH"), ("nobody", "NOT_IN_CLIENT_LIST")]
)
async def test_a_wrong_password_is_logged_also_where_the_peer_is_gone_by_then(
    server: LiveServer, name: str, code: str, ends_first: bool
) -> None:
    peer = await server.connect()
    asked = AgentConnection.negotiate(name, "a guess", takeover=True, random_bytes=os.urandom)
    peer.writer.write(asked.data_to_send())
    proof = b""
    while not proof:
        asked.receive_data(await peer.reader.read(4096))
        proof = asked.data_to_send()
    peer.writer.write(proof)
    if ends_first:
        peer.writer.write_eof()
    connected = peer.writer.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    peer.writer.transport.abort()
    await server.until_said(code)


async def test_who_always_has_a_byte_ready_is_not_waited_for_beyond_the_limit(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = 0

    async def always_a_byte(wire: object, until_s: float) -> list[ConnectionEvent]:
        nonlocal waits
        waits += 1
        assert waits < 100
        await asyncio.sleep(0)
        return []

    monkeypatch.setattr(login_module.Claim, "left_s", lambda claim: 0.0)
    monkeypatch.setattr(wire_module.Wire, "receive", always_a_byte)
    peer = await server.connect()
    peer.writer.write(b"\x01")
    await server.until_said("CONNECTION_TIMEOUT")
    await peer.until_closed()


async def test_a_goodbye_is_told_as_one_also_where_the_agent_is_gone_by_then(
    server: LiveServer,
) -> None:
    peer = await server.log_in()
    await peer.send(Goodbye("exit"))
    peer.writer.write_eof()
    connected = peer.writer.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    peer.writer.transport.abort()
    closed = await server.until_said("CONNECTION_CLOSED")
    assert closed.fields["reason"] == "goodbye: exit"


def hello_of(name: str) -> bytes:
    public = b"\x7f" + os.urandom(383)
    return encode_frame(Hello((1,), (1, 2), 0, True, name, os.urandom(32), public))


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "web1/../web2",
        "web1\\..\\web2",
        "web1\0.example.org",
        "web1\nmsg=EXIT",
        "web1\x1b[2J",
        "web1\u202etxt",
        ".",
        "..",
        "",
        "log",
    ],
)
async def test_a_name_is_never_a_path_nor_a_second_line(name: str, server: LiveServer) -> None:
    before = sorted(server.directory.rglob("*"))
    plain = hello_of("placeholder")
    frame = plain.replace(encode("placeholder"), encode(name))
    size = int.from_bytes(plain[1:5], "big") + len(frame) - len(plain)
    peer = await server.connect()
    peer.writer.write(frame[:1] + size.to_bytes(4, "big") + frame[5:])
    peer.writer.write_eof()
    await peer.until_closed()
    await server.until_said("CONNECTION_CLOSED" if name == "log" else "PROTOCOL_ERROR")
    assert sorted(server.directory.rglob("*")) == before
    assert all(line.startswith("<log ") for line in log_text(server).splitlines())
    assert not set(log_text(server)) & set("\x00\x1b\u202e")


async def test_what_a_stranger_makes_us_write_is_bounded_in_length_and_in_number(
    server: LiveServer,
) -> None:
    room = HANDSHAKE_FRAME_BYTES_MAX - 5
    for number in range(STRANGER_BURST):
        peer = await server.connect()
        peer.writer.write(b"\x01" + room.to_bytes(4, "big") + bytes([number]) * room)
        peer.writer.write_eof()
        await peer.until_closed()
    lines = log_text(server).splitlines()
    # Each of them caused two lines; a few more were earned while this took its time.
    assert STRANGER_BURST <= len(lines) < STRANGER_BURST * 2
    assert max(map(len, lines)) < LINE_BYTES_MAX
    server.runtime.logbook.close()
    assert "messages suppressed" in log_text(server)


# ---- clients that have a password --------------------------------------------------------------


async def test_a_client_cannot_speak_for_another_one(server: LiveServer) -> None:
    await register_another(server)
    peer = await server.log_in(name=OTHER, password=OTHER_PASSWORD)
    await deliver(peer, 1, event_body("RESTART_WITHOUT_EXIT", client=NAME))
    (stored,) = await server.stored(code="RESTART_WITHOUT_EXIT")
    assert stored.client == OTHER
    assert not await server.stored(client=NAME, code="RESTART_WITHOUT_EXIT")


async def test_a_name_in_other_letters_is_the_same_client(server: LiveServer) -> None:
    first = await server.log_in(instance=b"1" * 16)
    await server.until_connected()
    second = await server.log_in(name=NAME.upper(), instance=b"2" * 16)
    await deliver(second, 1, event_body())
    await first.send(Heartbeat(now_us(), 0, None))
    outcome = await first.next_event()
    assert isinstance(outcome, Refused)
    assert outcome.code is RefusalCode.SESSION_SUPERSEDED
    assert list(server.listener.connected()) == [NAME]


async def fetched(peer: Peer, kind: FileKind) -> bytes:
    await peer.send(FileRequest(kind))
    begin = await peer.next_message()
    assert isinstance(begin, FileBegin)
    content = b""
    while isinstance(message := await peer.next_message(), FileChunk):
        content += message.data
    return content


@pytest.mark.parametrize("resumes", [False, True])
async def test_each_client_gets_its_own_files_and_no_others(
    resumes: bool, server: LiveServer
) -> None:
    await register_another(server)
    for name in (NAME, OTHER):
        for kind in ("rc", "file"):
            (server.directory / f"{kind}.{name}").write_text(f"{kind} of {name}")
    for name, password in ((NAME, PASSWORD), (OTHER, OTHER_PASSWORD)):
        peer = await server.log_in(name=name, password=password)
        if resumes:
            keys = peer.keys
            await peer.close()
            peer = await server.connect()
            assert isinstance((await peer.resume(keys))[0], Established)
            await peer.announce()
        assert await fetched(peer, FileKind.CONFIGURATION) == f"rc of {name}".encode()
        assert await fetched(peer, FileKind.BASELINE) == f"file of {name}".encode()


MESSAGES: dict[str, AgentMessage] = {
    "heartbeat": Heartbeat(1, 0, None),
    "goodbye": Goodbye("exit"),
    "request of a file": FileRequest(FileKind.CONFIGURATION),
    "result of a command": CommandResult(1, "done", ""),
    "beginning of a proposal": ProposalBegin(4, bytes(32)),
    "piece of a proposal": ProposalChunk(b"abcd"),
    "end of a proposal": ProposalEnd(),
}


@pytest.mark.parametrize("what", [*MESSAGES, "reports"])
async def test_nothing_may_be_asked_before_the_announcement(what: str, server: LiveServer) -> None:
    (server.directory / f"rc.{NAME}").write_text("secret of the client")
    number = await server.runtime.store.queue_command(NAME, "stop", "root", 1)
    peer = await server.connect()
    await peer.negotiate(NAME, PASSWORD)
    await peer.send(MESSAGES.get(what) or peer.batch(1, event_body()))
    outcome = await peer.next_event()
    assert isinstance(outcome, Refused)
    assert outcome.code is RefusalCode.PROTOCOL
    assert not await server.stored(client=NAME, code="WAKEUP")
    assert [c.id for c in await server.runtime.store.pending_commands(NAME, 1)] == [number]
    assert not await server.runtime.store.proposals()


@pytest.mark.parametrize("what", [*MESSAGES, "reports"])
async def test_nothing_may_be_asked_with_a_session_that_was_superseded(
    what: str, server: LiveServer
) -> None:
    old = await server.log_in(instance=b"1" * 16)
    await server.log_in(instance=b"2" * 16)
    await old.send(MESSAGES.get(what) or old.batch(1, event_body()))
    outcome = await old.next_event()
    assert isinstance(outcome, Refused)
    assert outcome.code is RefusalCode.SESSION_SUPERSEDED
    assert not await server.stored(client=NAME, code="WAKEUP")
    assert not await server.runtime.store.proposals()


def odd_bodies() -> list[bytes]:
    """What decoders have choked on: types that carry code, depth, sizes that lie, nothing at all."""
    chance = random.Random(4)
    return [
        b"\xc1",
        b"\xc7\x01\x05x",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\x91" * 5_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xffx",
        b"00:(:",
        encode({"__class__": "os.system", "py/object": "subprocess.Popen"}),
        encode(["!!python/object/apply:os.system", ["id"]]),
        *(chance.randbytes(chance.randrange(1, 400)) for _ in range(60)),
    ]


async def test_reports_that_are_no_events_are_kept_as_bytes_and_block_nobody(
    server: LiveServer,
) -> None:
    bodies = odd_bodies()
    peer = await server.log_in()
    await deliver(peer, 1, *bodies)
    await deliver(peer, len(bodies) + 1, event_body())
    event = await server.until_said("REPORT_UNUSABLE")
    assert event.fields["count"] == len(bodies)
    assert len(await server.stored(client=NAME, code="WAKEUP")) == 1
    await serves_others(server)


async def test_texts_of_a_client_stay_in_their_line_and_field(server: LiveServer) -> None:
    nasty = 'x\n<log sev="ALRT" msg="EXIT" />\r\x1b[2J\x00\x9b\u2028\u202e"\'{0}%s%n$(id)`id`'
    peer = await server.log_in()
    before = len(log_text(server).splitlines())
    await deliver(peer, 1, event_body("POLICY_ADDED", policy=nasty, path=nasty))
    (stored,) = await server.stored(client=NAME, code="POLICY_ADDED")
    lines = log_text(server).split("\n")[before:-1]
    assert len(lines) == 1
    assert not set(lines[0]) & set("\r\x00\x1b\x9b\u2028\u202e")
    assert '<log sev="ALRT"' not in lines[0]
    assert "%n" in lines[0], "no format was applied to it"
    assert "$(id)" in str(stored.fields["path"])


@pytest.mark.parametrize("size", [SEALED_FRAME_BYTES_MAX + 1, 2**31, 2**32 - 1])
async def test_a_frame_that_claims_too_much_ends_the_connection_before_it_is_read(
    size: int, server: LiveServer
) -> None:
    peer = await server.log_in()
    peer.writer.write(b"\x20" + size.to_bytes(4, "big"))
    await peer.until_closed()
    await server.until_said("PROTOCOL_ERROR")
    await serves_others(server)


async def test_half_of_a_connection_that_ends_ends_the_session(server: LiveServer) -> None:
    peer = await server.log_in()
    await server.until_connected()
    peer.writer.write_eof()
    await peer.until_closed()
    assert NAME not in server.listener.connected()
    await serves_others(server)


async def test_a_restored_agent_s_old_numbers_are_neither_stored_twice_nor_lost(
    server: LiveServer,
) -> None:
    peer = await server.log_in()
    bodies = [event_body() for _ in range(4)]
    await deliver(peer, 1, *bodies)
    for _ in range(3):
        await deliver(peer, 1, *bodies)
    assert len(await server.stored(client=NAME, code="WAKEUP")) == 4


async def test_a_signature_of_another_session_or_place_is_worth_nothing(
    server: LiveServer,
) -> None:
    await register_another(server)
    thief = await server.log_in(name=OTHER, password=OTHER_PASSWORD)
    victim = await server.log_in()
    report = victim.report(1, event_body())
    await thief.send(ReportBatch(victim.stream, (report,)))
    await server.until_said("MSG_SIGNATURE_MISMATCH")
    await thief.until_closed()
    assert not await server.stored(code="WAKEUP")
    await deliver(victim, 1, event_body())


async def test_who_takes_no_acknowledgement_is_cut_off_and_what_it_sent_is_kept(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that never reads must not make us hold answers for it without end."""
    monkeypatch.setattr(wire_module, "_WRITE_LIMIT_S", 0.2)
    monkeypatch.setattr(wire_module, "_BACKLOG_BYTES_MAX", 0)
    peer = await with_little_room(server)
    body, number = event_body(), 0
    with contextlib.suppress(ConnectionError):
        while "CONNECTION_CLOSED" not in server.codes():
            number += 1
            await peer.send(peer.batch(number, body))
    closed = await server.until_said("CONNECTION_CLOSED")
    assert closed.fields["reason"] == "the peer takes nothing"
    assert len(await server.stored(code="WAKEUP")) >= 1
    await serves_others(server)


async def with_little_room(server: LiveServer) -> Peer:
    """Log in and read no more, with kernels that keep little: else it takes 100,000 answers."""
    connected = socket.socket()
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    connected.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connected, ("127.0.0.1", server.port))
    peer = Peer(*await asyncio.open_connection(sock=connected))
    server.peers.append(peer)
    await peer.negotiate(NAME, PASSWORD)
    await peer.announce()
    await server.until_connected()
    assert isinstance(peer.writer.transport, asyncio.Transport)
    peer.writer.transport.pause_reading()
    (session,) = server.listener._sessions.values()
    ours = session.wire._socket
    assert ours is not None
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    return peer


async def test_who_takes_nothing_of_a_file_is_cut_off_and_it_is_said_why(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "_WRITE_LIMIT_S", 0.2)
    (server.directory / "file.localhost").write_bytes(bytes(16 * 1024 * 1024))
    peer = await server.log_in()
    await peer.send(FileRequest(FileKind.BASELINE))
    closed = await server.until_said("CONNECTION_CLOSED")
    assert closed.fields["reason"] == "the peer takes nothing"
    await serves_others(server)
