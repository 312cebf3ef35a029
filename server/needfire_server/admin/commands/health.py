"""The verb that service managers and load balancers ask: can this server do its work?"""

import sys

import click

from needfire_protocol.exit_status import ExitStatus
from needfire_server.admin.context import backend, json_option, server_options
from needfire_server.admin.output import print_json, print_lines

__all__ = ["health"]


@click.command()
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, 60.0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the server may take to answer.",
)
@json_option
@server_options
def health(timeout_s: float, as_json: bool) -> None:
    """Say whether the server can serve agents: exit status 0 if it can.

    4: it does not run, or does not answer in time. 9: it runs, but cannot serve: what it prints
    says why. 8: the admin socket may not be used.
    """
    with backend(needs_server=True, timeout_s=timeout_s) as server:
        found = server.call("health", {}).result
    if as_json:
        print_json(found)
    else:
        print_lines(found)
    if not found["ready"]:
        sys.exit(ExitStatus.REFUSED)
