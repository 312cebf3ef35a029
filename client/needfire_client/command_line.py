"""What may be asked for on the command line, with its help: everything that argparse knows of it.

What scripts and timers say, ``plain_arguments.py`` understands without it.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from needfire_client.address import ServerAddress
from needfire_client.logbook import FORMATS
from needfire_client.options import DEFAULT_RC, REQ_FROM_SERVER, Options
from needfire_client.reporter import PROGRAM
from needfire_client.statedir import DEFAULT_STATE_DIR
from needfire_client.terminal import advise, complain, write_result
from needfire_protocol import __version__
from needfire_protocol.errors import FormatError
from needfire_protocol.exit_status import MEANINGS, ExitStatus

if TYPE_CHECKING:
    from needfire_client.manual import Page

__all__ = ["VERBS", "parse_whole"]

VERBS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "run": "watch and report until told to stop (the default)",
        "init": "record what the files are as a baseline",
        "check": "check all files once; exit 1 if any differs",
        "update": "check, and record the new state as a new baseline",
        "set-password": "store the password that belongs to the verifier on the server",
        "enroll": "join with a token (not in this version)",
        "check-config": "[FILE] look for errors in a configuration",
        "doctor": "find out what does not work here, and how to mend it",
        "explain": "CODE what a code, a state or a message means, and what to do",
    }
)

_VERBS_OF_OPTION: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "output": frozenset({"init", "update"}),
        "upload": frozenset({"init", "update"}),
        "password_file": frozenset({"set-password"}),
        "explain_path": frozenset({"check-config"}),
        "quick": frozenset({"check"}),
        "resume": frozenset({"check"}),
    }
)
"""Options that mean something to some verbs only; all others are accepted everywhere, so that
one and the same list of options serves every verb in a script."""

_VERBS_WITH_ARGUMENTS: Final = frozenset({"check-config", "explain"})


def parse_whole(arguments: Sequence[str]) -> Options:
    """Return what the command line asks for. Exits with status 2, or 0 for --help, as argparse."""
    parser = _parser()
    given = parser.parse_intermixed_args(arguments)
    words: list[str] = given.words
    if given.help and not words:
        parser.print_help()
        parser.exit()
    verb = words[0] if words else "run"
    if verb not in VERBS:
        parser.error(f"unknown verb {verb[:40]!r}; expected one of {', '.join(VERBS)}")
    if given.help:
        _parser(verb).print_help()
        parser.exit()
    if len(words) > 1 and verb not in _VERBS_WITH_ARGUMENTS:
        parser.error(f"{verb} takes no argument, but {words[1][:80]!r} is given")
    for option, verbs in _VERBS_OF_OPTION.items():
        if getattr(given, option) and verb not in verbs:
            name = "--explain" if option == "explain_path" else f"--{option.replace('_', '-')}"
            parser.error(f"{name} belongs to {' and '.join(sorted(verbs))}, not to {verb}")
    return Options(
        verb=verb,
        arguments=tuple(words[1:]),
        rc=given.rc,
        servers=tuple(given.server),
        name=given.name,
        bind_address=given.bind_address,
        state_dir=given.state_dir,
        baseline=given.baseline,
        output=given.output,
        upload=given.upload,
        password_file=given.password_file,
        log_format=given.log_format or ("json" if given.json else None),
        as_json=given.json,
        explain_path=given.explain_path,
        quick=given.quick,
        resume=given.resume,
    )


class _Parser(argparse.ArgumentParser):
    """argparse, with our form of an error and its exit status."""

    def error(self, message: str) -> NoReturn:
        complain(message)
        advise(f"{PROGRAM} --help")
        raise SystemExit(int(ExitStatus.USAGE))

    def _print_message(self, message: str, file: object = None) -> None:
        # Help and version. argparse itself would leave a full or closed output to the interpreter.
        if message:
            write_result(message)


def _parser(verb: str | None = None) -> argparse.ArgumentParser:
    """Return the parser for all verbs; with a verb, one that only serves to print its help."""
    page = None if verb is None else _page(verb)
    parser = _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [VERB] [options]" if page is None else f"{PROGRAM} {page.usage}",
        description="File-integrity monitoring: the agent on a watched host."
        if page is None
        else page.about,
        epilog=_epilog() if page is None else _statuses(page.statuses),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )

    def add(*names: str, help: str | None = None, **keywords: Any) -> None:
        if page is not None and not set(names) & {*page.options, "--help"}:
            help = argparse.SUPPRESS
        parser.add_argument(*names, help=help, **keywords)

    add("-h", "--help", action="store_true", help="show this; VERB --help tells more about a verb")
    add("words", nargs="*", help=argparse.SUPPRESS)
    add(
        "--rc",
        metavar=f"FILE|{REQ_FROM_SERVER}",
        help=f"the configuration (default: {REQ_FROM_SERVER} where a server is given, else "
        f"{DEFAULT_RC})",
    )
    add(
        "--server",
        action="append",
        default=[],
        type=_server,
        metavar="HOST:PORT",
        help="the server; a second one is the backup. IPv6: [::1]:49777",
    )
    add("--name", help="name to claim (default: the fully qualified name of this host)")
    add("--bind-address", type=_ip, metavar="IP", help="local address for connections")
    add(
        "--state-dir",
        type=Path,
        default=DEFAULT_STATE_DIR,
        metavar="DIR",
        help="password, spool and local baseline (default: %(default)s)",
    )
    add(
        "--baseline",
        metavar=f"FILE|{REQ_FROM_SERVER}",
        help=f"what to compare with (default: {REQ_FROM_SERVER} where a server is given, else "
        "the state directory's)",
    )
    add("--output", type=Path, metavar="FILE", help="init, update: where the baseline goes")
    add(
        "--upload",
        action="store_true",
        help="init, update: offer the baseline to the server as a proposal",
    )
    add(
        "--password-file",
        metavar="FILE|-",
        help="set-password: file, or - for standard input (default: ask on the terminal)",
    )
    add(
        "--explain",
        dest="explain_path",
        metavar="PATH",
        help="check-config: which rule decides about this path",
    )
    add(
        "--quick",
        action="store_true",
        help="check: look at all attributes, and read only files of which one has changed",
    )
    add(
        "--resume",
        action="store_true",
        help="check: go on where the last check was stopped, if nothing else has changed",
    )
    add("--log-format", choices=tuple(FORMATS), help="form of a log line (default: classic)")
    add("--json", action="store_true", help="print data as JSON, one object a line")
    add(
        "--version",
        action="version",
        version=f"{PROGRAM} {__version__}",
        help="show the version",
    )
    return parser


def _page(verb: str) -> "Page":
    # Only who asks for help waits for it.
    from needfire_client.manual import PAGES

    return PAGES[verb]


def _epilog() -> str:
    width = max(map(len, VERBS))
    verbs = [f"  {verb:<{width}}  {text}" for verb, text in VERBS.items()]
    return "\n".join(["verbs:", *verbs, "", _statuses(MEANINGS)])


def _statuses(statuses: Iterable[ExitStatus]) -> str:
    lines = [f"  {int(status):>2}  {MEANINGS[status]}" for status in statuses]
    return "\n".join(["exit status:", *lines])


def _server(text: str) -> ServerAddress:
    try:
        return ServerAddress.parse(text)
    except FormatError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _ip(text: str) -> str:
    import ipaddress

    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not an IP address") from None
