"""The command line of needfire-admin: its verbs, and how each failure ends."""

import os
import sys
import traceback
from typing import NoReturn

import click

from needfire_protocol import __version__
from needfire_protocol.errors import ConfigError, FormatError, NeedfireError
from needfire_protocol.exit_status import MEANINGS, ExitStatus
from needfire_server.admin.backend import UnreachableError
from needfire_server.admin.commands.alarms import alarms
from needfire_server.admin.commands.audit import audit
from needfire_server.admin.commands.clients import clients, register
from needfire_server.admin.commands.events import events
from needfire_server.admin.commands.explain import explain
from needfire_server.admin.commands.file_sets import files
from needfire_server.admin.commands.files import baseline, config
from needfire_server.admin.commands.health import health
from needfire_server.admin.commands.orders import cancel, commands
from needfire_server.admin.commands.outputs import output
from needfire_server.admin.commands.passwords import gen_password, verifier
from needfire_server.admin.commands.report import report
from needfire_server.admin.commands.seal import seal
from needfire_server.admin.commands.send import send
from needfire_server.admin.commands.status import status
from needfire_server.admin.context import server_options
from needfire_server.admin.output import complain, hint
from needfire_server.admin.requests import AdminRefusedError
from needfire_server.storage.base import TooManyCommandsError

__all__ = ["cli", "main"]

_EPILOG = "\b\nExit status:\n" + "\n".join(
    f"  {status.value:>2}  {text}" for status, text in MEANINGS.items()
)


class _Group(click.Group):
    """A group for which a reader that has read enough (``| head``) is no failure."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Else click would end with status 1, which means "differences found" here, and Python
            # would complain when it flushes what is left.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None


@click.group(
    cls=_Group,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@server_options
@click.version_option(__version__, prog_name="needfire-admin")
def cli() -> None:
    """Steer a Needfire server.

    Works through the server's admin socket while it runs, and on its data directory while it does
    not.
    """


for _command in (
    gen_password,
    verifier,
    register,
    clients,
    config,
    baseline,
    files,
    status,
    events,
    alarms,
    report,
    health,
    send,
    commands,
    cancel,
    output,
    explain,
    audit,
    seal,
):
    cli.add_command(_command)


def _tell_version(command: click.Command) -> None:
    """Give a verb, and those below it, ``--version``."""
    click.version_option(__version__, prog_name="needfire-admin")(command)
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        _tell_version(below)


for _command in cli.commands.values():
    _tell_version(_command)


def main() -> NoReturn:
    """Run the program; every failure ends in one line and its exit status."""
    try:
        cli(prog_name="needfire-admin", standalone_mode=False)
    except click.exceptions.Exit as finished:
        sys.exit(finished.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitStatus.USAGE)
    except click.Abort:
        sys.exit(ExitStatus.USAGE)
    except NeedfireError as error:
        sys.exit(_explain_failure(error))
    except OSError as error:
        complain(_os_error_text(error))
        sys.exit(ExitStatus.LOCAL)
    except Exception as error:  # noqa: BLE001 - a person must not meet a traceback
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        complain(f"internal error: {type(error).__name__} at {place}: {error}")
        hint("this is a bug: please report it with the line above")
        sys.exit(ExitStatus.INTERNAL)
    sys.exit(ExitStatus.DONE)


def _explain_failure(error: NeedfireError) -> ExitStatus:
    if isinstance(error, ConfigError):
        for problem in error.problems:
            complain(str(problem))
            if problem.hint is not None:
                hint(problem.hint)
        return ExitStatus.CONFIGURATION
    complain(str(error))
    if isinstance(error, UnreachableError):
        hint("start it with needfire-server serve, or say where it is: --data-dir DIR")
        return ExitStatus.UNREACHABLE
    if isinstance(error, AdminRefusedError):
        if error.hint is not None:
            hint(error.hint)
        return ExitStatus.REFUSED
    if isinstance(error, FormatError):
        return ExitStatus.USAGE
    return ExitStatus.REFUSED if isinstance(error, TooManyCommandsError) else ExitStatus.LOCAL


def _os_error_text(error: OSError) -> str:
    text = error.strerror or str(error)
    return text if error.filename is None else f"{error.filename}: {text}"
