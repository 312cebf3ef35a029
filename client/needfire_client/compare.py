"""Is an object different from what it was, in anything that its policy compares? Pure.

A change carries Samhain's ten letters and Samhain's field names, so that scripts that read its
reports go on working:

    C contents    L link or type    D device node    I inode    H hard links
    M mode        U owner           G group          T time     S size

What else decides about rights counts as M: inode flags, ACLs, capabilities, SELinux label, the
other extended attributes, and the project id. An inode with another time of birth is another
inode (I): file systems give a number that became free to the next file. What is not known of
either side is not compared.
"""

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Final, NamedTuple, Protocol

from needfire_client.inode_text import (
    ACL_ACCESS,
    ACL_DEFAULT,
    CAPABILITY,
    LABEL,
    acl_text,
    capability_text,
    differing_names,
    flags_text,
    label_text,
    only_differing,
    xattr_value,
    xattrs_text,
)
from needfire_client.policy import Decision
from needfire_protocol.baseline import FileEntry, State, digest_text
from needfire_protocol.escape import escape_bytes
from needfire_protocol.event import FieldValue
from needfire_protocol.plain_classes import dataclass
from needfire_protocol.rc.policies import Check, Policy
from needfire_protocol.severity import Severity

__all__ = [
    "Change",
    "ChangeKind",
    "CompareSettings",
    "Names",
    "change_code",
    "compare",
    "is_same_inode",
]

_LETTERS: Final = "CLDIHMUGTS"
_NONE: Final = "-" * len(_LETTERS)
_NS_PER_S: Final = 1_000_000_000
_IMPORTED_INODE_BITS: Final = 0xFFFF_FFFF


class _Pattern(Protocol):
    def fullmatch(self, path: bytes, /) -> object: ...


class CompareSettings(Protocol):
    """What the settings of an agent say of comparing (``AgentSettings`` has it)."""

    @property
    def policy_severities(self) -> Mapping[Policy, Severity]: ...
    @property
    def severity_files(self) -> Severity: ...
    @property
    def ignore_added(self) -> Sequence[_Pattern]: ...
    @property
    def ignore_missing(self) -> Sequence[_Pattern]: ...
    @property
    def ignore_modified(self) -> Sequence[_Pattern]: ...
    @property
    def report_full_detail(self) -> bool: ...
    @property
    def loose_dir_check(self) -> bool: ...


class ChangeKind(Enum):
    """The value is the code of the catalogue."""

    ADDED = "POLICY_ADDED"
    MISSING = "POLICY_MISSING"
    MODIFIED = "POLICY_MODIFIED"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference that is to be reported."""

    kind: ChangeKind
    path: bytes
    policy: Policy
    code: str
    """Ten letters; all ``-`` for added and missing."""
    severity: Severity
    fields: Mapping[str, FieldValue]
    """Printable values, the path and the policy among them."""


class Names(NamedTuple):
    """How numbers become names; looked up only for what is reported."""

    owner: Callable[[int], str]
    group: Callable[[int], str]
    algorithm: str
    """Of the digests."""


def compare(
    path: bytes,
    old: FileEntry | None,
    new: FileEntry | None,
    decision: Decision,
    settings: CompareSettings,
    names: Names,
    *,
    prefix: bytes | None = None,
) -> Change | None:
    """Return what is to be reported of one object; None where it is as it was.

    Args:
        old: what it was; None if it was not there.
        new: what it is; None if it is gone.
        prefix: digest of the first ``old.size`` bytes of a file that may grow.

    An object that cannot be examined now is neither changed nor gone: the walk reports it. One
    that could not be examined then is new as soon as it can.
    """
    if new is not None and not new.is_known:
        return None
    if old is not None and not old.is_known:
        old = None
    if old is None:
        return None if new is None else _added(path, new, decision, settings, names)
    if new is None:
        return _missing(path, old, decision, settings, names)
    if old.state == State.IMPORTED:
        new = _as_far_as_known(path, old, new)
    return _modified(path, old, new, decision, settings, names, prefix)


def change_code(old: FileEntry, new: FileEntry, mask: Check, *, prefix: bytes | None = None) -> str:
    """Return the ten letters, ``-`` for what is the same or is not compared."""
    bits = int(mask)
    is_other_type = stat.S_IFMT(old.mode) != stat.S_IFMT(new.mode)
    grew = bool(bits & Check.SGROW) and new.size > old.size and not is_other_type
    found = (
        bits & Check.CHK and _contents_differ(old, new, prefix if grew else None, is_other_type),
        bits & Check.LNK and (is_other_type or old.link != new.link),
        bits & Check.RDEV and old.rdev != new.rdev,
        bits & Check.INO and (old.inode != new.inode or _differ(old.birth_ns, new.birth_ns)),
        bits & Check.HLN and old.nlink != new.nlink,
        bits & Check.MOD and (old.mode != new.mode or _rights_differ(old, new)),
        bits & Check.USR and old.uid != new.uid,
        bits & Check.GRP and old.gid != new.gid,
        bool(_times(old, new, mask)),
        bits & Check.SIZ and old.size != new.size and not grew,
    )
    return "".join(
        letter if is_found else "-" for letter, is_found in zip(_LETTERS, found, strict=True)
    )


def is_same_inode(old: FileEntry, inode: int) -> bool:
    """Return whether ``old`` may be the object with this inode number, by all that is known."""
    if old.state == State.IMPORTED:
        inode &= _IMPORTED_INODE_BITS
    return old.inode == inode


def _as_far_as_known(path: bytes, old: FileEntry, new: FileEntry) -> FileEntry:
    """Return ``new`` with the values of an imported ``old`` where that cannot tell them apart."""

    def time(old_ns: int, new_ns: int) -> int:
        return old_ns if old_ns // _NS_PER_S == new_ns // _NS_PER_S else new_ns

    return new._replace(
        inode=old.inode if is_same_inode(old, new.inode) else new.inode,
        mtime_ns=time(old.mtime_ns, new.mtime_ns),
        ctime_ns=time(old.ctime_ns, new.ctime_ns),
        atime_ns=time(old.atime_ns, new.atime_ns),
        link=old.link if _is_imported_target(path, old.link, new.link) else new.link,
    )


def _is_imported_target(path: bytes, old: bytes | None, new: bytes | None) -> bool:
    if old is None or new is None:
        return False
    return old == path.rpartition(b"/")[0] + b"/" + new


def _differ(old: int | None, new: int | None) -> bool:
    return old != new and old is not None and new is not None


def _rights_differ(old: FileEntry, new: FileEntry) -> bool:
    return (
        _differ(old.flags, new.flags)
        or _differ(old.project, new.project)
        or bool(differing_names(old, new))
    )


def _contents_differ(
    old: FileEntry, new: FileEntry, prefix: bytes | None, is_other_type: bool
) -> bool:
    if is_other_type:
        return stat.S_ISREG(old.mode) or stat.S_ISREG(new.mode)
    if old.digest is None or new.digest is None:
        # Never read (another policy then, unreadable, unstable): the walk says so, not we.
        return False
    return old.digest != (new.digest if prefix is None else prefix)


def _times(old: FileEntry, new: FileEntry, mask: Check) -> list[str]:
    """Return the names of the times that differ and are compared."""
    found = []
    if Check.CTM in mask and old.ctime_ns != new.ctime_ns:
        found.append("ctime")
    # Only reading a link tells its target, and reading moves its access time: no news in that.
    if Check.ATM in mask and old.atime_ns != new.atime_ns and not stat.S_ISLNK(new.mode):
        found.append("atime")
    if Check.MTM in mask and old.mtime_ns != new.mtime_ns:
        found.append("mtime")
    return found


def _modified(
    path: bytes,
    old: FileEntry,
    new: FileEntry,
    decision: Decision,
    settings: CompareSettings,
    names: Names,
    prefix: bytes | None,
) -> Change | None:
    code = change_code(old, new, decision.mask, prefix=prefix)
    if code == _NONE or _matches(settings.ignore_modified, path):
        return None
    if settings.loose_dir_check and stat.S_ISDIR(new.mode) and set(code) <= set("TS-"):
        return None
    shown = _shown(old, new, code, decision.mask, is_full=settings.report_full_detail)
    if not settings.report_full_detail:
        old, new = only_differing(old, new), only_differing(new, old)
    before, after = _described(old, names), _described(new, names)
    fields: dict[str, FieldValue] = {
        "policy": decision.policy.value,
        "change": code,
        "path": escape_bytes(path),
    }
    for name in shown:
        old_value, new_value = before[name], after[name]
        if name in _MAY_BE_NONE and old_value is None and new_value is None:
            continue
        if old_value == new_value and name in _TIMES:
            # The same second: the difference is in what Samhain's form does not show.
            old_value = _time_text(_TIMES[name](old), with_ns=True)
            new_value = _time_text(_TIMES[name](new), with_ns=True)
        fields[f"{name}_old"] = old_value
        fields[f"{name}_new"] = new_value
    return Change(ChangeKind.MODIFIED, path, decision.policy, code, decision.severity, fields)


def _added(
    path: bytes, new: FileEntry, decision: Decision, settings: CompareSettings, names: Names
) -> Change | None:
    if _matches(settings.ignore_added, path):
        return None
    fields: dict[str, FieldValue] = {
        "policy": decision.policy.value,
        "path": escape_bytes(path),
        "size_old": 0,
    }
    fields |= _suffixed(_described(new, names), "_new")
    return Change(ChangeKind.ADDED, path, decision.policy, _NONE, decision.severity, fields)


def _missing(
    path: bytes, old: FileEntry, decision: Decision, settings: CompareSettings, names: Names
) -> Change | None:
    if _matches(settings.ignore_missing, path):
        return None
    is_ignored = decision.policy is Policy.IGNORE_ALL
    severity = decision.severity if is_ignored else settings.severity_files
    fields: dict[str, FieldValue] = {
        "policy": decision.policy.value,
        "path": escape_bytes(path),
        "size_new": 0,
    }
    fields |= _suffixed(_described(old, names), "_old")
    return Change(ChangeKind.MISSING, path, decision.policy, _NONE, severity, fields)


def _suffixed(described: Mapping[str, FieldValue], suffix: str) -> dict[str, FieldValue]:
    return {f"{name}{suffix}": value for name, value in described.items() if value is not None}


def _matches(patterns: Sequence[_Pattern], path: bytes) -> bool:
    return any(pattern.fullmatch(path) for pattern in patterns)


_LETTER_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "M": ("mode", "attr", "imode", "iattr"),
    "H": ("hardlinks",),
    "D": ("idevice",),
    "I": ("inode", "dev", "btime"),
    "U": ("owner", "iowner"),
    "G": ("group", "igroup"),
    "S": ("size",),
    "C": ("chksum",),
    "L": ("link",),
}
_TIMES: Final[Mapping[str, Callable[[FileEntry], int]]] = {
    "ctime": lambda entry: entry.ctime_ns,
    "atime": lambda entry: entry.atime_ns,
    "mtime": lambda entry: entry.mtime_ns,
}


def _shown(old: FileEntry, new: FileEntry, code: str, mask: Check, *, is_full: bool) -> list[str]:
    """Return the names of the attributes that a report shows, in Samhain's order."""
    wanted = {name for letter in code for name in _LETTER_FIELDS.get(letter, ())}
    wanted.update(_times(old, new, mask))
    if code[_LETTERS.index("L")] == "L":
        # A change of type is a change of the mode, whether or not the mask compares modes.
        wanted.update(("mode", "imode"))
    if code[_LETTERS.index("M")] == "M":
        wanted.update(_differing_rights(old, new))
    return [name for name in _FIELD_ORDER if is_full or name in wanted]


def _differing_rights(old: FileEntry, new: FileEntry) -> set[str]:
    """Return the names of the fields that show what differs beyond mode and flags."""
    found = {_XATTR_FIELDS.get(name, "xattr") for name in differing_names(old, new)}
    if _differ(old.project, new.project):
        found.add("project")
    return found


_XATTR_FIELDS: Final = {
    ACL_ACCESS: "acl",
    ACL_DEFAULT: "acl_default",
    CAPABILITY: "caps",
    LABEL: "selinux",
}
_MAY_BE_NONE: Final = frozenset({"attr", "iattr", "btime", "project", "xattr"}) | frozenset(
    _XATTR_FIELDS.values()
)
"""Shown of neither side where neither has it."""

_FIELD_ORDER: Final = (
    "mode",
    "attr",
    "imode",
    "iattr",
    "hardlinks",
    "idevice",
    "inode",
    "dev",
    "owner",
    "iowner",
    "group",
    "igroup",
    "size",
    "ctime",
    "atime",
    "mtime",
    "btime",
    "chksum",
    "link",
    "acl",
    "acl_default",
    "caps",
    "selinux",
    "xattr",
    "project",
)


def _described(entry: FileEntry, names: Names) -> dict[str, FieldValue]:
    """Return all attributes as a report shows them, in Samhain's order."""
    return {
        "mode": stat.filemode(entry.mode),
        "attr": flags_text(entry.flags),
        "imode": entry.mode,
        "iattr": entry.flags,
        "hardlinks": entry.nlink,
        "idevice": entry.rdev,
        "inode": entry.inode,
        "dev": f"{os.major(entry.device)},{os.minor(entry.device)}",
        "owner": names.owner(entry.uid),
        "iowner": entry.uid,
        "group": names.group(entry.gid),
        "igroup": entry.gid,
        "size": entry.size,
        "ctime": _time_text(entry.ctime_ns),
        "atime": _time_text(entry.atime_ns),
        "mtime": _time_text(entry.mtime_ns),
        # Only the nanoseconds tell apart what was made by the same script.
        "btime": None if entry.birth_ns is None else _time_text(entry.birth_ns, with_ns=True),
        "chksum": digest_text(entry.digest, names.algorithm) or _no_digest(entry),
        "link": None if entry.link is None else escape_bytes(entry.link),
        "acl": acl_text(xattr_value(entry, ACL_ACCESS), names.owner, names.group),
        "acl_default": acl_text(xattr_value(entry, ACL_DEFAULT), names.owner, names.group),
        "caps": capability_text(xattr_value(entry, CAPABILITY)),
        "selinux": label_text(xattr_value(entry, LABEL)),
        "xattr": xattrs_text(entry.xattrs),
        "project": entry.project,
    }


def _no_digest(entry: FileEntry) -> str | None:
    return {State.UNSTABLE: "unstable", State.UNREADABLE: "unreadable"}.get(State(entry.state))


def _time_text(time_ns: int, *, with_ns: bool = False) -> str:
    """Return a file's time in UTC without a zone; a time beyond the calendar as ``@seconds``."""
    seconds, nanoseconds = divmod(time_ns, _NS_PER_S)
    fraction = f".{nanoseconds:09d}" if with_ns else ""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return f"@{seconds}{fraction}"
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}"
