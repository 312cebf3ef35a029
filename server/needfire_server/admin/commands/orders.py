"""The verbs about commands that wait for clients: show them, and take them back."""

import click

from needfire_server.admin.context import backend, json_option, server_options
from needfire_server.admin.output import print_json, print_table, short_time

__all__ = ["cancel", "commands"]


@click.command()
@click.argument("name", required=False)
@json_option
@server_options
def commands(name: str | None, as_json: bool) -> None:
    """List the commands that wait for the client NAME, or for any.

    What became of others is in the events (COMMAND_ACKNOWLEDGED, COMMAND_EXPIRED).
    """
    with backend() as server:
        waiting = server.call("commands", {"name": name}).result["commands"]
    if as_json:
        for command in waiting:
            print_json(command)
        return
    print_table(
        ("CLIENT", "COMMAND", "ID", "BY", "QUEUED", "SENT", "EXPIRES"),
        (
            (
                *(c["client"], c["verb"], c["command_id"], c["user"]),
                *map(short_time, (c["queued"], c["delivered"], c["expires"])),
            )
            for c in waiting
        ),
    )


@click.command()
@click.argument("name")
@click.argument("command_id", required=False, type=click.IntRange(1), metavar="[ID]")
@json_option
@server_options
def cancel(name: str, command_id: int | None, as_json: bool) -> None:
    """Take back the command ID that waits for the client NAME, or all that wait for it.

    One that was sent already may be carried out all the same.
    """
    with backend() as server:
        cancelled = server.call("cancel", {"name": name, "command_id": command_id}).result
    for command in cancelled["cancelled"]:
        if as_json:
            print_json(command)
        else:
            sent = "" if command["delivered"] is None else "; it was sent already"
            click.echo(f"command {command['command_id']} ({command['verb']}) cancelled{sent}")
