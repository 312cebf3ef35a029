"""What a check of a log comes to: whether it is whole, and otherwise where it first differs, and how."""

from dataclasses import dataclass
from enum import Enum

from needfire_protocol.audit.note import Checkpoint

__all__ = ["Finding", "Verdict", "Verification"]


class Verdict(Enum):
    """What is wrong with a log; the words are those that people read."""

    CHANGED = "changed"
    REMOVED = "removed"
    INSERTED = "inserted"
    REORDERED = "reordered"
    CUT_OFF = "cut off"
    WRONG_KEY = "wrong key"
    MISSING_CHECKPOINT = "missing checkpoint"


@dataclass(frozen=True, slots=True)
class Finding:
    """The first thing that is wrong.

    Attributes:
        first: number of the first bad record; of the first missing one where some are missing.
        last: where no one can tell which record it is, the last one that it may be; else first.
        line: of the input, from 1; 0 for its end.
        text: what was found and what was expected.
    """

    verdict: Verdict
    first: int
    last: int
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of a check.

    Attributes:
        finding: None for a log that is intact.
        records: records that were read up to the first fault.
        checkpoints: checkpoints that hold.
        closing: what the log says it ends with; to be believed only without a finding.
        unsigned: records behind the last checkpoint, which nothing signed covers yet.
        root: of the tree over all records; to be believed only without a finding.
    """

    finding: Finding | None
    records: int
    checkpoints: int
    closing: Checkpoint | None
    unsigned: int = 0
    root: bytes = b""
