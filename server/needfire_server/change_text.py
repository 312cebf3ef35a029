r"""How an event shows what changed: lines in one text of bounded length, and how many are missing.

Lines are bytes of files and names of files, so they are hostile. Each is escaped as paths are
(``escape_bytes``); the lines, which are one line each then, are joined by newlines, and the whole is
escaped once more. So a newline between two lines is ``\x0a``, one inside a name ``\\x0a``, and a
record stays one line in every form of log. Were the lines escaped only once, a name that holds a
newline could pretend to be two of them.
"""

from typing import Final

from needfire_protocol.escape import escape_bytes, printable, unescape_bytes

__all__ = ["CHANGE_TEXT_MAX", "ChangeText", "lines_of"]

CHANGE_TEXT_MAX: Final = 4_000
"""Characters: some fifty lines. A record of the audit log takes 4,096 in one field, so it has the
same text as the event."""
_LINE_BYTES_MAX: Final = 400
_CUT: Final = "…".encode()
_NEWLINE: Final = escape_bytes(b"\n")
_SHOWN_MAX: Final = 20_000
"""Characters: the longest field of an event."""


class ChangeText:
    """Gathers lines until there is no more room; what comes then is only counted."""

    __slots__ = ("_length", "_lines", "left_out")

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._length = 0
        self.left_out = 0
        """Lines for which there was no room."""

    @property
    def is_full(self) -> bool:
        """True once a line was left out: all later ones are, so that the text has no holes."""
        return self.left_out > 0

    def add(self, line: bytes) -> None:
        """Add a line without its end; a very long one is cut and ends in an ellipsis."""
        if self.is_full:
            self.left_out += 1
            return
        if len(line) > _LINE_BYTES_MAX:
            line = line[:_LINE_BYTES_MAX] + _CUT
        # Printable by now: what is left to do is to double each backslash.
        text = escape_bytes(escape_bytes(line).encode())
        length = self._length + len(text) + (len(_NEWLINE) if self._lines else 0)
        if length > CHANGE_TEXT_MAX:
            self.left_out = 1
            return
        self._lines.append(text)
        self._length = length

    def leave_out(self, count: int) -> None:
        """Count lines that the caller does not have at hand."""
        self.left_out += count

    def __str__(self) -> str:
        return _NEWLINE.join(self._lines)


def lines_of(text: str) -> list[str]:
    """Return the lines of such a text, each escaped as a path is; any text gives printable lines.

    Raises:
        FormatError: it was not written by ``ChangeText``.
    """
    lines = unescape_bytes(text).split(b"\n") if text else []
    return [printable(line.decode("utf-8", "backslashreplace"), _SHOWN_MAX) for line in lines]
