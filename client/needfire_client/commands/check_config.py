"""``check-config``: is a configuration file right, and which rule decides about a path."""

import os
from collections.abc import Sequence
from pathlib import Path

from needfire_client.configuration import read_rc
from needfire_client.explaining import (
    Explanation,
    explain_path,
    is_reached_through,
    rule_text,
)
from needfire_client.facts import HostFacts
from needfire_client.failures import CommandError
from needfire_client.identity import host_name
from needfire_client.options import REQ_FROM_SERVER, Options
from needfire_client.policy import Decision
from needfire_client.roots import with_resolved_roots
from needfire_client.statedir import StateDir
from needfire_client.terminal import advise, complain, print_json, print_line, warn
from needfire_protocol.counted import counted
from needfire_protocol.errors import ConfigError, FormatError, Problem
from needfire_protocol.escape import escape_bytes, unescape_bytes
from needfire_protocol.exit_status import ExitStatus
from needfire_protocol.rc.agent import AgentSettings, parse_agent_rc
from needfire_protocol.rc.policies import Check, PathRule
from needfire_protocol.rc.values import normalise

__all__ = ["run"]


def run(options: Options) -> ExitStatus:
    """Read a configuration as the agent would, and say everything that there is to say."""
    path = _path(options)
    try:
        settings = parse_agent_rc(
            read_rc(path), source=str(path), facts=HostFacts(options.name or host_name())
        )
    except ConfigError as error:
        return _tell_errors(path, error.problems, as_json=options.as_json)
    if options.explain_path is not None:
        return _explain(
            with_resolved_roots(settings), options.explain_path, as_json=options.as_json
        )
    return _tell_good(path, settings, as_json=options.as_json)


def _path(options: Options) -> Path:
    if len(options.arguments) > 1:
        raise CommandError(ExitStatus.USAGE, "check-config takes one file")
    if options.arguments:
        return Path(options.arguments[0])
    if options.rc_source != REQ_FROM_SERVER:
        return Path(options.rc_source)
    path = StateDir(options.state_dir).cached_rc
    if not path.exists():
        raise CommandError(
            ExitStatus.CONFIGURATION,
            f"the configuration comes from the server, and none was fetched yet: {path} does not exist",
            hint="init, check and run fetch it; or look at the server's own file of it: "
            "check-config FILE",
        )
    return path


def _tell_errors(path: Path, problems: Sequence[Problem], *, as_json: bool) -> ExitStatus:
    for problem in problems:
        if as_json:
            print_json(_as_data("error", problem))
            continue
        complain(str(problem))
        if problem.hint is not None:
            advise(problem.hint)
    if not as_json:
        complain(f"{path}: cannot be used; {counted(len(problems), 'error')}")
    return ExitStatus.CONFIGURATION


def _tell_good(path: Path, settings: AgentSettings, *, as_json: bool) -> ExitStatus:
    for notice in settings.notices:
        if as_json:
            print_json(_as_data("notice", notice))
        else:
            warn(str(notice))
    if not settings.rules:
        warn(f"{path}: no rule covers anything; add dir= or file= lines under a policy")
    if not as_json:
        print_line(
            f"{path}: can be used; {counted(len(settings.rules), 'rule')}, {counted(len(settings.notices), 'notice')}"
        )
    return ExitStatus.DONE


def _as_data(kind: str, problem: Problem) -> dict[str, object]:
    return {
        "kind": kind,
        "source": problem.source,
        "line": problem.line,
        "text": problem.text,
        "hint": problem.hint,
    }


def _explain(settings: AgentSettings, text: str, *, as_json: bool) -> ExitStatus:
    try:
        path = unescape_bytes(text)
    except FormatError as error:
        raise CommandError(ExitStatus.USAGE, f"--explain: {error}") from None
    try:
        path = normalise(path)
    except FormatError as error:
        raise CommandError(ExitStatus.USAGE, f"--explain: {error}") from None
    links = _links_above(path)
    asked, told = path, {}
    if links and not is_reached_through(settings, path, links):
        parent, _, name = path.rpartition(b"/")
        path = os.path.join(os.path.realpath(parent), name)
        told = {"asked": escape_bytes(asked), "links": [escape_bytes(link) for link in links]}
    found = explain_path(settings, path)
    shown = escape_bytes(path)
    if as_json:
        print_json({"path": shown, **told, **_explanation_data(found)})
        return ExitStatus.DONE
    if told:
        last = escape_bytes(links[-1])
        print_line(f"{escape_bytes(asked)}: {last} is a link; the object is {shown}")
    _print_explanation(shown, found)
    return ExitStatus.DONE


def _links_above(path: bytes) -> list[bytes]:
    """Return which directories on the way to an object are symbolic links, the outermost first."""
    ends = (end for end, byte in enumerate(path) if byte == ord("/") and end)
    return [path[:end] for end in ends if os.path.islink(path[:end])]


def _print_explanation(shown: str, found: Explanation) -> None:
    if found.decision is None:
        print_line(f"{shown}: no rule covers it")
        print_line(f"  why:      {found.reason}")
    else:
        print_line(f"{shown}: [{found.decision.policy.value}] by {_place(found.decision.rule)}")
        print_line(f"  why:      {found.reason}")
        print_line(f"  compared: {_names(found.decision.mask)}")
        print_line(f"  severity: {found.decision.severity.word}")
    for text in found.exceptions:
        print_line(f"  but:      {text}")
    for loser in found.losers:
        print_line(f"  not by:   {_place(loser.rule)}: {loser.reason}")


def _place(rule: PathRule) -> str:
    return f"{rule.source}:{rule.line} ({rule_text(rule)})"


def _explanation_data(found: Explanation) -> dict[str, object]:
    return {
        **_decision_data(found.decision),
        "why": found.reason,
        "exceptions": list(found.exceptions),
        "others": [
            {
                "policy": loser.rule.policy.value,
                "rule": escape_bytes(loser.rule.path),
                "line": loser.rule.line,
                "why": loser.reason,
            }
            for loser in found.losers
        ],
    }


def _decision_data(decision: Decision | None) -> dict[str, object]:
    if decision is None:
        return {"policy": None}
    return {
        "policy": decision.policy.value,
        "rule": escape_bytes(decision.rule.path),
        "source": decision.rule.source,
        "line": decision.rule.line,
        "compared": _names(decision.mask).split(", "),
        "severity": decision.severity.word,
    }


def _names(mask: Check) -> str:
    return ", ".join(str(check.name) for check in Check if check in mask) or "nothing"
