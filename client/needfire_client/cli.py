"""The command line of needfire-agent: what may be asked for, and how it ends.

Whatever happens below, a person gets sentences and a script gets a documented exit status; a
traceback goes to a file in the state directory and nowhere else.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from needfire_client.bugs import innermost, record_bug, where_of
from needfire_client.core_dumps import forbid_core_dumps
from needfire_client.failures import CommandError
from needfire_client.options import Options
from needfire_client.plain_arguments import plainly
from needfire_client.statedir import StateDir
from needfire_client.terminal import (
    OutputClosedError,
    advise,
    complain,
    die_of_closed_pipe,
    settle,
    tell_failure,
)
from needfire_protocol.errors import ConfigError, NeedfireError
from needfire_protocol.exit_status import ExitStatus

__all__ = ["main", "parse"]


def main(
    arguments: Sequence[str] | None = None, *, is_loaded: Callable[[], None] = lambda: None
) -> int:
    """Run the command line; return the exit status. Never raises, but for argparse's exits.

    Args:
        is_loaded: called when there is nothing more to be loaded that every run needs.
    """
    if not __debug__:
        complain("python -O is not supported: the agent relies on its own checks")
        return ExitStatus.USAGE
    forbid_core_dumps()
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        return _run(options, is_loaded)
    except OutputClosedError:
        die_of_closed_pipe()
    except CommandError as error:
        # From --help and --version, which print, too.
        tell_failure(error)
        return error.status
    finally:
        settle()


def _run(options: Options, is_loaded: Callable[[], None]) -> int:
    try:
        command = _command(options.verb)
        is_loaded()
        return command(options)
    except OutputClosedError:
        raise
    except CommandError as error:
        tell_failure(error)
        return error.status
    except ConfigError as error:
        for problem in error.problems:
            complain(str(problem))
            if problem.hint is not None:
                advise(problem.hint)
        return ExitStatus.CONFIGURATION
    except NeedfireError as error:
        complain(str(error))
        return ExitStatus.LOCAL
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except Exception as error:  # noqa: BLE001 -- the last net; the details are kept
        return _tell_bug(options, error)


def parse(arguments: Sequence[str]) -> Options:
    """Return what the command line asks for. Exits with status 2, or 0 for --help, as argparse."""
    options = plainly(arguments)
    if options is not None:
        return options
    # It takes as long to load as a thousand files take to be checked.
    from needfire_client.command_line import parse_whole

    return parse_whole(arguments)


def _command(verb: str) -> Callable[[Options], ExitStatus]:
    # Imported when it is needed: explain need not wait for cryptography and SQLite.
    module = import_module(f"needfire_client.commands.{verb.replace('-', '_')}")
    command: Callable[[Options], ExitStatus] = module.run
    return command


def _tell_bug(options: Options, error: Exception) -> ExitStatus:
    path = StateDir(options.state_dir).internal_errors
    cause = innermost(error)
    complain(f"internal error: {type(cause).__name__} at {where_of(cause)}")
    if record_bug(path, error):
        advise(f"please report this, with the end of {path}")
    else:
        advise("please report this; the details could not be written to the state directory")
    return ExitStatus.INTERNAL
