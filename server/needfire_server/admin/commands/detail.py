"""Everything about one event or record as a block of lines, for ``--detail``."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.catalogue_entry import Entry, EventClass
from needfire_protocol.errors import FormatError
from needfire_protocol.escape import printable
from needfire_protocol.event import MSG_TEXT_MAX
from needfire_server.admin.output import shown
from needfire_server.change_text import lines_of

__all__ = ["detail_block", "titled"]

_VALUE_MAX: Final = 20_000
"""Characters: the longest field of an event."""
_APART: Final = frozenset({"v", "fields", "time", "title", "class", "code", "msg"})
"""What stands in the heading and under the labels, or is no part of what is told."""
_RULE: Final = "=" * 68
_OF_USERS: Final = frozenset({EventClass.ADMINISTRATION.value, EventClass.PROVISIONING.value})
_REFUSED: Final = frozenset({"ADMIN_REFUSED", "AUTHZ_FAIL"})


def detail_block(data: Mapping[str, Any]) -> str:
    """Return a block that an empty line ends, in the form of the Session Smart Router's ``show events``.

    Time and title stand between two rules ("Configuring Audit Events and Logging"); then comes what
    every event has, under the labels and in the order of that document, where it is known; then
    everything else in columns, and a difference line by line. Each line but those of the heading
    begins with a name or is indented, so no content can look like the heading of another event.

    Args:
        data: the JSON form of an event, or of a record of the audit log.
    """
    shown = titled(data)
    fields = data["fields"]
    difference = fields.get("diff")
    heading = f"{_text(shown['time'])} {_text(shown.get('title', shown.get('msg', '')))}"
    columns = [*_parts(shown), *_fields(fields)]
    width = max((len(name) for name, _ in columns), default=0)
    return "".join(
        f"{line}\n"
        for line in (
            _RULE,
            heading,
            _RULE,
            *(f"{label}: {value}" for label, value in _labelled(shown) if value),
            *(f"{name + ':':<{width + 1}}  {value}" for name, value in columns),
            *(f"  {line}" for line in _lines(difference)),
        )
    )


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


def _labelled(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the labels in the order of the document; an empty value is not known."""
    code, fields = data["code"], data["fields"]
    entry = CATALOGUE.get(code)
    event_class = data.get("class") or ("" if entry is None else entry.event_class.value)
    speaker, about = data.get("client"), fields.get("client")
    yield "Type", f"{event_class}.{_text(code).lower()}"
    # As in the table: in parentheses where the server speaks of it.
    yield "Node", _known(speaker) or (f"({_text(about)})" if about else "")
    yield "User", _known(fields.get("user") or data.get("subject"))
    yield "Collector", "needfire-agent" if speaker and "msg" in data else "needfire-server"
    yield "Description", _known(data.get("msg"))
    yield "Permitted", str(code not in _REFUSED) if _is_decided(event_class, code) else ""
    yield "Source Ip", _known(fields.get("peer") or fields.get("address"))


def _is_decided(event_class: str, code: str) -> bool:
    """Return whether it tells of something that a user was, or was not, permitted to do."""
    return event_class in _OF_USERS and code != "ADMIN_REQUEST"


def _known(value: object) -> str:
    return "" if value is None else _text(value)


def _parts(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((name, _text(value)) for name, value in data.items() if name not in _APART)


def _fields(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield fields, what was and what is now on one line."""
    for name, value in fields.items():
        stem, _, when = name.rpartition("_")
        if when == "old" and f"{stem}_new" in fields:
            yield f"  {stem}", f"{_text(value)} -> {_text(fields[f'{stem}_new'])}"
        elif name == "diff" and value and isinstance(value, str):
            continue
        elif not (when == "new" and f"{stem}_old" in fields):
            yield f"  {name}", _text(value)


def _lines(text: object) -> list[str]:
    """Return the lines of a field that holds several, each printable; none where it is no text."""
    if not isinstance(text, str):
        return []
    try:
        return lines_of(text)
    except FormatError:
        return [_text(text)]


def _text(value: object) -> str:
    return printable(value, _VALUE_MAX) if isinstance(value, str) else shown(value)
