"""The verbs that show and try outputs."""

import click

from needfire_server.admin.context import backend, json_option, server_options
from needfire_server.admin.output import print_json, print_lines, print_table
from needfire_server.admin.requests import AdminRefusedError

__all__ = ["output"]

_COLUMNS = (
    *("NAME", "STATE", "SENT", "RETRIED", "DROPPED", "WAITING", "HELD"),
    *("FORMAT", "TARGET", "REASON"),
)


@click.group()
@server_options
def output() -> None:
    """Show and try the outputs that the server's configuration names ([Outputs])."""


@output.command("list")
@json_option
@server_options
def list_outputs(as_json: bool) -> None:
    """List the outputs with what they have sent, what they sent again, and what waits."""
    with backend(needs_server=True) as server:
        found = list(server.stream("output-list", {}))
    if as_json:
        for each in found:
            print_json(each)
        return
    print_table(_COLUMNS, (tuple(each[name.lower()] for name in _COLUMNS) for each in found))


@output.command("test")
@click.argument("name")
@json_option
@server_options
def test_output(name: str, as_json: bool) -> None:
    """Send one record to the target of the output NAME now, beside what waits.

    The outcome is 'delivered', 'sent' where nobody can say that it arrived, or 'failed'.
    """
    with backend(needs_server=True) as server:
        result = server.call("output-test", {"name": name}).result
    if as_json:
        print_json(result)
    else:
        shown = {key: value for key, value in result.items() if value is not None}
        print_lines(shown)
    if result["outcome"] == "failed":
        raise AdminRefusedError(f"output {result['name']}: {result['reason']}")
