"""How the status page looks: Yule's, with its templates and placeholders (Samhain manual). Pure.

Templates are the administrator's own HTML and stay as they are; what is put into them is escaped.
"""

import html
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from needfire_server.states import ClientState, as_shown

__all__ = ["DEFAULT_TEMPLATES", "Head", "Row", "Templates", "render", "rows_of"]


@dataclass(frozen=True, slots=True)
class Templates:
    """The three parts of a page: ``head.html``, ``entry.html`` (for each row) and ``foot.html``."""

    head: str
    entry: str
    foot: str


@dataclass(frozen=True, slots=True)
class Head:
    """What the head tells. Times are microseconds since 1970; None: never."""

    now_us: int
    started_us: int
    last_connection_us: int | None
    open: int
    total: int
    most: int


@dataclass(frozen=True, slots=True)
class Row:
    """The latest event of one type of one client."""

    client: str
    status: str
    time_us: int
    is_present: bool
    """It is the client's present status."""
    server: str | None = None
    """Which server the client is connected to; None: none that we know of."""


DEFAULT_TEMPLATES: Final = Templates(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="refresh" content="120">
<title>Needfire status</title>
<style>
body { font-family: sans-serif; margin: 2em; }
table { border-collapse: collapse; }
td, th { border: 1px solid #999; padding: 0.2em 0.8em; text-align: left; }
</style>
</head>
<body>
<h1>Needfire status</h1>
<p>Now: %T<br>Started: %S<br>Last connection: %L<br>
Connections (max. %M simultaneous): now %O, total %A</p>
<table>
<tr><th>Host</th><th>Event</th><th>Time</th><th>Connected to</th></tr>
""",
    "<tr><td>%H</td><td>%S</td><td>%T</td><td>%C</td></tr>\n",
    "</table>\n</body>\n</html>\n",
)


def rows_of(
    names: Iterable[str],
    states: Mapping[str, ClientState],
    started_us: int,
    connected: Mapping[str, str],
    silent: Collection[str] = (),
) -> Sequence[Row]:
    """Return the rows of the clients in their order: the present status, then the newest event.

    A client that was never heard has one row, as old as the server's run.

    Args:
        connected: which server a client is connected to.
        silent: whose silence was reported.
    """
    rows: list[Row] = []
    for name in names:
        known = states.get(name) or ClientState.initial(name)
        state = as_shown(known, is_silent=name in silent)
        latest = dict(state.latest)
        latest.setdefault(state.status, state.last_seen_us or started_us)
        rows += (
            Row(name, status.value, time_us, status is state.status, connected.get(name))
            for status, time_us in sorted(
                latest.items(),
                key=lambda each: each[1],
                reverse=True,
            )
        )
    return rows


def render(templates: Templates, head: Head, rows: Iterable[Row]) -> str:
    """Return the page. ``[STATUS:]`` comments hold each client's present status, for scripts."""
    never = "-"
    last_us = head.last_connection_us
    values = {
        "T": _time(head.now_us),
        "S": _time(head.started_us),
        "L": never if last_us is None else _time(last_us),
        "O": str(head.open),
        "A": str(head.total),
        "M": str(head.most),
    }
    entries = "".join(_entry(templates.entry, row) for row in rows)
    return _filled(templates.head, values) + entries + templates.foot


def _entry(template: str, row: Row) -> str:
    values = {"H": row.client, "S": row.status, "T": _time(row.time_us), "C": row.server or "-"}
    entry = _filled(template, values)
    if not row.is_present:
        return entry
    words = html.escape(f"{row.client} {row.status} {_time(row.time_us)}")
    return f"<!-- [STATUS:] {words} -->\n{entry}"


_PLACE: Final = re.compile(r"%([A-Z ])")


def _filled(template: str, values: Mapping[str, str]) -> str:
    """Fill the places in; ``% `` is a percent sign, and what is no place stays as it is."""

    def value(place: re.Match[str]) -> str:
        letter = place[1]
        if letter == " ":
            return "%"
        return html.escape(values[letter]) if letter in values else place[0]

    return _PLACE.sub(value, template)


def _time(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us // 1_000_000, UTC):%Y-%m-%dT%H:%M:%S}+0000"
