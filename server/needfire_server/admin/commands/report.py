"""The verb that makes the evidence of some days: what was checked, what changed, who accepted it."""

import difflib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.event import parse_time
from needfire_protocol.names import parse_reporter_name
from needfire_server.admin.absences import MARKS, Host
from needfire_server.admin.backend import Backend
from needfire_server.admin.commands.reading import check_span
from needfire_server.admin.context import backend, json_option, server_options
from needfire_server.admin.evidence import CLASSES, Evidence
from needfire_server.admin.evidence_forms import Head, as_html, as_text
from needfire_server.admin.evidence_forms import as_json as evidence_json
from needfire_server.admin.output import note, print_json, warn
from needfire_server.admin.times import parse_duration_s, parse_moment
from needfire_server.clock import now_us

__all__ = ["report"]


def _moment(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else parse_moment(value, now_us())
    except FormatError as error:
        raise click.BadParameter(str(error), context, option) from None


def _interval(context: click.Context, option: click.Parameter, value: str) -> int:
    try:
        return parse_duration_s(value) * 1_000_000
    except FormatError as error:
        raise click.BadParameter(str(error), context, option) from None


@click.command()
@click.option(
    "--since",
    "since_us",
    callback=_moment,
    default="7d",
    show_default=True,
    metavar="T",
    help="Begin: a time, or an age such as 7d.",
)
@click.option(
    "--until", "until_us", callback=_moment, metavar="T", help="End, likewise.  [default: now]"
)
@click.option(
    "--every",
    "interval_us",
    callback=_interval,
    default="7d",
    show_default=True,
    metavar="D",
    help="How often each host is to be checked at least: what the summary's verdict says.",
)
@click.option("--client", metavar="NAME", help="Only this client.")
@click.option(
    "--html",
    metavar="FILE",
    help="Write a page to FILE instead, whole or not at all; - is standard output.",
)
@json_option
@server_options
def report(
    since_us: int,
    until_us: int | None,
    interval_us: int,
    client: str | None,
    html: str | None,
    as_json: bool,
) -> None:
    """Show what was checked, what changed, who accepted it, and what was not covered."""
    if html is not None and as_json:
        raise click.UsageError("give one of --html and --json")
    now = now_us()
    check_span(since_us, until_us)
    if since_us > now:
        raise click.UsageError("--since lies in the future: there is nothing to report of yet")
    with backend() as server:
        name = None if client is None else parse_reporter_name(client)
        evidence = _gather(server, (since_us, until_us, now), name)
        head = _head(server, interval_us)
    if html == "-":
        for part in as_html(evidence, head):
            click.echo(part, nl=False)
    elif html is not None:
        _write(Path(html), as_html(evidence, head))
        note(f"written to {html}")
    elif as_json:
        print_json(evidence_json(evidence, head))
    else:
        for line in as_text(evidence, head):
            click.echo(line)


def _gather(server: Backend, span: tuple[int, int | None, int], only: str | None) -> Evidence:
    since_us, until_us, now = span
    hosts = _hosts(server)
    if only is not None:
        hosts = _chosen(server, hosts, only)
    is_now = until_us is None or until_us >= now
    end_us = now if until_us is None else min(until_us, now)
    evidence = Evidence(since_us, end_us, hosts, is_now=is_now, only=only)
    evidence.add_before(
        event
        for code in MARKS
        if code != "CHECK_COMPLETED"
        for event in _events(server, code=code, client=only, until_us=since_us)
    )
    for event_class in CLASSES:
        wanted = {"client": only, "since_us": since_us, "until_us": end_us}
        evidence.add_all(
            event
            for event in _events(server, **wanted, **{"class": event_class})
            if event["code"] != _PUT
        )
    # Those for all clients as well, and later ones: they may accept what changed within the time.
    evidence.add_all(_events(server, code=_PUT, since_us=since_us))
    evidence.finish()
    return evidence


_PUT: Final = "BASELINE_PUT"


def _hosts(server: Backend) -> dict[str, Host]:
    registered = {
        each["name"]: each["registered"]
        for each in server.call("clients-list", {}).result["clients"]
    }
    return {
        each["name"]: _host(each, registered.get(each["name"]))
        for each in server.call("status", {}).result["clients"]
    }


def _host(status: Mapping[str, Any], registered: str | None) -> Host:
    return Host(
        _time_us(registered),
        _time_us(status["last_seen"]),
        status["status"],
        _time_us(status["latest"].get(status["status"])),
        is_connected=status["connected"] is not None,
        is_silent=status["silent"] or status["overdue"],
    )


def _chosen(server: Backend, hosts: Mapping[str, Host], only: str) -> dict[str, Host]:
    """Return the host of this name; none for one that was removed and has events still.

    Raises:
        click.BadParameter: nobody has the name: a page without a finding would look like a good
            one.
    """
    if only in hosts:
        return {only: hosts[only]}
    if any(_events(server, client=only, limit=1)):
        warn(f"the client {only} is no longer registered")
        return {}
    alike = difflib.get_close_matches(only, hosts, n=3, cutoff=0.5)
    words = f"did you mean {' or '.join(alike)}?" if alike else "needfire-admin clients list"
    raise click.BadParameter(f"the client {only} is not registered; {words}", param_hint="--client")


def _head(server: Backend, interval_us: int) -> Head:
    said = server.call("report", {}).result
    return Head(
        said["server"],
        now_us(),
        said["user"],
        interval_us,
        said["size"],
        said["root"],
        said["note"],
        said["key"],
    )


def _time_us(text: str | None) -> int | None:
    return None if text is None else parse_time(text)


def _events(server: Backend, **filters: Any) -> Iterator[Mapping[str, Any]]:
    return (item["event"] for item in server.stream("events", filters) if "event" in item)


def _write(path: Path, parts: Iterable[str]) -> None:
    """Write the page beside its place, readable for its owner only, and put it there.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.writelines(parts)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
