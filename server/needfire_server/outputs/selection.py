"""Which events an output takes: thresholds as in Samhain's [Log] section, and classes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.errors import FormatError
from needfire_protocol.event import Event
from needfire_protocol.severity import Severity, SeverityFilter

__all__ = ["Selection", "parse_class_severity", "parse_classes"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The thresholds of one output."""

    severities: SeverityFilter = SeverityFilter(Severity)  # noqa: RUF009  # immutable
    classes: frozenset[EventClass] = frozenset(EventClass)
    by_class: Mapping[EventClass, SeverityFilter] = field(default_factory=dict)
    """Thresholds of single classes; they count instead of ``severities``."""

    def __contains__(self, event: Event) -> bool:
        if event.event_class not in self.classes:
            return False
        return event.severity in self.by_class.get(event.event_class, self.severities)


def parse_classes(text: str) -> frozenset[EventClass]:
    """Return the classes of a list: names, ``*`` for all, ``!`` before what is taken out again.

    Items are separated by commas or blanks and apply from left to right; a list that begins with
    an exclusion starts from all.

    Raises:
        FormatError: the list is empty or names no class.
    """
    items = text.replace(",", " ").split()
    if not items:
        raise FormatError("the list of classes is empty")
    selected = set(EventClass) if items[0].startswith("!") else set()
    for item in items:
        word = item.removeprefix("!")
        named = set(EventClass) if word == "*" else {_class(word)}
        selected = selected - named if item.startswith("!") else selected | named
    return frozenset(selected)


def parse_class_severity(text: str) -> tuple[EventClass, SeverityFilter]:
    """Return the class and its threshold of ``CLASS LIST``.

    Raises:
        FormatError: the class or the list is none.
    """
    word, _, threshold = text.partition(" ")
    return _class(word), SeverityFilter.parse(threshold)


def _class(word: str) -> EventClass:
    try:
        return EventClass(word.lower())
    except ValueError:
        known = ", ".join(each.value for each in EventClass)
        raise FormatError(f"{word[:64]!r} is no class of events; expected {known}") from None
