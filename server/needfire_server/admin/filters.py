"""What the verbs that read events and the audit log have in common: how filters come over the socket."""

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.errors import FormatError
from needfire_protocol.severity import Severity
from needfire_server.admin.requests import Arguments

__all__ = ["FILTERS", "codes_of", "event_class_of", "place_of", "severity_of"]

FILTERS = (
    "since_us",
    "until_us",
    "class",
    "severity",
    "code",
    "client",
    "path",
    "below",
    "request",
    "after",
    "before",
    "limit",
    "follow",
)


def event_class_of(arguments: Arguments) -> EventClass | None:
    """Return the class that is asked for."""
    word = arguments.optional_text("class")
    if word is None:
        return None
    try:
        return EventClass(word.lower())
    except ValueError:
        known = ", ".join(each.value for each in EventClass)
        raise FormatError(f"{word[:64]!r} is no class of events; expected {known}") from None


def severity_of(arguments: Arguments) -> Severity | None:
    """Return the least severity that is asked for."""
    word = arguments.optional_text("severity")
    return None if word is None else Severity.parse(word)


def place_of(arguments: Arguments) -> tuple[str | None, str | None]:
    """Return the path, and the directory below which it is to be; the root is the empty text."""
    path, below = arguments.optional_word("path"), arguments.optional_word("below")
    for name, value in (("path", path), ("below", below)):
        if value is not None and not value.startswith("/"):
            raise FormatError(f"the argument {name} must begin with /, not {value[:64]!r}")
    return path, None if below is None else below.rstrip("/")


def codes_of(arguments: Arguments) -> frozenset[str] | None:
    """Return the codes that code, class and severity leave, by the catalogue; None for all."""
    code = arguments.optional_word("code")
    event_class, severity = event_class_of(arguments), severity_of(arguments)
    if event_class is None and severity is None:
        return None if code is None else frozenset({code.upper()})
    return frozenset(
        entry.code
        for entry in CATALOGUE.values()
        if (code is None or entry.code == code.upper())
        and (event_class is None or entry.event_class is event_class)
        and (severity is None or entry.severity >= severity)
    )
