"""The verbs of the key that seals verifiers and sessions in the store: check, rotate, reset."""

import sys
from typing import TYPE_CHECKING

import click

from needfire_protocol.counted import counted
from needfire_protocol.exit_status import ExitStatus
from needfire_server.admin.context import Target, json_option, server_options
from needfire_server.admin.output import hint, print_json, print_table, warn

if TYPE_CHECKING:
    from needfire_server.admin.offline import OfflineStore

__all__ = ["seal"]


@click.group()
def seal() -> None:
    """Look after the key that seals verifiers and sessions in the store."""


@seal.command("check")
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@json_option
@server_options
@click.pass_context
def check(context: click.Context, file: str | None, as_json: bool) -> None:
    """Say which key the store is sealed with, and whether FILE is that key.

    Without FILE: whether it is in the data directory. Ends with status 0 where a key that opens the
    store was found, or nothing is sealed yet, and with 1 where not. Works beside a running server.
    """
    from needfire_server.admin.key_check import look_at_keys

    look = look_at_keys(context.ensure_object(Target).data_directory, file)
    if as_json:
        keys = [{"place": key.place, "key": key.id, "opens": key.opens} for key in look.keys]
        print_json({"store": look.store, "keys": keys})
    else:
        print_table(
            ("PLACE", "KEY", "OPENS THE STORE"),
            [
                ("the store", look.store, None),
                *((key.place, key.id, key.opens) for key in look.keys),
            ],
        )
    if look.store is not None and not any(key.opens for key in look.keys):
        # Not by click, which turns it into a result that nobody asks for.
        sys.exit(ExitStatus.DIFFERENCES)


@seal.command("rotate")
@json_option
@server_options
@click.pass_context
def rotate(context: click.Context, as_json: bool) -> None:
    """Make a new key and seal everything with it; no server may run meanwhile.

    A server that runs elsewhere on the same store ends by itself, and starts again once it has the
    new key. Clients notice nothing. The key of before stays in seal.key.old.
    """
    with _offline(context) as store:
        done = store.exchange_key()
    if as_json:
        print_json({"key": done.after, "before": done.before, "verifiers": done.count})
    else:
        click.echo(f"sealed {counted(done.count, 'verifier')} with the key {done.after}")
    hint("copy seal.key to the other servers on this store, and to where you keep a copy of it")
    hint("seal.key.old opens backups of the store from before; take it out of the data directory")


@seal.command("reset")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@server_options
@click.pass_context
def reset(context: click.Context, yes: bool, as_json: bool) -> None:
    """Begin with a new key because the store's is lost; no server may run meanwhile.

    Every client that is registered in the store has to be registered anew. Refused where the key is
    at hand. Reports, states and files are not touched.
    """
    if not yes:
        click.confirm(
            "No client can log in afterwards until it is registered anew. Go on?",
            abort=True,
            err=True,
        )
    with _offline(context) as store:
        done, names = store.give_up_key()
    if as_json:
        print_json({"key": done.after, "before": done.before, "register": names})
    else:
        for name in names:
            click.echo(name)
    warn(f"the clients above cannot log in: register each anew ({done.count})")


def _offline(context: click.Context) -> "OfflineStore":
    # Half of the program's start, and not needed for anything else.
    from needfire_server.admin.offline import OfflineStore

    return OfflineStore(context.ensure_object(Target).data_directory)
