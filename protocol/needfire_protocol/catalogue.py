"""The catalogue of events: what each code means, and how to look one up.

``catalogue_entries.py`` holds the entries; no message text stands anywhere else. From here come the
words of logs and reports, ``explain`` on all three programs, and the tests that every entry can
really be raised.
"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from needfire_protocol.catalogue_entries import ENTRIES
from needfire_protocol.catalogue_entry import Entry, EventClass
from needfire_protocol.severity import Severity

__all__ = [
    "ALARM_CLEARED",
    "CATALOGUE",
    "Entry",
    "EventClass",
    "cleared_by",
    "explain",
    "find_entries",
    "is_success",
    "nothing_found",
]


def find_entries(words: str) -> tuple[Entry, ...]:
    """Return the entries that a code, a number, a state (``state 3``) or words of a message name.

    A code matches alone and in any case; otherwise every entry whose text holds the words, or
    whose text (its open places taken as wildcards) stands in a whole log line that was pasted.
    """
    wanted = words.strip()
    if wanted.upper() in CATALOGUE:
        return (CATALOGUE[wanted.upper()],)
    lowered = " ".join(wanted.lower().split())
    if not any(map(str.isalnum, lowered)):
        return ()
    pasted = _pasted_entries(wanted)
    if pasted:
        return pasted
    number = lowered.removeprefix("state ")
    if number.isdecimal():
        return tuple(e for e in CATALOGUE.values() if int(number) in (e.state, e.number))
    return tuple(e for e in CATALOGUE.values() if _words_match(e, lowered))


_MSG_OF_A_LINE: Final = r"""\bmsg="([^"]*)"|\bmsg=<([^>]*)>|"msg"\s*:\s*"((?:[^"\\]|\\.)*)\""""
"""The three forms of a log line. In a report that the server wrapped, the last one is the event."""

_PASTED_MAX: Final = 65_536


def _pasted_entries(line: str) -> tuple[Entry, ...]:
    """Return the entries whose text, with its places filled in, is the message of a log line.

    Several only where both programs have the same text.
    """
    found = re.findall(_MSG_OF_A_LINE, line[:_PASTED_MAX])
    if not found:
        return ()
    import html

    msg = html.unescape("".join(found[-1]))
    matching = [entry for entry in CATALOGUE.values() if _pattern(entry).fullmatch(msg)]
    # A text with few words of its own and an open place would match many lines.
    most = max((len(entry.msg) for entry in matching), default=0)
    return tuple(entry for entry in matching if len(entry.msg) == most)


def _pattern(entry: Entry) -> re.Pattern[str]:
    pieces = [
        re.escape(literal) + ("" if name is None else ".*") for literal, name in _pieces(entry.msg)
    ]
    return re.compile("".join(pieces), re.DOTALL)


def _pieces(msg: str) -> Iterator[tuple[str, str | None]]:
    """Yield the texts between fields, each with the name of the field behind it."""
    # Only who looks an event up waits for it.
    from string import Formatter

    for text, name, _, _ in Formatter().parse(msg):
        yield text, name


def _words_match(entry: Entry, lowered: str) -> bool:
    literals = [text.lower() for text, _ in _pieces(entry.msg) if text.strip()]
    longest = max(literals, key=len, default="").strip()
    titles = (entry.msg.lower(), (entry.title or "").lower())
    return any(lowered in title for title in titles) or (len(longest) >= 8 and longest in lowered)


def nothing_found(words: str) -> str:
    """Return what to say of words that no entry has, and what to try instead."""
    # Here, because it takes a while to load, and agents load this module.
    from difflib import get_close_matches

    alike = get_close_matches("_".join(words[:80].upper().split()), CATALOGUE, n=1, cutoff=0.75)
    instead = f"did you mean {alike[0]}? Else give" if alike else "give"
    return (
        f"nothing in the catalogue of {len(CATALOGUE)} events matches {words[:80]!r}; {instead} "
        'a code, or paste the text between the quotes of msg="…"'
    )


def explain(entry: Entry) -> str:
    """Return what ``explain CODE`` prints of one entry, several lines without a last newline."""
    lines = [
        f"{entry.code}: {entry.msg}",
        f"  class {entry.event_class.value}, severity {entry.severity.word}"
        + ("" if entry.state is None else f", documented state {entry.state}"),
        *_document_lines(entry),
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


def _document_lines(entry: Entry) -> Iterator[str]:
    if entry.number is not None:
        yield f"  alert {entry.number}: {entry.title or entry.msg}"
    if entry.is_planned:
        yield "  planned: nothing raises it yet"
    if entry.written_by is not None:
        yield f"  in the words of {entry.written_by}, on a host"
    if entry.clears:
        yield f"  clears {', '.join(entry.clears)}"
    elif entry.event_class is EventClass.ALARM and entry.code != ALARM_CLEARED:
        yield f"  cleared by {', '.join(cleared_by(entry.code))}"


ALARM_CLEARED: Final = "ALARM_CLEARED"
"""What an administrator raises who clears an alarm of any kind."""


def cleared_by(code: str) -> tuple[str, ...]:
    """Return the codes that clear an alarm; the last one is a person's."""
    ended = [entry.code for entry in CATALOGUE.values() if code in entry.clears]
    return (*ended, ALARM_CLEARED)


def is_success(
    code: str, severity: Severity, told: object = None, *, documented: bool | None = None
) -> bool:
    """Whether an event tells of something that went well: the same in records and in every form.

    Args:
        told: its field ``outcome``. Where that is ``success`` or ``failure``, it decides.
        documented: what the document says that a form comes from; only for codes of that document,
            which are not in the catalogue.
    """
    if told in ("success", "failure"):
        return told == "success"
    entry = CATALOGUE.get(code)
    if entry is None and documented is not None:
        return documented
    if entry is None or entry.is_failure is None:
        return severity < Severity.ERR
    return not entry.is_failure


def _load() -> Mapping[str, Entry]:
    catalogue: dict[str, Entry] = {}
    for entry in ENTRIES:
        assert entry.code not in catalogue, f"{entry.code} stands twice in the catalogue"
        catalogue[entry.code] = entry
    return MappingProxyType(catalogue)


CATALOGUE: Final = _load()
"""Every entry by its code."""
