"""Severities and the threshold lists that select them, as Samhain has them (samhain.md 2.1, 1.9)."""

from collections.abc import Iterable
from enum import IntEnum

from needfire_protocol.errors import FormatError

__all__ = ["Severity", "SeverityFilter"]


class Severity(IntEnum):
    """How much an event matters; ordered, least first.

    ``mark`` stands between warn and err, as in Samhain: marks (heartbeats, "check completed")
    pass a threshold of warn. The numbers are ours and go on the wire.
    """

    DEBUG = 1
    INFO = 2
    NOTICE = 3
    WARN = 4
    MARK = 5
    ERR = 6
    CRIT = 7
    ALERT = 8

    @property
    def word(self) -> str:
        """Name as configuration files and JSON spell it, for example ``crit``."""
        return self.name.lower()

    @property
    def label(self) -> str:
        """Four letters of the XML form, for example ``CRIT``."""
        return _LABELS[self]

    @classmethod
    def parse(cls, word: str) -> "Severity":
        """Return the severity of a configuration word.

        Raises:
            FormatError: the word is none of the eight names.
        """
        try:
            return cls[word.strip().upper()]
        except KeyError:
            names = ", ".join(s.word for s in cls)
            raise FormatError(
                f"{word.strip()!r} is not a severity; expected one of {names}"
            ) from None


_LABELS = {
    Severity.DEBUG: "DEBG",
    Severity.INFO: "INFO",
    Severity.NOTICE: "NOTE",
    Severity.WARN: "WARN",
    Severity.MARK: "MARK",
    Severity.ERR: "ERRO",
    Severity.CRIT: "CRIT",
    Severity.ALERT: "ALRT",
}


class SeverityFilter:
    """A set of severities, written as Samhain's threshold lists are.

    ``warn`` selects warn and everything above it; ``=warn`` only warn; ``*`` everything;
    ``!warn`` takes warn and everything above it out again, ``!=warn`` only warn, ``!*`` and
    ``none`` everything. Items are separated by commas, blanks or tabs and apply left to right;
    a list that begins with an exclusion starts from everything. A leading ``>=`` is accepted.
    """

    __slots__ = ("_selected",)

    def __init__(self, selected: Iterable[Severity]) -> None:
        self._selected = frozenset(selected)

    @classmethod
    def at_least(cls, severity: Severity) -> "SeverityFilter":
        """Select one severity and everything above it."""
        return cls(s for s in Severity if s >= severity)

    @classmethod
    def parse(cls, text: str) -> "SeverityFilter":
        """Return the filter of a threshold list.

        Raises:
            FormatError: the list is empty or an item is no severity.
        """
        items = text.replace(",", " ").split()
        if not items:
            raise FormatError("the severity list is empty")
        selected: set[Severity] = set()
        if items[0].startswith("!") and items[0] != "!*":
            selected = set(Severity)
        for item in items:
            negated = item.startswith("!")
            word = item.removeprefix("!")
            if word == "*":
                named = set(Severity)
            elif word.lower() == "none":
                if negated:
                    raise FormatError("'!none' means nothing; write '*'")
                negated, named = True, set(Severity)
            elif word.startswith("="):
                named = {Severity.parse(word[1:])}
            else:
                least = Severity.parse(word.removeprefix(">="))
                named = {s for s in Severity if s >= least}
            selected = selected - named if negated else selected | named
        return cls(selected)

    def __contains__(self, severity: object) -> bool:
        return severity in self._selected

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeverityFilter) and self._selected == other._selected

    def __hash__(self) -> int:
        return hash(self._selected)

    def __repr__(self) -> str:
        return f"SeverityFilter({', '.join(s.word for s in sorted(self._selected)) or 'none'})"
