"""Which function makes the digests of an algorithm: hashlib's, or an optional package's.

BLAKE3 is not in hashlib. It is looked for when it is asked for, so that an agent that does not use
it needs nothing more.
"""

import hashlib
import importlib
from collections.abc import Callable
from typing import Final, Protocol

from needfire_protocol.errors import StorageError

__all__ = ["Digest", "has_digest", "new_digest"]

_PACKAGES: Final = {"blake3": "blake3"}
"""Package, and function in it, of the algorithms that hashlib does not have."""


class Digest(Protocol):
    """A digest in the making, as hashlib has them."""

    def update(self, data: bytes | memoryview, /) -> None: ...
    def digest(self) -> bytes: ...
    def copy(self) -> "Digest": ...


def new_digest(algorithm: str) -> Callable[[bytes | memoryview], Digest]:
    """Return the algorithm's own function: ``hashlib.new`` would cost a look-up for each file.

    Raises:
        StorageError: this host cannot make such digests.
    """
    package = _PACKAGES.get(algorithm)
    try:
        source = hashlib if package is None else importlib.import_module(package)
        made: Callable[[bytes | memoryview], Digest] = getattr(source, algorithm)
    except (ImportError, AttributeError):
        raise StorageError(
            f"digests of {algorithm} cannot be made on this host; install needfire[{algorithm}]"
        ) from None
    return made


def has_digest(algorithm: str) -> bool:
    """True where ``new_digest`` can make digests of this name."""
    try:
        new_digest(algorithm)
    except StorageError:
        return False
    return True
