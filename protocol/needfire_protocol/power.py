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
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = ["POWER_BACKEND", "Power", "load_openssl", "power"]

Power: TypeAlias = Callable[[int, int, int], int]
"""(base, exponent, modulus) -> base ** exponent % modulus."""

_MODULUS_BYTES_MAX: Final = 1_024
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


class _OpenSsl:
    """Powers by the functions of a loaded library. Usable by several threads at once."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Raises:
        AttributeError: the library has not got what is needed.
        """
        for name, function in _FUNCTIONS.items():
            found = getattr(library, name)
            found.restype, found.argtypes = function.result, function.arguments
        self._library = library

    def __call__(self, base: int, exponent: int, modulus: int) -> int:
        """Return base ** exponent % modulus.

        Raises:
            ValueError: the exponent is negative, or the modulus even, too small or too large.
            MemoryError: there is no memory left.
        """
        size = (modulus.bit_length() + 7) // 8
        if exponent < 0 or modulus < 3 or modulus % 2 == 0 or size > _MODULUS_BYTES_MAX:
            raise ValueError("powers are calculated for odd moduli and exponents from 0 only")
        library = self._library
        numbers: list[int | None] = []
        context = library.BN_CTX_new()
        try:
            for value in (base % modulus, exponent, modulus):
                raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
                numbers.append(library.BN_bin2bn(raw, len(raw), None))
            numbers.append(library.BN_new())
            if context is None or None in numbers:
                raise MemoryError
            a, p, m, result = numbers
            raised = library.BN_mod_exp_mont_consttime(result, a, p, m, context, None)
            out = ctypes.create_string_buffer(size)
            if raised != 1 or library.BN_bn2binpad(result, out, size) != size:
                raise MemoryError
            return int.from_bytes(out.raw, "big")
        finally:
            for number in numbers:
                # Overwrites what it frees; nothing happens for a null pointer.
                library.BN_clear_free(number)
            library.BN_CTX_free(context)


def load_openssl(path: str | None) -> Power | None:
    """Return powers by the OpenSSL that the shared object at ``path`` is linked with, or None.

    None as well where it does not calculate as Python does.
    """
    if path is None:
        return None
    try:
        found = _OpenSsl(ctypes.CDLL(path))
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
