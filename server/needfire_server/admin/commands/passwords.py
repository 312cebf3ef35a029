"""Verbs that need no server: make a password, make a verifier."""

import os

import click

from needfire_protocol.names import parse_client_name
from needfire_protocol.srp import generate_password, make_verifier
from needfire_server.admin.passwords import read_password

__all__ = ["gen_password", "verifier"]


@click.command("gen-password")
def gen_password() -> None:
    """Print a new password of 256 random bits."""
    click.echo(generate_password(os.urandom))


@click.command()
@click.option("--password-file", metavar="FILE|-", help="Where the password is; - reads it.")
@click.option("--name", metavar="NAME", help="Name of the client.  [default: the word HOSTNAME]")
def verifier(password_file: str | None, name: str | None) -> None:
    """Print the line of a client for [Clients] in the server's configuration.

    The line has a verifier of the password, from which the password cannot be found.
    """
    client = "HOSTNAME" if name is None else parse_client_name(name)
    click.echo(make_verifier(read_password(password_file), os.urandom).to_line(client))
