"""How a verb speaks to the person (or script) that started it.

Results go to standard output, everything else to standard error. Whatever came from a file, a
network or a file name is made printable before it gets here or on its way out.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from typing import NoReturn, TextIO

from needfire_client.failures import CommandError
from needfire_client.reporter import PROGRAM
from needfire_protocol.escape import printable
from needfire_protocol.exit_status import ExitStatus

__all__ = ["OutputClosedError", "advise", "complain", "die_of_closed_pipe", "print_json"]
__all__ += ["print_line", "settle", "tell_failure", "warn", "write_result"]


class OutputClosedError(CommandError):
    """Whoever read the result has gone, as ``head`` does when it has seen enough."""

    def __init__(self) -> None:
        super().__init__(ExitStatus.LOCAL, "nobody reads standard output any more")


def print_line(text: str) -> None:
    """Write one line of the result.

    Raises:
        CommandError: standard output does not take it; OutputClosedError where nobody reads it.
    """
    write_result(printable(text, 100_000) + "\n")


def print_json(data: Mapping[str, object]) -> None:
    """Write one line of the result for programs."""
    import json

    write_result(json.dumps(data, ensure_ascii=True, separators=(",", ":")) + "\n")


def write_result(text: str) -> None:
    """Write text that is printable already to standard output. Raises as print_line does."""
    if sys.stdout is None:
        raise CommandError(ExitStatus.LOCAL, "standard output is closed")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop(sys.stdout)
        raise OutputClosedError from None
    except OSError as error:
        _drop(sys.stdout)
        raise CommandError(
            ExitStatus.LOCAL, f"standard output cannot be written: {error.strerror or error}"
        ) from None


def settle() -> None:
    """Flush both streams at the end, so that the interpreter finds nothing to complain of."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            _drop(stream)


def die_of_closed_pipe() -> NoReturn:
    """End as other programs of a pipe do whose reader has gone: by SIGPIPE, without a word."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    raise SystemExit(128 + signal.SIGPIPE)  # where the signal is blocked


def complain(text: str) -> None:
    """Say what is wrong."""
    _to_stderr("error", text)


def warn(text: str) -> None:
    """Say what deserves a second look."""
    _to_stderr("warning", text)


def advise(text: str) -> None:
    """Say what to do about it."""
    _to_stderr("hint", text)


def tell_failure(error: CommandError) -> None:
    """Say why a verb cannot go on, and what to do."""
    for line in str(error).splitlines():
        complain(line)
    if error.hint is not None:
        advise(error.hint)


def _to_stderr(kind: str, text: str) -> None:
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(f"{PROGRAM}: {kind}: {printable(text, 10_000)}\n")
        sys.stderr.flush()
    except OSError:
        _drop(sys.stderr)  # nobody can be told; the exit status still says it


def _drop(stream: TextIO) -> None:
    """Send to nowhere what a stream still holds: Python flushes it again at the end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
