"""The event as one line of JSON, as docs/operate.md shows it."""

import json
from typing import Any

from needfire_protocol.event import Event, event_to_json

__all__ = ["dump_line", "json_line"]


def json_line(event: Event) -> str:
    """Return the event in the form of the log's JSON, one line without its end."""
    line = event_to_json(event)
    return line if line.isprintable() else _escaped(json.loads(line))


def dump_line(data: dict[str, Any]) -> str:
    """Return an object as one line of JSON, readable where its text can be printed."""
    line = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return line if line.isprintable() else _escaped(data)


def _escaped(data: dict[str, Any]) -> str:
    r"""ASCII only: ends of lines of Unicode and halves of surrogate pairs become ``\uNNNN``.

    Python leaves DEL as it is; it stands in a string, never in the structure.
    """
    return json.dumps(data, separators=(",", ":")).replace("\x7f", "\\u007f")
