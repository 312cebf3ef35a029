r"""How an event shows what changed: lines in one text of bounded length, and how many are missing.

Lines are bytes of files and names of files, so they are hostile. The whole is escaped as paths are
(``escape_bytes``): a newline between two lines is ``\x0a``, a backslash is doubled, and
``unescape_bytes`` gives the lines back. So a record stays one line in every form of log.
"""

from typing import Final

from needfire_protocol.escape import escape_bytes

__all__ = ["CHANGE_TEXT_MAX", "ChangeText"]

CHANGE_TEXT_MAX: Final = 4_000
"""Characters: some fifty lines. A record of the audit log takes 4,096 in one field, so it has the
same text as the event."""
_LINE_BYTES_MAX: Final = 400
_CUT: Final = "…".encode()
_NEWLINE: Final = escape_bytes(b"\n")


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
        text = escape_bytes(line)
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
