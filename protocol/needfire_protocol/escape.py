r"""Hostile bytes made printable: one spelling for paths, and one for text that a peer sent.

A path is bytes. In an event it is text in which every byte that is not printable UTF-8 is written
as ``\xNN`` and a backslash is doubled, so that the original can be recovered exactly and no
control character, bidirectional override or half-decoded byte ever reaches a terminal or a log.
"""

import re
import unicodedata
from typing import Final

from needfire_protocol.errors import FormatError

__all__ = ["escape_bytes", "is_weird", "printable", "unescape_bytes"]

_ESCAPE = re.compile(rb"\\(?:\\|x([0-9a-fA-F]{2}))|(\\)")
_HIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Controls, invisible formatting (bidirectional overrides), surrogates, unassigned, separators."""


def _is_shown(char: str) -> bool:
    return char.isascii() or unicodedata.category(char) not in _HIDDEN_CATEGORIES


def escape_bytes(raw: bytes) -> str:
    r"""Return raw as one line of printable text; ``unescape_bytes`` gives it back exactly."""
    if raw.isascii() and b"\\" not in raw:
        text = raw.decode("ascii")
        if text.isprintable():
            return text
    pieces: list[str] = []
    for char in raw.decode("utf-8", "surrogateescape"):
        if char == "\\":
            pieces.append("\\\\")
        elif char.isprintable() and _is_shown(char):
            pieces.append(char)
        else:
            encoded = char.encode("utf-8", "surrogateescape")
            pieces.extend(f"\\x{byte:02x}" for byte in encoded)
    return "".join(pieces)


def unescape_bytes(text: str) -> bytes:
    r"""Return the bytes that ``escape_bytes`` was given.

    Raises:
        FormatError: a backslash is followed by neither a backslash nor ``xNN``.
    """

    def replace(match: re.Match[bytes]) -> bytes:
        if match[2] is not None:
            raise FormatError("a backslash must be followed by another or by xNN")
        return bytes([int(match[1], 16)]) if match[1] is not None else b"\\"

    return _ESCAPE.sub(replace, text.encode("utf-8", "surrogateescape"))


def printable(text: str, length_max: int = 1024) -> str:
    r"""Return text of a peer or a library as one bounded printable line, for logs and terminals.

    Unlike ``escape_bytes`` it leaves a backslash alone: it is for reading, not for recovering.
    """
    cut = text if len(text) <= length_max else text[:length_max] + "…"
    return "".join(
        c
        if c.isprintable() and _is_shown(c)
        else "".join(f"\\x{byte:02x}" for byte in c.encode("utf-8", "surrogatepass"))
        for c in cut
    )


def is_weird(name: bytes) -> bool:
    """True where a file name holds bytes that a person cannot see or that are not UTF-8."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return not all(char.isprintable() and _is_shown(char) for char in text)
