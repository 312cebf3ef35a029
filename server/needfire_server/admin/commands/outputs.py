"""The verbs that show and try outputs."""

from collections.abc import Mapping
from typing import Any

import click

from needfire_protocol.counted import counted
from needfire_server.admin.context import backend, json_option, server_options
from needfire_server.admin.output import print_json, print_lines, print_table, short_time
from needfire_server.admin.requests import AdminRefusedError

__all__ = ["output"]

_COLUMNS = (
    *("NAME", "STATE", "SENT", "RETRIED", "DROPPED", "WAITING", "HELD", "SKIPPED"),
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


@output.command("skipped")
@click.argument("name", required=False)
@json_option
@server_options
def list_skipped(name: str | None, as_json: bool) -> None:
    """List the records that targets refused for good, of the output NAME or of all.

    Each was refused three times by itself. It is kept until it is sent with 'output retry' or given
    up with 'output discard'.
    """
    with backend(needs_server=True) as server:
        found = list(server.stream("output-skipped", {} if name is None else {"name": name}))
    if as_json:
        for each in found:
            print_json(each)
        return
    rows = (
        (
            each["output"],
            each["number"],
            short_time(each["skipped"]),
            each["event"]["code"],
            each["reason"],
        )
        for each in found
    )
    print_table(("OUTPUT", "NUMBER", "SKIPPED", "CODE", "REASON"), rows)


@output.command("retry")
@click.argument("name")
@click.option("--number", type=int, help="Only this record, by its number in 'output skipped'.")
@json_option
@server_options
def retry_skipped(name: str, number: int | None, as_json: bool) -> None:
    """Send the records once more that the target of the output NAME refused for good."""
    with backend(needs_server=True) as server:
        result = server.call("output-retry", _chosen(name, number)).result
    _show(result, as_json=as_json)
    if result["reason"] or result["refused"]:
        reason = result["reason"] or f"still refused: {counted(result['refused'], 'record')}"
        raise AdminRefusedError(f"output {result['name']}: {reason}")


@output.command("discard")
@click.argument("name")
@click.option("--number", type=int, help="Only this record, by its number in 'output skipped'.")
@click.option("--all", "is_all", is_flag=True, help="All records that are set aside for it.")
@json_option
@server_options
def discard_skipped(name: str, number: int | None, is_all: bool, as_json: bool) -> None:
    """Give up records that the target of the output NAME refused for good; they count as dropped."""
    if (number is None) != is_all:
        raise click.UsageError("say which records: --number N or --all")
    with backend(needs_server=True) as server:
        result = server.call("output-discard", _chosen(name, number)).result
    _show(result, as_json=as_json)


def _chosen(name: str, number: int | None) -> dict[str, Any]:
    return {"name": name} if number is None else {"name": name, "number": number}


def _show(result: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        print_lines({key: value for key, value in result.items() if value is not None})
