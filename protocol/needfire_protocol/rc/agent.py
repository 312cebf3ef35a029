"""What an agent's configuration file says, as frozen typed settings."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final, Protocol

from needfire_protocol.errors import FormatError, Problem
from needfire_protocol.escape import escape_bytes
from needfire_protocol.rc.conditions import Facts
from needfire_protocol.rc.crontab import Crontab
from needfire_protocol.rc.directives import SECTIONS, Program
from needfire_protocol.rc.findings import Findings
from needfire_protocol.rc.policies import DEFAULT_MASKS, Check, PathRule, Policy, RuleKind
from needfire_protocol.rc.settings_reader import read_settings
from needfire_protocol.rc.skip_checksum import SkipLine
from needfire_protocol.rc.syntax import Directive, parse_lines
from needfire_protocol.rc.values import DEPTH_MAX, WEAK_DIGESTS, MaskChange, MatchedPath
from needfire_protocol.severity import Severity, SeverityFilter

__all__ = ["AgentSettings", "PathPattern", "parse_agent_rc"]


class PathPattern(Protocol):
    """A regular expression over whole paths; ``re.Pattern[bytes]`` is one as well."""

    def fullmatch(self, path: bytes, /) -> object:
        """Return something true where the whole path matches."""


_INFO_AND_ABOVE: Final = SeverityFilter.at_least(Severity.INFO)
_NOTICE_AND_ABOVE: Final = SeverityFilter.at_least(Severity.NOTICE)


def _default_severities() -> Mapping[Policy, Severity]:
    return MappingProxyType(dict.fromkeys(Policy, Severity.CRIT))


def _default_masks() -> Mapping[Policy, Check]:
    return MappingProxyType(dict(DEFAULT_MASKS))


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Everything that an agent's configuration decides.

    The defaults are those of the table of directives, which also explains each of them.
    """

    rules: tuple[PathRule, ...] = ()
    masks: Mapping[Policy, Check] = field(default_factory=_default_masks)
    policy_severities: Mapping[Policy, Severity] = field(default_factory=_default_severities)
    severity_files: Severity = Severity.CRIT
    severity_dirs: Severity = Severity.CRIT
    severity_names: Severity = Severity.CRIT
    ignore_added: tuple[PathPattern, ...] = ()
    ignore_missing: tuple[PathPattern, ...] = ()
    ignore_modified: tuple[PathPattern, ...] = ()
    skip_checksum: tuple[SkipLine, ...] = ()
    recursion_level: int = 0
    file_check_interval_s: int = 600
    loop_interval_s: int = 60
    report_only_once: bool = True
    report_full_detail: bool = False
    loose_dir_check: bool = False
    digest_algorithm: str = "sha256"
    acl_check: bool = True
    selinux_check: bool = True
    xattr_check: bool = True
    log_servers: tuple[tuple[str, int | None], ...] = ()
    server_port: int = 49777
    bind_address: str | None = None
    print_severity: SeverityFilter = _INFO_AND_ABOVE
    log_severity: SeverityFilter = _NOTICE_AND_ABOVE
    export_severity: SeverityFilter = _NOTICE_AND_ABOVE
    log_file: bytes | None = None
    log_format: str = "classic"
    realtime: bool = True
    realtime_method: str = "auto"
    canary_interval_s: int = 300
    spool_size_limit_bytes: int = 256 * 1024 * 1024
    nice_level: int = 0
    io_limit_kib: int = 0
    """Kilobytes (of 1024) a second; 0 for no limit."""
    drop_cache: bool = True
    scan_workers: int = 0
    """Processes; 0 for as many as there are cores, to a limit."""
    scan_cpu_limit: int = 400
    """Percent of one core, all processes together."""
    check_schedules: tuple[Crontab, ...] = ()
    """When full checks are due; empty: at the interval."""
    source: str = ""
    """Where the configuration came from, for people."""
    sha256: str = ""
    """Digest of the file, in hex."""
    notices: tuple[Problem, ...] = ()


def parse_agent_rc(data: bytes, *, source: str, facts: Facts) -> AgentSettings:
    """Return the settings that the configuration file ``data`` gives.

    Args:
        source: name of the file, for errors and notices.
        facts: answers to its conditionals, which decide the parts that count.

    Raises:
        ConfigError: the file cannot be used; it names every problem.
    """
    findings = Findings(source)
    directives = parse_lines(data, facts=facts, findings=findings)
    defaults = AgentSettings()
    gatherer = _Gatherer(findings, facts)
    values = read_settings(
        directives,
        Program.AGENT,
        {each.name: getattr(defaults, each.name) for each in fields(defaults)},
        findings,
        {
            "rules": gatherer.add_rule,
            "masks": gatherer.change_mask,
            "digest_algorithm": gatherer.choose_digest,
            "skip_checksum": gatherer.add_skip_line,
            **dict.fromkeys(_EXPRESSION_FIELDS, gatherer.add_expression),
        },
    )
    return AgentSettings(
        **{name: _frozen(value) for name, value in values.items()},
        source=source,
        sha256=hashlib.sha256(data).hexdigest(),
        notices=findings.notices(),
    )


def _frozen(value: Any) -> Any:
    return MappingProxyType(value) if isinstance(value, dict) else value


EXPRESSIONS_MAX: Final = 500
"""Expressions of one file; each may keep about a MiB of memory."""
_EXPRESSION_FIELDS: Final = ("ignore_added", "ignore_missing", "ignore_modified")
_POLICY_OF_SECTION: Final = {policy.section: policy for policy in Policy}


class _Gatherer:
    """The fields to which a value is not simply assigned."""

    def __init__(self, findings: Findings, facts: Facts) -> None:
        self._findings = findings
        self._facts = facts
        self._rule_lines: dict[tuple[RuleKind, bytes], int] = {}
        self._used_policies: dict[str, int] = {}
        self._expression_count = 0

    def add_rule(self, directive: Directive, path: MatchedPath, _current: None) -> PathRule | None:
        kind = RuleKind(directive.key)
        policy = _POLICY_OF_SECTION[directive.section]
        _check_depth(kind, policy, path.depth)
        self._used_policies.setdefault(directive.section, directive.line)
        earlier = self._rule_lines.setdefault((kind, path.path), directive.line)
        if earlier != directive.line:
            self._findings.notice(
                directive.line,
                f"{directive.key} = {escape_bytes(path.path)} appears twice, "
                f"in lines {earlier} and {directive.line}; the first wins",
            )
            return None
        return PathRule(
            kind, path.path, policy, path.depth, path.is_glob, directive.source, directive.line
        )

    def change_mask(self, directive: Directive, change: MaskChange, mask: Check) -> Check:
        section = directive.key.removeprefix("redef")
        if section in self._used_policies:
            self._findings.notice(
                directive.line,
                f"[{SECTIONS[section]}] is used before this line, from line "
                f"{self._used_policies[section]} on; the change holds for those lines too",
            )
        for flag in change.without_effect:
            self._findings.notice(directive.line, f"the flag {flag} has no effect here yet")
        return change.applied_to(mask)

    def add_expression(
        self, _directive: Directive, expression: PathPattern, _current: None
    ) -> PathPattern:
        self._count_expressions(1)
        return expression

    def add_skip_line(self, _directive: Directive, line: SkipLine, _current: None) -> SkipLine:
        self._count_expressions(len(line.conditions))
        return line

    def _count_expressions(self, more: int) -> None:
        self._expression_count += more
        if self._expression_count > EXPRESSIONS_MAX:
            raise FormatError(f"more than {EXPRESSIONS_MAX} expressions; put several into one")

    def choose_digest(self, directive: Directive, algorithm: str, _current: str) -> str:
        if algorithm in WEAK_DIGESTS:
            self._findings.notice(
                directive.line,
                f"{algorithm} is weak: files with the same digest can be made on purpose; "
                "sha256 is safe",
            )
        if not self._facts.has_digest(algorithm):
            raise FormatError(
                f"digests of {algorithm} cannot be made on this host; "
                f"install needfire[{algorithm}], or use SHA256"
            )
        return algorithm


def _check_depth(kind: RuleKind, policy: Policy, depth: int | None) -> None:
    if depth is None:
        return
    if kind is RuleKind.FILE:
        raise FormatError("a depth may stand before the path of dir= only")
    if depth == -1 and policy is not Policy.IGNORE_ALL:
        raise FormatError("the depth -1 is possible under [IgnoreAll] only")
    if not -1 <= depth <= DEPTH_MAX:
        raise FormatError(f"the depth {depth} must be between 0 and {DEPTH_MAX}")
