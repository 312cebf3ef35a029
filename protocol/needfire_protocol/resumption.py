"""How a session goes on over a new connection: both sides of the short handshake.

``handshake.py`` draws the steps. No password and no big number is needed: both sides have the
session's resumption key. Fresh traffic keys come from it and from new randomness of both sides.
"""

import hmac

from needfire_protocol.errors import LocalProtocolError, RemoteProtocolError
from needfire_protocol.framing import Frame
from needfire_protocol.handshake import (
    Outcome,
    Transcript,
    check_server_finished,
    draw_random,
    plain_refusal,
)
from needfire_protocol.handshake_frames import (
    PlainRefusal,
    ResumptionAnswer,
    ResumptionProof,
    ResumptionRequest,
    decode_frame,
    encode_frame,
)
from needfire_protocol.keys import (
    KeyLabel,
    Master,
    SessionKeys,
    derive_traffic_keys,
    extract,
    finished_value,
)
from needfire_protocol.messages import RefusalCode
from needfire_protocol.srp import RandomBytes

__all__ = ["AgentResumption", "ServerResumption"]


class AgentResumption:
    """The agent's side of a resumption."""

    def __init__(self, keys: SessionKeys, *, random_bytes: RandomBytes) -> None:
        """Make the request."""
        self._keys = keys
        self._transcript = Transcript()
        self.request = encode_frame(
            ResumptionRequest(
                keys.version, keys.suite, keys.features, keys.session_id, draw_random(random_bytes)
            )
        )
        self._transcript.add(self.request)

    def answer(self, frame: Frame) -> tuple[bytes, Outcome]:
        """Return the proof frame and the keys, if the server has proved itself.

        Raises:
            RemoteProtocolError: it has not.
        """
        answer = decode_frame(frame, ResumptionAnswer)
        self._transcript.add(answer.random)
        transcript = self._transcript.digest()
        master = extract(self._keys.resumption_key, transcript)
        check_server_finished(answer.finished, master, KeyLabel.RESUMED_SERVER_FINISHED, transcript)
        self._transcript.add(frame.raw)
        finished = finished_value(
            master, KeyLabel.RESUMED_AGENT_FINISHED, self._transcript.digest()
        )
        proof = encode_frame(ResumptionProof(finished))
        return proof, _resumed(self._keys, master, self._transcript, proof)

    def is_refusal_authentic(self, refusal: PlainRefusal) -> bool:
        """True where the refusal proves that its sender has the session's resumption key.

        Raises:
            RemoteProtocolError: it claims to, and does not.
        """
        if not refusal.mac:
            return False
        expected = _refusal_mac(self._keys, self._transcript, refusal.code)
        if not hmac.compare_digest(refusal.mac, expected):
            raise RemoteProtocolError("the refusal of the server does not verify")
        return True


class ServerResumption:
    """The server's side of a resumption."""

    __slots__ = ("_keys", "_master", "_request", "_transcript", "session_id")

    def __init__(self, frame: Frame) -> None:
        """Take the agent's request.

        Raises:
            RemoteProtocolError: it is malformed.
        """
        self._request = decode_frame(frame, ResumptionRequest)
        self.session_id = self._request.session_id
        self._transcript = Transcript()
        self._transcript.add(frame.raw)

    def answer(self, keys: SessionKeys, *, random_bytes: RandomBytes) -> bytes:
        """Return the answer frame.

        Raises:
            RemoteProtocolError: the agent wants another version or suite than the session has.
            LocalProtocolError: these are not the keys of the session that was asked for.
        """
        self._check_keys(keys)
        wanted = (self._request.version, self._request.suite, self._request.features)
        if wanted != (keys.version, keys.suite, keys.features):
            raise RemoteProtocolError("the resumption asks for another version or suite")
        self._keys = keys
        random = draw_random(random_bytes)
        self._transcript.add(random)
        transcript = self._transcript.digest()
        self._master = extract(keys.resumption_key, transcript)
        finished = finished_value(self._master, KeyLabel.RESUMED_SERVER_FINISHED, transcript)
        answer = encode_frame(ResumptionAnswer(random, finished))
        self._transcript.add(answer)
        return answer

    def refuse(self, code: RefusalCode, keys: SessionKeys | None) -> bytes:
        """Return the refusal frame; authentic where the keys of the session are known."""
        if keys is None:
            return plain_refusal(code)
        self._check_keys(keys)
        return encode_frame(PlainRefusal(code, _refusal_mac(keys, self._transcript, code)))

    def verify(self, frame: Frame) -> Outcome | None:
        """Return the keys, or None if the agent has not proved itself.

        Raises:
            RemoteProtocolError: its proof is malformed.
        """
        proof = decode_frame(frame, ResumptionProof)
        expected = finished_value(
            self._master, KeyLabel.RESUMED_AGENT_FINISHED, self._transcript.digest()
        )
        if not hmac.compare_digest(proof.finished, expected):
            return None
        return _resumed(self._keys, self._master, self._transcript, frame.raw)

    def _check_keys(self, keys: SessionKeys) -> None:
        if keys.session_id != self.session_id:
            raise LocalProtocolError("the keys belong to another session")


def _refusal_mac(keys: SessionKeys, transcript: Transcript, code: RefusalCode) -> bytes:
    """The agent's random is in the transcript, so an old refusal cannot be sent again."""
    master = extract(keys.resumption_key, transcript.digest())
    return finished_value(master, KeyLabel.RESUMED_REFUSAL, transcript.digest() + bytes((code,)))


def _resumed(
    keys: SessionKeys, master: Master, transcript: Transcript, proof_frame: bytes
) -> Outcome:
    transcript.add(proof_frame)
    return Outcome(keys, derive_traffic_keys(master, transcript.digest(), resumed=True))
