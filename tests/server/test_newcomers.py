"""Newcomers before they have a task: those who resume, those who are refused, and what goes wrong."""

import asyncio
import contextlib
import errno
import gc
import os
import socket
import struct
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from pathlib import Path

import pytest

from needfire_protocol.connection import AgentConnection
from needfire_protocol.connection_events import Established, Refused
from needfire_protocol.framing import FrameType, frame_bytes
from needfire_protocol.messages import RefusalCode
from needfire_server import listener as listener_module
from needfire_server.clock import monotonic_s
from needfire_server.lookup import PeerName
from needfire_server.wire import Wire
from needfire_testkit.live_server import NAME, LiveServer, Peer, live_server
from needfire_testkit.server import until


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LiveServer]:
    async with live_server(tmp_path / "data") as live:
        yield live


@pytest.fixture
async def first(server: LiveServer) -> Peer:
    """An agent that has a session, and is connected."""
    peer = await server.log_in()
    await server.until_connected()
    return peer


async def test_who_resumes_has_no_task_before_it_has_proved_itself(
    server: LiveServer, first: Peer
) -> None:
    """A fleet comes back at once, and a task for each from the first byte on costs a tenth of that."""
    serving = server.listener._serving
    (before,) = serving
    silent = await server.connect()
    peer = await server.connect()
    await ask_to_resume(peer, first)
    await until(lambda: server.listener.open_connections() == 3, "all connections")
    assert serving == {before}
    peer = await server.connect()
    (outcome,) = await peer.resume(first.keys)
    assert isinstance(outcome, Established)
    await peer.announce()
    await server.until_said("CLIENT_RESUMED")
    await silent.close()


@pytest.mark.parametrize("broken", ["AccessLists.check_at_once", "resumes_at_once"])
async def test_a_bug_before_there_is_a_task_is_said_and_ends_that_connection_only(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("a bug, for the test")

    with monkeypatch.context() as patched:
        patched.setattr(f"{listener_module.__name__}.{broken}", fail)
        peer = await server.connect()
        peer.writer.write(b"x")
        event = await server.until_said("SERVER_INTERNAL_ERROR")
        await peer.until_closed()
    assert event.fields["error"] == "ZeroDivisionError"
    assert "test_newcomers.py" in str(event.fields["detail"])
    await until(lambda: not server.listener.open_connections(), "the end of the connection")
    await server.log_in()


async def test_who_resumes_and_goes_is_told_of(server: LiveServer, first: Peer) -> None:
    for is_reset in (False, True):
        peer = await server.connect()
        count = server.codes().count("CONNECTION_CLOSED")
        await ask_to_resume(peer, first)
        if is_reset:
            peer.writer.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            peer.writer.transport.abort()
        else:
            await peer.close()
        await server.until_said("CONNECTION_CLOSED", count + 1)
    await until(lambda: server.listener.open_connections() == 1, "the end of the connections")


async def test_who_asks_to_resume_and_says_no_more_is_closed_in_time(
    server: LiveServer, first: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "HANDSHAKE_LIMIT_S", 0.2)
    peer = await server.connect()
    await ask_to_resume(peer, first)
    await server.until_said("CONNECTION_TIMEOUT")
    await peer.until_closed()


async def test_what_comes_after_the_limit_is_not_looked_at(
    server: LiveServer, first: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadlines are told up to a step late; nobody logs in meanwhile."""
    with monkeypatch.context() as patched:
        patched.setattr(listener_module, "HANDSHAKE_LIMIT_S", 0.0)
        peer = await server.connect()
        peer.writer.write(request_of(first))
        await server.until_said("CONNECTION_TIMEOUT")
    assert await peer.reader.read() == b""


async def test_without_memory_for_a_task_a_connection_ends_and_is_forgotten(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spawn(work: Coroutine[object, object, None]) -> None:
        work.close()
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(server.listener, "_spawn", spawn)
        peer = await server.connect()
        peer.writer.write(b"x")
        event = await server.until_said("SERVER_INTERNAL_ERROR")
        with contextlib.suppress(ConnectionResetError):
            await peer.until_closed()
    assert event.fields["error"] == "MemoryError"
    assert server.listener.open_connections() == 0
    assert len(server.runtime.anteroom) == 0
    await server.log_in()


async def test_without_memory_to_tell_of_it_a_connection_ends_all_the_same(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, about: None)

    def fail(*_arguments: object, **_fields: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        peer = await server.connect()
        await until(lambda: server.listener.open_connections() == 1, "the connection")
        patched.setattr(listener_module, "resumes_at_once", fail)
        patched.setattr(server.runtime.journal, "raise_event", fail)
        peer.writer.write(b"x")
        with contextlib.suppress(ConnectionResetError):
            await peer.until_closed()
        await until(lambda: not server.listener.open_connections(), "the end of it")
    assert len(server.runtime.anteroom) == 0
    await server.log_in()


async def test_who_is_refused_by_the_access_lists_is_forgotten_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live_server(tmp_path / "data") as server:
        deny = tmp_path / "hosts.deny"
        deny.write_text("needfire: 127.0.0.0/255.0.0.0\n")
        server.configure(hosts_deny_file=str(deny))
        refused = server.runtime.metrics._refused["access_list"]._value
        for _ in range(3):
            await expect_reset(await server.connect())
        await server.until_said("REFUSED_CONNECTION", 3)
        assert refused.get() == 3
        # By name: let in is nobody whose name is not known yet, and turned away in the same way.
        deny.write_text("needfire: .example.org\n")
        for name, is_refused in (("eve.example.org", True), ("web1.example.net", False)):

            async def peer_name(_address: str, name: str = name) -> PeerName:
                return PeerName(name)

            monkeypatch.setattr(server.runtime.names, "peer_name", peer_name)
            if is_refused:
                await expect_reset(await server.connect())
                await server.until_said("REFUSED_CONNECTION", 4)
                await until(lambda: not server.listener.open_connections(), "the end of it")
                assert len(server.runtime.anteroom) == 0
            else:
                await server.log_in()
        assert "NEW_CONNECTION" in server.codes()
        assert server.codes().count("NEW_CONNECTION") == 1
        assert refused.get() == 4


async def test_the_access_lists_are_read_anew_for_who_comes_later(tmp_path: Path) -> None:
    async with live_server(tmp_path / "data") as server:
        deny = tmp_path / "hosts.deny"
        server.configure(hosts_deny_file=str(deny))
        peer = await server.connect()
        await until(lambda: server.listener.open_connections() == 1, "the connection")
        deny.write_text("needfire: ALL\n")
        await expect_reset(await server.connect())
        assert server.listener.open_connections() == 1
        await peer.close()


async def expect_reset(peer: Peer) -> None:
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(peer.reader.read(), 5)


async def test_what_follows_a_request_at_once_is_looked_at_too(
    server: LiveServer, first: Peer
) -> None:
    peer = await server.connect()
    peer.writer.write(request_of(first) + b"\xff" * 8)
    await server.until_said("PROTOCOL_ERROR")
    await peer.until_closed()


async def test_an_answer_that_cannot_be_sent_is_told_of_at_once(
    server: LiveServer, first: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Wire._send

    def broken(wire: Wire, data: bytes) -> None:
        if wire in server.listener._open and len(server.listener._serving) == 1:
            wire.abort(ConnectionResetError("for the test"))
        else:
            send(wire, data)

    monkeypatch.setattr(Wire, "_send", broken)
    peer = await server.connect()
    peer.writer.write(request_of(first))
    closed = await server.until_said("CONNECTION_CLOSED")
    assert closed.fields["reason"] == "for the test"


async def test_who_was_taken_out_of_the_registry_resumes_nothing(
    server: LiveServer, first: Peer
) -> None:
    server.runtime.registry.take_out(NAME)
    (outcome,) = await (await server.connect()).resume(first.keys)
    assert isinstance(outcome, Refused)
    assert outcome.code is RefusalCode.SESSION_UNKNOWN
    assert server.runtime.metrics.handshakes["session_unknown"] == 1


async def test_log_ins_are_counted_by_how_they_ended(server: LiveServer) -> None:
    handshakes = server.runtime.metrics.handshakes
    first = await server.log_in()
    await server.log_in(instance=b"2" * 16)
    assert handshakes["negotiated"] == 2
    await (await server.connect()).resume(first.keys)
    assert handshakes["session_superseded"] == 1
    session = server.runtime.sessions.current(NAME)
    assert session is not None
    server.runtime.sessions.install(replace(session, expires_s=monotonic_s()))
    await (await server.connect()).resume(session.keys)
    assert handshakes["session_expired"] == 1


async def test_after_a_stop_nothing_is_watched(server: LiveServer) -> None:
    silent, peer = await server.connect(), await server.log_in()
    poller = server.listener._poller
    await until(lambda: len(poller) == 2, "both")
    await server.listener.stop()
    assert (len(poller), len(poller.deadlines), poller._epoll.closed) == (0, 0, True)
    for each in (silent, peer):
        await each.until_closed()


async def test_where_nothing_can_be_watched_each_connection_is_told_of_once(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(server.listener._poller, "add", add)
        for _ in range(3):
            peer = await server.connect()
            with contextlib.suppress(ConnectionResetError):
                await peer.until_closed()
        await until(lambda: not server.listener.open_connections(), "the end of the connections")
    closed = [event for event in server.said if event.code == "CONNECTION_CLOSED"]
    assert ["No space" in str(event.fields["reason"]) for event in closed] == [True] * 3


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"\xff" * 16, id="no frame"),
        pytest.param(frame_bytes(FrameType.RESUME, b"\1\x91\1"), id="fields that are none"),
        pytest.param(frame_bytes(FrameType.HELLO, b"\7"), id="an unknown layout"),
        pytest.param(b"", id="a bug"),
    ],
)
async def test_a_failed_log_in_leaves_no_circle(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    """An error keeps the frames that it went through, and they the connection (``circles.py``)."""

    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("a bug, for the test")

    with monkeypatch.context() as patched:
        if not said:
            patched.setattr(listener_module, "resumes_at_once", fail)
        peer = await server.connect()
        await until(lambda: bool(server.listener._open), "the connection")
        gc.collect()
        gc.disable()
        try:
            peer.writer.write(said or b"x")
            await server.until_said("PROTOCOL_ERROR" if said else "SERVER_INTERNAL_ERROR")
            await peer.until_closed()
            await until(lambda: not server.listener._serving, "the end of the task")
            await asyncio.sleep(0)
            assert not [each for each in gc.get_objects() if isinstance(each, Wire)]
        finally:
            gc.enable()


async def test_a_peer_whose_name_the_access_lists_need_has_all_its_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow name service is not the peer's fault."""
    async with live_server(tmp_path / "data") as server:
        allow = tmp_path / "hosts.allow"
        allow.write_text("needfire: .example.org\nneedfire: ALL\n")
        server.configure(hosts_allow_file=str(allow))
        monkeypatch.setattr(listener_module, "HANDSHAKE_LIMIT_S", 1.0)
        asked = list[str]()

        async def peer_name(address: str) -> PeerName:
            asked.append(address)
            await asyncio.sleep(1.1)
            return PeerName(None)

        monkeypatch.setattr(server.runtime.names, "peer_name", peer_name)
        await server.log_in()
        assert asked == ["127.0.0.1"]


def request_of(first: Peer) -> bytes:
    """The first bytes of who has the keys of a session."""
    return AgentConnection.resume(first.keys, random_bytes=os.urandom).data_to_send()


async def ask_to_resume(peer: Peer, first: Peer) -> None:
    """Send the request, and wait for the first bytes of the answer."""
    peer.writer.write(request_of(first))
    assert await asyncio.wait_for(peer.reader.read(1), 5)
