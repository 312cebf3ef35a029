"""The command line of needfire-server: what was asked for, and how it ends."""

import json
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from needfire_protocol import __version__
from needfire_protocol.catalogue import explain as explain_entry
from needfire_protocol.catalogue import find_entries, nothing_found
from needfire_protocol.counted import counted
from needfire_protocol.errors import ConfigError, NeedfireError
from needfire_protocol.exit_status import MEANINGS, ExitStatus
from needfire_server.config import ServerSettings, load_server_settings, read_server_settings
from needfire_server.daemon import ServeOptions, serve
from needfire_server.facts import HostFacts
from needfire_server.server_user import Account

__all__ = ["main"]

DEFAULT_CONFIG = "/etc/needfire/serverrc"
DEFAULT_DATA_DIRECTORY = "/var/lib/needfire"
DEFAULT_PORT = 49777

_EPILOG = "\b\nExit status:\n" + "\n".join(
    f"  {status.value:>2}  {text}" for status, text in MEANINGS.items()
)


class _ServeByDefault(click.Group):
    """A group whose options go to ``serve`` where no verb is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"--help", "-h", "--version"}
        if not args or (args[0].startswith("-") and args[0] not in own):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@click.group(
    cls=_ServeByDefault,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="needfire-server")
def cli() -> None:
    """The Needfire server: takes the signed reports of agents, and loses none.

    Without a verb it serves.
    """


@cli.command("serve")
@click.option("--config", type=click.Path(), help=f"Configuration file [{DEFAULT_CONFIG}].")
@click.option("--data-dir", type=click.Path(), help=f"Data directory [{DEFAULT_DATA_DIRECTORY}].")
@click.option(
    "--listen",
    "listen",
    multiple=True,
    metavar="HOST:PORT",
    help="Address to listen on; repeatable. Port 0 picks a free one. "
    f"[0.0.0.0:{DEFAULT_PORT} and [::]:{DEFAULT_PORT}]",
)
@click.option("--foreground", is_flag=True, help="Log to standard error as well.")
@click.option(
    "--log-format",
    type=click.Choice(["classic", "text", "json"]),
    help="Form of log lines: Samhain's XML form (classic), its text form, or JSON.",
)
def serve_command(
    config: str | None,
    data_dir: str | None,
    listen: tuple[str, ...],
    foreground: bool,
    log_format: str | None,
) -> None:
    """Accept agents until told to stop (SIGTERM); SIGHUP reads the configuration again."""
    addresses = tuple(_parse_address(text) for text in listen)

    starter = Account.of_process()

    def load() -> ServerSettings:
        settings = _read(config, starter)
        return settings if log_format is None else settings.with_log_format(log_format)

    settings = load()
    directory = data_dir or settings.data_directory or DEFAULT_DATA_DIRECTORY
    default_host = settings.listen_interface
    default = (
        ((default_host, settings.listen_port),)
        if default_host is not None
        else (("0.0.0.0", settings.listen_port), ("::", settings.listen_port))  # noqa: S104
    )
    status = serve(
        ServeOptions(load, os.path.abspath(directory), addresses or default, foreground), settings
    )
    sys.exit(status)


@cli.command("check-config")
@click.argument("file", required=False, type=click.Path())
@_json_option
def check_config(file: str | None, as_json: bool) -> None:
    """Read FILE as the server would, and say what is wrong with it."""
    from needfire_server.admin.members import notices_of_host
    from needfire_server.storage.opening import notices_of_store

    path = file or DEFAULT_CONFIG
    try:
        settings = read_server_settings(path, HostFacts())
    except ConfigError as error:
        _tell_errors(path, error, as_json=as_json)
        sys.exit(ExitStatus.CONFIGURATION)
    found = (*settings.notices, *notices_of_host(settings), *notices_of_store(settings))
    notices = [str(notice) for notice in found]
    if as_json:
        _print_json({"path": path, "errors": [], "notices": notices})
        return
    for notice in notices:
        click.echo(f"notice: {notice}", err=True)
    click.echo(f"{path}: no errors, {counted(len(notices), 'notice')}")


@cli.command("explain")
@click.argument("code", nargs=-1, required=True)
@_json_option
def explain(code: tuple[str, ...], as_json: bool) -> None:
    """Say what a code, a documented state (state 3) or words of a message mean."""
    entries = find_entries(" ".join(code))
    if not entries:
        raise click.UsageError(nothing_found(" ".join(code)))
    if as_json:
        for entry in entries:
            _print_json(entry.as_data())
        return
    click.echo("\n\n".join(explain_entry(entry) for entry in entries))


for _command in cli.commands.values():
    click.version_option(__version__, prog_name="needfire-server")(_command)


def _print_json(value: Mapping[str, Any]) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _read(config: str | None, starter: Account) -> ServerSettings:
    """Read the file that was named; without one, the default file, or the defaults if none is there."""
    if config is None and not os.path.exists(DEFAULT_CONFIG):
        return load_server_settings(b"", DEFAULT_CONFIG, HostFacts(), starter)
    return read_server_settings(config or DEFAULT_CONFIG, HostFacts(), starter)


def _parse_address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not separator or not bare or not port.isdecimal() or int(port) > 65_535:
        raise click.BadParameter(
            f"{text!r} is not HOST:PORT, for example 127.0.0.1:{DEFAULT_PORT} or [::1]:0",
            param_hint="--listen",
        )
    return bare, int(port)


def main() -> NoReturn:
    """Run the program; every failure ends in one line and its exit status."""
    try:
        cli(prog_name="needfire-server", standalone_mode=False)
    except click.exceptions.Exit as finished:
        sys.exit(finished.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitStatus.USAGE)
    except click.Abort:
        sys.exit(ExitStatus.USAGE)
    except ConfigError as error:
        _complain_of_all(error)
        sys.exit(ExitStatus.CONFIGURATION)
    except NeedfireError as error:
        _complain(str(error), None)
        sys.exit(ExitStatus.LOCAL)
    except OSError as error:
        _complain(_os_error_text(error), None)
        sys.exit(ExitStatus.LOCAL)
    except Exception as error:  # noqa: BLE001  # the last place where a traceback can be kept away
        place = traceback.extract_tb(error.__traceback__)[-1]
        _complain(
            f"internal error: {type(error).__name__} at {os.path.basename(place.filename)}:"
            f"{place.lineno} in {place.name}",
            "this is a bug; please report this line",
        )
        sys.exit(ExitStatus.INTERNAL)
    sys.exit(ExitStatus.DONE)


def _tell_errors(path: str, error: ConfigError, *, as_json: bool) -> None:
    if as_json:
        texts = [str(problem) for problem in error.problems]
        _print_json({"path": path, "errors": texts, "notices": []})
        return
    _complain_of_all(error)
    click.echo(f"{path}: cannot be used; {counted(len(error.problems), 'error')}", err=True)


def _complain_of_all(error: ConfigError) -> None:
    for problem in error.problems:
        _complain(str(problem), problem.hint)


def _os_error_text(error: OSError) -> str:
    text = error.strerror or str(error)
    return text if error.filename is None else f"{error.filename}: {text}"


def _complain(text: str, hint: str | None) -> None:
    click.echo(f"needfire-server: error: {text}", err=True)
    if hint is not None:
        click.echo(f"needfire-server: hint: {hint}", err=True)
