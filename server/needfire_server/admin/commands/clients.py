"""Verbs about who may speak: register, and clients list, show and remove."""

import os

import click

from needfire_protocol.names import parse_client_name
from needfire_protocol.srp import generate_password, make_verifier
from needfire_server.admin.context import backend, json_option, server_options
from needfire_server.admin.output import (
    hint,
    print_json,
    print_lines,
    print_table,
    short_time,
    warn,
)
from needfire_server.admin.passwords import read_password

__all__ = ["clients", "register"]


@click.command()
@click.argument("name")
@click.option("--password-file", metavar="FILE|-", help="Where the password is; - reads it.")
@json_option
@server_options
def register(name: str, password_file: str | None, as_json: bool) -> None:
    """Let the client NAME log in; it counts at once.

    Without a file a new password is made and printed once: only its verifier is kept.
    """
    client = parse_client_name(name)
    is_new = password_file is None
    password = (
        generate_password(os.urandom) if password_file is None else read_password(password_file)
    )
    verifier = make_verifier(password, os.urandom)
    with backend() as server:
        result = server.call(
            "register",
            {"name": client, "salt": verifier.salt.hex(), "verifier": verifier.verifier.hex()},
        ).result
    if as_json:
        print_json({**result, "password": password if is_new else None})
    elif is_new:
        click.echo(password)
    click.echo(
        f"{client} has a new password" if result["replaced"] else f"registered {client}", err=True
    )
    if result["listed"] is not None:
        warn(f"{client} also has an entry in the server's configuration; this one counts")
        hint(f"remove the other one: {result['listed']}")
    if is_new:
        hint(f"store the password on {client} (paste it when asked): needfire-agent set-password")


@click.group()
def clients() -> None:
    """List, show and remove the clients that may log in."""


@clients.command("list")
@json_option
@server_options
def list_clients(as_json: bool) -> None:
    """List every client that may log in."""
    with backend() as server:
        found = server.call("clients-list", {}).result["clients"]
    if as_json:
        for client in found:
            print_json(client)
        return
    print_table(
        ("CLIENT", "REGISTERED", "BY", "ENTRY"),
        ((c["name"], short_time(c["registered"]), c["registered_by"], c["entry"]) for c in found),
    )


@clients.command("show")
@click.argument("name")
@json_option
@server_options
def show_client(name: str, as_json: bool) -> None:
    """Show everything that is known of the client NAME."""
    with backend() as server:
        client = server.call("clients-show", {"name": name}).result
    if as_json:
        print_json(client)
        return
    print_lines(
        {
            "client": client["name"],
            "entry": client["entry"],
            "registered": client["registered"],
            "registered by": client["registered_by"],
            "status": client["status"],
            "last heard": client["last_seen"],
            "address": client["address"],
            "connected": client["connected"],
            "connected to": client["server"],
            "overdue": client["overdue"],
            "silent": client["silent"],
            "version": client["version"],
            "boot": client["boot_id"],
            "reports in its spool": client["spool_reports"],
            "oldest of them": client["spool_oldest"],
            "its clock minus ours, s": client["clock_difference_s"],
            "proposals": ", ".join(str(number) for number in client["proposals"]) or None,
        }
    )
    if client["latest"]:
        click.echo()
        print_table(("EVENT", "LATEST"), client["latest"].items())
    if client["commands"]:
        click.echo()
        print_table(
            ("COMMAND", "ID", "BY", "QUEUED", "SENT", "EXPIRES"),
            (
                (
                    c["verb"],
                    c["command_id"],
                    c["user"],
                    c["queued"],
                    c["delivered"],
                    c["expires"],
                )
                for c in client["commands"]
            ),
        )


@clients.command("remove")
@click.argument("name")
@json_option
@server_options
def remove_client(name: str, as_json: bool) -> None:
    """Take the registration of NAME out; an open connection is closed at once."""
    with backend() as server:
        result = server.call("clients-remove", {"name": name}).result
    if as_json:
        print_json(result)
    click.echo(f"removed {result['name']}", err=True)
    if result["listed"] is not None:
        warn(f"{result['name']} may still log in: it is listed in the server's configuration")
        hint(f"take that line out and reload the server: {result['listed']}")
