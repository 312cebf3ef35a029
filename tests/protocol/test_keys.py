"""Each key has one label and depends on everything it should; a report's signature fits nowhere else."""

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.keys import (
    KeyLabel,
    ReportVerifier,
    SessionKeys,
    derive,
    derive_session_keys,
    derive_traffic_keys,
    extract,
    finished_value,
    sign_report,
)

MASTER = HMAC(bytes(range(32)), SHA256())
TRANSCRIPT = bytes(range(32, 64))
KEYS = derive_session_keys(MASTER, TRANSCRIPT, version=1, suite=1, features=0)
STREAM = bytes(range(16))


def is_report_signed(
    keys: SessionKeys, stream: bytes, sequence: int, type: int, body: bytes, signature: bytes
) -> bool:
    return ReportVerifier(keys, stream).is_signed(sequence, type, body, signature)


def test_no_label_is_used_twice_or_begins_another() -> None:
    texts = [label.value for label in KeyLabel]
    assert len(set(texts)) == len(texts) == len(KeyLabel.__members__)
    assert not any(b"\0" in text for text in texts)
    assert all(text.startswith(b"needfire 1 ") for text in texts)


def test_extract_and_derive_are_hkdf_of_rfc_5869() -> None:
    label = KeyLabel.SIGNING
    info = label.value + b"\0" + TRANSCRIPT
    expected = HKDF(SHA256(), 32, salt=TRANSCRIPT, info=info).derive(b"shared secret")
    assert derive(extract(b"shared secret", TRANSCRIPT), label, TRANSCRIPT) == expected


def test_what_is_derived_does_not_depend_on_what_was_derived_before() -> None:
    used, label = extract(b"shared secret", TRANSCRIPT), KeyLabel.RESUMED_AGENT_TRAFFIC
    finished_value(used, KeyLabel.RESUMED_AGENT_FINISHED, TRANSCRIPT)
    derive(used, KeyLabel.RESUMED_SERVER_TRAFFIC, TRANSCRIPT)
    fresh = extract(b"shared secret", TRANSCRIPT)
    assert derive(used, label, TRANSCRIPT) == derive(fresh, label, TRANSCRIPT)


def test_every_purpose_has_another_key() -> None:
    derived = {derive(MASTER, label, TRANSCRIPT) for label in KeyLabel}
    assert len(derived) == len(KeyLabel)
    full, resumed = (
        derive_traffic_keys(MASTER, TRANSCRIPT, resumed=resumed) for resumed in (False, True)
    )
    made = {full.agent, full.server, resumed.agent, resumed.server}
    made |= {KEYS.resumption_key, KEYS.signing_key}
    assert len(made) == 6
    assert all(len(key) == 32 for key in made)
    assert len(KEYS.session_id) == 16


@pytest.mark.parametrize("label", KeyLabel)
def test_every_key_depends_on_master_and_transcript(label: KeyLabel) -> None:
    key = derive(MASTER, label, TRANSCRIPT)
    assert key != derive(MASTER, label, bytes(32))
    assert key != derive(HMAC(bytes(32), SHA256()), label, TRANSCRIPT)
    assert finished_value(MASTER, label, TRANSCRIPT) != finished_value(MASTER, label, bytes(32))
    assert finished_value(MASTER, label, TRANSCRIPT) != key


def test_keys_are_not_shown_in_logs() -> None:
    shown = repr(KEYS) + repr(derive_traffic_keys(MASTER, TRANSCRIPT, resumed=False))
    for secret in (KEYS.resumption_key, KEYS.signing_key):
        assert str(secret)[2:-1] not in shown
        assert secret.hex() not in shown
    assert "agent" not in repr(derive_traffic_keys(MASTER, TRANSCRIPT, resumed=False)).lower()[8:]


def test_a_signature_is_the_documented_hmac() -> None:
    signed = b"needfire 1 report\0" + KEYS.session_id + STREAM + b"\0\0\0\0\0\0\0\x07" + b"\x01body"
    expected = hmac.new(KEYS.signing_key, signed, hashlib.sha256).digest()
    assert sign_report(KEYS, STREAM, 7, 1, b"body") == expected


reports = st.tuples(
    st.binary(min_size=16, max_size=16),
    st.integers(1, 2**63 - 1),
    st.integers(1, 255),
    st.binary(max_size=64),
)


@given(reports, reports)
def test_a_signature_fits_its_own_report_only(
    one: tuple[bytes, int, int, bytes], other: tuple[bytes, int, int, bytes]
) -> None:
    signature = sign_report(KEYS, *one)
    assert is_report_signed(KEYS, *one, signature)
    assert is_report_signed(KEYS, *other, signature) == (one == other)


def test_a_signature_belongs_to_its_session() -> None:
    signature = sign_report(KEYS, STREAM, 1, 1, b"body")
    other_id = SessionKeys(bytes(16), KEYS.resumption_key, KEYS.signing_key, 1, 1, 0)
    other_key = SessionKeys(KEYS.session_id, KEYS.resumption_key, bytes(32), 1, 1, 0)
    assert not is_report_signed(other_id, STREAM, 1, 1, b"body", signature)
    assert not is_report_signed(other_key, STREAM, 1, 1, b"body", signature)


@given(st.integers(0, 255))
def test_a_flipped_bit_of_a_signature_is_noticed(bit: int) -> None:
    signature = bytearray(sign_report(KEYS, STREAM, 1, 1, b"body"))
    signature[bit // 8] ^= 1 << bit % 8
    assert not is_report_signed(KEYS, STREAM, 1, 1, b"body", bytes(signature))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_signature_of_another_length_never_fits(length: int) -> None:
    signature = sign_report(KEYS, STREAM, 1, 1, b"body")
    assert not is_report_signed(KEYS, STREAM, 1, 1, b"body", (signature + b"x")[:length])


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bytes, bytes]] = []

    def spy(a: bytes, b: bytes) -> bool:
        asked.append((a, b))
        return True

    monkeypatch.setattr(hmac, "compare_digest", spy)
    assert is_report_signed(KEYS, STREAM, 1, 1, b"body", b"anything")
    assert asked == [(sign_report(KEYS, STREAM, 1, 1, b"body"), b"anything")]
