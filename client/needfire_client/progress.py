"""A bar on a terminal while something long runs; nothing anywhere else.

    checking  [##########..........]  52 %  71,204 files  1.2 GB  /usr/lib/python3

Without a total (a first init) there is no bar, only the numbers. It is drawn on standard error,
at most ten times a second, on one line that is cleared at the end.
"""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, TextIO

from needfire_protocol.escape import escape_bytes

__all__ = ["ProgressBar", "progress_line"]

_INTERVAL_S: Final = 0.1
_CELLS: Final = 20
_CLEAR_LINE: Final = "\r\x1b[K"
_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


class ProgressBar:
    """A line that shows how far a pass is: ``with ProgressBar("checking") as bar``.

    Args:
        total: objects to be expected (a baseline knows how many it has); None: not known.
        stream: where to draw; standard error if not given. Nothing is drawn but on a terminal.
        clock: seconds that never run backwards.
    """

    def __init__(
        self,
        label: str,
        *,
        total: int | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._is_drawn = self._stream.isatty()
        self._is_shown = False
        self._due_s = clock()

    def expect(self, total: int) -> None:
        """Say how many objects are to be expected, once that is known."""
        self._total = total

    def update(self, files: int, bytes_read: int, path: bytes) -> None:
        """Show the numbers; this is the ``progress`` of a check."""
        if not self._is_drawn or self._clock() < self._due_s:
            return
        self._due_s = self._clock() + _INTERVAL_S
        line = progress_line(self._label, files, self._total, bytes_read, path)
        # Here, because only a terminal needs it, and the module drags compression along.
        import shutil

        columns = shutil.get_terminal_size().columns
        self._is_shown = True
        self._write(_CLEAR_LINE + line[: max(columns - 1, 0)])

    def make_way(self) -> None:
        """Clear the line for another one, and draw it again below that at the next update."""
        if self._is_shown:
            self._write(_CLEAR_LINE)
            self._is_shown = False
            self._due_s = self._clock()

    def close(self) -> None:
        """Clear the line."""
        if self._is_drawn:
            self._write(_CLEAR_LINE)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # A terminal that has gone away must not end a check.
            self._is_drawn = self._is_shown = False

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def progress_line(label: str, files: int, total: int | None, bytes_read: int, path: bytes) -> str:
    """Return the line without any control character, whatever the path holds."""
    parts = [label]
    if total:
        share = min(files / total, 1.0)
        filled = round(share * _CELLS)
        parts.append(f"[{'#' * filled}{'.' * (_CELLS - filled)}]  {share:4.0%}")
    parts += [f"{files:,} files", _size_text(bytes_read), escape_bytes(path)]
    return "  ".join(parts)


def _size_text(count: int) -> str:
    size, unit = float(count), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
