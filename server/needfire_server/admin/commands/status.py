"""The verb that shows how the clients are."""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from needfire_server.admin.context import backend, json_option, server_options
from needfire_server.admin.output import print_json, print_table, short_time

__all__ = ["status"]


@click.command()
@click.argument("name", required=False)
@json_option
@server_options
def status(name: str | None, as_json: bool) -> None:
    """Show each client, or NAME, with its latest event of each type. Times are UTC.

    The first line of a client is its present status.
    """
    with backend() as server:
        found = server.call("status", {"name": name}).result["clients"]
    if as_json:
        for client in found:
            print_json(client)
        return
    print_table(
        ("CLIENT", "EVENT", "TIME", "LAST HEARD", "CONNECTED FROM", "SERVER"),
        (row for client in found for row in _rows(client)),
    )


def _rows(client: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    present = client["status"]
    latest: Mapping[str, str] = client["latest"]
    yield (
        client["name"],
        present,
        short_time(latest.get(present)),
        short_time(client["last_seen"]),
        client["connected"],
        client["server"],
    )
    for event, time in latest.items():
        if event != present:
            yield ("", event, short_time(time), "", "", "")
