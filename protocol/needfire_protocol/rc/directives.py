"""Every directive and section that a configuration file may hold, and how to find them by name.

``directive_rows.py`` holds the rows. A new directive is one row there and one field in the
settings of the program that honours it; parser, documents and tests follow from those.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from needfire_protocol.rc.directive_row import DirectiveRow, Honoured, Inert, Program
from needfire_protocol.rc.directive_rows import ROWS

__all__ = [
    "DIRECTIVES",
    "SECTIONS",
    "DirectiveRow",
    "Honoured",
    "Inert",
    "Program",
    "suggest_directive",
    "suggest_section",
]


def suggest_directive(key: str) -> str | None:
    """Return the known name that is nearest to an unknown key, or None where none is near."""
    near = _nearest(key, DIRECTIVES)
    return None if near is None else DIRECTIVES[near].name


def suggest_section(heading: str) -> str | None:
    """Return the known heading that is nearest to an unknown one, or None."""
    near = _nearest(heading, SECTIONS)
    return None if near is None else SECTIONS[near]


def _nearest(word: str, known: Mapping[str, object]) -> str | None:
    import difflib

    # Cut: difflib takes quadratic time, and the word comes from a file.
    near = difflib.get_close_matches(word.lower()[:64], known, n=1, cutoff=0.7)
    return near[0] if near else None


def _by_name() -> Mapping[str, DirectiveRow]:
    directives: dict[str, DirectiveRow] = {}
    for row in ROWS:
        assert row.name.lower() not in directives, f"{row.name} stands twice in the table"
        directives[row.name.lower()] = row
    return MappingProxyType(directives)


def _sections() -> Mapping[str, str]:
    return MappingProxyType({section.lower(): section for row in ROWS for section in row.sections})


DIRECTIVES: Final = _by_name()
"""Every row by its name in lower case."""

SECTIONS: Final = _sections()
"""Every heading as documents spell it, by its lower-case form."""
