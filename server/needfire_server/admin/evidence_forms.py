"""The evidence of some days as JSON, as text for a terminal, and as a page for the auditor."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Final

from needfire_protocol.counted import counted
from needfire_protocol.escape import printable
from needfire_protocol.event import format_time
from needfire_server.admin.acceptance import RULE, Accepted
from needfire_server.admin.evidence import EVERY_CLIENT, Change, ClientEvidence, Evidence

__all__ = ["Head", "as_html", "as_json", "as_text"]

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


@dataclass(frozen=True, slots=True)
class Head:
    """What a report says of itself.

    Attributes:
        interval_us: each host is to be checked at least once in this time.
        size, root: of the audit log at its latest checkpoint, which is ``note``; 0: nothing of it
            is signed.
    """

    server: str
    made_us: int
    made_by: str
    interval_us: int
    size: int = 0
    root: str = ""
    note: str = ""
    key: str = ""


def as_json(evidence: Evidence, head: Head) -> dict[str, Any]:
    """Return everything as one object; times are text, as in events."""
    checkpoint = {"size": head.size, "root": head.root, "note": head.note, "key": head.key}
    return {
        "server": head.server,
        "made": format_time(head.made_us),
        "made_by": head.made_by,
        "since": format_time(evidence.since_us),
        "until": format_time(evidence.until_us),
        "audit_checkpoint": checkpoint if head.size else None,
        "acceptance_rule": RULE,
        "check_interval_s": head.interval_us // 1_000_000,
        "clients": {
            name or None: {**_verdict_json(name, client, head), **_client_json(client)}
            for name, client in sorted(evidence.clients.items())
        },
    }


def as_text(evidence: Evidence, head: Head) -> Iterator[str]:
    """Yield the lines of the report, each printable."""
    yield f"File integrity from {_time(evidence.since_us)} to {_time(evidence.until_us)}"
    for label, value in _heading_lines(head):
        yield f"{label + ':':<12} {_shown(value)}"
    yield ""
    rows = [_VERDICT, *_verdicts(evidence, head)]
    widths = [max(len(_shown(cell)) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield "  ".join(_shown(cell).ljust(width) for cell, width in cells).rstrip()
    for name, client in sorted(evidence.clients.items()):
        yield ""
        yield _shown(_heading(name))
        for label, value in _summary(name, client):
            yield f"  {label + ':':<24} {_shown(value)}"
        for title, columns, rows_of, more in _tables(client, evidence):
            yield f"  {title}:"
            for each in rows_of:
                yield from _block(columns, each)
            if more:
                yield f"    and {more} more"
    yield ""
    yield RULE


_WITHOUT_LABEL: Final = frozenset({"at", "what", "path", "group"})
"""Columns that say what a row is about: its first line."""


def _block(columns: Sequence[str], cells: Sequence[object]) -> Iterator[str]:
    """Yield a row as lines: what it is about, its values before and now, and the rest by name."""
    shown = {
        column: _shown(cell) for column, cell in zip(columns, cells, strict=True) if cell != ""
    }
    yield "    " + "  ".join(
        shown.pop(each) for each in columns if each in _WITHOUT_LABEL & {*shown}
    )
    if values := shown.pop("in", ""):
        yield f"      {values}"
    if rest := [_labelled(*each) for each in shown.items()]:
        yield f"      {', '.join(rest)}"


def _labelled(label: str, value: str) -> str:
    return value if value == _NOT_ACCEPTED else f"{label} {value}"


def as_html(evidence: Evidence, head: Head) -> Iterator[str]:
    """Yield a page that needs nothing else: no script, no style sheet, no picture."""
    span = f"{_time(evidence.since_us)} to {_time(evidence.until_us)}"
    yield (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>File integrity, {_html(span)}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>File integrity</h1>\n<p>{_html(span)}</p>\n"
    )
    yield _html_table(("", ""), [list(pair) for pair in _heading_lines(head)])
    yield "<h2>Summary</h2>\n" + _html_table(_VERDICT, list(_verdicts(evidence, head)))
    for name, client in sorted(evidence.clients.items()):
        yield f"<h2>{_html(_heading(name))}</h2>\n"
        yield _html_table(("", ""), [list(pair) for pair in _summary(name, client)])
        for title, columns, rows, more in _tables(client, evidence):
            yield f"<h3>{_html(title)}</h3>\n" + _html_table(columns, rows)
            if more:
                yield f'<p class="none">and {more} more</p>\n'
    yield f'<p class="none">{_html(RULE)}</p>\n</body></html>\n'


_HOW_TO_VERIFY: Final = (
    "needfire-admin audit export FILE, then needfire-admin audit verify --key KEY FILE. The tree "
    "over the first records of the log, as many as are named here, has this root hash; the signed "
    "checkpoint itself is in the JSON form (audit verify --checkpoint)"
)
_NOT_ACCEPTED: Final = "not accepted"
_VERDICT: Final = ("host", "checked often enough", "checks", "changes", _NOT_ACCEPTED, "gaps")


def _heading(name: str) -> str:
    return "All clients" if name == EVERY_CLIENT else name


def _heading_lines(head: Head) -> Iterator[tuple[str, object]]:
    yield "server", head.server
    yield "made", f"{_time(head.made_us)} by {head.made_by}"
    if not head.size:
        yield "audit log", "nothing of it is signed"
        return
    yield "audit log", f"{counted(head.size, 'record')}, root hash {head.root}"
    yield "its key", head.key
    yield "to verify", _HOW_TO_VERIFY


def _verdicts(evidence: Evidence, head: Head) -> Iterator[tuple[object, ...]]:
    for name, client in sorted(evidence.clients.items()):
        if name != EVERY_CLIENT:
            often = "yes" if client.is_checked_every(head.interval_us) else "NO"
            yield (
                name,
                f"{often}, each {_duration(head.interval_us)}",
                client.checks,
                client.all_changes,
                client.unaccepted,
                client.all_gaps,
            )


def _verdict_json(name: str, client: ClientEvidence, head: Head) -> dict[str, Any]:
    return {
        "is_checked_often_enough": (
            None if name == EVERY_CLIENT else client.is_checked_every(head.interval_us)
        ),
        "changes_count": client.all_changes,
        "changes_not_accepted": client.unaccepted,
        "gaps_count": client.all_gaps,
    }


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
        yield "last check", f"{_time(client.last_check_us)}, {counted(client.files, 'object')}"
        yield "not seen by it", counted(client.unseen, "object")
    yield "longest without a check", _duration(client.longest_without_check_us)
    yield "changes", f"{client.all_changes}, not accepted: {client.unaccepted}"


def _tables(client: ClientEvidence, evidence: Evidence) -> Iterator[_Table]:
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
                f"{change.what} {'; '.join(change.details)}".strip(),
                change.severity,
                _time(change.first_us),
                _time(change.last_us),
                change.reports,
                change.who or "",
                _acceptance(change),
            )
            for path, changes in sorted(client.changes.items())
            for change in changes
        ]
        columns = ("what", "path", "in", "severity", "first", "last", "reports", "by", "accepted")
        yield "Changes", columns, rows, client.changes_not_listed
    if client.accepted:
        rows = [
            (_time(each.time_us), each.what, each.user, *_put(each), each.digest)
            for each in client.accepted
        ]
        columns = ("at", "what", "by", "proposal", "request", "objects", "digest")
        yield "Accepted", columns, rows, client.accepted_not_listed
    if client.gaps:
        end = "now, still" if evidence.is_now else "the end, still"
        rows = [
            (
                _time(gap.time_us),
                gap.text,
                gap.scope or "",
                gap.since or "",
                end if gap.is_open else gap.until or "",
            )
            for gap in client.gaps
        ]
        columns = ("at", "what", "where", "from", "to")
        yield "Not covered", columns, rows, client.gaps_not_listed


def _acceptance(change: Change) -> str:
    put = change.accepted
    if put is None:
        return _NOT_ACCEPTED
    words = f"{_time(put.time_us)} by {put.user}"
    for label, value in zip(("proposal", "request", ""), _put(put), strict=True):
        words += f" {label} {value}".replace("  ", " ") if value else ""
    return words if change.is_named else f"{words} (by time)"


def _put(accepted: Accepted) -> tuple[str, str, str]:
    return accepted.proposal or "", accepted.request or "", accepted.counts


def _client_json(client: ClientEvidence) -> Mapping[str, Any]:
    data: dict[str, Any] = {
        name: value
        for name in client.__slots__
        if name not in ("changes", "gaps", "accepted", "groups")
        for value in (getattr(client, name),)
    }
    _times_to_text(data)
    data["changes"] = [
        {"path": path, **_change_json(change)}
        for path, changes in sorted(client.changes.items())
        for change in changes
    ]
    data["gaps"] = [_with_text_times(asdict(each)) for each in client.gaps]
    data["accepted"] = [_put_json(each) for each in client.accepted]
    data["groups"] = {name: _with_text_times(asdict(each)) for name, each in client.groups.items()}
    return data


def _change_json(change: Change) -> dict[str, Any]:
    data = {
        name: getattr(change, name)
        for name in ("kind", "severity", "what", "first_us", "last_us", "reports", "who")
    }
    put = change.accepted
    accepted = None if put is None else {**_put_json(put), "is_named": change.is_named}
    details = list(change.details)
    return {**_with_text_times(data), "details": details, "accepted": accepted}


def _put_json(put: Accepted) -> dict[str, Any]:
    names = ("time_us", "what", "user", "digest", "proposal", "request")
    data = {name: getattr(put, name) for name in (*names, "added", "removed", "modified")}
    return _with_text_times(data)


def _with_text_times(data: dict[str, Any]) -> dict[str, Any]:
    _times_to_text(data)
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
