"""What ``needfire-agent VERB --help`` says of each verb: its purpose, its options, its ends."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from needfire_protocol.exit_status import MEANINGS, ExitStatus
from needfire_protocol.plain_classes import dataclass

__all__ = ["PAGES", "Page"]

_SOURCES: Final = ("--rc", "--server", "--name", "--bind-address", "--state-dir")
_OUTPUT: Final = ("--log-format", "--json")
_LOCAL: Final = (ExitStatus.DONE, ExitStatus.USAGE, ExitStatus.LOCAL, ExitStatus.INTERNAL)
_NETWORK: Final = tuple(status for status in MEANINGS if status is not ExitStatus.DIFFERENCES)
_SUSPEND_FIRST: Final = (
    "With a server, suspend a running agent of this host first (SIGUSR2), and wake it up\n"
    "afterwards with the same signal: both are one client to the server (states 7 and 8)."
)


@dataclass(frozen=True, slots=True)
class Page:
    """The help of one verb."""

    usage: str
    about: str
    options: tuple[str, ...]
    """Those that matter; all that are not another verb's own are accepted."""
    statuses: tuple[ExitStatus, ...]


PAGES: Final[Mapping[str, Page]] = MappingProxyType(
    {
        "run": Page(
            "[run] [options]",
            "Watch the files of this host, and report what differs from the baseline, until told\n"
            "to stop. Stays in the foreground, as a service manager wants it.\n\n"
            "signals: HUP reload, TERM stop, USR1 print everything, USR2 suspend or wake up,\n"
            "TTOU check all files now",
            (*_SOURCES, "--baseline", *_OUTPUT),
            _NETWORK,
        ),
        "init": Page(
            "init [options]",
            "Walk over all files that the configuration names, and write down what they are: the\n"
            "baseline of later checks. It goes to the state directory, to --output FILE, or with\n"
            f"--upload to the server, where it waits for approval.\n\n{_SUSPEND_FIRST}",
            (*_SOURCES, "--output", "--upload", *_OUTPUT),
            _NETWORK,
        ),
        "check": Page(
            "check [options]",
            "Compare all files with the baseline once. Differences go to standard output,\n"
            "everything else to standard error. Status 8 without a difference: some files could\n"
            "not be read. One that is stopped (Ctrl-C) goes on where it was with --resume.\n\n"
            f"{_SUSPEND_FIRST}",
            (*_SOURCES, "--baseline", "--quick", "--resume", *_OUTPUT),
            tuple(MEANINGS),
        ),
        "update": Page(
            "update [options]",
            "Check as check does, and write the new state as a new baseline. Read the\n"
            "differences before you trust it: it holds what an intruder left, too.\n\n"
            f"{_SUSPEND_FIRST}",
            (*_SOURCES, "--baseline", "--output", "--upload", *_OUTPUT),
            tuple(MEANINGS),
        ),
        "set-password": Page(
            "set-password [--password-file FILE|-] [options]",
            "Store the password that needfire-admin register printed on the log host. It is asked\n"
            "for on the terminal, or read from a file or standard input; never a word of the\n"
            "command line, where every user of this host could see it.",
            ("--password-file", "--state-dir"),
            _LOCAL,
        ),
        "enroll": Page(
            "enroll",
            "Join with a token: not in this version. It says what to do instead.",
            (),
            (ExitStatus.USAGE,),
        ),
        "check-config": Page(
            "check-config [FILE] [options]",
            "Read a configuration as the agent would, and say what is wrong with it. Without FILE\n"
            "it is the one that run would use.",
            ("--rc", "--server", "--name", "--state-dir", "--explain", "--json"),
            (*_LOCAL[:2], ExitStatus.CONFIGURATION, *_LOCAL[2:]),
        ),
        "doctor": Page(
            "doctor [options]",
            "Look whether everything that the agent needs works here, and say what mends what\n"
            "does not. Changes nothing. Exits with the status of the first thing that fails.",
            (*_SOURCES, "--baseline", "--json"),
            _NETWORK,
        ),
        "explain": Page(
            "explain CODE|state N|WORDS",
            "Say what an event, a state or a pasted line of a log means, and what to do about it.",
            ("--json",),
            _LOCAL,
        ),
    }
)
