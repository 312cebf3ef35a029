"""File policies and what each compares: Samhain's table (reference: samhain manual, "File signatures").

The baseline always stores everything; the policy decides what is compared. ``RedefXxx`` in
``[Misc]`` changes a policy's mask.
"""

from enum import Enum, IntFlag
from typing import Final

from needfire_protocol.plain_classes import dataclass

__all__ = ["DEFAULT_MASKS", "SCHEDULE_TWO", "Check", "PathRule", "Policy", "RuleKind"]

SCHEDULE_TWO: Final = "SCHEDULE_TWO"
"""Name of the group that Samhain knows: the rules between %SCHEDULE_TWO and !%SCHEDULE_TWO."""


class Check(IntFlag):
    """One thing to compare. The names are those that RedefXxx takes; the bits are Samhain's."""

    CHK = 1 << 0
    LNK = 1 << 1
    INO = 1 << 2
    USR = 1 << 3
    GRP = 1 << 4
    MTM = 1 << 5
    CTM = 1 << 6
    ATM = 1 << 7
    SIZ = 1 << 8
    MOD = 1 << 9
    HLN = 1 << 10
    RDEV = 1 << 11
    SGROW = 1 << 12


class Policy(Enum):
    """A file policy; the value is the label that messages carry, ``POLICY [ReadOnly] …``."""

    READ_ONLY = "ReadOnly"
    LOG_FILES = "LogFiles"
    GROWING_LOG_FILES = "GrowingLogs"
    ATTRIBUTES = "Attributes"
    IGNORE_ALL = "IgnoreAll"
    IGNORE_NONE = "IgnoreNone"
    USER0 = "User0"
    USER1 = "User1"
    USER2 = "User2"
    USER3 = "User3"
    USER4 = "User4"
    PRELINK = "Prelink"

    @property
    def section(self) -> str:
        """Heading of the configuration file, lower case; differs only for GrowingLogFiles."""
        return "growinglogfiles" if self is Policy.GROWING_LOG_FILES else self.value.lower()


_OWNERSHIP: Final = Check.USR | Check.GRP | Check.MOD | Check.RDEV
_EVERYTHING: Final = (
    _OWNERSHIP | Check.CHK | Check.LNK | Check.INO | Check.HLN | Check.MTM | Check.CTM | Check.SIZ
)

DEFAULT_MASKS: Final[dict[Policy, Check]] = {
    Policy.READ_ONLY: _EVERYTHING,
    Policy.LOG_FILES: _OWNERSHIP | Check.LNK | Check.INO | Check.HLN,
    Policy.GROWING_LOG_FILES: (
        _OWNERSHIP | Check.CHK | Check.LNK | Check.INO | Check.HLN | Check.SIZ | Check.SGROW
    ),
    Policy.ATTRIBUTES: _OWNERSHIP,
    Policy.IGNORE_ALL: Check(0),
    # ctime is left out because putting the access time back changes it.
    Policy.IGNORE_NONE: (_EVERYTHING & ~Check.CTM) | Check.ATM,
    Policy.USER0: _EVERYTHING | Check.ATM,
    Policy.USER1: _EVERYTHING | Check.ATM,
    Policy.USER2: _EVERYTHING | Check.ATM,
    Policy.USER3: _EVERYTHING | Check.ATM,
    Policy.USER4: _EVERYTHING | Check.ATM,
    # Alias: nobody prelinks any more, so contents are hashed as they are.
    Policy.PRELINK: _OWNERSHIP | Check.CHK | Check.LNK | Check.HLN,
}


class RuleKind(Enum):
    """``dir=`` covers a directory and what is below it, ``file=`` one object."""

    DIR = "dir"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class PathRule:
    """One ``dir=`` or ``file=`` line under a policy's heading."""

    kind: RuleKind
    path: bytes
    """Absolute, normalised: no trailing slash (but for the root), no ``.``, ``..`` or ``//``."""
    policy: Policy
    depth: int | None
    """For ``dir=``: levels below it (0-99; -1 only under IgnoreAll: do not look inside at all);
    None where the line gave none, and SetRecursionLevel decides. Always None for ``file=``."""
    is_glob: bool
    """The path holds ``*``, ``?`` or ``[``: expanded at each full check."""
    source: str
    line: int
    group: str = ""
    """Rules of a group are checked at times of their own; "" for all that are in none."""
