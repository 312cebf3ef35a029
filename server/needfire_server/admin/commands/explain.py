"""The verb that says what an event means and what to do about it."""

from typing import Any

import click

from needfire_protocol.catalogue import explain as explain_entry
from needfire_protocol.catalogue import find_entries
from needfire_protocol.catalogue_entry import Entry
from needfire_server.admin.context import json_option
from needfire_server.admin.output import print_json

__all__ = ["explain"]


@click.command()
@click.argument("code", nargs=-1, required=True)
@json_option
def explain(code: tuple[str, ...], as_json: bool) -> None:
    """Say what CODE means: a code, a documented state (state 3), or words of a message."""
    words = " ".join(code)
    entries = find_entries(words)
    if not entries:
        raise click.UsageError(f"no event has the code or the words {words!r}")
    if as_json:
        for entry in entries:
            print_json(_data(entry))
        return
    click.echo("\n\n".join(explain_entry(entry) for entry in entries))


def _data(entry: Entry) -> dict[str, Any]:
    return {
        "code": entry.code,
        "class": entry.event_class.value,
        "severity": entry.severity.word,
        "msg": entry.msg,
        "description": entry.description,
        "remedy": entry.remedy,
        "fields": dict(entry.fields),
        "state": entry.state,
        "source": entry.source,
    }
