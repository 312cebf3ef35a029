"""One pass over the file system on behalf of init, check and update: counted, shown, reported.

It takes the records of a ``Walker``, keeps the numbers, draws the progress, and turns findings
into events; what the records mean is the business of its caller.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from needfire_client.attributes import Examiner, ScanStoppedError, never
from needfire_client.compare import Change, ChangeKind
from needfire_client.looks import RecentLooks
from needfire_client.pacing import paced
from needfire_client.policy import Ruleset
from needfire_client.receipt import Skipped
from needfire_client.scan_pool import ScanPool, default_workers
from needfire_client.units import Job
from needfire_client.walk import DirectoryRecord, Finding, Severities, Walker, no_size
from needfire_protocol.baseline import Looked
from needfire_protocol.escape import escape_bytes
from needfire_protocol.event import FieldValue
from needfire_protocol.rc.agent import AgentSettings
from needfire_protocol.severity import Severity

__all__ = ["CheckResult", "OnEvent", "Progress", "Scan", "ScanStoppedError"]

OnEvent = Callable[[str, Severity | None, Mapping[str, FieldValue]], None]
"""Called with a code of the catalogue, a severity (None: the catalogue's), and the fields."""

Progress = Callable[[int, int, bytes], None]
"""Called after each directory: objects so far, bytes read so far, the directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What a pass saw, in numbers."""

    files: int
    """Objects examined."""
    hashed: int
    """Files whose contents were read."""
    bytes_read: int
    skipped: int = 0
    """Files whose contents SkipChecksum left alone."""
    added: int
    missing: int
    modified: int
    unreadable: int
    """Objects that could not be examined, directories that could not be listed."""
    unstable: int
    """Files that changed during every attempt to read them."""
    findings: int
    """Events other than changes: unreadable, unstable, weird names, rules that match nothing."""
    duration_s: float
    is_complete: bool
    """False: it was stopped before its end."""
    baseline_sha256: str | None = None
    """Digest of the baseline file that init or update wrote; None where none was written."""

    @property
    def changes(self) -> int:
        """Differences that were reported."""
        return self.added + self.missing + self.modified


class Scan:
    """One pass.

    Args:
        is_new: asked before a finding is reported; says whether it was not reported before.
    """

    def __init__(
        self,
        settings: AgentSettings,
        ruleset: Ruleset,
        algorithm: str,
        on_event: OnEvent,
        *,
        is_new: Callable[[str, bytes], bool],
        progress: Progress | None = None,
        growing_size: Callable[[bytes, bytes], int | None] = no_size,
        stop: Callable[[], bool] = never,
        looks: RecentLooks | None = None,
    ) -> None:
        self._settings = settings
        self._algorithm = algorithm
        self._growing_size = growing_size
        self._looks = looks if looks is not None else RecentLooks()
        self._workers = settings.scan_workers or default_workers()
        self._ruleset = ruleset
        self._configuration_sha256 = settings.sha256
        self._on_event = on_event
        self._is_new = is_new
        self._progress = progress
        self._started_s = time.monotonic()
        self._looked = _looked_at(settings)
        self._examiner = Examiner(
            algorithm, self._ask, self._looked, drops_cache=settings.drop_cache
        )
        self._stop = paced(
            stop, self._examiner, settings.scan_cpu_limit, settings.io_limit_kib * 1024
        )
        self._severities = Severities(
            settings.severity_files, settings.severity_dirs, settings.severity_names
        )
        self.walker = Walker(
            ruleset,
            self._severities,
            self._examiner,
            growing_size=growing_size,
            skip_lines=settings.skip_checksum,
            stop=self._stop,
        )
        self._files = 0
        self._findings = 0
        self._seen = {"FILE_UNREADABLE": 0, "FILE_UNSTABLE": 0}
        self._skipped = Skipped()
        self._changes = dict.fromkeys(ChangeKind, 0)

    def records(self) -> Iterator[DirectoryRecord]:
        """Walk everything; counts and reports each record's findings before it gives it."""
        return self.taken(self.walker.walk() if self._workers == 1 else self._shared_out())

    def taken(self, records: Iterator[DirectoryRecord]) -> Iterator[DirectoryRecord]:
        """Give records of the walker on, counted and with their findings reported."""
        for record in records:
            self.take(record)
            yield record

    def _ask(self) -> bool:
        return self._stop()

    def _shared_out(self) -> Iterator[DirectoryRecord]:
        """Yield the records of a pass that several processes make."""
        with ScanPool(
            self._job(),
            self._workers,
            self._ruleset,
            self.walker,
            self._examiner,
            growing_size=self._growing_size,
            stop=self._stop,
            clock=lambda: self._looks.count,
            on_death=lambda fields: self._on_event("SCAN_WORKER_DIED", None, fields),
        ) as pool:
            for record, taken_at in pool.records():
                current: DirectoryRecord | None = record
                if self._looks.touched(record.path, since=taken_at):
                    # A single look has reported a newer state than the one that was read ahead.
                    current = self.walker.reread(record.path)
                if current is not None:
                    yield current

    def _job(self) -> Job:
        settings = self._settings
        return Job(
            rules=settings.rules,
            masks=settings.masks,
            policy_severities=settings.policy_severities,
            recursion_level=settings.recursion_level,
            skip_checksum=settings.skip_checksum,
            severities=self._severities,
            algorithm=self._algorithm,
            looked=self._looked,
            drops_cache=settings.drop_cache,
            cpu_percent=settings.scan_cpu_limit / self._workers,
            bytes_per_s=settings.io_limit_kib * 1024 / self._workers,
        )

    def take(self, record: DirectoryRecord) -> None:
        """Count a record, and report its findings."""
        self._files += record.count
        for finding in record.findings:
            if finding.code in self._seen:
                self._seen[finding.code] += 1
                reason = str(finding.fields.get("reason", "changed while it was read"))
                self._skipped.add(finding.path, reason)
            self.report_finding(finding)
        if self._progress is not None:
            self._progress(self._files, self._examiner.bytes_read, record.path)

    def report_finding(self, finding: Finding) -> None:
        """Report a finding, if it was not reported before."""
        if self._is_new(finding.code, finding.path):
            self._findings += 1
            fields = dict(finding.fields)
            if finding.path:
                fields = {"path": escape_bytes(finding.path), **fields}
            self._on_event(finding.code, finding.severity, fields)

    def report_change(self, change: Change) -> None:
        """Report a difference."""
        self._changes[change.kind] += 1
        self._on_event(change.kind.value, change.severity, change.fields)

    def report_rules(self) -> None:
        """After a whole pass: report the rules that protect nothing."""
        if not self._ruleset.decisions:
            self.report_finding(Finding("NOTHING_TO_CHECK", b"", None, {}))
        for decision in self._ruleset.decisions:
            rule = decision.rule
            if decision not in self.walker.met:
                place = {"rule": f"{rule.source}:{rule.line}"}
                self.report_finding(Finding("RULE_MATCHES_NOTHING", rule.path, None, place))

    def begin(self, mode: str) -> None:
        """Report that the pass begins."""
        self._on_event("CHECK_STARTED", None, {"mode": mode})

    @property
    def is_empty(self) -> bool:
        """True while no object has been seen: whatever the rules cover is not there."""
        return not self._files

    def complete(
        self,
        baseline_sha256: str | None = None,
        references: Mapping[str, FieldValue] = MappingProxyType({}),
    ) -> CheckResult:
        """Give the receipt of a pass that saw everything, and return its numbers.

        Args:
            references: what else the receipt is to say: with what it compared, who watched.
        """
        result = self.result(is_complete=True, baseline_sha256=baseline_sha256)
        rate = result.bytes_read / 1000 / result.duration_s if result.duration_s > 0 else 0.0
        self._on_event(
            "CHECK_SAW_NOTHING" if self.is_empty else "CHECK_COMPLETED",
            None,
            {
                "time": round(result.duration_s),
                "kBps": round(rate),
                "files": result.files,
                "hashed": result.hashed,
                "bytes": result.bytes_read,
                "changes": result.changes,
                "unreadable": result.unreadable,
                "unstable": result.unstable,
                "duration_ms": round(result.duration_s * 1000),
                "rules": len(self._ruleset.decisions),
                **self._skipped.fields(),
                "contents_skipped": self._examiner.skipped,
                "attributes_unread": self._examiner.unread,
                "configuration": f"sha256:{self._configuration_sha256}",
                **references,
            },
        )
        return result

    def result(self, *, is_complete: bool, baseline_sha256: str | None = None) -> CheckResult:
        """Return the numbers so far."""
        return CheckResult(
            files=self._files,
            hashed=self._examiner.hashed,
            bytes_read=self._examiner.bytes_read,
            skipped=self._examiner.skipped,
            added=self._changes[ChangeKind.ADDED],
            missing=self._changes[ChangeKind.MISSING],
            modified=self._changes[ChangeKind.MODIFIED],
            unreadable=self._seen["FILE_UNREADABLE"],
            unstable=self._seen["FILE_UNSTABLE"],
            findings=self._findings,
            duration_s=time.monotonic() - self._started_s,
            is_complete=is_complete,
            baseline_sha256=baseline_sha256,
        )


def _looked_at(settings: AgentSettings) -> Looked:
    """Return the extended attributes that the settings want to be looked at."""
    groups = Looked.NOTHING
    if settings.acl_check:
        groups |= Looked.ACL
    if settings.selinux_check:
        groups |= Looked.LABEL
    if settings.xattr_check:
        groups |= Looked.OTHER | Looked.TRUSTED
    return groups
