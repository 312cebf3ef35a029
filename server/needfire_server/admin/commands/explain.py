"""The verb that says what an event means and what to do about it."""

import click

from needfire_protocol.catalogue import explain as explain_entry
from needfire_protocol.catalogue import find_entries, nothing_found
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
        raise click.UsageError(nothing_found(words))
    if as_json:
        for entry in entries:
            print_json(entry.as_data())
        return
    click.echo("\n\n".join(explain_entry(entry) for entry in entries))
