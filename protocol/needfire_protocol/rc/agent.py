"""What an agent's configuration file says, as frozen typed settings."""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from needfire_protocol.errors import FormatError, Problem
from needfire_protocol.escape import escape_bytes
from needfire_protocol.plain_classes import dataclass, field, field_types
from needfire_protocol.rc.conditions import Facts
from needfire_protocol.rc.directives import SECTIONS, Program
from needfire_protocol.rc.findings import Findings
from needfire_protocol.rc.policies import (
    DEFAULT_MASKS,
    SCHEDULE_TWO,
    Check,
    PathRule,
    Policy,
    RuleKind,
)
from needfire_protocol.rc.settings_reader import read_settings
from needfire_protocol.rc.skip_checksum import SkipLine
from needfire_protocol.rc.syntax import Directive, parse_lines
from needfire_protocol.rc.values import DEPTH_MAX, WEAK_DIGESTS, MaskChange, MatchedPath
from needfire_protocol.severity import Severity, SeverityFilter

if TYPE_CHECKING:
    from needfire_protocol.rc.crontab import Crontab

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
    io_limit_kib: int = 204_800
    """Kilobytes (of 1024) a second; 0 for no limit."""
    drop_cache: bool = True
    scan_workers: int = 0
    """Processes; 0 for as many as there are cores, to a limit."""
    scan_cpu_limit: int = 100
    """Percent of one core, all processes together."""
    scan_memory_bytes: int = 1024**3
    """Of all processes that examine files together."""
    check_schedules: "tuple[Crontab, ...]" = ()
    """When full checks are due; empty: at the interval."""
    check_schedules_two: "tuple[Crontab, ...]" = ()
    """When the rules of the group SCHEDULE_TWO are checked, with those of no group."""
    group_intervals: tuple[tuple[str, int], ...] = ()
    """Name of a group of rules, and seconds."""
    group_schedules: "tuple[tuple[str, Crontab], ...]" = ()
    group_full_intervals: tuple[tuple[str, int], ...] = ()
    full_check_interval_s: int = 0
    """Seconds in which at least one check reads all files; 0: every one does."""
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
        {name: getattr(defaults, name) for name in field_types(AgentSettings)},
        findings,
        {
            "rules": gatherer.add_rule,
            "masks": gatherer.change_mask,
            "digest_algorithm": gatherer.choose_digest,
            "skip_checksum": gatherer.add_skip_line,
            **dict.fromkeys(("group_intervals", "group_full_intervals"), gatherer.time_group_once),
            "group_schedules": gatherer.time_group,
            **dict.fromkeys(_EXPRESSION_FIELDS, gatherer.add_expression),
        },
    )
    gatherer.judge_groups(has_schedule_two="check_schedules_two" in values)
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
_TIMES_OF_TWO: Final = "FileCheckScheduleTwo"
_Timing: TypeAlias = "tuple[str, int | Crontab]"
_POLICY_OF_SECTION: Final = {policy.section: policy for policy in Policy}


class _Gatherer:
    """The fields to which a value is not simply assigned."""

    def __init__(self, findings: Findings, facts: Facts) -> None:
        self._findings = findings
        self._facts = facts
        self._rule_lines: dict[tuple[RuleKind, bytes], int] = {}
        self._used_policies: dict[str, int] = {}
        self._expression_count = 0
        self._groups: dict[str, int] = {}
        """Line of the first rule of each."""
        self._timings: dict[tuple[str, str], int] = {}
        """Line by directive and group."""

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
        # As Samhain has it: the second schedule is for directories alone.
        is_in_both = kind is RuleKind.FILE and directive.group == SCHEDULE_TWO
        group = "" if is_in_both else directive.group
        self._groups.setdefault(group, directive.line)
        return PathRule(
            kind,
            path.path,
            policy,
            path.depth,
            path.is_glob,
            directive.source,
            directive.line,
            group,
        )

    def time_group(self, directive: Directive, timing: _Timing, _current: None) -> _Timing:
        self._timings.setdefault((directive.key, timing[0]), directive.line)
        return timing

    def time_group_once(self, directive: Directive, timing: _Timing, current: None) -> _Timing:
        earlier = self._timings.get((directive.key, timing[0]))
        if earlier is not None:
            self._findings.notice(
                directive.line, f"the group {timing[0]} has one in line {earlier}; this line counts"
            )
        return self.time_group(directive, timing, current)

    def judge_groups(self, *, has_schedule_two: bool) -> None:
        """Say which groups and times do not belong to each other."""
        timed = {name for key, name in self._timings if key != "groupfullinterval"}
        timed |= {SCHEDULE_TWO} if has_schedule_two else set()
        for (_, name), line in self._timings.items():
            if name not in self._groups:
                self._findings.notice(line, f"no rule stands between %GROUP {name} and !%GROUP")
        for name, line in self._groups.items():
            if name and name not in timed:
                wanted = _TIMES_OF_TWO if name == SCHEDULE_TWO else "GroupInterval or GroupSchedule"
                self._findings.notice(
                    line,
                    f"the group {name} has no times of its own ({wanted}): it is checked "
                    "together with the rules of no group",
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
