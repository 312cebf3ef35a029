"""The guard around the srp library: right arithmetic, and no way around its edges."""

import builtins
import hashlib
import hmac
import importlib.util
import os
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from srp import _pysrp

from needfire_protocol import srp
from needfire_protocol.errors import FormatError, LocalProtocolError, RemoteProtocolError
from needfire_protocol.power import POWER_BACKEND, power
from needfire_protocol.srp import (
    AgentSrp,
    ServerSrp,
    Verifier,
    fake_verifier,
    generate_password,
    make_verifier,
)
from needfire_testkit.pairs import fixed_random, verifier_of

N = srp._N
WIDTH = 384
PASSWORD = "correct horse battery staple"


def wire(number: int) -> bytes:
    return number.to_bytes(WIDTH, "big")


DEGENERATE: dict[str, Any] = {
    "zero": wire(0),
    "one": wire(1),
    "N - 1": wire(N - 1),
    "N": wire(N),
    "unreduced: N + 2": wire(N + 2),
    "all ones": b"\xff" * WIDTH,
    "2N, too wide": (2 * N).to_bytes(WIDTH + 1, "big"),
    "empty": b"",
    "short": b"\x02",
    "one byte short": wire(2)[1:],
    "one byte long": b"\0" + wire(2),
    "256 KiB": b"x" * 262_144,
    "None": None,
    "text": "2" * WIDTH,
    "bytearray": bytearray(wire(2)),
    "number": 2,
    "memoryview": memoryview(wire(2)),
}
"""What is no public value. 2 and N - 2 are the nearest that are."""


def exchange(
    password: str = PASSWORD, verifier: Verifier | None = None
) -> tuple[AgentSrp, ServerSrp]:
    agent = AgentSrp(password, os.urandom)
    return agent, ServerSrp(verifier or verifier_of(PASSWORD), agent.public, os.urandom)


# ---- the arithmetic ----------------------------------------------------------------------------

RFC_5054_B = {
    "s": "BEB25379D1A8581EB5A727673A2441EE",
    "k": "7556AA045AEF2CDD07ABAF0F665C3E818913186F",
    "x": "94B7555AABE9127CC58CCF4993DB6CF84D16C124",
    "v": "7E273DE8696FFC4F4E337D05B4B375BEB0DDE1569E8FA00A9886D8129BADA1F1"
    "822223CA1A605B530E379BA4729FDC59F105B4787E5186F5C671085A1447B52A"
    "48CF1970B4FB6F8400BBF4CEBFBB168152E08AB5EA53D15C1AFF87B2B9DA6E04"
    "E058AD51CC72BFC9033B564E26480D78E955A5E29E7AB245DB2BE315E2099AFB",
    "a": "60975527035CF2AD1989806F0407210BC81EDC04E2762A56AFD529DDDA2D4393",
    "b": "E487CB59D31AC550471E81F00F6928E01DDA08E974A004F49E61F5D105284D20",
    "A": "61D5E490F6F1B79547B0704C436F523DD0E560F0C64115BB72557EC44352E890"
    "3211C04692272D8B2D1A5358A2CF1B6E0BFCF99F921530EC8E39356179EAE45E"
    "42BA92AEACED825171E1E8B9AF6D9C03E1327F44BE087EF06530E69F66615261"
    "EEF54073CA11CF5858F0EDFDFE15EFEAB349EF5D76988A3672FAC47B0769447B",
    "B": "BD0C61512C692C0CB6D041FA01BB152D4916A1E77AF46AE105393011BAF38964"
    "DC46A0670DD125B95A981652236F99D9B681CBF87837EC996C6DA04453728610"
    "D0C6DDB58B318885D7D82C7F8DEB75CE7BD4FBAA37089E6F9C6059F388838E7A"
    "00030B331EB76840910440B1B27AAEAEEB4012B7D7665238A8E3FB004B117B58",
    "u": "CE38B9593487DA98554ED47D70A7AE5F462EF019",
    "S": "B0DC82BABCF30674AE450C0287745E7990A3381F63B387AAF271A10D233861E3"
    "59B48220F7C4693C9AE12B0A6F67809F0876E2D013800D6C41BB59B6D5979B5C"
    "00A172B4A2A5903A0BDCAF8A709585EB2AFAFA8F3499B200210DCC1F10EB3394"
    "3CD67FC88A2F39A4BE5BEC4EC0A3212DC346D7E474B29EDE8A469FFECA686E5A",
}


def test_the_back_end_computes_the_vectors_of_rfc_5054_appendix_b() -> None:
    given = {name: bytes.fromhex(text) for name, text in RFC_5054_B.items()}
    group = {"hash_alg": _pysrp.SHA1, "ng_type": _pysrp.NG_1024}
    user = _pysrp.User("alice", "password123", bytes_a=given["a"].rjust(256, b"\0"), **group)
    host = _pysrp.Verifier(
        "alice", given["s"], given["v"], given["A"], bytes_b=given["b"].rjust(256, b"\0"), **group
    )
    assert user.start_authentication() == ("alice", given["A"])
    assert host.get_challenge() == (given["s"], given["B"])
    proof = user.process_challenge(given["s"], given["B"])
    assert host.verify_session(proof) == user.H_AMK
    for side in (user, host):
        assert side.k == int(RFC_5054_B["k"], 16)
        assert side.u == int(RFC_5054_B["u"], 16)
        assert int(RFC_5054_B["S"], 16) == side.S
    assert user.x == int(RFC_5054_B["x"], 16)
    assert user.v == int(RFC_5054_B["v"], 16)


def test_the_product_uses_the_back_end_that_the_vectors_were_run_with() -> None:
    assert vars(srp)["_pysrp"] is _pysrp
    assert f"srp {version('srp')} (_pysrp), powers by {POWER_BACKEND}" == srp.BACKEND
    assert version("srp") == "1.0.22"


def test_no_product_module_but_the_guard_imports_the_library_or_names_a_small_group() -> None:
    root = Path(srp.__file__).parents[2]
    for path in [
        *root.glob("client/**/*.py"),
        *root.glob("server/**/*.py"),
        *root.glob("protocol/**/*.py"),
    ]:
        text = path.read_text()
        assert "NG_1024" not in text, path
        assert "NG_2048" not in text, path
        if path.name != "srp.py":
            assert "import _pysrp" not in text, path
            assert "import srp\n" not in text, path


def test_the_group_is_the_one_of_3072_bits_from_rfc_5054() -> None:
    # Appendix A gives the groups above 2048 bits as those of RFC 3526, which are defined so:
    # 2**3072 - 2**3008 - 1 + 2**64 * ((2**2942 * pi) + 1690314).
    assert srp._N_HEX.startswith(
        b"FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74"
    )
    assert srp._N_HEX.endswith(b"43DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF")
    assert N.bit_length() == 3072
    assert pow(2, N - 1, N) == 1
    assert pow(2, (N - 1) // 2 - 1, (N - 1) // 2) == 1  # a safe prime, by Fermat to the base 2
    assert srp._G == 5


def test_both_sides_compute_what_the_formulas_say() -> None:
    """An independent computation with nothing but pow and hashlib."""
    agent_draw, server_draw = fixed_random("agent"), fixed_random("server")
    a = int.from_bytes(fixed_random("agent")(32), "big")
    b = int.from_bytes(fixed_random("server")(32), "big")
    verifier = verifier_of(PASSWORD)

    def h(*parts: bytes) -> bytes:
        return hashlib.sha256(b"".join(parts)).digest()

    def number(raw: bytes) -> int:
        return int.from_bytes(raw, "big")

    def minimal(value: int) -> bytes:
        return value.to_bytes((value.bit_length() + 7) // 8, "big")

    k = number(h(wire(N), wire(5)))
    x = number(h(verifier.salt, h(b"needfire:" + PASSWORD.encode())))
    v = pow(5, x, N)
    public_a, public_b = pow(5, a, N), (k * v + pow(5, b, N)) % N
    u = number(h(wire(public_a), wire(public_b)))
    shared = h(minimal(pow(public_b - k * v, a + u * x, N)))
    n_xor_g = bytes(p ^ q for p, q in zip(h(wire(N)), h(wire(5)), strict=True))
    m = h(n_xor_g, h(b"needfire"), verifier.salt, minimal(public_a), minimal(public_b), shared)
    h_amk = h(minimal(public_a), m, shared)

    agent = AgentSrp(PASSWORD, agent_draw)
    server = ServerSrp(verifier, agent.public, server_draw)
    assert verifier.verifier == wire(v)
    assert agent.public == wire(public_a)
    assert server.public == wire(public_b)
    assert agent.answer(server.salt, server.public) == (m, shared)
    assert server.verify(m) == (h_amk, shared)
    agent.confirm(h_amk)


def test_a_password_whose_inner_hash_begins_with_zero_works() -> None:
    """Releases before 1.0.21 dropped that byte and computed another x."""
    password = next(
        text
        for text in map(str, range(10_000))
        if hashlib.sha256(f"needfire:{text}".encode()).digest()[0] == 0
    )
    verifier = make_verifier(password, os.urandom)
    inner = hashlib.sha256(f"needfire:{password}".encode()).digest()
    x = int.from_bytes(hashlib.sha256(verifier.salt + inner).digest(), "big")
    assert verifier.verifier == wire(pow(5, x, N))


@pytest.mark.parametrize("password", ["x", "ä€𝄞", "with : colon", "\0", "x" * 1024])
def test_any_text_can_be_a_password(password: str) -> None:
    agent, server = exchange(password, make_verifier(password, os.urandom))
    proof, agent_secret = agent.answer(server.salt, server.public)
    server_proof, server_secret = server.verify(proof)
    assert server_proof is not None
    agent.confirm(server_proof)
    assert agent_secret == server_secret


@pytest.mark.parametrize("password", ["", "x" * 1025, "ä" * 513, "half \ud800 pair"])
def test_what_cannot_be_a_password_is_refused(password: str) -> None:
    with pytest.raises(FormatError):
        make_verifier(password, os.urandom)
    with pytest.raises(FormatError):
        AgentSrp(password, os.urandom)


def test_a_wrong_password_proves_nothing() -> None:
    agent, server = exchange("wrong")
    proof, agent_secret = agent.answer(server.salt, server.public)
    server_proof, server_secret = server.verify(proof)
    assert server_proof is None
    assert agent_secret != server_secret


# ---- degenerate values -------------------------------------------------------------------------


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if the library is asked anything."""

    def refuse(*_args: object, **_keywords: object) -> None:
        raise AssertionError("the library was reached")

    monkeypatch.setattr(_pysrp, "Verifier", refuse)
    monkeypatch.setattr(_pysrp.User, "process_challenge", refuse)


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("value", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_the_server_refuses_a_degenerate_value_before_the_library_sees_it(value: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="degenerate"):
        ServerSrp(verifier_of(PASSWORD), value, os.urandom)


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("value", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_the_agent_refuses_a_degenerate_value_before_the_library_sees_it(value: Any) -> None:
    agent = AgentSrp(PASSWORD, os.urandom)
    with pytest.raises(RemoteProtocolError, match="degenerate"):
        agent.answer(bytes(range(1, 17)), value)


@pytest.mark.parametrize("value", [2, N - 2], ids=["2", "N-2"])
def test_the_nearest_values_that_are_not_degenerate_are_taken(value: int) -> None:
    ServerSrp(verifier_of(PASSWORD), wire(value), os.urandom)
    AgentSrp(PASSWORD, os.urandom).answer(bytes(range(1, 17)), wire(value))


def test_an_oversized_value_costs_nothing() -> None:
    """The library needs half a minute for this one, with the interpreter locked."""
    before = time.process_time()
    with pytest.raises(RemoteProtocolError):
        ServerSrp(verifier_of(PASSWORD), b"x" * 262_144, os.urandom)
    assert time.process_time() - before < 0.05


def test_u_of_zero_is_refused_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, server = exchange()
    monkeypatch.setattr(srp, "_scrambler", lambda _a, _b: bytes(32))
    with pytest.raises(RemoteProtocolError, match="u is zero"):
        ServerSrp(verifier_of(PASSWORD), agent.public, os.urandom)
    with pytest.raises(RemoteProtocolError, match="u is zero"):
        agent.answer(server.salt, server.public)


def test_u_is_what_the_library_uses() -> None:
    agent, server = exchange()
    proof, _ = agent.answer(server.salt, server.public)
    server.verify(proof)
    expected = int.from_bytes(srp._scrambler(agent.public, server.public), "big")
    assert agent._user.u == server._verifier.u == expected


@pytest.mark.parametrize("secret", [0, 1, N - 1], ids=["0", "1", "N-1"])
def test_a_trivial_premaster_secret_is_refused_on_both_sides(
    secret: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, server = exchange()

    def trivial(_base: int, _exponent: int, _modulus: int) -> int:
        return secret

    monkeypatch.setattr(_pysrp, "pow", trivial, raising=False)
    with pytest.raises(RemoteProtocolError, match="trivial"):
        agent.answer(server.salt, server.public)
    with pytest.raises(RemoteProtocolError, match="trivial"):
        server.verify(bytes(32))


def test_a_server_that_sends_k_times_v_to_know_the_secret_is_refused() -> None:
    """B = k·v makes the agent's secret 0, whatever the password's owner does."""
    verifier = verifier_of(PASSWORD)
    k = int.from_bytes(hashlib.sha256(wire(N) + wire(5)).digest(), "big")
    v = int.from_bytes(verifier.verifier, "big")
    with pytest.raises(RemoteProtocolError, match="trivial"):
        AgentSrp(PASSWORD, os.urandom).answer(verifier.salt, wire(k * v % N))


# ---- proofs ------------------------------------------------------------------------------------

NO_PROOFS: dict[str, Any] = {
    "None": None,
    "empty": b"",
    "short": bytes(31),
    "long": bytes(33),
    "text": "x" * 32,
    "bytearray": bytearray(32),
    "true": True,
}


def test_the_library_takes_none_as_the_proof_of_a_server() -> None:
    """The trap itself: if this fails, the library has changed and the guard wants another look."""
    user = _pysrp.User("needfire", PASSWORD)
    user.verify_session(None)
    assert user.authenticated()


@pytest.mark.parametrize("proof", NO_PROOFS.values(), ids=NO_PROOFS.keys())
def test_the_agent_refuses_what_is_no_proof(proof: Any) -> None:
    agent, server = exchange()
    agent.answer(server.salt, server.public)
    with pytest.raises(RemoteProtocolError):
        agent.confirm(proof)


@pytest.mark.parametrize("proof", NO_PROOFS.values(), ids=NO_PROOFS.keys())
def test_the_server_refuses_what_is_no_proof(proof: Any) -> None:
    _, server = exchange()
    with pytest.raises(RemoteProtocolError):
        server.verify(proof)


@pytest.mark.parametrize(
    "proof", [*NO_PROOFS.values(), bytes(32)], ids=[*NO_PROOFS.keys(), "32 zero bytes"]
)
def test_a_server_cannot_confirm_before_its_challenge(proof: Any) -> None:
    with pytest.raises(LocalProtocolError):
        AgentSrp(PASSWORD, os.urandom).confirm(proof)


def test_nothing_is_confirmed_after_a_challenge_that_was_refused() -> None:
    agent = AgentSrp(PASSWORD, os.urandom)
    with pytest.raises(RemoteProtocolError):
        agent.answer(bytes(range(1, 17)), wire(N))
    with pytest.raises(LocalProtocolError):
        agent.confirm(bytes(32))


def test_a_wrong_proof_of_the_server_is_refused() -> None:
    agent, server = exchange()
    agent.answer(server.salt, server.public)
    with pytest.raises(RemoteProtocolError, match="did not prove"):
        agent.confirm(bytes(32))


def test_the_server_allows_one_try_where_the_library_allows_any_number() -> None:
    agent, server = exchange()
    proof, _ = agent.answer(server.salt, server.public)
    assert server.verify(bytes(32))[0] is None
    assert server._verifier.verify_session(proof) is not None  # the trap
    with pytest.raises(LocalProtocolError):
        server.verify(proof)


def test_the_agent_allows_one_challenge_and_one_confirmation() -> None:
    agent, server = exchange()
    proof, _ = agent.answer(server.salt, server.public)
    server_proof, _ = server.verify(proof)
    assert server_proof is not None
    with pytest.raises(LocalProtocolError):
        agent.answer(server.salt, server.public)
    agent.confirm(server_proof)
    with pytest.raises(LocalProtocolError):
        agent.confirm(server_proof)


def test_both_sides_compare_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def spy(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return hmac_compare(a, b)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", spy)
    agent, server = exchange()
    proof, _ = agent.answer(server.salt, server.public)
    server_proof, _ = server.verify(proof)
    assert server_proof is not None
    agent.confirm(server_proof)
    assert compared == [(proof, proof), (server_proof, server_proof)]


@pytest.mark.parametrize("salt", [b"", bytes(15), bytes(17), None, "x" * 16, bytearray(16)])
def test_the_agent_refuses_a_salt_of_another_form(salt: Any) -> None:
    agent, server = exchange()
    with pytest.raises(RemoteProtocolError, match="salt"):
        agent.answer(salt, server.public)


# ---- salts, exponents, global switches ---------------------------------------------------------


def test_the_library_drops_leading_zeros_of_a_salt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trap itself."""
    monkeypatch.setattr(os, "urandom", lambda count: b"\0" + b"\x07" * (count - 1))
    salt, _ = _pysrp.create_salted_verification_key("needfire", "x", salt_len=16)
    assert len(salt) == 15


def test_a_salt_always_has_16_bytes_and_never_begins_with_zero() -> None:
    verifier = make_verifier(PASSWORD, lambda count: bytes(count))
    assert verifier.salt == b"\x01" + bytes(15)
    agent, server = exchange(PASSWORD, verifier)
    assert server.verify(agent.answer(server.salt, server.public)[0])[0] is not None


def test_exponents_have_256_bits() -> None:
    """The library's default of 2048 bits costs eight times as much and adds nothing."""
    agent, server = exchange()
    assert len(agent._user.get_ephemeral_secret()) <= 32
    assert len(server._verifier.get_ephemeral_secret()) <= 32
    with pytest.raises(ValueError, match="256 bytes required"):
        _pysrp.User("needfire", "x", bytes_a=os.urandom(32))


def test_a_broken_source_of_randomness_is_noticed() -> None:
    with pytest.raises(LocalProtocolError, match="zeros"):
        AgentSrp(PASSWORD, lambda count: bytes(count))


@pytest.fixture
def restored_switches() -> Iterator[None]:
    yield
    _pysrp.rfc5054_enable(True)
    _pysrp.no_username_in_x(False)


@pytest.mark.usefixtures("restored_switches")
@pytest.mark.parametrize("switch", ["rfc5054", "username"])
def test_a_global_switch_that_somebody_turned_is_noticed_on_both_sides(switch: str) -> None:
    agent_public = AgentSrp(PASSWORD, os.urandom).public
    if switch == "rfc5054":
        _pysrp.rfc5054_enable(False)
    else:
        _pysrp.no_username_in_x(True)
    with pytest.raises(LocalProtocolError, match="switches"):
        AgentSrp(PASSWORD, os.urandom)
    with pytest.raises(LocalProtocolError, match="switches"):
        ServerSrp(verifier_of(PASSWORD), agent_public, os.urandom)
    with pytest.raises(LocalProtocolError, match="switches"):
        make_verifier(PASSWORD, os.urandom)


@pytest.mark.parametrize("name", ["pow", "long_to_bytes", "bytes_to_long", "HNxorg"])
def test_a_function_of_ours_that_somebody_took_out_is_noticed_on_both_sides(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_public = AgentSrp(PASSWORD, os.urandom).public
    monkeypatch.setattr(_pysrp, name, lambda *_: 1)
    with pytest.raises(LocalProtocolError, match="switches"):
        AgentSrp(PASSWORD, os.urandom)
    with pytest.raises(LocalProtocolError, match="switches"):
        ServerSrp(verifier_of(PASSWORD), agent_public, os.urandom)


def test_every_power_of_an_exchange_is_calculated_in_constant_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python's own power takes longer the more bits of a secret exponent are set."""
    ours = vars(srp)["_REPLACED"]
    calls = []

    def counted(base: int, exponent: int, modulus: int) -> int:
        calls.append(modulus)
        return power(base, exponent, modulus)

    monkeypatch.setitem(ours, "pow", counted)
    monkeypatch.setattr(_pysrp, "pow", counted)
    monkeypatch.setattr(builtins, "pow", None)
    agent, server = exchange()
    proof, _ = agent.answer(server.salt, server.public)
    assert server.verify(proof)[0] is not None
    # A, v and S of the agent; B, v to the power of u, and S of the server.
    assert calls == [N] * 6


def test_what_replaces_the_library_s_conversions_gives_the_same() -> None:
    fresh = importlib.util.find_spec("srp._pysrp")
    assert fresh is not None
    assert fresh.loader is not None
    original = importlib.util.module_from_spec(fresh)
    fresh.loader.exec_module(original)
    original.rfc5054_enable(True)
    for number in (0, 1, 255, 256, 2**64 - 1, N - 1, N):
        raw = original.long_to_bytes(number)
        assert _pysrp.long_to_bytes(number) == raw
        assert _pysrp.bytes_to_long(raw) == original.bytes_to_long(raw) == number
    expected = original.HNxorg(hashlib.sha256, N, 5)
    assert _pysrp.HNxorg(hashlib.sha256, N, 5) == expected


def test_the_library_is_in_the_mode_of_rfc_5054() -> None:
    assert _pysrp._rfc5054_compat is True
    assert _pysrp._no_username_in_x is False


# ---- verifiers and passwords -------------------------------------------------------------------


def test_a_verifier_survives_its_line() -> None:
    verifier = verifier_of(PASSWORD)
    line = verifier.to_line("web1.example.org")
    assert line.startswith("Client=web1.example.org@")
    assert "\n" not in line
    value = line.removeprefix("Client=")
    assert Verifier.parse_line_value(value) == ("web1.example.org", verifier)
    assert Verifier.parse_line_value(f"  {value.upper()}\n") == ("web1.example.org", verifier)


def test_a_verifier_is_not_shown_in_logs() -> None:
    verifier = verifier_of(PASSWORD)
    assert verifier.verifier.hex()[:16] not in repr(verifier)
    assert str(verifier.verifier)[:16] not in repr(verifier)


SALT_HEX, VERIFIER_HEX = "01" * 16, "02" * 384


@pytest.mark.parametrize(
    "value",
    [
        "",
        "name",
        "name@salt@verifier",
        f"@{SALT_HEX}@{VERIFIER_HEX}",
        f".hidden@{SALT_HEX}@{VERIFIER_HEX}",
        f"a/b@{SALT_HEX}@{VERIFIER_HEX}",
        f"name@{SALT_HEX}01@{VERIFIER_HEX}",
        f"name@{SALT_HEX[:-2]}@{VERIFIER_HEX}",
        f"name@00{SALT_HEX[2:]}@{VERIFIER_HEX}",
        f"name@{SALT_HEX}@{VERIFIER_HEX}02",
        f"name@{SALT_HEX}@{VERIFIER_HEX[:-2]}",
        f"name@{SALT_HEX}@{'00' * 384}",
        f"name@{SALT_HEX}@{'ff' * 384}",
        f"name@{SALT_HEX}@{wire(N - 1).hex()}",
        f"name@{SALT_HEX}@{VERIFIER_HEX}@more",
        f"name@{SALT_HEX}@{VERIFIER_HEX[:-1]}g",
        f"name@{SALT_HEX}@{VERIFIER_HEX[:-1]}\u0661",
    ],
)
def test_what_is_no_verifier_line_is_refused(value: str) -> None:
    with pytest.raises(FormatError):
        Verifier.parse_line_value(value)


def test_generated_passwords_have_256_bits_and_need_no_quoting() -> None:
    password = generate_password(lambda count: bytes(range(count)))
    assert password == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert len({generate_password(os.urandom) for _ in range(100)}) == 100


def test_a_fake_verifier_is_stable_per_name_and_has_the_form_of_a_real_one() -> None:
    key = bytes(range(32))
    fakes = [fake_verifier(f"host{number}", key) for number in range(600)]
    assert fakes[7] == fake_verifier("host7", key)
    assert fakes[7] != fake_verifier("host7", bytes(32))
    assert len({fake.salt for fake in fakes}) == len(fakes)
    # Of 600 salts two or three begin with zero before the rule, none after.
    assert all(fake.salt[0] for fake in fakes)
