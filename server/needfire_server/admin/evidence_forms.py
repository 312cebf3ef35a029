"""The evidence of some days as JSON, as text for a terminal, and as a page for the auditor."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from html import escape
from typing import Any, Final

from needfire_protocol.escape import printable
from needfire_protocol.event import format_time
from needfire_server.admin.evidence import EVERY_CLIENT, ClientEvidence, Evidence

__all__ = ["as_html", "as_json", "as_text"]

_CELL_TEXT_MAX: Final = 4_096
_STYLE: Final = (
    "body{font:14px/1.5 sans-serif;margin:2em;max-width:80em}"
    "table{border-collapse:collapse;margin:.5em 0}"
    "td,th{border:1px solid #999;padding:.2em .6em;text-align:left;vertical-align:top;"
    "overflow-wrap:anywhere}"
    "h2{border-bottom:2px solid #333;margin-top:2em}.none{color:#555}"
)

_Table = tuple[str, Sequence[str], list[Sequence[object]], int]
"""Heading, headings of the columns, rows, and how many more there are."""


def as_json(evidence: Evidence) -> dict[str, Any]:
    """Return everything as one object; times are text, as in events."""
    return {
        "since": format_time(evidence.since_us),
        "until": format_time(evidence.until_us),
        "clients": {
            name or None: _client_json(client) for name, client in sorted(evidence.clients.items())
        },
    }


def as_text(evidence: Evidence) -> Iterator[str]:
    """Yield the lines of the report, each printable."""
    yield f"File integrity from {_time(evidence.since_us)} to {_time(evidence.until_us)}"
    for name, client in sorted(evidence.clients.items()):
        yield ""
        yield _shown(_heading(name))
        for label, value in _summary(name, client):
            yield f"  {label + ':':<24} {_shown(value)}"
        for title, columns, rows, more in _tables(client):
            yield f"  {title}:"
            for row in rows:
                cells = zip(columns, row, strict=True)
                yield "    " + ", ".join(f"{c} {_shown(cell)}" for c, cell in cells if cell != "")
            if more:
                yield f"    and {more} more"


def as_html(evidence: Evidence) -> Iterator[str]:
    """Yield a page that needs nothing else: no script, no style sheet, no picture."""
    span = f"{_time(evidence.since_us)} to {_time(evidence.until_us)}"
    yield (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>File integrity, {_html(span)}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>File integrity</h1>\n<p>{_html(span)}</p>\n"
    )
    for name, client in sorted(evidence.clients.items()):
        yield f"<h2>{_html(_heading(name))}</h2>\n"
        yield _html_table(("", ""), [list(pair) for pair in _summary(name, client)])
        for title, columns, rows, more in _tables(client):
            yield f"<h3>{_html(title)}</h3>\n" + _html_table(columns, rows)
            if more:
                yield f'<p class="none">and {more} more</p>\n'
    yield "</body></html>\n"


def _heading(name: str) -> str:
    return "All clients" if name == EVERY_CLIENT else name


def _summary(name: str, client: ClientEvidence) -> Iterator[tuple[str, object]]:
    if name == EVERY_CLIENT:
        return
    if client.checks or not client.groups:
        yield "checks", client.checks or "none: nothing shows that files were compared"
    else:
        yield "checks", "none of all rules, only of the groups below"
    if client.quick_checks:
        yield "quick ones of them", client.quick_checks
    if client.last_check_us is not None:
        yield "last check", f"{_time(client.last_check_us)}, {client.files} objects"
        yield "not seen by it", f"{client.unseen} objects"
    yield "longest without a check", _duration(client.longest_without_check_us)
    yield "changed paths", len(client.changes) + client.changes_not_listed


def _tables(client: ClientEvidence) -> Iterator[_Table]:
    rows: list[Sequence[object]]
    columns: Sequence[str]
    if client.groups:
        rows = [
            (
                "rules of no group" if name == "-" else name,
                group.checks,
                group.quick_checks,
                _time(group.last_check_us),
                _duration(group.longest_without_check_us),
            )
            for name, group in sorted(client.groups.items())
        ]
        columns = ("group", "checks of it", "quick ones", "last", "longest without")
        yield "Groups checked by themselves", columns, rows, client.groups_not_listed
    if client.changes:
        rows = [
            (
                change.kind,
                path,
                change.severity,
                change.times,
                _time(change.last_us),
                change.who or "",
            )
            for path, change in sorted(client.changes.items())
        ]
        columns = ("what", "path", "severity", "times", "last", "by")
        yield "Changes", columns, rows, client.changes_not_listed
    if client.accepted:
        rows = [
            (_time(each.time_us), each.what, each.user, each.digest) for each in client.accepted
        ]
        yield "Accepted", ("at", "what", "by", "digest"), rows, client.accepted_not_listed
    if client.gaps:
        rows = [
            (_time(gap.time_us), gap.text, gap.scope or "", gap.since or "", gap.until or "")
            for gap in client.gaps
        ]
        columns = ("at", "what", "where", "from", "to")
        yield "Not covered", columns, rows, client.gaps_not_listed


def _client_json(client: ClientEvidence) -> Mapping[str, Any]:
    data = asdict(client)
    _times_to_text(data)
    data["changes"] = [{"path": path, **change} for path, change in sorted(data["changes"].items())]
    for each in (
        *(*data["changes"], *data["gaps"], *data["accepted"]),
        *data["groups"].values(),
    ):
        _times_to_text(each)
    return data


def _times_to_text(data: dict[str, Any]) -> None:
    """Replace times in microseconds with text; durations stay numbers."""
    for name in [name for name in data if name.endswith("_us") and "longest" not in name]:
        value = data.pop(name)
        data[name.removesuffix("_us")] = None if value is None else format_time(value)


def _html_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{_html(column)}</th>" for column in columns) if any(columns) else ""
    body = "".join(
        "<tr>" + "".join(f"<td>{_html(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    return f"<table>{f'<tr>{head}</tr>' if head else ''}\n{body}</table>\n"


def _html(value: object) -> str:
    return escape(_shown(value))


def _shown(value: object) -> str:
    return printable(str(value), _CELL_TEXT_MAX)


def _time(time_us: int) -> str:
    return format_time(time_us)[:19] + "Z"


def _duration(duration_us: int) -> str:
    minutes, seconds = divmod(duration_us // 1_000_000, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count)[:20] or "0 s"
