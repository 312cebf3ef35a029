"""The catalogue of events: what each code means, and how to look one up.

``catalogue_entries.py`` holds the entries; no message text stands anywhere else. From here come
the words of logs and reports, ``explain`` on all three programs, and the tests that every entry
can really be raised.
"""

from collections.abc import Mapping
from string import Formatter
from types import MappingProxyType
from typing import Final

from needfire_protocol.catalogue_entries import ENTRIES
from needfire_protocol.catalogue_entry import Entry, EventClass

__all__ = ["CATALOGUE", "Entry", "EventClass", "explain", "find_entries"]


def find_entries(words: str) -> tuple[Entry, ...]:
    """Return the entries that a code, a state (``state 3``) or words of a message name.

    A code matches alone and in any case; otherwise every entry whose text holds the words, or
    whose text (its open places taken as wildcards) stands in a whole log line that was pasted.
    """
    wanted = words.strip()
    if wanted.upper() in CATALOGUE:
        return (CATALOGUE[wanted.upper()],)
    lowered = " ".join(wanted.lower().split())
    if not lowered:
        return ()
    number = lowered.removeprefix("state ")
    if number.isdecimal():
        return tuple(e for e in CATALOGUE.values() if e.state == int(number))
    return tuple(e for e in CATALOGUE.values() if _words_match(e, lowered))


def _words_match(entry: Entry, lowered: str) -> bool:
    literals = [text.lower() for text, _, _, _ in Formatter().parse(entry.msg) if text.strip()]
    longest = max(literals, key=len, default="").strip()
    return lowered in entry.msg.lower() or (len(longest) >= 8 and longest in lowered)


def explain(entry: Entry) -> str:
    """Return what ``explain CODE`` prints of one entry, several lines without a last newline."""
    lines = [
        f"{entry.code}: {entry.msg}",
        f"  class {entry.event_class.value}, severity {entry.severity.word}"
        + ("" if entry.state is None else f", documented state {entry.state}"),
        "",
        f"  What it means: {entry.description}",
        "",
        f"  How to resolve: {entry.remedy}",
    ]
    if entry.fields:
        width = max(map(len, entry.fields))
        lines += ["", "  Fields:"]
        lines += [f"    {name:<{width}}  {text}" for name, text in entry.fields.items()]
    return "\n".join(lines)


def _load() -> Mapping[str, Entry]:
    catalogue: dict[str, Entry] = {}
    for entry in ENTRIES:
        assert entry.code not in catalogue, f"{entry.code} stands twice in the catalogue"
        catalogue[entry.code] = entry
    return MappingProxyType(catalogue)


CATALOGUE: Final = _load()
"""Every entry by its code."""
