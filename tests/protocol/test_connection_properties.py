"""Laws of a connection: whatever bytes come, in whatever pieces, however they were tampered with."""

import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from needfire_protocol.connection import AgentConnection, ServerConnection
from needfire_protocol.connection_events import (
    ConnectionEvent,
    Failed,
    MessageReceived,
    SignatureInvalid,
)
from needfire_protocol.errors import RemoteProtocolError
from needfire_protocol.framing import FrameType
from needfire_protocol.limits import HANDSHAKE_FRAME_BYTES_MAX, SEALED_FRAME_BYTES_MAX
from needfire_protocol.messages import FileChunk, Heartbeat, ReportBatch
from needfire_testkit.message_strategies import agent_messages, server_messages
from needfire_testkit.pairs import (
    PASSWORD,
    Pair,
    fixed_random,
    new_server,
    resumed_pair,
    signed_batch,
    verifier_of,
)

AnyConnection = AgentConnection | ServerConnection

no_batches = agent_messages.filter(lambda message: type(message) is not ReportBatch)


def negotiating() -> AgentConnection:
    return AgentConnection.negotiate(
        "web1", PASSWORD, takeover=False, random_bytes=fixed_random("agent")
    )


HELLO = negotiating().data_to_send()


def awaiting_proof() -> ServerConnection:
    server = new_server(fixed_random("server"))
    server.receive_data(HELLO)
    server.challenge(verifier_of())
    server.data_to_send()
    return server


START: dict[str, Callable[[], AnyConnection]] = {
    "fresh server": new_server,
    "server that awaits a proof": awaiting_proof,
    "open server": lambda: resumed_pair().server,
    "fresh agent": negotiating,
    "agent that resumes": lambda: AgentConnection.resume(
        resumed_pair().keys, random_bytes=os.urandom
    ),
    "open agent": lambda: resumed_pair().agent,
}
FRAME_LIKE = st.builds(
    lambda kind, body, off: bytes((kind,)) + max(0, len(body) + off).to_bytes(4, "big") + body,
    st.sampled_from(FrameType),
    st.binary(max_size=120),
    st.sampled_from([0, 0, 0, -1, 1, 2_000, 2**31]),
)


@pytest.mark.parametrize("start", START)
@settings(max_examples=60)
@given(chunks=st.lists(st.binary(max_size=80) | FRAME_LIKE, max_size=6))
def test_any_bytes_give_events_and_never_an_exception(start: str, chunks: list[bytes]) -> None:
    connection = START[start]()
    for chunk in chunks:
        events = connection.receive_data(chunk)
        failed = [event for event in events if isinstance(event, Failed)]
        assert all(isinstance(event.error, RemoteProtocolError) for event in failed)
        assert connection.is_closed or not failed
        limit = SEALED_FRAME_BYTES_MAX if connection.is_open else HANDSHAKE_FRAME_BYTES_MAX
        assert connection._reader.buffered_bytes < limit
    assert connection.receive_eof()
    assert connection.is_closed
    assert connection.receive_data(b"more") == []


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(each % (len(stream) + 1) for each in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


def receive_all(connection: AnyConnection, pieces: list[bytes]) -> list[ConnectionEvent]:
    return [event for piece in pieces for event in connection.receive_data(piece)]


every_cut = st.lists(st.integers(0, 100_000), max_size=10)


@given(st.lists(no_batches, max_size=5), every_cut)
def test_any_split_of_the_agent_s_stream_gives_the_same_messages(
    messages: list[Any], cuts: list[int]
) -> None:
    pair = resumed_pair()
    for message in messages:
        pair.agent.send(message)
    events = receive_all(pair.server, cut(pair.agent.data_to_send(), cuts))
    assert events == [MessageReceived(message) for message in messages]


@given(st.lists(server_messages, max_size=5), every_cut)
def test_any_split_of_the_server_s_stream_gives_the_same_messages(
    messages: list[Any], cuts: list[int]
) -> None:
    messages = [message for message in messages if type(message).__name__ != "Refusal"]
    pair = resumed_pair()
    for message in messages:
        pair.server.send(message)
    events = receive_all(pair.agent, cut(pair.server.data_to_send(), cuts))
    assert events == [MessageReceived(message) for message in messages]


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=5), every_cut)
def test_any_split_of_signed_reports_gives_the_same_batch(
    bodies: list[bytes], cuts: list[int]
) -> None:
    pair = resumed_pair()
    batch = signed_batch(pair.keys, bytes(16), bodies)
    pair.agent.send(batch)
    assert receive_all(pair.server, cut(pair.agent.data_to_send(), cuts)) == [
        MessageReceived(batch)
    ]


@settings(max_examples=25)
@given(every_cut, every_cut)
def test_any_split_of_a_resumption_gives_the_same_session(
    to_server: list[int], to_agent: list[int]
) -> None:
    keys = resumed_pair().keys
    agent, server = AgentConnection.resume(keys, random_bytes=os.urandom), new_server()
    receive_all(server, cut(agent.data_to_send(), to_server))
    server.resume(keys)
    receive_all(agent, cut(server.data_to_send(), to_agent))
    receive_all(server, cut(agent.data_to_send(), to_server))
    assert agent.is_open
    assert server.is_open


@settings(max_examples=10)
@given(every_cut, every_cut)
def test_any_split_of_a_negotiation_gives_the_same_session(
    to_server: list[int], to_agent: list[int]
) -> None:
    agent, server = negotiating(), new_server()
    receive_all(server, cut(agent.data_to_send(), to_server))
    server.challenge(verifier_of())
    receive_all(agent, cut(server.data_to_send(), to_agent))
    receive_all(server, cut(agent.data_to_send(), to_server))
    server.verify_proof()
    receive_all(agent, cut(server.data_to_send(), to_agent))
    assert agent.is_open
    assert agent.keys == server.keys


def records(pair: Pair, count: int) -> list[bytes]:
    sent = []
    for number in range(count):
        pair.agent.send(Heartbeat(number, number, None))
        sent.append(pair.agent.data_to_send())
    return sent


@given(st.sampled_from([1, 2]), st.integers(0, 2), st.integers(min_value=0))
def test_a_flipped_bit_anywhere_in_the_stream_ends_it_there(
    suite: int, which: int, position: int
) -> None:
    pair = resumed_pair(suite=suite)
    sent = records(pair, 3)
    changed = bytearray(sent[which])
    bit = position % (8 * len(changed))
    changed[bit // 8] ^= 1 << bit % 8
    sent[which] = bytes(changed)
    events = receive_all(pair.server, sent) + pair.server.receive_eof()
    assert all(isinstance(event, MessageReceived) for event in events[:which])
    assert isinstance(events[which], Failed)
    assert not any(isinstance(event, MessageReceived) for event in events[which:])


@given(st.sampled_from([1, 2]), st.permutations(range(4)))
def test_only_the_order_in_which_records_were_sealed_is_taken(suite: int, order: list[int]) -> None:
    pair = resumed_pair(suite=suite)
    sent = records(pair, 4)
    events = receive_all(pair.server, [sent[number] for number in order])
    in_place = next((n for n, number in enumerate(order) if n != number), 4)
    assert events[:in_place] == [MessageReceived(Heartbeat(n, n, None)) for n in range(in_place)]
    assert [type(event) for event in events[in_place:]] == [Failed] * (in_place < 4)


@given(st.sampled_from([1, 2]), st.integers(0, 3), st.integers(0, 3))
def test_a_record_that_comes_again_or_not_at_all_ends_the_stream(
    suite: int, again: int, missing: int
) -> None:
    pair = resumed_pair(suite=suite)
    sent = records(pair, 4)
    replayed = [*sent[: again + 1], sent[again]]
    assert isinstance(receive_all(pair.server, replayed)[-1], Failed)
    pair = resumed_pair(suite=suite)
    sent = records(pair, 5)
    del sent[missing]
    assert isinstance(receive_all(pair.server, sent)[-1], Failed)


@given(st.sampled_from([1, 2]), st.integers(0, 2**16))
def test_a_stream_cut_inside_a_record_fails_and_gives_nothing_of_it(suite: int, at: int) -> None:
    pair = resumed_pair(suite=suite)
    (record,) = records(pair, 1)
    kept = 1 + at % (len(record) - 1)
    assert pair.server.receive_data(record[:kept]) == []
    (event,) = pair.server.receive_eof()
    assert isinstance(event, Failed)


@pytest.mark.parametrize("suite", [1, 2])
def test_what_a_side_sent_cannot_be_sent_back_to_it(suite: int) -> None:
    pair = resumed_pair(suite=suite)
    (record,) = records(pair, 1)
    (event,) = pair.agent.receive_data(record)
    assert isinstance(event, Failed)


@given(st.integers(0, 4), st.integers(0, 8 * 32 - 1))
def test_a_flipped_bit_of_any_signature_is_noticed(which: int, bit: int) -> None:
    pair = resumed_pair()
    batch = signed_batch(pair.keys, bytes(16), [b"body"] * 5)
    changed = bytearray(batch.reports[which].signature)
    changed[bit // 8] ^= 1 << bit % 8
    reports = list(batch.reports)
    report = reports[which]
    reports[which] = type(report)(report.sequence, report.type, report.body, bytes(changed))
    pair.agent.send(ReportBatch(batch.stream, tuple(reports)))
    assert pair.deliver_to_server() == [SignatureInvalid(batch.stream, report.sequence)]


@settings(max_examples=30)
@given(st.integers(min_value=0))
def test_a_flipped_bit_anywhere_in_a_resumption_never_opens_a_connection_for_both(
    position: int,
) -> None:
    keys = resumed_pair().keys
    agent, server = AgentConnection.resume(keys, random_bytes=os.urandom), new_server()
    lengths = (len(agent._out), 5 + 1 + 1 + 34 + 34, 5 + 1 + 1 + 34)
    bit = position % (8 * sum(lengths))

    def tampered(data: bytes, before: int) -> bytes:
        index = bit // 8 - before
        if not 0 <= index < len(data):
            return data
        return data[:index] + bytes((data[index] ^ 1 << bit % 8,)) + data[index + 1 :]

    server.receive_data(tampered(agent.data_to_send(), 0))
    if server._machine.state.name == "AWAIT_SESSION":
        if server._resumption is not None and server._resumption.session_id == keys.session_id:
            server.resume(keys)
        else:
            server.close()
    agent.receive_data(tampered(server.data_to_send(), lengths[0]))
    server.receive_data(tampered(agent.data_to_send(), lengths[0] + lengths[1]))
    assert not server.is_open


def test_large_messages_pass_in_small_pieces() -> None:
    pair = resumed_pair()
    chunk = FileChunk(os.urandom(65_536))
    pair.server.send(chunk)
    stream = pair.server.data_to_send()
    pieces = [stream[start : start + 1_000] for start in range(0, len(stream), 1_000)]
    assert receive_all(pair.agent, pieces) == [MessageReceived(chunk)]
