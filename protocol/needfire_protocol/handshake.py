"""How two sides prove to each other who they are, and get keys from it.

    agent                                             server
    HELLO          offers, name, random, A      ──►
                   choice, random, salt, B      ◄──   CHALLENGE
    PROOF          M, finished                  ──►
                   H_AMK, finished              ◄──   CONFIRMATION        now both are open

    RESUME         session id, random           ──►
                   random, finished             ◄──   RESUMPTION_ANSWER
    RESUMPTION_PROOF  finished                  ──►                       now both are open

Each side hashes every frame as it was sent or received (``Transcript``). SRP's M and H_AMK prove
the password; the finished values beside them prove, by HMAC, that both saw the same frames. So an
attacker who changes an offer, a choice, the takeover flag or the name only breaks the handshake.
``negotiation.py`` and ``resumption.py`` know the arithmetic of each step, ``states.py`` when it may
come; here is what both handshakes share.
"""

import hashlib
import hmac
from typing import Final

from needfire_protocol.errors import RemoteProtocolError
from needfire_protocol.handshake_frames import PlainRefusal, encode_frame
from needfire_protocol.keys import KeyLabel, Master, SessionKeys, TrafficKeys, finished_value
from needfire_protocol.limits import RANDOM_BYTES
from needfire_protocol.messages import RefusalCode
from needfire_protocol.plain_classes import dataclass
from needfire_protocol.srp import RandomBytes

__all__ = [
    "AUTHENTICATION_REFUSAL",
    "Outcome",
    "Transcript",
    "check_server_finished",
    "draw_random",
    "plain_refusal",
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a completed handshake gives."""

    keys: SessionKeys
    traffic: TrafficKeys


class Transcript:
    """The hash of everything that was sent so far, each part with its length before it."""

    __slots__ = ("_hash",)

    def __init__(self) -> None:
        self._hash = hashlib.sha256(b"needfire 1 transcript\0")

    def add(self, part: bytes) -> None:
        """Append a part; both sides must append the same ones in the same order."""
        self._hash.update(len(part).to_bytes(4, "big") + part)

    def digest(self) -> bytes:
        """Return the hash so far: 32 bytes."""
        return self._hash.digest()


def plain_refusal(code: RefusalCode) -> bytes:
    """Return the frame that refuses without proving anything."""
    return encode_frame(PlainRefusal(code, b""))


AUTHENTICATION_REFUSAL: Final = plain_refusal(RefusalCode.AUTHENTICATION_FAILED)
"""The same bytes for an unknown name and for a wrong password."""


def check_server_finished(
    received: bytes, master: Master, label: KeyLabel, transcript: bytes
) -> None:
    """Compare in constant time what the server sent with what it should have sent.

    Raises:
        RemoteProtocolError: they differ.
    """
    if not hmac.compare_digest(received, finished_value(master, label, transcript)):
        raise RemoteProtocolError("the server's finished value does not verify")


def draw_random(random_bytes: RandomBytes) -> bytes:
    """Return one side's fresh randomness for one handshake."""
    drawn = random_bytes(RANDOM_BYTES)
    assert len(drawn) == RANDOM_BYTES
    return drawn
