"""Everything about one event or record as a block of lines, for ``--detail``."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.catalogue_entry import Entry
from needfire_protocol.errors import FormatError
from needfire_protocol.escape import printable
from needfire_protocol.event import MSG_TEXT_MAX
from needfire_server.admin.output import shown
from needfire_server.change_text import lines_of

__all__ = ["detail_block", "titled"]

_VALUE_MAX: Final = 20_000
"""Characters: the longest field of an event."""
_APART: Final = frozenset({"v", "fields"})


def detail_block(data: Mapping[str, Any]) -> str:
    """Return a block that an empty line ends.

    Args:
        data: the JSON form of an event, or of a record of the audit log.
    """
    lines = [*_parts(titled(data)), *_fields(data["fields"])]
    width = max(len(name) for name, _ in lines)
    return "".join(f"{name + ':':<{width + 1}}  {value}\n" for name, value in lines)


def titled(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return it with its title, and where to read what to do."""
    code = data["code"]
    entry = CATALOGUE.get(code)
    if entry is None:
        # From a newer agent, which has more.
        return dict(data)
    title = data.get("msg", "") if entry.title is None else entry.title
    return {
        **data,
        "title": title or _msg(entry, data),
        "explain": f"needfire-admin explain {code}",
    }


def _msg(entry: Entry, data: Mapping[str, Any]) -> str:
    """Return the text of a record, which does not hold it: filled in as that of an event."""
    values = {"user": data.get("subject"), "client": data.get("client"), **data["fields"]}
    shown = {name: "" if value is None else str(value) for name, value in values.items()}
    return printable(entry.msg.format_map(defaultdict(str, shown)), MSG_TEXT_MAX)


def _parts(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((name, _text(value)) for name, value in data.items() if name not in _APART)


def _fields(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield fields, what was and what is now on one line."""
    for name, value in fields.items():
        stem, _, when = name.rpartition("_")
        if when == "old" and f"{stem}_new" in fields:
            yield f"  {stem}", f"{_text(value)} -> {_text(fields[f'{stem}_new'])}"
        elif name == "diff" and isinstance(value, str):
            yield from ((f"  {name}", line) for line in _lines(value))
        elif not (when == "new" and f"{stem}_old" in fields):
            yield f"  {name}", _text(value)


def _lines(text: str) -> list[str]:
    """Return the lines of a field that holds several, each printable."""
    try:
        return lines_of(text)
    except FormatError:
        return [_text(text)]


def _text(value: object) -> str:
    return printable(value, _VALUE_MAX) if isinstance(value, str) else shown(value)
