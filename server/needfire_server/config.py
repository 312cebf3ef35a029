"""What the server's configuration file says, as frozen typed settings."""

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from needfire_protocol.errors import ConfigError, FormatError, Problem
from needfire_protocol.names import parse_client_name
from needfire_protocol.rc.changes import InForce, in_force
from needfire_protocol.rc.conditions import Facts
from needfire_protocol.rc.directives import Program
from needfire_protocol.rc.findings import Findings
from needfire_protocol.rc.settings_reader import read_settings
from needfire_protocol.rc.syntax import FILE_BYTES_MAX, Directive, parse_lines
from needfire_protocol.rc.values import WithoutEffect
from needfire_protocol.severity import Severity, SeverityFilter
from needfire_protocol.srp import Verifier
from needfire_server.outputs.blocks import OutputBlocks
from needfire_server.outputs.samhain import SAMHAIN_KEYS, SamhainOutputs
from needfire_server.outputs.settings import OutputSettings
from needfire_server.server_user import Account, find_account, find_user, no_such_user

__all__ = ["RegisteredClient", "ServerSettings", "load_server_settings", "read_server_settings"]


_DAY_S: Final = 86_400
_INFO_AND_ABOVE: Final = SeverityFilter.at_least(Severity.INFO)
_NOTICE_AND_ABOVE: Final = SeverityFilter.at_least(Severity.NOTICE)


class RegisteredClient(NamedTuple):
    """One usable line of ``[Clients]``."""

    name: str
    verifier: Verifier
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Everything that the server's configuration decides.

    The defaults are those of the table of directives, which also explains each of them.
    """

    listen_interface: str | None = None
    """None: every address, IPv4 and IPv6."""
    listen_port: int = 49_777
    set_client_from_accept: bool = False
    severity_lookup: Severity = Severity.CRIT
    require_lookup: bool = False
    lookup_timeout_s: int = 5
    hosts_allow_file: str = "/etc/hosts.allow"
    hosts_deny_file: str = "/etc/hosts.deny"
    clients: tuple[RegisteredClient, ...] = ()
    """In the order of the file; where a name stands twice, the last line counts."""
    relay_clients: tuple[str, ...] = ()
    """Clients that are servers, and may pass on what others report."""
    data_directory: str = "/var/lib/needfire"
    store_url: str | None = None
    """None: the SQLite file in the data directory."""
    store_password_file: str | None = None
    enable_traffic: bool = True
    enable_administration: bool = True
    enable_system: bool = True
    persist_traffic: bool = False
    persist_administration: bool = True
    persist_system: bool = True
    disk_full_action: str = "warn"
    retain_integrity_s: int = 180 * _DAY_S
    retain_traffic_s: int = _DAY_S
    retain_administration_s: int = 180 * _DAY_S
    retain_system_s: int = 180 * _DAY_S
    retain_alarm_s: int = 180 * _DAY_S
    retain_provisioning_s: int = 180 * _DAY_S
    retain_for_outputs_s: int = 7 * _DAY_S
    """0: nothing is kept for outputs beyond its time."""
    server_user: str | None = None
    client_time_limit_s: int = 86_400
    silence_limit_s: int = 180
    """0: silence is not reported before client_time_limit_s."""
    clock_limit_s: int = 60
    """0: clocks are not compared."""
    html_status_file: str | None = None
    metrics_listen: tuple[str, int] | None = None
    connection_timeout_s: int = 900
    session_key_lifetime_s: int = 7_200
    connection_limit: int = 1_000
    handshake_limit: int = 256
    agent_report_rate: int = 1_000
    """Reports a second of one agent; 0: no limit."""
    agent_byte_rate: int = 2**20
    """Bytes of reports a second of one agent; 0: no limit."""
    proposal_size_limit_bytes: int = 2**30
    audit_checkpoint_interval_s: int = 60
    warn_interval_s: int = 900
    warn_terminals: bool = True
    socket_allow_uids: tuple[int, ...] = (0,)
    administrators: tuple[str, ...] = ("root",)
    """Names of users, and of groups behind an @."""
    approvers: tuple[str, ...] = ("root",)
    auditors: tuple[str, ...] = ("root",)
    admin_failures_max: int = 5
    admin_lock_s: int = 900
    strip_domain: bool = True
    use_separate_logs: bool = False
    print_severity: SeverityFilter = _INFO_AND_ABOVE
    log_severity: SeverityFilter = _NOTICE_AND_ABOVE
    log_file: str | None = None
    """None: ``log`` in the data directory."""
    log_format: str = "classic"
    outputs: tuple[OutputSettings, ...] = ()
    """In the order of the file; no two have the same name."""
    source: str = ""
    """Where the configuration came from, for people."""
    sha256: str = ""
    """Digest of the file, in hex."""
    notices: tuple[Problem, ...] = ()
    in_force: InForce = field(default_factory=dict)
    """The directives that decide all this, as the file has them, without secrets."""

    def with_log_format(self, log_format: str) -> "ServerSettings":
        """Return the settings with another form of log lines."""
        return replace(self, log_format=log_format)


def read_server_settings(path: str, facts: Facts, starter: Account | None = None) -> ServerSettings:
    """Return the settings of the file at ``path``.

    Args:
        starter: who started the server, before it gave up any rights, so that a reload judges as
            the start did. None where no server is started: somebody wants to know.

    Raises:
        ConfigError: the file cannot be read or used, or others than root and the user that starts
            the server can change it; it names every problem.
    """
    try:
        with open(path, "rb") as file:
            _check_owner(path, os.fstat(file.fileno()), starter or Account.of_process())
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
        problem = Problem(
            path,
            None,
            f"cannot be read: {reason}",
            "name the file: serve --config FILE, or check-config FILE",
        )
        raise ConfigError([problem]) from None
    return load_server_settings(data, path, facts, None if _is_root(starter) else starter)


def _check_owner(path: str, status: os.stat_result, starter: Account) -> None:
    """Refuse a file that others may write: it says who may log in, and whom root becomes.

    Whom the file itself names cannot count: that user could write ``ServerUser=root`` there.
    ``/dev/null`` and its like are as everybody may write them, and still nobody's.
    """
    if stat.S_ISCHR(status.st_mode):
        return
    found = None
    if status.st_uid not in (0, starter.uid):
        found = f"belongs to the user {status.st_uid}"
    elif status.st_mode & stat.S_IWOTH:
        found = "can be written by everybody"
    elif status.st_mode & stat.S_IWGRP and status.st_gid not in (0, starter.gid):
        found = f"can be written by the group {status.st_gid}"
    if found is not None:
        expected = "only root, or the user that starts the program, may own and write it"
        hint = f"look at what it says, then: chown root {path}; chmod go-w {path}"
        raise ConfigError([Problem(path, None, f"{found}; {expected}", hint)])


def load_server_settings(
    data: bytes, source: str, facts: Facts, unnamed: Account | None = None
) -> ServerSettings:
    """Return the settings that the configuration file ``data`` gives.

    Which files it may name is decided for the user that the server runs as, ServerUser.

    Args:
        unnamed: who that is where the file does not name him; None for whom root becomes.

    Raises:
        ConfigError: the file cannot be used; it names every problem.
    """
    findings = Findings(source)
    directives = parse_lines(data, facts=facts, findings=findings)
    defaults = ServerSettings()
    account = _server_user(directives, unnamed, findings)
    outputs, samhain = OutputBlocks(findings, account), SamhainOutputs(findings, account)

    def add_output(directive: Directive, value: Any, current: None) -> None:
        lines = samhain if directive.key in SAMHAIN_KEYS else outputs
        lines.add(directive, value, current)

    values = read_settings(
        directives,
        Program.SERVER,
        {each.name: getattr(defaults, each.name) for each in fields(defaults)},
        findings,
        {
            "clients": _ClientLines(findings).add,
            "store_url": _as_store_url,
            "outputs": add_output,
            "relay_clients": _as_client_name,
            **dict.fromkeys(_PATH_FIELDS, _as_text),
        },
    )
    values["outputs"] = samhain.finish(outputs.finish())
    return ServerSettings(
        **values,
        source=source,
        sha256=hashlib.sha256(data).hexdigest(),
        notices=findings.notices(),
        in_force=in_force(directives, Program.SERVER),
    )


def _server_user(
    directives: Sequence[Directive], unnamed: Account | None, findings: Findings
) -> Account:
    """Return who the server runs as; look before all else, because files are judged line by line."""
    named = [each for each in directives if each.key == "serveruser"]
    if not named:
        return unnamed or _whom_root_becomes()
    name = os.fsdecode(named[-1].value)
    user = find_user(name)
    if user is None:
        findings.error(named[-1].line, f"ServerUser: {no_such_user(name)}", "name one that exists")
        return unnamed or _whom_root_becomes()
    return Account.of_user(user)


def _whom_root_becomes() -> Account:
    try:
        return Account.of_user(find_account(None))
    except ConfigError:
        # There is nobody. It is told when root starts the server; others need not mind.
        return Account.of_process()


def _is_root(starter: Account | None) -> bool:
    return starter is not None and starter.uid == 0


_PATH_FIELDS: Final = (
    "data_directory",
    "store_password_file",
    "hosts_allow_file",
    "hosts_deny_file",
    "log_file",
    "html_status_file",
)


def _as_text(_directive: Directive, path: bytes, _current: str | None) -> str:
    return os.fsdecode(path)


def _as_client_name(_directive: Directive, text: str, _current: None) -> str:
    return parse_client_name(text)


def _as_store_url(_directive: Directive, text: str, _current: str | None) -> str:
    """Refuse what is no URL of PostgreSQL, and a password: too many may read this file.

    The text of an error never repeats it.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in ("postgresql", "postgres"):
        raise FormatError("expected postgresql://USER@HOST/DATABASE")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    user, at, hosts = authority.rpartition("@")
    options = unquote(rest.partition("?")[2]).split("&")
    names = {option.partition("=")[0].lower() for option in options}
    if (at and ":" in user) or not names.isdisjoint(_SECRET_OPTIONS):
        raise FormatError(
            "the URL holds a password, which must not stand here; put it into a file of its own "
            "and name that with StorePasswordFile"
        )
    if not all(map(_HOST_AND_PORT.fullmatch, hosts.split(","))):
        # As it looks with a slash in a password; the driver would repeat what it cannot read.
        raise FormatError("expected postgresql://USER@HOST/DATABASE, with digits for a port")
    return text


_HOST_AND_PORT: Final = re.compile(r"(?:\[[^\]]*\]|[^:@]*)(?::[0-9]*)?")
_SECRET_OPTIONS: Final = ("password", "sslpassword")

_SAMHAIN_VERIFIER: Final = re.compile(
    r"[^@]+@(?:[0-9A-F]{16}@[0-9A-F]{1,256}|[0-9A-F]{8}@[0-9A-F]{48})", re.IGNORECASE | re.ASCII
)
"""With SRP (1024-bit group), and of a build without it."""


class _ClientLines:
    """The lines of ``[Clients]``."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._lines: dict[str, int] = {}

    def add(self, directive: Directive, text: str, _current: None) -> RegisteredClient:
        if _SAMHAIN_VERIFIER.fullmatch(text) is not None:
            raise WithoutEffect(
                "this verifier was made by Samhain for its own protocol; register the client "
                "anew (needfire-admin register NAME)"
            )
        name, verifier = Verifier.parse_line_value(text)
        if name == "hostname":
            self._findings.notice(
                directive.line, "HOSTNAME is still to be replaced with the name of the client"
            )
        earlier = self._lines.get(name)
        self._lines[name] = directive.line
        if earlier is not None:
            self._findings.notice(
                directive.line,
                f"Client {name} stands in line {earlier} as well; this line counts",
            )
        return RegisteredClient(name, verifier, directive.line)
