"""The verb that shows events, and those to come."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import click

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.classic import text_line
from needfire_protocol.event import Event, parse_time
from needfire_protocol.severity import Severity
from needfire_server.admin.commands.detail import detail_block, titled
from needfire_server.admin.commands.reading import (
    Form,
    Pages,
    filter_options,
    form_of,
    form_options,
    page_options,
    warn_unknown,
)
from needfire_server.admin.context import backend, server_options
from needfire_server.admin.output import TableWriter, note, print_json

__all__ = ["events"]

_COLUMNS: Final = {"TIME": 20, "SEVERITY": 8, "CLIENT": 22, "CODE": 26, "WHAT": 0}
"""Nearly all codes have room: the longest that an agent's or a server's life brings every week is
STOPPED_WITHOUT_GOODBYE."""

_Show = Callable[[Mapping[str, Any]], None]


@click.command()
@filter_options
@page_options
@form_options
@click.option("--lines", "as_lines", is_flag=True, help="Lines as Samhain's log has them.")
@server_options
def events(
    filters: Mapping[str, Any],
    before: int | None,
    after: int | None,
    limit: int | None,
    follow: bool,
    as_table: bool,
    as_json: bool,
    as_lines: bool,
    detail: bool,
) -> None:
    """Show events, oldest first: a table on a terminal, else one JSON object a line.

    In the table a client in parentheses is one that the server itself speaks of.

    T is a time (2026-11-21T19:40:47Z; UTC where it names no zone) or an age (30s, 10m, 2h, 7d).
    PATH and DIR are written as events show them: bytes that cannot be printed as \\xNN, a backslash
    doubled. NUMBER is the cursor of an event (in JSON and with --detail): pages that are asked for
    by it neither overlap nor leave anything out, whatever is stored meanwhile.
    """
    form = form_of(as_table=as_table, as_json=as_json, as_lines=as_lines, detail=detail)
    pages = Pages.of(after, before, limit, follow=follow)
    show = _shower(form, detail=detail)
    # Ctrl-C is how following ends.
    with backend(needs_server=follow) as server, suppress(KeyboardInterrupt):
        warn_unknown(server, filters["client"], filters["code"])
        for item in server.stream("events", {**filters, **pages.arguments()}):
            if "event" in item:
                show({**item["event"], "cursor": item["rowid"]})
                pages.saw(item["rowid"])
            else:
                note("following new events; Ctrl-C ends it")
    pages.tell()


def _shower(form: Form, *, detail: bool) -> _Show:
    if form is Form.JSON:
        return (lambda event: print_json(titled(event))) if detail else print_json
    if form is Form.LINES:
        return lambda event: click.echo(text_line(_event(event)))
    if form is Form.DETAIL:
        return lambda event: click.echo(detail_block(event))
    table = TableWriter(_COLUMNS)
    return lambda event: table.write(*_row(event))


def _row(event: Mapping[str, Any]) -> tuple[object, ...]:
    path = event["fields"].get("path")
    what = event["msg"]
    if isinstance(path, str) and path not in what:
        what = f"{what}  {path}"
    time = f"{event['time'][:19]}Z"
    return time, event["severity"], _whose(event), event["code"], what


def _whose(event: Mapping[str, Any]) -> str | None:
    """Return who said it, or in parentheses whom the server's own event is about.

    What a client says of another one stays its own word, whatever its fields are.
    """
    said_by, about = event["client"], event["fields"].get("client")
    if said_by is None and isinstance(about, str):
        return f"({about})"
    return None if said_by is None else str(said_by)


def _event(data: Mapping[str, Any]) -> Event:
    """Return the event of its JSON form."""
    received = data.get("received")
    return Event(
        id=data["id"],
        time_us=parse_time(data["time"]),
        code=data["code"],
        event_class=EventClass(data["class"]),
        severity=Severity.parse(data["severity"]),
        msg=data["msg"],
        fields=data["fields"],
        client=data["client"],
        received_us=None if received is None else parse_time(received),
    )
