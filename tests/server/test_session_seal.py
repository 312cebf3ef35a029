"""A stored session opens with its key, for its own row, and in no other way."""

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.keys import SessionKeys
from needfire_server.session_seal import (
    SealedSession,
    SessionSeal,
    StoredSession,
    registration_of,
)
from needfire_testkit.server_store import verifier

KEYS = SessionKeys(b"i" * 16, b"r" * 32, b"s" * 32, 1, 2, 7)
SESSION = StoredSession("web1", KEYS, b"p" * 16, b"v" * 16, 1_795_000_000_000_000)
ROOT_KEY = bytes(range(32))
SEAL = SessionSeal(ROOT_KEY, os.urandom)


@given(
    client=st.text(min_size=1, max_size=60),
    parts=st.tuples(*(st.binary(min_size=n, max_size=n) for n in (16, 32, 32, 16, 16))),
    numbers=st.tuples(st.integers(1, 255), st.integers(1, 255), st.integers(0, 2**32 - 1)),
    expires_us=st.integers(0, 2**62),
)
def test_what_was_sealed_opens_again(
    client: str, parts: tuple[bytes, ...], numbers: tuple[int, int, int], expires_us: int
) -> None:
    session_id, resumption, signing, instance, registration = parts
    keys = SessionKeys(session_id, resumption, signing, *numbers)
    session = StoredSession(client, keys, instance, registration, expires_us)
    row = SEAL.seal(session)
    assert (row.session_id, row.client, row.expires_us) == (session_id, client, expires_us)
    assert SEAL.open(row) == session
    # That a session is superseded is no secret, and changes without the key.
    assert SEAL.open(replace(row, is_current=False)) == session


def test_no_key_stands_in_the_row_and_no_two_seals_are_alike() -> None:
    row, again = SEAL.seal(SESSION), SEAL.seal(SESSION)
    assert row.sealed != again.sealed
    for secret in (KEYS.resumption_key, KEYS.signing_key):
        assert secret[:8] not in row.sealed


@pytest.mark.parametrize(
    "change",
    [
        {"client": "web2"},
        {"session_id": b"j" * 16},
        {"expires_us": SESSION.expires_us + 1},
        {"sealed": b""},
        {"sealed": b"\x01"},
    ],
    ids=str,
)
def test_a_row_that_was_changed_does_not_open(change: dict[str, object]) -> None:
    row: SealedSession = replace(SEAL.seal(SESSION), **change)  # type: ignore[arg-type]
    assert SEAL.open(row) is None


def test_no_byte_of_a_sealed_session_can_be_changed_or_cut_off() -> None:
    row = SEAL.seal(SESSION)
    for at in range(len(row.sealed)):
        changed = bytearray(row.sealed)
        changed[at] ^= 1
        assert SEAL.open(replace(row, sealed=bytes(changed))) is None
        assert SEAL.open(replace(row, sealed=row.sealed[:at])) is None


def test_another_key_opens_nothing() -> None:
    assert SessionSeal(bytes(32), os.urandom).open(SEAL.seal(SESSION)) is None


def test_each_registration_is_another_one() -> None:
    one = verifier("a password")
    assert registration_of(one) == registration_of(one)
    assert registration_of(one) != registration_of(verifier("another password"))
    assert len(registration_of(one)) == 16
