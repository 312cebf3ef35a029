"""What an open connection carries, and every way in which one is refused, fails or ends."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from needfire_protocol import seal
from needfire_protocol.connection import AgentConnection, ServerConnection
from needfire_protocol.connection_events import (
    Closed,
    ConnectionEvent,
    MessageReceived,
    NegotiationRequested,
    Refused,
    SignatureInvalid,
)
from needfire_protocol.errors import LocalProtocolError
from needfire_protocol.framing import FrameType
from needfire_protocol.handshake import AUTHENTICATION_REFUSAL
from needfire_protocol.handshake_frames import PlainRefusal, decode_frame, encode_frame
from needfire_protocol.keys import SessionKeys
from needfire_protocol.messages import (
    Acknowledge,
    Goodbye,
    GoodbyeAccepted,
    Heartbeat,
    Refusal,
    RefusalCode,
    Report,
    ReportBatch,
    Welcome,
)
from needfire_protocol.negotiation import ServerNegotiation
from needfire_protocol.states import AgentState, ServerState
from needfire_testkit.pairs import (
    NAME,
    assert_failed,
    at_confirmation,
    frames,
    negotiate,
    negotiated_pair,
    new_server,
    only,
    refused_pair,
    resumed_pair,
    signed_batch,
    verifier_of,
)

HEARTBEAT = Heartbeat(1, 0, None)
STREAM = bytes(range(16))


# ---- refusals ----------------------------------------------------------------------------------


def refuse_resumption(
    code: RefusalCode, keys_of_server: SessionKeys | None
) -> tuple[AgentConnection, list[ConnectionEvent]]:
    keys = resumed_pair().keys
    agent, server = AgentConnection.resume(keys, random_bytes=os.urandom), new_server()
    server.receive_data(agent.data_to_send())
    server.refuse_resumption(code, keys_of_server)
    assert server.is_closed
    return agent, agent.receive_data(server.data_to_send())


def test_a_superseded_session_is_refused_authentically() -> None:
    agent, events = refuse_resumption(RefusalCode.SESSION_SUPERSEDED, resumed_pair().keys)
    assert events == [Refused(RefusalCode.SESSION_SUPERSEDED, "", authenticated=True)]
    assert agent.is_closed


@pytest.mark.parametrize("code", RefusalCode)
def test_a_plain_refusal_is_told_as_not_authentic(code: RefusalCode) -> None:
    _, events = refuse_resumption(code, None)
    assert events == [Refused(code, "", authenticated=False)]


def test_a_forged_mac_of_a_refusal_fails() -> None:
    keys = resumed_pair().keys
    agent = AgentConnection.resume(keys, random_bytes=os.urandom)
    forged = encode_frame(PlainRefusal(RefusalCode.SESSION_SUPERSEDED, bytes(32)))
    assert_failed(agent, agent.receive_data(forged), "does not verify")


def test_an_authentic_refusal_cannot_be_replayed_nor_changed() -> None:
    keys = resumed_pair().keys
    first, server = AgentConnection.resume(keys, random_bytes=os.urandom), new_server()
    server.receive_data(first.data_to_send())
    server.refuse_resumption(RefusalCode.SESSION_SUPERSEDED, keys)
    recorded = server.data_to_send()
    second = AgentConnection.resume(keys, random_bytes=os.urandom)
    assert_failed(second, second.receive_data(recorded), "does not verify")
    refusal = decode_frame(frames(recorded)[0], PlainRefusal)
    changed = encode_frame(replace(refusal, code=RefusalCode.SESSION_UNKNOWN))
    assert_failed(first, first.receive_data(changed), "does not verify")


def test_a_refusal_with_a_mac_during_a_negotiation_fails() -> None:
    agent = negotiate()
    forged = encode_frame(PlainRefusal(RefusalCode.SESSION_SUPERSEDED, bytes(32)))
    assert_failed(agent, agent.receive_data(forged), "before there is a key")


@pytest.mark.parametrize("code", RefusalCode)
def test_a_server_can_refuse_before_anything_came(code: RefusalCode) -> None:
    agent, server = negotiate(), new_server()
    server.refuse(code, "not told to strangers")
    sent = server.data_to_send()
    assert b"strangers" not in sent
    assert agent.receive_data(sent) == [Refused(code, "", authenticated=False)]
    assert server.is_closed
    assert server.receive_data(b"anything") == []


@pytest.mark.parametrize("code", RefusalCode)
def test_a_refusal_on_an_open_connection_is_sealed_and_authentic(code: RefusalCode) -> None:
    pair = resumed_pair()
    pair.server.refuse(code, "the reason\nin one line")
    assert pair.deliver_to_agent() == [
        Refused(code, r"the reason\x0ain one line", authenticated=True)
    ]
    assert pair.agent.is_closed
    assert pair.server.is_closed


def test_a_plain_refusal_on_an_open_connection_fails() -> None:
    """Anybody could write one; only the sealed ones count now."""
    pair = resumed_pair()
    assert_failed(pair.agent, pair.agent.receive_data(AUTHENTICATION_REFUSAL), "REFUSAL")


def test_what_came_before_a_refusal_is_still_told() -> None:
    pair = resumed_pair()
    pair.server.send(Acknowledge(STREAM, 5))
    pair.server.refuse(RefusalCode.SESSION_SUPERSEDED)
    assert pair.deliver_to_agent() == [
        MessageReceived(Acknowledge(STREAM, 5)),
        Refused(RefusalCode.SESSION_SUPERSEDED, "", authenticated=True),
    ]


# ---- messages ----------------------------------------------------------------------------------


def test_messages_arrive_in_order_in_both_directions() -> None:
    pair = resumed_pair()
    beats = [Heartbeat(number, 0, None) for number in range(20)]
    for beat in beats:
        pair.agent.send(beat)
    assert pair.deliver_to_server() == [MessageReceived(beat) for beat in beats]
    pair.server.send(Welcome(1, 2))
    pair.server.send(GoodbyeAccepted())
    assert pair.deliver_to_agent() == [
        MessageReceived(Welcome(1, 2)),
        MessageReceived(GoodbyeAccepted()),
    ]


def test_signed_reports_arrive() -> None:
    pair = resumed_pair()
    batch = signed_batch(pair.keys, STREAM, [b"one", b"two"])
    pair.agent.send(batch)
    assert pair.deliver_to_server() == [MessageReceived(batch)]


def bad_batches() -> dict[str, ReportBatch]:
    keys = resumed_pair().keys
    good = signed_batch(keys, STREAM, [b"one", b"two", b"three"])
    first, second, third = good.reports
    old_keys = replace(keys, signing_key=bytes(32))
    return {
        "another body": ReportBatch(STREAM, (first, replace(second, body=b"twO"), third)),
        "another type": ReportBatch(STREAM, (first, replace(second, type=2), third)),
        "another stream": ReportBatch(bytes(16), good.reports),
        "another sequence": ReportBatch(STREAM, (first, replace(second, sequence=7))),
        "exchanged bodies": ReportBatch(
            STREAM, (replace(first, body=second.body), replace(second, body=first.body))
        ),
        "signature of another report": ReportBatch(
            STREAM, (first, replace(second, signature=first.signature))
        ),
        "keys of another session": signed_batch(old_keys, STREAM, [b"one"]),
        "no signature": ReportBatch(STREAM, (replace(first, signature=bytes(32)),)),
    }


@pytest.mark.parametrize("name", bad_batches())
def test_a_report_with_a_wrong_signature_ends_the_connection(name: str) -> None:
    pair = resumed_pair()
    batch = bad_batches()[name]
    pair.agent.send(batch)
    event = only(pair.deliver_to_server())
    assert isinstance(event, SignatureInvalid)
    assert event.stream == batch.stream
    assert event.sequence in {report.sequence for report in batch.reports}
    assert pair.server.is_closed
    refused = only(pair.deliver_to_agent())
    assert refused.code is RefusalCode.PROTOCOL
    assert refused.authenticated


def test_a_signature_is_verified_before_anyone_looks_inside_the_body() -> None:
    """The body is no event at all; with a right signature it is the owner's to judge."""
    pair = resumed_pair()
    pair.agent.send(signed_batch(pair.keys, STREAM, [b"\xc1\xc1"]))
    assert isinstance(only(pair.deliver_to_server()), MessageReceived)
    pair.agent.send(ReportBatch(STREAM, (Report(1, 1, b"\xc1\xc1", bytes(32)),)))
    assert isinstance(only(pair.deliver_to_server()), SignatureInvalid)


def test_an_agent_cannot_send_a_server_s_messages_nor_the_other_way() -> None:
    pair = resumed_pair()
    with pytest.raises(LocalProtocolError, match="not ours to send"):
        pair.agent.send(Welcome(1, 1))
    with pytest.raises(LocalProtocolError, match="not ours to send"):
        pair.server.send(HEARTBEAT)
    with pytest.raises(LocalProtocolError, match="use refuse"):
        pair.server.send(Refusal(RefusalCode.BUSY, ""))
    with pytest.raises(LocalProtocolError, match="spool_reports"):
        pair.agent.send(Heartbeat(1, -1, None))
    assert pair.agent.is_open
    assert pair.server.is_open
    assert pair.agent.data_to_send() == b""


def test_nothing_can_be_sent_before_or_after_a_connection_is_open() -> None:
    agent, server = negotiate(), new_server()
    for side, message in ((agent, HEARTBEAT), (server, Welcome(1, 1))):
        with pytest.raises(LocalProtocolError, match="open connection"):
            side.send(message)
    pair = resumed_pair()
    pair.agent.close()
    pair.server.close()
    with pytest.raises(LocalProtocolError, match="open connection"):
        pair.agent.send(HEARTBEAT)
    with pytest.raises(LocalProtocolError, match="open connection"):
        pair.server.send(Welcome(1, 1))


def test_a_malformed_message_of_an_authentic_agent_is_refused_with_a_reason() -> None:
    pair = resumed_pair()
    assert pair.agent._sealer is not None
    pair.agent._out += pair.agent._sealer.seal(b"\x7f\x01\x90")
    events = pair.deliver_to_server()
    assert_failed(pair.server, events, "message kind 0x7f")
    refused = only(pair.deliver_to_agent())
    assert refused.code is RefusalCode.PROTOCOL
    assert "0x7f" in refused.detail


def test_a_record_that_does_not_open_is_not_answered() -> None:
    pair = resumed_pair()
    assert_failed(
        pair.server, pair.server.receive_data(b"\x20\x00\x00\x00\x11" + bytes(17)), "authentic"
    )
    assert pair.server.data_to_send() == b""


def test_the_last_words_are_sent_before_the_end() -> None:
    pair = resumed_pair()
    pair.agent.send(Goodbye("exit"))
    pair.agent.close()
    assert pair.deliver_to_server() == [MessageReceived(Goodbye("exit"))]


def test_records_left_count_down() -> None:
    pair = resumed_pair()
    before = pair.agent.records_left
    pair.agent.send(HEARTBEAT)
    assert pair.agent.records_left == before - 1
    pair.agent.close()
    assert pair.agent.records_left == 0


# ---- states and ends ---------------------------------------------------------------------------

EVERY_FRAME = {
    frame_type: bytes((frame_type,)) + b"\x00\x00\x00\x11" + bytes(17) for frame_type in FrameType
}


def agent_in(state: AgentState) -> AgentConnection:
    if state is AgentState.AWAIT_CHALLENGE:
        return negotiate()
    if state is AgentState.AWAIT_CONFIRMATION:
        return at_confirmation()[0]
    pair = resumed_pair()
    if state is AgentState.AWAIT_RESUMPTION_ANSWER:
        return AgentConnection.resume(pair.keys, random_bytes=os.urandom)
    if state is AgentState.CLOSED:
        pair.agent.close()
    return pair.agent


def server_in(state: ServerState) -> ServerConnection:
    server = new_server()
    if state in (ServerState.AWAIT_VERIFIER, ServerState.AWAIT_PROOF):
        server.receive_data(negotiate().data_to_send())
        if state is ServerState.AWAIT_PROOF:
            server.challenge(verifier_of())
    elif state is ServerState.AWAIT_VERIFICATION:
        agent, server = at_confirmation()
        server.receive_data(agent.data_to_send())
    elif state in (ServerState.AWAIT_SESSION, ServerState.AWAIT_RESUMPTION_PROOF):
        keys = resumed_pair().keys
        request = AgentConnection.resume(keys, random_bytes=os.urandom)
        server.receive_data(request.data_to_send())
        if state is ServerState.AWAIT_RESUMPTION_PROOF:
            server.resume(keys)
    elif state is ServerState.OPEN:
        server = resumed_pair().server
    elif state is ServerState.CLOSED:
        server.close()
    server.data_to_send()
    return server


@pytest.mark.parametrize("state", [state for state in AgentState if state is not AgentState.CLOSED])
@pytest.mark.parametrize("frame_type", FrameType)
def test_no_frame_of_nonsense_gets_an_agent_further(
    state: AgentState, frame_type: FrameType
) -> None:
    agent = agent_in(state)
    assert agent._machine.state is state
    assert_failed(agent, agent.receive_data(EVERY_FRAME[frame_type]), "")


@pytest.mark.parametrize(
    "state", [state for state in ServerState if state is not ServerState.CLOSED]
)
@pytest.mark.parametrize("frame_type", FrameType)
def test_no_frame_of_nonsense_gets_a_server_further(
    state: ServerState, frame_type: FrameType
) -> None:
    server = server_in(state)
    assert server._machine.state is state
    assert_failed(server, server.receive_data(EVERY_FRAME[frame_type]), "")


@pytest.mark.parametrize(
    "state", [state for state in ServerState if state is not ServerState.CLOSED]
)
def test_an_answer_out_of_turn_is_a_bug_of_the_owner_and_changes_nothing(
    state: ServerState,
) -> None:
    server = server_in(state)
    answers: dict[ServerState, Callable[[], object]] = {
        ServerState.AWAIT_VERIFIER: lambda: server.challenge(verifier_of()),
        ServerState.AWAIT_VERIFICATION: server.verify_proof,
        ServerState.AWAIT_SESSION: lambda: server.resume(resumed_pair().keys),
    }
    for awaited, answer in answers.items():
        if awaited is not state:
            with pytest.raises(LocalProtocolError, match="is not awaited"):
                answer()
    if state is not ServerState.AWAIT_SESSION:
        with pytest.raises(LocalProtocolError, match="is not awaited"):
            server.refuse_resumption(RefusalCode.SESSION_UNKNOWN, None)
    assert server._machine.state is state
    assert server.data_to_send() == b""


def test_an_owner_that_was_busy_while_the_connection_ended_may_still_answer() -> None:
    for state in (
        ServerState.AWAIT_VERIFIER,
        ServerState.AWAIT_VERIFICATION,
        ServerState.AWAIT_SESSION,
    ):
        server = server_in(state)
        assert server.receive_eof() == [Closed()]
        server.challenge(None)
        assert server.verify_proof() == []
        server.resume(resumed_pair().keys)
        server.refuse_resumption(RefusalCode.SESSION_UNKNOWN, None)
        server.refuse(RefusalCode.BUSY)
        assert server.data_to_send() == b""


@pytest.mark.parametrize("step", ["challenge", "verify"])
def test_an_owner_may_close_a_connection_whose_arithmetic_is_under_way(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time limit ends it in the event loop, while the thread is still computing."""
    state = {"challenge": ServerState.AWAIT_VERIFIER, "verify": ServerState.AWAIT_VERIFICATION}[
        step
    ]
    server = server_in(state)
    compute = getattr(ServerNegotiation, step)

    def closed_meanwhile(*arguments: Any, **keywords: Any) -> Any:
        server.close()
        return compute(*arguments, **keywords)

    monkeypatch.setattr(ServerNegotiation, step, closed_meanwhile)
    if step == "challenge":
        server.challenge(verifier_of())
    else:
        assert server.verify_proof() == []
    assert server.is_closed
    assert server.keys is None
    assert server.data_to_send() == b""


def test_a_server_whose_key_is_worn_out_can_still_end_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = resumed_pair()
    monkeypatch.setattr(seal, "RECORDS_PER_KEY_MAX", 1)
    pair.server.send(Welcome(1, 1))
    with pytest.raises(LocalProtocolError, match="worn out"):
        pair.server.send(Welcome(1, 1))
    pair.server.refuse(RefusalCode.INTERNAL)
    assert pair.server.is_closed
    assert pair.deliver_to_agent() == [MessageReceived(Welcome(1, 1))]


def test_bytes_after_a_hello_are_refused_until_it_was_answered() -> None:
    server = new_server()
    events = server.receive_data(negotiate().data_to_send() + b"\x03")
    assert events[0] == NegotiationRequested(NAME, takeover=False)
    assert_failed(server, events, "not allowed now")


@pytest.mark.parametrize("state", AgentState)
def test_the_end_of_the_stream_between_frames_closes_an_agent(state: AgentState) -> None:
    agent = agent_in(state)
    assert agent.receive_eof() == [Closed()]
    assert agent.is_closed


@pytest.mark.parametrize("state", ServerState)
def test_the_end_of_the_stream_between_frames_closes_a_server(state: ServerState) -> None:
    server = server_in(state)
    assert server.receive_eof() == [Closed()]
    assert server.is_closed
    assert server.data_to_send() == b""


def test_the_end_of_the_stream_inside_a_frame_is_a_failure() -> None:
    pair = resumed_pair()
    pair.agent.send(HEARTBEAT)
    pair.server.receive_data(pair.agent.data_to_send()[:-1])
    assert_failed(pair.server, pair.server.receive_eof(), "inside a frame")


def test_a_stranger_can_make_us_keep_one_small_frame_and_no_more() -> None:
    server = new_server()
    assert server.receive_data(b"\x01\x00\x00\x07\xfb") == []  # 2043 bytes of body
    for _ in range(2_042):
        server.receive_data(b"x")
        assert server._reader.buffered_bytes < 2_048
    assert_failed(server, server.receive_data(b"x"), "")
    too_long = new_server()
    assert_failed(too_long, too_long.receive_data(b"\x01\x00\x00\x07\xfc"), "2049 bytes exceeds")
    flood = new_server()
    flood.receive_data(b"\x01\x00\x00\x07\xfb" + bytes(1_000_000))
    assert flood._reader.buffered_bytes == 0


def test_passwords_and_exponents_are_forgotten_once_the_session_is_there() -> None:
    pair = negotiated_pair()
    assert pair.agent._negotiation is None
    assert pair.server._negotiation is None
    failed, _ = refused_pair("wrong", known=True)
    assert failed.agent._negotiation is None
    assert failed.server._negotiation is None


def test_keys_outlive_their_connection() -> None:
    pair = negotiated_pair()
    keys = pair.keys
    pair.agent.close()
    pair.server.close()
    assert pair.agent.keys == keys
    resumed_pair(keys)
