"""What Samhain's own directives for mail, syslog and commands come to: outputs, or a notice.

    SetMailAddress, SetMailRelay, MailSeverity …      samhain-mail       an output to smtp
    SyslogSeverity, SyslogFacility                    samhain-syslog     one to the host's syslog daemon
    OpenCommand, SetCommandline, ExternalSeverity     samhain-command-1  one to a command

A configuration that worked with Samhain goes on telling the same people. What cannot be meant the
same is told with what to write instead (Samhain manual, chapters 4 and 8). Where less of a restriction
is known here (filters, pauses), more is told rather than less; but a program is never run with more
rights than it was meant to have.
"""

import shlex
import socket
from dataclasses import dataclass, field
from typing import Any, Final

from needfire_protocol.errors import FormatError
from needfire_protocol.escape import printable
from needfire_protocol.rc.findings import Findings
from needfire_protocol.rc.syntax import Directive
from needfire_protocol.rc.values import WithoutEffect
from needfire_protocol.severity import Severity, SeverityFilter
from needfire_server.outputs.blocks import OUTPUTS_MAX, mail_address
from needfire_server.outputs.formats.syslog import FACILITIES
from needfire_server.outputs.secrets import check_program
from needfire_server.outputs.selection import Selection
from needfire_server.outputs.settings import MailSettings, OutputSettings, TargetKind
from needfire_server.server_user import Account

__all__ = ["SAMHAIN_KEYS", "SamhainOutputs"]

_SYSLOG_SOCKET: Final = "/dev/log"
_MAIL_NUMBER: Final = range(1, 1_001)
_MAIL_TIME_S: Final = range(1, 604_801)
_ALERT: Final = SeverityFilter.at_least(Severity.ALERT)
"""Samhain's default of MailSeverity."""

SAMHAIN_KEYS: Final = frozenset(
    (
        *("mailseverity", "setmailaddress", "setaddrseverity", "setmailrelay", "setmailport"),
        *("setmailsender", "setmailtime", "setmailnum", "mailsingle"),
        *("syslogseverity", "syslogfacility"),
        *("opencommand", "closecommand", "settype", "setcommandline", "externalseverity"),
        *("setcredentials", "setdeadtime"),
        *("setfilternot", "setfilterand", "setfilteror"),
    )
)
"""Lower case, as the table of directives has them."""


@dataclass(slots=True)
class _Command:
    path: str
    line: int
    arguments: tuple[str, ...] = ()
    is_usable: bool = True


@dataclass(slots=True)
class _Recipient:
    address: str
    severities: SeverityFilter | None = None


@dataclass(slots=True)
class _Said:
    """What the file says, as far as it is understood."""

    lines: dict[str, tuple[int, Any]] = field(default_factory=dict)
    recipients: list[_Recipient] = field(default_factory=list)
    commands: list[_Command] = field(default_factory=list)

    def get(self, key: str, default: Any = None) -> Any:
        return self.lines[key][1] if key in self.lines else default


class SamhainOutputs:
    """Gathers lines, then makes outputs of them."""

    def __init__(self, findings: Findings, account: Account) -> None:
        self._findings = findings
        self._account = account
        self._said = _Said()
        self._open: _Command | None = None

    def add(self, directive: Directive, value: Any, _current: None) -> None:
        """Take one line.

        Raises:
            FormatError: its value is none.
            WithoutEffect: it means nothing here; the text says what to write instead.
        """
        key = directive.key
        if key in ("setmailaddress", "setaddrseverity"):
            self._add_recipient(key, value)
        elif key in ("opencommand", "closecommand"):
            self._open = None
            if key == "opencommand":
                self._begin(directive, value)
        elif key in _OF_COMMANDS:
            self._add_to_command(key, value)
        else:
            parse = _PARSERS.get(key)
            parsed = value if parse is None else parse(value)
            self._said.lines[key] = (directive.line, parsed)

    def finish(self, outputs: tuple[OutputSettings, ...]) -> tuple[OutputSettings, ...]:
        """Return the outputs of [Outputs], and those that Samhain's directives ask for."""
        # Of severities, "none" is how Samhain says that there is no such log.
        made = [
            each
            for each in (*self._mail(), *self._syslog(), *self._commands())
            if any(severity in each.selection.severities for severity in Severity)
        ]
        names = {each.name for each in outputs}
        if len(outputs) + len(made) > OUTPUTS_MAX:
            self._findings.error(None, f"more than {OUTPUTS_MAX} outputs")
            return outputs
        return outputs + tuple(each for each in made if each.name not in names)

    # ---- lines -----------------------------------------------------------------------------------

    def _add_recipient(self, key: str, value: Any) -> None:
        if key == "setmailaddress":
            self._said.recipients.append(_Recipient(mail_address(value)))
        elif not self._said.recipients:
            raise FormatError("it stands before the first SetMailAddress")
        else:
            self._said.recipients[-1].severities = SeverityFilter.parse(value)

    def _begin(self, directive: Directive, path: str) -> None:
        command = _Command(path, directive.line)
        self._open = command
        self._said.commands.append(command)
        if not path.startswith("/"):
            command.is_usable = False
            raise FormatError(f"{printable(path, 80)!r} is no absolute path of a program")
        try:
            check_program(path, self._account)
        except FormatError:
            command.is_usable = False
            raise

    def _add_to_command(self, key: str, value: str) -> None:
        if self._open is None:
            raise FormatError("it stands before the first OpenCommand")
        if key == "setcommandline":
            try:
                # The first word is the name under which Samhain starts it.
                self._open.arguments = tuple(shlex.split(value)[1:])
            except ValueError as error:
                raise FormatError(f"the command is not complete: {error}") from None
        elif key == "settype":
            if value.lower() != "log":
                self._open.is_usable = False
                raise WithoutEffect(
                    "commands get records only, so this one is not run; for states of clients "
                    "write OutputTarget = command PROGRAM with OutputClass = traffic alarm"
                )
        elif key == "setcredentials":
            self._open.is_usable = False
            raise WithoutEffect(
                "a command runs as the server's user, so this one is not run; write OutputTarget = "
                f"command /usr/bin/setpriv --reuid={value} … {self._open.path} under [Outputs]"
            )
        else:
            raise WithoutEffect(_ALL_THE_SAME[key])

    # ---- outputs ----------------------------------------------------------------------------------

    def _mail(self) -> list[OutputSettings]:
        said, relay = self._said, self._said.get("setmailrelay")
        if not said.recipients:
            for key in ("mailseverity", "setmailrelay"):
                self._without(key, "without SetMailAddress nobody gets mail")
            return []
        if relay is None:
            line = said.get("mailseverity", None) and said.lines["mailseverity"][0]
            self._findings.notice(
                line,
                "SetMailAddress has no effect: mail goes through a relay only; add SetMailRelay = "
                "HOST, or an output: OutputTarget = smtp-starttls HOST:587 under [Outputs]",
            )
            return []
        overall = said.get("mailseverity", _ALERT)
        groups: dict[SeverityFilter, list[str]] = {}
        for each in said.recipients:
            groups.setdefault(each.severities or overall, []).append(each.address)
        return [
            self._mail_to(number, relay, severities, tuple(addresses))
            for number, (severities, addresses) in enumerate(groups.items())
        ]

    def _mail_to(
        self, number: int, relay: str, severities: SeverityFilter, addresses: tuple[str, ...]
    ) -> OutputSettings:
        said, port = self._said, self._said.get("setmailport", 25)
        is_single = said.get("mailsingle", False)
        return OutputSettings(
            name="samhain-mail" if number == 0 else f"samhain-mail-{number + 1}",
            kind=TargetKind.SMTP,
            where=f"{relay}:{port}",
            address=(relay, port),
            format="text",
            selection=Selection(severities),
            mail=MailSettings(
                sender=said.get("setmailsender") or f"needfire@{socket.gethostname()}",
                recipients=addresses,
                summary_interval_s=said.get("setmailtime", 86_400),
                summary_count=1 if is_single else said.get("setmailnum", 10),
            ),
        )

    def _syslog(self) -> list[OutputSettings]:
        severities = self._said.get("syslogseverity")
        if severities is None:
            self._without("syslogfacility", "without SyslogSeverity nothing goes to syslog")
            return []
        return [
            OutputSettings(
                name="samhain-syslog",
                kind=TargetKind.SYSLOG_LOCAL,
                where=_SYSLOG_SOCKET,
                format="text",
                selection=Selection(severities),
                facility=self._said.get("syslogfacility", FACILITIES["authpriv"]),
            )
        ]

    def _commands(self) -> list[OutputSettings]:
        severities = self._said.get("externalseverity")
        if severities is None:
            for command in self._said.commands:
                self._findings.notice(
                    command.line,
                    "OpenCommand has no effect: ExternalSeverity is none by default; add for example "
                    "ExternalSeverity = crit",
                )
            return []
        return [
            OutputSettings(
                name=f"samhain-command-{number}",
                kind=TargetKind.COMMAND,
                where=shlex.join((each.path, *each.arguments)),
                argv=(each.path, *each.arguments),
                format="text",
                selection=Selection(severities),
            )
            for number, each in enumerate(self._said.commands, 1)
            if each.is_usable
        ]

    def _without(self, key: str, reason: str) -> None:
        if key in self._said.lines:
            self._findings.notice(self._said.lines[key][0], f"it has no effect: {reason}")


_OF_COMMANDS: Final = frozenset(
    (
        *("settype", "setcommandline", "setcredentials", "setdeadtime"),
        *("setfilternot", "setfilterand", "setfilteror"),
    )
)
_FILTERS: Final = (
    "messages are not filtered by their words, so the program gets all that ExternalSeverity takes; "
    "write OutputSeverity, OutputClass or OutputClassSeverity in an output under [Outputs]"
)
_ALL_THE_SAME: Final = {
    "setfilternot": _FILTERS,
    "setfilterand": _FILTERS,
    "setfilteror": _FILTERS,
    "setdeadtime": "the program is started for each record; let the program itself leave some out",
}


def _facility(text: str) -> int:
    word = text.lower().removeprefix("log_")
    if word not in FACILITIES:
        known = ", ".join(f"LOG_{name.upper()}" for name in FACILITIES)
        raise FormatError(f"{printable(text, 64)!r} is no facility; expected {known}")
    return FACILITIES[word]


def _number(allowed: range) -> Any:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) not in allowed:
            raise FormatError(
                f"{printable(text, 64)!r} is no number from {allowed[0]} to {allowed[-1]}"
            )
        return int(text)

    return parse


def _host(text: str) -> str:
    if not text or len(text) > 255 or not all(c.isalnum() or c in ".-:" for c in text):
        raise FormatError(f"{printable(text, 80)!r} is no name or address of a host")
    return text


def _truth(text: str) -> bool:
    words = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if text.lower() not in words:
        raise FormatError(f"{printable(text, 64)!r} is neither yes nor no")
    return words[text.lower()]


_PARSERS: Final = {
    "mailseverity": SeverityFilter.parse,
    "syslogseverity": SeverityFilter.parse,
    "externalseverity": SeverityFilter.parse,
    "syslogfacility": _facility,
    "setmailrelay": _host,
    "setmailport": _number(range(1, 65_536)),
    "setmailsender": mail_address,
    "setmailtime": _number(_MAIL_TIME_S),
    "setmailnum": _number(_MAIL_NUMBER),
    "mailsingle": _truth,
}
