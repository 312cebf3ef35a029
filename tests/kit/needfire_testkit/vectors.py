"""Test vectors of the wire protocol: bytes with one fault each (or none), made with fixed secrets.

``scripts/vectors`` writes them to ``tests/vectors``; a test makes them again and compares. What a
vector expects is written here by hand, never computed.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from needfire_protocol import srp
from needfire_protocol.codec import encode
from needfire_protocol.framing import FrameReader, FrameType, frame_bytes, frame_header
from needfire_protocol.handshake_frames import (
    Challenge,
    Confirmation,
    Hello,
    PlainRefusal,
    Proof,
    ResumptionAnswer,
    ResumptionProof,
    ResumptionRequest,
    decode_frame,
    encode_frame,
)
from needfire_protocol.message_coding import encode_message
from needfire_protocol.messages import (
    Acknowledge,
    AuditCheckpoint,
    AuditProof,
    AuditProofRequest,
    FileBegin,
    FileKind,
    Heartbeat,
    Message,
    Refusal,
    RefusalCode,
    Report,
    ReportBatch,
    Welcome,
)
from needfire_protocol.seal import Direction, Sealer, Suite
from needfire_testkit.pairs import NAME, fixed_random, new_server, signed_batch, verifier_of
from needfire_testkit.vector_receivers import (
    KEYS,
    Vector,
    negotiated,
    negotiating,
    opened,
    resuming_agent,
)

__all__ = ["all_vectors"]

N = srp._N
STREAM = bytes(range(16))


# ---- what is right -----------------------------------------------------------------------------


def _content(raw: bytes, kind: Any) -> Any:
    reader = FrameReader()
    reader.feed(raw)
    frame = reader.next_frame(frozenset(FrameType))
    assert frame is not None
    return decode_frame(frame, kind)


def _right_frames() -> dict[str, bytes]:
    agent, server = negotiating(), new_server(fixed_random("vector server"))
    right = {"hello": agent.data_to_send()}
    server.receive_data(right["hello"])
    server.challenge(verifier_of())
    right["challenge"] = server.data_to_send()
    agent.receive_data(right["challenge"])
    right["proof"] = agent.data_to_send()
    server.receive_data(right["proof"])
    server.verify_proof()
    right["confirmation"] = server.data_to_send()
    resuming, again = resuming_agent(), new_server(fixed_random("vector resuming server"))
    right["resume"] = resuming.data_to_send()
    again.receive_data(right["resume"])
    again.resume(KEYS)
    right["resumption-answer"] = again.data_to_send()
    resuming.receive_data(right["resumption-answer"])
    right["resumption-proof"] = resuming.data_to_send()
    refusing = new_server()
    refusing.receive_data(right["resume"])
    refusing.refuse_resumption(RefusalCode.SESSION_SUPERSEDED, KEYS)
    right["refusal-authentic"] = refusing.data_to_send()
    return right


_RIGHT = _right_frames()
_HELLO: Hello = _content(_RIGHT["hello"], Hello)
_CHALLENGE: Challenge = _content(_RIGHT["challenge"], Challenge)
_PROOF: Proof = _content(_RIGHT["proof"], Proof)
_CONFIRMATION: Confirmation = _content(_RIGHT["confirmation"], Confirmation)
_RESUME: ResumptionRequest = _content(_RIGHT["resume"], ResumptionRequest)
_ANSWER: ResumptionAnswer = _content(_RIGHT["resumption-answer"], ResumptionAnswer)
_REFUSAL: PlainRefusal = _content(_RIGHT["refusal-authentic"], PlainRefusal)
_BEAT = Heartbeat(1_763_755_247_123_456, 3, None)


def _right() -> Iterator[Vector]:
    rows = [
        ("hello", "fresh server", "NegotiationRequested"),
        ("challenge", "agent awaiting challenge", "nothing"),
        ("proof", "server awaiting proof", "ProofReceived | Established"),
        ("confirmation", "agent awaiting confirmation", "Established"),
        ("resume", "fresh server", "ResumptionRequested"),
        ("resumption-answer", "agent awaiting resumption answer", "Established"),
        ("resumption-proof", "server awaiting resumption proof", "Established"),
        (
            "refusal-authentic",
            "agent awaiting resumption answer",
            "Refused: SESSION_SUPERSEDED authenticated",
        ),
    ]
    for name, receiver, expect in rows:
        yield Vector(f"ok-{name}", receiver, expect, "as it should be", _RIGHT[name])
    yield Vector(
        "ok-refusal-authentication",
        "agent awaiting confirmation",
        "Refused: AUTHENTICATION_FAILED",
        "the same bytes for an unknown name and for a wrong password",
        encode_frame(PlainRefusal(RefusalCode.AUTHENTICATION_FAILED, b"")),
    )
    for suite in (1, 2):
        pair = opened(suite)
        pair.agent.send(_BEAT)
        pair.agent.send(signed_batch(pair.keys, STREAM, [b"first", b"second"]))
        yield Vector(
            f"ok-records-suite-{suite}",
            f"open server, suite {suite}",
            "MessageReceived: Heartbeat | MessageReceived: ReportBatch",
            "a heartbeat and two signed reports",
            pair.agent.data_to_send(),
        )
    pair = negotiated()
    pair.agent.send(_BEAT)
    yield Vector(
        "ok-record-negotiated",
        "open server, negotiated",
        "MessageReceived: Heartbeat",
        "the traffic keys of the full handshake; the other open receivers have resumed",
        pair.agent.data_to_send(),
    )
    pair = opened(1)
    pair.server.send(Welcome(1, 7200))
    pair.server.send(FileBegin(FileKind.BASELINE, 0, bytes(32)))
    pair.server.refuse(RefusalCode.SESSION_SUPERSEDED, "negotiated anew")
    yield Vector(
        "ok-records-of-server",
        "open agent, suite 1",
        "MessageReceived: Welcome | MessageReceived: FileBegin | "
        "Refused: SESSION_SUPERSEDED authenticated",
        "two messages and a sealed refusal",
        pair.server.data_to_send(),
    )
    pair = opened(1)
    pair.agent.send(AuditProofRequest(1, 2**63 - 1))
    yield Vector(
        "ok-audit-proof-request",
        "open server, suite 1",
        "MessageReceived: AuditProofRequest",
        "asks for the longest way there is",
        pair.agent.data_to_send(),
    )
    pair = opened(1)
    pair.server.send(AuditCheckpoint(b"note", b"key", (b"first", b"second")))
    pair.server.send(AuditProof(7, 8, (bytes(32), b"\1" * 32)))
    pair.server.send(AuditProof(7, 8, ()))
    yield Vector(
        "ok-audit-of-server",
        "open agent, suite 1",
        "MessageReceived: AuditCheckpoint | MessageReceived: AuditProof | "
        "MessageReceived: AuditProof",
        "a checkpoint behind two handovers, a proof, and none; what notes and keys say is the "
        "agent's matter",
        pair.server.data_to_send(),
    )


# ---- one fault each ----------------------------------------------------------------------------

_DEGENERATE = {
    "zero": (0).to_bytes(384, "big"),
    "one": (1).to_bytes(384, "big"),
    "n-minus-1": (N - 1).to_bytes(384, "big"),
    "n": N.to_bytes(384, "big"),
    "unreduced": (N + 2).to_bytes(384, "big"),
}


def _array_frame(frame_type: FrameType, *values: object, layout: int = 1) -> bytes:
    return frame_bytes(frame_type, bytes((layout,)) + encode(values))


def _values(content: Any) -> list[Any]:
    values = [getattr(content, name) for name in content.__dataclass_fields__]
    return [int(v) if isinstance(v, RefusalCode) else v for v in values]


def _with(content: Any, **changes: object) -> bytes:
    """The frame with values that our own encoder would refuse."""
    values = [
        changes.get(name, value)
        for name, value in zip(content.__dataclass_fields__, _values(content), strict=True)
    ]
    return _array_frame(_TYPE_OF[type(content)], *values)


_TYPE_OF: dict[type[Any], FrameType] = {
    Hello: FrameType.HELLO,
    Challenge: FrameType.CHALLENGE,
    Proof: FrameType.PROOF,
    Confirmation: FrameType.CONFIRMATION,
    ResumptionRequest: FrameType.RESUME,
    ResumptionAnswer: FrameType.RESUMPTION_ANSWER,
    ResumptionProof: FrameType.RESUMPTION_PROOF,
    PlainRefusal: FrameType.REFUSAL,
}

_MALFORMED = "Failed: a {} frame is malformed: "


def _hello_faults() -> Iterator[Vector]:
    def fault(name: str, expect: str, comment: str, data: bytes) -> Vector:
        return Vector(f"hello-{name}", "fresh server", expect, comment, data)

    malformed = _MALFORMED.format("HELLO")
    for name, value in _DEGENERATE.items():
        yield fault(
            f"a-{name}",
            "Failed: a public value of the key exchange is degenerate",
            "SRP's A must satisfy 1 < A < N - 1",
            _with(_HELLO, public=value),
        )
    yield fault("a-nil", malformed + "field public", "A must be bytes", _with(_HELLO, public=None))
    yield fault(
        "a-empty", malformed + "field public", "A must have 384 bytes", _with(_HELLO, public=b"")
    )
    yield fault(
        "a-short",
        malformed + "field public",
        "A must have 384 bytes",
        _with(_HELLO, public=b"\2" * 383),
    )
    yield fault(
        "a-long",
        malformed + "not decodable",
        "A must have 384 bytes",
        _with(_HELLO, public=b"\2" * 385),
    )
    yield fault(
        "a-oversized",
        "Failed: a HELLO frame of 262801 bytes exceeds the limit of 2048 bytes",
        "256 KiB of A: the header alone ends it",
        frame_header(FrameType.HELLO, 262_796),
    )
    yield fault(
        "layout",
        "Failed: a HELLO frame has another layout",
        "layout version 2",
        b"".join((_RIGHT["hello"][:5], b"\2", _RIGHT["hello"][6:])),
    )
    yield fault(
        "field-missing",
        malformed + "expected an array of 7",
        "six fields",
        _array_frame(FrameType.HELLO, *_values(_HELLO)[:-1]),
    )
    yield fault(
        "field-added",
        malformed + "expected an array of 7",
        "eight fields",
        _array_frame(FrameType.HELLO, *_values(_HELLO), None),
    )
    yield fault(
        "map",
        malformed + "not decodable",
        "a map where the array should be",
        frame_bytes(FrameType.HELLO, b"\1" + encode({"name": NAME})),
    )
    yield fault(
        "byte-added",
        malformed + "not decodable",
        "a byte behind the array",
        frame_bytes(FrameType.HELLO, _RIGHT["hello"][5:] + b"\0"),
    )
    yield fault(
        "nested",
        malformed + "values are nested deeper than 2",
        "arrays in arrays",
        _with(_HELLO, versions=[[[1]]]),
    )
    yield fault(
        "version-none-common",
        "Failed: no common version: offered 7, supported 1",
        "only version 7",
        _with(_HELLO, versions=[7]),
    )
    yield fault(
        "suite-none-common",
        "Failed: no common suite: offered 9, supported 1, 2",
        "only suite 9",
        _with(_HELLO, suites=[9]),
    )
    yield fault(
        "version-twice",
        malformed + "field versions: a number stands twice",
        "",
        _with(_HELLO, versions=[1, 1]),
    )
    yield fault(
        "version-boolean",
        malformed + "field versions",
        "true is not 1",
        _with(_HELLO, versions=[True]),
    )
    yield fault(
        "takeover-number", malformed + "field takeover", "1 is not true", _with(_HELLO, takeover=1)
    )
    yield fault(
        "name-path",
        malformed + "field name",
        "a name that would lead out of a directory",
        _with(_HELLO, name="../rc"),
    )
    yield fault(
        "name-long", malformed + "not decodable", "256 bytes of name", _with(_HELLO, name="x" * 256)
    )
    yield fault("name-empty", malformed + "field name", "", _with(_HELLO, name=""))
    yield fault(
        "random-short", malformed + "field random", "31 bytes", _with(_HELLO, random=bytes(31))
    )
    yield fault(
        "truncated",
        "Failed: the stream ended inside a frame",
        "the last byte is missing",
        _RIGHT["hello"][:-1],
    )
    yield fault(
        "twice",
        "NegotiationRequested | Failed: a frame of type 0x01 (HELLO) is not allowed now",
        "two hellos",
        _RIGHT["hello"] * 2,
    )


def _challenge_faults() -> Iterator[Vector]:
    def fault(name: str, expect: str, comment: str, data: bytes) -> Vector:
        return Vector(f"challenge-{name}", "agent awaiting challenge", expect, comment, data)

    malformed = _MALFORMED.format("CHALLENGE")
    for name, value in _DEGENERATE.items():
        yield fault(
            f"b-{name}",
            "Failed: a public value of the key exchange is degenerate",
            "SRP's B must satisfy 1 < B < N - 1",
            _with(_CHALLENGE, public=value),
        )
    k_times_v = _multiplier() * int.from_bytes(verifier_of().verifier, "big") % N
    yield fault(
        "b-k-times-v",
        "Failed: the key exchange is degenerate: its secret is trivial",
        "B = k * v makes the secret zero",
        _with(_CHALLENGE, public=k_times_v.to_bytes(384, "big")),
    )
    yield fault(
        "b-nil", malformed + "field public", "B must be bytes", _with(_CHALLENGE, public=None)
    )
    yield fault(
        "salt-short", malformed + "field salt", "15 bytes", _with(_CHALLENGE, salt=bytes(15))
    )
    yield fault("salt-nil", malformed + "field salt", "", _with(_CHALLENGE, salt=None))
    for what, choice in (("version", 2), ("suite", 3), ("features", 1)):
        yield fault(
            f"{what}-not-offered",
            "Failed: the server chose what was not offered",
            "",
            _with(_CHALLENGE, **{what: choice}),
        )


def _multiplier() -> int:
    """SRP's multiplier k = H(N | PAD(g)), RFC 5054 2.5.3."""
    wide = [number.to_bytes(384, "big") for number in (N, 5)]
    return int.from_bytes(hashlib.sha256(b"".join(wide)).digest(), "big")


def _proof_faults() -> Iterator[Vector]:
    wrong = "ProofReceived | AuthenticationFailed: wrong password"
    server, agent = "server awaiting proof", "agent awaiting confirmation"
    for field in ("proof", "finished"):
        yield Vector(f"proof-{field}-wrong", server, wrong, "", _with(_PROOF, **{field: bytes(32)}))
        yield Vector(
            f"proof-{field}-nil",
            server,
            _MALFORMED.format("PROOF") + f"field {field}",
            "nothing proves nothing",
            _with(_PROOF, **{field: None}),
        )
        yield Vector(
            f"confirmation-{field}-nil",
            agent,
            _MALFORMED.format("CONFIRMATION") + f"field {field}",
            "the library alone would take nil as a proof",
            _with(_CONFIRMATION, **{field: None}),
        )
    yield Vector(
        "proof-short",
        server,
        _MALFORMED.format("PROOF") + "field proof",
        "",
        _with(_PROOF, proof=bytes(20)),
    )
    yield Vector(
        "confirmation-proof-wrong",
        agent,
        "Failed: the server did not prove",
        "",
        _with(_CONFIRMATION, proof=bytes(32)),
    )
    yield Vector(
        "confirmation-finished-wrong",
        agent,
        "Failed: the server's finished value",
        "the frames were changed on the way",
        _with(_CONFIRMATION, finished=bytes(32)),
    )


def _resumption_faults() -> Iterator[Vector]:
    agent, server = "agent awaiting resumption answer", "fresh server"
    yield Vector(
        "resume-session-id-short",
        server,
        _MALFORMED.format("RESUME") + "field session_id",
        "",
        _with(_RESUME, session_id=bytes(15)),
    )
    yield Vector(
        "resume-suite-zero",
        server,
        _MALFORMED.format("RESUME") + "field suite",
        "",
        _with(_RESUME, suite=0),
    )
    yield Vector(
        "resumption-answer-random-changed",
        agent,
        "Failed: the server's finished value",
        "",
        _with(_ANSWER, random=bytes(32)),
    )
    yield Vector(
        "resumption-answer-finished-wrong",
        agent,
        "Failed: the server's finished value",
        "",
        _with(_ANSWER, finished=bytes(32)),
    )
    yield Vector(
        "resumption-proof-wrong",
        "server awaiting resumption proof",
        "AuthenticationFailed: wrong session key",
        "someone who knows the session id only",
        encode_frame(ResumptionProof(bytes(32))),
    )
    yield Vector(
        "refusal-mac-wrong",
        agent,
        "Failed: the refusal of the server does not verify",
        "",
        _with(_REFUSAL, mac=bytes(32)),
    )
    yield Vector(
        "refusal-code-changed",
        agent,
        "Failed: the refusal of the server does not verify",
        "",
        _with(_REFUSAL, code=2),
    )
    yield Vector(
        "refusal-mac-removed",
        agent,
        "Refused: SESSION_SUPERSEDED",
        "plain now, and told so",
        _with(_REFUSAL, mac=b""),
    )
    yield Vector(
        "refusal-code-unknown",
        agent,
        _MALFORMED.format("REFUSAL") + "field code",
        "",
        _with(_REFUSAL, code=9),
    )
    yield Vector(
        "refusal-mac-in-negotiation",
        "agent awaiting challenge",
        "Failed: a refusal claims to be authentic before there is a key",
        "",
        _with(_REFUSAL),
    )


def _order_faults() -> Iterator[Vector]:
    for name in (
        "challenge",
        "proof",
        "confirmation",
        "resumption-answer",
        "resumption-proof",
        "refusal-authentic",
    ):
        yield Vector(
            f"first-{name}",
            "fresh server",
            "Failed: a frame of type 0x0",
            "a server takes a hello or a resumption first",
            _RIGHT[name],
        )
    for name in ("hello", "proof", "confirmation", "resume", "resumption-answer"):
        yield Vector(
            f"to-agent-{name}",
            "agent awaiting challenge",
            "Failed: a frame of type 0x0",
            "an agent that negotiates takes a challenge or a refusal",
            _RIGHT[name],
        )
    yield Vector(
        "first-sealed",
        "fresh server",
        "Failed: a frame of type 0x20 (SEALED) is not allowed now",
        "a record before anything was proved",
        frame_bytes(FrameType.SEALED, bytes(32)),
    )
    yield Vector(
        "first-http",
        "fresh server",
        "Failed: a frame of type 0x47 (unknown) is not allowed now",
        "a web browser",
        b"GET / HTTP/1.1\r\n\r\n",
    )
    yield Vector(
        "first-zero",
        "fresh server",
        "Failed: a frame of type 0x00 (unknown) is not allowed now",
        "",
        bytes(5),
    )
    yield Vector(
        "open-plain-refusal",
        "open agent, suite 1",
        "Failed: a frame of type 0x08 (REFUSAL) is not allowed now",
        "anybody could send it",
        encode_frame(PlainRefusal(RefusalCode.BUSY, b"")),
    )
    yield Vector(
        "open-hello",
        "open server, suite 1",
        "Failed: a frame of type 0x01 (HELLO) is not allowed now",
        "",
        _RIGHT["hello"],
    )


def _record_faults() -> Iterator[Vector]:
    server = "open server, suite 1"
    unauthentic = "Failed: a record is not authentic"
    pair = opened(1)
    records = []
    for number in range(3):
        pair.agent.send(Heartbeat(number, 0, None))
        records.append(pair.agent.data_to_send())
    first, second, third = records
    got = "MessageReceived: Heartbeat | "
    yield Vector(
        "record-flipped-bit",
        server,
        unauthentic,
        "the last bit of the tag",
        first[:-1] + bytes((first[-1] ^ 1,)),
    )
    yield Vector(
        "record-flipped-length",
        server,
        unauthentic,
        "one byte less than was sealed",
        first[:4] + bytes((first[4] - 1,)) + first[5:-1],
    )
    yield Vector("record-replayed", server, got + unauthentic, "", first + first)
    yield Vector("record-lost", server, got + unauthentic, "the second of three", first + third)
    yield Vector("record-reordered", server, unauthentic, "", second + first)
    yield Vector(
        "record-truncated", server, "Failed: the stream ended inside a frame", "", first[:-1]
    )
    yield Vector(
        "record-reflected",
        "open agent, suite 1",
        unauthentic,
        "what the agent sent comes back",
        first,
    )
    yield Vector("record-other-suite", "open server, suite 2", unauthentic, "", first)
    yield Vector(
        "record-other-connection",
        "open server, negotiated",
        unauthentic,
        "a record of another connection of the session",
        first,
    )
    yield Vector(
        "record-empty", server, unauthentic, "not even a tag", frame_bytes(FrameType.SEALED, b"")
    )
    yield Vector(
        "record-too-long",
        server,
        "Failed: a SEALED frame of 262145 bytes exceeds the limit of 262144 bytes",
        "the header alone ends it",
        frame_header(FrameType.SEALED, 262_140),
    )


def _message_faults() -> Iterator[Vector]:
    server = "open server, suite 1"
    malformed = "Failed: a message is malformed: "
    keys = KEYS
    good = signed_batch(keys, STREAM, [b"first", b"second"])
    one, two = good.reports

    def of_agent(message: Message | bytes) -> bytes:
        raw = message if isinstance(message, bytes) else encode_message(message)
        return _sealer(Direction.AGENT_TO_SERVER).seal(raw)

    def of_server(raw: bytes) -> bytes:
        return _sealer(Direction.SERVER_TO_AGENT).seal(raw)

    def reports(*values: object) -> bytes:
        return of_agent(b"\2\1" + encode([STREAM, list(values)]))

    parts: list[object] = [1, 1, b"x", bytes(32)]
    rows: list[tuple[str, str, str, bytes]] = [
        ("empty", malformed + "a message has less than two bytes", "", of_agent(b"")),
        ("kind-unknown", malformed + "message kind 0x7f", "", of_agent(b"\x7f\1\x90")),
        (
            "kind-of-server",
            malformed + "message kind 0x42",
            "an agent acknowledges nothing",
            of_agent(Acknowledge(STREAM, 1)),
        ),
        ("version", malformed + "Heartbeat has version 2", "", of_agent(b"\3\2\x93\1\0\xc0")),
        ("field-missing", malformed + "expected an array of 3", "", of_agent(b"\3\1\x92\1\0")),
        ("byte-added", malformed + "not decodable", "", of_agent(b"\3\1\x93\1\0\xc0\0")),
        ("reports-none", malformed + "field reports", "an empty batch", reports()),
        (
            "reports-descending",
            malformed + "field reports: reports are not in ascending",
            "",
            of_agent(b"\2\1" + encode([STREAM, [[2, *parts[1:]], parts]])),
        ),
        ("report-signature-nil", malformed + "field reports", "", reports([*parts[:3], None])),
        ("report-body-empty", malformed + "field reports", "", reports([1, 1, b"", bytes(32)])),
        (
            "report-signature-wrong",
            "SignatureInvalid",
            "the server does not look inside the body",
            of_agent(ReportBatch(STREAM, (replace(one, signature=bytes(32)),))),
        ),
        (
            "report-body-changed",
            "SignatureInvalid",
            "",
            of_agent(ReportBatch(STREAM, (one, replace(two, body=b"other")))),
        ),
        (
            "report-moved",
            "SignatureInvalid",
            "signed for sequence 1, sent as 3",
            of_agent(ReportBatch(STREAM, (Report(3, 1, one.body, one.signature),))),
        ),
        (
            "audit-old-zero",
            malformed + "field old",
            "there is nothing to prove about an empty log",
            of_agent(b"\x0a\1" + encode([0, 1])),
        ),
        ("report-other-stream", "SignatureInvalid", "", of_agent(ReportBatch(bytes(16), (one,)))),
    ]
    for name, expect, comment, data in rows:
        yield Vector(f"message-{name}", server, expect, comment, data)
    refusal = encode_message(Refusal(RefusalCode.BUSY, ""))
    agent = "open agent, suite 1"
    yield Vector(
        "message-refusal-code",
        agent,
        malformed + "field code",
        "code 9",
        of_server(refusal[:3] + b"\x09" + refusal[4:]),
    )
    long_way = [bytes(32)] * 65
    for name, values, comment in (
        ("hash-short", [7, 8, [bytes(31)]], ""),
        ("hashes-many", [7, 8, long_way], "no way in a tree of 2^63 leaves is so long"),
        ("hashes-nil", [7, 8, None], ""),
    ):
        data = of_server(b"\x4e\1" + encode(values))
        yield Vector(f"message-audit-{name}", agent, malformed + "field hashes", comment, data)
    handovers = of_server(b"\x4d\1" + encode([b"note", b"key", [b"x"] * 33]))
    yield Vector(
        "message-audit-handovers-many", agent, malformed + "field handovers", "", handovers
    )
    yield Vector(
        "message-kind-of-agent",
        agent,
        malformed + "message kind 0x03",
        "",
        of_server(encode_message(_BEAT)),
    )


def _sealer(direction: Direction) -> Sealer:
    """The sender's half of ``open …, suite 1``, before it has sealed anything."""
    pair = opened(1)
    side = pair.agent if direction is Direction.AGENT_TO_SERVER else pair.server
    assert side._sealer is not None
    assert Suite(pair.keys.suite) is Suite.CHACHA20_POLY1305
    return side._sealer


def all_vectors() -> list[Vector]:
    """Every vector, in the order of its files."""
    sources = (
        _right,
        _hello_faults,
        _challenge_faults,
        _proof_faults,
        _resumption_faults,
        _order_faults,
        _record_faults,
        _message_faults,
    )
    return sorted((v for source in sources for v in source()), key=lambda vector: vector.name)
