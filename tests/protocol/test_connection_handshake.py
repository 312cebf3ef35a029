"""Who gets a session, new or resumed, and what breaks a handshake instead."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from needfire_protocol import srp
from needfire_protocol.connection import AgentConnection, ServerConnection
from needfire_protocol.connection_events import (
    AuthenticationFailed,
    AuthenticationFailure,
    ConnectionEvent,
    Established,
    Failed,
    MessageReceived,
    NegotiationRequested,
    ProofReceived,
    Refused,
    ResumptionRequested,
)
from needfire_protocol.errors import FormatError, LocalProtocolError
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
from needfire_protocol.messages import GoodbyeAccepted, Heartbeat, RefusalCode, Welcome
from needfire_testkit.pairs import (
    FAKE_SALT_KEY,
    NAME,
    PASSWORD,
    assert_failed,
    at_confirmation,
    connect,
    fixed_random,
    frames,
    negotiate,
    negotiated_pair,
    new_server,
    only,
    only_frame,
    refused_pair,
    resumed_pair,
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


@pytest.mark.parametrize(
    "ask",
    [
        ServerConnection.untold,
        lambda server: server.receive_data(b"more"),
        ServerConnection.receive_eof,
    ],
    ids=["at once", "with the next bytes", "at the end"],
)
@pytest.mark.parametrize("changes", [{"version": 2}, {"suite": 2}, {"features": 1}], ids=str)
def test_a_session_cannot_be_resumed_under_other_parameters(
    changes: dict[str, Any], ask: Callable[[ServerConnection], list[ConnectionEvent]]
) -> None:
    keys = resumed_pair().keys
    agent, server = AgentConnection.resume(keys, random_bytes=os.urandom), new_server()
    request = replace(decode_frame(only_frame(agent), ResumptionRequest), **changes)
    server.receive_data(encode_frame(request))
    server.resume(keys)
    # The owner is told at the next opportunity, since ``resume`` gives no events; and once.
    assert isinstance(only(ask(server)), Failed)
    assert server.is_closed
    assert not server.untold()
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
