"""What a scanning process is told and what it answers: plain values as bounded MessagePack.

    job     once: the rules and limits, so that the process builds the same ``Walker``
    unit    directories to walk, with a bound on the effort, or one file to read
    answer  the records it came to, and what of the unit is left

A scanning process reads what anybody may have put on the disk. So its answers are decoded like
those of a stranger: bounded, typed, and never as code.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from needfire_client.attributes import Examiner
from needfire_client.judging import Severities
from needfire_client.policy import Selection
from needfire_client.record import DirectoryRecord, Finding
from needfire_client.walk import Rest, Walker
from needfire_protocol.baseline import (
    ENTRIES_BYTES_MAX,
    ENTRIES_PER_DIRECTORY_MAX,
    FileEntry,
    Looked,
    State,
)
from needfire_protocol.codec import decode, encode
from needfire_protocol.errors import FormatError
from needfire_protocol.limits import DecodingLimits
from needfire_protocol.plain_classes import dataclass
from needfire_protocol.rc.policies import Check, PathRule, Policy, RuleKind
from needfire_protocol.rc.skip_checksum import SkipCondition, SkipLine
from needfire_protocol.severity import Severity

__all__ = [
    "FRAME_BYTES_MAX",
    "LENGTH_BYTES",
    "UNKNOWN_ENTRY",
    "Answer",
    "Job",
    "Unit",
    "decode_answer",
    "decode_job",
    "decode_unit",
    "encode_answer",
    "encode_job",
    "encode_unit",
]

LENGTH_BYTES: Final = 4
"""Of the length, big-endian, before every message in either direction."""

FRAME_BYTES_MAX: Final = 2 * ENTRIES_BYTES_MAX
"""Bytes of one message: the largest directory that a baseline takes, with all that is said of it."""

UNKNOWN_ENTRY: Final = FileEntry(*(0,) * 11, None, None, int(State.UNREADABLE), "")
"""Of an object of which only the name is known."""

_PARTS_AS_BEFORE: Final = 3
"""Of a directory in which a quick look found nothing changed; all others have more."""

_DECODING: Final = DecodingLimits(
    size_bytes_max=FRAME_BYTES_MAX,
    text_bytes_max=64 * 1024,
    binary_bytes_max=ENTRIES_BYTES_MAX,
    array_items_max=ENTRIES_PER_DIRECTORY_MAX,
    map_items_max=64,
    depth_max=6,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What stays the same for all units of a pass. It can stand in for settings of a Ruleset."""

    rules: tuple[PathRule, ...]
    masks: Mapping[Policy, Check]
    policy_severities: Mapping[Policy, Severity]
    recursion_level: int
    skip_checksum: tuple[SkipLine, ...]
    severities: Severities
    algorithm: str
    looked: Looked
    drops_cache: bool
    cpu_percent: float
    """Of one core, for this process."""
    bytes_per_s: float
    """To be read by this process; 0 for no limit."""
    memory_bytes: int
    """That all processes may have together; in the message, this process."""
    entries_max: int
    """Of a directory."""
    selection: Selection
    baseline: bytes | None
    """Path of what quick rules go by; None: they read all files."""
    baseline_sha256: str
    """Digest of what has to be in it."""
    avoids: frozenset[bytes]
    """Where something is mounted that does not answer."""


class Unit(NamedTuple):
    """A piece of work."""

    directory: bytes
    names: tuple[bytes, ...]
    """Directories in it to walk, or the one file to read."""
    is_file: bool
    before_bytes: int | None
    """Of a file that may grow: how large it was."""
    is_careful: bool
    """Take one directory and come back: something in here ended the process that tried before."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a unit."""

    records: list[DirectoryRecord]
    rest: list[Rest]
    met: list[int]
    """Indexes into ``Ruleset.decisions``, of those that were not told of before."""
    followed: list[bytes]
    numbers: list[int]
    """What the process's examiner counted."""


def encode_job(job: Job) -> bytes:
    """Return the message that begins the work of a process."""
    severities = job.severities
    return encode(
        [
            [
                [
                    rule.kind.value,
                    rule.path,
                    rule.policy.value,
                    rule.depth,
                    rule.is_glob,
                    rule.source,
                    rule.line,
                    rule.group,
                ]
                for rule in job.rules
            ],
            [[policy.value, int(mask)] for policy, mask in job.masks.items()],
            [[policy.value, int(severity)] for policy, severity in job.policy_severities.items()],
            job.recursion_level,
            [[_plain_condition(each) for each in line.conditions] for line in job.skip_checksum],
            [int(severities.files), int(severities.dirs), int(severities.names)],
            job.algorithm,
            int(job.looked),
            job.drops_cache,
            job.cpu_percent,
            job.bytes_per_s,
            job.memory_bytes,
            job.entries_max,
            None if job.selection.groups is None else sorted(job.selection.groups),
            sorted(job.selection.quick),
            job.baseline,
            job.baseline_sha256,
            sorted(job.avoids),
        ]
    )


def _plain_condition(condition: SkipCondition) -> list[Any]:
    regex = None if condition.regex is None else condition.regex.pattern
    return [condition.name, condition.is_negated, condition.prefix, regex, condition.number]


def _condition(
    name: str, is_negated: bool, prefix: bytes, regex: bytes | None, number: int
) -> SkipCondition:
    if regex is None:
        return SkipCondition(name, is_negated, prefix, None, number)
    from needfire_protocol.rc.posix_regex import compile_posix_regex

    return SkipCondition(name, is_negated, prefix, compile_posix_regex(regex), number)


def decode_job(data: bytes) -> Job:
    """Return what ``encode_job`` was given. It comes from the parent, who is trusted."""
    rules, masks, severities, level, skips, of_findings, algorithm, looked, drops, *others = _list(
        data
    )
    percent, rate, memory_bytes, entries_max, groups, quick, *others = others
    baseline, baseline_sha256, avoids = others
    return Job(
        rules=tuple(
            PathRule(RuleKind(kind), path, Policy(policy), depth, is_glob, source, line, group)
            for kind, path, policy, depth, is_glob, source, line, group in rules
        ),
        masks={Policy(policy): Check(mask) for policy, mask in masks},
        policy_severities={Policy(policy): Severity(severity) for policy, severity in severities},
        recursion_level=level,
        skip_checksum=tuple(
            SkipLine(tuple(_condition(*plain) for plain in conditions)) for conditions in skips
        ),
        severities=Severities(*(Severity(severity) for severity in of_findings)),
        algorithm=algorithm,
        looked=Looked(looked),
        drops_cache=drops,
        cpu_percent=percent,
        bytes_per_s=rate,
        memory_bytes=memory_bytes,
        entries_max=entries_max,
        selection=Selection(None if groups is None else frozenset(groups), frozenset(quick)),
        baseline=baseline,
        baseline_sha256=baseline_sha256,
        avoids=frozenset(avoids),
    )


def encode_unit(unit: Unit) -> bytes:
    """Return the message that hands out a unit."""
    return encode(unit)


def decode_unit(data: bytes) -> Unit:
    """Return what ``encode_unit`` was given. It comes from the parent, who is trusted."""
    directory, names, is_file, before_bytes, is_careful = _list(data)
    return Unit(directory, tuple(names), is_file, before_bytes, is_careful)


def encode_answer(
    records: Sequence[DirectoryRecord],
    rows: Sequence[bytes],
    walker: Walker,
    examiner: Examiner,
    met: Sequence[int],
) -> bytes:
    """Return the message that answers a unit, and start the numbers of the next one.

    Args:
        rows: the records' entries, packed; the records keep their number and ``is_whole``.
    """
    message = encode(
        [
            [_plain_record(record, row) for record, row in zip(records, rows, strict=True)],
            [[rest.path, rest.names] for rest in walker.rest if rest.names],
            met,
            walker.take_followed(),
            examiner.take_numbers(),
        ]
    )
    walker.rest = []
    return message


def _plain_record(record: DirectoryRecord, row: bytes) -> list[Any]:
    if record.is_as_before:
        # A directory in it may be too deep to be entered; nothing else is to be said of such a one.
        return [record.path, record.count, [_plain_finding(each) for each in record.findings]]
    plain: list[Any] = [record.path, row, record.count, record.is_readable, record.is_whole]
    if not (record.findings or record.prefixes or record.deferred or record.scope is not None):
        return plain
    return [
        *plain,
        None if record.scope is None else sorted(record.scope),
        [[name, prefix] for name, prefix in record.prefixes.items()],
        [_plain_finding(finding) for finding in record.findings],
        record.deferred,
    ]


def _plain_finding(finding: Finding) -> list[Any]:
    severity = None if finding.severity is None else int(finding.severity)
    return [finding.code, finding.path, severity, dict(finding.fields)]


def decode_answer(data: bytes, walker: Walker) -> Answer:
    """Return what a process answered; its records have their rows as they came.

    Args:
        walker: of the parent: it knows the place of a directory.

    Raises:
        FormatError: the bytes are no answer.
    """
    try:
        records, rest, met, followed, numbers = _list(data)
        walker.followed.update(followed)
        return Answer(
            [
                _as_before(walker, *plain)
                if len(plain) == _PARTS_AS_BEFORE
                else _record(walker, *plain)
                for plain in records
            ],
            [Rest(path, names) for path, names in rest],
            met,
            followed,
            numbers,
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"an answer has another form: {error}") from None


def _record(
    walker: Walker,
    path: bytes,
    row: bytes,
    count: int,
    is_readable: bool,
    is_whole: bool,
    scope: list[bytes] | None = None,
    prefixes: Sequence[tuple[bytes, bytes]] = (),
    findings: Sequence[list[Any]] = (),
    deferred: Sequence[bytes] = (),
) -> DirectoryRecord:
    record = DirectoryRecord(
        path,
        walker.place_of,
        scope=None if scope is None else frozenset(scope),
        is_readable=is_readable,
        packed=row,
        packed_count=count,
        is_whole=is_whole,
    )
    if prefixes or findings or deferred:
        record.prefixes = dict(prefixes)
        record.findings = [_finding(*plain) for plain in findings]
        record.deferred = list(deferred)
    return record


def _as_before(
    walker: Walker, path: bytes, count: int, findings: Sequence[list[Any]]
) -> DirectoryRecord:
    record = DirectoryRecord(
        path,
        walker.place_of,
        packed=b"",
        packed_count=count,
        is_whole=True,
        is_as_before=True,
    )
    record.findings = [_finding(*plain) for plain in findings]
    return record


def _finding(code: str, path: bytes, severity: int | None, fields: dict[str, Any]) -> Finding:
    return Finding(code, path, None if severity is None else Severity(severity), fields)


def _list(data: bytes) -> list[Any]:
    value = decode(data, limits=_DECODING)
    if type(value) is not list:
        raise FormatError("a message between processes is not a list")
    return value
