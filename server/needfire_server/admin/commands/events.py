"""The verb that shows events, and those to come."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import click

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.classic import text_line
from needfire_protocol.errors import FormatError
from needfire_protocol.event import Event, parse_time
from needfire_protocol.names import parse_reporter_name
from needfire_protocol.severity import Severity
from needfire_server.admin.backend import Backend
from needfire_server.admin.context import backend, json_option, server_options
from needfire_server.admin.output import note, warn
from needfire_server.admin.times import parse_moment
from needfire_server.clock import now_us

__all__ = ["events"]

_LIMIT_DEFAULT = 100


def _moment(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """A time or an age on the command line, as microseconds since 1970."""
    try:
        return None if value is None else parse_moment(value, now_us())
    except FormatError as error:
        raise click.BadParameter(str(error), context, option) from None


@click.command()
@click.option("--client", metavar="NAME", help="What NAME reported, and what concerns it.")
@click.option("--since", callback=_moment, metavar="T", help="Happened or arrived at T or later.")
@click.option("--until", callback=_moment, metavar="T", help="Happened or arrived before T.")
@click.option(
    "--class",
    "event_class",
    type=click.Choice([each.value for each in EventClass], case_sensitive=False),
    help="Only this class of events.",
)
@click.option(
    "--severity",
    type=click.Choice([each.word for each in Severity], case_sensitive=False),
    help="This severity and above.",
)
@click.option("--code", metavar="CODE", help="Only events with this code.")
@click.option("--follow", is_flag=True, help="Then wait for more, until interrupted.")
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=_LIMIT_DEFAULT,
    show_default=True,
    metavar="N",
    help="The newest N of those that match; 0 for none of the old ones.",
)
@json_option
@server_options
def events(
    client: str | None,
    since: int | None,
    until: int | None,
    event_class: str | None,
    severity: str | None,
    code: str | None,
    follow: bool,
    limit: int,
    as_json: bool,
) -> None:
    """Show events, oldest first.

    T is a time (2026-11-21T19:40:47Z; UTC where it names no zone) or an age (30s, 10m, 2h, 7d).
    """
    name = None if client is None else parse_reporter_name(client)
    arguments = {
        "client": name,
        "since_us": since,
        "until_us": until,
        "class": event_class,
        "severity": severity,
        "code": code,
        "follow": follow,
        "limit": limit,
    }
    # Ctrl-C is how following ends.
    with backend(needs_server=follow) as server, suppress(KeyboardInterrupt):
        _warn_unknown(server, name, code)
        for item in server.stream("events", arguments):
            if "event" in item:
                _show(item["event"], as_json=as_json)
            else:
                note("following new events; Ctrl-C ends it")


def _warn_unknown(server: Backend, client: str | None, code: str | None) -> None:
    """Say that a filter may be mistyped; older events can still match it."""
    if code is not None and code.upper() not in CATALOGUE:
        warn(f"no event has the code {code}; needfire-admin explain WORDS finds codes")
    if client is None:
        return
    names = {each["name"] for each in server.call("clients-list", {}).result["clients"]}
    if client not in names:
        where = "" if server.is_server else " in the store (no server runs)"
        warn(f"the client {client} is not registered{where}")


def _show(event: Mapping[str, Any], *, as_json: bool) -> None:
    # click flushes each line: whoever follows wants it now.
    if as_json:
        click.echo(json.dumps(event, ensure_ascii=False, separators=(",", ":")))
    else:
        click.echo(text_line(_event(event)))


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
