"""How a name and its password become a new session: both sides of the full handshake.

``handshake.py`` draws the steps. Each method makes one step's frame out of the one before
it; the connections see to it that they are called in this order and no other.
"""

import hmac
from collections.abc import Collection

from needfire_protocol.connection_events import AuthenticationFailure
from needfire_protocol.errors import RemoteProtocolError
from needfire_protocol.framing import Frame
from needfire_protocol.handshake import (
    Outcome,
    Transcript,
    check_server_finished,
    draw_random,
)
from needfire_protocol.handshake_frames import (
    Challenge,
    Confirmation,
    Hello,
    Proof,
    decode_frame,
    encode_frame,
)
from needfire_protocol.keys import (
    KeyLabel,
    Master,
    derive_session_keys,
    derive_traffic_keys,
    extract,
    finished_value,
)
from needfire_protocol.srp import AgentSrp, RandomBytes, ServerSrp, Verifier, check_public

__all__ = ["AgentNegotiation", "ServerNegotiation"]


class AgentNegotiation:
    """The agent's side of a negotiation."""

    def __init__(
        self,
        name: str,
        password: str,
        *,
        takeover: bool,
        random_bytes: RandomBytes,
        versions: tuple[int, ...],
        suites: tuple[int, ...],
        features: int,
    ) -> None:
        """Make the hello.

        Raises:
            FormatError: name or password cannot be one.
        """
        self._srp = AgentSrp(password, random_bytes)
        self._offered = Hello(
            versions, suites, features, takeover, name, draw_random(random_bytes), self._srp.public
        )
        self._transcript = Transcript()
        self.hello = encode_frame(self._offered)
        self._transcript.add(self.hello)

    def answer(self, frame: Frame) -> bytes:
        """Return the proof frame that answers a challenge; about 20 ms of arithmetic.

        Raises:
            RemoteProtocolError: the challenge is malformed, degenerate, or was not offered.
        """
        challenge = decode_frame(frame, Challenge)
        self._check_choice(challenge)
        self._chosen = challenge
        proof, shared = self._srp.answer(challenge.salt, challenge.public)
        self._transcript.add(frame.raw)
        self._master = extract(shared, self._transcript.digest())
        finished = finished_value(self._master, KeyLabel.AGENT_FINISHED, self._transcript.digest())
        answer = encode_frame(Proof(proof, finished))
        self._transcript.add(answer)
        return answer

    def confirm(self, frame: Frame) -> Outcome:
        """Return the keys, if the server has proved itself.

        Raises:
            RemoteProtocolError: it has not.
        """
        confirmation = decode_frame(frame, Confirmation)
        self._srp.confirm(confirmation.proof)
        transcript = self._transcript.digest()
        check_server_finished(
            confirmation.finished, self._master, KeyLabel.SERVER_FINISHED, transcript
        )
        return _negotiated(self._master, transcript, self._chosen)

    def _check_choice(self, challenge: Challenge) -> None:
        offered = self._offered
        if (
            challenge.version not in offered.versions
            or challenge.suite not in offered.suites
            or challenge.features & ~offered.features
        ):
            raise RemoteProtocolError("the server chose what was not offered")


class ServerNegotiation:
    """The server's side of a negotiation."""

    def __init__(
        self,
        frame: Frame,
        *,
        versions: Collection[int],
        suites: Collection[int],
        features: int,
    ) -> None:
        """Take the agent's hello; no arithmetic yet.

        Args:
            suites: best first.

        Raises:
            RemoteProtocolError: the hello is malformed or degenerate, or offers nothing of ours.
        """
        hello = decode_frame(frame, Hello)
        check_public(hello.public)
        self.name = hello.name
        self.takeover = hello.takeover
        self._agent_public = hello.public
        self._version = max(_common(versions, hello.versions, "version"))
        self._suite = _common(suites, hello.suites, "suite")[0]
        self._features = features & hello.features
        self._transcript = Transcript()
        self._transcript.add(frame.raw)

    def challenge(
        self, verifier: Verifier | None, *, fake: Verifier, random_bytes: RandomBytes
    ) -> bytes:
        """Return the challenge frame; about 10 ms of arithmetic.

        With None (nobody has that name) the same is done with the fake verifier. The caller makes
        that in either case, so that a known name takes no less time.

        Raises:
            RemoteProtocolError: the exchange is degenerate.
        """
        self._is_known = verifier is not None
        self._srp = ServerSrp(
            fake if verifier is None else verifier, self._agent_public, random_bytes
        )
        self._chosen = Challenge(
            self._version,
            self._suite,
            self._features,
            draw_random(random_bytes),
            self._srp.salt,
            self._srp.public,
        )
        answer = encode_frame(self._chosen)
        self._transcript.add(answer)
        return answer

    def take_proof(self, frame: Frame) -> None:
        """Take the agent's proof; no arithmetic yet.

        Raises:
            RemoteProtocolError: it is malformed.
        """
        self._proof = decode_frame(frame, Proof)
        self._finished_transcript = self._transcript.digest()
        self._transcript.add(frame.raw)

    def verify(self) -> tuple[bytes, Outcome] | AuthenticationFailure:
        """Return the confirmation frame and the keys, or why not; about 16 ms of arithmetic.

        Raises:
            RemoteProtocolError: the exchange is degenerate.
        """
        server_proof, shared = self._srp.verify(self._proof.proof)
        master = extract(shared, self._finished_transcript)
        expected = finished_value(master, KeyLabel.AGENT_FINISHED, self._finished_transcript)
        is_finished = hmac.compare_digest(self._proof.finished, expected)
        # Everything is computed before anything is decided: all refusals take the same time.
        transcript = self._transcript.digest()
        finished = finished_value(master, KeyLabel.SERVER_FINISHED, transcript)
        if not self._is_known:
            return AuthenticationFailure.UNKNOWN_NAME
        if server_proof is None or not is_finished:
            return AuthenticationFailure.WRONG_PASSWORD
        confirmation = encode_frame(Confirmation(server_proof, finished))
        return confirmation, _negotiated(master, transcript, self._chosen)


def _common(ours: Collection[int], theirs: Collection[int], what: str) -> list[int]:
    common = [number for number in ours if number in theirs]
    if not common:
        raise RemoteProtocolError(
            f"no common {what}: offered {_listed(theirs)}, supported {_listed(ours)}"
        )
    return common


def _listed(numbers: Collection[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _negotiated(master: Master, transcript: bytes, chosen: Challenge) -> Outcome:
    keys = derive_session_keys(
        master,
        transcript,
        version=chosen.version,
        suite=chosen.suite,
        features=chosen.features,
    )
    return Outcome(keys, derive_traffic_keys(master, transcript, resumed=False))
