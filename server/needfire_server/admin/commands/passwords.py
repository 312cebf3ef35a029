"""Verbs that need no server: make a password, make a verifier."""

import os

import click

from needfire_protocol.names import parse_client_name
from needfire_protocol.srp import generate_password, make_verifier
from needfire_server.admin.context import json_option
from needfire_server.admin.output import print_json
from needfire_server.admin.passwords import read_password

__all__ = ["gen_password", "verifier"]


@click.command("gen-password")
@json_option
def gen_password(as_json: bool) -> None:
    """Print a new password of 256 random bits."""
    password = generate_password(os.urandom)
    if as_json:
        print_json({"password": password})
    else:
        click.echo(password)


@click.command()
@click.option("--password-file", metavar="FILE|-", help="Where the password is; - reads it.")
@click.option("--name", metavar="NAME", help="Name of the client.  [default: the word HOSTNAME]")
@json_option
def verifier(password_file: str | None, name: str | None, as_json: bool) -> None:
    """Print the line of a client for [Clients] in the server's configuration.

    The line has a verifier of the password, from which the password cannot be found.
    """
    client = "HOSTNAME" if name is None else parse_client_name(name)
    line = make_verifier(read_password(password_file), os.urandom).to_line(client)
    if as_json:
        print_json({"name": client, "line": line})
    else:
        click.echo(line)
