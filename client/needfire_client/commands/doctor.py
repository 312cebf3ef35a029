"""``doctor``: does everything that the agent needs work here, and what mends what does not."""

import asyncio
import os
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Final

from needfire_client.address import ServerAddress
from needfire_client.baseline import BaselineReader
from needfire_client.configuration import read_rc
from needfire_client.dialer import Dialer
from needfire_client.facts import HostFacts
from needfire_client.failures import CommandError
from needfire_client.identity import PASSWORD_ADVISED_LENGTH, agent_name, load_password
from needfire_client.link import LinkError, LinkRefusedError, UnreachableError
from needfire_client.options import REQ_FROM_SERVER, Options
from needfire_client.roots import with_resolved_roots
from needfire_client.statedir import StateDir
from needfire_client.terminal import print_json, print_line
from needfire_client.trial import try_watching
from needfire_client.troubles import exit_status_of
from needfire_protocol.counted import counted
from needfire_protocol.errors import ConfigError, FormatError, StorageError
from needfire_protocol.exit_status import ExitStatus
from needfire_protocol.messages import RefusalCode
from needfire_protocol.plain_classes import dataclass
from needfire_protocol.rc.agent import AgentSettings, parse_agent_rc

__all__ = ["run"]

_CLOCK_LEAST_S: Final = 1_577_836_800
"""Seconds since 1970 of the first day of 2020: a clock before that was never set."""

_WATCHES_ADVISED: Final = 100_000
_LOSSES_MAX: Final = 10
"""Losses that are shown."""


class Verdict(Enum):
    """How one thing is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found."""

    verdict: Verdict
    about: str
    text: str
    fix: str | None = None
    status: ExitStatus = ExitStatus.LOCAL
    """Exit status where the verdict is FAIL."""


def run(options: Options) -> ExitStatus:
    """Look at everything; exit with the status of the first thing that fails."""
    status = ExitStatus.DONE
    for finding in _look(options):
        _print(finding, as_json=options.as_json)
        if finding.verdict is Verdict.FAIL and status is ExitStatus.DONE:
            status = finding.status
    return status


def _print(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "verdict": finding.verdict.value,
                "about": finding.about,
                "text": finding.text,
                "fix": finding.fix,
            }
        )
        return
    print_line(f"{finding.verdict.value:<4}  {finding.about}: {finding.text}")
    if finding.fix is not None:
        print_line(f"      fix: {finding.fix}")


def _look(options: Options) -> Iterator[Finding]:
    state = StateDir(options.state_dir)
    yield _look_at_user()
    yield _look_at_state(state)
    yield _look_at_name(options)
    yield _look_at_clock()
    settings: AgentSettings | None = None
    for finding, found in _look_at_rc(options, state):
        settings = found or settings
        yield finding
    servers = options.servers or _servers_of(settings)
    if servers:
        password = _look_at_password(state)
        yield password
        for server in servers:
            yield _look_at_server(server)
        if password.verdict is not Verdict.FAIL:
            yield _look_at_login(options, state, servers)
    else:
        yield Finding(
            Verdict.WARN,
            "server",
            "none is given; events stay on this host",
            "--server HOST:PORT, or SetLogServer in the configuration",
        )
    yield _look_at_baseline(options, state, has_server=bool(servers))
    yield from _look_at_watching(None if settings is None else with_resolved_roots(settings))


def _look_at_user() -> Finding:
    if os.geteuid() == 0:
        return Finding(Verdict.OK, "user", "runs as root")
    return Finding(
        Verdict.WARN,
        "user",
        f"runs as uid {os.geteuid()}: what only root can read will be reported as unreadable",
        "run it as root",
    )


def _look_at_state(state: StateDir) -> Finding:
    try:
        info = os.stat(state.root)
    except FileNotFoundError:
        return Finding(
            Verdict.WARN, "state directory", f"{state.root} does not exist yet; run makes it"
        )
    except OSError as error:
        return Finding(Verdict.FAIL, "state directory", f"{state.root}: {error.strerror}")
    mode = stat.S_IMODE(info.st_mode)
    if info.st_uid not in (0, os.geteuid()) or mode & 0o077:
        return Finding(
            Verdict.FAIL if mode & 0o022 or info.st_uid not in (0, os.geteuid()) else Verdict.WARN,
            "state directory",
            f"{state.root} has mode {mode:o} and owner {info.st_uid}; expected 700 and root",
            f"chown root: {state.root} && chmod 700 {state.root}",
        )
    free = os.statvfs(state.root)
    free_bytes = free.f_bavail * free.f_frsize
    if free_bytes < 64 * 1024 * 1024:
        return Finding(
            Verdict.WARN,
            "state directory",
            f"{state.root} has {free_bytes // 1_048_576} MiB left; reports wait there",
            "free space",
        )
    return Finding(Verdict.OK, "state directory", f"{state.root}, mode {mode:o}")


def _look_at_name(options: Options) -> Finding:
    try:
        name = agent_name(options.name)
    except CommandError as error:
        return Finding(Verdict.FAIL, "name", str(error), error.hint, error.status)
    if "." not in name:
        return Finding(
            Verdict.WARN,
            "name",
            f"{name} is not fully qualified; the server may know this host by another name",
            "correct /etc/hosts or the DNS, or give the registered name with --name",
        )
    try:
        socket.getaddrinfo(name, None)
    except OSError as error:
        return Finding(
            Verdict.WARN,
            "name",
            f"{name} cannot be resolved here ({error.strerror or error}); if the server cannot "
            "either, it reports that at each log-in",
            "add the name to the DNS or to /etc/hosts",
        )
    return Finding(Verdict.OK, "name", f"{name} can be resolved")


def _look_at_clock() -> Finding:
    now_s = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    if now_s < _CLOCK_LEAST_S:
        return Finding(Verdict.FAIL, "clock", f"it is {shown} here", "set the clock")
    return Finding(Verdict.OK, "clock", f"it is {shown} here")


def _look_at_rc(
    options: Options, state: StateDir
) -> Iterator[tuple[Finding, AgentSettings | None]]:
    source = options.rc_source
    path = state.cached_rc if source == REQ_FROM_SERVER else Path(source)
    if source == REQ_FROM_SERVER and not path.exists():
        text = "comes from the server; none was fetched yet"
        yield Finding(Verdict.OK, "configuration", text), None
        return
    try:
        settings = parse_agent_rc(
            read_rc(path), source=str(path), facts=HostFacts(options.name or socket.getfqdn())
        )
    except (ConfigError, CommandError) as error:
        first = error.problems[0] if isinstance(error, ConfigError) else error
        fix = f"needfire-agent check-config {path}"
        yield (
            Finding(Verdict.FAIL, "configuration", str(first), fix, ExitStatus.CONFIGURATION),
            None,
        )
        return
    if not settings.rules:
        fix = "add dir= or file= lines under a policy"
        text = f"{path} has no rule that covers anything"
        yield Finding(Verdict.WARN, "configuration", text, fix), settings
    else:
        text = f"{path}, {counted(len(settings.rules), 'rule')}, {counted(len(settings.notices), 'notice')}"
        yield Finding(Verdict.OK, "configuration", text), settings


def _servers_of(settings: AgentSettings | None) -> tuple[ServerAddress, ...]:
    if settings is None:
        return ()
    return tuple(
        ServerAddress(host, settings.server_port if port is None else port)
        for host, port in settings.log_servers
    )


def _look_at_password(state: StateDir) -> Finding:
    try:
        password = load_password(state.password)
    except CommandError as error:
        return Finding(Verdict.FAIL, "password", str(error), error.hint, error.status)
    if len(password) < PASSWORD_ADVISED_LENGTH:
        return Finding(
            Verdict.WARN,
            "password",
            f"it has only {len(password)} characters",
            "needfire-admin gen-password makes a good one",
        )
    return Finding(Verdict.OK, "password", f"is set in {state.password}")


def _look_at_server(server: ServerAddress) -> Finding:
    about = f"server {server}"
    try:
        with socket.create_connection((server.host, server.port), timeout=10):
            return Finding(Verdict.OK, about, "accepts connections")
    except OSError as error:
        return Finding(
            Verdict.FAIL,
            about,
            f"{error.strerror or error}",
            "start the server; check address, port, DNS and firewall",
            ExitStatus.UNREACHABLE,
        )


def _look_at_login(
    options: Options, state: StateDir, servers: tuple[ServerAddress, ...]
) -> Finding:
    async def log_in() -> str:
        dialer = Dialer(
            servers,
            name=agent_name(options.name),
            load_password=lambda: load_password(state.password),
            random_bytes=secrets.token_bytes,
            bind_address=options.bind_address,
            takes_over=False,
        )
        link = await dialer.dial(lambda _error: None)
        await link.close()
        return str(link.server)

    try:
        server = asyncio.run(log_in())
    except CommandError as error:
        return Finding(Verdict.FAIL, "log-in", str(error), error.hint, error.status)
    except LinkError as error:
        return Finding(Verdict.FAIL, "log-in", str(error), _login_fix(error), exit_status_of(error))
    return Finding(Verdict.OK, "log-in", f"{server} knows this name and password")


def _login_fix(error: LinkError) -> str:
    if isinstance(error, UnreachableError):
        return "needfire-agent explain CONNECTION_REFUSED"
    if isinstance(error, LinkRefusedError) and error.code is RefusalCode.AUTHENTICATION_FAILED:
        return "the server's log says which: needfire-agent explain SESSION_KEY_NEGOTIATION_FAILED"
    return "the server's log has the reason; needfire-agent explain CONNECTION_ERROR"


def _look_at_baseline(options: Options, state: StateDir, *, has_server: bool) -> Finding:
    chosen = options.baseline or (REQ_FROM_SERVER if has_server else str(state.baseline))
    path = state.cached_baseline if chosen == REQ_FROM_SERVER else Path(chosen)
    if not path.exists():
        if chosen == REQ_FROM_SERVER:
            return Finding(Verdict.OK, "baseline", "comes from the server; none was fetched yet")
        return Finding(Verdict.FAIL, "baseline", f"{path} does not exist", "needfire-agent init")
    try:
        with BaselineReader(path) as reader:
            entries = reader.meta.entries
    except (FormatError, StorageError) as error:
        return Finding(Verdict.FAIL, "baseline", str(error), "needfire-agent init")
    return Finding(Verdict.OK, "baseline", f"{path}, {counted(entries, 'object')}")


def _look_at_watching(settings: AgentSettings | None) -> Iterator[Finding]:
    """Choose a way of watching as the agent does at its start."""
    about = "real-time watching"
    if settings is not None and not (settings.realtime and settings.realtime_method != "none"):
        text = "is switched off; what changes is seen by full checks only"
        yield Finding(Verdict.WARN, about, text, "InotifyActive = yes")
        return
    trial = try_watching(settings)
    lacking = [f"{name} ({use})" for name, use in trial.lacking]
    if trial.method == "none":
        fix = "RealTimeMethod = auto takes what works here"
        yield Finding(Verdict.FAIL, about, f"none: {trial.reason}", fix)
        trial.losses.clear()
    elif trial.method == "fanotify":
        text = f"fanotify, {counted(trial.watched, 'file system')}; events say who changed a file"
        yield Finding(Verdict.OK, about, text)
    else:
        is_chosen = settings is not None and settings.realtime_method != "auto"
        text = f"{trial.method}, {trial.watched} directories; no event says who changed a file"
        reason = f": {trial.reason}" if trial.reason else ""
        yield Finding(Verdict.WARN, about, text + reason, _watching_fix(lacking, is_chosen))
    if lacking:
        text = f"this process does not have {'; '.join(lacking)}"
        fix = "start it as root; as a service, with CapabilityBoundingSet= as in the unit shipped"
        yield Finding(Verdict.WARN, "rights", text, fix)
    if trial.polled:
        text = f"{trial.polled} mount points are looked at in turn: nobody tells of changes there"
        yield Finding(Verdict.OK, "polling", text)
    for loss in trial.losses[:_LOSSES_MAX]:
        more = f"sysctl fs.inotify.max_user_watches={5 * _WATCHES_ADVISED}"
        is_limit = "limit of watches" in loss
        yield Finding(Verdict.WARN, about, loss, more if is_limit else None)


def _watching_fix(lacking: list[str], is_chosen: bool) -> str:
    if is_chosen:
        return "RealTimeMethod = auto takes the best that works here"
    if lacking:
        return "give the agent the rights that are named below"
    return (
        "fanotify needs Linux 5.9, and file systems with handles; RealTimeMethod = fanotify takes "
        "it all the same and polls those that have none"
    )
