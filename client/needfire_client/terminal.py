"""How a verb speaks to the person (or script) that started it.

Results go to standard output, everything else to standard error. Whatever came from a file, a
network or a file name is made printable before it gets here or on its way out.
"""

import json
import sys
from collections.abc import Mapping

from needfire_client.failures import CommandError
from needfire_client.reporter import PROGRAM
from needfire_protocol.escape import printable

__all__ = ["advise", "complain", "print_json", "print_line", "tell_failure", "warn"]


def print_line(text: str) -> None:
    """Write one line of the result."""
    sys.stdout.write(printable(text, 100_000) + "\n")
    sys.stdout.flush()


def print_json(data: Mapping[str, object]) -> None:
    """Write one line of the result for programs."""
    sys.stdout.write(json.dumps(data, ensure_ascii=True, separators=(",", ":")) + "\n")
    sys.stdout.flush()


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
    sys.stderr.write(f"{PROGRAM}: {kind}: {printable(text, 10_000)}\n")
    sys.stderr.flush()
