"""Powers by OpenSSL are those of Python, and where there is no OpenSSL Python's own serve."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol import power as power_module
from needfire_protocol.power import POWER_BACKEND, load_openssl, power

SMALL_PRIME = 2**127 - 1


@given(
    base=st.integers(-(2**400), 2**400),
    exponent=st.integers(0, 2**300),
    modulus=st.integers(1, 2**300).map(lambda half: 2 * half + 1),
)
def test_a_power_is_the_one_that_python_calculates(base: int, exponent: int, modulus: int) -> None:
    assert power(base, exponent, modulus) == pow(base, exponent, modulus)


@pytest.mark.parametrize("bits", [3072, 8191, 8192])
def test_large_moduli_are_calculated_right(bits: int) -> None:
    modulus = 2**bits - 1
    base, exponent = (int.from_bytes(os.urandom(size), "big") for size in (bits // 8, 32))
    assert power(base, exponent, modulus) == pow(base, exponent, modulus)


@pytest.mark.skipif(power is pow, reason="this Python has its OpenSSL built in")
@pytest.mark.parametrize(
    ("exponent", "modulus"),
    [(-1, SMALL_PRIME), (2, SMALL_PRIME + 1), (2, 1), (2, 0), (2, -7), (2, 2**8192 + 1)],
)
def test_what_openssl_is_not_asked_is_refused(exponent: int, modulus: int) -> None:
    with pytest.raises(ValueError, match="odd moduli"):
        power(3, exponent, modulus)


def test_a_host_whose_python_is_linked_with_openssl_uses_it() -> None:
    assert power is not pow, "the tests run on such a Python; a slow log-in would go unnoticed"
    assert POWER_BACKEND == "OpenSSL, constant time"


def test_without_a_usable_library_there_is_no_openssl(tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    without_symbols = sys.modules["msgpack._cmsgpack"].__file__
    assert load_openssl(None) is None
    assert load_openssl(str(tmp_path / "missing.so")) is None
    assert load_openssl(str(broken)) is None
    assert load_openssl(without_symbols) is None


def test_a_library_that_calculates_wrongly_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import _hashlib

    assert load_openssl(_hashlib.__file__) is not None
    monkeypatch.setattr(power_module._OpenSsl, "__call__", lambda *_: 1)
    assert load_openssl(_hashlib.__file__) is None
