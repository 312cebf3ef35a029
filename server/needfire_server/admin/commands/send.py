"""The verb that tells clients to do something."""

import click

from needfire_protocol.errors import FormatError
from needfire_server.admin.context import backend, json_option, server_options
from needfire_server.admin.output import print_json, short_time
from needfire_server.admin.times import parse_duration_s
from needfire_server.storage.base import COMMAND_VERBS

__all__ = ["send"]


def _duration_s(context: click.Context, option: click.Parameter, value: str) -> int:
    """A duration on the command line, in seconds."""
    try:
        return parse_duration_s(value)
    except FormatError as error:
        raise click.BadParameter(str(error), context, option) from None


@click.command()
@click.argument("name_and_verb", nargs=-1, metavar=f"NAME|--all {'|'.join(COMMAND_VERBS)}")
@click.option("--all", "to_all", is_flag=True, help="To every client that is registered.")
@click.option(
    "--expires",
    "expires_s",
    callback=_duration_s,
    default="24h",
    show_default=True,
    metavar="DURATION",
    help="How long it waits for the client: 10m, 2h, 7d.",
)
@json_option
@server_options
def send(name_and_verb: tuple[str, ...], to_all: bool, expires_s: int, as_json: bool) -> None:
    """Tell a client to reload its configuration, to check all files now, or to stop.

    The command is queued. A client that is connected gets it at once, another one when it connects
    next, unless it has expired by then; its answer is an event (COMMAND_ACKNOWLEDGED).
    """
    if len(name_and_verb) != (1 if to_all else 2) or name_and_verb[-1] not in COMMAND_VERBS:
        raise click.UsageError(f"give NAME or --all, then one of {', '.join(COMMAND_VERBS)}")
    name = None if to_all else name_and_verb[0]
    arguments = {
        "name": name,
        "all": to_all,
        "verb": name_and_verb[-1],
        "expires_s": expires_s,
    }
    with backend() as server:
        queued = server.call("send", arguments).result["queued"]
    for each in queued:
        if as_json:
            print_json(each)
        else:
            when = "is connected" if each["connected"] else "is not connected"
            click.echo(
                f"command {each['command_id']} queued for {each['client']}, which {when}; "
                f"it expires at {short_time(each['expires'])}"
            )
