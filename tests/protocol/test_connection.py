"""Agent and server, joined in memory: every way to begin, to go on, and to end."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from needfire_protocol import seal, srp
from needfire_protocol.connection import AgentConnection, ServerConnection
from needfire_protocol.connection_events import (
    AuthenticationFailed,
    AuthenticationFailure,
    Closed,
    ConnectionEvent,
    Established,
    Failed,
    MessageReceived,
    NegotiationRequested,
    ProofReceived,
    Refused,
    ResumptionRequested,
    SignatureInvalid,
)
from needfire_protocol.errors import FormatError, LocalProtocolError
from needfire_protocol.framing import Frame, FrameReader, FrameType
from needfire_protocol.handshake import AUTHENTICATION_REFUSAL
from needfire_protocol.handshake_frames import (
    Challenge,
    Confirmation,
    Hello,
    PlainRefusal,
    Proof,
    ResumptionAnswer,
    ResumptionRequest,
    decode_frame,
    encode_frame,
)
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
    FAKE_SALT_KEY,
    NAME,
    PASSWORD,
    Pair,
    connect,
    fixed_random,
    negotiated_pair,
    new_server,
    resumed_pair,
    signed_batch,
    verifier_of,
)

HEARTBEAT = Heartbeat(1, 0, None)
DEGENERATE = {
    "0": 0,
    "1": 1,
    "N-1": srp._N - 1,
    "N": srp._N,
    "N+5": srp._N + 5,
    "all ones": 2**3072 - 1,
}
STREAM = bytes(range(16))


def frames(data: bytes) -> list[Frame]:
    reader, found = FrameReader(), []
    reader.feed(data)
    while frame := reader.next_frame(frozenset(FrameType)):
        found.append(frame)
    assert reader.buffered_bytes == 0
    return found


def negotiate(password: str = PASSWORD, **keywords: Any) -> AgentConnection:
    options: dict[str, Any] = {"takeover": False, "random_bytes": os.urandom, **keywords}
    return AgentConnection.negotiate(NAME, password, **options)


def only(events: list[ConnectionEvent]) -> Any:
    assert len(events) == 1, events
    return events[0]


def assert_failed(
    connection: AgentConnection | ServerConnection, events: list[ConnectionEvent], text: str
) -> None:
    assert isinstance(events[-1], Failed), events
    assert text in str(events[-1].error)
    assert connection.is_closed
    assert not connection.is_open
    assert connection.receive_data(b"\x20\x00\x00\x00\x01x" * 10) == []


# ---- negotiation -------------------------------------------------------------------------------


def test_the_right_password_gives_both_sides_the_same_session() -> None:
    pair = negotiated_pair(takeover=True)
    established = Established(pair.keys, resumed=False)
    assert pair.agent_events == [established]
    assert pair.server_events == [
        NegotiationRequested(NAME, takeover=True),
        ProofReceived(),
        established,
    ]
    assert (pair.keys.version, pair.keys.suite, pair.keys.features) == (1, 1, 0)


def test_two_sessions_of_one_password_share_nothing() -> None:
    one, other = negotiated_pair().keys, negotiated_pair().keys
    assert one.session_id != other.session_id
    assert one.resumption_key != other.resumption_key
    assert one.signing_key != other.signing_key


def test_the_session_id_is_derived_and_does_not_travel_in_the_negotiation() -> None:
    agent, server = negotiate(), new_server()
    travelled = bytearray()
    for step in (lambda: server.challenge(verifier_of()), lambda: server.verify_proof()):
        sent = agent.data_to_send()
        server.receive_data(sent)
        step()
        answered = server.data_to_send()
        agent.receive_data(answered)
        travelled += sent + answered
    assert agent.keys is not None
    for secret in (agent.keys.session_id, agent.keys.resumption_key, agent.keys.signing_key):
        assert secret not in travelled
    assert PASSWORD.encode() not in travelled


@pytest.mark.parametrize(
    ("offered", "supported", "chosen"),
    [
        ((1, 2), (1, 2), 1),
        ((2, 1), (1, 2), 1),
        ((1, 2), (2, 1), 2),
        ((2,), (1, 2), 2),
        ((1,), (2, 1), 1),
    ],
)
def test_the_server_chooses_its_best_suite_of_those_offered(
    offered: tuple[int, ...], supported: tuple[int, ...], chosen: int
) -> None:
    server = ServerConnection(
        random_bytes=os.urandom, fake_salt_key=FAKE_SALT_KEY, suites=supported
    )
    pair = connect(negotiate(suites=offered), server, verifier=verifier_of())
    assert pair.keys.suite == chosen
    pair.agent.send(HEARTBEAT)
    assert pair.deliver_to_server() == [MessageReceived(HEARTBEAT)]


def test_features_are_those_that_both_have() -> None:
    server = ServerConnection(random_bytes=os.urandom, fake_salt_key=FAKE_SALT_KEY, features=0b110)
    pair = connect(negotiate(features=0b011), server, verifier=verifier_of())
    assert pair.keys.features == 0b010


@pytest.mark.parametrize("what", ["version", "suite"])
def test_without_a_common_version_or_suite_the_agent_is_refused(what: str) -> None:
    raw = frames(negotiate().data_to_send())[0]
    changes: dict[str, Any] = {f"{what}s": (7, 9)}
    hello = replace(decode_frame(raw, Hello), **changes)
    server = new_server()
    assert_failed(server, server.receive_data(encode_frame(hello)), f"no common {what}")
    refusal = decode_frame(only_frame(server), PlainRefusal)
    assert refusal == PlainRefusal(RefusalCode.PROTOCOL, b"")


def only_frame(connection: AgentConnection | ServerConnection) -> Frame:
    found = frames(connection.data_to_send())
    assert len(found) == 1
    return found[0]


def test_a_newer_agent_gets_the_version_that_both_have() -> None:
    raw = frames(negotiate().data_to_send())[0]
    server = new_server()
    server.receive_data(encode_frame(replace(decode_frame(raw, Hello), versions=(3, 2, 1))))
    server.challenge(verifier_of())
    assert decode_frame(only_frame(server), Challenge).version == 1


def test_only_suites_that_exist_can_be_offered() -> None:
    with pytest.raises(LocalProtocolError, match="suites"):
        negotiate(suites=(1, 3))
    with pytest.raises(LocalProtocolError, match="suites"):
        ServerConnection(random_bytes=os.urandom, fake_salt_key=FAKE_SALT_KEY, suites=(0,))
    with pytest.raises(LocalProtocolError, match="suites"):
        AgentConnection.resume(replace(resumed_pair().keys, suite=9), random_bytes=os.urandom)


@pytest.mark.parametrize(
    ("name", "password"),
    [("", "x"), ("../rc", "x"), ("a b", "x"), ("web1", ""), ("web1", "x" * 1025)],
)
def test_a_name_or_password_that_cannot_be_one_is_refused_at_home(name: str, password: str) -> None:
    with pytest.raises(FormatError):
        AgentConnection.negotiate(name, password, takeover=False, random_bytes=os.urandom)


# ---- strangers ---------------------------------------------------------------------------------


def refused_pair(password: str, *, known: bool) -> tuple[Pair, bytes]:
    """The pair after a failed negotiation, and all that the server sent."""
    agent, server = (
        negotiate(password, random_bytes=fixed_random("a")),
        new_server(fixed_random("s")),
    )
    sent = bytearray()
    pair = Pair(agent, server, [], [])
    for answer in ("challenge", "verify"):
        pair.deliver_to_server()
        if answer == "challenge":
            server.challenge(verifier_of() if known else None)
        else:
            pair.server_events += server.verify_proof()
        data = server.data_to_send()
        sent += data
        pair.agent_events += agent.receive_data(data)
    return pair, bytes(sent)


def test_a_wrong_password_is_refused() -> None:
    pair, _ = refused_pair("wrong", known=True)
    assert pair.agent_events == [
        Refused(RefusalCode.AUTHENTICATION_FAILED, "", authenticated=False)
    ]
    assert pair.server_events[-1] == AuthenticationFailed(AuthenticationFailure.WRONG_PASSWORD)
    assert pair.agent.is_closed
    assert pair.server.is_closed
    assert pair.agent.keys is pair.server.keys is None


@pytest.mark.parametrize("password", [PASSWORD, "wrong"])
def test_an_unknown_name_is_refused_whatever_the_password(password: str) -> None:
    pair, _ = refused_pair(password, known=False)
    assert pair.agent_events == [
        Refused(RefusalCode.AUTHENTICATION_FAILED, "", authenticated=False)
    ]
    assert pair.server_events[-1] == AuthenticationFailed(AuthenticationFailure.UNKNOWN_NAME)
    assert pair.agent.is_closed
    assert pair.server.is_closed


def test_a_stranger_sees_the_same_frames_for_an_unknown_name_and_a_wrong_password() -> None:
    (_, wrong), (_, unknown) = refused_pair("wrong", known=True), refused_pair("wrong", known=False)
    assert [(f.type, len(f.body)) for f in frames(wrong)] == [
        (f.type, len(f.body)) for f in frames(unknown)
    ]
    assert frames(wrong)[-1].raw == frames(unknown)[-1].raw == AUTHENTICATION_REFUSAL
    one, other = (decode_frame(frames(sent)[0], Challenge) for sent in (wrong, unknown))
    # Only what must differ does: the salt belongs to the name, B to the verifier.
    assert replace(one, salt=b"", public=b"") == replace(other, salt=b"", public=b"")


def test_the_same_arithmetic_is_done_for_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    for name in ("challenge", "verify"):
        method = {"challenge": srp.ServerSrp.__init__, "verify": srp.ServerSrp.verify}[name]

        def spy(*arguments: Any, _method: Any = method, _name: str = name) -> Any:
            counted.append(_name)
            return _method(*arguments)

        monkeypatch.setattr(srp.ServerSrp, "__init__" if name == "challenge" else "verify", spy)
    refused_pair("wrong", known=True)
    known = counted.copy()
    counted.clear()
    refused_pair("wrong", known=False)
    assert counted == known == ["challenge", "verify"]


def test_an_unknown_name_always_gets_the_same_salt() -> None:
    def salt_of(name: str, key: bytes, determined: str | None = None) -> bytes:
        agent = AgentConnection.negotiate(name, "x", takeover=False, random_bytes=os.urandom)
        server = ServerConnection(random_bytes=os.urandom, fake_salt_key=key)
        server.receive_data(agent.data_to_send())
        server.challenge(None, name=determined)
        return decode_frame(only_frame(server), Challenge).salt

    salt = salt_of("ghost", FAKE_SALT_KEY)
    assert salt_of("GHOST", FAKE_SALT_KEY) == salt
    assert salt_of("other", FAKE_SALT_KEY, determined="ghost") == salt
    assert salt_of("other", FAKE_SALT_KEY) != salt
    assert salt_of("ghost", bytes(32)) != salt


@pytest.mark.parametrize("value", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_a_degenerate_public_value_of_the_agent_is_refused_before_anything_is_asked(
    value: int,
) -> None:
    raw = frames(negotiate().data_to_send())[0]
    hello = replace(decode_frame(raw, Hello), public=value.to_bytes(384, "big"))
    server = new_server()
    events = server.receive_data(encode_frame(hello))
    assert_failed(server, events, "degenerate")
    assert len(events) == 1


@pytest.mark.parametrize("value", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_a_degenerate_public_value_of_the_server_is_refused(value: int) -> None:
    agent, server = negotiate(), new_server()
    server.receive_data(agent.data_to_send())
    server.challenge(verifier_of())
    challenge = decode_frame(only_frame(server), Challenge)
    changed = replace(challenge, public=value.to_bytes(384, "big"))
    assert_failed(agent, agent.receive_data(encode_frame(changed)), "degenerate")
    assert agent.data_to_send() == b""


def test_u_of_zero_ends_the_connection_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, server = negotiate(), new_server()
    server.receive_data(agent.data_to_send())
    server.challenge(verifier_of())
    monkeypatch.setattr(srp, "_scrambler", lambda _a, _b: bytes(32))
    assert_failed(agent, agent.receive_data(server.data_to_send()), "u is zero")
    other = new_server()
    other.receive_data(negotiate().data_to_send())
    other.challenge(verifier_of())
    assert other.is_closed
    assert "u is zero" in str(only(other.receive_eof()).error)


def test_an_impostor_of_the_server_cannot_confirm() -> None:
    """It relays the challenge of a server with another verifier, and sends any confirmation."""
    agent, server = negotiate(), new_server()
    server.receive_data(agent.data_to_send())
    server.challenge(srp.make_verifier("guess", os.urandom))
    agent.receive_data(server.data_to_send())
    forged = encode_frame(Confirmation(bytes(32), bytes(32)))
    assert_failed(agent, agent.receive_data(forged), "did not prove")
    assert agent.keys is None


# ---- nothing can be downgraded -----------------------------------------------------------------

HELLO_CHANGES: list[dict[str, Any]] = [
    {"versions": (1, 2)},
    {"suites": (2,)},
    {"suites": (2, 1)},
    {"features": 1},
    {"takeover": True},
    {"name": "web2.example.org"},
    {"name": NAME.upper()},
    {"random": bytes(32)},
]
CHALLENGE_CHANGES: list[dict[str, Any]] = [
    {"suite": 2},
    {"random": bytes(32)},
    {"salt": bytes(range(1, 17))},
]


@pytest.mark.parametrize("changes", HELLO_CHANGES, ids=range(len(HELLO_CHANGES)))
def test_a_change_of_the_hello_on_the_way_breaks_the_handshake(changes: dict[str, Any]) -> None:
    agent, server = negotiate(), new_server()
    hello = decode_frame(only_frame(agent), Hello)
    server.receive_data(encode_frame(replace(hello, **changes)))
    server.challenge(verifier_of())
    agent.receive_data(server.data_to_send())
    server.receive_data(agent.data_to_send())
    events = server.verify_proof()
    assert events == [AuthenticationFailed(AuthenticationFailure.WRONG_PASSWORD)]
    assert not agent.is_open


@pytest.mark.parametrize("changes", CHALLENGE_CHANGES, ids=["suite", "random", "salt"])
def test_a_change_of_the_challenge_on_the_way_breaks_the_handshake(changes: dict[str, Any]) -> None:
    agent, server = negotiate(), new_server()
    server.receive_data(agent.data_to_send())
    server.challenge(verifier_of())
    challenge = decode_frame(only_frame(server), Challenge)
    agent.receive_data(encode_frame(replace(challenge, **changes)))
    server.receive_data(agent.data_to_send())
    assert server.verify_proof() == [AuthenticationFailed(AuthenticationFailure.WRONG_PASSWORD)]


def test_a_hello_that_means_the_same_but_has_other_bytes_breaks_the_handshake() -> None:
    """The transcript is made of bytes, not of what was understood of them."""
    agent, server = negotiate(), new_server()
    raw = agent.data_to_send()
    features_at = raw.index(b"\x92\x01\x02\x00") + 3
    longer = raw[5:features_at] + b"\xcc\x00" + raw[features_at + 1 :]
    server.receive_data(b"\x01" + len(longer).to_bytes(4, "big") + longer)
    server.challenge(verifier_of())
    agent.receive_data(server.data_to_send())
    server.receive_data(agent.data_to_send())
    assert server.verify_proof() == [AuthenticationFailed(AuthenticationFailure.WRONG_PASSWORD)]


def at_confirmation() -> tuple[AgentConnection, ServerConnection]:
    agent, server = negotiate(), new_server()
    server.receive_data(agent.data_to_send())
    server.challenge(verifier_of())
    agent.receive_data(server.data_to_send())
    return agent, server


@pytest.mark.parametrize("field", ["proof", "finished"])
def test_each_half_of_the_agent_s_proof_is_needed(field: str) -> None:
    agent, server = at_confirmation()
    proof = decode_frame(only_frame(agent), Proof)
    server.receive_data(encode_frame(replace(proof, **{field: bytes(32)})))
    assert server.verify_proof() == [AuthenticationFailed(AuthenticationFailure.WRONG_PASSWORD)]


@pytest.mark.parametrize("field", ["proof", "finished"])
def test_each_half_of_the_server_s_proof_is_needed(field: str) -> None:
    agent, server = at_confirmation()
    server.receive_data(agent.data_to_send())
    server.verify_proof()
    confirmation = decode_frame(only_frame(server), Confirmation)
    changed = encode_frame(replace(confirmation, **{field: bytes(32)}))
    assert_failed(agent, agent.receive_data(changed), "")
    assert agent.keys is None


@pytest.mark.parametrize(
    "changes", [{"version": 2}, {"suite": 9}, {"features": 1}], ids=["version", "suite", "features"]
)
def test_a_choice_that_was_not_offered_is_refused(changes: dict[str, Any]) -> None:
    agent, server = negotiate(), new_server()
    server.receive_data(agent.data_to_send())
    server.challenge(verifier_of())
    changed = replace(decode_frame(only_frame(server), Challenge), **changes)
    assert_failed(agent, agent.receive_data(encode_frame(changed)), "not offered")


# ---- resumption --------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", [1, 2])
def test_a_session_goes_on_over_a_new_connection(suite: int) -> None:
    pair = resumed_pair(suite=suite)
    established = Established(pair.keys, resumed=True)
    assert pair.agent_events == [established]
    assert pair.server_events == [ResumptionRequested(pair.keys.session_id), established]
    pair.agent.send(HEARTBEAT)
    pair.server.send(Welcome(1, 7200))
    assert pair.deliver_to_server() == [MessageReceived(HEARTBEAT)]
    assert pair.deliver_to_agent() == [MessageReceived(Welcome(1, 7200))]


@pytest.mark.parametrize("who", ["agent", "server"])
def test_traffic_keys_are_fresh_even_if_one_side_repeats_its_randomness(who: str) -> None:
    keys = resumed_pair().keys
    sealed = []
    for _ in range(2):
        fixed: dict[str, Any] = {f"{who}_random": fixed_random("same")}
        pair = resumed_pair(keys, **fixed)
        pair.agent.send(HEARTBEAT)
        pair.server.send(GoodbyeAccepted())
        sealed.append((pair.agent.data_to_send(), pair.server.data_to_send()))
    assert sealed[0][0] != sealed[1][0]
    assert sealed[0][1] != sealed[1][1]


def test_a_record_of_an_earlier_connection_does_not_open_in_a_later_one() -> None:
    first = resumed_pair()
    first.agent.send(HEARTBEAT)
    recorded = first.agent.data_to_send()
    later = resumed_pair(first.keys)
    assert_failed(later.server, later.server.receive_data(recorded), "not authentic")


def test_an_agent_may_speak_in_the_same_bytes_as_its_last_proof() -> None:
    keys = resumed_pair().keys
    agent, server = AgentConnection.resume(keys, random_bytes=os.urandom), new_server()
    server.receive_data(agent.data_to_send())
    server.resume(keys)
    agent.receive_data(server.data_to_send())
    agent.send(HEARTBEAT)
    assert server.receive_data(agent.data_to_send()) == [
        Established(keys, resumed=True),
        MessageReceived(HEARTBEAT),
    ]


def test_someone_who_knows_the_session_id_only_is_refused() -> None:
    keys = resumed_pair().keys
    thief = replace(keys, resumption_key=bytes(32))
    agent, server = AgentConnection.resume(thief, random_bytes=os.urandom), new_server()
    server.receive_data(agent.data_to_send())
    server.resume(keys)
    answer = server.data_to_send()
    assert_failed(agent, agent.receive_data(answer), "does not verify")
    forged = b"\x07\x00\x00\x00\x24\x01\x91\xc4\x20" + bytes(32)
    assert server.receive_data(forged) == [
        AuthenticationFailed(AuthenticationFailure.WRONG_SESSION_KEY)
    ]
    assert server.is_closed
    assert server.data_to_send() == AUTHENTICATION_REFUSAL


def test_a_server_that_does_not_have_the_session_cannot_answer_for_it() -> None:
    keys = resumed_pair().keys
    agent, server = AgentConnection.resume(keys, random_bytes=os.urandom), new_server()
    server.receive_data(agent.data_to_send())
    server.resume(replace(keys, resumption_key=bytes(32)))
    assert_failed(agent, agent.receive_data(server.data_to_send()), "does not verify")


def test_a_replayed_resumption_proves_nothing() -> None:
    keys = resumed_pair().keys
    agent, server = AgentConnection.resume(keys, random_bytes=os.urandom), new_server()
    request = agent.data_to_send()
    server.receive_data(request)
    server.resume(keys)
    agent.receive_data(server.data_to_send())
    proof = agent.data_to_send()
    second = new_server()
    second.receive_data(request)
    second.resume(keys)
    assert isinstance(only(second.receive_data(proof)), AuthenticationFailed)


@pytest.mark.parametrize("changes", [{"version": 2}, {"suite": 2}, {"features": 1}], ids=str)
def test_a_session_cannot_be_resumed_under_other_parameters(changes: dict[str, Any]) -> None:
    keys = resumed_pair().keys
    agent, server = AgentConnection.resume(keys, random_bytes=os.urandom), new_server()
    request = replace(decode_frame(only_frame(agent), ResumptionRequest), **changes)
    server.receive_data(encode_frame(request))
    server.resume(keys)
    # The owner is told at the next opportunity, since ``resume`` gives no events.
    assert isinstance(only(server.receive_eof()), Failed)
    assert server.is_closed
    assert decode_frame(only_frame(server), PlainRefusal).code is RefusalCode.PROTOCOL


@pytest.mark.parametrize("field", ["random", "finished"])
def test_a_change_of_the_resumption_answer_is_noticed(field: str) -> None:
    keys = resumed_pair().keys
    agent, server = AgentConnection.resume(keys, random_bytes=os.urandom), new_server()
    server.receive_data(agent.data_to_send())
    server.resume(keys)
    answer = decode_frame(only_frame(server), ResumptionAnswer)
    changed = encode_frame(replace(answer, **{field: bytes(32)}))
    assert_failed(agent, agent.receive_data(changed), "does not verify")


def test_a_change_of_the_resumption_request_is_noticed() -> None:
    keys = resumed_pair().keys
    agent, server = AgentConnection.resume(keys, random_bytes=os.urandom), new_server()
    request = decode_frame(only_frame(agent), ResumptionRequest)
    server.receive_data(encode_frame(replace(request, random=bytes(32))))
    server.resume(keys)
    assert_failed(agent, agent.receive_data(server.data_to_send()), "does not verify")


def test_keys_of_another_session_are_a_bug_of_the_owner() -> None:
    keys = resumed_pair().keys
    other = replace(keys, session_id=bytes(16))
    agent, server = AgentConnection.resume(keys, random_bytes=os.urandom), new_server()
    server.receive_data(agent.data_to_send())
    with pytest.raises(LocalProtocolError, match="another session"):
        server.resume(other)
    with pytest.raises(LocalProtocolError, match="another session"):
        server.refuse_resumption(RefusalCode.SESSION_SUPERSEDED, other)


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
