"""Verbs about alarms: alarms list and alarms clear."""

import click

from needfire_protocol.counted import counted
from needfire_server.admin.context import backend, json_option, server_options
from needfire_server.admin.output import print_json, print_table, short_time, warn

__all__ = ["alarms"]


@click.group()
def alarms() -> None:
    """Show the alarms that hold, and clear those that were looked into."""


@alarms.command("list")
@click.option("--client", metavar="NAME", help="Only those about NAME.")
@json_option
@server_options
def list_alarms(client: str | None, as_json: bool) -> None:
    """List the alarms that hold: raised, and not cleared by an event or a person."""
    with backend() as server:
        result = server.call("alarms-list", {"name": client}).result
    found = result["alarms"]
    for name, count in sorted(result.get("left_out", {}).items()):
        whose = f"{name} reports" if name else "the server has"
        warn(f"{count} more alarms that {whose} are not shown: needfire-admin events --class alarm")
    if as_json:
        for each in found:
            print_json(each)
        return
    print_table(
        ("SINCE", "LAST", "TIMES", "SEVERITY", "CLIENT", "CODE", "ABOUT", "MESSAGE"),
        (
            (
                short_time(each["since"]),
                short_time(each["last"]),
                each["count"],
                each["severity"],
                each["client"] or "(the server)",
                each["code"],
                each["about"] or None,
                each["msg"],
            )
            for each in found
        ),
    )


@alarms.command("clear")
@click.argument("code")
@click.option("--client", metavar="NAME", help="About NAME.  [default: about the server itself]")
@click.option("--about", metavar="TEXT", help="Only the one with this in ABOUT.")
@click.option("--note", metavar="TEXT", help="What was found; recorded with it.")
@json_option
@server_options
def clear_alarm(
    code: str, client: str | None, about: str | None, note: str | None, as_json: bool
) -> None:
    """Clear the alarm CODE, in all its events until now. If it comes again, it holds again."""
    arguments = {"code": code, "name": client, "about": about, "note": note}
    with backend() as server:
        cleared = server.call("alarms-clear", arguments).result["cleared"]
    if as_json:
        for each in cleared:
            print_json(each)
    click.echo(f"{counted(len(cleared), 'alarm')} cleared", err=True)
