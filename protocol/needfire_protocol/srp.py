"""SRP-6a, guarded: the only importer of ``srp``, and all that must never reach it.

The library is right in its mathematics and careless at its edges. What this module adds:

* **One back end, on purpose.** ``import srp`` takes OpenSSL through ctypes if the host happens to
  have ``libssl.so`` (a link of the -dev package), else pure Python. The two differ: the former
  strips leading zero bytes of a salt and accepts B = N. ``srp._pysrp`` is the same everywhere.
* **Powers by OpenSSL.** That back end's own are Python's: 24 ms a handshake for a server, one thread
  at a time. ``power.py`` is put in the place of its ``pow``: 3 ms, on every core, in constant time
  for the exponents, which are the secrets. The sums and products around them stay Python's. What
  turns numbers into bytes and back is replaced as well: the library does it byte by byte, which
  would take as long as the powers.
* **The group** of 3072 bits of RFC 5054 appendix A with g = 5 and SHA-256. The defaults (SHA-1,
  2048 bits, salts of 4 bytes) are never used.
* **Public values** have exactly 384 bytes and satisfy 1 < x < N - 1 before the library sees them:
  no 0, 1, N - 1, N, nothing unreduced, and nothing long (256 KiB would cost half a minute).
* **u = 0** and a premaster secret of 0, 1 or N - 1 are refused on both sides.
* **None never proves anything.** The library's agent takes None as the server's proof before the
  challenge, because its own expectation is None then.
* **One try** for each challenge, and comparisons in constant time.

Exponents have 256 bits (as strong as the group, eight times faster than the default). The user
name I is the constant ``needfire``: a verifier is made before anybody knows the client's name, and
names may come from addresses. The name that an agent claims is bound by the transcript instead.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from typing import Final, TypeAlias

from srp import _pysrp

from needfire_protocol.errors import FormatError, LocalProtocolError, RemoteProtocolError
from needfire_protocol.limits import PASSWORD_BYTES_MAX
from needfire_protocol.names import parse_client_name
from needfire_protocol.plain_classes import dataclass, field
from needfire_protocol.power import POWER_BACKEND, power

__all__ = [
    "BACKEND",
    "PROOF_BYTES",
    "PUBLIC_BYTES",
    "SALT_BYTES",
    "AgentSrp",
    "RandomBytes",
    "ServerSrp",
    "Verifier",
    "check_public",
    "fake_verifier",
    "generate_password",
    "make_verifier",
]

RandomBytes: TypeAlias = Callable[[int], bytes]
"""Returns so many bytes that nobody can guess, as ``os.urandom`` does."""

BACKEND: Final = f"srp {version('srp')} (_pysrp), powers by {POWER_BACKEND}"
"""For logs: which code does the arithmetic."""

PUBLIC_BYTES: Final = 384
"""Bytes of N, and so of A, B and a verifier on the wire, with leading zero bytes."""
SALT_BYTES: Final = 16
PROOF_BYTES: Final = 32

_IDENTITY: Final = "needfire"
_EXPONENT_BYTES: Final = 32
_EXPONENT_ARGUMENT_BYTES: Final = 256
"""What the library wants an exponent to have; zero bytes in front do not change the number."""
_PASSWORD_RANDOM_BYTES: Final = 32

_N_HEX: Final = (
    b"FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74"
    b"020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437"
    b"4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    b"EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05"
    b"98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB"
    b"9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B"
    b"E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718"
    b"3995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33"
    b"A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7"
    b"ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864"
    b"D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E2"
    b"08E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF"
)
"""RFC 5054 appendix A, the group of 3072 bits."""
_G_HEX: Final = b"5"
_N: Final = int(_N_HEX, 16)
_G: Final = int(_G_HEX, 16)

assert _N.bit_length() == PUBLIC_BYTES * 8

# Process-global in the library; k and u are padded as RFC 5054 2.5.3 and 2.6 say.
_pysrp.rfc5054_enable(True)


def _long_to_bytes(number: int) -> bytes:
    """As few bytes as the number needs, as the library's own; none for 0."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _bytes_to_long(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


_REPLACED: Final = {
    # A name of the module comes before one of Python's own, so every power of the library is ours.
    "pow": power,
    "long_to_bytes": _long_to_bytes,
    "bytes_to_long": _bytes_to_long,
    # The same for every exchange of one group.
    "HNxorg": lru_cache(maxsize=4)(_pysrp.HNxorg),
}
vars(_pysrp).update(_REPLACED)


# ---- verifiers and passwords -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verifier:
    """What the server keeps of a password. Who has it can pose as the server, not as the agent.

    Raises:
        FormatError: salt or verifier are not what ``make_verifier`` can have made.
    """

    salt: bytes
    """16 bytes, the first of them not zero."""
    verifier: bytes = field(repr=False)
    """384 bytes, big-endian, with 1 < v < N - 1."""

    def __post_init__(self) -> None:
        if type(self.salt) is not bytes or len(self.salt) != SALT_BYTES or not self.salt[0]:
            raise FormatError(f"the salt must be {SALT_BYTES} bytes that do not begin with zero")
        if not _is_public_value(self.verifier):
            raise FormatError(
                f"the verifier must be {PUBLIC_BYTES} bytes of the 3072-bit group; one of another "
                "program or version cannot be used"
            )

    def to_line(self, name: str) -> str:
        """Return the line for the section [Clients] of the server's configuration."""
        return f"Client={name}@{self.salt.hex()}@{self.verifier.hex()}"

    @staticmethod
    def parse_line_value(text: str) -> "tuple[str, Verifier]":
        """Return name and verifier of what stands behind ``Client=``; the name in lower case.

        Raises:
            FormatError: not ``NAME@SALT@VERIFIER`` as ``to_line`` writes it.
        """
        match = _LINE_VALUE.fullmatch(text.strip())
        if match is None:
            raise FormatError(
                f"expected NAME@SALT@VERIFIER with {2 * SALT_BYTES} and {2 * PUBLIC_BYTES} "
                "hexadecimal digits, as needfire-admin verifier prints it"
            )
        name = parse_client_name(match[1])
        return name, Verifier(bytes.fromhex(match[2]), bytes.fromhex(match[3]))


_LINE_VALUE: Final = re.compile(
    rf"([^@]{{1,1024}})@([0-9A-Fa-f]{{{2 * SALT_BYTES}}})@([0-9A-Fa-f]{{{2 * PUBLIC_BYTES}}})",
    re.ASCII,
)


def make_verifier(password: str, random_bytes: RandomBytes) -> Verifier:
    """Return a fresh verifier of a password.

    Raises:
        FormatError: the password is empty, longer than 1024 bytes, or not text.
    """
    _check_library()
    secret = _password_bytes(password)
    salt = _salt_of(random_bytes(SALT_BYTES))
    # The library's own function draws the salt itself, and drops its leading zero bytes.
    x = _pysrp.gen_x(hashlib.sha256, salt, _IDENTITY, secret)
    return Verifier(salt, power(_G, x, _N).to_bytes(PUBLIC_BYTES, "big"))


def generate_password(random_bytes: RandomBytes) -> str:
    """Return a password of 256 bits, 43 characters that no shell or file format minds."""
    raw = random_bytes(_PASSWORD_RANDOM_BYTES)
    assert len(raw) == _PASSWORD_RANDOM_BYTES
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def fake_verifier(name: str, key: bytes) -> Verifier:
    """Return what a name that nobody registered gets: always the same, never to be guessed.

    Without it, the answer to an unknown name would tell strangers which names exist. The salt
    stays the same for as long as ``key`` does, as a registered one would.
    """
    seed = hmac.digest(key, b"needfire 1 fake verifier\0" + name.encode(), "sha256")
    salt = _salt_of(hashlib.shake_256(b"salt" + seed).digest(SALT_BYTES))
    # The first 64 bits of N are ones; a value that begins with a zero bit is below it.
    raw = hashlib.shake_256(b"verifier" + seed).digest(PUBLIC_BYTES)
    return Verifier(salt, bytes((raw[0] & 0x7F | 0x40,)) + raw[1:])


def _salt_of(raw: bytes) -> bytes:
    """A salt never begins with zero: some back ends would strip that, and fail to log in."""
    assert len(raw) == SALT_BYTES
    return bytes((raw[0] or 1,)) + raw[1:]


def _password_bytes(password: str) -> bytes:
    try:
        secret = password.encode("utf-8")
    except UnicodeEncodeError:
        raise FormatError("the password is not valid text") from None
    if not 1 <= len(secret) <= PASSWORD_BYTES_MAX:
        raise FormatError(f"the password must have 1 to {PASSWORD_BYTES_MAX} bytes")
    return secret


# ---- the two sides of one exchange -------------------------------------------------------------


class AgentSrp:
    """The agent's side: it knows the password. For one exchange only."""

    def __init__(self, password: str, random_bytes: RandomBytes) -> None:
        """Draw the secret exponent a; about 7 ms of arithmetic.

        Raises:
            FormatError: the password cannot be one.
        """
        _check_library()
        self._user = _pysrp.User(
            _IDENTITY,
            _password_bytes(password),
            hash_alg=_pysrp.SHA256,
            ng_type=_pysrp.NG_CUSTOM,
            n_hex=_N_HEX,
            g_hex=_G_HEX,
            bytes_a=_exponent(random_bytes),
        )
        self.public = _on_the_wire(self._user.start_authentication()[1])
        self._is_challenged = False
        self._is_over = False

    def answer(self, salt: bytes, server_public: bytes) -> tuple[bytes, bytes]:
        """Return the proof M and the shared secret K; about 20 ms.

        K is not to be relied on before ``confirm`` has returned.

        Raises:
            RemoteProtocolError: the challenge is degenerate.
        """
        if self._is_challenged:
            raise LocalProtocolError("a challenge was answered already")
        self._is_challenged = True
        if type(salt) is not bytes or len(salt) != SALT_BYTES:
            raise RemoteProtocolError("the server's salt has another form than expected")
        _check_exchange(self.public, server_public)
        proof = self._user.process_challenge(salt, server_public)
        if type(proof) is not bytes:
            raise RemoteProtocolError("the server's challenge is degenerate")
        _check_premaster(self._user.S)
        return proof, self._user.K

    def confirm(self, server_proof: bytes) -> None:
        """Return if the server has proved that it knows the verifier. One try.

        Raises:
            RemoteProtocolError: it has not.
        """
        if not self._is_challenged or self._is_over:
            raise LocalProtocolError("there is no challenge to confirm")
        self._is_over = True
        if type(server_proof) is not bytes or len(server_proof) != PROOF_BYTES:
            raise RemoteProtocolError("the server's proof has another form than expected")
        if type(self._user.H_AMK) is not bytes:
            raise LocalProtocolError("the challenge was not answered")
        self._user.verify_session(_ConstantTimeBytes(server_proof))
        if not self._user.authenticated():
            raise RemoteProtocolError("the server did not prove that it knows this client")


class ServerSrp:
    """The server's side: it knows the verifier. For one exchange only."""

    def __init__(self, verifier: Verifier, agent_public: bytes, random_bytes: RandomBytes) -> None:
        """Draw the secret exponent b; about 10 ms of arithmetic.

        Raises:
            RemoteProtocolError: the agent's public value is degenerate. It costs nothing then.
        """
        _check_library()
        check_public(agent_public)
        self._verifier = _pysrp.Verifier(
            _IDENTITY,
            verifier.salt,
            verifier.verifier,
            agent_public,
            hash_alg=_pysrp.SHA256,
            ng_type=_pysrp.NG_CUSTOM,
            n_hex=_N_HEX,
            g_hex=_G_HEX,
            bytes_b=_exponent(random_bytes),
        )
        self.salt = verifier.salt
        self.public = _on_the_wire(self._verifier.get_challenge()[1])
        _check_exchange(agent_public, self.public)
        self._is_over = False

    def verify(self, agent_proof: bytes) -> tuple[bytes | None, bytes]:
        """Return the server's proof (None: the agent's is wrong) and K; about 16 ms. One try.

        K comes in either case, so that what follows can take the same steps in both.

        Raises:
            RemoteProtocolError: the proof has no form of a proof, or the exchange is degenerate.
        """
        if self._is_over:
            raise LocalProtocolError("a proof was verified already")
        self._is_over = True
        if type(agent_proof) is not bytes or len(agent_proof) != PROOF_BYTES:
            raise RemoteProtocolError("the agent's proof has another form than expected")
        server_proof: bytes | None = self._verifier.verify_session(_ConstantTimeBytes(agent_proof))
        _check_premaster(self._verifier.S)
        return server_proof, self._verifier.K


# ---- the guards --------------------------------------------------------------------------------


class _ConstantTimeBytes(bytes):
    """Bytes whose ``==`` takes as long wherever they differ; the library compares with ``==``.

    A subclass is asked first by ``==``, on whichever side it stands.
    """

    __slots__ = ()
    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, bytes) and hmac.compare_digest(bytes(self), bytes(other))


def _check_library() -> None:
    """Any other code in the process could have turned the library's global switches, or our own."""
    is_switched = not _pysrp._rfc5054_compat or _pysrp._no_username_in_x
    is_replaced = all(getattr(_pysrp, name) is ours for name, ours in _REPLACED.items())
    if is_switched or not is_replaced:
        raise LocalProtocolError("the global switches of the srp library were changed")


def _exponent(random_bytes: RandomBytes) -> bytes:
    raw = random_bytes(_EXPONENT_BYTES)
    assert len(raw) == _EXPONENT_BYTES
    if not any(raw[:16]):
        raise LocalProtocolError("the source of randomness returns zeros")
    return raw.rjust(_EXPONENT_ARGUMENT_BYTES, b"\0")


def _on_the_wire(number: bytes) -> bytes:
    return number.rjust(PUBLIC_BYTES, b"\0")


def _is_public_value(value: object) -> bool:
    return (
        type(value) is bytes
        and len(value) == PUBLIC_BYTES
        and 1 < int.from_bytes(value, "big") < _N - 1
    )


def check_public(value: object) -> None:
    """Refuse what is no fair public value of the exchange; costs next to nothing.

    Raises:
        RemoteProtocolError: not 384 bytes with 1 < value < N - 1.
    """
    if not _is_public_value(value):
        raise RemoteProtocolError("a public value of the key exchange is degenerate")


def _check_exchange(agent_public: bytes, server_public: bytes) -> None:
    check_public(agent_public)
    check_public(server_public)
    if not any(_scrambler(agent_public, server_public)):
        raise RemoteProtocolError("the key exchange is degenerate: u is zero")


def _scrambler(agent_public: bytes, server_public: bytes) -> bytes:
    """u = H(PAD(A) | PAD(B)), RFC 5054 2.6. The library's server does not look at it."""
    return hashlib.sha256(agent_public + server_public).digest()


def _check_premaster(number: int) -> None:
    if number in (0, 1, _N - 1):
        raise RemoteProtocolError("the key exchange is degenerate: its secret is trivial")
