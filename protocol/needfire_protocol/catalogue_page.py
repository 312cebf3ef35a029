"""The catalogue as a document: docs/events.md, written by ``scripts/write-event-reference``."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from needfire_protocol.catalogue import ALARM_CLEARED, CATALOGUE, Entry, EventClass, cleared_by

__all__ = ["events_page"]

_HEAD: Final = """# Events

Everything that the programs report is one of these. `explain CODE` prints the same on each of them; it also takes a number
(`explain 100`), a documented state (`explain "state 3"`) and a line pasted from a log. Words in braces are filled in from the
field of that name.

This page is written by `scripts/write-event-reference`; a test fails where it differs from the catalogue.
"""
_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>#|])")


def events_page() -> str:
    """Return docs/events.md: each entry of the catalogue, by class, as Markdown."""
    parts = [_HEAD]
    for event_class in EventClass:
        entries = [entry for entry in CATALOGUE.values() if entry.event_class is event_class]
        parts += [f"## Class {event_class.value}\n", *(_section(entry) for entry in entries)]
    return "\n".join(parts)


def _section(entry: Entry) -> str:
    return "\n\n".join(_paragraphs(entry)) + "\n"


def _paragraphs(entry: Entry) -> Iterator[str]:
    yield f"### {entry.code}"
    yield f"`{entry.msg}`"
    yield ", ".join(_facts(entry)) + "."
    yield f"**What it means.** {_escaped(entry.description)}"
    yield f"**How to resolve.** {_escaped(entry.remedy)}"
    if entry.fields:
        yield "\n".join(_field_rows(entry.fields.items()))


def _facts(entry: Entry) -> Iterator[str]:
    yield f"Severity {entry.severity.word}"
    if entry.state is not None:
        yield f"documented state {entry.state}"
    if entry.number is not None:
        yield f"alert {entry.number} ({_escaped(entry.title or entry.msg)})"
    if entry.is_planned:
        yield "planned: nothing raises it yet"
    if entry.written_by is not None:
        yield f"in the words of {_escaped(entry.written_by)}, on a host"
    if entry.clears:
        yield f"clears {', '.join(map(_escaped, entry.clears))}"
    elif entry.event_class is EventClass.ALARM and entry.code != ALARM_CLEARED:
        yield f"cleared by {', '.join(map(_escaped, cleared_by(entry.code)))}"
    yield f"source: {_escaped(entry.source)}"


def _field_rows(fields: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield "| field | meaning |"
    yield "|---|---|"
    for name, meaning in fields:
        yield f"| `{name}` | {_escaped(meaning)} |"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
