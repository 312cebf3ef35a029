"""Strangers at the real listener: what they see, what they cost, and what the log says."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path

import pytest

from needfire_protocol.connection import AgentConnection
from needfire_protocol.connection_events import ConnectionEvent, Established, Refused
from needfire_protocol.limits import HANDSHAKE_FRAME_BYTES_MAX
from needfire_protocol.messages import Acknowledge, RefusalCode
from needfire_protocol.srp import make_verifier
from needfire_server import agent_session as agent_session_module
from needfire_server import anteroom as anteroom_module
from needfire_server import listener as listener_module
from needfire_server.clock import monotonic_s
from needfire_server.familiar import SOURCES_OF_ONE_MAX
from needfire_server.porch import Porch
from needfire_server.runtime import Runtime
from needfire_server.turnstile import Rank
from needfire_testkit.live_server import (
    NAME,
    PASSWORD,
    LiveServer,
    Peer,
    event_body,
    live_server,
)
from needfire_testkit.server import until


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LiveServer]:
    async with live_server(tmp_path / "data") as live:
        yield live


async def handshake_bytes(
    server: LiveServer, name: str, password: str
) -> tuple[list[int], bytes, ConnectionEvent]:
    """Log in; return the length of every piece, the last bytes, and how it ended."""
    peer = await server.connect()
    (event,) = await peer.negotiate(name, password)
    return [len(piece) for piece in peer.heard], peer.heard[-1], event


async def test_an_unknown_name_and_a_wrong_password_get_the_same_bytes(server: LiveServer) -> None:
    unknown = await handshake_bytes(server, "nobody-knows-me", PASSWORD)
    wrong = await handshake_bytes(server, NAME, "a wrong password")
    assert unknown == wrong
    assert isinstance(unknown[2], Refused)
    assert unknown[2].code is RefusalCode.AUTHENTICATION_FAILED
    await server.until_said("NOT_IN_CLIENT_LIST")
    await server.until_said("SESSION_KEY_MISMATCH")


async def test_an_unknown_name_has_the_same_salt_each_time(server: LiveServer) -> None:
    salts = set()
    for _ in range(2):
        peer = await server.connect()
        await peer.negotiate("nobody-knows-me", PASSWORD)
        # The challenge ends with the salt (16 bytes, as bin 8) and B (384 bytes, as bin 16).
        salts.add(peer.heard[0][-(384 + 3 + 16) : -(384 + 3)])
    assert len(salts) == 1


async def test_require_lookup_refuses_a_name_that_its_address_does_not_confirm(
    server: LiveServer,
) -> None:
    name = "web1.no-such-domain.invalid"
    await server.runtime.store.register(
        name, make_verifier(PASSWORD, os.urandom), now_us=1, user="test"
    )
    record = await server.runtime.store.client_record(name)
    assert record is not None
    server.runtime.registry.put(record)
    _, _, event = await handshake_bytes(server, name, PASSWORD)
    assert isinstance(event, Established), "the registered name and its secret decide"
    server.configure(require_lookup=True)
    refused = await handshake_bytes(server, name, PASSWORD)
    assert isinstance(refused[2], Refused)
    await server.until_said("LOOKUP_REQUIRED")
    assert "NOT_IN_CLIENT_LIST" not in server.codes()


async def test_a_denied_peer_is_reset_before_a_byte_is_read(server: LiveServer) -> None:
    (server.directory / "hosts.deny").write_text("ALL: ALL\n")
    peer = await server.connect()
    # A clean end would give b"" here; state 2 documents the reset.
    with pytest.raises(ConnectionResetError):
        await peer.reader.read(1)
    event = await server.until_said("REFUSED_CONNECTION")
    assert event.msg == "Refused connection from 127.0.0.1"
    assert event.fields["subroutine"] == "libwrap"


async def test_an_odd_access_list_is_told_once(server: LiveServer) -> None:
    (server.directory / "hosts.allow").write_text("this is no rule\n")
    for _ in range(3):
        await (await server.connect()).close()
    await server.until_said("NEW_CONNECTION", count=3)
    assert server.codes().count("ACCESS_LIST_NOTICE") == 1
    server.listener.reloaded()
    await (await server.connect()).close()
    await server.until_said("ACCESS_LIST_NOTICE", count=2)


async def test_a_stranger_who_says_nothing_is_closed(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "HANDSHAKE_LIMIT_S", 0.05)
    peer = await server.connect()
    await server.until_said("CONNECTION_TIMEOUT")
    await peer.until_closed()


@pytest.mark.parametrize("calculations", [0, 1])
async def test_a_log_in_that_we_do_not_get_to_is_over_in_time(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, calculations: int
) -> None:
    """Who waits for its turn has the same limit as who is waited for."""
    left, calculate = [None] * calculations, type(server.runtime).calculate

    async def stand_still(runtime: Runtime, work: Callable[[], object], rank: Rank) -> object:
        if left:
            left.pop()
            return await calculate(runtime, work, rank)
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(listener_module, "HANDSHAKE_LIMIT_S", 1.0)
    monkeypatch.setattr(type(server.runtime), "calculate", stand_still)
    peer = await server.connect()
    negotiating = asyncio.create_task(peer.negotiate(NAME, PASSWORD))
    await server.until_said("CONNECTION_TIMEOUT")
    assert not left
    await until(lambda: not server.listener.open_connections(), "the end of the connection")
    negotiating.cancel()
    await asyncio.wait((negotiating,))


async def test_a_store_that_stands_still_holds_no_log_in_for_ever(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stand_still(session_id: bytes) -> str | None:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    neighbours = server.runtime.neighbours
    monkeypatch.setattr(type(server.runtime.store), "is_shared", True)
    monkeypatch.setattr(neighbours._keeper, "client_of", stand_still)
    with pytest.raises(TimeoutError):
        await neighbours.find(bytes(16), 0.05)


async def test_an_acknowledgement_does_not_wait_for_the_one_before_it(server: LiveServer) -> None:
    await server.log_in()
    await server.until_connected()
    (session,) = server.listener._sessions.values()
    assert session.wire._socket is not None
    assert session.wire._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_client_that_never_announces_itself_is_closed(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_session_module, "ANNOUNCEMENT_LIMIT_S", 0.05)
    peer = await server.connect()
    await peer.negotiate(NAME, PASSWORD)
    await server.until_said("CONNECTION_TIMEOUT")
    await peer.until_closed()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x01" + (HANDSHAKE_FRAME_BYTES_MAX + 1).to_bytes(4, "big"),
        b"\x20\x00\x00\x00\x20" + bytes(32),
        b"\x01\x00\x00\x00\x02\x01\xc1",
    ],
    ids=["http", "tls", "too large", "sealed before the handshake", "no value"],
)
async def test_what_is_not_the_protocol_ends_the_connection_with_a_reason(
    garbage: bytes, server: LiveServer
) -> None:
    peer = await server.connect()
    peer.writer.write(garbage)
    await peer.until_closed()
    event = await server.until_said("PROTOCOL_ERROR")
    assert event.fields["reason"]
    assert str(event.fields["peer"]).startswith("127.0.0.1:")


async def test_a_peer_that_goes_in_the_middle_of_a_frame_is_noted(server: LiveServer) -> None:
    peer = await server.connect()
    peer.writer.write(b"\x01\x00\x00")
    peer.writer.write_eof()
    await peer.until_closed()
    await server.until_said("PROTOCOL_ERROR")


async def test_a_peer_that_resets_is_noted_and_leaves_nothing_behind(server: LiveServer) -> None:
    peer = await server.connect()
    await server.until_said("NEW_CONNECTION")
    connected: socket.socket = peer.writer.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.writer.transport.abort()
    await server.until_said("CONNECTION_CLOSED")


async def turned_away(server: LiveServer) -> None:
    """Connect, and be reset: before the connection is there on our side, or soon after."""
    with contextlib.suppress(ConnectionResetError):
        await (await server.connect()).until_closed()


async def test_beyond_the_limit_a_connection_is_refused_and_below_it_taken(
    server: LiveServer,
) -> None:
    server.configure(connection_limit=2)
    first, second = await server.connect(), await server.connect()
    await server.until_said("NEW_CONNECTION", count=2)
    await turned_away(server)
    await server.until_said("TOO_MANY_CONNECTIONS")
    await first.close()
    await server.until_said("CONNECTION_CLOSED")
    await server.log_in()
    await second.close()


async def test_a_connection_that_lingers_counts_against_the_limit(server: LiveServer) -> None:
    server.configure(connection_limit=1)
    lingering = await server.connect()
    lingering.writer.write(b"this is no frame")
    await server.until_said("PROTOCOL_ERROR")
    # It has been refused, and it keeps its own end open.
    await turned_away(server)
    assert server.codes().count("TOO_MANY_CONNECTIONS") == 1


async def test_a_newcomer_is_refused_where_all_silent_peers_have_just_come(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.configure(handshake_limit=1)
    monkeypatch.setattr(anteroom_module, "SILENCE_PATIENCE_S", 1e9)
    silent = [await server.connect() for _ in range(4)]
    await server.until_said("NEW_CONNECTION", count=4)
    newcomer = await server.connect()
    await newcomer.until_closed()
    await server.until_said("TOO_MANY_CONNECTIONS")
    assert server.listener.open_connections() == 4
    silent[0].writer.write(b"this is no frame")
    await server.until_said("PROTOCOL_ERROR")


async def test_of_too_many_silent_peers_of_an_address_the_oldest_makes_room(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.configure(handshake_limit=1)
    monkeypatch.setattr(anteroom_module, "SILENCE_PATIENCE_S", -1.0)
    silent = [await server.connect() for _ in range(4)]
    await server.until_said("NEW_CONNECTION", count=4)
    assert "TOO_MANY_CONNECTIONS" not in server.codes()
    await server.log_in()
    event = await server.until_said("TOO_MANY_CONNECTIONS")
    assert event.fields["limit"] == 16
    with pytest.raises(ConnectionResetError):
        await silent[0].reader.read(1)


async def say_hello(server: LiveServer, address: str = "127.0.0.1") -> Peer:
    """A peer that begins to log in, and does not go on."""
    peer = await connect_from(server, address)
    hello = AgentConnection.negotiate(NAME, PASSWORD, takeover=True, random_bytes=os.urandom)
    peer.writer.write(hello.data_to_send())
    assert await peer.reader.readexactly(5)
    return peer


async def connect_from(server: LiveServer, address: str) -> Peer:
    peer = Peer(*await asyncio.open_connection("127.0.0.1", server.port, local_addr=(address, 0)))
    server.peers.append(peer)
    return peer


async def test_who_logged_in_lately_gets_in_where_strangers_take_all_connections(
    server: LiveServer,
) -> None:
    agent = await server.log_in()
    await agent.close()
    server.configure(connection_limit=3)
    strangers = [await connect_from(server, f"127.0.1.{number}") for number in range(1, 4)]
    await server.until_said("NEW_CONNECTION", count=4)
    with contextlib.suppress(ConnectionResetError):
        await (await connect_from(server, "127.0.1.9")).until_closed()
    event = await server.until_said("TOO_MANY_CONNECTIONS")
    assert event.fields["limit"] == 3, "another stranger does not"
    await server.log_in()
    with pytest.raises(ConnectionResetError):
        await strangers[0].reader.read(1)


async def test_an_address_is_familiar_only_once_its_client_is_admitted(server: LiveServer) -> None:
    """Resumptions have a quota where they are announced, and what comes first has to have one."""
    agent = await server.connect()
    await agent.negotiate(NAME, PASSWORD)
    await until(lambda: server.listener._unannounced, "the log-in")
    assert len(server.runtime.familiar) == 0
    await agent.announce()
    assert len(server.runtime.familiar) == 1
    again = await connect_from(server, "127.0.1.1")
    await again.resume(agent.keys)
    await until(lambda: server.listener._unannounced, "the resumption")
    assert len(server.runtime.familiar) == 1


async def test_an_address_is_that_of_the_client_that_logs_in_from_there(server: LiveServer) -> None:
    familiar, now_s = server.runtime.familiar, monotonic_s()
    for number in range(SOURCES_OF_ONE_MAX):
        familiar.logged_in(f"192.0.2.{number}", NAME, now_s)
    await server.log_in()
    await server.until_connected()
    assert len(familiar) == SOURCES_OF_ONE_MAX, "it has as many as it may have"


async def test_silent_connections_of_somebody_who_has_the_secret_keep_no_agent_out(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "_UNANNOUNCED_MAX", 2)
    silent = []
    for count in range(1, 4):
        peer = await server.connect()
        await peer.negotiate(NAME, PASSWORD)
        silent.append(peer)
        if count < 3:
            await until(lambda: len(server.listener._unannounced[NAME]) == count, "it")  # noqa: B023
    assert (await server.until_said("TOO_MANY_CONNECTIONS")).fields["limit"] == 2
    await silent[0].until_closed()
    agent = await server.log_in()
    await agent.send(agent.batch(1, event_body()))
    assert await agent.next_message() == Acknowledge(agent.stream, 1)
    await silent[1].until_closed()
    await silent[2].announce()


async def test_who_logged_in_lately_does_not_wait_on_the_porch(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await server.log_in()
    await agent.close()
    monkeypatch.setattr(listener_module, "_STRANGERS_PER_TURN", 0)
    for number in range(1, 6):
        await connect_from(server, f"127.0.1.{number}")
    await until(lambda: len(server.listener._porch) == 5, "the strangers on the porch")
    await server.log_in()
    assert len(server.listener._porch) == 5
    assert server.listener.open_connections() >= 6, "they count against the limit"


async def test_strangers_are_let_in_by_twos_so_that_turns_stay_short(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as closed:
        closed.setattr(listener_module, "_STRANGERS_PER_TURN", 0)
        for number in range(1, 8):
            await connect_from(server, f"127.0.1.{number}")
        await until(lambda: len(server.listener._porch) == 7, "the strangers on the porch")
    waiting = [7]
    while waiting[-1]:
        await asyncio.sleep(0)
        waiting.append(len(server.listener._porch))
    steps = [before - after for before, after in pairwise(waiting)]
    assert max(steps) == 2
    await server.until_said("NEW_CONNECTION", count=7)


async def test_a_full_porch_is_told_and_the_newcomer_is_reset(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "_STRANGERS_PER_TURN", 0)
    server.listener._porch = Porch(4)
    for number in range(1, 5):
        await connect_from(server, f"127.0.1.{number}")
    await until(lambda: len(server.listener._porch) == 4, "the strangers on the porch")
    for _ in range(3):
        with contextlib.suppress(ConnectionResetError):
            await (await connect_from(server, "127.0.1.9")).until_closed()
    await server.until_said("TOO_MANY_CONNECTIONS")
    assert server.codes().count("TOO_MANY_CONNECTIONS") == 1, "not each one"


async def test_where_no_place_is_left_a_log_in_is_refused_as_busy(server: LiveServer) -> None:
    server.configure(handshake_limit=1)
    await say_hello(server)
    (outcome,) = await (await server.connect()).negotiate(NAME, PASSWORD)
    assert outcome == Refused(RefusalCode.BUSY, "", authenticated=False)
    event = await server.until_said("TOO_MANY_CONNECTIONS")
    assert event.fields["limit"] == 1
    assert server.runtime.metrics.handshakes["busy"] == 1


async def test_who_owes_its_proof_for_long_makes_room_for_a_log_in(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anteroom_module, "PROOF_PATIENCE_S", -1.0)
    server.configure(handshake_limit=1)
    debtor = await say_hello(server)
    await server.log_in()
    await debtor.until_closed()


async def test_one_address_cannot_use_up_all_log_ins(server: LiveServer) -> None:
    server.configure(handshake_limit=20)
    for _ in range(5):
        await say_hello(server)
    (outcome,) = await (await server.connect()).negotiate(NAME, PASSWORD)
    assert isinstance(outcome, Refused)
    assert outcome.code is RefusalCode.BUSY
    elsewhere = await connect_from(server, "127.0.0.9")
    (outcome,) = await elsewhere.negotiate(NAME, PASSWORD)
    assert isinstance(outcome, Established)


async def test_a_session_is_resumed_while_no_log_in_has_a_place(server: LiveServer) -> None:
    server.configure(handshake_limit=1)
    keys = (await server.log_in()).keys
    await say_hello(server)
    (outcome,) = await (await server.connect()).resume(keys)
    assert isinstance(outcome, Established)


async def test_a_bug_in_one_connection_is_said_and_ends_that_connection_only(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_arguments: object) -> None:
        raise ZeroDivisionError("a bug, for the test")

    with monkeypatch.context() as patched:
        patched.setattr(listener_module, "log_in", broken)
        peer = await server.connect()
        peer.writer.write(b"x")
        event = await server.until_said("SERVER_INTERNAL_ERROR")
        await peer.until_closed()
    assert event.fields["error"] == "ZeroDivisionError"
    assert "test_listener.py" in str(event.fields["detail"])
    await server.log_in()


async def test_a_logged_in_client_does_not_count_as_a_handshake(server: LiveServer) -> None:
    server.configure(handshake_limit=1)
    for number in range(3):
        await server.log_in(instance=bytes([number]) * 16)
    assert "TOO_MANY_CONNECTIONS" not in server.codes()


async def test_stopping_closes_every_connection(server: LiveServer) -> None:
    peers: list[Peer] = [await server.connect(), await server.log_in()]
    await server.listener.stop()
    for peer in peers:
        await peer.until_closed()
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_a_clean_end_before_the_log_in_is_ordinary_traffic(server: LiveServer) -> None:
    peer = await server.connect()
    await peer.close()
    event = await server.until_said("CONNECTION_CLOSED")
    assert event.severity.word == "info"
