"""One pass over the file system on behalf of init, check and update: counted, shown, reported.

It takes the records of a ``Walker``, keeps the numbers, draws the progress, and turns findings
into events; what the records mean is the business of its caller.
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from needfire_client.attributes import Examiner, ScanStoppedError, never
from needfire_client.beginning import Beginning, is_large
from needfire_client.compare import Change, ChangeKind
from needfire_client.judging import Severities
from needfire_client.looks import RecentLooks
from needfire_client.memory import entries_max
from needfire_client.mounts import Mount, concerned, is_network, may_hang, read_mounts
from needfire_client.pacing import paced
from needfire_client.policy import Ruleset
from needfire_client.quick import KnownBaseline, QuickLook
from needfire_client.receipt import Skipped
from needfire_client.record import DirectoryRecord, Finding
from needfire_client.walk import Rest, Walker, Whereabouts, no_size
from needfire_protocol.baseline import Looked, key_of
from needfire_protocol.escape import escape_bytes
from needfire_protocol.event import FieldValue
from needfire_protocol.plain_classes import dataclass
from needfire_protocol.rc.agent import AgentSettings
from needfire_protocol.severity import Severity

if TYPE_CHECKING:
    from needfire_client.units import Job

__all__ = ["CheckResult", "OnEvent", "Progress", "Scan", "ScanStoppedError"]

OnEvent = Callable[[str, Severity | None, Mapping[str, FieldValue]], None]
"""Called with a code of the catalogue, a severity (None: the catalogue's), and the fields."""

Progress = Callable[[int, int, bytes], None]
"""Called after each directory: objects so far, bytes read so far, the directory."""

_SKIPPED: Final = "skipped: "
"""Begins the names of numbers that count what was skipped for one class of reasons."""

_WORKERS_MAX: Final = 8
"""Processes that are started unless the configuration wants more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What a pass saw, in numbers."""

    files: int
    """Objects examined."""
    hashed: int
    """Files whose contents were read, under this name or another."""
    bytes_read: int
    skipped: int = 0
    """Files whose contents SkipChecksum left alone."""
    quick: int = 0
    """Files that were not read, because no attribute of theirs had changed."""
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
        known: what quick rules go by; without it they read all files.
        whereabouts: is told where it is, while it works by itself.
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
        known: KnownBaseline | None = None,
        whereabouts: Whereabouts | None = None,
    ) -> None:
        self._settings = settings
        self._known = known
        self._algorithm = algorithm
        self._growing_size = growing_size
        self._looks = looks if looks is not None else RecentLooks()
        self._workers = settings.scan_workers or _default_workers()
        self.ruleset = ruleset
        self._mode = ""
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
            entries_max=entries_max(settings.scan_memory_bytes),
            quick=None if known is None else QuickLook(self._examiner, known.reader),
            whereabouts=whereabouts,
        )
        self.lacking = self.lacking_attributes = 0
        """Objects of which the baseline has no digest, or not all attributes."""
        self._files = 0
        self._unanswered: frozenset[bytes] | None = None
        self._earlier_ms = 0
        self._findings = 0
        self._seen = {"FILE_UNREADABLE": 0, "FILE_UNSTABLE": 0}
        self._skipped = Skipped()
        self._changes = dict.fromkeys(ChangeKind, 0)

    def records(
        self, rests: Sequence[Rest] | None = None, until: bytes | None = None
    ) -> Iterator[DirectoryRecord]:
        """Walk everything; counts and reports each record's findings before it gives it.

        Args:
            rests: walk these alone; None: everything.
            until: end with the record of this directory, or where it would be.
        """
        # Who waits for a dead mount can be given up by somebody else alone.
        is_risky = bool(self.risks())
        if is_risky:
            self.walker.avoid(self.unanswered())
        alone = self._workers == 1 and not is_risky
        records = self.walker.walk_rests(rests) if alone else self._shared_out(rests, is_risky)
        if until is not None:
            last = key_of(until)
            records = takewhile(lambda record: key_of(record.path) <= last, records)
        return self.taken(records)

    def risks(self) -> tuple[bytes, ...]:
        """Return where something is mounted, among what the rules cover, that may not answer."""
        return tuple(mount.point for mount in self._risky_mounts())

    def unanswered(self) -> frozenset[bytes]:
        """Return for which of them the system does not answer now; asked once a pass.

        Raises:
            ScanStoppedError: it was to stop meanwhile.
        """
        if self._unanswered is None:
            # An automounter would mount what it is asked for.
            mounts = [mount for mount in self._risky_mounts() if is_network(mount)]
            self._unanswered = frozenset()
            if mounts:
                from needfire_client.dead_mounts import unanswered

                self._unanswered = unanswered(mounts, self._stop)
        return self._unanswered

    def _risky_mounts(self) -> list[Mount]:
        mounts = concerned(filter(may_hang, read_mounts()), self.ruleset)
        # Without its root nothing of the host answers.
        return [mount for mount in mounts if mount.point != b"/"]

    def taken(self, records: Iterator[DirectoryRecord]) -> Iterator[DirectoryRecord]:
        """Give records of the walker on, counted and with their findings reported."""
        for record in records:
            self.take(record)
            yield record

    def _ask(self) -> bool:
        return self._stop()

    def _shared_out(
        self, rests: Sequence[Rest] | None, is_risky: bool
    ) -> Iterator[DirectoryRecord]:
        """Yield the records of a pass that processes make; our own part is none where it is risky."""
        beginning = Beginning(self.walker, self._examiner, lambda: self._looks.count)
        expected = 0 if self._known is None else self._known.reader.meta.entries
        large = rests is None and not is_risky and is_large(expected, self.ruleset.selection)
        if not large:
            yield from self._as_of_now(beginning.records(rests, 0 if is_risky else None))
            if beginning.is_all:
                return
        # Here, because most passes end before they come here.
        from needfire_client.scan_pool import ScanPool

        with ScanPool(
            self._job(),
            self._workers,
            self.ruleset,
            self.walker,
            self._examiner,
            growing_size=self._growing_size,
            stop=self._stop,
            clock=lambda: self._looks.count,
            on_death=lambda fields: self._on_event("SCAN_WORKER_DIED", None, fields),
        ) as pool:
            if large:
                yield from self._as_of_now(pool.begin(beginning))
            yield from self._as_of_now(pool.records(beginning))

    def _as_of_now(
        self, records: Iterator[tuple[DirectoryRecord, int]]
    ) -> Iterator[DirectoryRecord]:
        """Yield records, read anew where a single look has reported a newer state meanwhile."""
        for record, taken_at in records:
            current: DirectoryRecord | None = record
            if self._looks.touched(record.path, since=taken_at):
                current = self.walker.reread(record.path)
            if current is not None:
                yield current

    def _job(self) -> "Job":
        from needfire_client.units import Job

        settings, known = self._settings, self._known
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
            memory_bytes=settings.scan_memory_bytes,
            entries_max=entries_max(settings.scan_memory_bytes),
            selection=self.ruleset.selection,
            baseline=None if known is None else bytes(known.path),
            baseline_sha256="" if known is None else known.reader.meta.content_sha256,
            avoids=self.walker.avoids,
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
        if not self.ruleset.decisions:
            self.report_finding(Finding("NOTHING_TO_CHECK", b"", None, {}))
        for decision in self.ruleset.decisions:
            rule = decision.rule
            if decision not in self.walker.met:
                place = {"rule": f"{rule.source}:{rule.line}"}
                self.report_finding(Finding("RULE_MATCHES_NOTHING", rule.path, None, place))

    def begin(self, mode: str, said: Mapping[str, FieldValue] = MappingProxyType({})) -> None:
        """Report that the pass begins; the mode is the verb that wants it."""
        self._mode = mode
        self._on_event("CHECK_STARTED", None, {"mode": mode, **self._selection_fields(), **said})

    def _selection_fields(self) -> Mapping[str, FieldValue]:
        """Return which groups of rules it is for, where those are not all; and which are quick."""
        selection = self.ruleset.selection
        said: dict[str, FieldValue] = {}
        if selection.groups is not None:
            said["groups"] = _group_names(selection.groups)
        if selection.quick:
            said["quick_groups"] = _group_names(selection.quick)
        return said

    def numbers(self) -> dict[str, int]:
        """Return what was counted, for ``take_over`` of one that goes on."""
        return {
            "files": self._files,
            "findings": self._findings,
            "unreadable": self._seen["FILE_UNREADABLE"],
            "unstable": self._seen["FILE_UNSTABLE"],
            **{kind.name: count for kind, count in self._changes.items()},
            "hashed": self._examiner.hashed,
            "contents_skipped": self._examiner.skipped,
            "unread": self._examiner.unread,
            "bytes": self._examiner.bytes_read,
            "quick": self._examiner.quick,
            "lacking": self.lacking,
            "lacking_attributes": self.lacking_attributes,
            "duration_ms": self._earlier_ms + round(self._elapsed_s() * 1000),
            **{_SKIPPED + reason: count for reason, count in self._skipped.counts().items()},
        }

    def take_over(self, numbers: Mapping[str, int], met: Iterable[int]) -> None:
        """Count what another pass did, of which this one is a part.

        Args:
            met: rules that name something that is there, as ``met_indexes`` gives them.
        """
        number = defaultdict(int, numbers)
        self._files += number["files"]
        self._findings += number["findings"]
        for code, name in (("FILE_UNREADABLE", "unreadable"), ("FILE_UNSTABLE", "unstable")):
            self._seen[code] += number[name]
        skipped = {
            name.removeprefix(_SKIPPED): count
            for name, count in numbers.items()
            if name.startswith(_SKIPPED)
        }
        self._skipped.add_earlier(number["unreadable"] + number["unstable"], skipped)
        for kind in self._changes:
            self._changes[kind] += number[kind.name]
        self._examiner.add_numbers(
            number["hashed"],
            number["contents_skipped"],
            number["unread"],
            number["bytes"],
            number["quick"],
        )
        self.lacking += number["lacking"]
        self.lacking_attributes += number["lacking_attributes"]
        self._earlier_ms += number["duration_ms"]
        decisions = self.ruleset.decisions
        self.walker.met.update(decisions[index] for index in met if 0 <= index < len(decisions))

    def met_indexes(self) -> tuple[int, ...]:
        """Return which rules name something that is there, as indexes into its ruleset's."""
        met = self.walker.met
        return tuple(index for index, each in enumerate(self.ruleset.decisions) if each in met)

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

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
                "mode": self._mode,
                "time": round(result.duration_s),
                "kBps": round(rate),
                "files": result.files,
                "hashed": result.hashed,
                "quick": self._examiner.quick,
                "bytes": result.bytes_read,
                "changes": result.changes,
                "unreadable": result.unreadable,
                "unstable": result.unstable,
                "duration_ms": round(result.duration_s * 1000),
                "rules": len(self.ruleset.decisions),
                **self._skipped.fields(),
                "contents_skipped": self._examiner.skipped,
                "attributes_unread": self._examiner.unread,
                "configuration": f"sha256:{self._configuration_sha256}",
                **self._selection_fields(),
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
            quick=self._examiner.quick,
            duration_s=self._earlier_ms / 1000 + self._elapsed_s(),
            is_complete=is_complete,
            baseline_sha256=baseline_sha256,
        )


def _group_names(groups: Iterable[str]) -> str:
    return " ".join(sorted(name or "-" for name in groups))


def _default_workers() -> int:
    """Return how many processes this host gets: one for each core that we may use."""
    return min(_WORKERS_MAX, len(os.sched_getaffinity(0)))


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
