"""The verb that makes the evidence of some days: what was checked, what changed, who accepted it."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.names import parse_reporter_name
from needfire_server.admin.backend import Backend
from needfire_server.admin.context import backend, json_option, server_options
from needfire_server.admin.evidence import CLASSES, Evidence
from needfire_server.admin.evidence_forms import as_html, as_text
from needfire_server.admin.evidence_forms import as_json as evidence_json
from needfire_server.admin.output import note, print_json, warn
from needfire_server.admin.times import parse_moment
from needfire_server.clock import now_us

__all__ = ["report"]


def _moment(context: click.Context, option: click.Parameter, value: str) -> int:
    try:
        return parse_moment(value, now_us())
    except FormatError as error:
        raise click.BadParameter(str(error), context, option) from None


@click.command()
@click.option(
    "--since",
    callback=_moment,
    default="7d",
    show_default=True,
    metavar="T",
    help="Begin: a time, or an age such as 7d.",
)
@click.option("--client", metavar="NAME", help="Only this client.")
@click.option("--html", metavar="FILE", help="Write a page to FILE instead, whole or not at all.")
@json_option
@server_options
def report(since: int, client: str | None, html: str | None, as_json: bool) -> None:
    """Show what was checked, what changed, who accepted it, and what was not covered."""
    with backend() as server:
        evidence = _gather(server, since, None if client is None else parse_reporter_name(client))
    if html is not None:
        _write(Path(html), as_html(evidence))
        note(f"written to {html}")
    elif as_json:
        print_json(evidence_json(evidence))
    else:
        for line in as_text(evidence):
            click.echo(line)


def _gather(server: Backend, since_us: int, client: str | None) -> Evidence:
    evidence = Evidence(since_us, now_us())
    for event_class in CLASSES:
        arguments = {"client": client, "since_us": since_us, "class": event_class}
        evidence.add_all(_events(server.stream("events", arguments)))
    registered = {each["name"] for each in server.call("clients-list", {}).result["clients"]}
    if client is not None and client not in registered:
        warn(f"the client {client} is not registered")
    # Of a name that was mistyped as well, a page must say that nothing is known.
    evidence.finish(registered if client is None else (client,))
    return evidence


def _events(items: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    return (item["event"] for item in items if "event" in item)


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
