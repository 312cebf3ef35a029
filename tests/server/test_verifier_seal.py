"""How a verifier lies in the store: sealed, and bound to its client."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_server.seal_key import key_check
from needfire_server.verifier_seal import SEALED_BYTES, VerifierSeal
from needfire_testkit.server_store import verifier

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))


def test_what_was_sealed_is_opened_for_the_same_client_only() -> None:
    seal, mine = VerifierSeal(KEY), verifier("a")
    sealed = seal.seal("web1", mine)
    assert len(sealed) == SEALED_BYTES
    assert mine.verifier[:32] not in sealed
    assert seal.open("web1", mine.salt, sealed) == mine
    assert seal.open("web2", mine.salt, sealed) is None
    assert seal.open("web1", verifier("b").salt, sealed) is None
    assert VerifierSeal(OTHER_KEY).open("web1", mine.salt, sealed) is None


def test_the_same_verifier_never_looks_the_same() -> None:
    seal = VerifierSeal(KEY)
    assert len({seal.seal("web1", verifier()) for _ in range(20)}) == 20


@given(st.integers(0, SEALED_BYTES * 8 - 1))
def test_no_bit_can_be_turned(bit: int) -> None:
    seal, mine = VerifierSeal(KEY), verifier()
    changed = bytearray(seal.seal("web1", mine))
    changed[bit // 8] ^= 1 << bit % 8
    assert seal.open("web1", mine.salt, bytes(changed)) is None


@pytest.mark.parametrize("size", [0, 1, SEALED_BYTES - 1, SEALED_BYTES + 1])
def test_what_has_another_length_is_not_sealed(size: int) -> None:
    assert VerifierSeal(KEY).open("web1", verifier().salt, b"\x01" * size) is None


def test_the_nonce_comes_from_the_given_source() -> None:
    asked: list[int] = []

    def random_bytes(count: int) -> bytes:
        asked.append(count)
        return os.urandom(count)

    VerifierSeal(KEY, random_bytes=random_bytes).seal("web1", verifier())
    assert asked == [12]


def test_the_check_of_a_key_says_nothing_of_it_and_is_none_of_the_keys_that_seal() -> None:
    assert VerifierSeal(KEY).check == key_check(KEY)
    assert key_check(KEY) != key_check(OTHER_KEY)
    seal = VerifierSeal(key_check(KEY))
    assert seal.open("web1", verifier().salt, VerifierSeal(KEY).seal("web1", verifier())) is None
