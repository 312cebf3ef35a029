"""How a secret power of a large number is calculated: by OpenSSL, in constant time.

``pow`` of Python takes 8 ms for an exponent of 256 bits modulo 3072, keeps every other thread of
the process waiting meanwhile, and takes longer the more bits of the exponent are set. OpenSSL's
``BN_mod_exp_mont_consttime`` takes 0.9 ms, lets the others run, and neither its steps nor the
memory that it touches depend on the exponent's bits.

The OpenSSL is the one that this Python's ``hashlib`` is linked with: the symbols are looked up
through that module's own file. So no library is searched for by name, none is loaded that the
interpreter does not trust already, and the host needs no package of development files. Where the
interpreter has its OpenSSL built in, without symbols, ``pow`` of Python does the same, slower.

Rejected: Diffie-Hellman of ``cryptography`` (deprecated, to be removed); ``gmpy2`` (one more
compiled dependency of an agent that runs as root); ``srp._ctsrp`` (its exponentiation is not in
constant time, see ``srp.py`` for the rest); a table of powers of the generator (twice as fast for
one of three powers, but its memory accesses would follow the secret exponent).
"""

import ctypes
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = ["POWER_BACKEND", "Power", "load_openssl", "power"]

Power: TypeAlias = Callable[[int, int, int], int]
"""(base, exponent, modulus) -> base ** exponent % modulus."""

_MODULUS_BYTES_MAX: Final = 1_024
_MODULI_KEPT: Final = 4
"""Moduli for which what OpenSSL makes of them is kept; there is one group."""
_Pointer: TypeAlias = ctypes.c_void_p


class _Function(NamedTuple):
    result: Any
    arguments: tuple[Any, ...]


_FUNCTIONS: Final = {
    "BN_CTX_new": _Function(_Pointer, ()),
    "BN_CTX_free": _Function(None, (_Pointer,)),
    "BN_new": _Function(_Pointer, ()),
    "BN_clear_free": _Function(None, (_Pointer,)),
    "BN_bin2bn": _Function(_Pointer, (ctypes.c_char_p, ctypes.c_int, _Pointer)),
    "BN_bn2binpad": _Function(ctypes.c_int, (_Pointer, ctypes.c_char_p, ctypes.c_int)),
    "BN_MONT_CTX_new": _Function(_Pointer, ()),
    "BN_MONT_CTX_free": _Function(None, (_Pointer,)),
    "BN_MONT_CTX_set": _Function(ctypes.c_int, (_Pointer,) * 3),
    "BN_mod_exp_mont_consttime": _Function(ctypes.c_int, (_Pointer,) * 6),
}
"""The same in OpenSSL 1.1 to 4. A pointer that is not declared would be cut to 32 bits."""

_CHECKS: Final = (
    (5, 2**255 - 19, 2**521 - 1),
    (2**520 + 7, 0xC0FFEE, 2**521 - 1),
    (3, 0, 2**127 - 1),
    (0, 3, 2**127 - 1),
)
"""What a back end must calculate as Python does before it is used: wrong declarations would show."""


class _Modulus:
    """A modulus as OpenSSL calculates with it. Never changed, and so good for all threads."""

    def __init__(self, library: ctypes.CDLL, modulus: int) -> None:
        """Raises:
        MemoryError: there is no memory left.
        """
        self._library = library
        self.number = _number(library, modulus)
        self.form = library.BN_MONT_CTX_new()
        context = library.BN_CTX_new()
        try:
            if None in (self.number, self.form, context) or not library.BN_MONT_CTX_set(
                self.form, self.number, context
            ):
                raise MemoryError
        finally:
            library.BN_CTX_free(context)

    def __del__(self) -> None:
        self._library.BN_MONT_CTX_free(self.form)
        self._library.BN_clear_free(self.number)


class _OpenSsl:
    """Powers by the functions of a loaded library. Usable by several threads at once."""

    def __init__(self, path: str) -> None:
        """Raises:
        OSError: it cannot be loaded.
        AttributeError: the library has not got what is needed.
        """
        # What takes no time keeps Python's lock: to give it away and get it back takes longer, and
        # much longer where other threads want it too.
        self._library = _declared(ctypes.PyDLL(path))
        self._raise = _declared(ctypes.CDLL(path)).BN_mod_exp_mont_consttime
        self._modulus = lru_cache(maxsize=_MODULI_KEPT)(partial(_Modulus, self._library))

    def __call__(self, base: int, exponent: int, modulus: int) -> int:
        """Return base ** exponent % modulus.

        Raises:
            ValueError: the exponent is negative, or the modulus even, too small or too large.
            MemoryError: there is no memory left.
        """
        size = (modulus.bit_length() + 7) // 8
        if exponent < 0 or modulus < 3 or modulus % 2 == 0 or size > _MODULUS_BYTES_MAX:
            raise ValueError("powers are calculated for odd moduli and exponents from 0 only")
        library, prepared = self._library, self._modulus(modulus)
        a, p = _number(library, base % modulus), _number(library, exponent)
        result, context = library.BN_new(), library.BN_CTX_new()
        try:
            if None in (a, p, result, context):
                raise MemoryError
            raised = self._raise(result, a, p, prepared.number, context, prepared.form)
            out = ctypes.create_string_buffer(size)
            if raised != 1 or library.BN_bn2binpad(result, out, size) != size:
                raise MemoryError
            return int.from_bytes(out.raw, "big")
        finally:
            for number in (a, p, result):
                # Overwrites what it frees; nothing happens for a null pointer.
                library.BN_clear_free(number)
            library.BN_CTX_free(context)


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    for name, function in _FUNCTIONS.items():
        found = getattr(library, name)
        found.restype, found.argtypes = function.result, function.arguments
    return library


def _number(library: ctypes.CDLL, value: int) -> int | None:
    raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
    found: int | None = library.BN_bin2bn(raw, len(raw), None)
    return found


def load_openssl(path: str | None) -> Power | None:
    """Return powers by the OpenSSL that the shared object at ``path`` is linked with, or None.

    None as well where it does not calculate as Python does.
    """
    if path is None:
        return None
    try:
        found = _OpenSsl(path)
    except (OSError, AttributeError):
        return None
    is_right = all(found(*numbers) == pow(*numbers) for numbers in _CHECKS)
    return found if is_right else None


def _own_openssl() -> Power | None:
    try:
        import _hashlib  # not there in an interpreter without OpenSSL
    except ImportError:
        return None
    return load_openssl(getattr(_hashlib, "__file__", None))


_OPENSSL: Final = _own_openssl()

power: Final[Power] = pow if _OPENSSL is None else _OPENSSL
"""The best way that there is."""

POWER_BACKEND: Final = "Python's pow" if _OPENSSL is None else "OpenSSL, constant time"
"""For logs: which code raises to powers."""
