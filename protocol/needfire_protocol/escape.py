r"""Hostile bytes made printable: one spelling for paths, and one for text that a peer sent.

A path is bytes. In an event it is text in which every byte that is not printable UTF-8 is written
as ``\xNN`` and a backslash is doubled, so that the original can be recovered exactly and no
control character, bidirectional override or half-decoded byte ever reaches a terminal or a log.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from needfire_protocol.errors import FormatError

__all__ = ["count_odd", "escape_bytes", "is_weird", "printable", "unescape_bytes"]

_ESCAPE: Final = rb"\\(?:\\|x([0-9a-fA-F]{2}))|(\\)"
"""Compiled when it is asked for, and kept by ``re``: an agent seldom takes an escape back."""
_SHOWN_MAX: Final = 4_096
"""Characters of which each table keeps how they are shown: half a MiB."""
_CONTROLS = bytes([*range(0x20), 0x7F])
"""All that is ASCII and not printable."""


def escape_bytes(raw: bytes) -> str:
    r"""Return raw as one line of printable text; ``unescape_bytes`` gives it back exactly."""
    text = raw.decode("utf-8", "surrogateescape")
    return text if text.isprintable() and "\\" not in text else text.translate(_ESCAPED)


def unescape_bytes(text: str) -> bytes:
    r"""Return the bytes that ``escape_bytes`` was given.

    Raises:
        FormatError: a backslash is followed by neither a backslash nor ``xNN``.
    """

    def replace(match: re.Match[bytes]) -> bytes:
        if match[2] is not None:
            raise FormatError("a backslash must be followed by another or by xNN")
        return bytes([int(match[1], 16)]) if match[1] is not None else b"\\"

    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise FormatError("the text holds half of a surrogate pair") from None
    return re.sub(_ESCAPE, replace, raw)


def printable(text: str, length_max: int = 1024) -> str:
    r"""Return text of a peer or a library as one printable line of at most ``length_max``.

    Unlike ``escape_bytes`` it leaves a backslash alone: it is for reading, not for recovering.
    What is too long ends in an ellipsis. Applied again it changes nothing.
    """
    if len(text) <= length_max and text.isprintable():
        return text
    shown = text[: length_max + 1].translate(_SHOWN)
    if len(text) <= length_max and len(shown) <= length_max:
        return shown
    return _cut([_SHOWN[ord(char)] for char in text[: length_max + 1]], length_max)


def count_odd(text: str, marks: str = "") -> int:
    """Return how many characters of a text are not printable, or are one of these ASCII marks.

    For long texts of ASCII, such as those of many events together: looking at them all takes a
    quarter of the time that ``isprintable`` takes.
    """
    if text.isascii():
        plain = text.encode()
        return len(plain) - len(plain.translate(None, _CONTROLS + marks.encode()))
    return sum(not char.isprintable() or char in marks for char in text)


class _Shown(dict[int, str]):
    """How a character is shown, by its number; looked up once for each, and there are a million.

    Args:
        surrogates: how the bytes of halves of surrogate pairs are had: an error handler.
        own: characters that are shown in a way of their own.
    """

    def __init__(self, surrogates: str, own: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__((ord(char), shown) for char, shown in own.items())
        self._surrogates = surrogates

    def __missing__(self, number: int) -> str:
        char = chr(number)
        # False for controls, invisible formatting (bidirectional overrides), every blank but the
        # space, surrogates and what Unicode has not assigned.
        if not char.isprintable():
            encoded = char.encode("utf-8", self._surrogates)
            char = "".join(f"\\x{byte:02x}" for byte in encoded)
        if len(self) < _SHOWN_MAX:
            self[number] = char
        return char


_SHOWN: Final = _Shown("surrogatepass")
_ESCAPED: Final = _Shown("surrogateescape", {"\\": "\\\\"})
"""A surrogate stands for a byte that is not UTF-8."""


def _cut(pieces: list[str], length_max: int) -> str:
    length = sum(map(len, pieces))
    while length > length_max - 1:
        length -= len(pieces.pop())
    return "".join(pieces) + "…"


def is_weird(name: bytes) -> bool:
    """True where a file name holds bytes that a person cannot see or that are not UTF-8."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return not text.isprintable()
