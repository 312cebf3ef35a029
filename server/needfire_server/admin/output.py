"""How results and complaints reach a terminal or a script.

Results go to standard output, everything else to standard error. Text that came from elsewhere is
made printable once more here, whatever the server did with it before.
"""

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from needfire_protocol.escape import printable

__all__ = [
    "TableWriter",
    "complain",
    "hint",
    "json_line",
    "note",
    "print_json",
    "print_lines",
    "print_table",
    "short_time",
    "shown",
    "warn",
]

PROGRAM = "needfire-admin"
_CELL_TEXT_MAX = 4_096
_GOES_ON = "  \u00bb "
"""Stands before what a row goes on with on the next line of a terminal."""
_COLUMNS_MIN = 20


def shown(value: object) -> str:
    """Return a value as a cell shows it: ``-`` for None, yes and no for truth."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(str(value), _CELL_TEXT_MAX)


def short_time(time: str | None) -> str | None:
    """Return a time of the interface as tables show it: whole seconds."""
    return None if time is None else f"{time[:19]}Z"


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print aligned columns, two blanks apart; the last column is not padded."""
    table = [tuple(headings), *(tuple(shown(cell) for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(_fitted("  ".join(padded).rstrip()))


def print_lines(values: Mapping[str, object]) -> None:
    """Print names and values below each other."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        click.echo(f"{name + ':':<{width + 1}}  {shown(value)}")


class TableWriter:
    """Prints rows as they come, below headings that come with the first one.

    What comes later cannot be known, and columns that grew would be no columns. So a cell that is
    too long moves what stands behind it in its own line, as far as later cells have no room to spare.
    """

    def __init__(self, columns: Mapping[str, int]) -> None:
        """Args:
        columns: the width by heading; the last column is not padded.
        """
        self._headings = tuple(columns)
        self._widths = list(columns.values())
        self._is_begun = False

    def write(self, *cells: object) -> None:
        """Print one row."""
        if not self._is_begun:
            self._is_begun = True
            self._print(self._headings)
        self._print([shown(cell) for cell in cells])

    def _print(self, cells: Sequence[str]) -> None:
        line, end = "", 0
        for cell, width in zip(cells, self._widths, strict=True):
            end += width + 2
            line = f"{line}{cell}  ".ljust(end)
        # click flushes each line: whoever follows wants it now.
        click.echo(_fitted(line.rstrip()))


def _fitted(line: str) -> str:
    """Break a line where the terminal would, with a mark: what follows would look like a row."""
    columns = _terminal_columns()
    if columns is None:
        return line
    pieces, rest = [_first_columns(line, columns)], line
    while rest := rest[len(pieces[-1].removeprefix(_GOES_ON)) :]:
        pieces.append(_GOES_ON + _first_columns(rest, columns - len(_GOES_ON)))
    return "\n".join(pieces)


def _terminal_columns() -> int | None:
    """Return how wide the terminal is; None where there is none, or nobody knows."""
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return None
    return columns if columns >= _COLUMNS_MIN else None


def _first_columns(text: str, columns: int) -> str:
    taken = 0
    for place, character in enumerate(text):
        taken += _width(character)
        if taken > columns:
            return text[:place]
    return text


def _width(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def json_line(value: Mapping[str, Any]) -> str:
    """Return one object as one line that no terminal takes for anything but text."""
    line = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if not line.isprintable():
        # Of a store that somebody else wrote into: ours holds printable text only.
        line = json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")
    return line


def print_json(value: Mapping[str, Any]) -> None:
    """Print one object as one line."""
    click.echo(json_line(value))


def complain(text: str) -> None:
    """Say what went wrong."""
    _say("error", text)


def hint(text: str) -> None:
    """Say what to do about it, or what comes next."""
    _say("hint", text)


def warn(text: str) -> None:
    """Say what deserves a second look."""
    _say("warning", text)


def note(text: str) -> None:
    """Say what is going on."""
    _say("note", text)


def _say(kind: str, text: str) -> None:
    for line in text.splitlines() or [""]:
        click.echo(f"{PROGRAM}: {kind}: {printable(line, _CELL_TEXT_MAX)}", err=True)
