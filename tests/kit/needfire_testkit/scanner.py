"""A tree to watch, the settings for it, and a checker whose events are kept."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from needfire_client.check import Checker, CheckResult
from needfire_client.new_baseline import init_baseline
from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.escape import unescape_bytes
from needfire_protocol.event import FieldValue, make_event, pack_event, unpack_event
from needfire_protocol.rc.agent import AgentSettings
from needfire_protocol.rc.policies import PathRule, Policy, RuleKind
from needfire_protocol.severity import Severity

__all__ = [
    "ADDED",
    "MISSING",
    "MODIFIED",
    "Make",
    "Raised",
    "Scanned",
    "codes",
    "dir_rule",
    "file_rule",
    "making",
    "of_files",
    "settings_of",
]

ADDED, MISSING, MODIFIED = "POLICY_ADDED", "POLICY_MISSING", "POLICY_MODIFIED"


_BEGINNINGS_AND_ENDS = ("CHECK_STARTED", "CHECK_COMPLETED", "CHECK_SAW_NOTHING", "BASELINE_WRITTEN")


def dir_rule(
    path: Path | bytes,
    policy: Policy = Policy.READ_ONLY,
    depth: int | None = 99,
    group: str = "",
) -> PathRule:
    """Return ``dir=DEPTH/path`` under a policy, in a group."""
    return _rule(RuleKind.DIR, path, policy, depth, group)


def file_rule(path: Path | bytes, policy: Policy = Policy.READ_ONLY, group: str = "") -> PathRule:
    """Return ``file=path`` under a policy, in a group."""
    return _rule(RuleKind.FILE, path, policy, None, group)


def _rule(
    kind: RuleKind, path: Path | bytes, policy: Policy, depth: int | None, group: str
) -> PathRule:
    raw = path if isinstance(path, bytes) else bytes(path)
    is_glob = any(byte in raw for byte in b"*?[")
    return PathRule(kind, raw, policy, depth, is_glob, "agentrc", 7, group)


def settings_of(*rules: PathRule, **others: Any) -> AgentSettings:
    """Return settings with these rules, no limits on speed, and everything else by default."""
    return AgentSettings(rules=rules, **{"scan_cpu_limit": 6_400, "io_limit_kib": 0, **others})


@dataclass(frozen=True)
class Raised:
    """One event that was raised."""

    code: str
    severity: Severity
    fields: Mapping[str, FieldValue]

    @property
    def path(self) -> bytes:
        """The path, as bytes again."""
        return unescape_bytes(str(self.fields["path"]))

    @property
    def change(self) -> str:
        """The ten letters of a modification."""
        return str(self.fields.get("change", ""))


@dataclass
class Scanned:
    """Settings, a baseline, and what was raised. Every event goes the whole way of a report."""

    settings: AgentSettings
    directory: Path
    raised: list[Raised] = field(default_factory=list)
    checkers: list[Checker] = field(default_factory=list)

    @property
    def baseline(self) -> Path:
        """Where the baseline is."""
        return self.directory / "baseline"

    def on_event(
        self, code: str, severity: Severity | None, fields: Mapping[str, FieldValue]
    ) -> None:
        """Keep an event, after checking it as the catalogue and the server would."""
        event = make_event(code, severity, time_us=0, random_10_bytes=bytes(10), **fields)
        if "kBps" not in fields:
            assert unpack_event(pack_event(event)).code == code
        assert "\n" not in event.msg
        self.raised.append(Raised(code, severity or CATALOGUE[code].severity, dict(fields)))

    def init(self, settings: AgentSettings | None = None) -> CheckResult:
        """Make the baseline."""
        return init_baseline(
            settings or self.settings,
            self.baseline,
            self.on_event,
            host="host.example",
            configuration_sha256="",
            created_us=1,
        )

    def receipt(self) -> Raised:
        """Return the event that ended the last check."""
        ends = ("CHECK_COMPLETED", "CHECK_SAW_NOTHING")
        return [event for event in self.raised if event.code in ends][-1]

    def checker(self) -> Checker:
        """Return a new checker with nothing reported yet."""
        overlay = self.directory / f"overlay{len(self.checkers)}"
        checker = Checker(self.settings, self.baseline, overlay, self.on_event)
        self.checkers.append(checker)
        return checker

    def close(self) -> None:
        """Close every checker."""
        while self.checkers:
            self.checkers.pop().close()

    def take(self) -> list[Raised]:
        """Return what was raised since the last time, without beginnings and ends of checks."""
        taken = [event for event in self.raised if event.code not in _BEGINNINGS_AND_ENDS]
        self.raised.clear()
        return taken

    def changes(self) -> set[tuple[str, bytes, str]]:
        """Return what was raised since the last time as (code, path, letters)."""
        taken = self.take()
        found = {
            (event.code, event.path, event.change) for event in taken if "path" in event.fields
        }
        assert len(found) == len(taken), f"something was reported twice: {taken}"
        return found


Make = Callable[..., Scanned]
"""Makes one of rules, and of settings by name."""


@contextmanager
def making(directory: Path, **defaults: Any) -> Iterator[Make]:
    """Give what makes ``Scanned`` there, with these settings where no others are named.

    All that it made is closed in the end.
    """
    made: list[Scanned] = []

    def make(*rules: PathRule, **others: Any) -> Scanned:
        made.append(Scanned(settings_of(*rules, **{**defaults, **others}), directory))
        return made[-1]

    try:
        yield make
    finally:
        for scanned in made:
            scanned.close()


def codes(raised: list[Raised]) -> list[str]:
    return [event.code for event in raised]


def of_files(found: set[tuple[str, bytes, str]], root: Path) -> dict[str, tuple[str, str]]:
    """Return what was reported of objects that are not directories whose times moved."""
    return {
        os.fsdecode(path.removeprefix(bytes(root) + b"/")): (code, letters)
        for code, path, letters in found
        if letters != "--------T-"
    }
